"""How good samples are for a classifier that knows nothing of their generator: three numbers for a run's log.

    sure       share of samples of which the classifier is more than 95% sure        as large as that of real images
    rarest     samples of the rarest class, as a share of an even tenth (K classes: of 1 / K)       1: evenly covered
    frechet    Fréchet distance in the classifier's features                          small; see scores.frechet_distance

One alone misleads: a generator that repeats one perfect image is sure, a cloud of odd images may cover all classes.
"""

import numpy as np

from nanogan.analysis.judges.classifier import classify
from nanogan.analysis.measures.scores import frechet_of_gaussians, mean_and_covariance

SURE = 0.95


class Quality:
    """Compares samples with real images, by ``classifier``.

    real: images, uint8 (N, H, W, C); N of at least 2. ``features`` are their mean and covariance.
    """

    def __init__(self, classifier, real, *, progress=None):
        self.classifier, self.count = classifier, len(real)
        self.features = mean_and_covariance(classify(classifier, real, progress=progress)[0])

    def of(self, samples):
        """Return {"sure", "rarest", "frechet"} of samples, (M, C, H, W) from -1 to 1, or uint8 (M, H, W, C).

        The Fréchet distance is too high by about a constant over M: compare equal numbers of samples only.
        """
        features, probabilities = classify(self.classifier, samples)
        K = probabilities.shape[1]
        shares = np.bincount(probabilities.argmax(axis=1), minlength=K) / len(probabilities)
        return {
            "sure": float((probabilities.max(axis=1) > SURE).mean()),
            "rarest": float(K * shares.min()),
            "frechet": frechet_of_gaussians(*self.features, *mean_and_covariance(features)),
        }
