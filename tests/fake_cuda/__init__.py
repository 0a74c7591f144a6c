"""A CUDA driver that keeps books and computes nothing: it counts launches and tries captures where there is no GPU.

The real CuPy runs on it, its own host code unchanged, and the real NVRTC compiles every kernel for sm_90. Device memory
is host memory, zero at first; copies and fills are done, kernels and matrix products are noted and not run.

What is real: which kernels are launched and how often, dtypes, strides, contiguity copies, signatures, memory pools,
waits, CuPy's refusals while a stream is captured, compile errors, and CUDA's refusals of a wait during a capture, a
block of too many threads, too much shared memory, a kernel that the module does not hold, a matrix product whose
leading dimension is too small. What is not: values, times on the device, the order of what runs on two streams, and
CUB's reductions, which need a real driver (CuPy's own take their place).

    python -m tests.fake_cuda.build FOLDER                                            once; a minute
    NANOGAN_FAKE_CUDA=FOLDER python -m pytest tests/test_launches.py                  the limits of a step's launches
    FOLDER/venv/bin/python -m tests.fake_cuda.step mnist float32                      one step, counted
    FOLDER/venv/bin/python -m pytest -p tests.fake_cuda.plugin -m gpu tests/fast      tests for GPUs; values are wrong

All are started in the checkout. In a program of one's own, import :mod:`tests.fake_cuda.driver` before ``cupy``.
"""
