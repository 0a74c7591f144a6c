"""Columns of a data set of which a few images have labels."""

import numpy as np
import pytest

from nanogan.data import Loader, few_labels
from nanogan.errors import UserError

N, K = 40, 4
IMAGES = np.arange(N, dtype=np.uint8).repeat(4).reshape(N, 2, 2, 1)  # image i is of value i
LABELS = np.random.default_rng(0).permutation(np.arange(N) % K)


def shown(column):
    """The numbers of a column's images."""
    return column[:][:, 0, 0, 0]


def test_some_images_have_their_labels_and_nothing_else_has_one():
    columns = few_labels(IMAGES, LABELS, 10, seed=3)
    assert columns["images"] is IMAGES
    assert sorted(columns) == ["images", "labelled", "labels"]
    numbers = shown(columns["labelled"])
    np.testing.assert_array_equal(columns["labels"], LABELS[numbers])
    assert len(columns["labels"]) == len(columns["labelled"]) == N
    labelled = np.unique(numbers)
    assert len(labelled) == 10
    np.testing.assert_array_equal(np.bincount(LABELS[labelled]), [3, 3, 2, 2])
    np.testing.assert_array_equal(np.bincount(numbers)[labelled], 4, err_msg="each as often as any")


def test_which_ones_depends_on_the_seed():
    first, again, other = (shown(few_labels(IMAGES, LABELS, 8, seed=seed)["labelled"]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_the_loader_takes_them():
    loader = Loader(few_labels(IMAGES, LABELS, 6), batch_size=16, seed=2)
    assert loader.shapes == {"images": (1, 2, 2), "labelled": (1, 2, 2), "labels": K}
    for batch in loader.epoch(1):
        numbers = np.rint((batch["labelled"][:, 0, 0, 0] + 1) * 127.5).astype(int)
        np.testing.assert_array_equal(batch["labels"], LABELS[numbers])
        assert len(batch["images"]) == len(numbers)


@pytest.mark.parametrize(
    ("labels", "count", "message"),
    [
        (None, 8, "images with labels were expected, to choose a few labelled ones, got images alone"),
        (LABELS, 3, "a label for at least one image of each of the 4 classes was expected, got 3 labels"),
        (LABELS, 41, "at most as many labels as images were expected, got 41 labels for 40 images"),
        (np.maximum(LABELS, 1), 8, "2 labelled images of class 0 were asked for, but it has 0"),
    ],
)
def test_what_is_not_possible_gets_one_sentence(labels, count, message):
    with pytest.raises(UserError, match=message):
        few_labels(IMAGES, labels, count)
