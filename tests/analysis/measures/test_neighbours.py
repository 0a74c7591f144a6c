"""Planted neighbours and planted copies are found, and nothing else; distances by the definition."""

import numpy as np
import pytest

from nanogan.analysis.measures import neighbours
from nanogan.backend import to_device, to_numpy
from nanogan.data import PictureFolder
from nanogan.errors import UserError
from nanogan.images import save_png
from nanogan.models import dcgan


@pytest.fixture
def pictures(rng):
    return rng.integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)


def shifted_levels(picture, levels):
    """The picture with every pixel changed by ``levels``, up or down so that it stays in range."""
    return np.where(picture < 128, picture + levels, picture - levels).astype(np.uint8)


def test_planted_neighbours_come_first_with_their_distances(pictures):
    queries = np.stack([pictures[150], shifted_levels(pictures[3], 5), pictures[77]])
    pictures[10] = shifted_levels(pictures[77], 2)
    pictures[190] = shifted_levels(pictures[150], 9)
    indices, distances = neighbours.nearest(queries, pictures, count=2, batch_size=60)
    assert indices[:, 0].tolist() == [150, 3, 77]
    np.testing.assert_array_equal(distances[:, 0], [0, 5, 0])
    assert indices[[0, 2], 1].tolist() == [190, 10]
    np.testing.assert_array_equal(distances[[0, 2], 1], [9, 2])


def test_a_copy_of_a_large_picture_is_at_0(rng):
    """Without the rounding of |a|^2 + |b|^2 - 2ab, whose terms need more digits than float32 has."""
    large = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    indices, distances = neighbours.nearest(large, large, batch_size=9)
    assert indices[:, 0].tolist() == list(range(20))
    assert not distances.any()


@pytest.mark.parametrize(("count", "batch_size"), [(1, 7), (5, 3), (20, 500), (200, 33)])
def test_order_and_distances_are_those_of_all_pairs(pictures, rng, count, batch_size):
    queries = rng.integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    difference = queries[:, None].astype(float) - pictures[None]
    expected = np.sqrt((difference**2).mean(axis=(2, 3, 4)))
    indices, distances = neighbours.nearest(queries, pictures, count=count, batch_size=batch_size)
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :count], rtol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(expected, indices, axis=1), distances, rtol=1e-6)
    assert all(len(set(row)) == count for row in indices.tolist())


def test_features_are_those_before_the_logit(device, pictures, rng):
    d = dcgan.discriminator(image_size=8, channels=1, width=4, rng=rng).to(device)
    embed = neighbours.in_features(d)
    x = to_device((pictures[:3].astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2), device)
    features = embed(pictures[:3])
    logits = features @ to_numpy(d[2].params["weight"]).reshape(1, -1).T  # the last convolution covers the whole map
    np.testing.assert_allclose(logits, to_numpy(d.forward(x, train=False)[0]), atol=1e-6)
    indices, distances = neighbours.nearest(pictures[[5, 60]], pictures, embed=embed, count=1, batch_size=50)
    assert indices.tolist() == [[5], [60]]
    np.testing.assert_allclose(distances, 0, atol=1e-6)
    first = neighbours.in_features(d, 0)(pictures[:2])
    assert first.shape == (2, 4 * 4 * 4)
    assert (first < 0).any()


def test_a_folder_is_searched_without_being_loaded(pictures, tmp_path):
    for i in range(12):
        save_png(tmp_path / f"{i:02d}.png", pictures[i])
    folder = PictureFolder(tmp_path, size=8, channels=1)
    indices, distances = neighbours.nearest(pictures[[7, 2]], folder, batch_size=5)
    assert indices.tolist() == [[7], [2]]
    assert distances.tolist() == [[0], [0]]
    assert neighbours.duplicates(folder, batch_size=5) == []


def test_planted_duplicates_are_grouped(pictures):
    pictures[[40, 199]] = pictures[7]
    pictures[120] = pictures[119]
    pictures[61] = shifted_levels(pictures[60], 1)  # nearly
    assert neighbours.duplicates(pictures, batch_size=50) == [[7, 40, 199], [119, 120]]
    assert neighbours.duplicates(pictures[200:]) == []


def test_near_duplicates_are_those_within_the_threshold(rng):
    """Against all pairs by the definition, in pictures of strong principal directions, and in noise."""
    smooth = rng.integers(0, 256, (600, 2, 2, 1)).repeat(4, axis=1).repeat(4, axis=2)
    for base in (smooth, rng.integers(0, 256, (600, 8, 8, 1))):
        pictures = base.astype(np.uint8)
        pictures[500] = pictures[20]
        pictures[300] = shifted_levels(pictures[20], 3)
        pictures[599] = shifted_levels(pictures[300], 3)  # of 20 it is 6 away, or 0
        pictures[41] = shifted_levels(pictures[40], 4)
        pictures[43] = shifted_levels(pictures[42], 5)
        pictures[598] = shifted_levels(pictures[100], 3)  # joins 100 and 101, which come before it
        pictures[101] = shifted_levels(pictures[598], 3)
        for threshold in (3, 4.0, 5.5):
            got = neighbours.duplicates(pictures, threshold=threshold)
            assert got == by_definition(pictures, threshold), threshold
        assert [20, 300, 500, 599] in got
        assert [40, 41] in got
        assert [42, 43] in got


def by_definition(pictures, threshold):
    groups = [{i} for i in range(len(pictures))]
    flat = pictures.reshape(len(pictures), -1).astype(float)
    for i in range(len(flat)):
        for j in np.flatnonzero(np.sqrt(((flat - flat[i]) ** 2).mean(axis=1)) <= threshold):
            if groups[i] is not groups[j]:
                groups[i] |= groups[j]
                for k in groups[j]:
                    groups[k] = groups[i]
    return [list(group) for group in sorted({tuple(sorted(group)) for group in groups if len(group) > 1})]


def test_copying_is_a_probability():
    assert neighbours.copying([0, 1], [5, 6, 7]) == 1
    assert neighbours.copying([9, 9], [5, 6, 7]) == 0
    assert neighbours.copying([5.0], [5.0, 6.0]) == 0.75
    assert neighbours.copying([1, 3, 5], [2, 4]) == 0.5


def test_a_copy_is_much_nearer_than_the_other_neighbours():
    distances = np.array([[0.0, 10, 20], [10, 10, 10], [0, 0, 0], [5, 10, 15]])
    np.testing.assert_allclose(neighbours.relative(distances), [0, 1, 0, 0.5])


def test_a_mistake_gets_one_sentence(pictures):
    with pytest.raises(UserError, match="the nearest 201 were asked for, but there are 200 pictures"):
        neighbours.nearest(pictures[:1], pictures, count=201)
    with pytest.raises(UserError, match="threshold of at least 0, got -1"):
        neighbours.duplicates(pictures, threshold=-1)
