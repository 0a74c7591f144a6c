"""Convolutions of a DCGAN, 4x4 with stride 2 and padding 1, on tensor cores: where measurements chose it.

Through cols (:mod:`nanogan.fast.gpu.conv`) an image is written and read again four times as large. The kernels of
``conv4s2.cu`` gather while they multiply: ``down``, a convolution; ``up``, its transpose; and ``wgrad``, dw of both. In
the precision "float32" they make three TF32 products of each, so that the error is float32's.

Whether that is faster depends on the sizes, the precision and the GPU. So ``chosen.json`` lists what was measured to be
faster, with its tile, by ``python -m benchmarks.kernels --device gpu --write-table``; all else is computed as before.

16-bit numbers, and BatchNorm or an activation on the way out of the kernel, are not served.
"""

import functools
import json
from pathlib import Path

import cupy
import numpy as np

from nanogan import ops
from nanogan.backend import matmul_precision
from nanogan.dispatch import adds_gradients, register
from nanogan.fast.gpu import conv
from nanogan.fast.gpu.sources import BLOCKS, THREADS, blocks_for, kernel
from nanogan.ops.checks import check_dy, check_input, pair
from nanogan.ops.rows import column_sum, to_rows

BK, STAGES = 16, 4  # as in conv4s2.cu
TILES = ((128, 128), (128, 64), (64, 64), (64, 32))  # (BM, BN)
DIRECTIONS = ("down", "up", "wgrad")
PRODUCTS = {"float32": 3, "tf32": 1}  # of TF32 numbers, for one of the precision's
CHOSEN = Path(__file__).with_name("chosen.json")


def read_table(text):
    """{"GPU": {"precision direction N P Q C R": [BM, BN]}} as {(GPU, precision, direction, sizes): tile}."""
    table = {}
    for gpu, rows in json.loads(text).items():
        for row, tile in rows.items():
            precision, direction, *sizes = row.split()
            table[gpu, precision, direction, tuple(map(int, sizes))] = tuple(tile)
    return table


TABLE = read_table(CHOSEN.read_text(encoding="utf-8"))


def chosen(direction, sizes):
    """Return the tile with which the kernel is faster here, or None. sizes: (N, P, Q, C, R) of conv4s2.cu."""
    return TABLE.get((gpu_name(cupy.cuda.Device().id), matmul_precision(), direction, sizes)) if TABLE else None


@functools.cache
def gpu_name(index):
    """Return what the driver calls the GPU ``index``, as "NVIDIA H100 80GB HBM3"."""
    return cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()


# ------------------------------------------------------------------------------------------------- the operations


def serves_conv2d(x, w, b=None, *, stride=1, padding=0):
    """Whether a kernel was chosen for a direction of this convolution."""
    return bool(TABLE) and _serves(x, w, 1, 2, stride, padding)


def conv2d_forward(x, w, b=None, *, stride=1, padding=0):
    """The same as :func:`nanogan.ops.conv2d_forward`."""
    tile = chosen("down", _conv2d_sizes(x, w))
    if tile is None:
        return conv.conv2d_forward(x, w, b, stride=stride, padding=padding)
    check_input("Conv2d", x, w, (None, w.shape[1], None, None))
    y = _plus(down(x, w, tile), b)  # (N, F, OH, OW)
    return y, (x, w, b, pair(stride, "stride"), pair(padding, "padding"), y.shape)


@adds_gradients
def conv2d_backward(dy, cache, need_dx=True, need_dw=True, into=None):
    """The same as :func:`nanogan.ops.conv2d_backward`; with ``into``, dw is added to its first array."""
    x, w, b, stride, padding, y_shape = cache
    check_dy("Conv2d", dy, y_shape, x.dtype)
    sizes = _conv2d_sizes(x, w)
    of_dx = chosen("up", sizes) if need_dx else None
    of_dw = chosen("wgrad", sizes) if need_dw else None
    dx = dw = db = None
    if (need_dx and not of_dx) or (need_dw and not of_dw):
        dx, dw, db = conv.conv2d_backward(dy, cache, need_dx and not of_dx, need_dw and not of_dw, into)
    if of_dx:
        dx = up(dy, w, of_dx)  # (N, C, H, W)
    if of_dw:
        dw, db = wgrad(x, dy, of_dw, into), _bias_gradient(dy, b)  # (F, C, KH, KW), (F,)
    return dx, dw, db


