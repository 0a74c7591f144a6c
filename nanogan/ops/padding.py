"""Padding of images: with zeros, or with their own mirror image.

A convolution with ``padding=1`` sees zeros around the image: a dark frame that is in no image, and shows in generated
ones as an artefact along the border. Reflection padding continues the image by its mirror image instead. The border
pixel itself is the mirror and is not repeated; here 2 columns on the left and 1 on the right:

    x =  a b c d        y =  c b  a b c d  c

**The backward pass.** Padding copies pixels, so a pixel's gradient is the sum over its copies: the border of dy is
folded back onto the pixels that it was copied from, as the reverse of the forward's lines. Zeros were copied from
nowhere, and their gradient is dropped.

    dy = p q  r s t u  v        dx =  r   s+q   t+p+v   u

Sources: torch.nn.ReflectionPad2d, torch.nn.ZeroPad2d; J. Johnson et al., arXiv:1603.08155, use reflection padding for
style transfer.
"""

from numbers import Integral

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.ops.checks import check_input
from nanogan.ops.examples import Example, normal


def reflection_pad2d_forward(x, *, padding):
    """Continue each image by its mirror image, as torch.nn.ReflectionPad2d.

        y[n, c, h, w] = x[n, c, mirror(h - top, H), mirror(w - left, W)],  mirror(i, size) = size-1 - |size-1 - |i||

    x (N, C, H, W); ``padding`` is one number for all sides or four, (left, right, top, bottom), less than the size of
    the image in their direction. Returns y (N, C, top + H + bottom, left + W + right) and the cache for
    :func:`reflection_pad2d_backward`. Raises UserError for another padding.
    """
    check_input("ReflectionPad2d", x, None, (None, None, None, None))
    left, right, top, bottom = _four("ReflectionPad2d", padding)
    N, C, H, W = x.shape
    if max(left, right) >= W or max(top, bottom) >= H:
        raise UserError(
            f"ReflectionPad2d expected a padding smaller than the images, whose height and width are {(H, W)}, got "
            f"(left, right, top, bottom) = {(left, right, top, bottom)}: a mirror image has no more pixels"
        )
    x_pixels = x.transpose(0, 2, 3, 1)  # (N, H, W, C)

    pixels = array_module(x).empty((N, top + H + bottom, left + W + right, C), dtype=x.dtype)
    columns = pixels[:, :, left : left + W]  # a view without the borders on the left and right
    columns[:, top : top + H] = x_pixels
    columns[:, :top] = x_pixels[:, 1 : top + 1][:, ::-1]
    columns[:, top + H :] = x_pixels[:, -1 - bottom : -1][:, ::-1]
    pixels[:, :, :left] = columns[:, :, 1 : left + 1][:, :, ::-1]  # of the new rows too
    pixels[:, :, left + W :] = columns[:, :, -1 - right : -1][:, :, ::-1]
    return pixels.transpose(0, 3, 1, 2), (x.shape, (left, right, top, bottom))


def reflection_pad2d_backward(dy, cache):
    """Return dx (N, C, H, W): each border of dy, mirrored back, is added to the pixels that it was copied from."""
    (_, _, H, W), (left, right, top, bottom) = cache
    d_pixels = dy.transpose(0, 2, 3, 1)  # (N, top + H + bottom, left + W + right, C)

    d_columns = d_pixels[:, :, left : left + W].copy()  # (N, top + H + bottom, W, C)
    d_columns[:, :, 1 : left + 1] += d_pixels[:, :, :left][:, :, ::-1]
    d_columns[:, :, -1 - right : -1] += d_pixels[:, :, left + W :][:, :, ::-1]
    dx = d_columns[:, top : top + H].copy()  # (N, H, W, C)
    dx[:, 1 : top + 1] += d_columns[:, :top][:, ::-1]
    dx[:, -1 - bottom : -1] += d_columns[:, top + H :][:, ::-1]
    return dx.transpose(0, 3, 1, 2)


def zero_pad2d_forward(x, *, padding):
    """Put zeros around each image, as torch.nn.ZeroPad2d.

    x (N, C, H, W); ``padding`` is one number for all sides or four, (left, right, top, bottom). Returns y
    (N, C, top + H + bottom, left + W + right) and the cache for :func:`zero_pad2d_backward`.
    Raises UserError for a negative padding, which in torch cuts the image.
    """
    check_input("ZeroPad2d", x, None, (None, None, None, None))
    left, right, top, bottom = _four("ZeroPad2d", padding)
    N, C, H, W = x.shape
    pixels = array_module(x).zeros((N, top + H + bottom, left + W + right, C), dtype=x.dtype)
    pixels[:, top : top + H, left : left + W] = x.transpose(0, 2, 3, 1)
    return pixels.transpose(0, 3, 1, 2), (H, W, left, top)


def zero_pad2d_backward(dy, cache):
    """Return dx (N, C, H, W): dy without its borders."""
    H, W, left, top = cache
    d_pixels = dy.transpose(0, 2, 3, 1)
    return d_pixels[:, top : top + H, left : left + W].copy().transpose(0, 3, 1, 2)


def _four(op, padding):
    """Return ``padding`` as (left, right, top, bottom): torch's ``padding=3`` means (3, 3, 3, 3)."""
    four = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * 4
    if len(four) != 4 or not all(isinstance(n, Integral) and n >= 0 for n in four):
        raise UserError(
            f"{op} expected a padding of one integer of at least 0, or of four, (left, right, top, bottom), "
            f"got {padding!r}"
        )
    return four


# --------------------------------------------------------------------------- what the gradient checks and the tests try


def _reflect(F, x, padding):
    return F.pad(x, (padding,) * 4 if isinstance(padding, int) else padding, mode="reflect")


EXAMPLES = [
    Example(reflection_pad2d_forward, torch=_reflect, x=normal(2, 3, 3, 4), padding=1),
    Example(reflection_pad2d_forward, torch=_reflect, x=normal(2, 2, 4, 5), padding=(4, 2, 1, 3)),
    Example(reflection_pad2d_forward, torch=_reflect, x=normal(1, 2, 3, 1), padding=(0, 0, 2, 0)),
    Example(zero_pad2d_forward, torch=lambda F, x, padding: F.pad(x, padding), x=normal(2, 3, 3, 4),
            padding=(0, 1, 2, 3)),
    Example(zero_pad2d_forward, torch=lambda F, x, padding: F.pad(x, (padding,) * 4), x=normal(2, 2, 2, 3), padding=2),
]  # fmt: skip
