"""Finite differences, and implementations by the definition to compare with. Nothing here calls nanogan.ops."""

import itertools

import numpy as np


def channels_last(x):
    """The same values and shape; in memory the channels come last."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if x.ndim == 4 else x


def relative_error(got, expected):
    """The largest difference, as a share of the largest expected value."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"shape {got.shape} instead of {expected.shape}"
    scale = np.abs(expected).max() if expected.size else 0.0
    return float(np.abs(got - expected).max() / scale) if scale else float(np.abs(got).max(initial=0.0))


def directional_error(loss, arrays, gradients, rng, eps=1e-6):
    """Compare d loss along one random direction in all ``arrays`` (float64, changed in place and restored).

    Central differences: (loss(a + eps v) - loss(a - eps v)) / 2 eps, which is off by eps^2 and by rounding / eps.
    """
    directions = [rng.standard_normal(array.shape) for array in arrays]
    before = [array.copy() for array in arrays]

    def at(step):
        for array, start, direction in zip(arrays, before, directions, strict=True):
            array[...] = start + step * direction
        return float(loss())

    numeric = (at(eps) - at(-eps)) / (2 * eps)
    at(0)
    parts = [np.vdot(gradient, direction) for gradient, direction in zip(gradients, directions, strict=True)]
    scale = max(abs(numeric), np.sqrt(sum(np.vdot(gradient, gradient) for gradient in gradients)))
    assert scale > 0, "the gradient is zero, so this check proves nothing"
    return abs(sum(parts) - numeric) / scale


def elementwise_gradient(loss, array, eps=1e-6):
    """d loss / d array, element by element, by central differences. ``array`` (float64) is changed and restored."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        start = array[index]
        array[index] = start + eps
        above = float(loss())
        array[index] = start - eps
        below = float(loss())
        array[index] = start
        gradient[index] = (above - below) / (2 * eps)
    return gradient


def naive_conv2d(x, w, b, stride, padding):
    """The definition of a convolution, one multiplication at a time."""
    (N, C, H, W), (F, _, KH, KW) = x.shape, w.shape
    (SH, SW), (PH, PW) = stride, padding
    OH, OW = (H + 2 * PH - KH) // SH + 1, (W + 2 * PW - KW) // SW + 1
    y = np.zeros((N, F, OH, OW), x.dtype)
    for n, f, oh, ow in np.ndindex(y.shape):
        total = b[f]
        for c, kh, kw in itertools.product(range(C), range(KH), range(KW)):
            h, v = oh * SH + kh - PH, ow * SW + kw - PW
            if 0 <= h < H and 0 <= v < W:
                total += x[n, c, h, v] * w[f, c, kh, kw]
        y[n, f, oh, ow] = total
    return y


def naive_conv_transpose2d(x, w, b, stride, padding, output_padding):
    """The definition of a transposed convolution: every pixel paints the kernel."""
    (N, C, H, W), (_, F, KH, KW) = x.shape, w.shape
    (SH, SW), (PH, PW), (AH, AW) = stride, padding, output_padding
    OH, OW = (H - 1) * SH - 2 * PH + KH + AH, (W - 1) * SW - 2 * PW + KW + AW
    y = np.zeros((N, F, OH, OW), x.dtype) + b[:, None, None]
    for n, c, h, v, f, kh, kw in np.ndindex(N, C, H, W, F, KH, KW):
        oh, ow = h * SH + kh - PH, v * SW + kw - PW
        if 0 <= oh < OH and 0 <= ow < OW:
            y[n, f, oh, ow] += x[n, c, h, v] * w[c, f, kh, kw]
    return y
