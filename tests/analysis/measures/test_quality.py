"""The three numbers of samples, with a classifier whose answers are planted."""

import numpy as np
import pytest

from nanogan.analysis.measures import quality, scores


@pytest.fixture
def planted(monkeypatch):
    """A classifier's answers are read from the images' first pixels: the class, and how sure it is."""

    def classify(classifier, images, progress=None):
        assert classifier == "the judge"
        pixels = np.asarray(images, float).reshape(len(images), -1)
        sure = pixels[:, 1]
        probabilities = np.repeat((1 - sure)[:, None] / 3, 4, axis=1)
        probabilities[np.arange(len(pixels)), pixels[:, 0].astype(int)] = sure
        return pixels[:, 2:], probabilities

    monkeypatch.setattr(quality, "classify", classify)


def test_samples_are_sure_even_and_near(planted, rng):
    real, samples = rng.uniform(0, 1, (30, 1, 1, 6)), rng.uniform(0, 1, (20, 1, 1, 6)) + 0.5
    samples[:, 0, 0, 0] = np.repeat([0, 1, 2, 3], [8, 6, 4, 2])
    samples[:, 0, 0, 1] = np.repeat([0.96, 0.94, 1.0], [7, 8, 5])
    judged = quality.Quality("the judge", real)
    assert judged.count == 30
    found = judged.of(samples)
    assert found["sure"] == 12 / 20
    assert found["rarest"] == pytest.approx(4 * 2 / 20), "even shares would give 1"
    expected = scores.frechet_distance(real.reshape(30, -1)[:, 2:], samples.reshape(20, -1)[:, 2:])
    assert found["frechet"] == pytest.approx(expected)


def test_a_class_that_is_missing_counts(planted):
    samples = np.zeros((6, 1, 1, 4))
    samples[:, 0, 0, :2] = [0, 1.0]
    samples[:, 0, 0, 2] = np.arange(6)
    found = quality.Quality("the judge", samples).of(samples)
    assert (found["rarest"], found["sure"]) == (0, 1)
