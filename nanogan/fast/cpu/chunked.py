"""Convolutions of any shape: ``nanogan.ops``' own, a few images at a time, on threads.

``cols``, the windows written out as rows, is KH*KW/stride^2 times the size of x. For a whole batch it goes out to
memory and back; for a few images it stays in the core's cache, and the matrix product finds it there.
"""

import math
from functools import partial

import numpy as np

from nanogan import ops
from nanogan.dispatch import register
from nanogan.fast.cpu import blocks, linear, thin, threads
from nanogan.fast.cpu.threads import workspace
from nanogan.ops import conv
from nanogan.ops.checks import check_dy, check_input, pair
from nanogan.ops.rows import column_sum

COLS = 512 * 1024  # numbers of cols at a time
SMALL = 2 * 1000 * 1000  # multiplications, up to which the book is as fast
PLANES = 2  # channels, up to which cols are written as planes
WORTHWHILE = 30 * 1000 * 1000  # multiplications for which waking up other threads pays
THIN = 3  # times fewer are enough where one side has so few channels that copies take longer than the product


def serves_conv2d(x, w, b=None, *, stride=1, padding=0):
    """Whether this is a batch of images, of numbers that BLAS multiplies, more than one window, enough work."""
    if not _is_batch(x, w) or x.size * w[:, 0].size < SMALL or linear.one_window(x, w, padding):
        return False
    return x.size * w[:, 0].size // math.prod(pair(stride, "stride", least=1)) >= SMALL


def serves_conv_transpose2d(x, w, b=None, *, stride=1, padding=0, output_padding=0):
    """Whether this is a batch of images, of numbers that BLAS multiplies, more than one window, enough work."""
    enough = _is_batch(x, w) and x.size * w[0].size >= SMALL
    return enough and not linear.one_pixel(x, padding, output_padding)


def _is_batch(x, w):
    return x.ndim == 4 and w.ndim == 4 and x.size > 0 and x.dtype in (np.float32, np.float64)


def conv2d_forward(x, w, b=None, *, stride=1, padding=0):
    """The same as :func:`nanogan.ops.conv2d_forward`."""
    check_input("Conv2d", x, w, (None, w.shape[1], None, None))
    stride, padding = pair(stride, "stride", least=1), pair(padding, "padding")
    size = conv.conv2d_output_size(x.shape[2:], w.shape[2:], stride, padding)
    y = threads.empty((len(x), *size, len(w)), x.dtype)
    rows = conv.weight_rows(w).T  # (KH*KW*C, F)

    def work(images):
        for chunk in _chunks(images, x.shape[1], size, w):
            out = y[chunk].reshape(-1, len(w))
            np.matmul(_im2col(x[chunk], w.shape[2:], stride, padding, size), rows, out=out)
            if b is not None:
                out += b

    threads.parallel(work, _shares(len(x), size, w))
    y = y.transpose(0, 3, 1, 2)
    return y, (x, w, b, stride, padding, y.shape)


