"""Batch normalisation in two walks over memory, in chunks of rows that stay in a core's cache, on threads.

The formulas are those of :mod:`nanogan.ops.batchnorm`. The first walk gives each chunk's mean and its sum of squares
about that mean, M2; two chunks a and b together have

    mean = mean_a + (mean_b - mean_a) * m_b / m            M2 = M2_a + M2_b + (mean_b - mean_a)^2 * m_a * m_b / m

which loses no digits where the mean is large beside the spread, as E[x^2] - E[x]^2 would. Source: T. Chan, G. Golub,
R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979). The second walk writes y.

The cache holds x, which the backward centres again chunk by chunk, rather than xhat: one array less in memory.
"""

import numpy as np

from nanogan.fast.cpu import threads
from nanogan.fast.cpu.threads import workspace
from nanogan.ops._layout import check_dy, check_input

CHUNK = 64 * 1024  # numbers
WORTHWHILE = 64 * 1024


def serves(x, gamma, beta, running_mean, running_var, *, train=True, momentum=0.1, eps=1e-5):
    """Whether there is enough to do for threads."""
    return train and x.ndim in (2, 4) and x.size >= WORTHWHILE and x.dtype in (np.float32, np.float64)


def batchnorm_forward(x, gamma, beta, running_mean, running_var, *, train=True, momentum=0.1, eps=1e-5):
    """The same as :func:`nanogan.ops.batchnorm_forward` in train mode."""
    check_input("BatchNorm", x, gamma, (None, len(gamma), None, None)[: 2 if x.ndim == 2 else 4])
    momentum, eps = float(momentum), float(eps)
    rows = _rows(x)  # (M, C)
    M = len(rows)

    def moments(part):
        return [_moments(rows[chunk]) for chunk in _chunks(part, rows)]

    mean, M2 = _combine([chunk for part in threads.parallel(moments, _parts(rows)) for chunk in part])
    var = M2 / M
    running_mean *= 1 - momentum
    running_mean += (momentum * mean).astype(x.dtype)
    running_var *= 1 - momentum
    running_var += (momentum * M / (M - 1) * var).astype(x.dtype)

    # y = (x - mean) * scale + beta; what the mean loses when it is rounded to x's dtype goes into the constant
    inv_std = 1 / np.sqrt(var + eps)  # (C,), float64
    rounded = mean.astype(x.dtype)
    scale = (gamma * inv_std).astype(x.dtype)
    shift = (beta - (mean - rounded) * gamma * inv_std).astype(x.dtype)
    y = threads.empty(rows.shape, x.dtype)

    def normalise(part):
        for chunk in _chunks(part, rows):
            np.subtract(rows[chunk], rounded, out=y[chunk])
            y[chunk] *= scale
            y[chunk] += shift

    threads.parallel(normalise, _parts(rows))
    return _like(y, x), (x, mean, inv_std, gamma)


def batchnorm_backward(dy, cache, need_dx=True, need_dw=True):
    """The same as :func:`nanogan.ops.batchnorm_backward`."""
    x, mean, inv_std, gamma = cache
    check_dy("BatchNorm", dy, x.shape, x.dtype)
    rows, dy_rows = _rows(x), _rows(dy)  # (M, C)
    M = len(rows)
    rounded = mean.astype(x.dtype)

    def sums(part):
        results = []
        for chunk in _chunks(part, rows):
            dy_chunk = dy_rows[chunk]
            ones = np.ones(len(dy_chunk), x.dtype)
            product = workspace("centred", dy_chunk.shape, x.dtype)
            np.subtract(rows[chunk], rounded, out=product)
            product *= dy_chunk
            results.append((ones @ dy_chunk, ones @ product))  # sums of dy and of dy * (x - rounded)
        return results

    parts = [chunk for part in threads.parallel(sums, _parts(rows)) for chunk in part]
    dbeta = np.sum([part[0] for part in parts], axis=0, dtype=np.float64)
    dgamma = (np.sum([part[1] for part in parts], axis=0, dtype=np.float64) - (mean - rounded) * dbeta) * inv_std
    dx = None
    if need_dx:
        # dx = gamma * inv_std * (dy - mean(dy) - xhat * mean(dy * xhat)), xhat = (x - mean) * inv_std
        scale = gamma * inv_std
        of_x = -scale * inv_std * dgamma / M
        constant = (-scale * dbeta / M - (mean - rounded) * of_x).astype(x.dtype)
        scale, of_x = scale.astype(x.dtype), of_x.astype(x.dtype)
        dx = threads.empty(rows.shape, x.dtype)

        def write(part):
            for chunk in _chunks(part, rows):
                scaled = np.multiply(dy_rows[chunk], scale, out=workspace("scaled", dx[chunk].shape, x.dtype))
                np.subtract(rows[chunk], rounded, out=dx[chunk])
                dx[chunk] *= of_x
                dx[chunk] += constant
                dx[chunk] += scaled

        threads.parallel(write, _parts(rows))
        dx = _like(dx, dy)
    if not need_dw:
        return dx, None, None
    return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def _moments(rows):
    """Return (number of rows, mean, sum of squares about it) of each column."""
    m = len(rows)
    ones = np.ones(m, rows.dtype)
    mean = (ones @ rows) / m
    centred = np.subtract(rows, mean, out=workspace("centred", rows.shape, rows.dtype))
    rest = (ones @ centred) / m  # what the mean had lost to rounding
    centred *= centred
    M2 = (ones @ centred).astype(np.float64) - m * rest.astype(np.float64) ** 2
    return m, mean.astype(np.float64) + rest, M2


def _combine(moments):
    """Return mean and M2 of all chunks together."""
    total, mean, M2 = moments[0]
    for m, other_mean, other_M2 in moments[1:]:
        step = other_mean - mean
        mean = mean + step * (m / (total + m))
        M2 = M2 + other_M2 + step * step * (total * m / (total + m))
        total += m
    return mean, np.maximum(M2, 0)


def _rows(x):
    """(N, C, H, W) -> (N*H*W, C): no copy of a channels-last array; (N, C) as it is."""
    return np.ascontiguousarray(x if x.ndim == 2 else x.transpose(0, 2, 3, 1)).reshape(-1, x.shape[1])


def _like(rows, x):
    if x.ndim == 2:
        return rows
    N, C, H, W = x.shape
    return rows.reshape(N, H, W, C).transpose(0, 3, 1, 2)


def _parts(rows):
    return threads.slices(len(rows), threads.count())


def _chunks(part, rows):
    step = max(1, CHUNK // rows.shape[1])
    return [slice(start, min(part.stop, start + step)) for start in range(part.start, part.stop, step)]
