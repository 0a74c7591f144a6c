"""Are samples of the class asked for, and do they differ? On clouds whose numbers are known."""

import numpy as np
import pytest

from nanogan.analysis.measures import classes
from nanogan.errors import UserError

LABELS = np.repeat([0, 1], 6)
CLOUD = np.array([[0.0, 0], [1, 0], [2, 0], [3, 0], [4, 0], [5, 0]])  # mean distance 7/3
FAR = np.array([[100.0, 0]])


@pytest.fixture
def metric(monkeypatch):
    """Images are their features, and a last column that says what the judge takes them for."""

    def classify(judge, images):
        assert judge == "judge"
        return images[:, :2], np.eye(3)[images[:, 2].astype(int)]

    monkeypatch.setattr(classes, "classify", classify)

    def prepare(real, labels=LABELS):
        return classes.class_metric("judge", real, labels)

    return prepare


def images_of(*clouds):
    return np.concatenate([np.column_stack([cloud, np.full(len(cloud), k)]) for k, cloud in enumerate(clouds)])


def test_the_real_images_themselves_get_ones(metric):
    real = images_of(CLOUD, CLOUD + FAR)
    assert metric(real)(real, LABELS) == {"as_asked": 1, "worst_class": 1, "spread": 1, "recall": 1}


def test_a_class_that_is_always_the_same_image_has_neither_spread_nor_recall(metric):
    real = images_of(CLOUD, CLOUD + FAR)
    measured = metric(real)(images_of(np.full((6, 2), 0.1), 0.5 * CLOUD + FAR), LABELS)
    # class 1: half the distances; balls round 0, 0.5, ..., 2.5, of radius 1.5, 1, 1, 1, 1, 1.5, hold 0, 1, 2, 3, 4
    assert measured == {
        "as_asked": 1,
        "worst_class": 1,
        "spread": pytest.approx((0 + 0.5) / 2),
        "recall": pytest.approx((0 + 5 / 6) / 2),
    }


def test_images_of_another_class_are_counted_as_wrong_and_are_no_variety(metric):
    real = images_of(CLOUD, CLOUD + FAR)
    generated = images_of(CLOUD, CLOUD + FAR)
    wrong = generated[:2].copy()
    wrong[:, 1:] = 50, 2  # far away, and taken for class 2
    measured = metric(real)(np.concatenate([wrong, generated]), np.r_[0, 0, LABELS])
    assert measured == {"as_asked": 12 / 14, "worst_class": 6 / 8, "spread": 1, "recall": 1}


def test_too_few_images_of_a_class_count_as_nothing(metric):
    real = images_of(CLOUD, CLOUD + FAR)
    generated = images_of(CLOUD[:1], CLOUD + FAR)
    assert metric(real)(generated, np.r_[0, LABELS[6:]]) == {
        "as_asked": 1, "worst_class": 1, "spread": 0.5, "recall": 0.5,
    }  # fmt: skip
    for unusable in (CLOUD[:4], np.zeros((6, 2))):  # too few real ones, or all alike: the other class counts
        labels = np.r_[np.zeros(len(unusable), int), LABELS[6:]]
        assert metric(images_of(unusable, CLOUD + FAR), labels)(real, LABELS)["spread"] == 1
    measured = metric(images_of(CLOUD[:3], CLOUD[:3]), np.repeat([0, 1], 3))(real, LABELS)
    assert measured["as_asked"] == 1
    assert np.isnan([measured["spread"], measured["recall"]]).all()


def test_the_mean_distance_is_that_of_different_rows(rng):
    x = rng.standard_normal((7, 3))
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(x) for b in x[:i]]
    assert classes.mean_distance(x) == pytest.approx(np.mean(pairs))
    with pytest.raises(UserError, match="mean_distance expected at least 2 rows, got 1"):
        classes.mean_distance(x[:1])
