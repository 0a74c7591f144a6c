"""Instance normalisation: every channel of every image is shifted and scaled by its own mean and variance.

    mean = sum x / M        var = sum (x - mean)^2 / M        xhat = (x - mean) / sqrt(var + eps)
    y = gamma * xhat + beta

It is batch normalisation with other groups: there a group is a channel of the whole batch, here it is a channel of one
image, M = H*W pixels. So an image's result does not depend on the rest of its batch, train and eval mode are the
same, and what is lost is each image's own contrast. That suits style transfer, where contrast is part of the style.

**The backward pass** is :mod:`nanogan.ops.batchnorm`'s, within each group. gamma is constant in a group, so that

    dx = gamma / sqrt(var + eps) * (dy - mean(dy) - xhat * mean(dy * xhat))

dgamma and dbeta are the sums of dy * xhat and of dy over the pixels, then over the images, which share gamma and beta.

Source: D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization", arXiv:1607.08022; as torch.nn.InstanceNorm2d
without running statistics, its default.
"""

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.ops.checks import check_input
from nanogan.ops.examples import Example, normal
from nanogan.ops.rows import centre, column_sum


def instancenorm_forward(x, gamma=None, beta=None, *, eps=1e-5):
    """Normalise each channel of each image of x (N, C, H, W); gamma and beta are (C,), or None for 1 and 0.

    Returns y of x's shape and the cache for :func:`instancenorm_backward`.
    Raises UserError for a wrong number of channels or dimensions, another dtype than gamma's, images of one pixel.
    """
    check_input("InstanceNorm2d", x, gamma, (None, None if gamma is None else len(gamma), None, None), half=False)
    N, C, H, W = x.shape
    if H * W < 2:
        raise UserError(f"InstanceNorm2d expected more than one pixel per image, got x of shape {x.shape}")
    groups = x.transpose(0, 2, 3, 1).reshape(N, H * W, C)  # one group per column of each image's matrix

    centred = centre(groups)  # (N, H*W, C)
    var = column_sum(centred * centred)[:, None, :] / (H * W)  # (N, 1, C)
    inv_std = 1 / array_module(x).sqrt(var + float(eps))  # a NumPy number would make the result float64
    centred *= inv_std
    xhat = centred  # (N, H*W, C)
    y = xhat if gamma is None else gamma * xhat
    y = y if beta is None else y + beta
    return _from_groups(y, x), (xhat, inv_std, gamma, beta)


def instancenorm_backward(dy, cache, need_dx=True, need_dw=True):
    """Return dx of dy's shape, dgamma (C,), dbeta (C,); None for what is not needed or was not given."""
    xhat, inv_std, gamma, beta = cache
    dy_groups = dy.transpose(0, 2, 3, 1).reshape(xhat.shape)  # (N, M, C), M = H*W
    M = xhat.shape[1]
    dx = dgamma = dbeta = None

    # y = gamma * xhat + beta, image by image
    dgammas = column_sum(dy_groups * xhat)  # (N, C)
    dbetas = column_sum(dy_groups)  # (N, C)
    if need_dx:
        # dx = gamma * inv_std * (dy - mean(dy) - xhat * mean(dy * xhat))
        dx = xhat * (-dgammas / M)[:, None, :]
        dx += dy_groups
        dx -= (dbetas / M)[:, None, :]
        dx *= inv_std if gamma is None else gamma * inv_std
        dx = _from_groups(dx, dy)
    if need_dw and gamma is not None:
        dgamma = dgammas.sum(axis=0)
    if need_dw and beta is not None:
        dbeta = dbetas.sum(axis=0)
    return dx, dgamma, dbeta


def _from_groups(groups, x):
    """Groups (N, H*W, C) in x's shape (N, C, H, W), channels-last in memory."""
    N, C, H, W = x.shape
    return groups.reshape(N, H, W, C).transpose(0, 3, 1, 2)


# --------------------------------------------------------------------------- what the gradient checks and the tests try


def example(*shape, gamma=True, beta=True, **options):
    """An Example for x of this shape, with or without gamma and beta."""
    C = shape[1]
    inputs = {"x": normal(*shape)} | ({"gamma": normal(C)} if gamma else {}) | ({"beta": normal(C)} if beta else {})
    return Example(instancenorm_forward, torch=_torch, **inputs, **options)


def _torch(F, x, gamma=None, beta=None, eps=1e-5):
    return F.instance_norm(x, weight=gamma, bias=beta, eps=eps)


EXAMPLES = [
    example(2, 3, 4, 5, gamma=False, beta=False),
    example(2, 3, 5, 3, eps=1e-2),
    example(3, 2, 1, 4, beta=False),
]
