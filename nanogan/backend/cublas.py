"""Matrix products on a GPU through cuBLAS itself, called by ctypes.

CuPy's ``a @ b`` calls the same library, but it cannot add a product to what an array already holds, it rounds the
product of 16-bit matrices to 16 bits, and it refuses to be part of a CUDA graph. Here cuBLAS adds up in float32
whatever the factors are, and writes or adds float32.

cuBLAS keeps matrices column after column. A row-major matrix read like this is its transpose, and C = A B is the same
as C^T = B^T A^T: so the factors change places, and nothing is copied.

Types and names: https://docs.nvidia.com/cuda/cublas/#cublasgemmex
"""

import contextlib
import ctypes
import os

import numpy as np

TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}  # CUDA_R_32F, _64F, _16F, _16BF
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77
DEFAULT_ALGORITHM = -1
WORKSPACE = 32 << 20  # bytes, what NVIDIA recommends for Hopper

wanted = True  # False leaves products to CuPy: NANOGAN_FAST=0
_library = None  # None: not looked for; False: not there
_handles = {}  # (device, stream) -> Handle


class Handle:
    """A cuBLAS context for one stream, with a workspace that no other stream writes to."""

    def __init__(self, library, cupy, stream):
        self.library, self.pointer = library, ctypes.c_void_p()
        _check(library.cublasCreate_v2(ctypes.byref(self.pointer)))
        _check(library.cublasSetStream_v2(self.pointer, ctypes.c_void_p(stream)))
        self.workspace = cupy.cuda.alloc(WORKSPACE)  # set after the stream, which takes it away
        pointer, size = ctypes.c_void_p(self.workspace.ptr), ctypes.c_size_t(WORKSPACE)
        _check(library.cublasSetWorkspace_v2(self.pointer, pointer, size))


def available(cupy):
    """Whether cuBLAS can be called here; if not, CuPy's own products serve."""
    return wanted and bool(_loaded(cupy))


def product(a, b, *, out, add=False, tf32=False):
    """Write a @ b into ``out``, or add it to ``out``; return ``out``.

    a (M, K) and b (K, N) of one type: float32, float64, float16 or bfloat16. out (M, N), row-major, of the same type or
    of float32. ``tf32``: of float32 factors only 10 of 23 fraction bits are read. The call waits for nothing.
    """
    import cupy

    (M, K), N = a.shape, b.shape[1]
    assert b.shape[0] == K, f"a @ b expected matrices that fit, got {a.shape} and {b.shape}"
    assert a.dtype == b.dtype, f"a @ b expected one type, got {a.dtype} and {b.dtype}"
    assert out.shape == (M, N), f"out expected shape {(M, N)}, got {out.shape}"
    if not out.size:
        return out
    out_rows = _leading(out)
    assert out_rows is not None, "out expected rows without gaps"
    if not K:
        if not add:
            out[...] = 0
        return out
    a, a_transposed, a_leading = _operand(cupy, a)
    b, b_transposed, b_leading = _operand(cupy, b)
    exact = a.dtype == np.float64
    number = ctypes.c_double if exact else ctypes.c_float
    compute = COMPUTE_64F if exact else COMPUTE_32F_FAST_TF32 if tf32 and a.dtype == np.float32 else COMPUTE_32F
    kind, one, old = TYPES[a.dtype.name], number(1), number(1 if add else 0)
    handle = _handle(cupy)
    status = handle.library.cublasGemmEx(
        handle.pointer, int(b_transposed), int(a_transposed), N, M, K,
        ctypes.byref(one), b.data.ptr, kind, b_leading, a.data.ptr, kind, a_leading,
        ctypes.byref(old), out.data.ptr, TYPES[out.dtype.name], out_rows, compute, DEFAULT_ALGORITHM,
    )  # fmt: skip
    _check(status)
    return out


def forget(device, stream):
    """Give back the handle and the workspace of a stream that is no longer used."""
    handle = _handles.pop((device, stream), None)
    if handle is not None:
        handle.library.cublasDestroy_v2(handle.pointer)


def open_library(cupy):
    """Return the cuBLAS that CuPy has loaded, with the types of its functions. Raises OSError if it is not found."""
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    library = ctypes.CDLL(f"cublas64_{major}.dll" if os.name == "nt" else f"libcublas.so.{major}")
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    library.cublasCreate_v2.argtypes = [ctypes.POINTER(pointer)]
    library.cublasDestroy_v2.argtypes = [pointer]
    library.cublasSetStream_v2.argtypes = [pointer, pointer]
    library.cublasSetWorkspace_v2.argtypes = [pointer, pointer, ctypes.c_size_t]
    matrix = [pointer, integer, integer]
    library.cublasGemmEx.argtypes = [
        pointer, *5 * [integer], pointer, *matrix, *matrix, pointer, *matrix, integer, integer
    ]  # fmt: skip
    return library


def _loaded(cupy):
    global _library
    if _library is None:
        _library = False
        with contextlib.suppress(OSError, AttributeError):  # a library without a function that is used
            _library = open_library(cupy)
    return _library


def _handle(cupy):
    """The handle of the current device and stream."""
    key = cupy.cuda.Device().id, cupy.cuda.get_current_stream().ptr
    if key not in _handles:
        _handles[key] = Handle(_loaded(cupy), cupy, key[1])
    return _handles[key]


def _leading(x):
    """Numbers from one row of x (M, K) to the next if a row has no gaps, else None."""
    (M, K), size = x.shape, x.dtype.itemsize
    if K > 1 and x.strides[1] != size:
        return None
    if M <= 1:
        return max(1, K)
    rows, rest = divmod(x.strides[0], size)
    return rows if rows >= max(1, K) and not rest else None


def _operand(cupy, x):
    """Return x, whether cuBLAS is to transpose it, and its leading dimension. Copied only if it has gaps both ways."""
    for matrix, transposed in ((x, False), (x.T, True)):
        leading = _leading(matrix)
        if leading is not None:
            return x, transposed, leading
    x = cupy.ascontiguousarray(x)
    return x, False, max(1, x.shape[1])


def _check(status):
    if status:
        raise RuntimeError(f"cuBLAS failed with status {status}")
