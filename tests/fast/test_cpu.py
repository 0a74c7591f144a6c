"""The CPU's fast paths: the same numbers as nanogan.ops, whatever the shape, the layout and the number of threads."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import threadpoolctl
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from nanogan import dispatch, gradcheck, layers, ops
from nanogan.errors import UserError
from nanogan.fast.cpu import (
    batchnorm,
    chunked,
    elementwise,
    linear,
    thin,
    threads,
    winograd,
)
from nanogan.gradcheck import cases, check_layer
from nanogan.layers.losses import discriminate_by_the_book
from nanogan.optim import SGD, Adam
from tests.games import test_adversarial as training
from tests.helpers import channels_last, relative_error
from tests.ops.test_properties import makers
from tests.starting import ctrl_c

TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-4}  # sums of the same terms in other groups


def same(got, expected, dy=None):
    """Equal but for rounding; errors count beside the largest number, and beside dy's."""
    if expected is None:
        return got is None
    scale = max(abs(expected).max(), 1e-30 if dy is None else abs(dy).max())
    right = got.shape == expected.shape and got.dtype == expected.dtype
    return right and float(abs(got - expected).max()) <= TOLERANCE[expected.dtype] * scale


def assert_parity(fast, reference, inputs, options, dy, needs=({},)):
    """Compare two pairs of functions: results, gradients, what is asked for, and that nothing is changed."""
    before = [None if a is None else a.copy() for a in (*inputs, dy)]
    y, cache = fast[0](*inputs, **options)
    expected, expected_cache = reference[0](*inputs, **options)
    assert same(y, expected)
    assert y.shape == expected.shape
    for need in needs:
        for _ in range(2):  # a backward may be run again
            got = fast[1](dy, cache, **need)
            wanted = reference[1](dy, expected_cache, **need)
            got, wanted = (g if isinstance(g, tuple) else (g,) for g in (got, wanted))
            assert all(same(g, w, dy) for g, w in zip(got, wanted, strict=True)), need
    for array, kept in zip((*inputs, dy), before, strict=True):
        assert array is None or np.array_equal(array, kept), "an input was changed"


NEEDS = ({}, {"need_dx": False}, {"need_dw": False}, {"need_dx": False, "need_dw": False})


# ------------------------------------------------------------------------------------------------------- convolution


@given(makers(), st.data())
def test_winograd_is_the_convolution(make, data):
    N, C, F = (data.draw(st.integers(1, high), label=name) for name, high in (("N", 5), ("C", 6), ("F", 6)))
    h, w = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    bias = data.draw(st.booleans())
    with pytest.MonkeyPatch.context() as patch:
        threads.count()
        patch.setattr(threads, "_count", data.draw(st.integers(1, 4), label="threads"))
        patch.setattr(winograd, "ROWS", data.draw(st.sampled_from([1, 8, 256])))
        patch.setattr(winograd, "PLANE", data.draw(st.sampled_from([1, 64, 128 * 1024])))
        patch.setattr(winograd, "KERNEL", data.draw(st.sampled_from([1, 10**9])))
        options = {"stride": 2, "padding": 1}
        large, small = make(N, C, 2 * h, 2 * w), make(N, F, h, w)
        assert_parity(
            (winograd.conv2d_forward, winograd.conv2d_backward),
            (ops.conv2d_forward, ops.conv2d_backward),
            [large, make(F, C, 4, 4), make(F) if bias else None], options, small, NEEDS,
        )  # fmt: skip
        assert_parity(
            (winograd.conv_transpose2d_forward, winograd.conv_transpose2d_backward),
            (ops.conv_transpose2d_forward, ops.conv_transpose2d_backward),
            [small, make(F, C, 4, 4), make(C) if bias else None], options, large, NEEDS,
        )  # fmt: skip


@pytest.mark.parametrize("size", [(64, 32, 16), (16, 7, 128), (5, 3, 40)])
@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_winograd_at_sizes_that_are_split_by_images_and_by_channels(size, number, set_threads, rng):
    set_threads(number)
    N, h, C = size
    x = channels_last(rng.standard_normal((N, C, 2 * h, 2 * h), dtype=np.float32))
    w = channels_last(rng.standard_normal((C + 8, C, 4, 4), dtype=np.float32))
    dy = channels_last(rng.standard_normal((N, C + 8, h, h), dtype=np.float32))
    assert_parity(
        (winograd.conv2d_forward, winograd.conv2d_backward), (ops.conv2d_forward, ops.conv2d_backward),
        [x, w, None], {"stride": 2, "padding": 1}, dy,
    )  # fmt: skip
    assert_parity(
        (winograd.conv_transpose2d_forward, winograd.conv_transpose2d_backward),
        (ops.conv_transpose2d_forward, ops.conv_transpose2d_backward),
        [dy, w, None], {"stride": 2, "padding": 1}, x,
    )  # fmt: skip


