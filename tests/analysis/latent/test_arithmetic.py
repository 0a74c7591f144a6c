"""Arithmetic on z: exact where the generator is linear, and rates that are known beforehand."""

import numpy as np
import pytest

from nanogan import backend
from nanogan.analysis.latent import arithmetic
from nanogan.errors import UserError
from nanogan.layers import Linear, Reshape, Sequential
from nanogan.training import sample

SIDE = 8
LATENT = SIDE * SIDE


def linear_generator(weight):
    """Pictures (N, 1, SIDE, SIDE) that are weight @ z."""
    linear = Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.params["weight"][...] = weight
    return Sequential(linear, Reshape(1, SIDE, SIDE))


def bright(pictures):
    """Attribute k is there where pixel k is above 0; there are five."""
    return backend.to_numpy(pictures).reshape(len(pictures), -1)[:, :5] > 0


def coins(rng, count, noise=0.0):
    """z whose first five numbers are 1 or -1, and whose others are noise."""
    z = noise * rng.standard_normal((count, LATENT)).astype(np.float32)
    z[:, :5] = rng.choice([-1, 1], (count, 5))
    return z


def test_pictures_of_a_linear_generator_add_up(device, rng):
    weight = rng.standard_normal((LATENT, 10)).astype(np.float32)
    g = linear_generator(weight).to(device)
    groups = [rng.standard_normal((n, 10)).astype(np.float32) for n in (3, 2, 4)]
    z = arithmetic.formula(*(backend.to_device(group, device) for group in groups))
    drawn = backend.to_numpy(sample(g, z[None])).reshape(-1)
    a, b, c = (group.astype(np.float64) @ weight.T.astype(np.float64) for group in groups)
    np.testing.assert_allclose(drawn, a.mean(axis=0) - b.mean(axis=0) + c.mean(axis=0), atol=1e-4)


def test_neighbours_surround_the_result(device, rng):
    z = backend.to_device(rng.standard_normal(200).astype(np.float32), device)
    nine = backend.to_numpy(arithmetic.with_neighbours(z, rng))
    z = backend.to_numpy(z)
    assert nine.shape == (9, 200)
    assert nine.dtype == np.float32
    np.testing.assert_array_equal(nine[4], z)
    steps = np.delete(nine, 4, axis=0) - z
    assert 0.24 < np.abs(steps).max() <= 0.25 + 1e-6
    assert steps.std() == pytest.approx(0.25 / np.sqrt(3), rel=0.05)  # a uniform distribution's
    assert len(np.unique(steps[:, 0])) == 8


def test_a_random_vector_has_the_length_and_another_direction(device, rng):
    like = backend.to_device(rng.standard_normal(1000).astype(np.float32), device)
    got, other = (backend.to_numpy(arithmetic.random_vector(rng, like)) for _ in range(2))
    like = backend.to_numpy(like)
    assert np.linalg.norm(got) == pytest.approx(np.linalg.norm(like), rel=1e-5)
    for one, two in ((got, like), (got, other)):
        assert abs(one @ two) < 0.15 * np.linalg.norm(one) * np.linalg.norm(two)  # 0.03 is one standard deviation


def test_turning_by_hand(device):
    z, axis = (backend.to_device(np.array(x, np.float32), device) for x in ([[1, 2], [3, 4]], [10, 0]))
    ways = backend.to_numpy(arithmetic.turned(z, axis, [-1, 0, 0.5]))
    np.testing.assert_allclose(ways, [[[-9, 2], [1, 2], [6, 2]], [[-7, 4], [3, 4], [8, 4]]])


def test_concepts_show_what_they_should(rng):
    values = rng.integers(0, 2, (300, 4)) == 1
    starts = set()
    for _ in range(20):
        a, b, c = arithmetic.concepts(values, 2, 0, count=5, rng=rng)
        assert len(set(a)) == len(set(b)) == len(set(c)) == 5
        assert values[a, 2].all()
        assert not values[b, 2].any()
        assert not values[c, 2].any()
        start = values[a[0], 0]
        starts.add(bool(start))
        assert (values[a, 0] == start).all()
        assert (values[b, 0] == start).all()
        assert (values[c, 0] != start).all()
    assert starts == {True, False}
    values[values[:, 0], 2] = True
    assert arithmetic.concepts(values, 2, 0, count=5, rng=rng) is None


