"""The theory on known densities, against integrals and closed forms."""

import numpy as np
import pytest

from nanogan.analysis import theory
from nanogan.errors import UserError
from nanogan.optim import Adam


def line(mean, std=1.0):
    return theory.Mixture(np.array([[mean]]), np.array([std]), np.ones(1))


def test_the_best_discriminator_of_two_gaussians_is_a_sigmoid():
    x = np.linspace(-4, 4, 33)[:, None]
    mean, std = 0.7, 1.3
    # log p - log q is (x^2 - (x - 2 m)^2) / 2 s^2 = 2 m (x - m) / s^2 for means 2 m and 0
    best = theory.optimal_discriminator(line(2 * mean, std).density(x), line(0.0, std).density(x))
    assert best == pytest.approx(1 / (1 + np.exp(-2 * mean * (x[:, 0] - mean) / std**2)), abs=1e-12)
    assert theory.optimal_discriminator(np.array([0.0, 2.0, 0]), np.array([0.0, 0, 5])).tolist() == [0.5, 1, 0]


def test_jensen_shannon_by_hand_and_at_its_ends():
    assert theory.jensen_shannon([0.5, 0.5, 0], [0.5, 0.5, 0]) == 0
    assert theory.jensen_shannon([1, 0], [0, 1]) == pytest.approx(np.log(2))
    p, q = [0.5, 0.5], [1.0, 0.0]  # m = 3/4, 1/4
    expected = (0.5 * np.log(2 / 3) + 0.5 * np.log(2)) / 2 + np.log(4 / 3) / 2
    assert theory.jensen_shannon(p, q) == theory.jensen_shannon(q, p) == pytest.approx(expected)
    with pytest.raises(UserError, match="that each sum to 1"):
        theory.jensen_shannon([0.5, 0.1], [0.5, 0.5])


def test_a_mixtures_density_and_its_points_belong_together(rng):
    mixture = theory.Mixture(np.array([[-1.0, 0], [1, 0.5]]), np.array([0.3, 0.6]), np.array([0.25, 0.75]))
    side = np.linspace(-5, 5, 201)
    x, y = np.meshgrid(side, side)
    density = mixture.density(np.stack([x.ravel(), y.ravel()], axis=1)) * (side[1] - side[0]) ** 2
    assert density.sum() == pytest.approx(1, abs=1e-6)
    points = mixture.sample(rng, 40_000)
    assert points.dtype == np.float32
    assert points.mean(axis=0) == pytest.approx([0.5, 0.375], abs=0.02)
    assert points[:, 1].var() == pytest.approx(0.25 * 0.09 + 0.75 * 0.36 + 0.25 * 0.75 * 0.25, abs=0.01)
    left = density[x.ravel() < 0].sum()
    assert (points[:, 0] < 0).mean() == pytest.approx(left, abs=0.02)


def test_modes_are_counted_as_planted(rng):
    ring = theory.ring(8, radius=2, std=0.1)
    assert np.hypot(*ring.means.T) == pytest.approx(np.full(8, 2.0))
    everywhere = ring.sample(rng, 4000)
    found, near = theory.modes_found(everywhere, ring)
    assert found == 8
    assert near == pytest.approx(1 - np.exp(-4.5), abs=0.01)  # of a Gaussian in the plane within 3 deviations
    three = np.repeat(ring.means[[1, 3, 4]], 100, axis=0)
    strays = np.concatenate([ring.means[[6]], np.zeros((99, 2))])  # one point is no mode, and the middle is nowhere
    assert theory.modes_found(np.concatenate([three, strays]), ring) == (3, 301 / 400)


def test_a_histogram_keeps_what_is_outside():
    assert theory.histogram(np.array([[-9.0], [0.1], [0.2], [9]]), np.array([-1.0, 0, 1])).tolist() == [0.25, 0.75]


def test_a_trained_discriminator_is_the_best_one_and_its_loss_tells_jsd():
    p, q = line(-0.6, 0.8), line(0.6, 0.8)
    x = np.linspace(-2, 2, 41)[:, None]
    learned, loss = theory.fit_discriminator(p, q, steps=400, look_at=x, width=32)
    assert np.abs(learned - 1 / (1 + np.exp(1.2 * x[:, 0] / 0.64))).mean() < 0.03
    fine = np.linspace(-8, 8, 4001)
    a, b = (np.exp(-((fine - mean) ** 2) / 1.28) / np.sqrt(2 * np.pi * 0.64) for mean in (-0.6, 0.6))
    expected = -(a * np.log(a / (a + b)) + b * np.log(b / (a + b))).sum() * (fine[1] - fine[0])
    assert loss == pytest.approx(expected, abs=0.03)