def test_winograds_error_in_float32_is_at_most_twice_torchs(rng):
    """Sums and differences alone: no digits are lost to large coefficients. torch as it is fastest, channels-last."""
    x = rng.standard_normal((16, 64, 16, 16)).astype(np.float32)
    w = rng.standard_normal((128, 64, 4, 4)).astype(np.float32)
    dy = rng.standard_normal((16, 128, 8, 8)).astype(np.float32)
    y, cache = winograd.conv2d_forward(x, w)
    ours = [y, *winograd.conv2d_backward(dy, cache)[:2]]

    def torchs(dtype):
        a, b = (torch.tensor(array, dtype=dtype).contiguous(memory_format=torch.channels_last) for array in (x, w))
        a.requires_grad_()
        b.requires_grad_()
        y = torch.nn.functional.conv2d(a, b, stride=2, padding=1)
        y.backward(torch.tensor(dy, dtype=dtype))
        return [tensor.detach().numpy() for tensor in (y, a.grad, b.grad)]

    for our, their, exact in zip(ours, torchs(torch.float32), torchs(torch.float64), strict=True):
        errors = [np.sqrt(((array - exact) ** 2).mean()) for array in (our, their)]
        assert errors[0] <= 2 * errors[1]


@given(makers(), st.data())
def test_chunks_of_images_are_the_convolution(make, data):
    N, C, F = (data.draw(st.integers(1, high), label=name) for name, high in (("N", 6), ("C", 9), ("F", 9)))
    kernel, stride = (data.draw(st.tuples(*[st.integers(1, high)] * 2)) for high in (5, 3))
    padding = tuple(data.draw(st.integers(0, k - 1)) for k in kernel)
    size = tuple(max(1, k - 2 * p) + data.draw(st.integers(0, 5)) for k, p in zip(kernel, padding, strict=True))
    extra = tuple(data.draw(st.integers(0, s - 1)) for s in stride)
    bias = data.draw(st.booleans())
    out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
    up = tuple((n - 1) * s - 2 * p + k + e for n, k, s, p, e in zip(size, kernel, stride, padding, extra, strict=True))
    assume(min(up) > 0)
    with pytest.MonkeyPatch.context() as patch:
        threads.count()
        patch.setattr(threads, "_count", data.draw(st.integers(1, 3), label="threads"))
        patch.setattr(chunked, "COLS", data.draw(st.sampled_from([1, 200, 10**6])))
        patch.setattr(chunked, "WORTHWHILE", 0)
        patch.setattr(thin, "CHANNELS", data.draw(st.sampled_from([0, 8])))
        options = {"stride": stride, "padding": padding}
        assert_parity(
            (chunked.conv2d_forward, chunked.conv2d_backward), (ops.conv2d_forward, ops.conv2d_backward),
            [make(N, C, *size), make(F, C, *kernel), make(F) if bias else None], options, make(N, F, *out), NEEDS,
        )  # fmt: skip
        assert_parity(
            (chunked.conv_transpose2d_forward, chunked.conv_transpose2d_backward),
            (ops.conv_transpose2d_forward, ops.conv_transpose2d_backward),
            [make(N, C, *size), make(C, F, *kernel), make(F) if bias else None],
            options | {"output_padding": extra}, make(N, F, *up), NEEDS,
        )  # fmt: skip


