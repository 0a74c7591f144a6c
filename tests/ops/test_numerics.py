"""Where rounding, extreme values and ties decide."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import numerics
from nanogan import ops
from nanogan.backend import to_device, to_numpy
from nanogan.errors import UserError
from nanogan.ops import smooth_activations
from tests.helpers import relative_error


@pytest.mark.parametrize("case", numerics.CASES, ids=str)
def test_the_error_in_float32_is_at_most_twice_torchs(case):
    """At a DCGAN's sizes, for the result and every gradient; docs/numerics.md has the table."""
    for name, (ours, theirs) in numerics.errors(case, draws=1).items():
        # below 1.5 it is one or two roundings, and a matter of luck where the result is one number
        assert ours < max(2 * theirs, 1.5), name


EXTREME = [-1e4, -100.0, -89.0, -20.0, 0.0, 20.0, 89.0, 100.0, 1e4]


@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bce_with_logits_is_finite_and_torchs_at_extreme_logits(target, dtype):
    logits = np.array(EXTREME, dtype)
    loss, cache = ops.bce_with_logits_forward(logits, target, reduction="sum")
    dlogits = ops.bce_with_logits_backward(1.7, cache)
    t = torch.tensor(logits.astype(np.float64), requires_grad=True)
    expected = F.binary_cross_entropy_with_logits(t, torch.full_like(t, target), reduction="sum")
    (1.7 * expected).backward()
    assert np.isfinite(loss)
    assert loss.dtype == dlogits.dtype == dtype
    assert float(loss) == pytest.approx(expected.item(), rel=1e-6)
    # torch's own gradient is sigmoid(x) - target, which rounds to a multiple of 2^-53 when the target is 1
    np.testing.assert_allclose(dlogits, t.grad.numpy(), rtol=1e-5, atol=1e-15)


def test_bce_clamps_the_logarithms_as_torch_does():
    p, target = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0, 1.0])
    loss, cache = ops.bce_forward(p, target)
    t = torch.tensor(p, requires_grad=True)
    expected = F.binary_cross_entropy(t, torch.tensor(target))
    expected.backward()
    assert float(loss) == expected.item() == 50.0
    np.testing.assert_allclose(ops.bce_backward(1.0, cache), t.grad.numpy(), rtol=1e-8)  # torch's 1e-12 is a float32


def test_softplus_keeps_its_digits_far_below_zero():
    """log(1 + e^-30) is 9.4e-14, of which 1 + e^-30 has lost three digits in float64 and all in float32."""
    for dtype in (np.float32, np.float64):
        loss, _ = ops.bce_with_logits_forward(np.array([-30.0], dtype), 0.0)
        assert float(loss) == pytest.approx(np.log1p(np.exp(-30.0)), rel=1e-6, abs=0)


def test_l1_has_no_slope_where_it_is_zero():
    _, cache = ops.l1_forward(np.array([1.0, 2.0, -0.0]), np.array([1.0, 1.0, 0.0]), reduction="sum")
    np.testing.assert_array_equal(ops.l1_backward(3.0, cache), [0.0, 3.0, 0.0])


def test_a_weight_of_one_number_counts_as_torchs(rng):
    logits, target, weight = rng.standard_normal((4, 3)), rng.random((4, 3)), np.array([2.5])
    loss, _ = ops.bce_with_logits_forward(logits, target, weight=weight)
    expected = F.binary_cross_entropy_with_logits(*map(torch.tensor, (logits, target, weight)))
    assert float(loss) == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d"])
def test_the_biass_gradient_adds_up_many_pixels_without_losing_digits(op, rng):
    """65,536 numbers near 0.1: added one after the other in float32, the last of them lose half of their digits."""
    w = rng.standard_normal((2, 2, 1, 1)).astype(np.float32)
    y, cache = getattr(ops, f"{op}_forward")(np.zeros((64, 2, 32, 32), np.float32), w, np.zeros(2, np.float32))
    dy = rng.uniform(0.09, 0.11, y.shape).astype(np.float32)
    _, _, db = getattr(ops, f"{op}_backward")(dy, cache)
    np.testing.assert_allclose(db, dy.sum(axis=(0, 2, 3), dtype=np.float64), rtol=2e-7)


