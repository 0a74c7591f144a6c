"""Guided backpropagation by hand, against finite differences, and where planted patterns are found."""

import numpy as np
import pytest

from nanogan.analysis.inside import guided
from nanogan.analysis.networks import pictures_for
from nanogan.backend import to_numpy
from nanogan.errors import UserError
from nanogan.layers import BatchNorm2d, Conv2d, LeakyReLU, MaxPool2d, ReLU, Sequential
from nanogan.models import dcgan
from tests.helpers import elementwise_gradient


def two_layers(activation, first, second):
    """1x1 convolutions, 1 -> 3 -> 1 channels, without bias: y = second . activation(first * x) at every pixel."""
    network = Sequential(Conv2d(1, 3, kernel_size=1, bias=False), activation, Conv2d(3, 1, kernel_size=1, bias=False))
    network[0].params["weight"][...] = np.array(first, np.float32).reshape(3, 1, 1, 1)
    network[2].params["weight"][...] = np.array(second, np.float32).reshape(1, 3, 1, 1)
    return network


@pytest.mark.parametrize(
    ("rule", "activation", "expected"),
    [
        # x = 2, first = (1, -1, 3): activations on, off, on. second = (5, 7, -2): gradients +, +, -.
        ("guided", ReLU(), 5 * 1),  # the second is off, the third speaks against
        ("guided", LeakyReLU(negative_slope=0.5), 5 * 1),  # what is off passes nothing, not half
        ("gradient", ReLU(), 5 * 1 - 2 * 3),
        ("gradient", LeakyReLU(negative_slope=0.5), 5 * 1 + 0.5 * 7 * -1 - 2 * 3),
        ("gradient_x_input", LeakyReLU(negative_slope=0.5), 2 * (5 * 1 + 0.5 * 7 * -1 - 2 * 3)),
    ],
)
def test_the_rules_on_two_layers_by_hand(device, rule, activation, expected):
    network = two_layers(activation, (1, -1, 3), (5, 7, -2)).to(device)
    xp = network.array_module
    x = xp.asarray(np.full((1, 1, 2, 2), 2, np.float32))
    result = to_numpy(guided.explain(network, 2, x, features=[0], positions=[(1, 0)], rule=rule))
    np.testing.assert_allclose(result, np.array([[[[0, 0], [expected, 0]]]]), rtol=1e-6)


def test_the_gradient_of_a_response_against_finite_differences(rng):
    d = dcgan.discriminator(image_size=16, channels=2, width=3, rng=rng, dtype=np.float64)
    d[3].buffers["running_mean"][...] = rng.normal(0, 0.1, 6)
    x = rng.uniform(-1, 1, (2, 2, 16, 16))
    features, positions = [4, 1], [(3, 0), (1, 2)]
    result = guided.explain(d, 2, x, features=features, positions=positions, rule="gradient")

    def responses():
        y, _ = d[:3].forward(x, train=False)
        return sum(y[n, f, r, c] for n, (f, (r, c)) in enumerate(zip(features, positions, strict=True)))

    np.testing.assert_allclose(result, elementwise_gradient(responses, x), atol=1e-7)
    np.testing.assert_array_equal(
        guided.explain(d, 2, x, features=features, positions=positions, rule="gradient_x_input"), x * result
    )
    assert all(not gradient.any() for _, _, gradient in d.named_parameters())


def test_planted_patterns_are_the_strongest_and_are_where_they_were_put(device, rng):
    """A convolution whose feature 1 is a cross: of 30 pictures, three have one, of different contrast."""
    d = Sequential(Conv2d(1, 2, kernel_size=3, stride=2, padding=1)).to(device)
    cross = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    xp = d.array_module
    d[0].params["weight"][1, 0] = xp.asarray((2 * cross - 1).astype(np.float32))
    pictures = rng.integers(0, 60, (30, 9, 9, 1), dtype=np.uint8)
    planted = {21: ((2, 1), 255), 4: ((1, 3), 220), 13: ((3, 3), 180)}  # picture: position of the output, contrast
    for i, ((row, column), level) in planted.items():
        for r, c in np.argwhere(cross) - 1 + (2 * row, 2 * column):
            pictures[i, r, c] = level
    _, indices, positions = guided.strongest(d, 0, pictures, features=[1], count=3, batch_size=7)
    assert indices.tolist() == [[21, 4, 13]]
    assert positions.tolist() == [[[2, 1], [1, 3], [3, 3]]]
    values, every, where = guided.strongest(d, 0, pictures, features=[0, 1], count=30, batch_size=11)
    y = to_numpy(d.forward(pictures_for(d, pictures), train=False)[0])
    for f in range(2):
        assert sorted(every[f]) == list(range(30))
        expected = [y[n, f].max() for n in every[f]]
        np.testing.assert_allclose(values[f], expected, rtol=1e-6)
        assert expected == sorted(expected, reverse=True)
        for value, n, (r, c) in zip(values[f], every[f], where[f], strict=True):
            assert y[n, f, r, c] == np.float32(value)


