"""Scores of features against what is known of them in closed form, or planted."""

import numpy as np
import pytest
import scipy.linalg

from nanogan.analysis.judges.classifier import Classifier, classify
from nanogan.analysis.measures import scores
from nanogan.analysis.measures.classes import mean_distance
from nanogan.errors import UserError
from nanogan.models import dcgan


def test_inception_score_of_sure_unsure_and_one_sided_classifiers(rng):
    sure = np.eye(4)[np.arange(40) % 4]
    assert scores.inception_score(sure) == pytest.approx(4)  # each surely of a class, all classes equally
    assert scores.inception_score(np.full((40, 4), 0.25)) == pytest.approx(1)
    assert scores.inception_score(np.eye(4)[np.zeros(40, int)]) == pytest.approx(1)  # sure, but always of the same
    p, share = 0.9, 0.3  # two kinds of pictures: with probability p of the one class, or of the other
    kinds = np.array([[p, 1 - p]] * 3 + [[1 - p, p]] * 7)
    first = share * p + (1 - share) * (1 - p)
    entropy = lambda q: -q * np.log(q) - (1 - q) * np.log(1 - q)  # noqa: E731
    assert scores.inception_score(kinds) == pytest.approx(np.exp(entropy(first) - entropy(p)))


def test_frechet_distance_of_gaussians_with_one_set_of_axes_is_a_sum_over_them(rng):
    axes = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    s, t = rng.uniform(0.1, 3, (2, 5))  # standard deviations along the axes
    t[1] = 0  # a flat one
    m, n = rng.standard_normal((2, 5))
    distance = scores.frechet_of_gaussians(m, (axes * s**2) @ axes.T, n, (axes * t**2) @ axes.T)
    assert distance == pytest.approx(((m - n) ** 2).sum() + ((s - t) ** 2).sum(), rel=1e-9)
    assert scores.frechet_of_gaussians(m, (axes * s**2) @ axes.T, m, (axes * s**2) @ axes.T) == pytest.approx(
        0, abs=1e-9
    )


def test_frechet_distance_of_any_two_clouds_is_that_with_the_root_of_their_product(rng):
    real = rng.standard_normal((50, 6)) @ rng.standard_normal((6, 6))
    drawn = rng.standard_normal((40, 6)) @ rng.standard_normal((6, 6)) + rng.standard_normal(6)
    C1, C2 = np.cov(real.T), np.cov(drawn.T)
    difference = real.mean(axis=0) - drawn.mean(axis=0)
    root = scipy.linalg.sqrtm(C1 @ C2).real
    expected = difference @ difference + np.trace(C1 + C2 - 2 * root)
    assert scores.frechet_distance(real, drawn) == pytest.approx(expected, rel=1e-8)
    assert scores.frechet_distance(drawn, real) == pytest.approx(expected, rel=1e-8)
    assert scores.frechet_distance(real[:3], drawn[:3]) >= 0  # fewer pictures than features


def test_kid_is_the_mean_over_all_pairs_of_different_pictures(rng, monkeypatch):
    monkeypatch.setattr(scores, "BLOCK", 3)
    real, drawn = rng.standard_normal((7, 4)), rng.standard_normal((5, 4)) + 0.3

    def mean_of_pairs(a, b, same):
        pairs = [(x, y) for i, x in enumerate(a) for j, y in enumerate(b) if not (same and i == j)]
        return np.mean([(x @ y / 4 + 1) ** 3 for x, y in pairs])

    expected = (
        mean_of_pairs(real, real, True) + mean_of_pairs(drawn, drawn, True) - 2 * mean_of_pairs(real, drawn, False)
    )
    assert scores.kid(real, drawn) == pytest.approx(expected, rel=1e-10)


def test_kid_of_one_distribution_is_0_in_the_mean_and_that_of_two_is_not(rng):
    same = [scores.kid(*rng.standard_normal((2, 30, 4))) for _ in range(400)]
    error = np.std(same) / np.sqrt(len(same))
    assert abs(np.mean(same)) < 4 * error  # with bias it would be far above
    assert min(same) < 0
    shifted = [scores.kid(rng.standard_normal((30, 4)), rng.standard_normal((30, 4)) + 1) for _ in range(50)]
    assert np.mean(shifted) > 100 * error


