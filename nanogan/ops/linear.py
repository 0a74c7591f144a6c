"""The fully connected layer, and the table look-up that is its special case for one-hot inputs."""

from nanogan.backend import array_module, product
from nanogan.ops.checks import check_classes, check_dtype, check_input
from nanogan.ops.examples import Example, integers, normal


def linear_forward(x, w, b=None):
    """y = x @ w.T + b, as torch.nn.functional.linear.

    x (N, C), w (F, C), b (F,) or None. Returns y (N, F) and the cache for :func:`linear_backward`.
    Raises UserError for a wrong number of features or dimensions, or another dtype than w's.
    """
    check_input("Linear", x, w, (None, w.shape[1]))
    y = product(x, w.T)  # (N, F)
    if b is not None:
        y += b
    return y, (x, w, b)


def linear_backward(dy, cache, need_dx=True, need_dw=True):
    """Return dx (N, C), dw (F, C), db (F,) for dy (N, F); None for what is not needed."""
    x, w, b = cache
    # y[n, f] = sum over c of x[n, c] * w[f, c] + b[f]: each factor's gradient is dy times the other factor, summed over
    # the index that the factor does not have.
    dx = product(dy, w) if need_dx else None  # (N, C): summed over f
    dw = product(dy.T, x) if need_dw else None  # (F, C): summed over n
    db = dy.sum(axis=0) if need_dw and b is not None else None  # (F,): summed over n
    return dx, dw, db


def embedding_forward(indices, w):
    """y[..., :] = w[indices[...]]: row number ``indices`` of the table w, as torch.nn.functional.embedding.

    indices: integers of any shape, 0 <= index < K; w (K, F). Returns y (*indices.shape, F) and the cache for
    :func:`embedding_backward`. Raises UserError for an index outside the table; on a GPU that is not looked for.
    """
    K = len(w)
    check_classes("Embedding", indices, K)
    check_dtype("Embedding", w)
    return w[indices], (indices, w)


def embedding_backward(dy, cache, need_dx=True, need_dw=True):
    """Return None (whole numbers have no gradient) and dw (K, F) for dy (*indices.shape, F)."""
    indices, w = cache
    if not need_dw:
        return None, None
    dw = array_module(w).zeros_like(w)
    array_module(w).add.at(dw, indices, dy)  # not dw[indices] += dy, which keeps one of the rows that share an index
    return None, dw


# --------------------------------------------------------------------------- what the gradient checks and the tests try

EXAMPLES = [
    Example(linear_forward, x=normal(4, 3), w=normal(5, 3), b=normal(5)),
    Example(linear_forward, x=normal(1, 3), w=normal(5, 3)),
    Example(embedding_forward, indices=integers(4, 3, 5), w=normal(4, 6)),
]
