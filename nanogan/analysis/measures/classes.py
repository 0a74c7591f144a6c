"""Images that were asked for by class: is each of its class, and do those of a class differ as real ones do?

A generator that is rewarded for images whose class is easy to name may make the same easy image again and again. So
the share that a judge takes for the class asked for says little without a number for how much they differ.
"""

import numpy as np

from nanogan.analysis.judges.classifier import classify
from nanogan.analysis.measures.scores import precision_recall
from nanogan.backend import squared_distances
from nanogan.errors import UserError

K = 3  # recall's neighbour


def class_metric(judge, images, labels):
    """Return ``metric(generated, wanted)``: how well images are of the classes ``wanted`` (N,), beside real ``images``.

    judge: a :class:`nanogan.analysis.judges.classifier.Classifier`, in whose features distances are measured. images:
    uint8 (N, H, W, C), with their labels (N,); generated: (N, C, H, W) from -1 to 1, or as images. The metric returns

        as_asked     the share of generated images that the judge takes for the class asked for
        worst_class  the share for the class where it is lowest
        spread       the mean distance of two generated images of a class, over that of two real ones; mean over classes
        recall       the share of a class's real images that lie among the generated ones, as
                     :func:`nanogan.analysis.measures.scores.precision_recall` defines it; mean over classes

    Spread and recall leave out generated images that the judge takes for another class: a wrong image lies far from
    the others, and would count as variety. They are 0 for a class of which too few are left, and leave out classes of
    fewer than 5 real images, or of images that are all alike; NaN if there are no others.
    """
    labels = np.asarray(labels)
    features, _ = _judged(judge, images, labels)
    clouds = [(label, features[labels == label]) for label in np.unique(labels)]
    clouds = [(label, cloud, mean_distance(cloud)) for label, cloud in clouds if len(cloud) > K + 1]
    real = [(label, cloud, distance) for label, cloud, distance in clouds if distance > 0]

    def metric(generated, wanted):
        features, right = _judged(judge, generated, wanted)
        spreads, recalls = [], []
        for label, cloud, distance in real:
            of_class = features[right & (wanted == label)]
            spreads.append(mean_distance(of_class) / distance if len(of_class) > 1 else 0.0)
            recalls.append(precision_recall(cloud, of_class, k=K)[1] if len(of_class) > K else 0.0)
        return {
            "as_asked": float(right.mean()),
            "worst_class": min(float(right[wanted == label].mean()) for label in np.unique(wanted)),
            "spread": float(np.mean(spreads)) if real else float("nan"),
            "recall": float(np.mean(recalls)) if real else float("nan"),
        }

    return metric


def mean_distance(features):
    """Return the mean Euclidean distance of two different rows of features (N, F), N of at least 2."""
    N = len(features)
    if N < 2:
        raise UserError(f"mean_distance expected at least 2 rows, got {N}")
    distances = np.sqrt(squared_distances(features, features))  # (N, N)
    np.fill_diagonal(distances, 0)  # where rounding leaves something
    return float(distances.sum() / (N * (N - 1)))


def _judged(judge, images, labels):
    """The judge's features (N, 64), and whether it takes each image for its label: bool (N,)."""
    features, probabilities = classify(judge, images)
    return features, probabilities.argmax(axis=1) == labels
