"""Does a generator copy its training pictures? Its samples beside the nearest of them, in pixels and in features.

Pictures are uint8 (N, H, W, C) here, 0 to 255: an array, or what is indexed like one, such as a PictureFolder. How far
two of them are apart is the root mean square difference of the numbers that an ``embed`` makes of each:
:func:`in_pixels`, or :func:`in_features` of a discriminator.
"""

import numpy as np

from nanogan.analysis.networks import first_layers, pictures_for
from nanogan.backend import squared_distances, to_numpy
from nanogan.errors import UserError

SAMPLE = 1000  # pictures that a basis of principal directions is taken from


def in_pixels(pictures):
    """uint8 (N, H, W, C) -> float32 (N, H*W*C), 0 to 255: distances are in levels of a pixel."""
    return pictures.reshape(len(pictures), -1).astype(np.float32)


def in_features(d, layer=None):
    """Return an embedding: uint8 (N, H, W, C) -> float32 (N, M), what ``d`` has after its layer number ``layer``.

    In eval mode; layers are counted from 0. If not given, it is the last before the convolution that gives the logit.
    """
    features = first_layers(d, len(d) - 3 if layer is None else layer)

    def embed(pictures):
        seen, _ = features.forward(pictures_for(d, pictures), train=False)
        return to_numpy(seen).reshape(len(pictures), -1)

    return embed


def nearest(queries, pictures, *, embed=in_pixels, count=1, batch_size=500, progress=None):
    """Return the ``count`` nearest of ``pictures`` to each of ``queries``: indices and distances, both (Q, count).

    Nearest first. Candidates are found by :func:`nanogan.backend.squared_distances`, one matrix product for a batch of
    pictures. The distances of those that are kept are computed from a - b: that product leaves rounding errors where
    a = b.
    ``progress`` wraps the batches (tqdm). Raises UserError if there are not so many pictures.
    """
    if not 1 <= count <= len(pictures):
        raise UserError(f"the nearest {count} were asked for, but there are {len(pictures)} pictures")
    a = embed(queries)  # (Q, M)
    own = (a * a).sum(axis=1)  # (Q,)
    indices = np.zeros((len(a), 0), np.int64)
    distances = np.zeros((len(a), 0))
    for start in (progress or iter)(range(0, len(pictures), batch_size)):
        b = embed(pictures[start : start + batch_size])  # (B, M)
        squares = squared_distances(a, b)  # (Q, B)
        few = min(count, len(b))
        found = np.argpartition(squares, few - 1, axis=1)[:, :few]
        exact = np.full(found.shape, np.inf)
        limit = np.full(len(a), np.inf)  # beyond which nothing displaces the nearest so far
        if distances.shape[1] == count:
            limit = distances[:, -1] ** 2 * a.shape[1] + 1e-5 * (own + (b * b).sum(axis=1).max())
        rows, columns = np.nonzero(np.take_along_axis(squares, found, axis=1) <= limit[:, None])
        for i in range(0, len(rows), 1000):
            at = rows[i : i + 1000], columns[i : i + 1000]
            exact[at] = rms(a[at[0]], b[found[at]])
        indices = np.concatenate([indices, found + start], axis=1)
        distances = np.concatenate([distances, exact], axis=1)
        best = np.argsort(distances, axis=1, kind="stable")[:, :count]
        indices, distances = (np.take_along_axis(each, best, axis=1) for each in (indices, distances))
    return indices, distances


def rms(a, b):
    """The root mean square of a - b over everything but the first axis, (N,), in float64."""
    difference = (a - b).reshape(len(a), -1).astype(np.float64)
    return np.sqrt((difference * difference).mean(axis=1))


