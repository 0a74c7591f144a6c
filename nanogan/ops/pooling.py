"""Average pooling: with a window of a fixed size, and with as many windows as the output has pixels.

**avg_pool2d** is a convolution of each channel with the constant kernel 1 / (KH*KW): windows are written out as rows,
as in :mod:`nanogan.ops.conv`, and averaged. Each pixel of a window has the weight 1 / (KH*KW), so the backward hands
dy / (KH*KW) to all of them, and ``col2im`` adds where windows overlap.

**adaptive_avg_pool2d** divides H into OH bins, as equal as integers allow: bin i spans the rows

    floor(i * H / OH) <= h < ceil((i + 1) * H / OH)

which is one bin of all rows for OH = 1, and overlaps where H is no multiple of OH. The mean over bins is a product
with a matrix A (OH, H), whose row i is 1 / (size of bin i) within bin i and 0 elsewhere. The same holds for columns, so

    y = A_H @ x @ A_W.T        dx = A_H.T @ dy @ A_W        for each image and channel

Sources: torch.nn.AvgPool2d and torch.nn.AdaptiveAvgPool2d; bins as start_index and end_index in ATen's
AdaptivePooling.h.
"""

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.ops.checks import check_input, pair
from nanogan.ops.conv import col2im, conv2d_output_size, im2col
from nanogan.ops.examples import Example, normal
from nanogan.ops.rows import from_rows


def avg_pool2d_forward(x, *, kernel_size, stride=None, padding=0):
    """y[n, c, oh, ow] = the mean of the window's pixels, as torch.nn.functional.avg_pool2d.

    x (N, C, H, W); the stride is kernel_size if not given. Zeros of the padding count as pixels, torch's
    count_include_pad=True. Returns y (N, C, OH, OW) and the cache for :func:`avg_pool2d_backward`.
    Raises UserError for a padding of more than half the kernel, a kernel larger than x, another number of dimensions.
    """
    check_input("AvgPool2d", x, None, (None, None, None, None))
    kernel_size, padding = pair(kernel_size, "kernel_size", least=1), pair(padding, "padding")
    stride = pair(kernel_size if stride is None else stride, "stride", least=1)
    if any(2 * p > k for p, k in zip(padding, kernel_size, strict=True)):
        raise UserError(f"AvgPool2d expected a padding of at most half the kernel's size {kernel_size}, got {padding}")
    N, C = x.shape[:2]
    KH, KW = kernel_size
    OH, OW = conv2d_output_size(x.shape[2:], kernel_size, stride, padding, "AvgPool2d")

    cols = im2col(x, kernel_size, stride, padding, (OH, OW))
    windows = cols.reshape(N * OH * OW, KH * KW, C)
    y = windows.mean(axis=1)  # (N*OH*OW, C)
    return from_rows(y, N, OH, OW), (x.shape, kernel_size, stride, padding)


def avg_pool2d_backward(dy, cache):
    """Return dx (N, C, H, W): dy / (KH*KW) for each pixel of a window, added up where windows overlap."""
    shape, kernel_size, stride, padding = cache
    N, C, OH, OW = dy.shape
    KH, KW = kernel_size
    dy_rows = dy.transpose(0, 2, 3, 1).reshape(N * OH * OW, 1, C) / (KH * KW)
    dcols = array_module(dy).broadcast_to(dy_rows, (N * OH * OW, KH * KW, C))
    return col2im(dcols, shape, kernel_size, stride, padding, (OH, OW))


def adaptive_avg_pool2d_forward(x, *, output_size):
    """Average x (N, C, H, W) over OH x OW bins, as torch.nn.functional.adaptive_avg_pool2d.

    ``output_size`` is (OH, OW) or one integer for both; 1 is the mean of each channel. Returns y (N, C, OH, OW) and the
    cache for :func:`adaptive_avg_pool2d_backward`.
    """
    check_input("AdaptiveAvgPool2d", x, None, (None, None, None, None))
    OH, OW = pair(output_size, "output_size", least=1)
    N, C, H, W = x.shape
    rows, columns = _bins(x, H, OH), _bins(x, W, OW)  # (OH, H), (OW, W)
    y = rows @ x.transpose(0, 2, 3, 1).reshape(N, H, W * C)  # (N, OH, W*C)
    y = columns @ y.reshape(N * OH, W, C)  # (N*OH, OW, C)
    return from_rows(y.reshape(N * OH * OW, C), N, OH, OW), (rows, columns)


def adaptive_avg_pool2d_backward(dy, cache):
    """Return dx (N, C, H, W): the two products with the transposed matrices, in reverse order."""
    rows, columns = cache  # (OH, H), (OW, W)
    (OH, H), (OW, W) = rows.shape, columns.shape
    N, C, _, _ = dy.shape
    dx = columns.T @ dy.transpose(0, 2, 3, 1).reshape(N * OH, OW, C)  # (N*OH, W, C)
    dx = rows.T @ dx.reshape(N, OH, W * C)  # (N, H, W*C)
    return from_rows(dx.reshape(N * H * W, C), N, H, W)


def _bins(x, size, output_size):
    """The matrix (output_size, size) of means over bins, of x's dtype and on its device."""
    xp = array_module(x)
    i, position = xp.arange(output_size)[:, None], xp.arange(size)
    start = i * size // output_size
    end = ((i + 1) * size + output_size - 1) // output_size  # rounded up
    inside = ((position >= start) & (position < end)).astype(x.dtype)
    return inside / inside.sum(axis=1, keepdims=True)


# --------------------------------------------------------------------------- what the gradient checks and the tests try

EXAMPLES = [
    Example(avg_pool2d_forward, x=normal(2, 3, 6, 8), kernel_size=2),
    Example(avg_pool2d_forward, x=normal(2, 3, 7, 6), kernel_size=(3, 2), stride=(2, 1), padding=1),
    Example(adaptive_avg_pool2d_forward, x=normal(2, 3, 4, 6), output_size=1),
    Example(adaptive_avg_pool2d_forward, x=normal(2, 2, 5, 7), output_size=(3, 2)),
    Example(adaptive_avg_pool2d_forward, x=normal(1, 2, 2, 3), output_size=(3, 5)),
]