def test_cross_entropy_does_not_overflow():
    logits, labels = np.array([[1e4, -1e4, 0.0], [100.0, 100.0, 100.0]], np.float32), np.array([1, 2])
    loss, cache = ops.cross_entropy_forward(logits, labels)
    t = torch.tensor(logits, requires_grad=True)
    expected = F.cross_entropy(t, torch.tensor(labels))
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(ops.cross_entropy_backward(1.0, cache), t.grad.numpy(), rtol=1e-5)


INF = float("inf")
RULED_OUT = [[0, -INF, 1], [2, 0.5, -INF]]  # logits of -inf: classes that cannot be


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rows", "labels", "expected"), [(1, [2], 0.31326168751822286), (2, [2, 0], 0.2573374827504877), (1, [1], INF)]
)
def test_cross_entropy_of_a_class_that_is_ruled_out(rows, labels, expected, dtype, device):
    """It weighs nothing in the sum, where 0 times its infinite logarithm would be NaN."""
    logits, labels = np.array(RULED_OUT[:rows], dtype), np.array(labels)
    loss, cache = ops.cross_entropy_forward(to_device(logits, device), to_device(labels, device))
    t = torch.tensor(logits.astype(np.float64), requires_grad=True)
    (1.7 * F.cross_entropy(t, torch.tensor(labels))).backward()
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    gradient = to_numpy(ops.cross_entropy_backward(1.7, cache))
    np.testing.assert_allclose(gradient, t.grad.numpy(), rtol=1e-5, atol=1e-7)


def test_cross_entropy_of_a_class_that_is_ruled_out_with_smoothing_and_with_weights():
    logits = np.array(RULED_OUT)
    loss, _ = ops.cross_entropy_forward(logits, np.array([2, 0]), label_smoothing=0.1)
    assert loss == INF  # the smoothed label gives it a share
    loss, _ = ops.cross_entropy_forward(logits, np.array([1, 0]), weight=np.array([3.0, 0.0, 1.0]))
    assert loss == pytest.approx(0.2014132779827524, rel=1e-12)  # log(1 + e^-1.5): the other sample alone counts


