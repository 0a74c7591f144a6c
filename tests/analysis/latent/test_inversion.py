"""Inversion: z of small known generators, by hand and by the definition."""

import numpy as np
import pytest

from nanogan.analysis.latent import inversion
from nanogan.analysis.networks import mean_squares
from nanogan.backend import to_numpy
from nanogan.errors import UserError
from nanogan.layers import Flatten, LeakyReLU, Linear, Reshape, Sequential
from nanogan.models import dcgan
from tests.helpers import elementwise_gradient


def linear_generator(rng, latent=5, dtype=np.float32):
    """G(z) = W z + b, W's columns orthonormal, as pictures of 3 x 4 pixels."""
    g = Sequential(Linear(latent, 12, dtype=dtype), Reshape(1, 3, 4))
    g.latent = latent
    g[0].params["weight"][...] = np.linalg.qr(rng.standard_normal((12, latent)))[0]
    return g


def test_z_of_a_linear_generator_is_found_on_every_device(device, rng):
    g = linear_generator(rng).to(device)
    z = rng.standard_normal((6, 5)).astype(np.float32)
    weight, bias = (np.asarray(to_numpy(g[0].params[name])) for name in ("weight", "bias"))
    x = (z @ weight.T + bias).reshape(6, 1, 3, 4)
    xp = g.array_module
    found = inversion.invert(g, xp.asarray(x), steps=400, restarts=2, rng=rng)
    assert found.z.dtype == np.float32
    np.testing.assert_allclose(found.z, z, atol=1e-3)
    np.testing.assert_allclose(found.pictures, x, atol=1e-3)
    assert found.errors.shape == found.start_errors.shape == found.spread.shape == (6,)
    assert (found.errors < 1e-6).all()
    assert (found.start_errors > 1e-2).all()


def test_what_a_generator_cannot_draw_is_drawn_as_its_nearest_picture(rng):
    """The nearest point of a plane: least squares."""
    g = linear_generator(rng, dtype=np.float64)
    weight, bias = g[0].params["weight"], g[0].params["bias"]
    x = rng.standard_normal((3, 1, 3, 4))
    z, _, _, _ = np.linalg.lstsq(weight, (x.reshape(3, 12) - bias).T, rcond=None)
    found = inversion.invert(g, x, steps=400, restarts=1, rng=rng)
    np.testing.assert_allclose(found.z, z.T, atol=1e-3)
    left = x.reshape(3, 12) - bias - z.T @ weight.T
    np.testing.assert_allclose(found.errors, (left**2).mean(axis=1), rtol=1e-3)


def test_a_prior_draws_z_towards_0_as_ridge_regression_does(rng):
    """Minimum of |W z - x|^2 / 12 + prior |z|^2 / 5, W orthonormal: z = W'x / (1 + 12/5 prior)."""
    g = linear_generator(rng, dtype=np.float64)
    weight = g[0].params["weight"]
    g[0].params["bias"][...] = 0
    x = rng.standard_normal((2, 1, 3, 4))
    found = inversion.invert(g, x, steps=400, restarts=1, prior=0.5, rng=rng)
    np.testing.assert_allclose(found.z, x.reshape(2, 12) @ weight / (1 + 2.4 * 0.5), atol=1e-3)


def test_features_of_a_discriminator_join_in(rng):
    """F(x) = A x: the minimum of |Wz - x|^2 / 12 + w |A (Wz - x)|^2 / 4 solves a linear system."""
    g = linear_generator(rng, dtype=np.float64)
    weight, bias = g[0].params["weight"], g[0].params["bias"]
    d = Sequential(Flatten(), Linear(12, 4, dtype=np.float64), LeakyReLU(), Linear(4, 1, dtype=np.float64))
    A = d[1].params["weight"]
    x = rng.standard_normal((2, 1, 3, 4))
    found = inversion.invert(g, x, steps=600, restarts=1, d=d, layer=1, feature_weight=3.0, rng=rng)
    M = np.eye(12) / 12 + 3.0 * A.T @ A / 4
    z = np.linalg.solve(weight.T @ M @ weight, weight.T @ M @ (x.reshape(2, 12) - bias).T).T
    np.testing.assert_allclose(found.z, z, atol=1e-3)
    with pytest.raises(UserError, match="features expected a layer from 0 to 3, got 4"):
        inversion.invert(g, x, d=d, layer=4)


