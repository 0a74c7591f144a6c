"""The CPU's fast paths for more than one operation: BatchNorm with its activation, D on two batches, Adam."""

import copy

import numpy as np
import pytest

from nanogan import dispatch, layers, ops
from nanogan.errors import UserError
from nanogan.fast.cpu import batchnorm, discriminator, elementwise, updates
from nanogan.layers import losses
from nanogan.models import dcgan
from nanogan.optim import Adam
from tests.helpers import channels_last

ACTIVATIONS = {
    "relu": (batchnorm.relu_forward, {}, ops.relu_forward, ops.relu_backward),
    "leaky_relu": (
        batchnorm.leaky_relu_forward, {"negative_slope": 0.2}, ops.leaky_relu_forward, ops.leaky_relu_backward,
    ),
    "leaky_relu, default": (batchnorm.leaky_relu_forward, {}, ops.leaky_relu_forward, ops.leaky_relu_backward),
}  # fmt: skip


def arrays_for(shape, rng, mean=0.0):
    C = shape[1]
    x = rng.standard_normal(shape) + mean
    x = channels_last(x) if x.ndim == 4 else x
    return x, rng.standard_normal(C), rng.standard_normal(C), rng.standard_normal(C), 0.5 + rng.random(C)


# ------------------------------------------------------------------------------------------ BatchNorm and what follows


@pytest.mark.parametrize("mean", [0.0, 30.0])
@pytest.mark.parametrize("shape", [(4, 3, 6, 6), (7, 5, 3, 5), (9, 4)], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_batchnorm_with_its_activation_is_one_after_the_other(name, shape, mean, small_pieces, rng):
    forward, options, then_forward, then_backward = ACTIVATIONS[name]
    x, gamma, beta, *running = arrays_for(shape, rng, mean)
    ours, theirs = ([r.copy() for r in running] for _ in range(2))
    settings = {"train": True, "momentum": 0.3, "eps": 1e-3}
    y, cache, of_each = forward(((x, gamma, beta, *ours), settings), options)
    between, norm_cache = ops.batchnorm_forward(x, gamma, beta, *theirs, **settings)
    expected, then_cache = then_forward(between, **options)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    dy = rng.standard_normal(shape)
    dbetween = then_backward(dy, then_cache)
    wanted = ops.batchnorm_backward(dbetween, norm_cache)
    for needs in ({}, {"need_dx": False}, {"need_dw": False}, {"need_dx": False, "need_dw": False}):
        for got, right in zip(batchnorm.batchnorm_backward(dy, cache, **needs), wanted, strict=True):
            assert got is None or abs(got - right).max() < 1e-11
        dx, *gradients = batchnorm.batchnorm_backward(dy, cache, **needs)
        assert (dx is not None, gradients[0] is not None) == (needs.get("need_dx", True), needs.get("need_dw", True))
    (norm_alone, norm_alone_cache), (then_alone, then_alone_cache) = of_each
    np.testing.assert_allclose(then_alone(dy, then_alone_cache), dbetween, atol=1e-12)
    for got, right in zip(norm_alone(dbetween, norm_alone_cache), wanted, strict=True):
        np.testing.assert_allclose(got, right, atol=1e-11)


@pytest.mark.parametrize("large", [0, 10**9], ids=["a thread for each batch", "one after the other"])
def test_two_batches_in_one_array_have_statistics_of_their_own(large, small_pieces, monkeypatch, rng):
    monkeypatch.setattr(batchnorm, "WORTHWHILE", large)
    first, gamma, beta, *running = arrays_for((4, 3, 5, 6), rng)
    second = channels_last(3 + 2 * rng.standard_normal(first.shape))
    ours, theirs = ([r.copy() for r in running] for _ in range(2))
    both = channels_last(np.concatenate([first, second]))
    y, cache = batchnorm.batchnorm_forward(both, gamma, beta, *ours, slope=0.2, batches=2)
    dy = rng.standard_normal(y.shape)
    dx, dgamma, dbeta = batchnorm.batchnorm_backward(dy, cache)
    expected, gradients = [], []
    for x, dy_of_x in ((first, dy[:4]), (second, dy[4:])):
        between, norm_cache = ops.batchnorm_forward(x, gamma, beta, *theirs)
        out, then_cache = ops.leaky_relu_forward(between, negative_slope=0.2)
        expected.append(out)
        gradients.append(ops.batchnorm_backward(ops.leaky_relu_backward(dy_of_x, then_cache), norm_cache))
    np.testing.assert_allclose(y, np.concatenate(expected), atol=1e-12)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    for got, (a, b), join in zip((dx, dgamma, dbeta), zip(*gradients, strict=True), (1, 0, 0), strict=True):
        np.testing.assert_allclose(got, np.concatenate([a, b]) if join else a + b, atol=1e-11)


def test_batches_of_one_value_per_channel_are_refused(rng):
    x = rng.standard_normal((2, 3, 1, 1))
    with pytest.raises(UserError, match="more than one value per channel"):
        batchnorm.batchnorm_forward(x, *[np.ones(3)] * 4, batches=2)


# ------------------------------------------------------------------------------------------------ D on two batches

PAIRS = {"bce": (losses.BCE, (0.9, 0.0)), "mse": (losses.MSE, (1.0, -1.0)), "hinge": (losses.HINGE, (1.0, 0.0))}


def networks(size=16, width=3, dtype=np.float64):
    """Two equal discriminators, whose BatchNorm gains are not all alike."""
    d = dcgan.discriminator(image_size=size, channels=2, width=width, rng=np.random.default_rng(3), dtype=dtype)
    return d, copy.deepcopy(d)


@pytest.mark.parametrize("name", PAIRS)
def test_both_batches_in_one_pass_are_one_after_the_other(name, small_pieces, rng):
    loss, labels = PAIRS[name]
    ours, theirs = networks()
    real, fake = (channels_last(rng.uniform(-1, 1, (4, 2, 16, 16))) for _ in range(2))
    before = real.copy(), fake.copy()
    for network in (ours, theirs):
        for _, _, gradient in network.named_parameters():
            gradient[...] = 0.25  # gradients are added
    with dispatch.watch() as ran:
        values, logits = losses.discriminate(real, fake, ours, loss, labels, 0.5)
    assert ran[0] == "nanogan.fast.cpu.discriminator.discriminate"
    expected_values, expected_logits = losses.discriminate_by_the_book(real, fake, theirs, loss, labels, 0.5)
    np.testing.assert_allclose(values, expected_values, atol=1e-13)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-12)
    for (key, _, got), (_, _, wanted) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-12, err_msg=key)
    for key, buffer in ours.state_dict().items():
        np.testing.assert_allclose(buffer, theirs.state_dict()[key], atol=1e-12, err_msg=key)
    assert np.array_equal(real, before[0])
    assert np.array_equal(fake, before[1])