@pytest.mark.parametrize(
    ("op", "x", "target", "expected", "slope"),
    [
        ("bce_with_logits", INF, 1.0, 0, 0),
        ("bce_with_logits", -INF, 0.0, 0, 0),
        ("bce_with_logits", INF, 0.0, INF, 1),
        ("bce_with_logits", -INF, 1.0, INF, -1),
        ("bce_with_logits", INF, 0.25, INF, 0.75),
        ("saturating_bce", INF, 0.0, 0, 0),
        ("saturating_bce", INF, 1.0, -INF, -1),
        ("saturating_bce", -INF, 1.0, 0, 0),
        ("hinge", INF, 0.5, 1, 0),
        ("hinge", -INF, 0.5, 1, 0),
        ("hinge", INF, 1.0, 0, 0),
        ("score", -INF, 0.5, 0, 0),
        ("score", INF, 1.0, -INF, -1),
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["number", "array"])
def test_a_loss_of_an_infinite_logit_is_its_limit(op, x, target, expected, slope, whole, device):
    """0 or inf, where 0 * inf would be NaN; a warning would be an error here."""
    x = to_device(np.array([x]), device)
    target = target if whole else to_device(np.array([target]), device)
    loss, cache = getattr(ops, f"{op}_forward")(x, target)
    assert float(loss) == expected
    np.testing.assert_array_equal(to_numpy(getattr(ops, f"{op}_backward")(1.7, cache)), [1.7 * slope])


def test_a_weight_of_0_leaves_nothing_of_an_infinite_loss_but_shows_nan():
    logits = np.array([INF, 1.0])
    loss, cache = ops.bce_with_logits_forward(logits, 0.0, weight=np.array([0.0, 1.0]), reduction="sum")
    assert loss == pytest.approx(1.3132616875182228, rel=1e-15)
    np.testing.assert_allclose(ops.bce_with_logits_backward(1.0, cache), [0, 0.7310585786300049], rtol=1e-15)
    loss, _ = ops.bce_with_logits_forward(-logits, 1.0, pos_weight=np.array([0.0, 1.0]), reduction="sum")
    assert loss == pytest.approx(1.3132616875182228, rel=1e-15)
    loss, _ = ops.bce_with_logits_forward(np.array([np.nan, 1.0]), 0.0, weight=np.array([0.0, 1.0]))
    assert np.isnan(loss)


def test_logsumexp_of_infinite_logits_is_its_limit(device):
    logits = np.array([[-INF, -INF], [INF, 0.0], [INF, -INF], [0.0, -INF]])
    y, _ = ops.logsumexp_forward(to_device(logits, device))
    np.testing.assert_array_equal(to_numpy(y), [[-INF], [INF], [INF], [0.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_and_tanh_do_not_overflow(dtype):
    x = np.array(EXTREME, dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, _ = ops.sigmoid_forward(x)
        ops.tanh_forward(x)
    np.testing.assert_allclose(y, torch.sigmoid(torch.tensor(x)).numpy(), rtol=1e-6, atol=1e-38)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["softplus", "elu", "selu", "silu", "gelu", "glu"])
def test_smooth_activations_do_not_overflow(name, dtype, rng):
    """A warning would be an error here."""
    x = np.array([-1e30, *EXTREME, 1e30], dtype)
    x = np.concatenate([x[::-1] if name == "glu" else [], x]).astype(dtype)
    y, cache = getattr(ops, f"{name}_forward")(x)
    dy = rng.standard_normal(y.shape).astype(dtype)
    t = torch.tensor(x.astype(np.float64), requires_grad=True)
    expected = getattr(F, name)(t)
    expected.backward(torch.tensor(dy.astype(np.float64)))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-5, atol=1e-8)  # torch's softplus is off by e^-20
    dx = getattr(ops, f"{name}_backward")(dy, cache)
    np.testing.assert_allclose(dx, t.grad.numpy(), rtol=1e-5, atol=1e-8)


def test_gelus_normal_distribution_function_is_exact():
    """To 2^-53 of 1, and of itself in the tail, where torch's 1 + erf has no digit left."""
    x = np.linspace(-12, 12, 4001)
    expected = np.array([math.erfc(-value * 0.5**0.5) / 2 for value in x])
    probability = smooth_activations.normal_cdf(x)
    np.testing.assert_allclose(probability, expected, rtol=0, atol=3e-16)
    np.testing.assert_allclose(probability, expected, rtol=1e-13)


def test_softpluss_slope_keeps_its_digits_far_below_zero():
    y, cache = ops.softplus_forward(np.array([-30.0], np.float32))
    dx = ops.softplus_backward(np.array([2.0], np.float32), cache)
    assert float(y[0]) == pytest.approx(np.exp(-30), rel=1e-6, abs=0)
    assert float(dx[0]) == pytest.approx(2 * np.exp(-30), rel=1e-6, abs=0)


@pytest.mark.parametrize(("mean", "std"), [(1e4, 1.0), (-300.0, 0.01), (0.0, 1.0)])
def test_batchnorm_in_float32_survives_a_large_offset(mean, std, rng):
    """E[x^2] - E[x]^2 would have no correct digit here. Compared with float64 on the same rounded input."""
    x = (mean + std * rng.standard_normal((16, 3, 16, 16))).astype(np.float32)
    ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    y, _ = ops.batchnorm_forward(x, ones, zeros, zeros.copy(), ones.copy())
    double = x.astype(np.float64)
    expected = F.batch_norm(torch.tensor(double), None, None, training=True).numpy()
    ours = relative_error(y, expected)
    torchs = relative_error(F.batch_norm(torch.tensor(x), None, None, training=True).numpy(), expected)
    assert ours < max(2 * torchs, 1e-6)


@pytest.mark.parametrize("mean", [(1e4, 1.0), (-300.0, 0.01), (0.0, 1.0)], ids=str)
@pytest.mark.parametrize("op", ["instancenorm", "layernorm"])
def test_the_norms_of_each_image_survive_a_large_offset_too(op, mean, rng):
    """And their gradients: 256 x 256 pixels, added one after the other in float32, would lose digits as well."""
    mean, std = mean
    options = {} if op == "instancenorm" else {"normalized_shape": (256, 256)}  # the same groups
    x = (mean + std * rng.standard_normal((2, 2, 256, 256))).astype(np.float32)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    y, cache = getattr(ops, f"{op}_forward")(x, **options)
    ours = y, getattr(ops, f"{op}_backward")(dy, cache)[0]
    results = []
    for dtype in (torch.float64, torch.float32):
        t = torch.tensor(x, dtype=dtype, requires_grad=True)
        expected = F.instance_norm(t)
        expected.backward(torch.tensor(dy, dtype=dtype))
        results.append((expected.detach().numpy(), t.grad.numpy()))
    for got, exact, torchs in zip(ours, *results, strict=True):
        assert relative_error(got, exact) < max(2 * relative_error(torchs, exact), 1e-6)


def test_batchnorm_of_constant_channels_is_beta(rng):
    x = np.broadcast_to(np.array([3.0, -1e4], np.float32)[:, None, None], (4, 2, 5, 5))
    gamma, beta = np.array([2.0, 3.0], np.float32), np.array([0.5, -0.5], np.float32)
    running = np.zeros(2, np.float32)
    y, cache = ops.batchnorm_forward(x, gamma, beta, running, np.ones(2, np.float32))
    np.testing.assert_allclose(y, np.broadcast_to(beta[:, None, None], x.shape), atol=1e-6)
    dx, _, _ = ops.batchnorm_backward(rng.standard_normal(x.shape).astype(np.float32), cache)
    assert np.isfinite(dx).all()


def test_batchnorm_updates_running_statistics_as_torch_does(rng):
    x = rng.standard_normal((4, 3, 5, 5)) * 2 + 1
    mean, var = rng.standard_normal(3), rng.uniform(0.5, 2, 3)
    t_mean, t_var = torch.tensor(mean), torch.tensor(var)
    ops.batchnorm_forward(x, np.ones(3), np.zeros(3), mean, var, momentum=0.3)
    F.batch_norm(torch.tensor(x), t_mean, t_var, training=True, momentum=0.3)
    np.testing.assert_allclose(mean, t_mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(var, t_var.numpy(), rtol=1e-12)  # the unbiased variance, not the one that normalises

    before = mean.copy(), var.copy()
    ops.batchnorm_forward(x, np.ones(3), np.zeros(3), mean, var, train=False)
    np.testing.assert_array_equal((mean, var), before)


def test_batchnorm_refuses_one_value_per_channel(rng):
    with pytest.raises(UserError, match="more than one value per channel"):
        ops.batchnorm_forward(rng.standard_normal((1, 3)), np.ones(3), np.zeros(3), np.zeros(3), np.ones(3))


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "selu"])
def test_the_slope_at_zero_is_torchs(name):
    x = np.array([-1.0, -0.0, 0.0, 1.0])
    y, cache = getattr(ops, f"{name}_forward")(x)
    dx = getattr(ops, f"{name}_backward")(np.array([3.0, 5.0, 7.0, 11.0]), cache)
    t = torch.tensor(x, requires_grad=True)
    getattr(F, name)(t).backward(torch.tensor([3.0, 5.0, 7.0, 11.0]))
    np.testing.assert_allclose(dx, t.grad.numpy(), rtol=1e-15)


def test_max_pool_gives_ties_to_the_first_as_torch_does(rng):
    x = rng.integers(0, 2, (2, 3, 6, 6)).astype(float)
    y, cache = ops.max_pool2d_forward(x, kernel_size=3, stride=2, padding=1)
    dy = rng.standard_normal(y.shape)
    t = torch.tensor(x, requires_grad=True)
    F.max_pool2d(t, 3, 2, 1).backward(torch.tensor(dy))
    np.testing.assert_allclose(ops.max_pool2d_backward(dy, cache), t.grad.numpy(), rtol=1e-12)


def test_embedding_adds_up_rows_that_share_an_index():
    _, cache = ops.embedding_forward(np.array([1, 1, 0]), np.zeros((3, 2)))
    _, dw = ops.embedding_backward(np.array([[1.0, 2.0], [10.0, 20.0], [5.0, 7.0]]), cache)
    np.testing.assert_array_equal(dw, [[5.0, 7.0], [11.0, 22.0], [0.0, 0.0]])


def test_dropout_keeps_the_expectation_and_draws_anew(rng):
    x = np.ones((200, 200), np.float32)
    first, _ = ops.dropout_forward(x, p=0.25, rng=rng)
    second, _ = ops.dropout_forward(x, p=0.25, rng=rng)
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.75)}
    assert first.mean() == pytest.approx(1, abs=5 * (0.25 / 0.75 / x.size) ** 0.5)  # five standard deviations
    assert (first != second).any()


