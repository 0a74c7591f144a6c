"""Check the fake driver itself, with the real CuPy on it: FOLDER/venv/bin/python -m tests.fake_cuda.check"""

import contextlib
import ctypes
from collections import Counter

import numpy as np
import pytest

from tests.fake_cuda import driver

import cupy  # isort: skip  # after the driver
import cupy.cublas  # isort: skip

Error = cupy.cuda.runtime.CUDARuntimeError
FLOAT32, COMPUTE_FLOAT32 = 0, 68


def main():
    checks = [check for name, check in globals().items() if name.startswith("check_")]
    for check in checks:
        driver.clear()
        check()
    print(f"{len(checks)} checks passed")


def refused(error, kind=Error):
    """Expect an exception that names ``error``."""
    return pytest.raises(kind, match=error)


@contextlib.contextmanager
def captured(error=None):
    """A stream that is being captured; its end must fail with ``error``. Yields the stream and a list for the graph."""
    stream, graphs = cupy.cuda.Stream(non_blocking=True), []
    with stream:
        stream.begin_capture()
        yield stream, graphs
        with refused(error) if error else contextlib.nullcontext():
            graphs.append(stream.end_capture())
    assert not stream.is_capturing()


def check_copies_waits_and_kernels_are_counted():
    a = cupy.asarray(np.arange(6, dtype=np.float32))
    b = a + 1
    assert (a.get() == np.arange(6)).all(), "copies are done"
    assert (b.get() == 0).all(), "kernels are not, and memory is zero at first"
    cupy.cuda.Device().synchronize()
    assert driver.launches()["cupy_add__float32_float_float32"] == 1
    assert driver.copies() == Counter({"host to device": 1, "device to host": 2})
    assert driver.device_syncs() == Counter({"cudaStreamSynchronize": 2, "cudaDeviceSynchronize": 1})


def check_products_are_noted():
    cupy.zeros((2, 3), np.float32) @ cupy.zeros((3, 5), np.float32)
    cupy.zeros((2, 3), np.float64) @ cupy.zeros((3, 5), np.float64)
    assert driver.products() == [(5, 2, 3, 0, 0, 0, 68, 0), (5, 2, 3, 1, 1, 1, 70, 0)]  # of column-major matrices
    cupy.cublas.gemm("N", "N", cupy.zeros((2, 3), np.float32), cupy.zeros((3, 5), np.float32))
    cupy.cublas.nrm2(cupy.zeros(3, np.float32))  # a function that build.py wrote
    counts = driver.launches()
    assert (counts["cublasGemmEx"], counts["cublasSgemm"], counts["cublasSnrm2_v2"]) == (2, 1, 1), counts


def check_memory_is_counted():
    (before, _), pool = driver.bytes_in_use(), cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        a = cupy.empty(1 << 20, np.uint8)
        assert driver.bytes_in_use() == (before + (1 << 20), before + (1 << 20))
        del a
        cupy.empty(1 << 20, np.uint8)
        assert driver.allocations() == Counter({"cudaMalloc": 1}), "the second one is the pool's"
        with refused("Out of memory", cupy.cuda.memory.OutOfMemoryError):
            cupy.empty(1 << 40, np.uint8)
    pool.free_all_blocks()
    assert driver.bytes_in_use()[0] == before


def check_a_graph_holds_what_was_captured():
    lib = ctypes.CDLL("libcublas.so.13")
    handle, one, size = ctypes.c_void_p(), ctypes.c_float(1), ctypes.c_int(4)
    a, other = cupy.zeros((4, 4), np.float32), cupy.cuda.Stream(non_blocking=True)
    assert lib.cublasCreate_v2(ctypes.byref(handle)) == 0
    p = ctypes.c_void_p(a.data.ptr)
    A = p, FLOAT32, size
    gemm = handle, 0, 0, size, size, size, ctypes.byref(one), *A, *A, ctypes.byref(one), *A, COMPUTE_FLOAT32, -1
    pool = cupy.cuda.MemoryPool()
    driver.clear()
    with captured() as (stream, graphs), cupy.cuda.using_allocator(pool.malloc):
        assert lib.cublasSetStream_v2(handle, ctypes.c_void_p(stream.ptr)) == 0
        assert lib.cublasSetWorkspace_v2(handle, p, ctypes.c_size_t(64)) == 0
        assert lib.cublasGemmEx(*gemm) == 0
        assert a.sum() is not None
        other.wait_event(stream.record())  # and so it is captured too
        with other:
            a.fill(0)
        stream.wait_event(other.record())
        with refused("cuBLAS", NotImplementedError):  # CuPy's own refusal
            a @ a
    inside = driver.launches(captured=True)
    assert inside == Counter(["cublasGemmEx", "cupy_sum", "cudaMemsetAsync"]), inside
    assert driver.allocations(captured=True)["cudaMalloc"] == 1, "the private pool was empty"
    assert (driver.launches(), driver.device_syncs()) == (Counter(), Counter())
    graphs[0].launch(stream)
    (launch,) = (r for r in driver.records() if r.kind == "graph")
    assert launch.numbers[0] == 3
    assert driver.launches() == Counter({"cudaGraphLaunch": 1})
    assert lib.cublasGemmEx(*gemm[:9], 3, *gemm[10:]) == 7, "A has 4 rows, and its leading dimension cannot be 3"


def check_a_wait_during_a_capture_is_refused():
    waits = {
        "cudaStreamSynchronize": lambda stream, event: stream.synchronize(),
        "cudaDeviceSynchronize": lambda stream, event: cupy.cuda.Device().synchronize(),
        "cudaMemcpy": lambda stream, event: cupy.cuda.runtime.memcpy(event, event, 0, 3),
    }
    for name, wait in waits.items():
        driver.clear()
        with captured("cudaErrorStreamCaptureInvalidated") as (stream, _):
            with refused("cudaErrorStreamCaptureUnsupported"):
                wait(stream, 0)
            with refused("cudaErrorStreamCaptureInvalidated"):
                cupy.zeros(3, np.float32).fill(1)
        assert driver.device_syncs() == Counter({name: 1})
    with captured("cudaErrorStreamCaptureInvalidated") as (stream, _):
        event = stream.record()
        with refused("cudaErrorCapturedEvent"):
            event.synchronize()


def check_a_capture_waits_for_no_event_of_before():
    event = cupy.cuda.Stream.null.record()
    with captured("cudaErrorStreamCaptureInvalidated") as (stream, _), refused("cudaErrorStreamCaptureIsolation"):
        stream.wait_event(event)


def check_a_launch_that_no_gpu_takes_is_refused():
    module = cupy.RawModule(code='extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= 2; }')
    twice, x = module.get_function("twice"), cupy.zeros(4, np.float32)
    twice((1,), (4,), (x,))
    assert driver.launches()["twice"] == 1
    for grid, block, shared in (((1,), 1025, 0), ((1, 65536), 4, 0), ((1,), 4, 49153)):
        with refused("InvalidValue", cupy.cuda.driver.CUDADriverError):
            twice(grid, (block,), (x,), shared_mem=shared)
    with refused("NOT_FOUND", cupy.cuda.driver.CUDADriverError):
        module.get_function("thrice")
    with refused("error", cupy.cuda.compiler.CompileException):
        cupy.RawModule(code='extern "C" __global__ void wrong() { return 1 }').get_function("wrong")


if __name__ == "__main__":
    main()
