"""The memory layout of activations.

Shapes are PyTorch's, (N, C, H, W). In memory the channels come last, as in torch's ``channels_last``: the C numbers of
one pixel lie side by side. Seen as a matrix, such a batch is one row per pixel, and that view costs nothing:

    x      (N, C, H, W)     x[n, c, h, w]
    rows   (N*H*W, C)       rows[(n*H + h)*W + w, c]

Every operation accepts any memory order; one that needs rows copies a batch that is not channels-last.
"""

import numpy as np

from nanogan.backend import array_module
from nanogan.errors import UserError


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
    blocks = rows[..., :whole, :].reshape(*stack, M // block, block, C)
    # (..., M // block, C): ones @ a sums a's rows, on a CPU at the speed of a product; cuBLAS is slow at it
    sums = np.ones(block, dtype=rows.dtype) @ blocks if xp is np else blocks.sum(axis=-2)
    total = sums.sum(axis=-2)  # (..., C)
    return total if whole == M else total + rows[..., whole:, :].sum(axis=-2)


def centre(rows):
    """Rows (..., M, C) minus the mean of each column, and without the rounding error of that mean.

    A mean rounded to float32 is off by up to 1e-7 of itself, which matters where the mean is large beside the spread;
    what is left of it in the difference is small, and so is known precisely.
    """
    M = rows.shape[-2]
    centred = rows - column_sum(rows)[..., None, :] / M
    centred -= column_sum(centred)[..., None, :] / M
    return centred


def add(x, y):
    """x + y for two arrays of one shape; of 4 dimensions channels-last, where CuPy's own sum would be C-ordered."""
    if x.ndim != 4:
        return x + y
    total = x.transpose(0, 2, 3, 1) + y.transpose(0, 2, 3, 1)  # (N, H, W, C)
    return array_module(x).ascontiguousarray(total).transpose(0, 3, 1, 2)


def join_channels(*arrays):
    """(N, C1, ...), (N, C2, ...), ... -> (N, C1 + C2 + ..., ...): one array's channels after the other's, axis 1.

    A new array, channels-last if of 4 dimensions. Its gradient's parts: :func:`split_channels`. Raises UserError for
    arrays that differ in more than their channels.
    """
    shapes = [array.shape for array in arrays]
    if len({(shape[0], *shape[2:]) for shape in shapes}) > 1:
        raise UserError(f"arrays to be joined along the channels expected one shape but for these, got {shapes}")
    xp = array_module(arrays[0])
    if arrays[0].ndim != 4:
        return xp.concatenate(arrays, axis=1)
    joined = xp.concatenate([array.transpose(0, 2, 3, 1) for array in arrays], axis=3)  # (N, H, W, C1 + C2 + ...)
    return xp.ascontiguousarray(joined).transpose(0, 3, 1, 2)


def split_channels(array, *sizes):
    """(N, C1 + C2 + ..., ...) -> [(N, C1, ...), (N, C2, ...), ...] for sizes C1, C2, ...: views, no copies."""
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [array[:, end - size : end] for size, end in zip(sizes, ends, strict=True)]