def test_rates_where_every_attribute_has_a_direction_of_its_own(device, rng):
    """a - b is 2 along the gained attribute when means are of many; a random vector of that length hardly reaches 1."""
    g = linear_generator(np.eye(LATENT)).to(device)
    z = coins(rng, 4000, noise=0.1)
    values = z[:, :5] > 0
    found = arithmetic.rates(
        g, bright, backend.to_device(z, device), values, 1, count=200, trials=12, rng=rng, noise=0.01
    )
    assert found["success"] == 1.0
    assert found["random"] < 0.1
    assert found["before"] == 0.0


def test_kept_counts_the_attributes_that_stay(rng):
    """The other attributes of c are even, so mean(c) leaves them near 0, where a small step along a - b turns them."""
    g = linear_generator(np.eye(LATENT))
    z = coins(rng, 2000)
    z[:, [3, 4]] = [5, -5]  # these stay whatever the step
    values = z[:, :5] > 0
    values[:, [3, 4]] = rng.integers(0, 2, (2000, 2))  # so that they can be given
    found = arithmetic.rates(
        g, lambda x: bright(x)[:, [1, 3, 4]], z, values[:, [1, 3, 4]], 0, count=20, trials=6, rng=rng
    )
    assert found["kept"] == 1.0
    assert found["random_kept"] == 1.0
    found = arithmetic.rates(g, bright, z, z[:, :5] > 0, 1, count=1, trials=24, rng=rng)
    assert 0 < found["kept"] < 0.9
    assert arithmetic.rates(g, bright, z, z[:, :5] > 9, 1, rng=rng)["success"] is None


def test_rates_of_a_known_vector_in_the_random_ones_place(monkeypatch, rng):
    """It gains the attribute always, and turns another one that was never there."""
    vector = np.zeros(LATENT, np.float32)
    vector[[1, 4]] = 9
    monkeypatch.setattr(arithmetic, "random_vector", lambda rng, like: vector)
    z = coins(rng, 2000)
    z[:, 4] = -5
    found = arithmetic.rates(linear_generator(np.eye(LATENT)), bright, z, z[:, :5] > 0, 1, count=20, trials=9, rng=rng)
    assert found["random"] == 1.0
    assert found["before"] == found["random_kept"] == 0.0
    assert found["kept"] > 0


def test_turn_rates_where_the_axis_is_known(device, rng):
    g = linear_generator(np.eye(LATENT)).to(device)
    z = coins(rng, 50, noise=0.1)
    axis = np.zeros(LATENT, np.float32)
    axis[2] = 2
    there = backend.to_device(z, device), backend.to_device(axis, device)
    assert arithmetic.turn_rates(g, bright, *there, 2, rng=rng) == {"turned": 1.0, "random": 0.0}
    assert arithmetic.turn_rates(g, bright, there[0], -there[1], 2, rng=rng)["turned"] == 0.0


def test_the_numbered_grid(rng):
    pictures = rng.uniform(-1, 1, (12, 3, 16, 16)).astype(np.float32)
    sheet = arithmetic.numbered(pictures, columns=5)
    assert sheet.shape == (2 + 3 * (32 + 13 + 2), 2 + 5 * 34, 3)
    pixels = np.rint((pictures[6] + 1) * 127.5).transpose(1, 2, 0)
    np.testing.assert_array_equal(sheet[49:81:2, 36:68:2], pixels)  # number 6: second row, second column
    labels = [
        sheet[34 + 47 * row : 47 + 47 * row, 2 + 34 * column : 34 + 34 * column]
        for row in (0, 1)
        for column in range(5)
    ]
    assert all(label.max() > 128 for label in labels)
    assert len({label.tobytes() for label in labels}) == 10


def test_mistakes_are_told(rng):
    z = np.zeros((3, 4))
    with pytest.raises(UserError, match="the z of one sample or more"):
        arithmetic.formula(z, z[:0], z)
