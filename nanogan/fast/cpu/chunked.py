"""Convolutions of any shape: ``nanogan.ops``' own, a few images at a time, on threads.

``cols``, the windows written out as rows, is KH*KW/stride^2 times the size of x. For a whole batch it goes out to
memory and back; for a few images it stays in the core's cache, and the matrix product finds it there.
"""

import math

import numpy as np

from nanogan import ops
from nanogan.dispatch import register
from nanogan.fast.cpu import thin, threads
from nanogan.fast.cpu.threads import workspace
from nanogan.ops import conv
from nanogan.ops.checks import check_dy, check_input, pair
from nanogan.ops.rows import column_sum

COLS = 256 * 1024  # numbers of cols at a time
SMALL = 16 * 1000 * 1000  # multiplications, up to which the book is as fast
WORTHWHILE = 4 * 1000 * 1000  # multiplications of a chunked pass for which waking up other threads pays


def serves_conv2d(x, w, b=None, *, stride=1, padding=0):
    """Whether this is a batch of images, of numbers that BLAS multiplies, and more than a little work."""
    windows = math.prod(pair(stride, "stride", least=1))
    return _is_batch(x, w) and x.size * w[:, 0].size // windows >= SMALL


def serves_conv_transpose2d(x, w, b=None, *, stride=1, padding=0, output_padding=0):
    """Whether this is a batch of images, of numbers that BLAS multiplies, and more than a little work."""
    return _is_batch(x, w) and x.size * w[0].size >= SMALL


def _is_batch(x, w):
    return x.ndim == 4 and w.ndim == 4 and x.size > 0 and x.dtype in (np.float32, np.float64)


def conv2d_forward(x, w, b=None, *, stride=1, padding=0):
    """The same as :func:`nanogan.ops.conv2d_forward`."""
    check_input("Conv2d", x, w, (None, w.shape[1], None, None))
    options = {"stride": pair(stride, "stride", least=1), "padding": pair(padding, "padding")}
    size = conv.conv2d_output_size(x.shape[2:], w.shape[2:], *options.values())
    y = threads.empty((len(x), *size, len(w)), x.dtype)
    rows = conv.weight_rows(w).T  # (KH*KW*C, F)

    def work(images):
        for chunk in _chunks(images, x, w, y.transpose(0, 3, 1, 2)):
            out = y[chunk].reshape(-1, len(w))
            np.matmul(_im2col(x[chunk], w.shape[2:], *options.values(), size), rows, out=out)
            if b is not None:
                out += b

    threads.parallel(work, _shares(x, w, y.transpose(0, 3, 1, 2)))
    y = y.transpose(0, 3, 1, 2)
    return y, (x, w, b, *options.values(), y.shape)


def conv2d_backward(dy, cache, need_dx=True, need_dw=True):
    """The same as :func:`nanogan.ops.conv2d_backward`."""
    x, w, b, stride, padding, y_shape = cache
    check_dy("Conv2d", dy, y_shape, x.dtype)
    if not thin.serves(x.shape[1], stride):
        return _backward("Conv2d", conv.conv2d_backward, dy, cache, need_dx, need_dw)
    dx = thin.up(dy, w, x.shape, stride, padding) if need_dx else None
    if not need_dw:
        return dx, None, None
    dy = np.ascontiguousarray(dy.transpose(0, 2, 3, 1))

    def work(images):
        dw = np.zeros((len(w), w[0].size), x.dtype)
        for chunk in _chunks(images, x, w, dy.transpose(0, 3, 1, 2)):
            cols = _im2col(x[chunk], w.shape[2:], stride, padding, y_shape[2:])
            dw += dy[chunk].reshape(-1, len(w)).T @ cols
        return dw

    dw = sum(threads.parallel(work, _shares(x, w, dy.transpose(0, 3, 1, 2))))
    with threads.one_blas_thread:
        db = None if b is None else column_sum(dy.reshape(-1, len(w)))
    return dx, conv.weight_from_rows(dw, w.shape[2:]), db


def conv_transpose2d_forward(x, w, b=None, *, stride=1, padding=0, output_padding=0):
    """The same as :func:`nanogan.ops.conv_transpose2d_forward`."""
    check_input("ConvTranspose2d", x, w, (None, len(w), None, None))
    options = {"stride": pair(stride, "stride", least=1), "padding": pair(padding, "padding")}
    options["output_padding"] = pair(output_padding, "output_padding")
    size = conv.conv_transpose2d_output_size(x.shape[2:], w.shape[2:], *options.values())
    if thin.serves(w.shape[1], options["stride"]):
        y = thin.up(x, w, (len(x), w.shape[1], *size), options["stride"], options["padding"])
        if b is not None:
            y += b[:, None, None]
    else:
        y = _forward(conv.conv_transpose2d_forward, x, w, b, (w.shape[1], *size), options)
    return y, (x, w, b, options["stride"], options["padding"], y.shape)


