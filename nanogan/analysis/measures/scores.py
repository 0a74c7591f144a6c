"""How good a generator's pictures are, in numbers: scores of two clouds of features, one real and one drawn.

    features, probabilities = classify(classifier, pictures)      (nanogan.analysis.judges.classifier)

    inception_score      high: each picture is surely of one class, and all classes occur    1 to the number of classes
    frechet_distance     low: both clouds have one mean and one covariance                   0 and more
    kid                  low: the clouds are samples of one distribution                     about 0 if so, may be below
    precision_recall     high: what is drawn lies among the real; the real is all drawn      0 to 1
    one_nn_error         low: what is drawn teaches a classifier of real pictures            0 to 1

Values depend on the classifier: compare only those in one feature space, from equally many pictures. With Inception's
features the first three are IS, FID and KID; here they are not, and no number here is comparable with a published one.
All arithmetic is float64 on the CPU, unless another dtype is asked for.
"""

import numpy as np

from nanogan.analysis.judges.classifier import classify
from nanogan.backend import seeded_rng, squared_distance_blocks
from nanogan.errors import UserError
from nanogan.games.drawing import draw_z, sample

BLOCK = 1000  # rows of a matrix of pairs that are in memory at once


def inception_score(probabilities):
    """Return exp(mean over pictures of KL(p(y|x) || p(y))), where p(y) is the mean of p(y|x).

    probabilities (N, K), rows that sum to 1. From 1 (all pictures alike to the classifier) to K.
    Source: T. Salimans et al., arXiv:1606.03498, section 4.
    """
    p = _checked("inception_score", probabilities, least=1)
    rounding = 1e-2 if getattr(probabilities, "dtype", None) == np.float16 else 1e-4
    if (p < 0).any() or not np.allclose(p.sum(axis=1), 1, atol=rounding):
        raise UserError("inception_score expected probabilities, rows of numbers from 0 that sum to 1")
    tiny = np.finfo(float).tiny  # 0 log 0 is 0
    divergence = (p * (np.log(np.maximum(p, tiny)) - np.log(np.maximum(p.mean(axis=0), tiny)))).sum(axis=1)
    return float(np.exp(divergence.mean()))


def frechet_distance(real, drawn):
    """Return the Fréchet distance between the Gaussians that fit two clouds of features, (N, F) and (M, F).

    See :func:`frechet_of_gaussians`. The estimate is too high by about a constant over N: compare equal numbers only.
    Source: M. Heusel et al., arXiv:1706.08500, equation 6.
    """
    real, drawn = _pair("frechet_distance", real, drawn, least=2)
    return frechet_of_gaussians(*mean_and_covariance(real), *mean_and_covariance(drawn))


def mean_and_covariance(features):
    """Return the mean (F,) and the unbiased covariance (F, F) of features (N, F), N of at least 2."""
    features = _checked("mean_and_covariance", features, least=2)
    mean = features.mean(axis=0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def frechet_of_gaussians(mean_1, covariance_1, mean_2, covariance_2):
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), the squared 2-Wasserstein distance of two Gaussians.

    C1 C2 is not symmetric, but has the eigenvalues of C1^(1/2) C2 C1^(1/2), which is: so the trace of its root is the
    sum of their roots, and a symmetric eigenvalue solver is enough, even where a covariance is singular.
    Source: D. C. Dowson, B. V. Landau, J. Multivariate Analysis 12 (1982), 450-455.
    """
    mean_1, covariance_1, mean_2, covariance_2 = (
        np.asarray(each, float) for each in (mean_1, covariance_1, mean_2, covariance_2)
    )
    root = _square_root(covariance_1)
    eigenvalues = np.linalg.eigvalsh(root @ covariance_2 @ root)
    trace_of_root = np.sqrt(np.maximum(eigenvalues, 0)).sum()  # rounding makes zeros slightly negative
    difference = mean_1 - mean_2
    distance = difference @ difference + np.trace(covariance_1) + np.trace(covariance_2) - 2 * trace_of_root
    return float(max(distance, 0.0))


def _square_root(matrix):
    """The symmetric root of a symmetric matrix without negative eigenvalues."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T


def kid(real, drawn):
    """Return the squared maximum mean discrepancy of two clouds of features, (N, F) and (M, F), without bias.

        k(x, y) = (x . y / F + 1)^3
        KID = mean of k(x, x') over x != x'  +  mean of k(y, y') over y != y'  -  2 * mean of k(x, y)

    Its expectation is 0 for two samples of one distribution, whatever N and M, so single values may be negative. All
    pairs are used; the paper takes the mean over subsets, whose expectation is the same.
    Source: M. Binkowski et al., arXiv:1801.01401, section 4.
    """
    real, drawn = _pair("kid", real, drawn, least=2)
    return _mean_kernel(real) + _mean_kernel(drawn) - 2 * _mean_kernel(real, drawn)


def _mean_kernel(x, y=None):
    """The mean of k over all pairs of x (N, F) and y (M, F); over those of x with another of x if there is no y."""
    same = y is None
    y = x if same else y
    F, total = x.shape[1], 0.0
    for i in range(0, len(x), BLOCK):
        total += ((x[i : i + BLOCK] @ y.T / F + 1) ** 3).sum()
    if same:
        total -= (((x * x).sum(axis=1) / F + 1) ** 3).sum()
    return float(total / (len(x) * (len(y) - same)))


