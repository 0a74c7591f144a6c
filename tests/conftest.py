"""What all tests share: the array libraries, and a data folder that holds nothing unless a test asks for it."""

import atexit
import os
import shutil
import signal
import sys
import tempfile

import hypothesis
import numpy as np
import pytest

from nanogan import backend
from nanogan.errors import DeviceError
from tests import strict_cupy

REAL_DATA = os.environ.get("NANOGAN_DATA")

# The same examples in every run, so that a failure is never the luck of a draw; "thorough" looks for new ones.
hypothesis.settings.register_profile("default", max_examples=200, derandomize=True, deadline=None, database=None)
UNSHRUNK = hypothesis.Phase.explicit, hypothesis.Phase.generate  # tests/sabotage asks only whether a test fails
hypothesis.settings.register_profile("sabotage", hypothesis.settings.get_profile("default"), phases=UNSHRUNK)
hypothesis.settings.register_profile("thorough", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


# Kernels are compiled once for all processes of a run: see tests/strict_cupy/kernels.py.
if "NANOGAN_TEST_KERNELS" not in os.environ:
    os.environ["NANOGAN_TEST_KERNELS"] = tempfile.mkdtemp(prefix="nanogan-kernels-")
    atexit.register(shutil.rmtree, os.environ["NANOGAN_TEST_KERNELS"], ignore_errors=True)


def pytest_collection_finish(session):
    """Give torch one thread: its threads spin while they wait, and where others compute too, seconds become minutes."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _gpu_problem():
    try:
        backend.get_device("gpu")
    except DeviceError as error:
        return str(error)
    return None


GPU_PROBLEM = _gpu_problem()


@pytest.fixture(params=["cpu", "double", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    """The device to compute on: the CPU; a GPU in its strict double's hands; a real one, or skipped with the reason."""
    if request.param == "gpu" and GPU_PROBLEM:
        pytest.skip(GPU_PROBLEM)
    if request.param == "double":
        strict_cupy.install(request.getfixturevalue("monkeypatch"))
    return "cpu" if request.param == "cpu" else "gpu"


@pytest.fixture
def double(monkeypatch):
    """The strict stand-in for CuPy, in CuPy's place; its devices are "gpu" and "gpu:1"."""
    return strict_cupy.install(monkeypatch)


@pytest.fixture(params=["double", pytest.param("real", marks=pytest.mark.gpu)])
def gpu(request, monkeypatch):
    """CuPy, or its strict stand-in."""
    if request.param == "double":
        return strict_cupy.install(monkeypatch)
    if GPU_PROBLEM:
        pytest.skip(GPU_PROBLEM)
    return sys.modules["cupy"]


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_works():
    """Where the tests run in a shell's background (nohup pytest &), Ctrl-C is ignored, in started processes too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(autouse=True)
def no_data_of_this_machine(monkeypatch, tmp_path_factory):
    """Neither the user's data nor the network: what a test finds is what it made."""
    monkeypatch.delenv("NANOGAN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "empty-cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path_factory.getbasetemp() / "empty-cache"))


@pytest.fixture
def real_data():
    """The folder of real data sets, named by NANOGAN_DATA where the tests were started."""
    if not REAL_DATA:
        pytest.skip("NANOGAN_DATA names no folder of real data sets")
    return REAL_DATA