@given(makers(), st.data())
def test_a_kernel_that_covers_the_map_is_a_fully_connected_layer(make, data):
    N, C, F, KH, KW, stride, number = (data.draw(st.integers(1, high)) for high in (6, 9, 9, 4, 4, 3, 3))
    bias = make(F) if data.draw(st.booleans()) else None
    with pytest.MonkeyPatch.context() as patch:
        threads.count()
        patch.setattr(threads, "_count", number)
        assert_parity(
            (linear.conv2d_forward, linear.conv2d_backward), (ops.conv2d_forward, ops.conv2d_backward),
            [make(N, C, KH, KW), make(F, C, KH, KW), bias], {"stride": stride}, make(N, F, 1, 1), NEEDS,
        )  # fmt: skip
        assert_parity(
            (linear.conv_transpose2d_forward, linear.conv_transpose2d_backward),
            (ops.conv_transpose2d_forward, ops.conv_transpose2d_backward),
            [make(N, C, 1, 1), make(C, F, KH, KW), bias], {"stride": stride}, make(N, F, KH, KW), NEEDS,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "w_shape", "options", "conv2d", "conv_transpose2d"),
    [
        ((64, 64, 8, 8), (128, 64, 8, 8), {}, True, False),
        ((64, 512, 1, 1), (512, 64, 4, 4), {}, False, True),
        ((64, 512, 1, 1), (512, 64, 4, 4), {"stride": 3}, False, True),
        ((128, 512, 1, 1), (512, 512, 1, 1), {}, True, True),
        ((64, 64, 8, 8), (128, 64, 8, 8), {"padding": (0, 1)}, False, False),
        ((64, 64, 8, 9), (128, 64, 8, 8), {}, False, False),
        ((64, 512, 1, 1), (512, 64, 4, 4), {"padding": 1}, False, False),
        ((64, 512, 1, 2), (512, 64, 4, 4), {}, False, False),
        ((8, 64, 8, 8), (8, 64, 8, 8), {}, True, False),
        ((8, 64, 1, 1), (64, 64, 4, 4), {}, False, True),
    ],
)
def test_linear_serves_kernels_that_cover_the_map(shape, w_shape, options, conv2d, conv_transpose2d):
    x, w = np.zeros(shape, np.float32), np.zeros(w_shape, np.float32)
    assert linear.serves_conv2d(x, w, **options) == conv2d
    assert linear.serves_conv_transpose2d(x, w, **options) == conv_transpose2d
    if len(x) > 8:  # the others are small
        assert chunked.serves_conv2d(x, w, **options) != conv2d
        assert chunked.serves_conv_transpose2d(x, w, **options) != conv_transpose2d
    assert not linear.serves_conv_transpose2d(x.astype(np.float16), w.astype(np.float16), **options)
    assert not linear.serves_conv2d(x.astype(np.float16), w.astype(np.float16), **options)


def test_linear_leaves_output_padding_alone():
    x, w = np.zeros((64, 512, 1, 1), np.float32), np.zeros((512, 64, 4, 4), np.float32)
    assert not linear.serves_conv_transpose2d(x, w, stride=2, output_padding=1)


@pytest.mark.parametrize(
    ("shape", "w_shape", "options", "served"),
    [
        ((64, 64, 32, 32), (128, 64, 4, 4), {"stride": 2, "padding": 1}, True),
        ((64, 64, 32, 32), (128, 64, 4, 4), {"stride": (2, 2), "padding": (1, 1)}, True),
        ((64, 64, 33, 32), (128, 64, 4, 4), {"stride": 2, "padding": 1}, False),
        ((64, 64, 32, 33), (128, 64, 4, 4), {"stride": 2, "padding": 1}, False),
        ((64, 64, 32, 32), (128, 64, 3, 3), {"stride": 2, "padding": 1}, False),
        ((64, 64, 32, 32), (128, 64, 4, 4), {"stride": 1, "padding": 1}, False),
        ((64, 64, 32, 32), (128, 64, 4, 4), {"stride": 2, "padding": 0}, False),
        ((64, 64, 32, 32), (128, 64, 4, 4), {}, False),
        ((64, 3, 64, 64), (64, 3, 4, 4), {"stride": 2, "padding": 1}, False),
        ((1, 64, 4, 4), (128, 64, 4, 4), {"stride": 2, "padding": 1}, False),
        ((64, 32, 32, 32), (128, 64, 4, 4), {"stride": 2, "padding": 1}, False),
        ((256, 64, 14, 14), (128, 64, 4, 4), {"stride": 2, "padding": 1}, False),  # 8 x 8 tiled for 7 x 7
        ((256, 64, 30, 30), (128, 64, 4, 4), {"stride": 2, "padding": 1}, True),
    ],
)
def test_winograd_serves_what_it_is_made_for(shape, w_shape, options, served, set_threads):
    set_threads(2)
    x, w = np.zeros(shape, np.float32), np.zeros(w_shape, np.float32)
    assert winograd.serves_conv2d(x, w, **options) == served
    assert not winograd.serves_conv2d(x.astype(np.float16), w.astype(np.float16), **options)
    assert not winograd.serves_conv2d(x, w.astype(np.float64), **options)


def test_winograd_wants_enough_work_for_each_thread(set_threads):
    x, w = np.zeros((8, 64, 32, 32), np.float32), np.zeros((128, 64, 4, 4), np.float32)
    served = []
    for number in (2, 3, 4):
        set_threads(number)
        served.append(winograd.serves_conv2d(x, w, stride=2, padding=1))
    assert served == [True, True, False]  # 268 million multiplications


