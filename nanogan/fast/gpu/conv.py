"""Convolutions with their windows gathered and added back in one kernel each, and gradients summed by cuBLAS.

The formulas are those of :mod:`nanogan.ops.conv`. What differs: im2col and col2im are ``windows.cu`` (there a fill, a
copy through a six-dimensional view, or a strided sum for each position of the kernel); dw is added to the layer's
gradient by the product that computes it; and where products read 16 bits, each array is rounded once for all of them:
the cache holds x and w as they were read.

Where no number of ``cols`` occurs twice, as in a DCGAN's first layer of G and last of D, whose kernels cover the whole
map, the windows are the images seen in another shape, and nothing is copied.
"""

import contextlib

import cupy
import numpy as np

from nanogan import ops
from nanogan.backend import add_product, narrow, product
from nanogan.dispatch import adds_gradients, register
from nanogan.errors import UserError
from nanogan.fast.gpu.sources import NUMBERS, THREADS, blocks_for, kernel, width_of
from nanogan.ops.checks import check_dy, check_input, pair
from nanogan.ops.conv import (
    conv2d_output_size,
    conv_transpose2d_output_size,
    weight_from_rows,
    weight_rows,
)
from nanogan.ops.rows import column_sum, from_rows, to_rows

LARGEST = 2**31  # numbers: the kernels count in 32 bits


def serves_conv2d(x, w, b=None, *, stride=1, padding=0):
    """Whether these are batches that the kernels can count."""
    with contextlib.suppress(UserError):  # what is wrong, the operation says
        if x.ndim == w.ndim == 4 and x.dtype.name in NUMBERS and x.size:
            stride, padding = pair(stride, "stride", least=1), pair(padding, "padding")
            output_size = conv2d_output_size(x.shape[2:], w.shape[2:], stride, padding)
            return max(x.size, _cols_size(x.shape, w.shape[2:], output_size)) < LARGEST
    return False


def conv2d_forward(x, w, b=None, *, stride=1, padding=0):
    """The same as :func:`nanogan.ops.conv2d_forward`."""
    F, C, KH, KW = w.shape
    check_input("Conv2d", x, w, (None, C, None, None))
    stride, padding = pair(stride, "stride", least=1), pair(padding, "padding")
    OH, OW = conv2d_output_size(x.shape[2:], (KH, KW), stride, padding)
    x, w = narrow(x), narrow(w)
    cols = im2col(x, (KH, KW), stride, padding, (OH, OW))  # (N*OH*OW, KH*KW*C)
    y = product(cols, weight_rows(w).T)  # (N*OH*OW, F)
    if b is not None:
        y += b
    y = from_rows(y, len(x), OH, OW)  # (N, F, OH, OW)
    return y, (x, w, b, stride, padding, y.shape)


@adds_gradients
def conv2d_backward(dy, cache, need_dx=True, need_dw=True, into=None):
    """The same as :func:`nanogan.ops.conv2d_backward`; with ``into``, dw is added to its first array."""
    x, w, b, stride, padding, y_shape = cache
    check_dy("Conv2d", dy, y_shape, _before_rounding(x))
    kernel_size, output_size = w.shape[2:], y_shape[2:]
    dx = dw = db = None
    dy_rows = to_rows(dy)  # (N*OH*OW, F)
    read = narrow(dy_rows)
    if need_dw:
        cols = im2col(x, kernel_size, stride, padding, output_size)  # (N*OH*OW, KH*KW*C)
        dw = _weight_gradient(read.T, cols, kernel_size, into)  # (F, C, KH, KW)
        db = None if b is None else column_sum(dy_rows)  # (F,)
    if need_dx:
        dcols = product(read, weight_rows(w))  # (N*OH*OW, KH*KW*C)
        dx = col2im(dcols, x.shape, kernel_size, stride, padding, output_size)  # (N, C, H, W)
    return dx, dw, db


def serves_conv_transpose2d(x, w, b=None, *, stride=1, padding=0, output_padding=0):
    """Whether these are batches that the kernels can count."""
    with contextlib.suppress(UserError):  # what is wrong, the operation says
        if x.ndim == w.ndim == 4 and x.dtype.name in NUMBERS and x.size:
            options = pair(stride, "stride", least=1), pair(padding, "padding"), pair(output_padding, "output_padding")
            OH, OW = conv_transpose2d_output_size(x.shape[2:], w.shape[2:], *options)
            cols = _cols_size((len(x), w.shape[1]), w.shape[2:], x.shape[2:])
            return max(len(x) * w.shape[1] * OH * OW, cols) < LARGEST
    return False