class Halved(layers.LeakyReLU):
    pass


def with_a_forward(d):
    d.layers[1].forward = lambda x, train=True: layers.LeakyReLU.forward(d.layers[1], x, train)
    return d


@pytest.mark.parametrize(
    "change",
    [
        lambda d: layers.Sequential(layers.Dropout(0.5), *d.layers),
        lambda d: layers.Sequential(Halved(0.5), *d.layers),
        with_a_forward,
        lambda d: layers.Sequential(*d.layers[:4], d.layers[3], *d.layers[4:]),
        lambda d: type("Own", (layers.Sequential,), {"forward": lambda self, x, train=True: (x, None)})(*d.layers),
        lambda d: type("Own", (layers.Layer,), {})(),
    ],
    ids=[
        "a layer that draws",
        "a subclass",
        "a replaced forward",
        "one BatchNorm twice",
        "its own forward",
        "no Sequential",
    ],
)
def test_what_is_left_to_the_book(change, rng):
    d, _ = networks()
    big = np.zeros((128, 2, 16, 16))
    assert discriminator.serves(big, big, d, losses.BCE, (1, 0), 1.0)
    assert not discriminator.serves(big, big, change(d), losses.BCE, (1, 0), 1.0)


def test_batches_that_differ_are_left_to_the_book():
    d, _ = networks()
    big = np.zeros((128, 2, 16, 16))
    for other in (big[:100], big.astype(np.float32)):
        assert not discriminator.serves(big, other, d, losses.BCE, (1, 0), 1.0)
    assert not discriminator.serves(big[:4], big[:4], d, losses.BCE, (1, 0), 1.0), "small"
    assert not discriminator.serves(*[big.astype(np.float16)] * 2, d, losses.BCE, (1, 0), 1.0)


@pytest.mark.parametrize("activation", [layers.ReLU(), layers.LeakyReLU(1.0), layers.LeakyReLU(0.0), None], ids=repr)
def test_what_follows_batchnorm_in_one_pass(activation, small_pieces, rng):
    rest = [activation] if activation else []
    ours = layers.Sequential(
        layers.Conv2d(2, 3, 3, dtype=np.float64, rng=rng), layers.BatchNorm2d(3, dtype=np.float64), *rest,
        layers.Conv2d(3, 1, 4, dtype=np.float64, rng=rng), layers.Flatten(),
    )  # fmt: skip
    theirs = copy.deepcopy(ours)
    real, fake = (channels_last(rng.uniform(-1, 1, (4, 2, 6, 6))) for _ in range(2))
    got = losses.discriminate(real, fake, ours, losses.BCE, (1, 0), 1.0)
    wanted = losses.discriminate_by_the_book(real, fake, theirs, losses.BCE, (1, 0), 1.0)
    np.testing.assert_allclose(got[1], wanted[1], atol=1e-12)
    for (key, _, ours_), (_, _, theirs_) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        np.testing.assert_allclose(ours_, theirs_, atol=1e-12, err_msg=key)