def copying(samples, unseen):
    """The probability that a sample is nearer to the training set than an unseen picture is; ties count half.

    ``samples`` and ``unseen`` are distances to the nearest training picture, (N,) and (M,). 0.5 says that samples are
    as far away as new pictures are, 1 that every one is nearer: copies, or pictures that are smoother than real ones.
    Mann and Whitney's U / NM. Source: C. Meehan, K. Chaudhuri, S. Dasgupta, arXiv:2004.05675, section 3.
    """
    samples, unseen = np.asarray(samples)[:, None], np.asarray(unseen)[None]
    return float((samples < unseen).mean() + (samples == unseen).mean() / 2)


def relative(distances):
    """Distances to the nearest pictures (Q, count), nearest first -> the first over the mean of all, (Q,), 0 to 1.

    0 is a copy of one picture; about 1 is as near to many. The plain distance would call simple pictures copies, which
    are near to many. Source: N. Carlini et al., arXiv:2301.13188, section 5.1 (with alpha = 1).
    """
    means = distances.mean(axis=1)
    return distances[:, 0] / np.where(means > 0, means, 1)


def duplicates(pictures, *, threshold=0.0, batch_size=500, progress=None):
    """Return groups of equal pictures: lists of two or more indices, each in order, ordered by their first.

    ``threshold``: pictures are equal whose distance in pixels is at most that (:func:`in_pixels`), and so are two that
    are equal to a third. At 0 they are compared byte by byte. Otherwise each is compared with each: a projection onto
    orthonormal directions makes no distance larger, so only pairs that are near in the few principal ones can be near,
    and only those are measured. Then all pictures are held in memory. ``progress`` wraps the batches (tqdm).
    """
    if not threshold >= 0:
        raise UserError(f"duplicates expected a threshold of at least 0, got {threshold}")
    parents = np.arange(len(pictures))  # of a forest: a group's pictures lead to one of them
    first, kept = {}, []
    starts = range(0, len(pictures), batch_size)
    for start in starts if threshold else (progress or iter)(starts):
        batch = pictures[start : start + batch_size]
        for i, picture in enumerate(batch, start=start):
            parents[i] = first.setdefault(picture.tobytes(), i)
        kept += [batch[i - start] for i in range(start, start + len(batch)) if parents[i] == i and threshold]
    if threshold:
        _join_near(np.flatnonzero(parents == np.arange(len(parents))), np.stack(kept), threshold, parents, progress)
    groups = {}
    for i in range(len(parents)):
        groups.setdefault(root(parents, i), []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def _join_near(numbers, pictures, threshold, parents, progress):
    """Join in ``parents`` those of ``pictures``, whose indices there are ``numbers``, that are near each other."""
    basis = _principal_directions(pictures)
    projected = np.concatenate([in_pixels(pictures[i : i + 500]) @ basis for i in range(0, len(pictures), 500)])
    limit = threshold**2 * pictures[0].size  # of the squared distance
    slack = 1e-5 * float((projected * projected).sum(axis=1).max())  # for the product's rounding errors
    for start in (progress or iter)(range(0, len(pictures), 250)):
        block = slice(start, start + 250)
        bounds = squared_distances(projected[block], projected[start:])
        left, right = np.nonzero(bounds <= limit + slack)
        left, right = left[left < right] + start, right[left < right] + start
        for i in range(0, len(left), 500):
            a, b = left[i : i + 500], right[i : i + 500]
            near = rms(in_pixels(pictures[a]), in_pixels(pictures[b])) <= threshold
            for one, other in zip(numbers[a[near]], numbers[b[near]], strict=True):
                parents[root(parents, other)] = root(parents, one)


def _principal_directions(pictures, count=48):
    """Orthonormal columns (M, count) along which some of the pictures vary most."""
    some = in_pixels(pictures[np.linspace(0, len(pictures) - 1, min(SAMPLE, len(pictures))).astype(int)])
    _, _, directions = np.linalg.svd(some - some.mean(axis=0), full_matrices=False)
    return directions[:count].T


def root(parents, i):
    """Follow ``parents`` from i to what leads to itself: the same for all that were joined. Shortens the way."""
    while parents[i] != i:
        parents[i] = i = parents[parents[i]]
    return int(i)
