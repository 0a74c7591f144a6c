"""How fast the GPU copies, multiplies and launches; nothing here can be wrong."""

import functools
import os
import statistics

import numpy as np

from benchmarks import timing
from benchmarks.timing import copying, seconds_on_the_gpu
from nanogan import backend
from nanogan.backend import cublas, to_device


def ceilings(device):
    """Ask how fast memory, products and launches are."""
    if device.kind == "cpu":
        yield "ceilings", lambda: (None, "not asked of a CPU: benchmarks.step measures them")
        return
    cupy = device.array_module

    def seconds(function, calls, rounds=3):
        function()
        return max(statistics.median(seconds_on_the_gpu(cupy, function, calls) for _ in range(rounds)), 1e-12)

    def copied():
        size, copy = copying(cupy)
        return None, f"{size / seconds(copy, 5) / 1e12:.2f} TB/s, read and written"

    @functools.cache
    def matrices():
        rng, M = np.random.default_rng(0), 8192
        return *(to_device(rng.standard_normal((M, M), dtype=np.float32), device) for _ in range(2)), cupy.empty((M, M))

    def multiplied(dtype, tf32=False):
        a, b, _ = matrices()
        a, b = (x.astype(dtype) for x in (a, b))
        out = cupy.empty(a.shape, np.float32)
        took = seconds(lambda: cublas.product(a, b, out=out, tf32=tf32), 3)
        return None, f"{2 * len(a) ** 3 / took / 1e12:.0f} TFLOP/s, 8192 x 8192 matrices"

    def host(function, calls=2000):
        function()
        cupy.cuda.get_current_stream().synchronize()
        return None, f"{timing.seconds(function, calls) * 1e6:.1f} microseconds of the host"

    def small(*shape):
        return cupy.ones(shape, np.float32)

    def launch():
        x, y = small(64, 64), small(64, 64)
        return host(lambda: cupy.add(x, y, out=y))

    def product():
        a, b, out = small(64, 64), small(64, 64), small(64, 64)
        return host(lambda: cublas.product(a, b, out=out))

    def accelerators():
        """What computes sums and means, in a recording too; with an empty one CuPy's own kernels do."""
        return None, repr(os.environ.get("CUPY_ACCELERATORS", "cub, by default"))

    yield "CUPY_ACCELERATORS", accelerators
    yield "copy within the GPU", copied
    yield "cuBLAS, float32", lambda: multiplied(np.float32)
    yield "cuBLAS, tf32", lambda: multiplied(np.float32, True)
    yield "cuBLAS, bf16 to float32", lambda: multiplied(backend.precision._bfloat16())
    yield "cuBLAS, fp16 to float32", lambda: multiplied(np.float16)
    yield "a kernel's launch through CuPy", launch
    yield "a product's call through ctypes", product