def conv2d_backward(dy, cache, need_dx=True, need_dw=True):
    """The same as :func:`nanogan.ops.conv2d_backward`."""
    x, w, b, stride, padding, y_shape = cache
    check_dy("Conv2d", dy, y_shape, x.dtype)
    if not (need_dx or need_dw):
        return None, None, None
    dy, size = _pixels(dy), y_shape[2:]  # dy (N, OH, OW, F)
    N, C, H, W = x.shape
    dx = threads.empty((N, H, W, C), x.dtype) if need_dx else None

    def work_dx(images):
        paint = _painter(w, stride, padding)
        for chunk in _chunks(images, C, size, w):
            paint(dy[chunk], dx[chunk])

    def work_dw(images):
        dw = np.zeros((len(w), w[0].size), x.dtype)
        for chunk in _chunks(images, C, size, w):
            cols = _im2col(x[chunk], w.shape[2:], stride, padding, size)
            dw += dy[chunk].reshape(-1, len(w)).T @ cols
        return dw

    # They share nothing. So half of the threads take one, and half the other: as much work in half as many calls
    works = [work for work, needed in ((work_dx, need_dx), (work_dw, need_dw)) if needed]
    number = threads.count() if _pays(len(works) * N * math.prod(size), w) else 1
    halves = len(works) == 2 and number % 2 == 0
    shares = threads.slices(N, number // 2 if halves else number)
    jobs = [partial(work, share) for share in shares for work in works]
    lists = [[job] for job in jobs] if number > 1 else [jobs]  # one after the other where others are not woken up
    results = threads.parallel(lambda jobs: [job() for job in jobs], lists)
    dw = sum(dw for of_list in results for dw in of_list if dw is not None)
    return _gradients(dx, dw, dy, w, b, need_dw)


def conv_transpose2d_forward(x, w, b=None, *, stride=1, padding=0, output_padding=0):
    """The same as :func:`nanogan.ops.conv_transpose2d_forward`."""
    check_input("ConvTranspose2d", x, w, (None, len(w), None, None))
    stride, padding = pair(stride, "stride", least=1), pair(padding, "padding")
    output_padding, F = pair(output_padding, "output_padding"), w.shape[1]
    size = conv.conv_transpose2d_output_size(x.shape[2:], w.shape[2:], stride, padding, output_padding)
    y = threads.empty((len(x), *size, F), x.dtype)
    pixels, paint = _pixels(x), _painter(w, stride, padding)

    def work(images):
        for chunk in _chunks(images, F, x.shape[2:], w):
            paint(pixels[chunk], y[chunk])
            if b is not None:
                y[chunk] += b

    threads.parallel(work, _shares(len(x), x.shape[2:], w))
    y = y.transpose(0, 3, 1, 2)
    return y, (x, w, b, stride, padding, y.shape)


def conv_transpose2d_backward(dy, cache, need_dx=True, need_dw=True):
    """The same as :func:`nanogan.ops.conv_transpose2d_backward`."""
    x, w, b, stride, padding, y_shape = cache
    check_dy("ConvTranspose2d", dy, y_shape, x.dtype)
    if not (need_dx or need_dw):
        return None, None, None
    pixels, size = _pixels(x), x.shape[2:]  # (N, H, W, C)
    dx = threads.empty(pixels.shape, x.dtype) if need_dx else None
    rows = conv.weight_rows(w).T  # (KH*KW*F, C)

    def work(images):
        dw = np.zeros((len(w), w[0].size), x.dtype) if need_dw else 0
        for chunk in _chunks(images, w.shape[1], size, w):
            dcols = _im2col(dy[chunk], w.shape[2:], stride, padding, size)
            if need_dw:
                dw += pixels[chunk].reshape(-1, len(w)).T @ dcols
            if need_dx:
                np.matmul(dcols, rows, out=dx[chunk].reshape(-1, len(w)))
        return dw

    dw = sum(threads.parallel(work, _shares(len(x), size, w, products=need_dx + need_dw)))
    return _gradients(dx, dw, dy.transpose(0, 2, 3, 1), w, b, need_dw)


def _gradients(dx, dw, dy, w, b, need_dw):
    """dx (N, C, H, W), dw like w, db: what is not needed is None. dy with its channels last."""
    db = None
    if need_dw and b is not None:
        with threads.one_blas_thread:
            db = column_sum(dy.reshape(-1, dy.shape[3]))
    dw = conv.weight_from_rows(dw, w.shape[2:]) if need_dw else None
    return None if dx is None else dx.transpose(0, 3, 1, 2), dw, db


def _painter(w, stride, padding):
    """Return ``paint(x, y)``: fill y (n, OH, OW, F) with the transposed convolution of x (n, H, W, C), as fits w."""
    for path in (blocks, thin):
        if path.serves(w, stride):
            return path.painter(w, stride, padding)
    rows = conv.weight_rows(w)  # (C, KH*KW*F)

    def paint(x, y):
        n, H, W, C = x.shape
        cols = np.matmul(x.reshape(-1, C), rows, out=workspace("cols", (n * H * W, rows.shape[1]), x.dtype))
        shape = y.transpose(0, 3, 1, 2).shape
        y[...] = conv.col2im(cols, shape, w.shape[2:], stride, padding, (H, W)).transpose(0, 2, 3, 1)

    return paint


def _im2col(x, kernel_size, stride, padding, output_size):
    """:func:`nanogan.ops.conv.im2col` into memory that is used again.

    NumPy copies runs of memory, and works longer between two of them than on a few numbers. A window's row has runs of
    KW*C numbers; with one or two channels the matrix is written transposed, a plane for each position in the kernel,
    in runs of OW numbers. BLAS reads either.
    """
    n, C, H, W = x.shape
    (KH, KW), (SH, SW), (PH, PW), (OH, OW) = kernel_size, stride, padding, output_size
    padded = workspace("padded", (n, H + 2 * PH, W + 2 * PW, C), x.dtype)
    if PH or PW:
        padded[...] = 0
    padded[:, PH : PH + H, PW : PW + W] = x.transpose(0, 2, 3, 1)
    i, h, w, c = padded.strides
    if C <= PLANES:
        shape, strides = (KH, KW, C, n, OH, OW), (h, w, c, i, SH * h, SW * w)
    else:
        shape, strides = (n, OH, OW, KH, KW, C), (i, SH * h, SW * w, h, w, c)
    cols = workspace("cols", shape, x.dtype)
    np.copyto(cols, np.lib.stride_tricks.as_strided(padded, shape, strides))
    return cols.reshape(KH * KW * C, -1).T if C <= PLANES else cols.reshape(n * OH * OW, -1)


def _pixels(x):
    """(N, C, H, W) -> (N, H, W, C), contiguous: no copy of a channels-last array."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def _shares(N, windows, w, products=1):
    """Each thread's images; all of them to one where threads would not pay. ``windows``: (OH, OW) of im2col."""
    return threads.shares(N, _pays(N * math.prod(windows) * products, w))


def _pays(windows, w):
    """Whether other threads are to be woken up for so many windows."""
    return windows * w.size * (THIN if min(w.shape[:2]) <= thin.CHANNELS else 1) >= WORTHWHILE


def _chunks(images, channels, windows, w):
    """Cut a slice of images into some that have about COLS numbers in cols, windows of so many ``channels``."""
    step = max(1, COLS // (math.prod(windows) * channels * w.shape[2] * w.shape[3]))
    return [slice(start, min(images.stop, start + step)) for start in range(images.start, images.stop, step)]


for _pair in (
    (ops.conv2d_forward, conv2d_forward, conv2d_backward, serves_conv2d),
    (ops.conv_transpose2d_forward, conv_transpose2d_forward, conv_transpose2d_backward, serves_conv_transpose2d),
):
    register("cpu", *_pair[:3], serves=_pair[3], precisions=("float32", "tf32"))