IMAGE = np.zeros((2, 3, 4, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.embedding_forward(np.array([0, 3]), np.zeros((3, 2))), "numbers from 0 to 2, got 0 to 3"),
        (lambda: ops.embedding_forward(np.array([-1]), np.zeros((3, 2))), "numbers from 0 to 2, got -1"),
        (lambda: ops.embedding_forward(np.array([0.5]), np.zeros((3, 2))), "whole numbers from 0 to 2, got float64"),
        (lambda: ops.cross_entropy_forward(np.zeros((2, 3)), np.array([0, 3])), "from 0 to 2, got 0 to 3"),
        (lambda: ops.cross_entropy_forward(np.zeros((2, 3)), np.array([0])), r"labels \(N,\), got shapes \(2, 3\)"),
        (lambda: ops.bce_with_logits_forward(np.zeros((2, 1)), np.zeros(2)), r"input's shape \(2, 1\), got \(2,\)"),
        (lambda: ops.mse_forward(np.zeros(2), 0, reduction="none"), "'mean' or 'sum', got 'none'"),
        (lambda: ops.leaky_relu_forward(np.zeros(2), negative_slope=2), "negative_slope from 0 to 1, got 2"),
        (lambda: ops.dropout_forward(np.zeros(2), p=1.0), "0 <= p < 1, got 1.0"),
        (lambda: ops.dropout_forward(np.zeros(2), p=0.5), "expected rng="),
        (lambda: ops.linear_forward(np.zeros((2, 3)), np.zeros((4, 5))), "expected 5 input features, got 3"),
        (lambda: ops.reshape_forward(np.zeros((2, 12)), shape=(3, 5)), "expected 15 numbers per picture"),
        (lambda: ops.upsample_forward(np.zeros((1, 1, 2, 2)), scale_factor=0), "of at least 1, got 0"),
        (lambda: ops.max_pool2d_forward(np.zeros((1, 1, 4, 4)), kernel_size=2, padding=2), "at most half"),
        (lambda: ops.max_pool2d_forward(np.zeros((1, 1, 4, 4)), kernel_size=3, padding=2), "at most half"),
        (lambda: ops.reshape_forward(np.zeros((2, 12)), shape=(3, 8)), "expected 24 numbers per picture"),
        (lambda: ops.instancenorm_forward(IMAGE[:, :, :1, :1]), "more than one pixel per image, got .* 1, 1"),
        (lambda: ops.instancenorm_forward(IMAGE, np.ones(2)), "expected 2 input channels, got 3"),
        (lambda: ops.reflection_pad2d_forward(IMAGE, padding=4), r"smaller than the images, .* \(4, 5\), got .* 4, 4"),
        (lambda: ops.reflection_pad2d_forward(IMAGE, padding=(5, 0, 0, 0)), r"smaller .*= \(5, 0, 0, 0\)"),
        (lambda: ops.reflection_pad2d_forward(IMAGE, padding=(0, 0, 0, 4)), r"smaller .*= \(0, 0, 0, 4\)"),
        (lambda: ops.reflection_pad2d_forward(IMAGE, padding=(1, 2)), r"of four, .*bottom\), got \(1, 2\)"),
        (lambda: ops.zero_pad2d_forward(IMAGE, padding=-1), "one integer of at least 0, .* got -1"),
        (lambda: ops.zero_pad2d_forward(IMAGE[0], padding=1), "4 dimensions, .* got one of shape"),
        (lambda: ops.layernorm_forward(IMAGE, normalized_shape=4), r"ends in \(4,\), got \(2, 3, 4, 5\)"),
        (lambda: ops.layernorm_forward(IMAGE[0, 0], normalized_shape=(4, 5)), r"shape \(N, ...\) .*, got \(4, 5\)"),
        (lambda: ops.layernorm_forward(IMAGE, np.ones(4), normalized_shape=5), r"gamma of .* \(5,\), got \(4,\)"),
        (lambda: ops.layernorm_forward(IMAGE, normalized_shape=2.5), "one or more integers, got 2.5"),
        (lambda: ops.avg_pool2d_forward(IMAGE, kernel_size=3, padding=2), "AvgPool2d .* at most half"),
        (lambda: ops.avg_pool2d_forward(IMAGE, kernel_size=5), r"AvgPool2d .* kernel's size \(5, 5\), got \(4, 5\)"),
        (lambda: ops.adaptive_avg_pool2d_forward(IMAGE, output_size=0), "output_size expected .* got 0"),
        (lambda: ops.elu_forward(IMAGE, alpha=-1), "alpha >= 0, got -1"),
        (lambda: ops.glu_forward(IMAGE, dim=1), r"even size along dim=1, got shape \(2, 3, 4, 5\)"),
        (lambda: ops.glu_forward(IMAGE, dim=4), "even size along dim=4"),
        (lambda: ops.gelu_forward(np.arange(3)), "GELU expected floating-point numbers, got int64"),
    ],
)
def test_wrong_input_gets_one_sentence(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_gpus_labels_are_not_fetched_to_check_their_range(double, monkeypatch):
    """Each training step would wait for the device; the loader has checked them. Their dtype and shape cost nothing."""
    indices, table = to_device(np.array([0, 2]), "gpu"), to_device(np.ones((3, 3), np.float32), "gpu")

    def waits(*_):
        raise AssertionError("the host waits for the device")

    for method in ("get", "item", "tolist", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(double.ndarray, method, waits)
    ops.cross_entropy_forward(table[:2], indices)
    ops.embedding_forward(indices, table)
    ops.cross_entropy_forward(table[:2], indices + 1)  # 3 is no class
    with pytest.raises(UserError, match="whole numbers from 0 to 2, got float32"):
        ops.embedding_forward(table, table)
    with pytest.raises(UserError, match=r"labels \(N,\), got shapes"):
        ops.cross_entropy_forward(table, indices)


NUMPY_SCALARS = {
    "leaky_relu": lambda x: ops.leaky_relu_forward(x, negative_slope=np.float64(0.2)),
    "elu": lambda x: ops.elu_forward(x, alpha=np.float64(0.2)),
    "dropout": lambda x: ops.dropout_forward(x, p=np.float64(0.5), rng=np.random.default_rng(0)),
    "bce_with_logits": lambda x: ops.bce_with_logits_forward(x, np.float64(1.0)),
    "bce_with_logits-weights": lambda x: ops.bce_with_logits_forward(
        x, 0.3, weight=np.full(x.shape, 0.5), pos_weight=np.array([2.0])
    ),
    "bce-weight": lambda x: ops.bce_forward(abs(x) / 10, 0.5, weight=np.full(x.shape, 0.5)),
    "mse": lambda x: ops.mse_forward(x, np.float64(1.0)),
    "l1": lambda x: ops.l1_forward(x, np.zeros(x.shape)),
    "cross_entropy": lambda x: ops.cross_entropy_forward(
        x, np.array([0, 1, 2, 0]), weight=np.ones(3), label_smoothing=np.float64(0.1)
    ),
}


@pytest.mark.parametrize("name", NUMPY_SCALARS)
def test_numpys_float64_scalars_do_not_make_float32_float64(name, rng):
    x = rng.standard_normal((4, 3)).astype(np.float32)
    y, cache = NUMPY_SCALARS[name](x)
    assert y.dtype == np.float32
    dy = rng.standard_normal(y.shape).astype(np.float32) if y.shape else np.float64(0.5)
    backward = getattr(ops, f"{name.split('-')[0]}_backward")
    assert backward(dy, cache).dtype == np.float32


@pytest.mark.parametrize("train", [True, False])
def test_batchnorm_stays_float32_with_numpys_options(train, rng):
    x = rng.standard_normal((4, 3)).astype(np.float32)
    vectors = [np.full(3, value, np.float32) for value in (1, 0, 0, 1)]
    y, cache = ops.batchnorm_forward(x, *vectors, train=train, momentum=np.float64(0.1), eps=np.float64(1e-5))
    results = [y, *ops.batchnorm_backward(x, cache)]
    assert [array.dtype for array in results] == [np.float32] * 4


@pytest.mark.parametrize("op", ["instancenorm", "layernorm"])
def test_the_norms_of_each_image_stay_float32_with_numpys_options(op, rng):
    x = rng.standard_normal((2, 3, 4, 3)).astype(np.float32)
    options = {} if op == "instancenorm" else {"normalized_shape": np.int64(3)}
    y, cache = getattr(ops, f"{op}_forward")(x, *np.ones((2, 3), np.float32), eps=np.float64(1e-5), **options)
    assert [array.dtype for array in (y, *getattr(ops, f"{op}_backward")(x, cache))] == [np.float32] * 4


@pytest.mark.parametrize("shape", [(2, 5, 8, 8), (2, 4, 9, 8), (2, 4, 2, 2), (1, 4, 8, 8)])
@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d"])
def test_a_dy_of_another_shape_or_dtype_is_refused(op, shape, rng):
    """Windows are a view with hand-made strides: unchecked, they would read beyond the array."""
    size, w = {"conv2d": (16, (4, 3, 4, 4)), "conv_transpose2d": (4, (3, 4, 4, 4))}[op]
    y, cache = getattr(ops, f"{op}_forward")(
        rng.standard_normal((2, 3, size, size)), rng.standard_normal(w), stride=2, padding=1
    )
    assert y.shape == (2, 4, 8, 8)
    backward = getattr(ops, f"{op}_backward")
    with pytest.raises(UserError, match=r"expected dy of y's shape \(2, 4, 8, 8\) and float64, got"):
        backward(np.zeros(shape), cache)
    with pytest.raises(UserError, match="got .* and float32"):
        backward(np.zeros(y.shape, np.float32), cache)


def test_a_large_offsets_running_mean_is_exact_too(rng):
    x = (1e4 + rng.standard_normal((16, 3, 16, 16))).astype(np.float32)
    running_mean, ones = np.zeros(3, np.float32), np.ones(3, np.float32)
    ops.batchnorm_forward(x, ones, np.zeros(3, np.float32), running_mean, ones.copy(), momentum=1.0)
    np.testing.assert_array_equal(running_mean, x.astype(np.float64).mean(axis=(0, 2, 3)).astype(np.float32))
