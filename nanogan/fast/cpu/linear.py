"""The fully connected layer, its outputs shared by threads."""

import numpy as np

from nanogan import ops
from nanogan.dispatch import register
from nanogan.fast.cpu import threads
from nanogan.ops.checks import check_input

WORTHWHILE = 4 * 1000 * 1000  # multiplications for which waking up other threads pays


def serves(x, w, b=None):
    """Whether these are matrices of numbers that BLAS multiplies, and threads pay."""
    return x.ndim == 2 and w.ndim == 2 and x.dtype in (np.float32, np.float64) and x.size * len(w) >= WORTHWHILE


def linear_forward(x, w, b=None):
    """The same as :func:`nanogan.ops.linear_forward`."""
    check_input("Linear", x, w, (None, w.shape[1]))
    y = _product(x, w.T)  # (N, F)
    if b is not None:
        y += b
    return y, (x, w, b)


def linear_backward(dy, cache, need_dx=True, need_dw=True):
    """The same as :func:`nanogan.ops.linear_backward`."""
    x, w, b = cache
    dx = _product(dy, w) if need_dx else None  # (N, C)
    dw = _product(dy.T, x) if need_dw else None  # (F, C)
    db = dy.sum(axis=0) if need_dw and b is not None else None  # (F,)
    return dx, dw, db


def _product(a, b):
    """a @ b, a part of its columns on each thread."""
    out = threads.empty((len(a), b.shape[1]), a.dtype)

    def work(columns):
        np.matmul(a, b[:, columns], out=out[:, columns])

    threads.parallel(work, threads.shares(b.shape[1]))
    return out


register("cpu", ops.linear_forward, linear_forward, linear_backward, serves=serves, precisions=("float32", "tf32"))