def test_a_dcgan_draws_its_own_samples_again_and_stays_as_it_was(rng):
    g = dcgan.generator(image_size=8, channels=1, latent=6, width=8, rng=rng)
    for _, layer in g.named_layers():
        if "running_var" in layer.buffers:  # as if trained: pictures with contrast, BatchNorm with a past
            layer.buffers["running_var"][...] = rng.uniform(1e-3, 4e-3, layer.buffers["running_var"].shape)
            layer.buffers["running_mean"][...] = rng.normal(0, 0.01, layer.buffers["running_mean"].shape)
    before = {name: array.copy() for name, array in g.state_dict().items()}
    z = rng.standard_normal((4, 6), dtype=np.float32)
    x, _ = g.forward(z, train=False)
    found = inversion.invert(g, x, steps=300, restarts=6, rng=rng)
    assert found.errors.max() < 1e-4 * found.start_errors.min()
    np.testing.assert_allclose(found.pictures, x, atol=1e-2)
    np.testing.assert_allclose(found.z, z, atol=0.05)
    for name, array in g.state_dict().items():
        assert array.tobytes() == before[name].tobytes(), name
    assert all(not gradient.any() for _, _, gradient in g.named_parameters())


def test_restarts_are_apart_and_the_best_one_is_kept(rng):
    """G(z) = max(z, 0): from z < 0 no slope leads to the picture, from z > 0 one does."""
    g = Sequential(Linear(1, 1), LeakyReLU(negative_slope=0.0), Reshape(1, 1, 1))
    g.latent = 1
    g[0].params["weight"][...], g[0].params["bias"][...] = 1, 0
    x = np.full((40, 1, 1, 1), 2, np.float32)
    one = inversion.invert(g, x, steps=200, restarts=1, rng=np.random.default_rng(3))
    assert 10 < (one.errors > 3.9).sum() < 30  # those that began at z < 0 have no slope to follow
    assert (one.errors < 1e-3).sum() == 40 - (one.errors > 3.9).sum()
    many = inversion.invert(g, x, steps=200, restarts=12, rng=np.random.default_rng(3))
    assert (many.errors < 1e-3).all()
    assert (many.spread > 3.9).sum() > 35
    np.testing.assert_allclose(many.z, 2, atol=0.01)


def test_no_picture_feels_the_others(rng):
    g = linear_generator(rng, dtype=np.float64)
    x = rng.standard_normal((5, 1, 3, 4))

    def loss():
        return mean_squares(x).sum()

    np.testing.assert_allclose(inversion._slope(x), elementwise_gradient(loss, x), atol=1e-8)
    together = inversion.invert(g, x, steps=20, restarts=1, rng=np.random.default_rng(1))
    alone = inversion.invert(g, x[:1], steps=20, restarts=1, rng=np.random.default_rng(1))
    np.testing.assert_allclose(alone.z, together.z[:1], rtol=1e-9)


def test_ratio_and_its_interval():
    rng = np.random.default_rng(0)
    value, (low, high) = inversion.ratio([1.0, 3.0], [4.0, 4.0], rng=rng)
    assert value == 0.5
    assert (low, high) == (0.25, 0.75)  # twice the first, twice the last: each a quarter of all draws
    spread = np.resize([9.0, 11.0], 400)  # standard deviation 1, of the mean 1/20
    _, (low, high) = inversion.ratio(spread, [2.0], rng=rng, draws=20_000)
    np.testing.assert_allclose([low, high], [5 - 1.96 / 40, 5 + 1.96 / 40], atol=0.004)


def test_a_mistake_gets_one_sentence(rng):
    g = linear_generator(rng)
    x = np.zeros((1, 1, 3, 4), np.float32)
    with pytest.raises(UserError, match="at least one step, restart and picture, got 0, 4 and 1"):
        inversion.invert(g, x, steps=0)
    with pytest.raises(UserError, match="got 300, 4 and 0"):
        inversion.invert(g, x[:0])
