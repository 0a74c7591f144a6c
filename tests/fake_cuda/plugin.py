"""Lets pytest run the tests for GPUs on the fake driver: FOLDER/venv/bin/python -m pytest -p tests.fake_cuda.plugin

What fails by its values says nothing, as none are computed; an error of CuPy, of NVRTC or of CUDA would be a GPU's too.
Tests that compare with torch need it in the folder's environment: FOLDER/venv/bin/python -m pip install torch scipy
"""

from tests.fake_cuda import driver

driver.use()
