"""cuBLAS's C functions over the double's arrays, called as through ctypes.

What cuBLAS would answer with an error, or would not do as the caller thinks, is an AssertionError that says why. Every
function returns 0, CUBLAS_STATUS_SUCCESS.
"""

import ctypes
import functools
import itertools

import numpy as np

from tests.strict_cupy import streams

FLOAT32, FLOAT64, FLOAT16, BFLOAT16 = 0, 1, 2, 14  # cudaDataType
IN_32F, FAST_TF32, IN_64F = 68, 77, 70  # cublasComputeType_t
TF32_MATH = 3  # cublasMath_t
ALGORITHMS = (-1, 99)  # default, default on tensor cores
TYPES = {  # compute type -> types of A, B and C
    IN_32F: {(t, t, c) for t in (FLOAT32, FLOAT16, BFLOAT16) for c in {t, FLOAT32}},
    FAST_TF32: {(FLOAT32, FLOAT32, FLOAT32)},
    IN_64F: {(FLOAT64, FLOAT64, FLOAT64)},
}


class Library:
    """The library; its functions take attributes, as ``argtypes``."""

    def __init__(self):
        self._handles, self._numbers = {}, itertools.count(7000)
        for name in ("cublasCreate_v2", "cublasDestroy_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2"):
            setattr(self, name, functools.partial(getattr(self, f"_{name[6:-3]}")))
        self.cublasSetMathMode = functools.partial(self._SetMathMode)
        self.cublasGemmEx = functools.partial(self._GemmEx)

    def _Create(self, handle):
        number = next(self._numbers)
        _pointed_to(handle).value = number
        self._handles[number] = _Handle()
        return 0

    def _Destroy(self, handle):
        self._of(handle)
        del self._handles[_number(handle)]
        return 0

    def _SetStream(self, handle, stream):
        handle, pointer = self._of(handle), _number(stream)
        assert pointer == 0 or pointer in streams.Stream._alive, f"there is no stream {pointer}"
        handle.stream = pointer
        handle.lost_workspace, handle.workspace = handle.workspace, None
        return 0

    def _SetWorkspace(self, handle, pointer, size):
        handle = self._of(handle)
        _memory(_number(pointer), _number(size), "the workspace")
        handle.workspace, handle.lost_workspace = (_number(pointer), _number(size)), None
        return 0

    def _SetMathMode(self, handle, mode):
        self._of(handle).mode = _number(mode)
        return 0

    def _GemmEx(self, handle, transa, transb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc, *how):
        """C = alpha op(A) op(B) + beta C, of column-major matrices op(A) (m, k), op(B) (k, n) and C (m, n)."""
        handle = self._of(handle)
        transa, transb, m, n, k, lda, ldb, ldc = map(_number, (transa, transb, m, n, k, lda, ldb, ldc))
        compute, algorithm = map(_number, how)
        types = tuple(map(_number, (Atype, Btype, Ctype)))
        assert compute in TYPES, f"compute type {compute} is not in the double"
        assert types in TYPES[compute], f"cuBLAS has no product of the types {types} in compute type {compute}"
        assert algorithm in ALGORITHMS, f"algorithm {algorithm} is not in the double"
        assert {transa, transb} <= {0, 1}, f"op is 0 or 1, got {transa} and {transb}"
        assert min(m, n, k) >= 0, f"sizes are not negative, got {m}, {n}, {k}"
        scalar = ctypes.c_double if compute == IN_64F else ctypes.c_float
        alpha, beta = _scalar(alpha, scalar), _scalar(beta, scalar)
        stream = streams.current_stream()
        assert handle.stream == stream.ptr, "the handle's stream is not the current one: cublasSetStream"
        assert handle.lost_workspace is None, "cublasSetStream has reset the workspace: set it afterwards"
        assert not stream.is_capturing() or handle.workspace, "a captured product needs cublasSetWorkspace"
        if m == 0 or n == 0:
            return 0
        a = _matrix("A", A, types[0], (k, m) if transa else (m, k), lda)
        b = _matrix("B", B, types[1], (n, k) if transb else (k, n), ldb)
        c = _matrix("C", C, types[2], (m, n), ldc)
        a, b = a.T if transa else a, b.T if transb else b
        working = np.float64 if compute == IN_64F else np.float32
        short = compute == FAST_TF32 or (handle.mode == TF32_MATH and types[0] == FLOAT32)

        def product():
            factors = [np.ascontiguousarray(factor, working) for factor in (a, b)]
            if short:
                factors = [_tf32(factor) for factor in factors]
            result = working(alpha) * (factors[0] @ factors[1])
            c[...] = result if beta == 0 else result + working(beta) * c.astype(working)  # C may hold NaN

        stream._launch("gemm", product)
        return 0

    def _of(self, handle):
        assert _number(handle) in self._handles, f"CUBLAS_STATUS_NOT_INITIALIZED: no handle {_number(handle)}"
        handle = self._handles[_number(handle)]
        assert handle.device == streams.current_device(), "a handle is used while another device is current"
        return handle


class _Handle:
    def __init__(self):
        self.device, self.stream, self.mode = streams.current_device(), 0, 0
        self.workspace = self.lost_workspace = None


def _number(value):
    """The number in an argument: Python's, or one of ctypes."""
    return int((value.value or 0) if isinstance(value, ctypes._SimpleCData) else value)


def _pointed_to(pointer):
    """What ``ctypes.byref`` or ``ctypes.pointer`` points to."""
    return pointer._obj if hasattr(pointer, "_obj") else pointer.contents


def _scalar(pointer, kind):
    value = _pointed_to(pointer)
    assert isinstance(value, kind), f"alpha and beta are {kind.__name__} here, got {type(value).__name__}"
    return value.value


def _memory(start, size, name):
    """The array on the device that holds ``size`` bytes from the address ``start``."""
    for begin, end, array in list(streams.live.values()):
        if begin <= start and start + size <= end and array() is not None:
            array = array()
            assert array._device == streams.current_device(), f"{name} is on another device"
            return array
    raise AssertionError(f"{name}: {size} bytes from {start} are not in an array on the device")


def _matrix(name, pointer, kind, shape, leading):
    """A view of the column-major matrix at an address."""
    rows, columns = shape
    assert leading >= max(1, rows), f"the leading dimension of {name} is {leading}, less than its {rows} rows"
    dtype = _dtype(kind)
    if rows == 0 or columns == 0:
        return np.empty(shape, dtype)
    start, size = _number(pointer), ((columns - 1) * leading + rows) * dtype.itemsize
    assert start % dtype.itemsize == 0, f"{name} is at {start}, which is no multiple of {dtype.itemsize}"
    array = _memory(start, size, name)
    graph = streams.current_stream()._graph
    if graph is not None:
        graph._uses(array)
    memory = np.frombuffer((ctypes.c_char * size).from_address(start), dtype)
    view = np.lib.stride_tricks.as_strided(memory, shape, (dtype.itemsize, leading * dtype.itemsize))
    return _Kept.of(view, array._host)


class _Kept(np.ndarray):
    """A view by address that keeps the memory, as long as a graph may use it."""

    @classmethod
    def of(cls, view, memory):
        view = view.view(cls)
        view.memory = memory
        return view

    def __array_finalize__(self, parent):
        self.memory = getattr(parent, "memory", None)


def _dtype(kind):
    if kind == BFLOAT16:
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype({FLOAT32: np.float32, FLOAT64: np.float64, FLOAT16: np.float16}[kind])


def _tf32(x):
    """float32 rounded to 10 fraction bits, to the nearest."""
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
