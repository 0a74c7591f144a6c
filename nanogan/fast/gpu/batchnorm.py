"""Batch normalisation in four walks over x and three over memory that is written, and no array of xhat kept.

The readable operation (:mod:`nanogan.ops.batchnorm`) walks about fifteen times. Here the cache holds x itself, and
xhat = (x - shift - offset) * inv_std is computed again where it is needed, which costs nothing beside reading x.

``shift`` is a row of x, close to the mean: x - shift is then of the order of the spread, and its mean, ``offset``, is
known to float32's precision of that spread. The mean itself would be rounded to 1e-7 of its own size, however small the
spread.
"""

import cupy
import numpy as np

from nanogan import ops
from nanogan.dispatch import register
from nanogan.ops import batchnorm
from nanogan.ops.checks import check_dy
from nanogan.ops.rows import from_rows, to_rows

SHIFTED = cupy.ElementwiseKernel("T x, T shift", "T y", "y = x - shift", "nanogan_bn_shifted")
SQUARES = cupy.ElementwiseKernel(
    "T x, T shift, T offset", "T y", "const T c = x - shift - offset; y = c * c", "nanogan_bn_squares"
)
NORMALISE = cupy.ElementwiseKernel(
    "T x, T shift, T offset, T scale, T beta", "T y", "y = (x - shift - offset) * scale + beta", "nanogan_bn_normalise"
)
PRODUCTS = cupy.ElementwiseKernel(  # dy * xhat, to be summed to dgamma
    "T dy, T x, T shift, T offset, T inv_std", "T y", "y = dy * ((x - shift - offset) * inv_std)", "nanogan_bn_products"
)
BACKWARD = cupy.ElementwiseKernel(  # dx = gamma * inv_std * (dy - mean(dy) - xhat * mean(dy * xhat))
    "T dy, T x, T shift, T offset, T inv_std, T gamma, T mean_dy, T mean_dy_xhat",
    "T dx",
    "dx = gamma * inv_std * (dy - mean_dy - (x - shift - offset) * inv_std * mean_dy_xhat)",
    "nanogan_bn_backward",
)


def column_sum(rows):
    """:func:`nanogan.ops.rows.column_sum`, with sums in place of a product by ones: cuBLAS is slow at those."""
    M, C = rows.shape
    block = max(1, int(M**0.5))
    whole = M // block * block
    sums = rows[:whole].reshape(-1, block, C).sum(axis=1).sum(axis=0)
    return sums if whole == M else sums + rows[whole:].sum(axis=0)


def serves(x, gamma, beta, running_mean, running_var, *, train=True, momentum=0.1, eps=1e-5):
    """Whether a batch in train mode is what the operation takes; eval mode and mistakes are left to it."""
    arrays = gamma, beta, running_mean, running_var
    right = x.ndim in (2, 4) and x.dtype in (np.float32, np.float64) and x.size // max(1, x.shape[1]) > 1
    alike = all(type(a) is type(x) and a.dtype == x.dtype and a.shape == (x.shape[1],) for a in arrays)
    return train and right and alike


def batchnorm_forward(x, gamma, beta, running_mean, running_var, *, train=True, momentum=0.1, eps=1e-5):
    """The same as :func:`nanogan.ops.batchnorm_forward` in train mode. The cache holds x by reference."""
    rows = to_rows(x)  # (M, C)
    M = len(rows)
    momentum, eps = float(momentum), float(eps)
    shift = rows[0].copy()  # (C,)
    offset = column_sum(SHIFTED(rows, shift)) / M  # (C,): the mean is shift + offset
    var = column_sum(SQUARES(rows, shift, offset)) / M  # (C,)
    running_mean *= 1 - momentum
    running_mean += momentum * (shift + offset)
    running_var *= 1 - momentum
    running_var += momentum * M / (M - 1) * var
    inv_std = 1 / cupy.sqrt(var + eps)  # (C,)
    y = NORMALISE(rows, shift, offset, gamma * inv_std, beta)
    return batchnorm._like(y, x), (rows, shift, offset, inv_std, gamma, x.shape)


def batchnorm_backward(dy, cache, need_dx=True, need_dw=True):
    """The same as :func:`nanogan.ops.batchnorm_backward`."""
    rows, shift, offset, inv_std, gamma, shape = cache
    check_dy("BatchNorm", dy, shape, rows.dtype)
    dy_rows = to_rows(dy)  # (M, C)
    M = len(dy_rows)
    dgamma = column_sum(PRODUCTS(dy_rows, rows, shift, offset, inv_std))  # (C,)
    dbeta = column_sum(dy_rows)  # (C,)
    dx = None
    if need_dx:
        dx = BACKWARD(dy_rows, rows, shift, offset, inv_std, gamma, dbeta / M, dgamma / M)
        dx = dx if len(shape) == 2 else from_rows(dx, shape[0], shape[2], shape[3])
    return (dx, dgamma, dbeta) if need_dw else (dx, None, None)


register("gpu", ops.batchnorm_forward, batchnorm_forward, batchnorm_backward, serves=serves)