def conv_transpose2d_backward(dy, cache, need_dx=True, need_dw=True):
    """The same as :func:`nanogan.ops.conv_transpose2d_backward`."""
    return _backward("ConvTranspose2d", conv.conv_transpose2d_backward, dy, cache, need_dx, need_dw)


def _im2col(x, kernel_size, stride, padding, output_size):
    """:func:`nanogan.ops.conv.im2col` into memory that is used again."""
    n, C, H, W = x.shape
    (KH, KW), (SH, SW), (PH, PW), (OH, OW) = kernel_size, stride, padding, output_size
    padded = workspace("padded", (n, H + 2 * PH, W + 2 * PW, C), x.dtype)
    if PH or PW:
        padded[...] = 0
    padded[:, PH : PH + H, PW : PW + W] = x.transpose(0, 2, 3, 1)
    h, w, c = padded.strides[1:]
    shape, strides = (n, OH, OW, KH, KW, C), (padded.strides[0], SH * h, SW * w, h, w, c)
    cols = workspace("cols", shape, x.dtype)
    np.copyto(cols, np.lib.stride_tricks.as_strided(padded, shape, strides))
    return cols.reshape(n * OH * OW, KH * KW * C)


def _forward(forward, x, w, b, shape, options):
    """Run nanogan.ops' ``forward`` on some images at a time; ``shape`` is (F, OH, OW). Returns y (N, F, OH, OW)."""
    F, OH, OW = shape
    y = threads.empty((len(x), OH, OW, F), x.dtype).transpose(0, 3, 1, 2)

    def work(images):
        for chunk in _chunks(images, x, w, y):
            y[chunk], _ = forward(x[chunk], w, b, **options)

    threads.parallel(work, _shares(x, w, y))
    return y


def _backward(op, backward, dy, cache, need_dx, need_dw):
    """Run nanogan.ops' ``backward`` on some images of dy (N, F, OH, OW) at a time. Returns dx (N, C, H, W), dw, db."""
    x, w, b, stride, padding, y_shape = cache
    check_dy(op, dy, y_shape, x.dtype)
    if not (need_dx or need_dw):
        return None, None, None
    N, C, H, W = x.shape
    dx = threads.empty((N, H, W, C), x.dtype).transpose(0, 3, 1, 2) if need_dx else None

    def work(images):
        dw = db = None
        for chunk in _chunks(images, x, w, dy):
            part = (x[chunk], w, b, stride, padding, dy[chunk].shape)
            dx_part, dw_part, db_part = backward(dy[chunk], part, need_dx=need_dx, need_dw=need_dw)
            if need_dx:
                dx[chunk] = dx_part
            dw = dw_part if dw is None else dw + dw_part if need_dw else None
            db = db_part if db is None else db + db_part
        return dw, db

    dws, dbs = zip(*threads.parallel(work, _shares(x, w, dy)), strict=True)
    return dx, sum(dws[1:], dws[0]) if need_dw else None, sum(dbs[1:], dbs[0]) if need_dw and b is not None else None


def _shares(x, w, y):
    """Each thread's images; all of them to one where threads would not pay."""
    pixels = min(x.shape[2] * x.shape[3], y.shape[2] * y.shape[3])
    return threads.shares(len(x), len(x) * pixels * w.size >= WORTHWHILE)


def _chunks(images, x, w, y):
    """Cut a slice of images into some that have about COLS numbers in cols, on the side with fewer pixels."""
    pixels = min(x.shape[2] * x.shape[3], y.shape[2] * y.shape[3])
    channels = x.shape[1] if pixels == y.shape[2] * y.shape[3] else y.shape[1]
    step = max(1, COLS // (pixels * channels * w.shape[2] * w.shape[3]))
    return [slice(start, min(images.stop, start + step)) for start in range(images.start, images.stop, step)]


for _pair in (
    (ops.conv2d_forward, conv2d_forward, conv2d_backward, serves_conv2d),
    (ops.conv_transpose2d_forward, conv_transpose2d_forward, conv_transpose2d_backward, serves_conv_transpose2d),
):
    register("cpu", *_pair[:3], serves=_pair[3], precisions=("float32", "tf32"))
