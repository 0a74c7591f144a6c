"""The transposed convolution to one or three channels: the last layer of a generator, the first of a discriminator.

``col2im`` adds windows of a few channels into a picture: as many tiny additions as there are pixels and kernel
positions. Here the product is taken the other way round, so that each kernel position's numbers of all pixels form a
picture of their own, and those are added whole:

    cols = w_rows.T @ x_rows.T      (KH*KW*F, n*H*W): one plane (n, H, W) for each kernel position and channel

Plane (kh, kw) belongs to the output's rows kh, kh + stride, ... So the output is made of stride x stride pictures, its
phases; plane kh = ph + a*stride goes into phase ph, ``a`` pixels further down. At the end the phases are interleaved.
"""

import numpy as np

from nanogan.fast.cpu.threads import workspace
from nanogan.ops.conv import weight_rows

CHANNELS = 8  # at most


def serves(w, stride):
    """Whether w (C, F, KH, KW) leads to few channels, with a stride that makes phases of the result."""
    return w.shape[1] <= CHANNELS and min(stride) > 1


def painter(w, stride, padding):
    """Return ``paint(x, y)``, which fills y (n, OH, OW, F) with the transposed convolution of x (n, H, W, C) with w."""
    C, F, KH, KW = w.shape
    kernel = weight_rows(w).T  # (KH*KW*F, C)

    def paint(x, y):
        n, H, W, _ = x.shape
        cols = workspace("cols", (KH * KW * F, n * H * W), x.dtype)
        np.matmul(kernel, x.reshape(-1, C).T, out=cols)
        _add_planes(cols.reshape(KH, KW, F, n, H, W), y, stride, padding)

    return paint


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
