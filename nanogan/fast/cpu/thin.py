"""The transposed convolution to one or three channels: the last layer of a generator, the first of a discriminator.

``col2im`` adds windows of a few channels into a picture: as many tiny additions as there are pixels and kernel
positions. Here the product is taken the other way round, so that each kernel position's numbers of all pixels form a
picture of their own, and those are added whole:

    cols = w_rows.T @ x_rows.T      (KH*KW*F, n*H*W): one plane (n, H, W) for each kernel position and channel

Plane (kh, kw) belongs to the output's rows kh, kh + stride, ... So the output is made of stride x stride pictures, its
phases; plane kh = ph + a*stride goes into phase ph, ``a`` pixels further down. At the end the phases are interleaved.
"""

import numpy as np

from nanogan.fast.cpu import threads
from nanogan.fast.cpu.threads import workspace
from nanogan.ops.conv import weight_rows

CHANNELS = 8  # at most
COLS = 256 * 1024  # numbers of cols at a time
WORTHWHILE = 4 * 1000 * 1000  # multiplications for which waking up other threads pays


def serves(channels, stride):
    """Whether the result has few channels, and a stride that makes phases of it."""
    return channels <= CHANNELS and min(stride) > 1


def up(x, w, shape, stride, padding):
    """Paint w (C, F, KH, KW) for every pixel of x (N, C, H, W) onto a picture of ``shape`` (N, F, OH, OW)."""
    N, C, H, W = x.shape
    _, F, OH, OW = shape
    KH, KW = w.shape[2:]
    y = threads.empty((N, OH, OW, F), x.dtype)
    rows = np.ascontiguousarray(x.transpose(0, 2, 3, 1))  # (N, H, W, C)
    kernel = weight_rows(w).T  # (KH*KW*F, C)
    chunk = max(1, COLS // (KH * KW * F * H * W))

    def work(part):
        for start in range(part.start, part.stop, chunk):
            images = slice(start, min(part.stop, start + chunk))
            n = images.stop - images.start
            cols = workspace("cols", (KH * KW * F, n * H * W), x.dtype)
            np.matmul(kernel, rows[images].reshape(-1, C).T, out=cols)
            _add_planes(cols.reshape(KH, KW, F, n, H, W), y[images], stride, padding)

    threads.parallel(work, threads.shares(N, N * H * W * w.size >= WORTHWHILE))
    return y.transpose(0, 3, 1, 2)


def _add_planes(cols, y, stride, padding):
    """Add cols (KH, KW, F, n, H, W) up into y (n, OH, OW, F)."""
    KH, KW, F, n, H, W = cols.shape
    _, OH, OW, _ = y.shape
    (SH, SW), (PH, PW) = stride, padding
    BH, BW = -(-(OH + PH) // SH), -(-(OW + PW) // SW)  # rows and columns of a phase
    BH, BW = max(BH, H + (KH - 1) // SH), max(BW, W + (KW - 1) // SW)
    phase = workspace("phase", (F, n, BH, BW), y.dtype)
    for ph in range(SH):
        for pw in range(SW):
            phase[...] = 0
            for kh in range(ph, KH, SH):
                for kw in range(pw, KW, SW):
                    phase[:, :, kh // SH : kh // SH + H, kw // SW : kw // SW + W] += cols[kh, kw]
            # row i of the phase is the padded picture's row i*SH + ph
            top, left = -(-(PH - ph) // SH), -(-(PW - pw) // SW)
            out = y[:, top * SH + ph - PH :: SH, left * SW + pw - PW :: SW]  # (n, rows, columns, F)
            out[...] = phase[:, :, top : top + out.shape[1], left : left + out.shape[2]].transpose(1, 2, 3, 0)
