"""The transposed convolution whose kernel is a multiple of the stride, as 4x4 with stride 2 or 3x3 with stride 1.

``col2im`` adds one kernel position at a time: runs of C numbers, between two of which NumPy works longer than on them.
Here the image is regrouped: SH x SW pixels are one *block*, which counts as one pixel with SH*SW times the channels.
A kernel that moves by SH x SW pixels then moves by one block, and is itself KH/SH x KW/SW blocks:

    w[c, f, a*SH + ph, b*SW + pw]  =  kernel[a, b][c, (ph, pw, f)]
    blocks[i + a, j + b]          +=  x[i, j] @ kernel[a, b]                     for every a, b: 4 for 4x4 with stride 2

All columns j of a row follow each other in memory on both sides, so a run is a whole row of the image: W*SH*SW*F
numbers. At the end blocks become pixels again, and the padding is cut off.
"""

import numpy as np

from nanogan.fast.cpu.threads import workspace

FEW = 16  # columns of a product: it is taken in pieces of SMALL multiplications, for which OpenBLAS has code of its own
SMALL = 900 * 1000


def serves(w, stride):
    """Whether the kernel w (C, F, KH, KW) is made of blocks of the stride's size."""
    return w.shape[2] % stride[0] == 0 and w.shape[3] % stride[1] == 0


def painter(w, stride, padding):
    """Return ``paint(x, y)``, which fills y (n, OH, OW, F) with the transposed convolution of x (n, H, W, C) with w."""
    C, F, KH, KW = w.shape
    (SH, SW), (PH, PW) = stride, padding
    A, B = KH // SH, KW // SW  # the kernel's size in blocks
    kernel = w.transpose(2, 3, 0, 1).reshape(A, SH, B, SW, C, F).transpose(0, 2, 4, 1, 3, 5)
    kernel = np.ascontiguousarray(kernel).reshape(A * B, C, SH * SW * F)

    def paint(x, y):
        n, H, W, _ = x.shape
        _, OH, OW, _ = y.shape
        planes = workspace("planes", (A * B, n * H * W, SH * SW * F), x.dtype)
        step = n * H * W if SH * SW * F > FEW else max(1, SMALL // (C * SH * SW * F))
        for start in range(0, n * H * W, step):
            rows = slice(start, start + step)
            np.matmul(x.reshape(-1, C)[rows], kernel, out=planes[:, rows])
        planes = planes.reshape(A, B, n, H, W, SH * SW * F)

        BH, BW = max(H + A - 1, -(-(OH + PH) // SH)), max(W + B - 1, -(-(OW + PW) // SW))
        blocks = workspace("blocks", (n, BH, BW, SH * SW * F), x.dtype)
        blocks[:, :H, :W] = planes[0, 0]
        blocks[:, H:] = blocks[:, :H, W:] = 0
        for a in range(A):
            for b in range(B):
                if a or b:
                    blocks[:, a : a + H, b : b + W] += planes[a, b]

        blocks = blocks.reshape(n, BH, BW, SH, SW, F)
        for ph in range(SH):
            for pw in range(SW):  # pixel (ph, pw) of block (i, j) is the padded image's pixel (i*SH + ph, j*SW + pw)
                top, left = -(-(PH - ph) // SH), -(-(PW - pw) // SW)
                out = y[:, top * SH + ph - PH :: SH, left * SW + pw - PW :: SW]
                out[...] = blocks[:, top : top + out.shape[1], left : left + out.shape[2], ph, pw]

    return paint