def test_winograd_leaves_output_padding_alone(set_threads):
    set_threads(2)
    x, w = np.zeros((64, 128, 16, 16), np.float32), np.zeros((128, 64, 4, 4), np.float32)
    assert winograd.serves_conv_transpose2d(x, w, stride=2, padding=1)
    assert not winograd.serves_conv_transpose2d(x, w, stride=2, padding=1, output_padding=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w: chunked.conv2d_forward(x[:, :2], w), "expected 3 input channels, got 2"),
        (lambda x, w: chunked.conv2d_forward(x, w, stride=0), "stride expected a whole number"),
        (lambda x, w: chunked.conv_transpose2d_forward(x, w, output_padding=1), "smaller than the stride"),
        (lambda x, w: linear.conv2d_forward(x, x, stride=0), "stride expected a whole number"),
        (lambda x, w: linear.conv2d_forward(x[:, :2], x), "expected 3 input channels, got 2"),
        (lambda x, w: linear.conv2d_backward(x, linear.conv2d_forward(x, x)[1]), "expected dy of y's shape"),
        (lambda x, w: chunked.conv2d_backward(x, chunked.conv2d_forward(x, w)[1]), "expected dy of y's shape"),
        (
            lambda x, w: winograd.conv2d_backward(x, winograd.conv2d_forward(x, np.zeros((3, 3, 4, 4)))[1]),
            "expected dy of y's shape",
        ),
        (
            lambda x, w: winograd.conv_transpose2d_backward(
                x, winograd.conv_transpose2d_forward(x, np.zeros((3, 3, 4, 4)))[1]
            ),
            "expected dy of y's shape",
        ),
    ],
)
def test_wrong_input_gets_the_same_sentence(call, message, rng):
    with pytest.raises(UserError, match=message):
        call(rng.standard_normal((2, 3, 6, 6)), rng.standard_normal((3, 3, 3, 3)))


# ---------------------------------------------------------------------------------------- batch norm and elementwise


@given(makers(), st.data(), st.sampled_from([0.0, 0.1, 1.0]))
def test_batchnorm_in_two_walks(make, data, momentum):
    N, C = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 5))
    shape = (N, C, *data.draw(st.sampled_from([(), (1, 1), (3, 2), (4, 4)])))
    x, gamma, beta, dy = make(*shape), make(C), make(C), make(*shape)
    # A channel of close values has a slope of 1 / its spread, and no implementation has digits left.
    assume(float(x.std(axis=tuple(i for i in range(x.ndim) if i != 1)).min()) > 0.1)
    statistics = [make(C).copy(), abs(make(C)) + 0.5]
    running = [[s.copy() for s in statistics] for _ in range(2)]
    options = {"momentum": momentum, "eps": 1e-3}
    with pytest.MonkeyPatch.context() as patch:
        threads.count()
        patch.setattr(threads, "_count", data.draw(st.integers(1, 3)))
        patch.setattr(batchnorm, "CHUNK", data.draw(st.sampled_from([1, 7, 10**6])))
        patch.setattr(batchnorm, "WIDE", data.draw(st.sampled_from([1, 7, 2048])))
        patch.setattr(batchnorm, "FEW", data.draw(st.sampled_from([0, 64])))
        assert_parity(
            (lambda *a, **o: batchnorm.batchnorm_forward(*a, *running[0], **o), batchnorm.batchnorm_backward),
            (lambda *a, **o: ops.batchnorm_forward(*a, *running[1], **o), ops.batchnorm_backward),
            [x, gamma, beta], options, dy, NEEDS,
        )  # fmt: skip
    for ours, expected in zip(*running, strict=True):
        assert ours.dtype == x.dtype
        np.testing.assert_allclose(ours, expected, rtol=0, atol=10 * TOLERANCE[x.dtype])


