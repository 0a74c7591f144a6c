"""Pictures drawn on demand and the errors of the classifier that they teach, on generators made by hand."""

import numpy as np
import pytest

from nanogan.analysis.measures import one_nn, scores
from nanogan.errors import UserError
from nanogan.layers import Layer


class Stripes(Layer):
    """Three pixels in one row: of class k, pixel k is white; the others have z's first number."""

    latent, classes = 1, 3

    def __init__(self):
        super().__init__()
        self.add_param("weight", np.ones((), np.float32))

    def forward(self, z, train=True):
        assert not train  # BatchNorm would mix the pictures
        return np.where(z[:, 1:] == 1, 1, np.tanh(z[:, :1]))[:, None, None, :], None


def test_each_picture_is_of_its_own_z_and_label():
    z = np.array([[0.0], [-9.0], [9.0]], np.float32)
    drawn = one_nn.draw(Stripes(), z, np.array([2, 0, 1]), (1, 1, 3))
    assert drawn.dtype == np.uint8
    assert drawn[:, 0, :, 0].tolist() == [[128, 128, 255], [255, 0, 0], [255, 255, 255]]
    assert one_nn.draw(Stripes(), z, np.array([2, 0, 1]), (3, 1, 1)).shape == (3, 1, 1, 3)


def test_parts_add_up_and_their_labels_are_those_drawn(monkeypatch):
    monkeypatch.setattr(one_nn, "PART", 100)
    parts = list(one_nn.drawn_parts(Stripes(), (1, 1, 3), count=250, seed=3))
    assert [len(labels) for _, labels in parts] == [100, 100, 50]
    pictures, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    assert (pictures[np.arange(250), 0, labels, 0] == 255).all()
    assert np.bincount(labels).min() > 50
    assert len(np.unique(pictures[:, 0].min(axis=1))) > 50  # z differ, from part to part too
    again = list(one_nn.drawn_parts(Stripes(), (1, 1, 3), count=250, seed=3))
    assert all((one == other).all() for one, other in zip(parts[2], again[2], strict=True))
    assert (next(one_nn.drawn_parts(Stripes(), (1, 1, 3), count=250, seed=4))[1] != labels[:100]).any()


def test_noise_teaches_nothing_and_real_pictures_come_in_order(monkeypatch):
    monkeypatch.setattr(one_nn, "PART", 3)
    parts = list(one_nn.noise_parts((2, 4, 5), classes=3, count=7))
    assert [each.shape for each, _ in parts] == [(3, 4, 5, 2), (3, 4, 5, 2), (1, 4, 5, 2)]
    assert max(labels.max() for _, labels in parts) < 3
    pictures, labels = np.arange(7).reshape(7, 1, 1, 1), np.arange(7) % 2
    parts = list(one_nn.parts_of(pictures, labels))
    assert [len(each) for each, _ in parts] == [3, 3, 1]
    assert np.concatenate([each for each, _ in parts]).ravel().tolist() == list(range(7))
    assert np.concatenate([each for _, each in parts]).tolist() == labels.tolist()


def test_errors_fall_as_more_pictures_teach_by_hand():
    """On a line: real ones of class 0 at 0 and 10, of class 1 at 50 and 60."""
    real, labels = np.array([[0], [10], [50], [60]], np.uint8), np.array([0, 0, 1, 1])
    batches = [
        (np.array([[30]], np.uint8), np.array([1])),  # the only one: all are told to be 1
        (np.array([[1], [80]], np.uint8), np.array([0, 0])),  # 0 and 10 are nearest to 1; 60 still to 80 or 30: 0
        (np.array([[58]], np.uint8), np.array([1])),  # 50 and 60 are nearest to 58
    ]
    assert list(scores.one_nn_errors(batches, real, labels)) == [(1, 0.5), (3, 0.25), (4, 0.0)]
    assert one_nn.errors_at({3}, batches, real, labels) == {3: 0.25, 4: 0.0}
    assert one_nn.errors_at({1, 2}, batches, real, labels) == {1: 0.5, 4: 0.0}


def test_the_error_is_the_same_in_parts_and_at_once(rng):
    pictures, labels = rng.integers(0, 256, (60, 4, 4, 1), dtype=np.uint8), rng.integers(0, 3, 60)
    real, real_labels = rng.integers(0, 256, (40, 4, 4, 1), dtype=np.uint8), rng.integers(0, 3, 40)
    distances = ((real.reshape(40, 1, 16).astype(int) - pictures.reshape(1, 60, 16)) ** 2).sum(axis=2)
    expected = float((labels[distances.argmin(axis=1)] != real_labels).mean())
    parts = [(pictures[i : i + 7], labels[i : i + 7]) for i in range(0, 60, 7)]
    for dtype in (np.float64, np.float32):
        *_, (count, error) = scores.one_nn_errors(parts, real, real_labels, dtype=dtype)
        assert (count, error) == (60, expected)
    assert scores.one_nn_error(pictures, labels, real, real_labels) == expected


@pytest.mark.parametrize("count", [6, 24, 60_001])
def test_a_random_sixth_is_held_out_always_the_same_one(count):
    trained_on, held_out = one_nn.hold_out(count)
    assert len(held_out) == count // 6
    assert sorted([*trained_on, *held_out]) == list(range(count))
    for first, second in zip(one_nn.hold_out(count), (trained_on, held_out), strict=True):
        np.testing.assert_array_equal(first, second)
    if count > 1000:  # of a set sorted by class, each class is held out in its share
        shares = np.histogram(held_out, bins=10, range=(0, count))[0] / (count / 10)
        assert abs(shares - 1 / 6).max() < 0.02


def test_too_few_to_hold_out_a_sixth():
    with pytest.raises(UserError, match="at least 6 were expected, got 5"):
        one_nn.hold_out(5)
