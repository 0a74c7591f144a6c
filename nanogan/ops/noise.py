"""Noise on what a layer is given."""

import numpy as np

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.ops.checks import check_dtype
from nanogan.ops.examples import Example, normal


def gaussian_noise_forward(x, *, std=1.0, rng=None, train=True):
    """y = x + std * e, each e from N(0, 1), in train mode; y = x in eval mode.

    x of any shape, std >= 0; ``rng`` is a numpy.random.Generator, whose values are moved to x's device, so that the
    noise is the same on every one. It keeps a network from relying on small differences, which a few images have by
    chance. Returns y and the cache for :func:`gaussian_noise_backward`.
    """
    check_dtype("GaussianNoise", x)
    if not 0 <= std < float("inf"):
        raise UserError(f"GaussianNoise expected a standard deviation std of at least 0, got {std}")
    if not train or std == 0:
        return x, None
    if rng is None:
        raise UserError("GaussianNoise expected rng=numpy.random.default_rng(seed) in train mode, to draw its noise")
    xp = array_module(x)
    drawn = rng.standard_normal(x.shape, dtype=np.float64 if x.dtype == np.float64 else np.float32)
    y = xp.empty_like(x)  # in x's memory order
    y[...] = xp.asarray(drawn)
    y *= float(std)
    y += x
    return y, None


def gaussian_noise_backward(dy, cache):
    """Return dx = dy: what is added has no part in the slope."""
    return dy


# --------------------------------------------------------------------------- what the gradient checks and the tests try


def _torch_noise(_, x, std, rng):
    """The noise is drawn as the operation draws it; torch's own generator would draw another."""
    return x + std * x.new_tensor(rng.standard_normal(tuple(x.shape), dtype=x.detach().numpy().dtype).tolist())


EXAMPLES = [
    Example(gaussian_noise_forward, torch=_torch_noise, x=normal(2, 3, 4, 4), std=0.3, rng=3),
    Example(gaussian_noise_forward, torch=lambda F, x, **_: x, x=normal(6, 4), std=0.3, train=False),
]