@pytest.mark.parametrize(("mean", "std"), [(1e4, 1.0), (-300.0, 0.01), (0.0, 1.0)])
def test_batchnorm_survives_a_large_offset(mean, std, rng):
    x = channels_last((mean + std * rng.standard_normal((16, 3, 32, 32))).astype(np.float32))
    ones, zeros, running = np.ones(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
    y, cache = batchnorm.batchnorm_forward(x, ones, zeros, running, ones.copy(), momentum=1.0)
    exact, exact_cache = ops.batchnorm_forward(*(a.astype(np.float64) for a in (x, ones, zeros, zeros, ones)))
    dy = channels_last(rng.standard_normal(x.shape).astype(np.float32))
    gradients = batchnorm.batchnorm_backward(dy, cache)
    expected = ops.batchnorm_backward(dy.astype(np.float64), exact_cache)
    assert relative_error(y, exact) < 1e-6
    np.testing.assert_allclose(running, x.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-7, atol=1e-7 * std)
    for got, wanted in zip(gradients, expected, strict=True):
        assert relative_error(got, wanted) < 2e-6


def test_batchnorm_of_numbers_whose_squares_are_infinite(rng):
    x = channels_last((3e19 + 1e17 * rng.standard_normal((8, 3, 16, 16))).astype(np.float32))
    vectors = [np.full(3, value, np.float32) for value in (1, 0, 0, 1)]
    y, _ = batchnorm.batchnorm_forward(x, *vectors)
    expected, _ = ops.batchnorm_forward(*(a.astype(np.float64) for a in (x, *vectors)))
    assert relative_error(y, expected) < 1e-5


def test_batchnorm_of_constant_channels_is_beta(rng):
    x = np.broadcast_to(np.array([3.0, -1e4], np.float32)[:, None, None], (4, 2, 5, 5))
    gamma, beta, running = np.array([2.0, 3.0], np.float32), np.array([0.5, -0.5], np.float32), np.zeros(2, np.float32)
    y, cache = batchnorm.batchnorm_forward(x, gamma, beta, running, np.ones(2, np.float32))
    np.testing.assert_allclose(y, np.broadcast_to(beta[:, None, None], x.shape), atol=1e-6)
    assert np.isfinite(batchnorm.batchnorm_backward(rng.standard_normal(x.shape).astype(np.float32), cache)[0]).all()


ELEMENTWISE = [("relu", {}), ("leaky_relu", {"negative_slope": 0.2}), ("leaky_relu", {}), ("tanh", {})]


@pytest.mark.parametrize(("name", "options"), ELEMENTWISE)
@given(makers(), st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple), st.integers(1, 3))
def test_elementwise_functions_are_the_same_to_the_bit(name, options, make, shape, number):
    x, dy = make(*shape), make(*shape)
    x.setflags(write=True)
    x[(0,) * x.ndim] = 0  # where the slopes jump
    assume(elementwise._in_memory(x) is not None)
    with pytest.MonkeyPatch.context() as patch:
        threads.count()
        patch.setattr(threads, "_count", number)
        patch.setattr(elementwise, "BLOCK", 7)
        y, cache = getattr(elementwise, f"{name}_forward")(x, **options)
        dx = getattr(elementwise, f"{name}_backward")(dy, cache)
    expected, expected_cache = getattr(ops, f"{name}_forward")(x, **options)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(dx, getattr(ops, f"{name}_backward")(dy, expected_cache))
    assert dx.dtype == y.dtype == x.dtype
    assert elementwise._in_memory(y) is not None
    assert y.size < 2 or y.flags.c_contiguous == x.flags.c_contiguous


def test_what_elementwise_paths_do_not_serve(set_threads, monkeypatch):
    set_threads(2)
    big = np.zeros((900, 900), np.float32)
    assert elementwise.serves(big)
    assert batchnorm.serves(big, *[big[0]] * 4)
    assert not elementwise.serves(big[:, ::2].repeat(2, axis=0)[::2]), "gaps in memory"
    assert not elementwise.serves(big[:10])
    assert not elementwise.serves(big.astype(np.float16))
    assert not elementwise.serves(big, negative_slope=1.5), "nanogan.ops tells what is wrong with it"


# ---------------------------------------------------------------------------------------------- layers and networks


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", [*cases.LAYERS, *cases.NETWORKS])
def test_every_layer_keeps_its_promises_on_the_fast_paths(name, train, small_pieces, monkeypatch, rng):
    """Gradients against finite differences, and the contract, with every fast path taken.

    Directions show a mistake, single elements say where; of whole networks' many arrays few elements are enough.
    """
    if name in cases.NETWORKS:
        monkeypatch.setattr(gradcheck, "ELEMENTS", 4)
    make, draw = (cases.LAYERS | cases.NETWORKS)[name]
    check_layer(make(), draw(rng), train=train, rng=rng).raise_if_wrong()


def test_the_fast_paths_are_taken(small_pieces, rng):
    """What the tests above rely on."""
    x = rng.standard_normal((4, 3, 8, 8)).astype(np.float32)
    _, (backward, _) = layers.Conv2d(3, 4, kernel_size=4, stride=2, padding=1).forward(x)
    assert backward is winograd.conv2d_backward
    _, (backward, _) = layers.Conv2d(3, 4, kernel_size=3).forward(x)
    assert backward is chunked.conv2d_backward
    _, (backward, _) = layers.BatchNorm2d(3).forward(x)
    assert backward is batchnorm.batchnorm_backward
    _, caches = layers.Sequential(layers.BatchNorm2d(3), layers.ReLU()).forward(x)
    assert caches.both[0][0] is batchnorm.batchnorm_backward
    _, (backward, _) = layers.ReLU().forward(x)
    assert backward is elementwise.relu_backward