def precision_recall(real, drawn, *, k=3):
    """Return the share of drawn features that lie among the real (precision), and of real among the drawn (recall).

    real (N, F), drawn (M, F). "Among" is inside a ball round any one of them that reaches to its k-th neighbour among
    them.
    Source: T. Kynkäänniemi et al., arXiv:1904.06991, section 3, whose k is 3.
    """
    precise, covered = inside(real, drawn, k=k), inside(drawn, real, k=k)
    return float(precise.mean()), float(covered.mean())


def inside(cloud, points, *, k=3):
    """Return which of ``points`` (M, F) lie among ``cloud`` (N, F), as :func:`precision_recall` has it: bool (M,)."""
    cloud, points = _pair("precision_recall", cloud, points, least=1)
    if not 1 <= k < len(cloud):
        raise UserError(f"the {k}-th neighbour was asked for among {len(cloud)}: use more pictures or a smaller k")
    radii = np.concatenate(  # squared; the nearest of all is the point itself, at place 0
        [np.partition(block, k, axis=1)[:, k] for block in squared_distance_blocks(cloud, cloud, rows=BLOCK)]
    )
    blocks = squared_distance_blocks(points, cloud, rows=BLOCK)
    return np.concatenate([(block <= radii).any(axis=1) for block in blocks])


def nearest(points, cloud, *, dtype=np.float64):
    """Return each point's nearest of ``cloud``: its number (M,) and its Euclidean distance (M,), computed in dtype."""
    points, cloud = _pair("nearest", points, cloud, least=1, dtype=dtype)
    numbers, distances = [], []
    for block in squared_distance_blocks(points, cloud, rows=BLOCK):
        number = block.argmin(axis=1)
        numbers.append(number)
        distances.append(np.sqrt(block[np.arange(len(block)), number]))
    return np.concatenate(numbers), np.concatenate(distances)


def one_nn_error(pictures, labels, real_pictures, real_labels):
    """Return the share of real pictures whose nearest one of ``pictures`` has another label: the paper's 1-NN score.

    Pixels (N, ...) and (M, ...), labels (N,) and (M,); Euclidean distance. The drawn pictures are the training set, the
    real ones the test set. Source: A. Radford et al., arXiv:1511.06434, supplementary
    material.
    """
    ((_, error),) = one_nn_errors([(pictures, labels)], real_pictures, real_labels)
    return error


def one_nn_errors(batches, real_pictures, real_labels, *, dtype=np.float64):
    """Yield how many pictures have taught, and :func:`one_nn_error` of all so far, after each of ``batches``.

    ``batches`` are pairs (pictures, labels) and need not be in memory together. In float32 it takes 0.6 of the time,
    and finds the same nearest for each of MNIST's 10,000 test digits among its 60,000 training digits.
    """
    test, real_labels = np.reshape(real_pictures, (len(real_pictures), -1)), np.asarray(real_labels)
    distances, found, count = np.full(len(test), np.inf), np.zeros_like(real_labels), 0
    for pictures, labels in batches:
        numbers, new = nearest(test, np.reshape(pictures, (len(pictures), -1)), dtype=dtype)
        nearer = new < distances
        found[nearer] = np.asarray(labels)[numbers[nearer]]
        distances = np.minimum(distances, new)
        count += len(pictures)
        yield count, float((found != real_labels).mean())


def frechet_metric(classifier, pictures, *, latent=None, seed=0, z_kind="normal", generate=None):
    """Return ``metric(g)`` for :func:`nanogan.training.train`: the Fréchet distance of G's images from real ones.

    pictures: real ones, uint8 (N, H, W, C); as many are generated, always from the same z (``latent`` elements,
    "normal" or "uniform"), so that epochs differ by G alone. ``generate(g, count, rng)`` returns the images (count, C,
    H, W) of a G that takes more than z. ``classifier`` is on the same device as G.
    """
    real = mean_and_covariance(classify(classifier, pictures)[0])

    def from_z(g, count, rng):
        return sample(g, g.array_module.asarray(draw_z(rng, count, latent, z_kind)))

    def metric(g):
        generated = (generate or from_z)(g, len(pictures), seeded_rng(seed, "metric"))
        return frechet_of_gaussians(*real, *mean_and_covariance(classify(classifier, generated)[0]))

    return metric


# -------------------------------------------------------------------------------------------------- shared by them


def _pair(name, real, drawn, *, least, dtype=np.float64):
    real, drawn = _checked(name, real, least=least, dtype=dtype), _checked(name, drawn, least=least, dtype=dtype)
    if real.shape[1] != drawn.shape[1]:
        raise UserError(f"{name} expected as many features in both, got {real.shape[1]} and {drawn.shape[1]}")
    return real, drawn


def _checked(name, features, *, least, dtype=np.float64):
    features = np.asarray(features, dtype)
    if features.ndim != 2 or len(features) < least:
        raise UserError(f"{name} expected an array (N, F), N of at least {least}, got shape {features.shape}")
    if not np.isfinite(features).all():
        raise UserError(f"{name} expected finite numbers: the network that they come from may have diverged")
    return features
