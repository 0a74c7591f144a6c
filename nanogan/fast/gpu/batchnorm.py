"""Batch normalisation in three kernels forward and three backward, with the ReLU or LeakyReLU that follows it.

The readable operation (:mod:`nanogan.ops.batchnorm`) walks about fifteen times over memory and launches some twenty
kernels. Here x is read twice, y is written once, and no array of xhat is kept: ``batchnorm.cu`` computes it again. The
activation costs nothing: each number is in a register already.
"""

import cupy
import numpy as np

from nanogan import ops
from nanogan.dispatch import adds_gradients, register
from nanogan.fast.gpu.sources import BLOCKS, NUMBERS, THREADS, blocks_for, kernel, width_of
from nanogan.fast.with_activation import NONE, register_pairs
from nanogan.ops import batchnorm
from nanogan.ops.checks import check_dy
from nanogan.ops.rows import to_rows

LANES, ROWS = 32, 8  # of a block in batchnorm.cu
LARGEST = 2**31 - 2**20  # numbers: the kernels count in 32 bits, one grid beyond the end


def serves(x, gamma, beta, running_mean, running_var, *, train=True, momentum=0.1, eps=1e-5, ranks=None):
    """Whether a batch in train mode is what the operation takes; eval mode and mistakes are left to it."""
    arrays = gamma, beta, running_mean, running_var
    right = x.ndim in (2, 4) and x.dtype.name in NUMBERS and x.size > x.shape[1] > 0
    alike = all(type(a) is type(x) and a.dtype == x.dtype and a.shape == (x.shape[1],) for a in arrays)
    return train and right and x.size < LARGEST and alike and all(a.flags.c_contiguous for a in arrays)


def batchnorm_forward(
    x, gamma, beta, running_mean, running_var, *, train=True, momentum=0.1, eps=1e-5, ranks=None, slope=NONE
):
    """The same as :func:`nanogan.ops.batchnorm_forward` in train mode, then LeakyReLU of ``slope``.

    The cache holds x by reference.
    """
    rows = cupy.ascontiguousarray(to_rows(x))  # (M, C)
    M, C = rows.shape
    number, count = rows.dtype.type, (np.int32(M), np.int32(C))
    grid, chunks = _chunks(M, C)
    partial, saved = cupy.empty((chunks, 2, C), rows.dtype), cupy.empty((3, C), rows.dtype)
    _run("moments", rows, grid, (rows, partial, *count))
    # with a momentum of 1 running statistics are those of this batch
    running = (running_mean, running_var) if ranks is None else (cupy.zeros_like(gamma), cupy.zeros_like(gamma))
    options = np.int32(chunks), *count, number(momentum if ranks is None else 1), number(eps)
    _run("statistics", rows, grid[:1], (rows, partial, *running, saved, *options))
    if ranks is not None:
        _statistics_of_all(ranks, saved, running[1], M, running_mean, running_var, float(momentum), float(eps))
    y = cupy.empty_like(rows)
    _each("normalise", y, (rows, saved, gamma, beta, y, *count, number(slope)))
    return batchnorm._like(y, x), (ranks, rows, saved, gamma, beta, slope, x.shape)


@adds_gradients
def batchnorm_backward(dy, cache, need_dx=True, need_dw=True, into=None):
    """The same as :func:`nanogan.ops.batchnorm_backward`; with ``into``, dgamma and dbeta are added to its arrays."""
    ranks, rows, saved, gamma, beta, slope, shape = cache
    check_dy("BatchNorm", dy, shape, rows.dtype)
    dy_rows = cupy.ascontiguousarray(to_rows(dy))  # (M, C)
    M, C = rows.shape
    slope, count = rows.dtype.type(slope), (np.int32(M), np.int32(C))
    grid, chunks = _chunks(M, C)
    partial, means = cupy.empty((chunks, 2, C), rows.dtype), cupy.empty((2, C), rows.dtype)
    dgamma, dbeta, keep = means, means, 0
    if need_dw:
        adds = into is not None and all(array.flags.c_contiguous for array in into)
        dgamma, dbeta = into if adds else (cupy.empty_like(gamma), cupy.empty_like(beta))
        keep = 2 if adds else 1
    _run("slope_sums", rows, grid, (dy_rows, rows, saved, gamma, beta, partial, *count, slope))
    options = np.int32(chunks), *count, np.int32(keep)
    _run("slope_statistics", rows, grid[:1], (partial, means, dgamma, dbeta, *options))
    dx = None
    if need_dx:
        if ranks is not None:  # of parts of one size, the mean of the means is that of all
            ranks.mean(means)
        dx = cupy.empty_like(rows)
        _each("slopes", dx, (dy_rows, rows, saved, means, gamma, beta, dx, *count, slope))
        dx = batchnorm._like(dx, dy)
    return (dx, dgamma, dbeta) if keep == 1 else (dx, None, None)


def _statistics_of_all(ranks, saved, unbiased, M, running_mean, running_var, momentum, eps):
    """Put the statistics of the rows of all ranks into ``saved`` (3, C), which holds those of this rank's M rows.

    unbiased (C,): the variance of this rank's rows, times M / (M - 1).
    """
    shift = saved[0].astype(np.float64)
    mean, var, M = batchnorm.moments_of_all(ranks, shift + saved[1], unbiased * ((M - 1) / M), M, near=running_mean)
    saved[1], saved[2] = mean - shift, 1 / cupy.sqrt(var + eps)
    for running, newest in ((running_mean, mean), (running_var, M / (M - 1) * var)):
        running *= 1 - momentum
        running += (momentum * newest).astype(running.dtype)


def _chunks(M, C):
    """The grid (blocks along C, chunks of rows), and the number of chunks: enough blocks, of at least 16 rows each."""
    along = -(-C // LANES)
    chunks = max(1, min(-(-M // (16 * ROWS)), BLOCKS // 2 // along))
    return (along, chunks), chunks


def _run(name, rows, grid, arguments):
    """Run a kernel that forms sums."""
    width = width_of(rows.shape[1], itemsize=rows.dtype.itemsize)
    kernel("batchnorm.cu", name, NUMBER=NUMBERS[rows.dtype.name], WIDTH=width)(grid, (LANES * ROWS,), arguments)


def _each(name, rows, arguments):
    """Run a kernel that writes ``rows`` (M, C), a part of it for each thread."""
    width = width_of(rows.shape[1], itemsize=rows.dtype.itemsize)
    run = kernel("batchnorm.cu", name, NUMBER=NUMBERS[rows.dtype.name], WIDTH=width)
    run(blocks_for(rows.size // width), (THREADS,), arguments)


register("gpu", ops.batchnorm_forward, batchnorm_forward, batchnorm_backward, serves=serves)
relu_forward, leaky_relu_forward = register_pairs("gpu", batchnorm_forward, batchnorm_backward, serves)