def test_a_fused_network_can_be_cut_between_the_fused_layers(small_pieces, rng):
    """Each layer's cache is its own: what comes after the cut has the gradient that it has by itself."""
    network = layers.Sequential(layers.BatchNorm2d(3, dtype=np.float64), layers.ReLU(), layers.Tanh())
    y, caches = network.forward(rng.standard_normal((4, 3, 6, 6)))
    dy = rng.standard_normal(y.shape)
    tail = network[1:].backward(dy, caches[1:])
    assert 0.2 < (tail == 0).mean() < 0.8, "ReLU's slope is in it"
    np.testing.assert_allclose(network[:1].backward(tail, caches[:1]), network.backward(dy, caches), atol=1e-14)


def test_a_replaced_forward_is_called(small_pieces, rng):
    network, called = layers.Sequential(layers.BatchNorm2d(3), layers.ReLU()), []
    original = network[1].forward
    network[1].forward = lambda x, train=True: called.append(1) or original(x, train)
    network.forward(rng.standard_normal((4, 3, 6, 6)).astype(np.float32))
    assert called == [1]


class Split(layers.Layer):
    def forward(self, x, train=True):
        return np.concatenate(x, axis=1), None


def test_a_layer_may_take_what_it_likes():
    y, _ = layers.Sequential(Split(), layers.ReLU()).forward((np.ones((2, 3)), np.ones((2, 3))))
    assert y.shape == (2, 6)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh"])
def test_a_dy_of_another_shape_is_left_to_the_operation(name, small_pieces, rng):
    x = rng.standard_normal((4, 3, 6, 6))
    _, cache = getattr(elementwise, f"{name}_forward")(x)
    backward, reference = getattr(elementwise, f"{name}_backward"), getattr(ops, f"{name}_backward")
    with pytest.raises(ValueError, match="broadcast"):
        backward(rng.standard_normal((8, 3, 6, 6)), cache)
    dy = rng.standard_normal((1, 3, 6, 6))
    np.testing.assert_array_equal(backward(dy, cache), reference(dy, cache))


def test_batchnorm_of_one_value_per_channel_is_refused_before_anything_changes(small_pieces):
    layer = layers.BatchNorm1d(5)
    with pytest.raises(UserError, match="more than one value per channel"):
        layer.forward(np.ones((1, 5), np.float32))
    assert not layer.buffers["running_mean"].any()


def test_batchnorm_of_numbers_far_from_0_in_parts(set_threads, rng):
    """An image whose first column is unlike the others."""
    set_threads(2)
    x = (1000 + rng.standard_normal((64, 16, 64, 64))).astype(np.float32)
    x[..., 0] -= 1000
    x = channels_last(x)
    vectors = [np.full(16, value, np.float32) for value in (1, 0, 0, 1)]
    y, _ = batchnorm.batchnorm_forward(x, *vectors)
    expected, _ = ops.batchnorm_forward(*(a.astype(np.float64) for a in (x, *vectors)))
    assert abs(y - expected).max() < 3e-5


@pytest.mark.parametrize(
    "call",
    [
        lambda: layers.ConvTranspose2d(3, 4, kernel_size=4).forward(np.zeros(3, np.float32)),
        lambda: layers.Conv2d(3, 4, kernel_size=4, stride=0).forward(np.zeros((1, 3, 8, 8), np.float32)),
        lambda: layers.Conv2d(3, 4, kernel_size=4, stride=None).forward(np.zeros((1, 3, 8, 8), np.float32)),
        lambda: layers.Conv2d(3, 4, kernel_size=4, stride=2.0, padding=1).forward(np.zeros((1, 3, 8, 8), np.float32)),
    ],
)
def test_wrong_arguments_get_a_sentence_with_fast_paths_too(call, small_pieces):
    with pytest.raises(UserError):
        call()


def test_training_is_torchs_on_the_fast_paths(small_pieces):
    training.assert_training_is_torchs(40, torch.channels_last, moved=0.1)


def test_training_with_and_without_fast_paths_is_the_same(set_threads, monkeypatch):
    """At sizes for which the fast paths are made."""
    monkeypatch.setattr(winograd, "LARGE", 10**6)
    monkeypatch.setattr(training, "WIDTH", 16)
    monkeypatch.setattr(training, "BATCH", 32)
    results = []
    for fast in (True, False):
        set_threads(2)
        monkeypatch.setattr(dispatch, "FAST", fast)
        results.append(training.run_ours(5, np.float64)[0])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-12)


