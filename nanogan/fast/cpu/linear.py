"""The fully connected layer, its outputs shared by threads; and convolutions that are one.

A kernel that covers the whole map, as in a DCGAN's first layer of G and last of D, has one window. Then no number of
``cols`` occurs twice, im2col and col2im only give it another shape, and the convolution is a fully connected layer.
"""

import numpy as np

from nanogan import ops
from nanogan.dispatch import register
from nanogan.fast.cpu import threads
from nanogan.ops import conv
from nanogan.ops.checks import check_dy, check_input, pair
from nanogan.ops.rows import column_sum, from_rows, to_rows

LEAST = 64 * 1000  # multiplications: with fewer the book is as fast
WORTHWHILE = 20 * 1000 * 1000  # multiplications for which waking up other threads pays


def serves(x, w, b=None):
    """Whether these are matrices of numbers that BLAS multiplies, and large."""
    return x.ndim == 2 and w.ndim == 2 and x.dtype in (np.float32, np.float64) and x.size * len(w) >= LEAST


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
    if a.shape[1] == 1:  # as behind D's one number: BLAS takes ten times as long
        return np.multiply(a, b, out=out)

    def work(columns):
        np.matmul(a, b[:, columns], out=out[:, columns])

    threads.parallel(work, threads.shares(b.shape[1], len(a) * b.size >= WORTHWHILE))
    return out


def serves_conv2d(x, w, b=None, *, stride=1, padding=0):
    """Whether w covers all of x, and both are large."""
    right = x.ndim == 4 and w.ndim == 4 and x.shape[1] == w.shape[1] and x.dtype in (np.float32, np.float64)
    return right and x.size * len(w) >= LEAST and one_window(x, w, padding)


def serves_conv_transpose2d(x, w, b=None, *, stride=1, padding=0, output_padding=0):
    """Whether x has one pixel, from which w paints the whole result, and both are large."""
    right = x.ndim == 4 and w.ndim == 4 and x.shape[1] == len(w) and x.dtype in (np.float32, np.float64)
    return right and len(x) * w.size >= LEAST and one_pixel(x, padding, output_padding)


def one_window(x, w, padding):
    """Whether the kernel w (F, C, KH, KW) covers all of x (N, C, H, W), without padding."""
    return x.shape[2:] == w.shape[2:] and pair(padding, "padding") == (0, 0)


def one_pixel(x, padding, output_padding):
    """Whether the transposed convolution of x (N, C, H, W) is the kernel, painted once and whole."""
    return x.shape[2:] == (1, 1) and pair(padding, "padding") == pair(output_padding, "output_padding") == (0, 0)


def conv2d_forward(x, w, b=None, *, stride=1, padding=0):
    """The same as :func:`nanogan.ops.conv2d_forward` for what :func:`serves_conv2d`."""
    check_input("Conv2d", x, w, (None, w.shape[1], None, None))
    pair(stride, "stride", least=1)  # there is no second window, but a wrong stride is still an error
    y = _product(_flat(x), conv.weight_rows(w).T)  # (N, F)
    if b is not None:
        y += b
    y = from_rows(y, len(x), 1, 1)
    return y, (x, w, b, y.shape)


def conv2d_backward(dy, cache, need_dx=True, need_dw=True):
    """The same as :func:`nanogan.ops.conv2d_backward`."""
    x, w, b, y_shape = cache
    check_dy("Conv2d", dy, y_shape, x.dtype)
    N, C, H, W = x.shape
    dy = to_rows(dy)  # (N, F)
    dx = from_rows(_product(dy, conv.weight_rows(w)).reshape(-1, C), N, H, W) if need_dx else None
    dw = conv.weight_from_rows(_product(dy.T, _flat(x)), w.shape[2:]) if need_dw else None
    db = dy.sum(axis=0) if need_dw and b is not None else None
    return dx, dw, db


def conv_transpose2d_forward(x, w, b=None, *, stride=1, padding=0, output_padding=0):
    """The same as :func:`nanogan.ops.conv_transpose2d_forward` for what :func:`serves_conv_transpose2d`."""
    check_input("ConvTranspose2d", x, w, (None, len(w), None, None))
    pair(stride, "stride", least=1)
    _, F, KH, KW = w.shape
    y = from_rows(_product(to_rows(x), conv.weight_rows(w)).reshape(-1, F), len(x), KH, KW)  # (N, F, KH, KW)
    if b is not None:
        y += b[:, None, None]
    return y, (x, w, b, y.shape)


def conv_transpose2d_backward(dy, cache, need_dx=True, need_dw=True):
    """The same as :func:`nanogan.ops.conv_transpose2d_backward`."""
    x, w, b, y_shape = cache
    check_dy("ConvTranspose2d", dy, y_shape, x.dtype)
    flat = _flat(dy)  # (N, KH*KW*F)
    dx = from_rows(_product(flat, conv.weight_rows(w).T), len(x), 1, 1) if need_dx else None
    dw = conv.weight_from_rows(_product(to_rows(x).T, flat), w.shape[2:]) if need_dw else None
    with threads.one_blas_thread:
        db = column_sum(to_rows(dy)) if need_dw and b is not None else None
    return dx, dw, db


def _flat(x):
    """(N, C, H, W) -> (N, H*W*C), the only row of im2col."""
    return to_rows(x).reshape(len(x), -1)


register("cpu", ops.linear_forward, linear_forward, linear_backward, serves=serves, precisions=("float32", "tf32"))
register(
    "cpu", ops.conv2d_forward, conv2d_forward, conv2d_backward,
    serves=serves_conv2d, priority=2, precisions=("float32", "tf32"),
)  # fmt: skip
register(
    "cpu", ops.conv_transpose2d_forward, conv_transpose2d_forward, conv_transpose2d_backward,
    serves=serves_conv_transpose2d, priority=2, precisions=("float32", "tf32"),
)  # fmt: skip