def serves_conv_transpose2d(x, w, b=None, *, stride=1, padding=0, output_padding=0):
    """Whether a kernel was chosen for a direction of this transposed convolution."""
    return bool(TABLE) and pair(output_padding, "output_padding") == (0, 0) and _serves(x, w, 0, 1, stride, padding)


def conv_transpose2d_forward(x, w, b=None, *, stride=1, padding=0, output_padding=0):
    """The same as :func:`nanogan.ops.conv_transpose2d_forward`."""
    tile = chosen("up", _conv_transpose2d_sizes(x, w))
    if tile is None:
        return conv.conv_transpose2d_forward(x, w, b, stride=stride, padding=padding, output_padding=output_padding)
    check_input("ConvTranspose2d", x, w, (None, len(w), None, None))
    y = _plus(up(x, w, tile), b)  # (N, F, OH, OW)
    return y, (x, w, b, pair(stride, "stride"), pair(padding, "padding"), y.shape)


@adds_gradients
def conv_transpose2d_backward(dy, cache, need_dx=True, need_dw=True, into=None):
    """The same as :func:`nanogan.ops.conv_transpose2d_backward`; with ``into``, dw is added to its first array.

    The other way gathers dy's windows once for both gradients: if it computes one, it computes the other too.
    """
    x, w, b, stride, padding, y_shape = cache
    check_dy("ConvTranspose2d", dy, y_shape, x.dtype)
    sizes = _conv_transpose2d_sizes(x, w)
    of_dx = chosen("down", sizes) if need_dx else None
    of_dw = chosen("wgrad", sizes) if need_dw else None
    if (need_dx and not of_dx) or (need_dw and not of_dw):
        return conv.conv_transpose2d_backward(dy, cache, need_dx, need_dw, into)
    dx = down(dy, w, of_dx) if need_dx else None  # (N, C, H, W)
    dw = wgrad(dy, x, of_dw, into) if need_dw else None  # (C, F, KH, KW)
    return dx, dw, _bias_gradient(dy, b) if need_dw else None


def _serves(x, w, channels, pixels, stride, padding):
    """Whether w's axis ``channels`` is x's, x has ``pixels`` for each of small, and a kernel was chosen."""
    if x.ndim != 4 or w.ndim != 4 or type(w) is not type(x) or x.dtype != np.float32 or w.dtype != np.float32:
        return False
    if w.shape[2:] != (4, 4) or x.shape[1] != w.shape[channels] or x.shape[2] % pixels or x.shape[3] % pixels:
        return False
    if (pair(stride, "stride", least=1), pair(padding, "padding")) != ((2, 2), (1, 1)) or not x.size * w.size:
        return False
    sizes = len(x), x.shape[2] // pixels, x.shape[3] // pixels, w.shape[1], len(w)
    whole = w.shape[1] % BK == len(w) % BK == 0
    return whole and any(chosen(direction, sizes) for direction in DIRECTIONS)


def _conv2d_sizes(x, w):
    N, C, H, W = x.shape
    return N, H // 2, W // 2, C, len(w)


def _conv_transpose2d_sizes(x, w):
    N, R, P, Q = x.shape
    return N, P, Q, w.shape[1], R


def _plus(y, b):
    if b is not None:
        rows = to_rows(y)  # a view: the kernels' results are channels-last
        rows += b
    return y


def _bias_gradient(dy, b):
    return None if b is None else column_sum(to_rows(dy))


# ---------------------------------------------------------------------------------------------------- the kernels


