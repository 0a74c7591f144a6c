"""A data set of which a few images have labels: what learns from both kinds is given columns of both."""

import numpy as np

from nanogan.backend import seeded_rng
from nanogan.errors import UserError


def few_labels(images, labels, count, *, seed=0):
    """Return three columns for :class:`nanogan.data.Loader`, all as long as ``images``.

        images    all images; none of their labels is among the columns
        labelled  ``count`` of the images, over and over
        labels    the labels of ``labelled``

    images: uint8 (N, H, W, C), or what can be indexed like such an array; labels: integers (N,), 0 to K - 1. The
    labelled images are chosen at random, by ``seed`` alone, equally many of each class; where ``count`` is no multiple
    of K, the first classes have one more.

    Raises UserError if there are no labels, if ``count`` is less than K or more than N, or if a class has too few.
    """
    if labels is None:
        raise UserError(
            "images with labels were expected, to choose a few labelled ones, got images alone: use a data set with "
            "labels, or a folder with a folder of images for each class"
        )
    labels = np.asarray(labels).astype(np.int64)
    N, K = len(images), int(labels.max()) + 1 if len(labels) else 0
    if count < K:
        raise UserError(f"a label for at least one image of each of the {K} classes was expected, got {count} labels")
    if count > N:
        raise UserError(f"at most as many labels as images were expected, got {count} labels for {N} images")
    rng, chosen = seeded_rng(seed, "images with labels"), []
    for k in range(K):
        of_class, wanted = np.flatnonzero(labels == k), count // K + (k < count % K)
        if len(of_class) < wanted:
            raise UserError(f"{wanted} labelled images of class {k} were asked for, but it has {len(of_class)} images")
        chosen.append(rng.choice(of_class, wanted, replace=False))
    chosen = np.sort(np.concatenate(chosen))
    return {
        "images": images,
        "labelled": Repeated(images[chosen], N),
        "labels": np.asarray(Repeated(labels[chosen], N)[:]),
    }


class Repeated:
    """A column of ``length`` samples, of which there are fewer: sample i is ``samples[i % len(samples)]``."""

    def __init__(self, samples, length):
        self.samples, self.dtype, self.shape = samples, samples.dtype, (length, *samples.shape[1:])

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, indices):
        return self.samples[np.arange(len(self))[indices] % len(self.samples)]
