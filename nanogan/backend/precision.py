"""What matrix products read of float32 arrays: all of it, TF32, fp16 or bf16."""

import sys

import numpy as np

from nanogan.backend import cublas, devices
from nanogan.backend.arrays import array_module
from nanogan.errors import UserError

PRECISIONS = ("float32", "tf32", "fp16", "bf16")
_precision = "float32"


def matmul_precision():
    """Return the name that :func:`set_matmul_precision` set last; "float32" if none."""
    return _precision


def set_matmul_precision(name):
    """Choose what the matrix products of float32 arrays read: all else, and all sums, stay in float32.

    - "float32": the arrays as they are. The default: a GPU's results are the CPU's but for rounding.
    - "tf32": on a GPU since Ampere, float32 of which the product reads 10 of 23 fraction bits.
    - "fp16": 16-bit floating point, 10 fraction bits, from 6e-8 to 65504. Small gradients become 0: see the optimisers'
      ``loss_scaling``.
    - "bf16": 16 bits with float32's range and 7 fraction bits. On a GPU it needs the package ml_dtypes.

    Products of 16-bit numbers are added up in float32 and stay float32, where torch.autocast rounds them to 16 bits
    again. On the CPU fp16 and bf16 are emulated, for study: the same numbers, more slowly. float64 arrays are left
    alone.

    Raises UserError for another name, or if the device in use cannot do it.
    """
    global _precision
    if name not in PRECISIONS:
        raise UserError(f"unknown precision {name!r}: use one of {', '.join(PRECISIONS)}")
    cupy = sys.modules.get("cupy")
    if name == "tf32" and not devices._probed:
        raise UserError("precision tf32 expected a GPU in use: choose the device first, or use float32")
    if name == "tf32" and int(cupy.cuda.Device().compute_capability) < 80:
        raise UserError("precision tf32 expected a GPU of compute capability 8.0 (Ampere) or newer: use float32")
    if name == "bf16" and devices._probed:
        _bfloat16()
    _precision = name
    if cupy is not None and devices._probed:
        _tell_cublas(cupy)


def _tell_cublas(cupy):
    """Set how CuPy's matrix products of float32 read their arrays; CUPY_TF32 in the environment does not count."""
    linalg = cupy._core._routines_linalg
    chosen = linalg.COMPUTE_TYPE_TF32 if _precision == "tf32" else linalg.COMPUTE_TYPE_FP32
    linalg.set_compute_type(np.float32, chosen)


def _bfloat16():
    try:
        import ml_dtypes
    except ImportError:
        raise UserError("precision bf16 on a GPU expected the package ml_dtypes: pip install ml_dtypes") from None
    return np.dtype(ml_dtypes.bfloat16)


def product(a, b):
    """a @ b for two matrices, in the precision that :func:`set_matmul_precision` chose; float32 in is float32 out."""
    if isinstance(a, np.ndarray):
        if _reads_all_of(a):
            return a @ b
        with np.errstate(over="ignore", invalid="ignore"):  # beyond 65504 fp16 is infinite, and training reports it
            return _rounded(a) @ _rounded(b)
    cupy = array_module(a)
    dtype = a.dtype if _reads_all_of(a) else np.dtype(np.float32)
    a, b = _as_read(a), _as_read(b)
    if cublas.available(cupy):
        return cublas.product(a, b, out=cupy.empty((a.shape[0], b.shape[1]), dtype), tf32=_precision == "tf32")
    return a.astype(dtype, copy=False) @ b.astype(dtype, copy=False)


def add_product(out, a, b):
    """out += product(a, b) for a matrix ``out`` whose rows have no gaps: what a weight's gradient gets."""
    if not isinstance(a, np.ndarray) and cublas.available(array_module(a)):
        cublas.product(_as_read(a), _as_read(b), out=out, add=True, tf32=_precision == "tf32")
    else:
        out += product(a, b)


def narrow(x):
    """Return x as :func:`product` is going to read it, in half the bytes where a GPU is set to 16 bits."""
    return x if isinstance(x, np.ndarray) or x.dtype != np.float32 else _as_read(x)


def _reads_all_of(x):
    """Whether a product reads the numbers of x as they are, or but for TF32's cut, which cuBLAS makes."""
    return _precision in ("float32", "tf32") or x.dtype == np.float64


def _as_read(x):
    """x of a GPU in the dtype in which a product reads it."""
    if _reads_all_of(x):
        return x
    return x.astype(np.float16 if _precision == "fp16" else _bfloat16(), copy=False)


def _rounded(x):
    """float32 -> the nearest number of the chosen 16-bit format, in float32."""
    if _precision == "fp16":
        return x.astype(np.float16).astype(np.float32)
    # bfloat16 is float32 without its last 16 bits; to the nearest, and to the even one of two that are equally near
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(x), rounded.view(np.float32), x)


devices.when_first_used.append(_tell_cublas)
