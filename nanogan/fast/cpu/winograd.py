"""Winograd's fast convolution for a DCGAN's 4x4 kernels of stride 2: 9 multiplications where the definition takes 16.

**One dimension.** A kernel of two numbers g, slid over d, gives two outputs from four multiplications:

    y0 = d0 g0 + d1 g1              y1 = d1 g0 + d2 g1

Both contain d1 multiplied by something. With m1 = d1 (g0 + g1) shared between them three are enough:

    m0 = (d0 - d1) g0      m1 = d1 (g0 + g1)      m2 = (d2 - d1) g1
    y0 = m0 + m1           y1 = m1 + m2

(Try d = 1 2 3, g = 10 100: m = -10 220 100, y = 210 320 = 1*10 + 2*100, 2*10 + 3*100.) Only sums and differences are
added, no large coefficients, which would cost digits. In two dimensions the same is done along rows and then along
columns: 3 * 3 = 9 multiplications for 2 x 2 outputs instead of 16.

**Stride 2.** A 4x4 kernel that moves by 2 pixels is a 2x2 kernel that moves by one *block* of 2x2 pixels, where a block
counts as one pixel with 4 times the channels. So the picture is regrouped, block (i, j) holding its pixels side by
side, and the kernel likewise:

    w[f, c, 2a + ph, 2b + pw]  =  g[a, b][f, (ph, pw, c)]

The picture is padded by one pixel first, so block i starts at row 2i - 1.

**Many channels.** Each multiplication becomes a matrix product over all tiles (of 2x2 outputs) and channels. With
p, q = 0, 1, 2 for rows and columns:

    V[p,q] (tiles, 4C)  from the picture: differences of blocks         D^T: d0 - d1, d1, d2 - d1
    U[p,q] (F, 4C)      from the kernel:  g0, g0 + g1, g1               in both directions
    M[p,q] = V[p,q] @ U[p,q].T  (tiles, F)
    y                   sums of M's: m0 + m1, m1 + m2                   in both directions

**Backwards.** Everything but the product is a fixed linear map, so each gradient is the transpose of the step forwards:

    dM[p,q] from dy:    dy0, dy0 + dy1, dy1                  (y's sums, transposed)
    dV[p,q] = dM @ U    dU[p,q] = dM.T @ V                   9 products each, again instead of 16
    dx from dV:         d0: v0    d1: v1 - v0 - v2    d2: v2     (and neighbouring tiles share a block, where they add)
    dw from dU:         g0: u0 + u1    g1: u1 + u2

The transposed convolution swaps the roles: its forward is this dx, its dx this forward.

Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308; the algorithm is
F(2x2, 2x2) there. It is exact in exact arithmetic. In float32 its error is about that of the definition where numbers
are of one size, as in a network; beside a very large number, a tile's other outputs keep that number's rounding error.
"""

import numpy as np

from nanogan import ops
from nanogan.dispatch import register
from nanogan.fast.cpu import threads
from nanogan.fast.cpu.threads import workspace
from nanogan.ops.checks import check_dy, pair
from nanogan.ops.rows import column_sum

CHANNELS = 32  # with fewer the sums cost more than the products saved
LARGE = 80 * 1000 * 1000  # multiplications for each thread, counted without any trick, from which on it pays
SAVED = 1.5  # the definition's multiplications for each of these: 16/9, less where tiles stand out over the image
KERNEL = 1000 * 1000  # numbers, from which on no two groups of images have a gradient of their own: 9/4 of them each
ROWS = 256  # fewer rows make BLAS slow
PLANE = 128 * 1024  # numbers of one V[p,q] that stay in a core's second-level cache, with what is made of them