def test_precision_and_recall_of_planted_points(monkeypatch):
    monkeypatch.setattr(scores, "BLOCK", 2)
    real = np.array([[0.0], [1], [2], [3], [100], [101], [102], [103]])  # to the 2nd neighbour: 1 or 2
    drawn = np.array([[1.5], [4.9], [5.5], [50], [101]])
    # 4.9 is within 2 of the 3; 5.5 and 50 are near nothing
    assert scores.inside(real, drawn, k=2).tolist() == [True, True, False, False, True]
    # balls of the drawn, to the 2nd neighbour: 4.0, 3.4, 4.0, 45.1, 95.5
    assert scores.inside(drawn, real, k=2).tolist() == [True] * 8
    precision, recall = scores.precision_recall(real, drawn, k=2)
    assert (precision, recall) == (3 / 5, 1)
    # one drawn point everywhere: all of it is real, most of the real is not drawn
    precision, recall = scores.precision_recall(real, np.array([[1.5], [1.6], [1.4]]), k=1)
    assert (precision, recall) == (1, 0)


def test_the_same_pictures_are_all_precise_and_recalled(rng):
    cloud = rng.standard_normal((60, 3)) + 1000
    cloud[:10] = cloud[0]  # the same picture many times: a ball without extent
    assert scores.precision_recall(cloud, cloud.copy()) == (1, 1)


def test_nearest_and_one_nn_error_by_hand(rng):
    drawn = rng.standard_normal((9, 2, 3))
    real = drawn[[4, 4, 7, 0]] + 1e-3
    numbers, distances = scores.nearest(real.reshape(4, 6), drawn.reshape(9, 6))
    assert numbers.tolist() == [4, 4, 7, 0]
    assert distances == pytest.approx(1e-3 * np.sqrt(6), rel=1e-6)
    numbers, distances = scores.nearest(real.reshape(4, 6) + 1e6, drawn.reshape(9, 6) + 1e6)  # |x|^2 has 12 digits
    assert numbers.tolist() == [4, 4, 7, 0]
    assert distances == pytest.approx(1e-3 * np.sqrt(6), rel=1e-4)
    assert scores.one_nn_error(drawn, np.arange(9), real, [4, 4, 7, 1]) == 1 / 4


def test_the_metric_of_training_is_the_distance_of_the_features_of_drawn_pictures():
    draw = lambda seed: dcgan.generator(image_size=8, channels=1, latent=3, width=2, rng=np.random.default_rng(seed))  # noqa: E731
    classifier = Classifier(image_size=8, width=2, rng=np.random.default_rng(0))
    pictures = np.random.default_rng(1).integers(0, 256, (70, 8, 8, 1), dtype=np.uint8)
    metric = scores.frechet_metric(classifier, pictures, latent=3, seed=5)
    first, other = draw(2), draw(3)
    assert metric(first) == metric(first)
    assert metric(first) != metric(other)
    z = np.random.default_rng([5, *b"metric"]).standard_normal((70, 3), dtype=np.float32)
    features, _ = classify(classifier, first.forward(z, train=False)[0])
    assert metric(first) == pytest.approx(
        scores.frechet_distance(classify(classifier, pictures)[0], features), rel=1e-4
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scores.kid(np.ones((3, 2)), np.ones((3, 4))), "kid expected as many features in both, got 2 and 4"),
        (lambda: scores.frechet_distance(np.ones((1, 2)), np.ones((3, 2))), "N of at least 2, got shape (1, 2)"),
        (lambda: scores.kid(np.full((3, 2), np.nan), np.ones((3, 2))), "may have diverged"),
        (lambda: scores.precision_recall(np.ones((3, 2)), np.ones((9, 2))), "the 3-th neighbour was asked for among 3"),
        (lambda: scores.inception_score(np.ones((3, 2))), "rows of numbers from 0 that sum to 1"),
    ],
)
def test_a_callers_mistake_gets_one_sentence(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)


MEASURES = {
    "frechet_distance": scores.frechet_distance,
    "frechet_of_gaussians": lambda a, b: scores.frechet_of_gaussians(a[0], a[1:9], b[0], b[1:9]),
    "kid": scores.kid,
    "precision_recall": scores.precision_recall,
    "nearest": lambda a, b: scores.nearest(a, b)[1],
    "mean_distance": lambda a, b: mean_distance(a),
    "inception_score": lambda a, b: scores.inception_score((a.T / a.sum(axis=1, dtype=float)).T.astype(a.dtype)),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_measures_of_float16_features_are_those_of_the_same_values(measure, rng):
    """Their squares end at 65504."""
    a, b = ((300 + 50 * rng.standard_normal((30, 8))).astype(np.float16) for _ in range(2))
    for cloud in (a, b):
        cloud[1:9] = np.cov(cloud[9:].T.astype(float)).round()  # a covariance
    a[1:9] = abs(a[1:9])
    expected = measure(a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(measure(a, b), expected, rtol=1e-3)
