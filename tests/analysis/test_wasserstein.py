"""Wasserstein games on known densities: what is played is what is said, and a short game approaches its goal."""

import numpy as np
import pytest

from nanogan.analysis import theory, wasserstein
from nanogan.errors import UserError
from nanogan.games import wgan, wgan_gp


def test_the_grid_has_its_gaussians_where_the_paper_has_them(rng):
    mixture = wasserstein.grid(5, spacing=2.0, std=0.1)
    assert sorted({round(float(x), 9) for x in mixture.means.ravel()}) == [-4, -2, 0, 2, 4]
    assert len({tuple(mean) for mean in mixture.means.tolist()}) == 25
    found, near = theory.modes_found(mixture.sample(rng, 5000), mixture)
    assert found == 25
    assert near == pytest.approx(1 - np.exp(-4.5), abs=0.01)


SMALL = {"steps": 6, "every": 4, "width": 8, "batch_size": 16, "count": 20}


@pytest.mark.parametrize("bound", wasserstein.BOUNDS)
def test_a_seed_gives_the_same_game_and_moments_come_when_they_should(bound):
    one, two = (list(wasserstein.play(theory.ring(8), bound=bound, seed=3, **SMALL)) for _ in range(2))
    assert [moment.step for moment in one] == [4, 6]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.points, b.points)
        assert a.points.shape == (20, 2)
        assert a.points.dtype == np.float32
        assert (a.slope is None) == (bound == "clip")
    assert (one[0].points != one[1].points).any()
    (other,) = wasserstein.play(theory.ring(8), bound=bound, seed=4, **SMALL | {"every": 6})
    assert (other.points != one[1].points).any()


@pytest.mark.parametrize("bound", wasserstein.BOUNDS)
def test_the_critic_is_updated_n_critic_times_with_the_options_given(bound, monkeypatch):
    calls = []
    module = wgan if bound == "clip" else wgan_gp

    def noted(d, opt_d, real, fake, *e, step=module.critic_step, **options):
        result = step(d, opt_d, real, fake, *e, **options)
        largest = max(float(abs(parameter).max()) for _, parameter, _ in d.named_parameters())
        calls.append((opt_d.lr, options, largest, [array.shape for array in (real, fake, *e)]))
        return result

    monkeypatch.setattr(module, "critic_step", noted)
    options = {"n_critic": 3, "lr": 0.02, "penalty": 0.7, "clip": 0.03}
    list(wasserstein.play(theory.ring(8), bound=bound, **SMALL | options))
    assert len(calls) == 3 * SMALL["steps"]
    assert [lr for lr, *_ in calls[::3]] == pytest.approx([0.02 * (6 - i) / 6 for i in range(6)]), "to 0 at the end"
    for _, given, largest, shapes in calls:
        assert shapes == [(16, 2), (16, 2), (16, 1)][: len(shapes)]
        assert given == ({"weight": 0.7} if bound == "penalty" else {})
        assert (largest <= np.float32(0.03)) == (bound == "clip")


def test_the_penalty_finds_two_modes_in_seconds():
    """And the slope that it asks for."""
    pair = theory.Mixture(np.array([[-1.0, 0], [1, 0]]), np.array([0.3, 0.3]), np.array([0.5, 0.5]))
    *_, last = wasserstein.play(pair, bound="penalty", steps=150, every=150, width=24, batch_size=64, penalty=1.0)
    found, near = theory.modes_found(last.points, pair)
    assert found == 2
    assert near > 0.7
    assert last.slope == pytest.approx(1, abs=0.25)


def test_another_bound_is_refused():
    with pytest.raises(UserError, match="bound expected one of penalty, clip, got 'norm'"):
        next(wasserstein.play(theory.ring(8), bound="norm", steps=1, every=1))
