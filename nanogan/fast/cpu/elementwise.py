"""ReLU, LeakyReLU and tanh in blocks that stay in a core's cache, on threads.

An expression like ``maximum(x, slope * x)`` walks over memory once for each of its operations. Done block by block, all
but the first walk find the block in the cache.
"""

import numpy as np

from nanogan import ops
from nanogan.dispatch import register, register_walk
from nanogan.fast.cpu import threads
from nanogan.fast.cpu.threads import workspace
from nanogan.ops import activations

BLOCK = 512 * 1024  # numbers: in shorter ones threads would wait for Python's lock too often
PIECE = 128 * 1024  # numbers of a parameter: several arrays of so many fit into a core's cache
LEAST = 32 * 1024  # numbers: with fewer the book is as fast
WORTHWHILE = 512 * 1024  # numbers for which threads pay


def serves(x, *, negative_slope=0.0):
    """Whether x is large and without gaps in memory, and what the operation takes."""
    right = x.dtype in (np.float32, np.float64) and 0 <= negative_slope <= 1
    return right and x.size >= LEAST and _in_memory(x) is not None


def relu_forward(x):
    """The same as :func:`nanogan.ops.relu_forward`."""

    def block(x, y):
        np.clip(x, 0, np.inf, out=y)  # four times as fast as with None, or as NumPy's maximum with a number

    y = _apply(block, x)
    return y, y


def relu_backward(dy, cache):
    """The same as :func:`nanogan.ops.relu_backward`."""
    if not _alike(dy, cache):
        return activations.relu_backward(dy, cache)

    return _apply(lambda y, dy, dx: times_slope(dy, y, 0, out=dx), cache, dy)


def leaky_relu_forward(x, *, negative_slope=0.01):
    """The same as :func:`nanogan.ops.leaky_relu_forward`."""
    negative_slope = float(negative_slope)

    def block(x, y):
        np.multiply(x, negative_slope, out=y)
        np.maximum(x, y, out=y)

    y = _apply(block, x)
    return y, (y, negative_slope)


def leaky_relu_backward(dy, cache, out=None):
    """The same as :func:`nanogan.ops.leaky_relu_backward`. ``out``: for dx; dy itself if it is needed no more."""
    if not _alike(dy, cache[0]):
        return activations.leaky_relu_backward(dy, cache)  # a new array
    y, negative_slope = cache
    return _apply(lambda y, dy, dx: times_slope(dy, y, negative_slope, out=dx), y, dy, out=out)


def times_slope(dy, y, negative_slope, *, out):
    """dy where y > 0, else negative_slope * dy, in ``out``, which may be dy: three arrays of one shape. Returns out."""
    positive = np.greater(y, 0, out=workspace("positive", y.shape, bool))
    if negative_slope == 0:
        return np.multiply(dy, positive, out=out)
    slopes = workspace("slopes", y.shape, dy.dtype)
    np.copyto(slopes, positive)
    np.clip(slopes, negative_slope, 1, out=slopes)  # NumPy's maximum with a number takes three times as long
    return np.multiply(slopes, dy, out=out)


def tanh_forward(x):
    """The same as :func:`nanogan.ops.tanh_forward`."""
    y = _apply(lambda x, y: np.tanh(x, out=y), x)
    return y, y


def tanh_backward(dy, cache):
    """The same as :func:`nanogan.ops.tanh_backward`."""
    if not _alike(dy, cache):
        return activations.tanh_backward(dy, cache)

    def block(y, dy, dx):
        np.multiply(y, y, out=dx)
        np.subtract(1, dx, out=dx)
        np.multiply(dx, dy, out=dx)

    return _apply(block, cache, dy)


def update_all(update, groups):
    """Call ``update`` on pieces of each group of arrays, on threads; see :func:`nanogan.dispatch.elementwise`."""
    pieces = []
    for arrays in groups:
        vectors = [] if arrays[0].size < LEAST else _vectors(arrays)
        if not vectors:
            update(*arrays)
            continue
        pieces += [[vector[i : i + PIECE] for vector in vectors] for i in range(0, vectors[0].size, PIECE)]

    def work(part):
        for piece in pieces[part]:
            update(*piece)

    if pieces:
        threads.parallel(work, threads.shares(len(pieces), len(pieces) * PIECE >= WORTHWHILE))


def _vectors(arrays):
    """The numbers of each array in the order in which they lie in memory; [] if that is not one order."""
    first = arrays[0]
    if any(not isinstance(a, np.ndarray) or (a.shape, a.strides) != (first.shape, first.strides) for a in arrays):
        return []
    vectors = [_in_memory(array) for array in arrays]
    return [] if vectors[0] is None else vectors


def _apply(block, x, *others, out=None):
    """Call ``block(x, *others, result)`` on pieces of at most BLOCK numbers; return the result, in x's memory order.

    ``out``: an array of x's shape and memory order for the result; a new one if not given.
    """
    flat = _in_memory(x)
    rest = [_in_memory(other) if other.strides == x.strides else _in_order_of(x, other) for other in others]
    result = threads.empty(flat.shape, (others or [x])[0].dtype) if out is None else _in_memory(out)

    def work(part):
        for start in range(part.start, part.stop, BLOCK):
            piece = slice(start, min(part.stop, start + BLOCK))
            block(flat[piece], *(other[piece] for other in rest), result[piece])

    threads.parallel(work, threads.shares(flat.size, flat.size >= WORTHWHILE))
    return _shaped(result, x) if out is None else out


def _alike(dy, y):
    """Whether dy is what blocks are made for; what else nanogan.ops makes of it is its affair."""
    return isinstance(dy, np.ndarray) and dy.shape == y.shape and dy.dtype == y.dtype


def _in_memory(x):
    """x's numbers as a vector in the order in which they lie in memory, C order or channels-last; None if neither."""
    if x.flags.c_contiguous:
        return x.reshape(-1)
    if x.ndim == 4 and x.transpose(0, 2, 3, 1).flags.c_contiguous:
        return x.transpose(0, 2, 3, 1).reshape(-1)
    return None


def _in_order_of(x, other):
    """The numbers of ``other``, copied into the order in which x's lie in memory."""
    return (other if x.flags.c_contiguous else other.transpose(0, 2, 3, 1)).reshape(-1)


def _shaped(flat, x):
    """A vector in x's memory order as an array of x's shape."""
    if x.flags.c_contiguous:
        return flat.reshape(x.shape)
    N, C, H, W = x.shape
    return flat.reshape(N, H, W, C).transpose(0, 3, 1, 2)


register("cpu", ops.relu_forward, relu_forward, relu_backward, serves=serves)
register("cpu", ops.leaky_relu_forward, leaky_relu_forward, leaky_relu_backward, serves=serves)
register("cpu", ops.tanh_forward, tanh_forward, tanh_backward, serves=serves)
register_walk("cpu", update_all)
