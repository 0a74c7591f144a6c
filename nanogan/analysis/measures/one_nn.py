"""Pictures drawn on demand, and how well they teach: what the 1-NN score of a conditional generator is made from."""

import numpy as np

from nanogan import images
from nanogan.analysis.measures.scores import one_nn_errors
from nanogan.backend import seeded_rng
from nanogan.errors import UserError
from nanogan.games.drawing import draw_z, sample
from nanogan.models.conditional import join, one_hot

PART = 1000  # pictures that are drawn at a time


def draw(g, z, labels, shape):
    """Return images of ``labels`` (N,), uint8 (N, H, W, C), of a conditional generator ``g``.

    z (N, latent), NumPy; shape (C, H, W), to which pictures of another order of pixels are brought. BatchNorm uses its
    running statistics, so that a picture depends on its own z and label alone.
    """
    joined = g.array_module.asarray(join(z, one_hot(labels, g.classes)))
    return images.to_uint8(sample(g, joined).reshape(-1, *shape))


def drawn_parts(g, shape, *, count, seed=0):
    """Yield pairs of ``count`` pictures in all and their labels, up to PART a time; labels are drawn like dice."""
    rng = seeded_rng(seed, "drawn on demand")
    for start in range(0, count, PART):
        labels = rng.integers(0, g.classes, min(PART, count - start))
        yield draw(g, draw_z(rng, len(labels), g.latent), labels, shape), labels


def noise_parts(shape, *, classes, count, seed=0):
    """Yield pairs as :func:`drawn_parts` does, of random pixels and random labels: what teaches nothing."""
    rng = seeded_rng(seed, "noise")
    C, H, W = shape
    for start in range(0, count, PART):
        labels = rng.integers(0, classes, min(PART, count - start))
        yield rng.integers(0, 256, (len(labels), H, W, C), dtype=np.uint8), labels


def parts_of(pictures, labels):
    """Yield pairs as :func:`drawn_parts` does, of given pictures and labels, in their order."""
    for start in range(0, len(pictures), PART):
        yield pictures[start : start + PART], labels[start : start + PART]


def errors_at(counts, parts, pictures, labels):
    """Return {count: 1-NN error} on real ``pictures`` (M, ...) with ``labels`` (M,) when so many have taught.

    ``parts`` as :func:`drawn_parts` yields them. Of ``counts``, those are told at which a part ends; besides, the count
    of all. Computed in float32.
    """
    errors = dict(one_nn_errors(parts, pictures, labels, dtype=np.float32))
    last = max(errors, default=0)
    return {count: error for count, error in errors.items() if count in counts or count == last}


def hold_out(count):
    """Return the indices of ``count`` images that are trained on, and of the random sixth that is held out.

    They depend on ``count`` alone and not on a seed, so that no script trains on what another one judges with. Random,
    because some sets are sorted by class. Raises UserError for fewer than 6 images.
    """
    if count < 6:
        raise UserError(f"to hold out a sixth of the images, at least 6 were expected, got {count}: use more images")
    order = seeded_rng(0, "held out").permutation(count)
    return order[: count - count // 6], order[count - count // 6 :]
