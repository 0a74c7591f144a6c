"""Batch normalisation in two walks over memory, with the ReLU or LeakyReLU that follows it.

The formulas are those of :mod:`nanogan.ops.batchnorm`. The first walk adds up x and x^2,

    mean = sum x / M        var = sum x^2 / M - mean^2

which loses as many digits as mean^2 has more than var: three or four bits where the mean is within NEAR standard
deviations of 0, as it is behind a convolution. Where it is not, the walk is repeated with x - K for x, K being the mean
that was found, and nothing is lost. The second walk writes y = x * scale + shift, and the activation of it while it is
in the core's cache.

The cache for the backward holds x and y, which are kept anyway, and not xhat, which need not be written then.

NumPy walks along short rows slowly. So rows of C numbers are seen as fewer of r*C, and a vector of C numbers, such as
scale, is repeated r times: ``wide`` below.
"""

import numpy as np

from nanogan import ops
from nanogan.dispatch import register
from nanogan.errors import UserError
from nanogan.fast.cpu import threads
from nanogan.fast.cpu.elementwise import times_slope
from nanogan.fast.cpu.threads import workspace
from nanogan.fast.with_activation import NONE, register_pairs
from nanogan.ops.batchnorm import _like, moments_of_all, slopes_of_all
from nanogan.ops.checks import check_dy, check_input
from nanogan.ops.rows import column_sum

CHUNK = 512 * 1024  # numbers: in shorter ones the threads would wait for Python's lock too often
WIDE = 2048  # numbers of a row
FEW = 64  # rows that are summed in one go
NEAR = 4.0
LEAST = 32 * 1024  # numbers: with fewer the book is as fast
WORTHWHILE = 512 * 1024  # numbers for which threads pay


def serves(x, gamma, beta, running_mean, running_var, *, train=True, momentum=0.1, eps=1e-5, ranks=None):
    """Whether this is a large batch in train mode, of more than one value per channel."""
    right = train and x.ndim in (2, 4) and x.dtype in (np.float32, np.float64)
    return right and x.size >= max(LEAST, 2 * x.shape[1]) > 0


def batchnorm_forward(
    x, gamma, beta, running_mean, running_var, *, train=True, momentum=0.1, eps=1e-5, ranks=None, slope=NONE, batches=1
):
    """The same as :func:`nanogan.ops.batchnorm_forward` in train mode, then LeakyReLU of ``slope``.

    ``batches``: x holds so many batches of one size, one after the other, each with statistics of its own. Ranks tell
    each other those of all batches at once.
    """
    check_input("BatchNorm", x, gamma, (None, len(gamma), None, None)[: 2 if x.ndim == 2 else 4])
    rows = _rows(x)  # (M, C)
    y, M = threads.empty(rows.shape, x.dtype), len(rows) // batches
    if M < 2 and ranks is None:
        shape = len(x) // batches, *x.shape[1:]
        raise UserError(f"BatchNorm expected more than one value per channel to train, got x of shape {shape}")
    parts = [slice(i * M, (i + 1) * M) for i in range(batches)]

    def write(part, moments):
        return _write(rows[part], y[part], gamma, beta, float(eps), slope, *moments)

    if ranks is None:
        caches, moments = zip(*_each(lambda part: write(part, _moments(rows[part])), parts, x.size), strict=True)
    else:
        own = _each(lambda part: _moments(rows[part]), parts, x.size)
        moments, M = _moments_of_all(ranks, own, M, running_mean)
        caches, moments = zip(*_each(lambda i: write(parts[i], moments[i]), range(batches), x.size), strict=True)
    momentum = float(momentum)
    for mean, var in moments:
        running_mean *= 1 - momentum
        running_mean += (momentum * mean).astype(x.dtype)
        running_var *= 1 - momentum
        running_var += (momentum * M / (M - 1) * var).astype(x.dtype)
    return _like(y, x), (ranks, parts, caches, rows, y, gamma, float(slope), x.shape)


