"""Losses of a batch against one target, in one kernel forward and one backward.

The formulas are those of :mod:`nanogan.ops.losses`. A target for each element, weights and large batches are left to
these: a discriminator's logits are few, and the twenty kernels that the readable lines launch cost more than the sums.
"""

from functools import partial
from numbers import Real

import cupy
import numpy as np

from nanogan import ops
from nanogan.dispatch import register
from nanogan.fast.gpu.elementwise import from_memory, in_memory
from nanogan.fast.gpu.sources import NUMBERS, kernel

LARGEST = 65536  # elements that one block adds up
SMALL = 4096  # elements for which 256 threads are enough

# dx for one element: dy times the slope of its loss, over the count
SIGMOID = (
    "const T small = exp(x > 0 ? -x : x), p = (x > 0 ? 1 : small) / (1 + small), q = (x > 0 ? small : 1) / (1 + small);"
)
SLOPES = {
    ops.bce_with_logits_forward: f"{SIGMOID} dx = dy / count * ((1 - target) * p - target * q)",
    ops.saturating_bce_forward: f"{SIGMOID} dx = dy / count * ((1 - target) * q - target * p)",
    ops.mse_forward: "dx = dy / count * (2 * (x - target))",
    ops.l1_forward: "const T d = x - target; dx = dy / count * (d > 0 ? T(1) : d < 0 ? T(-1) : d)",
    ops.score_forward: "dx = dy / count * (1 - 2 * target)",
    ops.hinge_forward: "dx = dy / count * (1 + (1 - 2 * target) * x > 0 ? 1 - 2 * target : T(0))",
    ops.mean_probability_forward: f"{SIGMOID} dx = dy / count * (p * q)",
}


def serves(x, target=0.0, *, reduction="mean", weight=None, pos_weight=None):
    """Whether this is a small batch, with one target for all of it."""
    plain = weight is None and pos_weight is None and isinstance(target, Real) and reduction in ("mean", "sum")
    return plain and x.dtype.name in NUMBERS and 0 < x.size <= LARGEST


def loss_forward(name, x, target=0.0, *, reduction="mean", weight=None, pos_weight=None):
    """The same as the operation ``name``: the loss, a 0-dimensional array, and the cache for its backward."""
    numbers, loss = cupy.ascontiguousarray(in_memory(x)), cupy.empty((), x.dtype)
    count = x.size if reduction == "mean" else 1
    number, threads = x.dtype.type, 256 if x.size <= SMALL else 1024
    run = kernel("losses.cu", "mean_loss", NUMBER=NUMBERS[x.dtype.name], LOSS=name)
    run((1,), (threads,), (numbers, loss, np.int32(x.size), number(target), number(count)))
    return loss, (x, float(target), count)


def loss_backward(slope, dy, cache):
    """The same as the operation's backward; ``slope`` is its kernel, an entry of SLOPES."""
    x, target, count = cache
    dy = float(dy) if isinstance(dy, Real) else dy.astype(x.dtype, copy=False)
    return from_memory(slope(in_memory(x), dy, target, count))


def named(function, name):
    """Give a function made by ``partial`` the name by which :func:`nanogan.dispatch.watch` reports it."""
    function.__name__, function.__module__ = name, __name__
    return function


KERNELS = {}  # of the backwards, by operation
for forward, expression in SLOPES.items():
    name = forward.__name__.removesuffix("_forward")
    slope = cupy.ElementwiseKernel("T x, T dy, T target, T count", "T dx", expression, f"nanogan_{name}_backward")
    KERNELS[name] = slope
    register(
        "gpu", forward, named(partial(loss_forward, name), forward.__name__),
        named(partial(loss_backward, slope), f"{name}_backward"), serves=serves,
    )  # fmt: skip