def test_a_receptive_field_is_where_the_gradient_is_not_zero(rng):
    d = dcgan.discriminator(image_size=32, channels=1, width=4, rng=rng, dtype=np.float64)
    x = rng.uniform(-1, 1, (1, 1, 32, 32))
    for layer, (row, column) in {0: (7, 5), 2: (3, 4), 5: (2, 1), 8: (0, 0)}.items():
        size, step, start = guided.receptive_field(d, layer)
        seen = guided.explain(d, layer, x, features=[0], positions=[(row, column)], rule="gradient")[0, 0] != 0
        expected = np.zeros((32, 32), bool)
        (top, left), (bottom, right) = ((start + step * (row, column)) + each for each in (0, size))
        expected[max(0, top) : bottom, max(0, left) : right] = True
        np.testing.assert_array_equal(seen, expected, str(layer))
    pooled = Sequential(Conv2d(1, 2, kernel_size=3), MaxPool2d(kernel_size=2))
    with pytest.raises(UserError, match="elementwise layers, got MaxPool2d"):
        guided.receptive_field(pooled, 1)


def test_crops_are_cut_at_the_field_and_moved_inside_the_picture():
    picture = np.arange(36).reshape(1, 6, 6, 1)
    field = np.array([3, 2]), np.array([2, 2]), np.array([-1, 0])
    cut = guided.crops(picture.repeat(3, axis=0), [(1, 1), (0, 0), (3, 9)], field)
    assert cut[:, :, :, 0].tolist() == [
        [[8, 9], [14, 15], [20, 21]],  # rows 1-3, columns 2-3
        [[0, 1], [6, 7], [12, 13]],  # rows -1 to 1 are moved to 0-2
        [[22, 23], [28, 29], [34, 35]],  # beyond the lower and right border: the last ones
    ]
    large = np.array([9, 9]), np.array([1, 1]), np.array([0, 0])
    assert guided.crops(picture, [(0, 0)], large).shape == (1, 6, 6, 1)


def test_numbers_of_maps():
    a = np.array([[1.0, 2, 3], [1, 1, 1], [0, 1, 0]])
    b = np.array([[-2.0, -4, -6], [1, 2, 3], [0, 1, 1]])
    np.testing.assert_allclose(guided.correlation(a, b), [-1, 0, 0.5])  # 0.5: covariance 1/9, variances 2/9
    one, other = np.array([1.0, 0, 0, 0]), np.array([0.0, 1, 0, 0])  # correlation -1/3
    same, between = guided.agreement(np.array([[one, one, one], [other, other, -other]]))
    assert same == pytest.approx((3 + 1 - 1 - 1) / 6)
    assert between == pytest.approx((-6 + 3) / 3 / 9)
    stripes = np.tile([1.0, -1.0], (1, 4, 2)).reshape(1, 4, 4, 1)  # alike downwards, opposite to the right
    assert guided.smoothness(stripes) == pytest.approx(0)
    assert guided.smoothness(stripes.cumsum(axis=2).cumsum(axis=1)) > 0
    np.testing.assert_array_equal(
        guided.shades(np.array([[2.0, -4], [0, 0]]).reshape(2, 1, 2, 1)).ravel(), [0.5, -1, 0, 0]
    )


def test_a_mistake_gets_one_sentence(rng):
    d = Sequential(Conv2d(1, 2, kernel_size=3), BatchNorm2d(2), ReLU(), Conv2d(2, 4, kernel_size=3))
    pictures = np.zeros((3, 8, 8, 1), np.uint8)
    x = np.zeros((1, 1, 8, 8), np.float32)
    with pytest.raises(UserError, match="layer 1 is no convolution: use one of 0, 3"):
        guided.strongest(d, 1, pictures, features=[0])
    with pytest.raises(UserError, match=r"has features 0 to 1, got \[0, 2\]"):
        guided.strongest(d, 0, pictures, features=[0, 2])
    with pytest.raises(UserError, match="strongest 8 responses were asked for, but there are 3 pictures"):
        guided.strongest(d, 0, pictures, features=[0])
    with pytest.raises(UserError, match="unknown rule 'deconvnet': use one of guided, gradient, gradient_x_input"):
        guided.explain(d, 0, x, features=[0], positions=[(0, 0)], rule="deconvnet")
