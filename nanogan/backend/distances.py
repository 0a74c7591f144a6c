"""Squared Euclidean distances between all pairs of rows, by one matrix product.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x . y

The subtraction loses digits where the norms are large beside the distance, so both sets are first centred on the mean
of y, which changes no distance. What is left is an absolute error of a few units in the last place of the norms, so a
distance of 0 may come out slightly above 0; it never comes out below.
"""

from nanogan.backend.arrays import array_module


def squared_distances(x, y, *, dtype=None):
    """Return the squared distances (N, M) between rows of x (N, F) and rows of y (M, F), at least one, on one device.

    Computed in ``dtype``; if None in that of the arrays, integers in float64, float16 in float32: its squares end at
    65504.
    """
    y, centre = _centred(y, dtype)
    return _expanded(_less(x, centre), y, (y * y).sum(axis=1))


def squared_distance_blocks(x, y, *, rows=1000, dtype=None, progress=None):
    """Yield :func:`squared_distances` in blocks of up to ``rows`` rows of x, (rows, M), so that memory is bounded.

    ``progress`` wraps the iteration over blocks (tqdm).
    """
    y, centre = _centred(y, dtype)
    squares = (y * y).sum(axis=1)  # (M,)
    for start in (progress or iter)(range(0, len(x), rows)):
        yield _expanded(_less(x[start : start + rows], centre), y, squares)


def _centred(y, dtype):
    """Return y less its mean, and the mean (F,), both in ``dtype``."""
    if dtype is None and y.dtype.kind == "f" and y.dtype.itemsize == 2:
        dtype = "float32"
    y = y if dtype is None else y.astype(dtype, copy=False)
    centre = y.mean(axis=0)
    return y - centre, centre


def _less(x, centre):
    """x - centre in the centre's dtype."""
    return x.astype(centre.dtype, copy=False) - centre


def _expanded(x, y, squares):
    """|x|^2 + |y|^2 - 2 x . y, at least 0; two arrays (N, M) are in memory at a time."""
    distances = (x * x).sum(axis=1)[:, None] + squares
    products = x @ y.T
    products *= 2
    distances -= products
    return array_module(distances).maximum(distances, 0, out=distances)