@pytest.mark.parametrize("kind", [Adam, SGD])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_optimisers_in_blocks_are_the_same_to_the_bit(kind, number, set_threads, monkeypatch, rng):
    set_threads(number)
    monkeypatch.setattr(elementwise, "BLOCK", 1000)
    networks = [layers.Linear(70, 60, rng=np.random.default_rng(0)) for _ in range(2)]
    gradient = rng.standard_normal((60, 70)).astype(np.float32)
    for network, fast in zip(networks, (True, False), strict=True):
        monkeypatch.setattr(dispatch, "FAST", fast)
        optimizer = kind(network, lr=0.1, weight_decay=0.01)
        for _ in range(3):
            network.zero_grad()
            network.add_grads(weight=gradient)
            network.add_grads(weight=gradient)
            optimizer.step()
    np.testing.assert_array_equal(networks[0].grads["weight"], 2 * gradient)
    for name, array in networks[0].state_dict().items():
        np.testing.assert_array_equal(array, networks[1].state_dict()[name])


def test_arrays_of_different_layouts_are_not_cut_in_blocks(set_threads, monkeypatch, rng):
    set_threads(2)
    monkeypatch.setattr(elementwise, "BLOCK", 10)
    a, b = rng.standard_normal((8, 9)), np.asfortranarray(rng.standard_normal((8, 9)))
    expected = a + b
    elementwise.update_all(lambda a, b: np.add(a, b, out=a), [(a, b)])
    np.testing.assert_array_equal(a, expected)


# ------------------------------------------------------------------------------------------------------------ threads


def test_results_come_in_order_and_items_are_shared_out(set_threads):
    set_threads(3)
    names = threads.parallel(lambda i: (i, threading.current_thread().name), range(7))
    assert [i for i, _ in names] == list(range(7))
    assert {name for i, name in names if i % 3 == 0} == {threading.current_thread().name}
    assert len({names[i][1] for i in range(3)}) <= 3
    assert threads.parallel(lambda i: i, []) == []


def test_an_error_on_another_thread_is_raised_here(set_threads):
    set_threads(2)

    def fail(i):
        if i == 1:
            raise UserError("no. 1")
        return i

    with pytest.raises(UserError, match=r"no\. 1"):
        threads.parallel(fail, range(2))
    assert threads.parallel(lambda i: i, range(2)) == [0, 1], "and the threads are fit for work again"


