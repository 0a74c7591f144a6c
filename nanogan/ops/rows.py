"""The memory layout of activations.

Shapes are PyTorch's, (N, C, H, W). In memory the channels come last, as in torch's ``channels_last``: the C numbers of
one pixel lie side by side. Seen as a matrix, such a batch is one row per pixel, and that view costs nothing:

    x      (N, C, H, W)     x[n, c, h, w]
    rows   (N*H*W, C)       rows[(n*H + h)*W + w, c]

Every operation accepts any memory order; one that needs rows copies a batch that is not channels-last.
"""

from nanogan.backend import array_module


def to_rows(x):
    """(N, C, H, W) -> (N*H*W, C), one row per pixel; (N, C) is returned as it is. No copy if channels-last."""
    return x if x.ndim == 2 else x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])


def from_rows(rows, N, H, W):
    """(N*H*W, C) -> (N, C, H, W), channels-last in memory. The inverse of :func:`to_rows`, never a copy."""
    return rows.reshape(N, H, W, rows.shape[1]).transpose(0, 3, 1, 2)


def column_sum(rows):
    """Sum of each column of rows (M, C), in blocks: many short sums lose fewer digits than a long one.

    Adding 65,536 numbers one after the other in float32 costs 5 of its 24 bits; adding 256 sums of 256 numbers costs 1.
    A stack of matrices (..., M, C) is summed matrix by matrix, to (..., C).
    """
    xp = array_module(rows)
    *stack, M, C = rows.shape
    block = max(1, int(M**0.5))
    whole = M // block * block
    ones = xp.ones(block, dtype=rows.dtype)
    blocks = rows[..., :whole, :].reshape(*stack, -1, block, C)
    sums = ones @ blocks  # (..., M // block, C): ones @ a sums a's rows, at matmul's speed
    return sums.sum(axis=-2) + rows[..., whole:, :].sum(axis=-2)


def centre(rows):
    """Rows (..., M, C) minus the mean of each column, and without the rounding error of that mean.

    A mean rounded to float32 is off by up to 1e-7 of itself, which matters where the mean is large beside the spread;
    what is left of it in the difference is small, and so is known precisely.
    """
    M = rows.shape[-2]
    centred = rows - column_sum(rows)[..., None, :] / M
    centred -= column_sum(centred)[..., None, :] / M
    return centred
