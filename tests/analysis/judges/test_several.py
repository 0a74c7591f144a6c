"""A judge of several attributes at once."""

import numpy as np
import pytest

from nanogan.analysis.judges.several import AttributeJudge, train_attribute_judge
from nanogan.errors import UserError
from nanogan.layers import Flatten, Linear, Sequential


def plain_images(count, rng):
    """Images of one colour: how bright, of three values, and how red, of two."""
    bright, red = rng.integers(0, 3, count), rng.integers(0, 2, count)
    images = np.empty((count, 8, 8, 3), np.uint8)
    images[...] = (40 + 70 * bright)[:, None, None, None]
    images[..., 0] += (60 * red).astype(np.uint8)[:, None, None]
    return images, {"bright": bright, "red": red}


def test_it_learns_all_attributes_at_once(rng):
    images, attributes = plain_images(600, rng)
    judge = train_attribute_judge(images, attributes, epochs=6)
    assert judge.sizes == {"bright": 3, "red": 2}
    unseen, truth = plain_images(200, rng)
    right = judge.agreement(unseen, truth)
    assert set(right) == {"bright", "red", "all"}
    assert right["all"] > 0.95
    np.testing.assert_array_equal(
        judge(unseen)["bright"], judge(unseen.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)["bright"]
    )


def test_the_largest_of_an_attributes_own_logits_counts():
    """A network that gives back its input: 5 logits, of which the first 3 are one attribute's."""
    network = Sequential(Flatten(), Linear(5, 5, bias=False))
    network[1].params["weight"][...] = np.eye(5)
    judge = AttributeJudge(network, {"a": 3, "b": 2})
    logits = np.array([[1, 3, 2, 9, 8], [-5, -6, -7, 0, 1], [0, 1, 2, 5, 4]], np.float32)
    found = judge(logits[:, :, None, None], batch_size=2)
    assert {name: values.tolist() for name, values in found.items()} == {"a": [1, 0, 2], "b": [0, 1, 0]}
    told = judge.agreement(logits[:, :, None, None], {"a": [1, 0, 0], "b": [0, 0, 0]})
    assert told == pytest.approx({"a": 2 / 3, "b": 2 / 3, "all": 1 / 3})


def test_no_attribute_gets_one_sentence(rng):
    with pytest.raises(UserError, match="a judge expected at least two images and an attribute of them, got 80 and 0"):
        train_attribute_judge(plain_images(80, rng)[0], {})
