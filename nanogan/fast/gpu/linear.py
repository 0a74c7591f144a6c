"""The fully connected layer, whose dw is added to the layer's gradient by the product that computes it."""

from nanogan import ops
from nanogan.backend import add_product, product
from nanogan.dispatch import adds_gradients, register
from nanogan.fast.gpu.sources import NUMBERS


def serves(x, w, b=None):
    """Whether these are matrices that cuBLAS multiplies."""
    return x.ndim == 2 and w.ndim == 2 and x.dtype.name in NUMBERS


@adds_gradients
def linear_backward(dy, cache, need_dx=True, need_dw=True, into=None):
    """The same as :func:`nanogan.ops.linear_backward`; with ``into``, dw is added to its first array."""
    x, w, b = cache
    dx = product(dy, w) if need_dx else None  # (N, C)
    dw = db = None
    if need_dw and into is not None and into[0].flags.c_contiguous:
        add_product(into[0], dy.T, x)  # (F, C)
    elif need_dw:
        dw = product(dy.T, x)
    if need_dw and b is not None:
        db = dy.sum(axis=0)  # (F,)
    return dx, dw, db


register("gpu", ops.linear_forward, ops.linear_forward, linear_backward, serves=serves)
