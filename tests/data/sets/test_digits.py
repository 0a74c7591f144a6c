"""The built-in digits: seeded, labelled, and alike MNIST."""

import numpy as np
import pytest

from nanogan.data import builtin_digits, load_mnist
from nanogan.errors import UserError


def test_builtin_digits_are_seeded_labelled_and_all_different():
    images, labels = builtin_digits(200, seed=3)
    again, same_labels = builtin_digits(200, seed=3)
    other, _ = builtin_digits(200, seed=4)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, same_labels)
    assert (images != other).any()
    assert images.shape == (200, 28, 28, 1)
    assert images.dtype == labels.dtype == np.uint8
    assert set(labels) == set(range(10))
    assert len({image.tobytes() for image in images}) == 200


def test_builtin_digits_look_like_mnist_to_a_nearest_neighbour(real_data):
    """A 1-nearest-neighbour classifier that has seen only built-in digits reads MNIST far better than by chance.

    Chance is 10%. Wrong labels, black pictures or inverted ones all give about that.
    """
    images, labels = builtin_digits(3000)
    pictures, truth = load_mnist(data_dir=real_data, split="test")
    mine = images.reshape(len(images), -1).astype(np.float32)
    theirs = pictures[:500].reshape(500, -1).astype(np.float32)
    distances = (mine**2).sum(1) - 2 * theirs @ mine.T
    assert (labels[distances.argmin(1)] == truth[:500]).mean() > 0.35


def test_builtin_digits_fill_their_frame_as_mnists_do():
    images, _ = builtin_digits(300)
    share = (images > 127).mean()
    assert 0.05 < share < 0.25  # MNIST: 0.13 of the pixels are ink
    assert images.max() > 240
    edge = np.concatenate(
        [images[:, 0].ravel(), images[:, -1].ravel(), images[:, :, 0].ravel(), images[:, :, -1].ravel()]
    )
    assert (edge > 127).mean() < 0.01, "digits are not cut off"


def test_builtin_digits_want_a_count():
    with pytest.raises(UserError, match="at least 1, got 0"):
        builtin_digits(0)
