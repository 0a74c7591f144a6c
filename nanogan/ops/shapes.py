"""Operations that change the shape: upsampling, max pooling, reshaping."""

import math
from numbers import Integral

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.ops.checks import check_input, pair
from nanogan.ops.conv import col2im, conv2d_output_size, im2col
from nanogan.ops.examples import Example, all_different, normal
from nanogan.ops.rows import from_rows


def upsample_forward(x, *, scale_factor=2):
    """Repeat every pixel scale_factor x scale_factor times, as torch.nn.Upsample(mode="nearest").

        y[n, c, h, w] = x[n, c, h // scale_factor, w // scale_factor]

    x (N, C, H, W). Returns y (N, C, H*s, W*s) and the cache for :func:`upsample_backward`.
    """
    check_input("Upsample", x, None, (None, None, None, None))
    if not isinstance(scale_factor, Integral) or scale_factor < 1:
        raise UserError(f"Upsample expected a whole scale_factor of at least 1, got {scale_factor!r}")
    xp, s = array_module(x), scale_factor
    N, C, H, W = x.shape
    pixels = x.transpose(0, 2, 3, 1)[:, :, None, :, None, :]  # (N, H, 1, W, 1, C)
    y = xp.broadcast_to(pixels, (N, H, s, W, s, C)).reshape(-1, C)
    return from_rows(y, N, H * s, W * s), (x.shape, s)


def upsample_backward(dy, cache):
    """Return dx (N, C, H, W): the sum of dy over the s x s pixels that each pixel of x was copied to."""
    (N, C, H, W), s = cache
    blocks = dy.transpose(0, 2, 3, 1).reshape(N, H, s, W, s, C)
    return blocks.sum(axis=(2, 4)).transpose(0, 3, 1, 2)


def max_pool2d_forward(x, *, kernel_size, stride=None, padding=0):
    """y[n, c, oh, ow] = the largest of the window's pixels, as torch.nn.functional.max_pool2d.

    x (N, C, H, W); the stride is kernel_size if not given; the padding never wins.
    Returns y (N, C, OH, OW) and the cache for :func:`max_pool2d_backward`.
    """
    check_input("MaxPool2d", x, None, (None, None, None, None))
    kernel_size, padding = pair(kernel_size, "kernel_size", least=1), pair(padding, "padding")
    stride = pair(kernel_size if stride is None else stride, "stride", least=1)
    if any(2 * p > k for p, k in zip(padding, kernel_size, strict=True)):
        raise UserError(f"MaxPool2d expected a padding of at most half the kernel's size {kernel_size}, got {padding}")
    xp = array_module(x)
    N, C = x.shape[:2]
    OH, OW = conv2d_output_size(x.shape[2:], kernel_size, stride, padding, "MaxPool2d")

    cols = im2col(x, kernel_size, stride, padding, (OH, OW), fill=-xp.inf)
    windows = cols.reshape(N * OH * OW, kernel_size[0] * kernel_size[1], C)  # (N*OH*OW, KH*KW, C)
    winner = windows.argmax(axis=1)  # (N*OH*OW, C): the first in reading order where several are largest
    y = windows.max(axis=1)
    return from_rows(y, N, OH, OW), (winner, x.shape, kernel_size, stride, padding)


def max_pool2d_backward(dy, cache):
    """Return dx (N, C, H, W): each dy goes to the pixel that won its window, and adds up where windows overlap."""
    winner, shape, kernel_size, stride, padding = cache
    xp = array_module(dy)
    N, C, OH, OW = dy.shape
    KH, KW = kernel_size
    position = xp.arange(KH * KW)[:, None]  # (KH*KW, 1)
    dy_rows = dy.transpose(0, 2, 3, 1).reshape(N * OH * OW, 1, C)
    dcols = (position == winner[:, None, :]) * dy_rows  # (N*OH*OW, KH*KW, C)
    return col2im(dcols, shape, kernel_size, stride, padding, (OH, OW))


def reshape_forward(x, *, shape):
    """(N, ...) -> (N, *shape), in the order of x's logical shape. Returns y and the cache for reshape_backward."""
    array_module(x)  # raises UserError for what is no array
    size = math.prod(shape)
    if size * len(x) != x.size:
        raise UserError(f"Reshape expected {size} numbers per picture for {tuple(shape)}, got x of shape {x.shape}")
    return x.reshape(len(x), *shape), x.shape


def reshape_backward(dy, cache):
    """Return dy in x's shape."""
    shape = cache
    return dy.reshape(shape)


def flatten_forward(x):
    """(N, ...) -> (N, size of the rest), in the order of x's logical shape. Returns y and the cache."""
    array_module(x)  # raises UserError for what is no array
    return x.reshape(len(x), math.prod(x.shape[1:])), x.shape  # not -1, which an empty batch does not decide


flatten_backward = reshape_backward


# --------------------------------------------------------------------------- what the gradient checks and the tests try

EXAMPLES = [
    Example(upsample_forward, torch="interpolate", x=normal(2, 3, 3, 4), scale_factor=3),
    Example(max_pool2d_forward, x=all_different(2, 3, 6, 8), kernel_size=2),
    Example(max_pool2d_forward, x=all_different(2, 3, 7, 6), kernel_size=(3, 2), stride=(2, 1), padding=1),
    Example(flatten_forward, torch=lambda F, x: x.flatten(1), x=normal(2, 3, 4, 5)),
    Example(reshape_forward, torch=lambda F, x, shape: x.reshape(2, 3, 2, 2), x=normal(2, 12), shape=(3, 2, 2)),
]