def test_a_slope_that_leaky_relu_refuses_is_refused_in_one_pass_too(small_pieces, rng):
    d = layers.Sequential(layers.Conv2d(2, 3, 6), layers.BatchNorm2d(3), layers.LeakyReLU(1.5), layers.Flatten())
    real = rng.uniform(-1, 1, (4, 2, 7, 7)).astype(np.float32)
    with pytest.raises(UserError, match="LeakyReLU expected a negative_slope from 0 to 1, got 1.5"):
        losses.discriminate(real, real, d, losses.BCE, (1, 0), 1.0)


def test_the_front_of_a_network_with_the_caches_of_all_of_it(small_pieces, rng):
    d = layers.Sequential(layers.BatchNorm2d(3, dtype=np.float64), layers.LeakyReLU(0.2), layers.Tanh())
    y, caches = d.forward(rng.standard_normal((4, 3, 5, 5)))
    dy = rng.standard_normal(y.shape)
    np.testing.assert_allclose(d[:1].backward(dy, caches), d[:1].backward(dy, caches[:1]), atol=1e-14)


def test_images_of_another_size_get_the_discriminators_sentence(small_pieces, rng):
    d, _ = networks()
    real = rng.uniform(-1, 1, (4, 2, 20, 20))
    with pytest.raises(UserError, match=r"the discriminator expected pictures of shape \(N, 2, 16, 16\)"):
        losses.discriminate(real, real, d, losses.BCE, (1, 0), 1.0)


def test_a_leaky_relu_may_write_over_its_dy(rng):
    x = channels_last(rng.standard_normal((3, 4, 5, 6)))
    y, cache = elementwise.leaky_relu_forward(x, negative_slope=0.2)
    dy = channels_last(rng.standard_normal(x.shape))
    expected = ops.leaky_relu_backward(dy, cache)
    assert elementwise.leaky_relu_backward(dy, cache, out=dy) is dy
    np.testing.assert_allclose(dy, expected, atol=1e-15)


# ------------------------------------------------------------------------------------------------------------ Adam


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(3000,), (40, 8, 3, 5)], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-6), (np.float64, 1e-14)])
def test_adam_without_temporaries_is_adam(shape, dtype, tolerance, weight_decay, rng):
    def draw():
        array = rng.standard_normal(shape).astype(dtype)
        return channels_last(array) if array.ndim == 4 else array

    parameter = draw()
    arrays = [[np.copy(parameter, order="K"), np.zeros_like(parameter), np.zeros_like(parameter)] for _ in range(2)]
    for step in range(1, 300):  # past two flushes
        gradient = draw()
        for update, (p, m, v) in zip((updates.adam_update, ops.adam_update), arrays, strict=True):
            update(p, gradient, m, v, step=step, lr=1e-2, betas=(0.5, 0.99), eps=1e-7, weight_decay=weight_decay)
    for got, wanted in zip(*arrays, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * abs(wanted).max())


def test_moments_of_a_dead_gradient_become_0_and_not_denormal():
    tiny = np.finfo(np.float32).tiny
    parameter, gradient = np.ones(4, np.float32), np.zeros(4, np.float32)
    m, v = np.array([tiny / 4, -tiny / 4, 1e-3, -1e-3], np.float32), np.array([tiny / 4, 1e-3, tiny / 4, 1], np.float32)
    others = [array.copy() for array in (parameter, m, v)]
    updates.adam_update(parameter, gradient, m, v, step=updates.FLUSH, lr=1e-3)
    ops.adam_update(others[0], gradient, *others[1:], step=updates.FLUSH, lr=1e-3)
    assert (m == 0).tolist() == [True, True, False, False]
    assert (v == 0).tolist() == [True, False, True, False]
    np.testing.assert_allclose(parameter, others[0], rtol=1e-6)
    m, v = np.full(1, tiny / 4, np.float32), np.full(1, tiny / 4, np.float32)
    updates.adam_update(np.ones(1, np.float32), np.zeros(1, np.float32), m, v, step=updates.FLUSH, lr=1e-3, eps=0.0)
    assert v[0] > 0, "without an eps they are what the parameter is divided by"


def test_adam_of_two_dtypes_is_left_to_the_book():
    arrays = [np.ones(updates.LEAST, np.float32) for _ in range(4)]
    assert updates.serves(*arrays, step=1, lr=1e-3)
    assert not updates.serves(*arrays[:3], arrays[3].astype(np.float64), step=1, lr=1e-3)


def test_a_networks_largest_array_decides_for_all(rng):
    network = layers.Sequential(layers.Linear(4, 4, rng=rng), layers.Linear(4, 9000, rng=rng))
    optimizer = Adam(network, lr=1e-3)
    with dispatch.watch() as ran:
        optimizer.step()
    assert ran == ["nanogan.fast.cpu.updates.adam_update"]
