"""Two-dimensional convolution, and the transposed convolution that runs it backwards.

**The idea.** A convolution is one matrix product once every window of the input is written out as a row. With a 2x2
kernel, stride 1, no padding and one channel, a picture of 2 x 3 pixels has two windows:

    x =  a b c        cols =  a b d e      w_rows =  w00 w01 w10 w11       y = cols @ w_rows.T
         d e f                b c e f

``im2col`` gathers those rows. Its transpose, ``col2im``, scatters a row back to the pixels that it came from, and adds
where windows overlap (b and e stand in two rows of ``cols``, so they receive two numbers). That pair is all there is:

    convolution            forward   y  = im2col(x) @ w_rows.T
                           backward  dw = dy.T @ im2col(x)           from d(A B) = dA B + A dB
                                     dx = col2im(dy @ w_rows)
    transposed convolution forward   y  = col2im(x @ w_rows)         the convolution's dx
                           backward  dx = im2col(dy) @ w_rows.T      the convolution's forward
                                     dw = x.T @ im2col(dy)

So the transposed convolution (the DCGAN paper's "fractionally-strided" one) is the transpose of the convolution's
matrix, not its inverse: <conv(x), y> = <x, conv_transpose(y)> for all x and y, which the tests check.

**Shapes.** x (N, C, H, W), w (F, C, KH, KW), y (N, F, OH, OW), with

    OH = floor((H + 2*padding - KH) / stride) + 1        convolution
    OH = (H - 1)*stride - 2*padding + KH + output_padding        transposed convolution

``product(a, b)`` is a @ b, on request of 16-bit numbers, and ``narrow(x)`` is x, on a GPU then already in these 16
bits, so that windows are gathered in half the bytes (see :func:`nanogan.backend.set_matmul_precision`).

Sources: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285; names and
meanings of the options are those of torch.nn.functional.conv2d and conv_transpose2d.
"""

from nanogan.backend import array_module, narrow, product
from nanogan.errors import UserError
from nanogan.ops.checks import check_dy, check_input, pair
from nanogan.ops.examples import Example, normal
from nanogan.ops.rows import column_sum, from_rows, to_rows


def conv2d_forward(x, w, b=None, *, stride=1, padding=0):
    """Convolve a batch of pictures (strictly: correlate; the kernel is not flipped).

        y[n, f, oh, ow] = b[f] + sum over c, kh, kw of  w[f, c, kh, kw] * x_padded[n, c, oh*stride + kh, ow*stride + kw]

    x (N, C, H, W), w (F, C, KH, KW), b (F,) or None; ``stride`` and ``padding`` are numbers or (vertical, horizontal).
    Returns y (N, F, OH, OW) and the cache for :func:`conv2d_backward`. The cache holds x and w by reference.

    Raises UserError for a wrong number of channels or dimensions, another dtype than w's, a kernel larger than x.
    """
    F, C, KH, KW = w.shape
    check_input("Conv2d", x, w, (None, C, None, None))
    stride, padding = pair(stride, "stride", least=1), pair(padding, "padding")
    OH, OW = conv2d_output_size(x.shape[2:], (KH, KW), stride, padding)

    cols = im2col(narrow(x), (KH, KW), stride, padding, (OH, OW))  # (N*OH*OW, KH*KW*C)
    y = product(cols, weight_rows(w).T)  # (N*OH*OW, F)
    if b is not None:
        y += b
    y = from_rows(y, len(x), OH, OW)  # (N, F, OH, OW)
    return y, (x, w, b, stride, padding, y.shape)


def conv2d_backward(dy, cache, need_dx=True, need_dw=True):
    """Return dx (N, C, H, W), dw (F, C, KH, KW), db (F,) for dy (N, F, OH, OW); None for what is not needed.

    ``cols`` is gathered again rather than kept: it is KH*KW/stride^2 times the size of x (4 times in a DCGAN).
    """
    x, w, b, stride, padding, y_shape = cache
    check_dy("Conv2d", dy, y_shape, x.dtype)
    kernel_size, output_size = w.shape[2:], y_shape[2:]
    dx = dw = db = None
    dy_rows = to_rows(dy)  # (N*OH*OW, F)

    if need_dw:
        # y = cols @ w_rows.T + b
        cols = im2col(narrow(x), kernel_size, stride, padding, output_size)  # (N*OH*OW, KH*KW*C)
        dw = weight_from_rows(product(dy_rows.T, cols), kernel_size)  # (F, C, KH, KW)
        db = None if b is None else column_sum(dy_rows)  # (F,)
    if need_dx:
        # y = cols @ w_rows.T  and  cols = im2col(x)
        dcols = product(dy_rows, weight_rows(w))  # (N*OH*OW, KH*KW*C)
        dx = col2im(dcols, x.shape, kernel_size, stride, padding, output_size)  # (N, C, H, W)
    return dx, dw, db