def serves_conv2d(x, w, b=None, *, stride=1, padding=0):
    """Whether these arguments are right for :func:`conv2d_forward`: a 4x4 kernel, stride 2, padding 1, an even size."""
    even = x.ndim == 4 and x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
    return even and x.shape[1] == w.shape[1] and _worthwhile(x, w, stride, padding, x.shape[2] // 2, x.shape[3] // 2)


def serves_conv_transpose2d(x, w, b=None, *, stride=1, padding=0, output_padding=0):
    """Whether these arguments are right for :func:`conv_transpose2d_forward`."""
    right = x.ndim == 4 and x.shape[1] == w.shape[0] and _worthwhile(x, w, stride, padding, *x.shape[2:])
    return right and pair(output_padding, "output_padding") == (0, 0)


def _worthwhile(x, w, stride, padding, height, width):
    """Whether the kernel is right, and large enough beside the smaller image, height x width."""
    tiles = -(-height // 2) * -(-width // 2)
    return (
        len(x) * height * width * w.size >= LARGE * threads.count()  # first, for most are not
        and 16 * height * width >= SAVED * 9 * 4 * tiles
        and w.ndim == 4
        and w.shape[2:] == (4, 4)
        and pair(stride, "stride", least=1) == (2, 2)
        and pair(padding, "padding") == (1, 1)
        and x.dtype == w.dtype
        and x.dtype in (np.float32, np.float64)
        and min(w.shape[:2]) >= CHANNELS
    )


def conv2d_forward(x, w, b=None, *, stride=2, padding=1):
    """The same as :func:`nanogan.ops.conv2d_forward` for what :func:`serves_conv2d`."""
    N, C, H, W = x.shape
    y = threads.empty((N, H // 2, W // 2, len(w)), x.dtype)
    _run(w, large=_pixels(x), down=y)
    if b is not None:
        y += b
    y = y.transpose(0, 3, 1, 2)
    return y, (x, w, b, y.shape)


def conv2d_backward(dy, cache, need_dx=True, need_dw=True):
    """The same as :func:`nanogan.ops.conv2d_backward`."""
    return _backward("Conv2d", "large", "small", "up", dy, cache, need_dx, need_dw)


def conv_transpose2d_forward(x, w, b=None, *, stride=2, padding=1, output_padding=0):
    """The same as :func:`nanogan.ops.conv_transpose2d_forward` for what :func:`serves_conv_transpose2d`."""
    N, C, H, W = x.shape
    y = threads.empty((N, 2 * H, 2 * W, w.shape[1]), x.dtype)
    _run(w, small=_pixels(x), up=y)
    if b is not None:
        y += b
    y = y.transpose(0, 3, 1, 2)
    return y, (x, w, b, y.shape)


def conv_transpose2d_backward(dy, cache, need_dx=True, need_dw=True):
    """The same as :func:`nanogan.ops.conv_transpose2d_backward`."""
    return _backward("ConvTranspose2d", "small", "large", "down", dy, cache, need_dx, need_dw)


def _backward(op, x_is, dy_is, dx_is, dy, cache, need_dx, need_dw):
    """Both backwards, which differ in what :func:`_run` calls x, dy and dx. Returns dx (N, C, H, W), dw, db."""
    x, w, b, y_shape = cache
    check_dy(op, dy, y_shape, x.dtype)
    N, C, H, W = x.shape
    dx = threads.empty((N, H, W, C), x.dtype) if need_dx else None
    dw = np.empty_like(w) if need_dw else None
    dy = _pixels(dy)
    if need_dx or need_dw:
        _run(w, **{x_is: _pixels(x) if need_dw else None, dy_is: dy, dx_is: dx}, dw=dw)
    with threads.one_blas_thread:
        db = column_sum(dy.reshape(-1, dy.shape[-1])) if need_dw and b is not None else None
    return None if dx is None else dx.transpose(0, 3, 1, 2), dw, db


def _pixels(x):
    """(N, C, H, W) -> (N, H, W, C), contiguous: no copy of a channels-last array."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


# -------------------------------------------------------------------------------------------- the three directions


def _run(w, *, large=None, small=None, down=None, up=None, dw=None):
    """Compute what is asked for with the kernel w (F, C, 4, 4).

    large (N, 2h, 2w, C) and small (N, h, w, F) are pictures with channels last. Results, filled where given: ``down``
    like small, the convolution of large; ``up`` like large, its transpose applied to small; ``dw`` like w, the
    gradient.

    Threads share images, or, where those are too few for good matrix products, channels: of ``up`` if that is wanted,
    else of ``down`` and ``dw``.
    """
    F, C = w.shape[:2]
    N, h, width, _ = (small if down is None else down).shape
    tiles = -(-h // 2) * -(-width // 2)  # of one image
    groups = min(threads.count(), max(1, N * tiles // ROWS), N)
    if dw is not None and w.size >= KERNEL:
        groups = 1
    parts = threads.slices(C if up is not None else F, -(-threads.count() // groups))
    jobs = [(images, part) for part in parts for images in threads.slices(N, groups)]
    dUs = [None] * len(jobs)
    if dw is not None:  # memory of the caller's, since a thread may have several jobs
        sizes = [(F, 4 * len(range(C)[c])) if up is not None else (len(range(F)[c]), 4 * C) for _, c in jobs]
        dUs = [workspace(f"dU {i}", (3, 3, *size), w.dtype) for i, size in enumerate(sizes)]

    def work(i):
        images, part = jobs[i]
        f, c = (slice(None), part) if up is not None else (part, slice(None))
        w_part = w[f, c]
        arrays = [
            None if array is None else array[images, ..., channels]
            for array, channels in ((large, c), (small, f), (down, f), (up, c))
        ]
        rows = max(ROWS, PLANE // (4 * w_part.shape[1]))
        _work(w_part, *arrays, dUs[i], chunk=max(1, rows // tiles))

    threads.parallel(work, range(len(jobs)))

    def finish(item):
        part, rows = item
        own = [dU[:, :, rows] for dU in dUs[part * groups : (part + 1) * groups]]  # of all images, for these channels
        for other in own[1:]:
            own[0] += other
        _kernel_gradient(own[0], (dw[:, parts[part]] if up is not None else dw[parts[part]])[rows])

    if dw is not None:
        pieces = [(i, rows) for i in range(len(parts)) for rows in threads.shares(dUs[i * groups].shape[2])]
        threads.parallel(finish, pieces)


def _work(w, large, small, down, up, dU, *, chunk):
    """One thread's part of :func:`_run`, about ``chunk`` images at a time; dU (3, 3, F, 4C) is filled if given."""
    F, C = w.shape[:2]
    N, h, width, _ = (small if small is not None else down).shape
    th, tw = -(-h // 2), -(-width // 2)

    def array(name, *shape):
        return workspace(name, shape, w.dtype)

    chunks = threads.slices(N, -(-N // chunk))
    single = len(chunks) == 1  # else U is needed once for each chunk, and all planes are kept
    U = None if down is None and up is None else array("U", 1 if single else 3, 3, F, 4 * C)
    for p in () if U is None or single else range(3):
        _kernel_planes(w, p, U[p])

    for images in chunks:
        n = images.stop - images.start
        tiles = n * th * tw
        padded = array("padded", n, 4 * th + 2, 4 * tw + 2, C)
        V = array("V", 3, n, th, tw, 4 * C)  # then dV
        V_matrix = V.reshape(3, tiles, 4 * C)
        if large is not None:
            _load_blocks(large[images], padded)
            room_of_rows = array("rows", n, th, tw + 1, 4 * C)
        if small is not None:
            pixels = _load_tiles(small[images], th, tw)
            room = array("dM", 3, n, th, tw, F)
        if down is not None:
            M, y = array("M", 3, tiles, F), array("y", 2, 2, tiles, F)
        if up is not None:
            even, odd = array("even", 3, n, th, tw + 1, 4 * C), array("odd", 3, n, th, tw, 4 * C)
        for p in range(3):
            if large is not None:
                _differences(padded, p, room_of_rows, V)
            if small is not None:
                dM = _tile_planes(pixels, p, room)
            if U is not None:
                planes = _kernel_planes(w, p, U[0]) if single else U[p]
            if down is not None:
                _add_outputs(np.matmul(V_matrix, planes.transpose(0, 2, 1), out=M), p, y)
            if dU is not None and images.start == 0:
                np.matmul(dM.transpose(0, 2, 1), V_matrix, out=dU[p])
            elif dU is not None:
                dU[p] += np.matmul(dM.transpose(0, 2, 1), V_matrix, out=array("dU of a chunk", 3, F, 4 * C))
            if up is not None:
                np.matmul(dM, planes, out=V_matrix)
                _add_columns(V, even[p], odd[p])
        if down is not None:
            _store_tiles(y.reshape(2, 2, n, th, tw, F), down[images])
        if up is not None:
            _add_rows(even, odd, padded)
            _store_blocks(padded, up[images])


# -------------------------------------------------------------------------------- the sums before the products ...
#
# NumPy is fast along long runs of memory. The image is padded in one copy of whole rows; a block's two rows of two
# pixels, 2C numbers each, then lie in it as they are, and the first difference picks them up. It keeps the columns of
# blocks with even and with odd numbers, d0 and d2 and d1 of the tiles, in two arrays, and a tile's four outputs are
# kept in four: then every other sum is one of long runs.


def _load_blocks(x, padded):
    """Copy x (n, 2h, 2w, C) into ``padded`` (n, 4*th + 2, 4*tw + 2, C), one pixel from the top and from the left."""
    _, H, W, _ = x.shape
    padded[:, 0] = padded[:, 1 + H :] = 0
    padded[:, :, 0] = padded[:, :, 1 + W :] = 0
    padded[:, 1 : 1 + H, 1 : 1 + W] = x


def _store_blocks(padded, x):
    """The transpose of :func:`_load_blocks`: fill x (n, 2h, 2w, C); what lies outside the image is left out."""
    x[...] = padded[:, 1 : 1 + x.shape[1], 1 : 1 + x.shape[2]]


def _block_columns(padded):
    """Views of the blocks with even and with odd column numbers: (n, 2*th + 1, tw + 1, 2, 2C), (..., tw, 2, 2C)."""
    n, H, W, C = padded.shape
    blocks = padded.reshape(n, H // 2, 2, W // 2, 2 * C).transpose(0, 1, 3, 2, 4)
    return blocks[:, :, 0::2], blocks[:, :, 1::2]


def _differences(padded, p, even, V):
    """Fill V (3, n, th, tw, 4C) with V[p, 0], V[p, 1], V[p, 2]: number p, and q, of d0 - d1, d1, d2 - d1.

    ``even`` (n, th, tw + 1, 4C) is room for the even columns' differences along rows; those of the odd ones are V[1].
    """
    for blocks, out in zip(_block_columns(padded), (even, V[1]), strict=True):
        d0, d1, d2 = blocks[:, 0:-1:2], blocks[:, 1::2], blocks[:, 2::2]
        out = out.reshape(d1.shape)
        if p == 1:
            np.copyto(out, d1)
        else:
            np.subtract(d0 if p == 0 else d2, d1, out=out)
    np.subtract(even[:, :, :-1], V[1], out=V[0])
    np.subtract(even[:, :, 1:], V[1], out=V[2])


def _kernel_planes(w, p, U):
    """Fill U (3, F, 4C) with U[p, q] of w (F, C, 4, 4): number p, and q, of g0, g0 + g1, g1. Returns U."""
    F, C = w.shape[:2]
    g = w.transpose(0, 2, 3, 1).reshape(F, 2, 2, 4, C)  # f, a, ph, kw, c
    rows = g[:, 0] + g[:, 1] if p == 1 else g[:, p // 2]
    q0, q1, q2 = U.reshape(3, F, 2, 2, C)  # f, ph, pw, c
    q0[...], q2[...] = rows[:, :, :2], rows[:, :, 2:]
    np.add(q0, q2, out=q1)
    return U


def _load_tiles(dy, th, tw):
    """(n, h, w, F) -> (2, 2, n, th, tw, F): pixel (a, b) of every tile, 0 outside the picture."""
    n, h, w, F = dy.shape
    tiles = workspace("tiles", (2, 2, n, th, tw, F), dy.dtype)
    for a in (0, 1):
        for b in (0, 1):
            inside = dy[:, a::2, b::2]
            rows, columns = inside.shape[1:3]
            tiles[a, b, :, :rows, :columns] = inside
            tiles[a, b, :, rows:] = tiles[a, b, :, :, columns:] = 0
    return tiles


def _tile_planes(tiles, p, dM):
    """dM[p] (3, tiles, F): dy0, dy0 + dy1, dy1 in both directions; ``dM`` (3, n, th, tw, F) is room for it."""
    if p == 1:
        np.add(tiles[0], tiles[1], out=dM[0::2])
    else:
        np.copyto(dM[0::2], tiles[p // 2])
    np.add(dM[0], dM[2], out=dM[1])
    return dM.reshape(3, -1, dM.shape[-1])


# ------------------------------------------------------------------------------------------------ ... and after them


def _add_outputs(M, p, y):
    """Add row p of the products, M (3, tiles, F), into y (2, 2, tiles, F): m0 + m1 and m1 + m2 in both directions."""
    M[0] += M[1]
    M[2] += M[1]
    sums = M[0::2]  # (2, tiles, F)
    if p == 0:
        np.copyto(y[0], sums)
    else:
        y[0 if p == 1 else 1] += sums
        if p == 1:
            np.copyto(y[1], sums)


def _store_tiles(y, down):
    """The transpose of :func:`_load_tiles`: fill down (n, h, w, F)."""
    for a in (0, 1):
        for b in (0, 1):
            inside = down[:, a::2, b::2]
            inside[...] = y[a, b, :, : inside.shape[1], : inside.shape[2]]


def _add_columns(dV, even, odd):
    """Add dV (3, n, th, tw, 4C) along columns: v0 and the tile before's v2 in an even one, v1 - v0 - v2 in an odd one.

    even (n, th, tw + 1, 4C); odd (n, th, tw, 4C).
    """
    even[:, :, 0], even[:, :, -1] = dV[0, :, :, 0], dV[2, :, :, -1]
    np.add(dV[0, :, :, 1:], dV[2, :, :, :-1], out=even[:, :, 1:-1])
    np.subtract(dV[1], dV[0], out=odd)
    odd -= dV[2]


def _add_rows(even, odd, padded):
    """The same along rows: fill ``padded`` from even (3, n, th, tw + 1, 4C) and odd (3, n, th, tw, 4C)."""
    for sums, blocks in zip((even, odd), _block_columns(padded), strict=True):
        v0, v1, v2 = sums.reshape(3, *blocks[:, 1::2].shape)
        blocks[:, 0], blocks[:, -1] = v0[:, 0], v2[:, -1]
        np.add(v0[:, 1:], v2[:, :-1], out=blocks[:, 2:-1:2])
        between = np.subtract(v1, v0, out=blocks[:, 1::2])
        between -= v2


def _kernel_gradient(dU, dw):
    """Fill dw (F, C, 4, 4) from dU (3, 3, F, 4C): g0 = u0 + u1, g1 = u1 + u2 in both directions."""
    F, C = dw.shape[:2]
    dU = dU.reshape(3, 3, F, 2, 2, C)
    out = dw.transpose(0, 2, 3, 1)  # f, kh, kw, c
    for a in (0, 1):
        rows = dU[a] + dU[a + 1]  # q, f, ph, pw, c
        for b in (0, 1):
            np.add(rows[b], rows[b + 1], out=out[:, 2 * a : 2 * a + 2, 2 * b : 2 * b + 2])


register(
    "cpu", ops.conv2d_forward, conv2d_forward, conv2d_backward,
    serves=serves_conv2d, priority=1, precisions=("float32", "tf32"),
)  # fmt: skip
register(
    "cpu", ops.conv_transpose2d_forward, conv_transpose2d_forward, conv_transpose2d_backward,
    serves=serves_conv_transpose2d, priority=1, precisions=("float32", "tf32"),
)  # fmt: skip
