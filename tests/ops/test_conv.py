"""Convolution: against loops over the definition, the adjoint identity, layout, and wrong input."""

import numpy as np
import pytest

from nanogan import ops
from nanogan.errors import UserError
from nanogan.ops.conv import col2im, im2col
from tests.helpers import naive_conv2d, naive_conv_transpose2d, relative_error

GEOMETRIES = [  # size, kernel, stride, padding
    ((6, 6), (4, 4), (2, 2), (1, 1)),
    ((5, 7), (3, 2), (1, 3), (0, 1)),
    ((7, 7), (5, 5), (2, 2), (2, 2)),
    ((4, 4), (1, 3), (4, 1), (0, 2)),
]


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), GEOMETRIES)
def test_conv2d_is_its_definition(size, kernel, stride, padding, rng):
    x, w, b = rng.standard_normal((2, 3, *size)), rng.standard_normal((2, 3, *kernel)), rng.standard_normal(2)
    y, _ = ops.conv2d_forward(x, w, b, stride=stride, padding=padding)
    assert relative_error(y, naive_conv2d(x, w, b, stride, padding)) < 1e-13


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), GEOMETRIES)
def test_conv_transpose2d_is_its_definition(size, kernel, stride, padding, rng):
    x, w, b = rng.standard_normal((2, 3, *size)), rng.standard_normal((3, 2, *kernel)), rng.standard_normal(2)
    extra = tuple(s - 1 for s in stride)
    y, _ = ops.conv_transpose2d_forward(x, w, b, stride=stride, padding=padding, output_padding=extra)
    assert relative_error(y, naive_conv_transpose2d(x, w, b, stride, padding, extra)) < 1e-13


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), GEOMETRIES)
def test_the_transposed_convolution_is_the_adjoint(size, kernel, stride, padding, rng):
    """<conv(x), y> = <x, conv_transpose(y)>, where output_padding makes up for what the stride rounded off."""
    x, w = rng.standard_normal((2, 3, *size)), rng.standard_normal((4, 3, *kernel))
    conv_x, _ = ops.conv2d_forward(x, w, stride=stride, padding=padding)
    y = rng.standard_normal(conv_x.shape)
    lost = tuple((h + 2 * p - k) % s for h, p, k, s in zip(size, padding, kernel, stride, strict=True))
    back, _ = ops.conv_transpose2d_forward(y, w, stride=stride, padding=padding, output_padding=lost)
    assert back.shape == x.shape
    assert np.vdot(conv_x, y) == pytest.approx(np.vdot(x, back), rel=1e-12)


def test_col2im_is_the_adjoint_of_im2col(rng):
    geometry = (3, 2), (2, 1), (1, 0), (3, 4)
    x = rng.standard_normal((2, 3, 6, 5))
    cols = im2col(x, *geometry)
    other = rng.standard_normal(cols.shape)
    assert np.vdot(cols, other) == pytest.approx(np.vdot(x, col2im(other, x.shape, *geometry)), rel=1e-12)


def test_a_row_of_cols_is_a_window_in_reading_order():
    x = np.arange(2 * 3 * 4, dtype=float).reshape(1, 2, 3, 4)
    cols = im2col(x, (2, 2), (1, 1), (0, 0), (2, 3))
    pixel = x[0].transpose(1, 2, 0)  # (H, W, C)
    np.testing.assert_array_equal(cols[4], np.concatenate([pixel[1, 1], pixel[1, 2], pixel[2, 1], pixel[2, 2]]))


@pytest.mark.parametrize("forward", [ops.conv2d_forward, ops.conv_transpose2d_forward])
def test_channels_come_last_in_memory(forward, rng):
    x, w = rng.standard_normal((2, 3, 6, 6)), rng.standard_normal((3, 3, 4, 4))
    y, cache = forward(x, w, stride=2, padding=1)
    backward = ops.conv2d_backward if forward is ops.conv2d_forward else ops.conv_transpose2d_backward
    dx, dw, _ = backward(rng.standard_normal(y.shape), cache)
    assert y.strides[1] == dx.strides[1] == dw.strides[1] == x.itemsize


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x, w: ops.conv2d_forward(x[:, :2], w),
            r"Conv2d expected 3 input channels, got 2 \(x has shape \(2, 2, 6, 6\)\)",
        ),
        (lambda x, w: ops.conv2d_forward(x[0], w), r"expected an input of 4 dimensions, \(N, 3, H, W\), got one of"),
        (lambda x, w: ops.conv2d_forward(x.astype("f4"), w), r"expected float64, its parameters' dtype, got float32"),
        (lambda x, w: ops.conv2d_forward(x.astype("u1"), w), r"expected floating-point numbers, got uint8: scale"),
        (lambda x, w: ops.conv2d_forward(x[:, :, :2], w), r"at least the kernel's size \(3, 3\), got \(2, 6\)"),
        (lambda x, w: ops.conv2d_forward(x, w, stride=0), r"stride expected a whole number of at least 1"),
        (lambda x, w: ops.conv2d_forward(x, w, padding=-1), r"padding expected a whole number of at least 0"),
        (lambda x, w: ops.conv2d_forward(x, w, padding=1.5), r"padding expected a whole number of at least 0"),
        (lambda x, w: ops.conv_transpose2d_forward(x[:, :1], w), r"ConvTranspose2d expected 3 input channels, got 1"),
        (
            lambda x, w: ops.conv_transpose2d_forward(x, w, stride=2, output_padding=2),
            r"output_padding smaller than the stride",
        ),
        (lambda x, w: ops.conv_transpose2d_forward(x[:, :, :1, :1], w, padding=3), r"use less padding"),
        (lambda x, w: ops.conv2d_forward([[1.0]], w), r"expected a NumPy or CuPy array, got list"),
    ],
)
def test_wrong_input_gets_one_sentence(call, message, rng):
    with pytest.raises(UserError, match=message) as caught:
        call(rng.standard_normal((2, 3, 6, 6)), rng.standard_normal((3, 3, 3, 3)))
    assert "\n" not in str(caught.value)
