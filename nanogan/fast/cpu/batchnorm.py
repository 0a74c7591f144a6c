"""Batch normalisation in two walks over memory, on threads.

The formulas are those of :mod:`nanogan.ops.batchnorm`. The first walk adds up x - K and (x - K)^2 for a number K near
the mean, one for each channel, taken from a sample of the rows:

    mean = K + sum (x - K) / M        var = sum (x - K)^2 / M - (mean - K)^2

With K = 0 this would be E[x^2] - E[x]^2, which loses all digits where the mean is large beside the spread; with K near
the mean, both terms have the size of the variance and nothing is lost. The second walk writes y.

Where the mean is within NEAR standard deviations of 0, as it is behind a convolution, three or four bits of the digits
are all that subtracting it first would save, and the subtractions are left out: K = 0, and y = x * scale + shift.

The cache for the backward holds x, as a convolution's does, and not xhat, which need not be written then.
"""

import math

import numpy as np

from nanogan import ops
from nanogan.dispatch import register
from nanogan.fast.cpu import threads
from nanogan.fast.cpu.threads import workspace
from nanogan.ops.checks import check_dy, check_input
from nanogan.ops.rows import column_sum

CHUNK = 256 * 1024  # numbers: shorter ones would have the threads wait for Python's lock too often
SAMPLE = 256  # rows, about
NEAR = 8.0
WORTHWHILE = 512 * 1024  # numbers for which threads pay; with fewer the book is as fast


def serves(x, gamma, beta, running_mean, running_var, *, train=True, momentum=0.1, eps=1e-5):
    """Whether this is a large batch in train mode, of more than one value per channel."""
    right = train and x.ndim in (2, 4) and x.dtype in (np.float32, np.float64)
    return right and x.size >= max(WORTHWHILE, 2 * x.shape[1])


def batchnorm_forward(x, gamma, beta, running_mean, running_var, *, train=True, momentum=0.1, eps=1e-5):
    """The same as :func:`nanogan.ops.batchnorm_forward` in train mode."""
    check_input("BatchNorm", x, gamma, (None, len(gamma), None, None)[: 2 if x.ndim == 2 else 4])
    momentum, eps = float(momentum), float(eps)
    rows = _rows(x)  # (M, C)
    M = len(rows)

    sample = rows[:: _step(M)]
    near = sample.mean(axis=0)  # K
    if bool((abs(near) <= NEAR / 2 * sample.std(axis=0)).all()):
        near = None

    def moments(part):
        totals = np.zeros((2, len(gamma)))
        for chunk in _chunks(part, rows):
            centred = _less(rows[chunk], near)
            totals[0] += column_sum(centred)
            totals[1] += column_sum(np.multiply(centred, centred, out=workspace("product", centred.shape, x.dtype)))
        return totals

    first, second = sum(threads.parallel(moments, _parts(rows))) / M
    mean, var = first if near is None else near + first, np.maximum(second - first * first, 0)  # float64
    running_mean *= 1 - momentum
    running_mean += (momentum * mean).astype(x.dtype)
    running_var *= 1 - momentum
    running_var += (momentum * M / (M - 1) * var).astype(x.dtype)

    inv_std = 1 / np.sqrt(var + eps)  # (C,), float64
    # y = (x - middle) * scale + shift, where middle is the mean in x's dtype, and what that loses goes into the shift
    middle = None if bool((abs(mean) * inv_std <= NEAR).all()) else mean.astype(x.dtype)
    scale = (gamma * inv_std).astype(x.dtype)
    shift = (beta - (mean - (0 if middle is None else middle)) * gamma * inv_std).astype(x.dtype)
    y = threads.empty(rows.shape, x.dtype)

    def normalise(part):
        for chunk in _chunks(part, rows):
            out = y[chunk]
            np.multiply(rows[chunk] if middle is None else _less(rows[chunk], middle), scale, out=out)
            out += shift

    threads.parallel(normalise, _parts(rows))
    return _like(y, x), (x, mean, middle, inv_std, gamma)


def batchnorm_backward(dy, cache, need_dx=True, need_dw=True):
    """The same as :func:`nanogan.ops.batchnorm_backward`."""
    x, mean, middle, inv_std, gamma = cache
    check_dy("BatchNorm", dy, x.shape, x.dtype)
    rows, dy_rows = _rows(x), _rows(dy)  # (M, C)
    M = len(rows)
    rest = mean if middle is None else mean - middle
    dx = None

    def sums(part):
        totals = np.zeros((2, len(gamma)))
        for chunk in _chunks(part, rows):
            product = workspace("product", rows[chunk].shape, x.dtype)
            totals[0] += column_sum(dy_rows[chunk])
            totals[1] += column_sum(np.multiply(_less(rows[chunk], middle), dy_rows[chunk], out=product))
        return totals

    dbeta, of_centred = sum(threads.parallel(sums, _parts(rows)))
    dgamma = (of_centred - rest * dbeta) * inv_std
    if need_dx:
        # dx = gamma * inv_std * (dy - mean(dy) - xhat * mean(dy * xhat)), xhat = (x - mean) * inv_std
        scale = gamma * inv_std
        of_x = -scale * inv_std * dgamma / M
        constant = (-scale * dbeta / M - rest * of_x).astype(x.dtype)
        scale, of_x = scale.astype(x.dtype), of_x.astype(x.dtype)

        dx = threads.empty(rows.shape, x.dtype)

        def write(part):
            for chunk in _chunks(part, rows):
                out = np.multiply(dy_rows[chunk], scale, out=dx[chunk])
                product = workspace("product", out.shape, x.dtype)
                out += np.multiply(_less(rows[chunk], middle), of_x, out=product)
                out += constant

        threads.parallel(write, _parts(rows))
        dx = _like(dx, dy)
    if not need_dw:
        return dx, None, None
    return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def _step(M):
    """About M / SAMPLE, without a common divisor with M: so that not only one column of the pictures is met."""
    step = max(1, M // SAMPLE)
    while math.gcd(step, M) > 1:
        step += 1
    return step


def _less(rows, middle):
    """rows - middle, in a workspace; rows themselves where there is nothing to subtract."""
    if middle is None:
        return rows
    return np.subtract(rows, middle, out=workspace("centred", rows.shape, rows.dtype))


def _rows(x):
    """(N, C, H, W) -> (N*H*W, C): no copy of a channels-last array; (N, C) as it is."""
    return np.ascontiguousarray(x if x.ndim == 2 else x.transpose(0, 2, 3, 1)).reshape(-1, x.shape[1])


def _like(rows, x):
    """Rows (M, C) in x's shape, (N, C) or (N, C, H, W)."""
    if x.ndim == 2:
        return rows
    N, C, H, W = x.shape
    return rows.reshape(N, H, W, C).transpose(0, 3, 1, 2)


def _parts(rows):
    return threads.shares(len(rows))


def _chunks(part, rows):
    step = max(1, CHUNK // rows.shape[1])
    return [slice(start, min(part.stop, start + step)) for start in range(part.start, part.stop, step)]


register("cpu", ops.batchnorm_forward, batchnorm_forward, batchnorm_backward, serves=serves)