def conv_transpose2d_forward(x, w, b=None, *, stride=1, padding=0, output_padding=0):
    """Transposed convolution: every pixel of x paints the kernel, scaled by its value, onto a larger picture.

        y_padded[n, f, h*stride + kh, w*stride + kw] += x[n, c, h, w] * w[c, f, kh, kw],   then ``padding`` is cut off

    x (N, C, H, W), w (C, F, KH, KW), b (F,) or None. Note w's order: inputs first, as in torch. ``output_padding`` adds
    rows at the bottom and columns at the right, to choose among the sizes that the convolution maps to H x W.
    Returns y (N, F, OH, OW) and the cache for :func:`conv_transpose2d_backward`.

    Raises UserError for a wrong number of channels or dimensions, another dtype than w's, an output_padding that is not
    smaller than the stride, or an empty output.
    """
    C, F, KH, KW = w.shape
    check_input("ConvTranspose2d", x, w, (None, C, None, None))
    stride, padding = pair(stride, "stride", least=1), pair(padding, "padding")
    output_padding = pair(output_padding, "output_padding")
    N, _, H, W = x.shape
    OH, OW = conv_transpose2d_output_size((H, W), (KH, KW), stride, padding, output_padding)

    cols = product(to_rows(x), weight_rows(w))  # (N*H*W, KH*KW*F)
    y = col2im(cols, (N, F, OH, OW), (KH, KW), stride, padding, (H, W))  # (N, F, OH, OW)
    if b is not None:
        y += b[:, None, None]
    return y, (x, w, b, stride, padding, y.shape)


def conv_transpose2d_backward(dy, cache, need_dx=True, need_dw=True):
    """Return dx (N, C, H, W), dw (C, F, KH, KW), db (F,) for dy (N, F, OH, OW); None for what is not needed."""
    x, w, b, stride, padding, y_shape = cache
    check_dy("ConvTranspose2d", dy, y_shape, x.dtype)
    kernel_size = w.shape[2:]
    N, C, H, W = x.shape
    dx = dw = db = None

    # y = col2im(cols)  with  cols = x_rows @ w_rows
    dcols = im2col(narrow(dy), kernel_size, stride, padding, (H, W))  # (N*H*W, KH*KW*F)
    if need_dw:
        dw = weight_from_rows(product(to_rows(x).T, dcols), kernel_size)  # (C, F, KH, KW)
        db = None if b is None else column_sum(to_rows(dy))  # (F,)
    if need_dx:
        dx = from_rows(product(dcols, weight_rows(w).T), N, H, W)  # (N, C, H, W)
    return dx, dw, db


# -------------------------------------------------------------------------------------- windows to rows, and back


def im2col(x, kernel_size, stride, padding, output_size, *, fill=0):
    """Write OH x OW windows of x (N, C, H, W) out as rows: (N*OH*OW, KH*KW*C).

    A row runs over the window's pixels in reading order and, within a pixel, over its channels. ``output_size`` is
    (OH, OW); ``fill`` is the value of the padding.
    """
    xp = array_module(x)
    N, C, H, W = x.shape
    (KH, KW), (SH, SW), (PH, PW), (OH, OW) = kernel_size, stride, padding, output_size
    assert (OH - 1) * SH + KH <= H + 2 * PH, "windows below the picture"
    assert (OW - 1) * SW + KW <= W + 2 * PW, "windows beside the picture"

    padded = x.transpose(0, 2, 3, 1)  # (N, H, W, C): in memory order, so that whole pixels are copied below
    if PH or PW:
        padded = xp.full((N, H + 2 * PH, W + 2 * PW, C), fill, dtype=x.dtype)
        padded[:, PH : PH + H, PW : PW + W] = x.transpose(0, 2, 3, 1)

    # A view in which windows[n, oh, ow, kh, kw, c] is padded[n, oh*SH + kh, ow*SW + kw, c]: the next window is SH rows
    # or SW columns on in memory. Nothing is copied before the reshape.
    n, h, w, c = padded.strides
    windows = xp.lib.stride_tricks.as_strided(padded, (N, OH, OW, KH, KW, C), (n, SH * h, SW * w, h, w, c))
    return windows.reshape(N * OH * OW, KH * KW * C)


def col2im(cols, shape, kernel_size, stride, padding, output_size):
    """Add rows of windows, (N*OH*OW, KH*KW*C), into a picture of ``shape`` (N, C, H, W): the transpose of im2col.

    Windows overlap, so one statement cannot add them all: a pixel would occur twice in it. But the pixels at position
    (kh, kw) of every window are all different, and form a strided slice. So the loop runs over the kernel's positions.
    """
    xp = array_module(cols)
    N, C, H, W = shape
    (KH, KW), (SH, SW), (PH, PW), (OH, OW) = kernel_size, stride, padding, output_size
    if (KH, KW) == (H, W) and not (PH or PW):  # the only window is the whole picture
        return from_rows(cols.reshape(N * H * W, C), N, H, W)

    windows = cols.reshape(N, OH, OW, KH, KW, C)
    padded = xp.zeros((N, H + 2 * PH, W + 2 * PW, C), dtype=cols.dtype)
    for kh in range(KH):
        for kw in range(KW):
            padded[:, kh : kh + SH * OH : SH, kw : kw + SW * OW : SW] += windows[:, :, :, kh, kw]
    return padded[:, PH : PH + H, PW : PW + W].transpose(0, 3, 1, 2)


