"""Elementwise functions. Each dx is dy times the function's slope, and each slope can be computed from y alone.

Caching y rather than x saves memory: y is kept anyway, as the cached input of the next layer.
"""

import numpy as np

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.ops.checks import check_dtype
from nanogan.ops.examples import Example, normal, off_zero


def relu_forward(x):
    """y = max(x, 0), for x of any shape. Returns y and the cache for :func:`relu_backward`."""
    check_dtype("ReLU", x)
    y = array_module(x).maximum(x, 0)
    return y, y


def relu_backward(dy, cache):
    """Return dx = dy where y > 0, else 0 (also at x = 0, as torch has it)."""
    y = cache
    return dy * (y > 0)


def leaky_relu_forward(x, *, negative_slope=0.01):
    """y = x where x > 0, else negative_slope * x; for x of any shape and 0 <= negative_slope <= 1.

    The default is torch's; a DCGAN's discriminator uses 0.2. Returns y and the cache for :func:`leaky_relu_backward`.
    """
    check_dtype("LeakyReLU", x)
    if not 0 <= negative_slope <= 1:
        raise UserError(f"LeakyReLU expected a negative_slope from 0 to 1, got {negative_slope}")
    negative_slope = float(negative_slope)  # a NumPy number would make the result float64
    y = array_module(x).maximum(x, negative_slope * x)  # the larger of the two, as the slope is at most 1
    return y, (y, negative_slope)


def leaky_relu_backward(dy, cache):
    """Return dx = dy where y > 0, else negative_slope * dy."""
    y, negative_slope = cache
    xp = array_module(y)
    slope = xp.maximum((y > 0).astype(dy.dtype), negative_slope)  # 1 or negative_slope; where() takes twice the time
    slope *= dy
    return slope


def tanh_forward(x):
    """y = tanh(x) = (e^x - e^-x) / (e^x + e^-x), for x of any shape. Returns y and the cache for tanh_backward."""
    check_dtype("Tanh", x)
    y = array_module(x).tanh(x)
    return y, y


def tanh_backward(dy, cache):
    """Return dx = dy * (1 - y^2)."""
    y = cache
    return dy * (1 - y * y)


def sigmoid_forward(x):
    """y = 1 / (1 + e^-x), for x of any shape. Returns y and the cache for :func:`sigmoid_backward`."""
    check_dtype("Sigmoid", x)
    y = stable_sigmoid(x)
    return y, y


def sigmoid_backward(dy, cache):
    """Return dx = dy * y * (1 - y)."""
    y = cache
    return dy * (y * (1 - y))


def stable_sigmoid(x):
    """1 / (1 + e^-x) without overflow: for x < 0 as e^x / (1 + e^x), so that no exponent is positive."""
    xp = array_module(x)
    return xp.exp(xp.minimum(x, 0)) / (1 + xp.exp(-abs(x)))


def dropout_forward(x, *, p=0.5, rng=None, train=True):
    """Set each element to 0 with probability p and divide the others by 1 - p, so that the expected y is x.

    x of any shape, 0 <= p < 1; ``rng`` is a numpy.random.Generator, whose numbers are moved to x's device, so that the
    zeros are the same on every one. In eval mode y = x. Returns y and the cache for :func:`dropout_backward`.
    Source: N. Srivastava et al., JMLR 15 (2014); scaled in train mode, as torch does.
    """
    check_dtype("Dropout", x)
    if not 0 <= p < 1:
        raise UserError(f"Dropout expected a probability p with 0 <= p < 1, got {p}")
    if not train or p == 0:
        return x, None
    if rng is None:
        raise UserError("Dropout expected rng=numpy.random.default_rng(seed) in train mode, to draw its zeros")
    xp = array_module(x)
    drawn = rng.random(x.shape, dtype=np.float64 if x.dtype == np.float64 else np.float32)
    scale = xp.empty_like(x)  # in x's memory order
    scale[...] = xp.asarray(drawn >= p)
    scale /= 1 - float(p)
    return x * scale, scale


def dropout_backward(dy, cache):
    """Return dx = dy * scale: 0 where y was dropped, dy / (1 - p) elsewhere."""
    scale = cache
    return dy if scale is None else dy * scale


# --------------------------------------------------------------------------- what the gradient checks and the tests try


def _torch_dropout(_, x, p, rng):
    """The zeros are drawn as the operation draws them; torch's own generator would draw others."""
    kept = rng.random(tuple(x.shape), dtype=x.detach().numpy().dtype) >= p
    return x * x.new_tensor(kept.tolist()) / (1 - p)


EXAMPLES = [
    Example(relu_forward, x=off_zero(3, 4, 5, 2)),
    Example(leaky_relu_forward, x=off_zero(3, 4, 5, 2), negative_slope=0.2),
    Example(leaky_relu_forward, x=off_zero(3, 4)),
    Example(tanh_forward, x=normal(3, 4, 5, 2)),
    Example(sigmoid_forward, x=normal(3, 4, 5, 2)),
    Example(dropout_forward, torch=_torch_dropout, x=normal(2, 3, 4, 4), p=0.3, rng=3),
    Example(dropout_forward, torch=lambda F, x, **_: x, x=normal(6, 4), p=0.3, train=False),
]
