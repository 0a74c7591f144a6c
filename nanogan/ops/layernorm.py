"""Layer normalisation: each sample is shifted and scaled by the mean and variance of its own features.

    mean = sum x / M        var = sum (x - mean)^2 / M        xhat = (x - mean) / sqrt(var + eps)
    y = gamma * xhat + beta

A group is what the last dimensions span: the M = F features of a row of (N, F), or the M = C*H*W values of an image.
A sample's result does not depend on the rest of its batch, which a WGAN-GP's critic needs, whose penalty is a
gradient for each sample.

**The backward pass.** gamma and beta differ within a group, so the gradient of xhat comes first, dxhat = gamma * dy.
From xhat to x it is :mod:`nanogan.ops.batchnorm`'s, within each group:

    dx = (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)) / sqrt(var + eps)

dgamma and dbeta, element by element, are the sums of dy * xhat and of dy over all groups, which share gamma and beta.

**Groups in memory.** Arrays lie channels-last, so groups are cut as a stack of matrices (A, M, B), one group per
column: for the last dimension W of (N, C, H, W) that is A = N*H, M = W, B = C; for H and W it is A = N, M = H*W, B = C.
If the channels are normalised too, or there are no images, each matrix is one group, B = 1.

Source: J. L. Ba et al., "Layer Normalization", arXiv:1607.06450; as torch.nn.LayerNorm.
"""

import math
from numbers import Integral

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.ops.checks import check_dtype
from nanogan.ops.examples import Example, normal
from nanogan.ops.rows import centre, column_sum


def layernorm_forward(x, gamma=None, beta=None, *, normalized_shape, eps=1e-5):
    """Normalise x (N, ..., *normalized_shape) over its last dimensions, those of ``normalized_shape``.

    ``normalized_shape`` is a tuple of integers, or one integer for the last dimension alone; gamma and beta have this
    shape, or are None for 1 and 0. Returns y of x's shape and the cache for :func:`layernorm_backward`.
    Raises UserError if x ends in another shape or has no dimension before it, or for another dtype than gamma's.
    """
    check_dtype("LayerNorm", x, gamma, half=False)
    shape = layernorm_shape(normalized_shape)
    if x.ndim <= len(shape) or x.shape[-len(shape) :] != shape:
        raise UserError(f"LayerNorm expected x of shape (N, ...) that ends in {shape}, got {x.shape}")
    for name, parameter in (("gamma", gamma), ("beta", beta)):
        if parameter is not None and parameter.shape != shape:
            raise UserError(f"LayerNorm expected {name} of the shape {shape}, got {parameter.shape}")
    groups = _to_groups(x, len(shape))  # (A, M, B)

    centred = centre(groups)  # (A, M, B)
    var = column_sum(centred * centred)[:, None, :] / groups.shape[1]  # (A, 1, B)
    inv_std = 1 / array_module(x).sqrt(var + float(eps))  # a NumPy number would make the result float64
    centred *= inv_std
    xhat = centred  # (A, M, B)
    y = xhat if gamma is None else xhat * _one_group(gamma, x)
    y = y if beta is None else y + _one_group(beta, x)
    return _from_groups(y, x.shape), (xhat, inv_std, gamma, beta, len(shape))


def layernorm_backward(dy, cache, need_dx=True, need_dw=True):
    """Return dx of dy's shape, dgamma and dbeta of gamma's; None for what is not needed or was not given."""
    xhat, inv_std, gamma, beta, last = cache
    dy_groups = _to_groups(dy, last)  # (A, M, B)
    M = xhat.shape[1]
    dx = dgamma = dbeta = None

    # y = gamma * xhat + beta, gamma and beta the same for all A*B groups
    if need_dw and gamma is not None:
        dgamma = _from_one_group(column_sum((dy_groups * xhat).sum(axis=2)), gamma.shape, dy)
    if need_dw and beta is not None:
        dbeta = _from_one_group(column_sum(dy_groups.sum(axis=2)), beta.shape, dy)
    if need_dx:
        dxhat = dy_groups if gamma is None else dy_groups * _one_group(gamma, dy)  # (A, M, B)
        # dx = inv_std * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))
        dx = xhat * (-column_sum(dxhat * xhat) / M)[:, None, :]
        dx += dxhat
        dx -= (column_sum(dxhat) / M)[:, None, :]
        dx *= inv_std
        dx = _from_groups(dx, dy.shape)
    return dx, dgamma, dbeta


def layernorm_shape(normalized_shape):
    """Return ``normalized_shape`` as a tuple: torch's ``5`` means (5,). Raises UserError for another value."""
    shape = tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    if not shape or not all(isinstance(n, Integral) and n >= 1 for n in shape):
        raise UserError(f"LayerNorm expected a normalized_shape of one or more integers, got {normalized_shape!r}")
    return shape


def _to_groups(x, last):
    """x as a stack of matrices (A, M, B), one group per column: each spans the ``last`` dimensions. See above."""
    if x.ndim != 4:
        return x.reshape(-1, math.prod(x.shape[-last:]), 1)
    N, C, H, W = x.shape
    shape = {1: (N * H, W, C), 2: (N, H * W, C), 3: (N, H * W * C, 1)}[last]
    return x.transpose(0, 2, 3, 1).reshape(shape)


def _from_groups(groups, shape):
    """The inverse of :func:`_to_groups`: an array of ``shape``, channels-last in memory."""
    if len(shape) != 4:
        return groups.reshape(shape)
    N, C, H, W = shape
    return groups.reshape(N, H, W, C).transpose(0, 3, 1, 2)


def _one_group(gamma, x):
    """gamma as one group, (1, M, 1), in the order of x's groups."""
    return _to_groups(gamma.reshape((1,) * (x.ndim - gamma.ndim) + gamma.shape), gamma.ndim)


def _from_one_group(group, shape, x):
    """One group, M values in the order of x's groups, in gamma's ``shape``: the inverse of :func:`_one_group`."""
    return _from_groups(group, (1,) * (x.ndim - len(shape)) + shape).reshape(shape)


# --------------------------------------------------------------------------- what the gradient checks and the tests try


def example(*shape, normalized_shape, gamma=True, beta=True, **options):
    """An Example for x of this shape, with or without gamma and beta."""
    last = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
    inputs = {"x": normal(*shape)}
    inputs |= ({"gamma": normal(*last)} if gamma else {}) | ({"beta": normal(*last)} if beta else {})
    return Example(layernorm_forward, torch=_torch, **inputs, normalized_shape=normalized_shape, **options)


def _torch(F, x, gamma=None, beta=None, *, normalized_shape, eps=1e-5):
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
    return F.layer_norm(x, shape, gamma, beta, eps)


EXAMPLES = [
    example(4, 6, normalized_shape=6),
    example(2, 3, 4, 5, normalized_shape=(3, 4, 5), eps=1e-2),
    example(2, 3, 4, 5, normalized_shape=(4, 5)),
    example(2, 3, 2, 5, normalized_shape=5, gamma=False, beta=False),
    example(3, 2, 5, normalized_shape=(2, 5), beta=False),
]