def conv_transpose2d_forward(x, w, b=None, *, stride=1, padding=0, output_padding=0):
    """The same as :func:`nanogan.ops.conv_transpose2d_forward`."""
    C, F, KH, KW = w.shape
    check_input("ConvTranspose2d", x, w, (None, C, None, None))
    stride, padding = pair(stride, "stride", least=1), pair(padding, "padding")
    output_padding = pair(output_padding, "output_padding")
    N, _, H, W = x.shape
    OH, OW = conv_transpose2d_output_size((H, W), (KH, KW), stride, padding, output_padding)
    x, w = narrow(x), narrow(w)
    cols = product(to_rows(x), weight_rows(w))  # (N*H*W, KH*KW*F)
    y = col2im(cols, (N, F, OH, OW), (KH, KW), stride, padding, (H, W))  # (N, F, OH, OW)
    if b is not None:
        rows = to_rows(y)  # a view: col2im's result is channels-last
        rows += b
    return y, (x, w, b, stride, padding, y.shape)


@adds_gradients
def conv_transpose2d_backward(dy, cache, need_dx=True, need_dw=True, into=None):
    """The same as :func:`nanogan.ops.conv_transpose2d_backward`; with ``into``, dw is added to its first array."""
    x, w, b, stride, padding, y_shape = cache
    check_dy("ConvTranspose2d", dy, y_shape, _before_rounding(x))
    kernel_size = w.shape[2:]
    N, C, H, W = x.shape
    dx = dw = db = None
    dcols = im2col(narrow(dy), kernel_size, stride, padding, (H, W))  # (N*H*W, KH*KW*F)
    if need_dw:
        dw = _weight_gradient(to_rows(x).T, dcols, kernel_size, into)  # (C, F, KH, KW)
        db = None if b is None else column_sum(to_rows(dy))  # (F,)
    if need_dx:
        dx = from_rows(product(dcols, weight_rows(w).T), N, H, W)  # (N, C, H, W)
    return dx, dw, db


def _before_rounding(x):
    """The dtype of x before :func:`nanogan.backend.narrow`."""
    return np.dtype(np.float32) if x.dtype.itemsize == 2 else x.dtype


def _weight_gradient(a, b, kernel_size, into):
    """a @ b as a weight's gradient, or None once it is added to ``into[0]``."""
    if into is None:
        return weight_from_rows(product(a, b), kernel_size)
    gradient = into[0].transpose(0, 2, 3, 1)  # (F, KH, KW, C): side by side where a layer made it
    if not gradient.flags.c_contiguous:
        return weight_from_rows(product(a, b), kernel_size)
    add_product(gradient.reshape(len(gradient), -1), a, b)
    return None


# -------------------------------------------------------------------------------------- windows to rows, and back


def im2col(x, kernel_size, stride, padding, output_size):
    """The same as :func:`nanogan.ops.conv.im2col`, for a padding of zeros."""
    images = cupy.ascontiguousarray(x.transpose(0, 2, 3, 1))  # (N, H, W, C), no copy if channels-last
    N, H, W, C = images.shape
    (KH, KW), (OH, OW) = kernel_size, output_size
    if _one_each((H, W), kernel_size, stride, padding, output_size):
        return images.reshape(N * OH * OW, KH * KW * C)
    cols = cupy.empty((N * OH * OW, KH * KW * C), x.dtype)
    _windows("im2col", images, cols, images.shape, kernel_size, stride, padding, output_size)
    return cols


def col2im(cols, shape, kernel_size, stride, padding, output_size):
    """The same as :func:`nanogan.ops.conv.col2im`; the result is channels-last, without gaps."""
    N, C, H, W = shape
    if _one_each((H, W), kernel_size, stride, padding, output_size):
        return from_rows(cols.reshape(N * H * W, C), N, H, W)
    images = cupy.empty((N, H, W, C), cols.dtype)
    _windows("col2im", cols, images, images.shape, kernel_size, stride, padding, output_size)
    return images.transpose(0, 3, 1, 2)


def _one_each(size, kernel_size, stride, padding, output_size):
    """Whether cols are the images' numbers in their order: one window of the whole image, or windows of one pixel."""
    whole = tuple(kernel_size) == tuple(size) and tuple(output_size) == (1, 1)
    pixels = tuple(kernel_size) == tuple(stride) == (1, 1) and tuple(output_size) == tuple(size)
    return (whole or pixels) and not any(padding)


def _windows(name, source, target, shape, kernel_size, stride, padding, output_size):
    """Run the kernel ``name`` of windows.cu over ``target``."""
    N, H, W, C = shape
    number = NUMBERS.get(source.dtype.name, "unsigned short")
    width = width_of(C, itemsize=source.dtype.itemsize)
    sizes = N, H, W, C // width, *kernel_size, *stride, *padding, *output_size
    run = kernel("windows.cu", name, NUMBER=number, WIDTH=width)
    run(blocks_for(target.size // width), (THREADS,), (source, target, *map(np.int32, sizes)))


def _cols_size(shape, kernel_size, output_size):
    """How many numbers the windows of images (N, C, ...) are."""
    (N, C), (KH, KW), (OH, OW) = shape[:2], kernel_size, output_size
    return N * OH * OW * KH * KW * C


register("gpu", ops.conv2d_forward, conv2d_forward, conv2d_backward, serves=serves_conv2d)
register(
    "gpu", ops.conv_transpose2d_forward, conv_transpose2d_forward, conv_transpose2d_backward,
    serves=serves_conv_transpose2d,
)  # fmt: skip