def batchnorm_backward(dy, cache, need_dx=True, need_dw=True):
    """The same as :func:`nanogan.ops.batchnorm_backward`."""
    ranks, parts, caches, rows, y, gamma, slope, shape = cache
    check_dy("BatchNorm", dy, shape, rows.dtype)
    dy_rows = _rows(dy)  # (M, C)
    dx = threads.empty(rows.shape, rows.dtype)
    M = len(rows) // len(parts)

    def sums(i):
        part = parts[i]
        return _sums(dy_rows[part], rows[part], y[part], dx[part], slope, *caches[i])

    def write(i, dgamma, dbeta):
        part = parts[i]
        _write_dx(dy_rows[part], rows[part], dx[part], gamma, slope, *caches[i], dgamma, dbeta, M)

    def both(i):
        gradients = sums(i)
        if need_dx:
            write(i, *gradients)
        return gradients

    batches = range(len(parts))
    if ranks is None or not need_dx:
        gradients = _each(both, batches, rows.size)
    else:
        gradients = _each(sums, batches, rows.size)
        dgammas, dbetas = np.stack(gradients, axis=1)  # (batches, C) each
        P, Q, M = slopes_of_all(ranks, dbetas, dgammas, M)
        _each(lambda i: write(i, Q[i], P[i]), batches, rows.size)
    dgamma, dbeta = (sum(each).astype(rows.dtype) if need_dw else None for each in zip(*gradients, strict=True))
    return _like(dx, dy) if need_dx else None, dgamma, dbeta


def _moments_of_all(ranks, own, M, running_mean):
    """(near, mean, var) of each batch over the rows of all ranks, and their number; ``own``: those of this rank's."""
    near, means, variances = zip(*own, strict=True)
    means, variances, M = moments_of_all(ranks, np.stack(means), np.stack(variances), M, near=running_mean)
    return list(zip(near, means, variances, strict=True)), M


def _each(work, batches, size):
    """Call ``work`` for each batch: on a thread each where there are no more, and numbers enough in all of them."""
    if 1 < threads.count() <= len(batches) and size >= WORTHWHILE:
        return threads.parallel(work, batches)
    return [work(batch) for batch in batches]


def _moments(rows):
    """(near, mean, var) of rows (M, C): K, None where it is 0, and two vectors (C,) in float64."""
    near = None
    first, second = _means(rows, None)
    if not (first * first <= NEAR**2 * (second - first * first)).all() or not np.isfinite(second).all():
        near = first.astype(rows.dtype)
        first, second = _means(rows, near)
    return near, first if near is None else near + first, np.maximum(second - first * first, 0)


def _write(rows, y, gamma, beta, eps, slope, near, mean, var):
    """Fill y (M, C); return what the backward needs of the statistics, and mean and variance."""
    inv_std = 1 / np.sqrt(var + eps)
    # y = (x - K) * scale + shift: what is left of the mean goes into the shift
    rest = mean if near is None else mean - near
    scale = gamma * inv_std
    x, out = _wide(rows), _wide(y)
    scale, shift = (_repeated(v, x, rows) for v in (scale, beta - rest * scale))

    def normalise(part):
        for chunk in _chunks(part, x):
            piece = out[chunk]
            np.multiply(_less(x[chunk], near), scale, out=piece)
            piece += shift
            if slope == 0:
                np.maximum(piece, np.zeros_like(shift), out=piece)  # with a number NumPy's maximum takes twice as long
            elif slope != NONE:
                np.maximum(piece, np.multiply(piece, slope, out=workspace("product", piece.shape, y.dtype)), out=piece)

    threads.parallel(normalise, _parts(x))
    return (near, rest, inv_std), (mean, var)


def _sums(dy, rows, y, dx, slope, near, rest, inv_std):
    """Return dgamma, dbeta in float64; fill dx (M, C) with dy times the slopes, if there is an activation."""
    x, y, dy, out = (_wide(array) for array in (rows, y, dy, dx))

    def sums(part):
        totals = np.zeros((2, rows.shape[1]))
        for chunk in _chunks(part, x):
            d = dy[chunk] if slope == NONE else times_slope(dy[chunk], y[chunk], slope, out=out[chunk])
            totals[0] += _channel_sum(d, totals[0])
            product = workspace("product", d.shape, d.dtype)
            totals[1] += _channel_sum(np.multiply(_less(x[chunk], near), d, out=product), totals[1])
        return totals

    dbeta, of_centred = sum(threads.parallel(sums, _parts(x)))
    return (of_centred - rest * dbeta) * inv_std, dbeta