def test_blas_has_one_thread_inside_and_its_own_number_afterwards(set_threads):
    set_threads(2)

    def blas_threads(_=None):
        info = threadpoolctl.threadpool_info()
        return [library["num_threads"] for library in info if library["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        inside = threads.parallel(blas_threads, range(2))
        assert all(number == 1 for numbers in inside for number in numbers)
        assert blas_threads() == before
        assert all(number == 2 for number in before)


def test_ctrl_c_waits_for_the_other_threads(set_threads):
    import _thread
    import time

    set_threads(2)
    finished = []

    def work(i):
        if i == 0:
            _thread.interrupt_main()
        time.sleep(0.2)
        finished.append(i)

    with ctrl_c(), pytest.raises(KeyboardInterrupt):
        threads.parallel(work, range(2))
        time.sleep(1)
    assert 1 in finished
    assert threads.parallel(lambda i: i, range(2)) == [0, 1]


def test_errstate_holds_on_every_thread(set_threads):
    set_threads(2)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        threads.parallel(lambda i: np.float32(3e38) * np.full(2, i * 10, np.float32), range(2))
    with np.errstate(over="ignore"):  # a warning would be an error here
        threads.parallel(lambda i: np.float32(3e38) * np.full(2, i * 10, np.float32), range(2))


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system does not fork")
def test_a_forked_child_has_threads_of_its_own():
    program = """
import os, signal, threading, time
import numpy as np
from nanogan.fast.cpu import threads
threads.count(); threads._count = 2
stop = False
def busy():
    while not stop:
        threads.parallel(lambda i: time.sleep(0.05), range(2))
threading.Thread(target=busy, daemon=True).start()
time.sleep(0.2)
if os.fork() == 0:
    signal.alarm(20)
    os._exit(0 if threads.parallel(lambda i: i, range(2)) == [0, 1] else 1)
print(os.wait()[1])
os._exit(0)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "0", result.stderr


def test_work_inside_work_stays_on_its_thread(set_threads):
    set_threads(2)

    def inner(i):
        own = threading.current_thread().name
        return all(name == own for name in threads.parallel(lambda j: threading.current_thread().name, range(4)))

    assert threads.parallel(inner, range(2)) == [True, True]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_same_number_of_threads_gives_the_same_bits(number, small_pieces, set_threads):
    set_threads(number)
    results = [training.run_ours(3, np.float32) for _ in range(2)]
    np.testing.assert_array_equal(results[0][0], results[1][0])
    for one, two in zip(results[0][1:], results[1][1:], strict=True):
        for name, array in one.state_dict().items():
            np.testing.assert_array_equal(array, two.state_dict()[name])


def test_slices_cover_everything_once():
    for total in (1, 2, 5, 10):
        for parts in (1, 2, 3, 20):
            found = [i for part in threads.slices(total, parts) for i in range(part.start, part.stop)]
            assert found == list(range(total))
            assert len(threads.slices(total, parts)) == min(parts, total)


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("1", 1), ("", None)])
def test_the_number_of_threads_can_be_set(value, expected, monkeypatch):
    """BLAS's own threads too: they would go on computing, and waiting in a loop, on cores that were not given."""
    monkeypatch.setenv("NANOGAN_THREADS", value)
    for of_blas in (1, 2):
        monkeypatch.setattr(threads, "_count", None)
        with threadpoolctl.threadpool_limits(of_blas, user_api="blas"):
            assert threads.count() == (expected or of_blas)
            numbers = {
                library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"
            }
            assert numbers == {expected or of_blas}


@pytest.mark.parametrize("value", ["0", "many", "-1", "1.5", "1e9", "100000", "²"])
def test_another_number_of_threads_gets_one_sentence(value, monkeypatch):
    monkeypatch.setenv("NANOGAN_THREADS", value)
    monkeypatch.setattr(threads, "_count", None)
    with pytest.raises(UserError, match="NANOGAN_THREADS expected an integer from 1 to 1024, got"):
        threads.count()


def test_arrays_start_at_cache_lines():
    for size in (1, 1000, 10**6):
        assert threads.empty((size,), np.float32).ctypes.data % 64 == 0


def test_workspaces_are_used_again():
    first = threads.workspace("test", (10, 10), np.float64)
    second = threads.workspace("test", (5,), np.float32)
    assert first.ctypes.data == second.ctypes.data
    assert first.ctypes.data % 64 == 0
    assert not np.shares_memory(threads.workspace("other", (10, 10), np.float64), first)
    larger = threads.workspace("test", (10**6,), np.float64)
    larger[...] = 1
    assert larger.sum() == 10**6
    assert threads.workspace("test", (0, 5), np.float32).shape == (0, 5)


def test_memory_that_the_system_does_not_have_is_a_memory_error():
    for _ in range(2):
        with pytest.raises(MemoryError, match="unable to allocate"):
            threads.workspace("far too large", (2**50,), np.float64)
    assert threads.workspace("far too large", (3,), np.float64).shape == (3,)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that interrupt")
def test_a_signals_handler_may_compute_in_the_middle_of_an_operation(set_threads, rng):
    """As the one of Ctrl-C does that draws a last sample."""
    set_threads(2)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((32, 64, 32, 32), (128, 64, 4, 4)))
    x, other = channels_last(x), channels_last(rng.standard_normal((20, 30, 32, 32)).astype(np.float32))
    expected, cache = winograd.conv2d_forward(x, w)
    gradients, called, done = winograd.conv2d_backward(expected, cache), [], []

    def handler(number, frame):
        y, cache_of_y = elementwise.leaky_relu_forward(other)
        elementwise.leaky_relu_backward(y, cache_of_y)
        called.append(number)
        if not done:
            signal.setitimer(signal.ITIMER_REAL, 0.002)  # the next one, once this one has ended

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        results = [winograd.conv2d_forward(x, w)[0] for _ in range(5)]
        results += [result for _ in range(5) for result in winograd.conv2d_backward(expected, cache)[:2]]
    finally:
        done.append(True)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(called) > 5
    for result, wanted in zip(results, [expected] * 5 + list(gradients[:2]) * 5, strict=True):
        np.testing.assert_array_equal(result, wanted)


def test_every_fast_path_is_a_documented_pair_for_an_operation():
    dispatch.load("cpu")
    found = {function: paths for (kind, function), paths in dispatch._paths.items() if kind == "cpu"}
    assert {ops.conv2d_forward, ops.conv_transpose2d_forward, ops.batchnorm_forward, ops.linear_forward} <= found.keys()
    for function, paths in found.items():
        for path in paths:
            if isinstance(function, tuple):  # a pair: named after the second, with the first one's backward
                assert path.forward.__name__ == function[1].__name__
                assert path.backward.__name__ == function[0].__name__.replace("forward", "backward")
            elif function.__name__ in ops.__all__:
                assert path.forward.__name__ == function.__name__
                assert path.backward is None or path.backward.__name__ == function.__name__.replace(
                    "forward", "backward"
                )
            else:
                assert (function, path.forward.__name__) == (discriminate_by_the_book, "discriminate")
            assert all(f.__doc__ for f in (path.serves, path.forward, path.backward) if f is not None)
