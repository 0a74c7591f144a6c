"""How long calls take: by the host's clock, or by the GPU's. For benchmarks that torch is not needed for, too."""

import time

import numpy as np


def seconds(function, calls=1, wait=lambda: None):
    """Return the seconds of one of ``calls`` calls, by the host's clock; ``wait`` returns when the device is idle."""
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    wait()
    return (time.perf_counter() - start) / calls


def seconds_on_the_gpu(cupy, function, calls, before=lambda: None):
    """Return the seconds of one of ``calls`` calls, by the GPU's clock; ``before`` queues work ahead of them."""
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    before()
    begin.record()
    for _ in range(calls):
        function()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(begin, end) / 1e3 / calls


def copying(cupy):
    """Return the bytes that a copy within the GPU reads and writes, and a function that copies."""
    size = min(1 << 30, cupy.cuda.runtime.memGetInfo()[0] // 8)
    source, copy = cupy.ones(size, np.uint8), cupy.empty(size, np.uint8)
    return 2 * size, lambda: cupy.copyto(copy, source)