def down(large, w, tile):
    """Return the convolution of large (N, C, 2P, 2Q) with w (R, C, 4, 4): small (N, R, P, Q), channels-last."""
    large, w = _channels_last(large), _channels_last(w)
    N, H, W, C = large.shape
    P, Q, R = H // 2, W // 2, len(w)
    small = cupy.empty((N, P, Q, R), np.float32)
    grid = _tiles(N * P * Q, tile[0]), _tiles(R, tile[1])
    _run("down", tile, grid, (large, w, small), N, P, Q, C, R)
    return small.transpose(0, 3, 1, 2)


def up(small, w, tile):
    """Return the transposed convolution of small (N, R, P, Q) with w (R, C, 4, 4): large (N, C, 2P, 2Q)."""
    small, w = _channels_last(small), _channels_last(w)
    N, P, Q, R = small.shape
    C = w.shape[3]
    large = cupy.empty((N, 2 * P, 2 * Q, C), np.float32)
    grid = _tiles(N * P * Q, tile[0]), _tiles(C, tile[1]), 4
    _run("up", tile, grid, (small, w, large), N, P, Q, C, R)
    return large.transpose(0, 3, 1, 2)


def wgrad(large, small, tile, into=None):
    """Return dw (R, C, 4, 4) for large (N, C, 2P, 2Q) and small (N, R, P, Q), or None once it is added to into[0].

    So few tiles keep a GPU busy only if each is computed in stretches of N*P*Q, whose sums are then added up.
    """
    large, small = _channels_last(large), _channels_last(small)
    N, P, Q, R = small.shape
    C, M = large.shape[3], N * P * Q
    grid = _tiles(R, tile[0]), 16 * _tiles(C, tile[1])
    stretch = BK * _tiles(M, BK * max(1, BLOCKS // 4 // (grid[0] * grid[1])))
    parts = cupy.empty((_tiles(M, stretch), R, 4, 4, C), np.float32)
    _run("wgrad", tile, (*grid, len(parts)), (large, small, parts), N, P, Q, C, R, stretch)
    gradient = None if into is None else into[0].transpose(0, 2, 3, 1)  # (R, 4, 4, C)
    adds = gradient is not None and gradient.flags.c_contiguous
    if not adds:
        gradient = cupy.empty(parts.shape[1:], np.float32)
    _run("add_parts", tile, blocks_for(gradient.size), (parts, gradient), gradient.size, len(parts), adds)
    return None if adds else gradient.transpose(0, 3, 1, 2)


def _run(name, tile, grid, arrays, *sizes):
    """Launch a kernel of conv4s2.cu."""
    run = _kernel(name, tile, PRODUCTS[matmul_precision()], cupy.cuda.Device().id)
    run(grid, (THREADS,), (*arrays, *map(np.int32, sizes)), shared_mem=_shared(name, *tile))


@functools.cache
def _kernel(name, tile, products, device):
    """A kernel that may use as much shared memory as its tile needs: beyond 48 KiB each device has to be asked."""
    run = kernel("conv4s2.cu", name, BM=tile[0], BN=tile[1], PRODUCTS=products)
    run.max_dynamic_shared_size_bytes = _shared(name, *tile)
    return run


def _shared(name, BM, BN):
    """Bytes of shared memory: the steps of A and B, with the gaps between their lines."""
    if name == "add_parts":
        return 0
    of_a = BK * (BM + 8) if name == "wgrad" else BM * (BK + 4)
    of_b = BN * (BK + 4) if name == "down" else BK * (BN + 8)
    return 4 * STAGES * (of_a + of_b)


def _tiles(size, of):
    return -(-size // of)


def _channels_last(x):
    """(N, C, H, W) -> (N, H, W, C) without gaps, from a multiple of 16 bytes on; no copy where it is there already."""
    x = cupy.ascontiguousarray(x.transpose(0, 2, 3, 1))
    return x if x.data.ptr % 16 == 0 else x.copy()


paths = {"priority": 1, "precisions": tuple(PRODUCTS)}
register("gpu", ops.conv2d_forward, conv2d_forward, conv2d_backward, serves=serves_conv2d, **paths)
register(
    "gpu", ops.conv_transpose2d_forward, conv_transpose2d_forward, conv_transpose2d_backward,
    serves=serves_conv_transpose2d, **paths,
)  # fmt: skip