def _write_dx(dy, rows, dx, gamma, slope, near, rest, inv_std, dgamma, dbeta, M):
    """Fill dx (m, C), which holds dy times the slopes; dgamma and dbeta are the sums over all M rows of the batch."""
    x, dy, out = (_wide(array) for array in (rows, dy, dx))
    # dx = gamma * inv_std * (dy - mean(dy) - xhat * mean(dy * xhat)), xhat = (x - mean) * inv_std
    scale = gamma * inv_std
    of_x = -scale * inv_std * dgamma / M
    constant = -scale * dbeta / M - rest * of_x
    scale, of_x, constant = (_repeated(v, x, rows) for v in (scale, of_x, constant))

    def write(part):
        for chunk in _chunks(part, x):
            d = out[chunk]  # dy, times the slopes
            np.multiply(dy[chunk] if slope == NONE else d, scale, out=d)
            d += np.multiply(_less(x[chunk], near), of_x, out=workspace("product", d.shape, d.dtype))
            d += constant

    threads.parallel(write, _parts(x))


# ----------------------------------------------------------------------------------------------- rows, wide and narrow


def _means(rows, near):
    """The means of x - K and of (x - K)^2 for each channel of rows (M, C), in float64; K = 0 if ``near`` is None."""
    x = _wide(rows)

    def work(part):
        totals = np.zeros((2, rows.shape[1]))
        for chunk in _chunks(part, x):
            centred = _less(x[chunk], near)
            totals[0] += _channel_sum(centred, totals[0])
            squares = np.multiply(centred, centred, out=workspace("product", centred.shape, x.dtype))
            totals[1] += _channel_sum(squares, totals[1])
        return totals

    with np.errstate(over="ignore"):  # the second walk is for numbers whose squares are too large
        return sum(threads.parallel(work, _parts(x))) / len(rows)


def _wide(rows):
    """rows (M, C) as (M / r, r*C), r a power of 2 that divides M: about WIDE numbers in a row."""
    M, C = rows.shape
    r = 1
    while M % (2 * r) == 0 and 2 * r * C <= WIDE:
        r *= 2
    return rows.reshape(M // r, r * C)


def _repeated(vector, wide, rows):
    """A vector (C,) as one of ``wide``'s row length, in its dtype."""
    out = np.empty((wide.shape[1] // rows.shape[1], rows.shape[1]), wide.dtype)
    out[...] = vector
    return out.reshape(-1)


def _channel_sum(wide, like):
    """The sums (C,) of each channel of wide rows (m, r*C); ``like`` has C numbers."""
    few = len(wide) <= FEW
    sums = np.ones(len(wide), wide.dtype) @ wide if few else column_sum(wide)  # (r*C,)
    return np.add.reduce(sums.reshape(-1, len(like)), axis=0)


def _less(x, near):
    """x - K in a workspace; x itself where K is 0."""
    if near is None:
        return x
    out = workspace("centred", x.shape, x.dtype)
    np.subtract(x.reshape(-1, len(near)), near, out=out.reshape(-1, len(near)))
    return out


def _rows(x):
    """(N, C, H, W) -> (N*H*W, C): no copy of a channels-last array; (N, C) as it is."""
    return np.ascontiguousarray(x if x.ndim == 2 else x.transpose(0, 2, 3, 1)).reshape(-1, x.shape[1])


def _parts(wide):
    return threads.shares(len(wide), wide.size >= WORTHWHILE)


def _chunks(part, wide):
    step = max(1, CHUNK // wide.shape[1])
    return [slice(start, min(part.stop, start + step)) for start in range(part.start, part.stop, step)]


register("cpu", ops.batchnorm_forward, batchnorm_forward, batchnorm_backward, serves=serves)
relu_forward, leaky_relu_forward = register_pairs("cpu", batchnorm_forward, batchnorm_backward, serves)