def test_the_two_losses_slopes_in_g_are_those_of_finite_differences(rng):
    g = theory.perceptron(2, 5, 1, rng=rng).astype(np.float64)
    d = theory.perceptron(1, 5, 1, rng=rng).astype(np.float64)
    z = rng.standard_normal((7, 2))

    def losses():
        logits = d.forward(g.forward(z)[0])[0]
        believed = 1 / (1 + np.exp(-logits))
        return {False: -np.log(believed).mean(), True: np.log(1 - believed).mean()}

    for saturating in (False, True):
        theory.generator_backward(g, d, z, saturating=saturating)
        gradients = [(parameter, gradient.copy()) for _, parameter, gradient in g.named_parameters()]
        norm = np.sqrt(sum((gradient**2).sum() for _, gradient in gradients))
        assert theory.gradient_norm(g) == pytest.approx(norm)
        for parameter, gradient in gradients:
            direction, start = rng.standard_normal(parameter.shape), parameter.copy()
            parameter[...] = start + 1e-6 * direction
            above = losses()[saturating]
            parameter[...] = start - 1e-6 * direction
            slope = (above - losses()[saturating]) / 2e-6
            parameter[...] = start
            assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-9)
        assert all((gradient == 0).all() for _, _, gradient in d.named_parameters())


def test_while_d_wins_the_saturating_slope_vanishes_and_the_other_does_not():
    steps, saturating, other = theory.slopes_while_d_wins(line(4.0, 0.5), steps=500, every=250, width=32)
    assert steps.tolist() == [0, 250, 500]
    assert saturating[2] < saturating[0]
    assert other[2] > 50 * saturating[2]
    assert other[2] > other[0]


def test_a_game_is_the_same_each_time_and_ends_nearer_than_it_began():
    edges = np.linspace(-4, 4, 41)
    middles = (edges[1:] + edges[:-1])[:, None] / 2
    p = line(1.5, 0.5).density(middles)

    def distance(moment):
        return theory.jensen_shannon(p / p.sum(), theory.histogram(moment.points, edges))

    options = {"steps": 150, "every": 60, "look_at": middles, "count": 500, "width": 16, "d_steps": 2}
    moments, again = (list(theory.play(line(1.5, 0.5), **options)) for _ in range(2))
    assert [moment.step for moment in moments] == [0, 60, 120, 150]
    assert (moments[-1].points == again[-1].points).all()
    assert distance(moments[-1]) < 0.3 * distance(moments[0])
    other = next(theory.play(line(1.5, 0.5), saturating=True, **options))
    assert (other.points == moments[0].points).all()  # the same start


def test_one_step_of_d_lowers_its_loss_on_the_same_points(rng):
    d = theory.perceptron(2, 8, 1, rng=rng)
    real, fake = rng.standard_normal((2, 30, 2)).astype(np.float32)
    optimizer = Adam(d, lr=1e-2)
    before = theory.discriminator_step(d, optimizer, real, fake)
    assert before == pytest.approx(2 * np.log(2), abs=0.5)
    for _ in range(30):
        after = theory.discriminator_step(d, optimizer, real, fake)
    assert after < before
    believed = [1 / (1 + np.exp(-d.forward(points)[0])) for points in (real, fake)]
    assert believed[0].mean() > believed[1].mean()


def test_pictures_show_where_the_points_are():
    edges = np.linspace(-1, 1, 11)
    middles = (edges[1:] + edges[:-1])[:, None] / 2
    moment = theory.Moment(3, np.array([[0.5, 0.0]]), np.full(10, 0.5), 1.0)
    plane = theory.draw_plane(moment, theory.ring(4, radius=0.5, std=0.01), "here", reach=1.0)
    red = (plane == [0xD9, 0x5F, 0x02]).all(axis=2)
    red[:30] = False  # the legend
    rows, columns = np.nonzero(red)
    assert (rows.mean(), columns.mean()) == pytest.approx((theory.SIDE / 2, theory.SIDE * 0.75), abs=2)
    far = moment._replace(points=np.array([[1e30, np.inf]]))
    assert theory.draw_plane(far, theory.ring(4), "far").shape == (theory.SIDE, theory.SIDE, 3)
    assert theory.draw_line(moment, line(0.0), edges).shape == (theory.SIDE, theory.SIDE, 3)
    assert middles.shape == (10, 1)