def weight_rows(w):
    """(F, C, KH, KW) -> (F, KH*KW*C), in the order of a row of cols. No copy if channels-last, as layers keep w."""
    return w.transpose(0, 2, 3, 1).reshape(len(w), -1)


def weight_from_rows(rows, kernel_size):
    """(F, KH*KW*C) -> (F, C, KH, KW): the inverse of :func:`weight_rows`."""
    return rows.reshape(len(rows), *kernel_size, -1).transpose(0, 3, 1, 2)


# ----------------------------------------------------------------------------------------------------------- sizes


def conv2d_output_size(input_size, kernel_size, stride, padding, op="Conv2d"):
    """Return (OH, OW) of a convolution: how many windows fit, floor((size + 2*padding - kernel) / stride) + 1."""
    fits = [size + 2 * p - k for size, k, p in zip(input_size, kernel_size, padding, strict=True)]
    if min(fits) < 0:
        raise UserError(
            f"{op} expected pictures of at least the kernel's size {tuple(kernel_size)}, got {tuple(input_size)} "
            f"with padding {tuple(padding)}: use larger pictures, a smaller kernel or more padding"
        )
    return tuple(room // s + 1 for room, s in zip(fits, stride, strict=True))


def conv_transpose2d_output_size(input_size, kernel_size, stride, padding, output_padding):
    """Return (OH, OW) of a transposed convolution, (size - 1)*stride - 2*padding + kernel + output_padding."""
    if any(op >= s for op, s in zip(output_padding, stride, strict=True)):
        raise UserError(
            f"ConvTranspose2d expected an output_padding smaller than the stride {stride}, got {output_padding}"
        )
    options = zip(input_size, kernel_size, stride, padding, output_padding, strict=True)
    output_size = tuple((size - 1) * s - 2 * p + k + op for size, k, s, p, op in options)
    if min(output_size) < 1:
        raise UserError(
            f"ConvTranspose2d would make pictures of {output_size} pixels from {tuple(input_size)}: use less padding"
        )
    return output_size


# --------------------------------------------------------------------------- what the gradient checks and the tests try

EXAMPLES = [
    Example(conv2d_forward, x=normal(2, 3, 8, 8), w=normal(5, 3, 4, 4), b=normal(5), stride=2, padding=1),
    Example(conv2d_forward, x=normal(2, 3, 8, 8), w=normal(5, 3, 4, 4), stride=2, padding=1),
    Example(conv2d_forward, x=normal(1, 1, 5, 6), w=normal(1, 1, 3, 2), b=normal(1)),
    Example(conv2d_forward, x=normal(3, 2, 7, 9), w=normal(4, 2, 3, 5), b=normal(4), padding=(1, 2)),
    Example(conv2d_forward, x=normal(2, 2, 9, 7), w=normal(3, 2, 1, 1), b=normal(3), stride=3),
    Example(conv2d_forward, x=normal(2, 3, 10, 11), w=normal(2, 3, 5, 4), b=normal(2), stride=(2, 3), padding=(2, 0)),
    Example(conv2d_forward, x=normal(4, 6, 4, 4), w=normal(1, 6, 4, 4)),
    Example(conv2d_forward, x=normal(2, 2, 4, 4), w=normal(3, 2, 4, 4), stride=4, padding=1),
    Example(conv_transpose2d_forward, x=normal(2, 3, 4, 4), w=normal(3, 5, 4, 4), b=normal(5), stride=2, padding=1),
    Example(conv_transpose2d_forward, x=normal(2, 3, 4, 4), w=normal(3, 5, 4, 4), stride=2, padding=1),
    Example(conv_transpose2d_forward, x=normal(4, 6, 1, 1), w=normal(6, 3, 4, 4)),
    Example(conv_transpose2d_forward, x=normal(2, 2, 4, 5), w=normal(2, 3, 5, 5), b=normal(3),
            stride=2, padding=2, output_padding=1),
    Example(conv_transpose2d_forward, x=normal(1, 1, 3, 3), w=normal(1, 1, 2, 3), b=normal(1)),
    Example(conv_transpose2d_forward, x=normal(3, 2, 3, 4), w=normal(2, 4, 3, 2), b=normal(4),
            stride=(3, 2), padding=(1, 0), output_padding=(2, 1)),
    Example(conv_transpose2d_forward, x=normal(2, 3, 4, 3), w=normal(3, 2, 2, 2), b=normal(2),
            stride=4, output_padding=3),
]  # fmt: skip
