"""What a discriminator has learned without labels: its activations as features, and a linear classifier of them.

    d = frozen(d, pictures)
    x = features(d, pictures)          max-pooled maps of all its layers, a row for each picture
    all_labels(...), few_labels(...)   the paper's two protocols: how well an L2-SVM of these rows does

Source: A. Radford, L. Metz, S. Chintala, arXiv:1511.06434, section 5, and the authors' code for SVHN. The classifier is
scikit-learn's: ``pip install -e ".[analysis]"``.
"""

import copy
import importlib
import itertools
import warnings

import numpy as np

from nanogan.analysis.networks import pictures_for
from nanogan.backend import array_module, seeded_rng, squared_distances, to_numpy
from nanogan.data.loader import Loader
from nanogan.errors import UserError
from nanogan.games.dcgan import adversarial_step
from nanogan.games.drawing import draw_z
from nanogan.layers import BatchNorm2d, LeakyReLU, ReLU
from nanogan.models import dcgan
from nanogan.optim import Adam

SIDE = 4
GRID = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)  # of C; the authors' code ends at 1e-2
COARSE = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


# ------------------------------------------------------------------------------------------------------- features


def features(d, pictures, *, batch_size=100, progress=None):
    """Return the features of pictures, uint8 (N, H, W, C): float32 NumPy (N, M).

    After each of d's activations the maps are max-pooled to 4 x 4, and all are laid one after the other: M is 16 times
    the number of maps. In eval mode. ``progress`` wraps the batches (tqdm).
    """
    rows = [
        _of_batch(d, pictures_for(d, pictures[start : start + batch_size]))
        for start in (progress or iter)(range(0, len(pictures), batch_size))
    ]
    return np.concatenate(rows)


def _of_batch(d, x):
    """The features (B, M) of x (B, C, H, W)."""
    found = []
    for layer in d.layers:
        x, _ = layer.forward(x, train=False)
        if isinstance(layer, (ReLU, LeakyReLU)):
            found.append(to_numpy(pooled(x)).reshape(len(x), -1))
    if not found:
        raise UserError("features expected a network with ReLU or LeakyReLU activations, it has none")
    return np.concatenate(found, axis=1)


def pooled(y, side=SIDE):
    """Max-pool maps y (N, C, H, W) to (N, C, side, side), as torch.nn.AdaptiveMaxPool2d.

    Cell i reaches from floor(i H / side) to ceil((i + 1) H / side): where side does not divide H, cells overlap.
    """
    N, C, H, W = y.shape
    result = array_module(y).empty((N, C, side, side), y.dtype)
    for i in range(side):
        rows = slice(i * H // side, -(-(i + 1) * H // side))
        for j in range(side):
            columns = slice(j * W // side, -(-(j + 1) * W // side))
            result[:, :, i, j] = y[:, :, rows, columns].max(axis=(2, 3))
    return result


def frozen(d, pictures, *, batch_size=128, progress=None):
    """Return a copy of ``d`` whose BatchNorm statistics are the means over the batches of ``pictures``.

    As the authors' code for SVHN has it, in place of the running statistics, which remember the last batches best and
    hold drawn pictures too. A last batch that is shorter is left out. ``progress`` wraps the batches (tqdm).
    """
    d = copy.deepcopy(d)
    norms = [layer for _, layer in d.named_layers() if isinstance(layer, BatchNorm2d)]
    before = [layer.momentum for layer in norms]
    size = min(batch_size, len(pictures))
    for i in (progress or iter)(range(len(pictures) // size)):
        for layer in norms:
            layer.momentum = 1 / (i + 1)  # the mean of i + 1 numbers, from the mean of i and the next one
        d.forward(pictures_for(d, pictures[i * size : (i + 1) * size]), train=True)
    for layer, momentum in zip(norms, before, strict=True):
        layer.momentum = momentum
    return d


def train(d, pictures, *, epochs, batch_size=128, latent=100, lr=2e-4, seed=0, device="cpu", progress=None):
    """Train ``d`` in a game with a DCGAN generator of its size and width, without labels; return the generator.

    pictures uint8 (N, H, W, C). The paper's batches and Adam. ``progress`` wraps the iteration over all steps (tqdm).
    """
    loader = Loader(pictures, batch_size=min(batch_size, len(pictures)), seed=seed, drop_last=True, device=device)
    shape = {"image_size": d.image_size, "channels": d.channels, "width": d.width}
    g = dcgan.generator(latent=latent, rng=seeded_rng(seed, "weights of g"), **shape).to(device)
    opt_g, opt_d = Adam(g, lr=lr, betas=(0.5, 0.999)), Adam(d, lr=lr, betas=(0.5, 0.999))
    rng = seeded_rng(seed, "noise")
    batches = itertools.chain.from_iterable(map(loader.epoch, range(epochs)))
    for _ in (progress or iter)(range(epochs * len(loader))):
        real = next(batches)["images"]
        adversarial_step(g, d, opt_g, opt_d, real, draw_z(rng, len(real), latent, device=device))
    return g


# ------------------------------------------------------------------------------------------------------ baselines


def pixels(pictures):
    """The raw pixels, uint8 (N, H, W, C) -> float32 (N, H*W*C), -1 to 1."""
    return pictures.reshape(len(pictures), -1).astype(np.float32) / 127.5 - 1


class KMeans:
    """Features of a picture's patches: how near they are to the centres that k-means found among many patches.

    Patches of ``size`` x ``size`` are normalised (mean 0, contrast 1) and whitened; a patch p gives, for each centre c,
    max(0, mean distance to all centres - |p - c|); these are summed over each quarter of the picture: 4 ``count``
    features. Source: A. Coates, H. Lee, A. Ng, "An analysis of single-layer networks in unsupervised feature learning",
    AISTATS 2011, sections 3.2 and 4, whose numbers for CIFAR-10 the paper compares with.
    """

    def __init__(self, pictures, *, count=400, size=6, patches=100_000, seed=0):
        rng = seeded_rng(seed, "patches")
        self.size = size
        N, H, W, _ = pictures.shape
        i, top, left = (rng.integers(0, high, patches) for high in (N, H - size + 1, W - size + 1))
        window = np.arange(size)
        some = pictures[i[:, None, None], (top[:, None] + window)[:, :, None], (left[:, None] + window)[:, None, :]]
        some = _normalised(some.reshape(patches, -1).astype(np.float32))
        self.mean = some.mean(axis=0)
        eigenvalues, vectors = np.linalg.eigh(np.cov(some - self.mean, rowvar=False))
        self.whiten = ((vectors / np.sqrt(eigenvalues + 0.1)) @ vectors.T).astype(np.float32)  # ZCA
        found = sklearn("cluster").MiniBatchKMeans(count, batch_size=4096, n_init=1, random_state=seed)
        self.centres = found.fit((some - self.mean) @ self.whiten).cluster_centers_.astype(np.float32)

    def features(self, pictures, *, progress=None):
        """Return the features of pictures, uint8 (N, H, W, C): float32 (N, 4 count)."""
        rows = [self._of_one(picture) for picture in (progress or iter)(pictures)]
        return np.stack(rows)

    def _of_one(self, picture):
        C = picture.shape[2]
        windows = np.lib.stride_tricks.sliding_window_view(picture, (self.size, self.size), axis=(0, 1))
        OH, OW = windows.shape[:2]
        patches = windows.transpose(0, 1, 3, 4, 2).reshape(OH * OW, self.size**2 * C).astype(np.float32)
        patches = (_normalised(patches) - self.mean) @ self.whiten  # (OH*OW, M)
        distances = np.sqrt(squared_distances(patches, self.centres))  # (OH*OW, count)
        near = np.maximum(distances.mean(axis=1, keepdims=True) - distances, 0).reshape(OH, OW, -1)
        h, w = OH // 2, OW // 2
        quarters = near[:h, :w], near[:h, w:], near[h:, :w], near[h:, w:]
        return np.concatenate([quarter.sum(axis=(0, 1)) for quarter in quarters])


def _normalised(patches):
    """Each row (N, M), pixels from 0 to 255, less its mean, over its standard deviation; 10 keeps noise small."""
    patches = patches - patches.mean(axis=1, keepdims=True)
    return patches / np.sqrt(patches.var(axis=1, keepdims=True) + 10)


# ----------------------------------------------------------------------------------------------------- protocols


def scaled(train, *others):
    """Divide features (N, M) by the root mean square of ``train``'s, so that one grid of C suits every kind of them."""
    size = np.sqrt(np.einsum("nm,nm->", train, train, dtype=np.float64) / train.size)
    return [each / np.float32(size or 1) for each in (train, *others)]


def in_their_span(train, *others):
    """Turn features (n, M) so that all of ``train`` lies in n of the M directions, and keep these: (., n) each.

    An L2-SVM's weights are a sum of its training rows, so those of ``others`` that stand at right angles to all of them
    change nothing: same predictions, from n numbers a picture in place of M. With train = U S V', it gets U S. Where M
    is not much larger than n, that saves nothing, and features stay as they are.
    """
    if train.shape[1] < 2 * len(train):
        return [train, *others]
    gram = (train @ train.T).astype(np.float64)  # (n, n) = U S^2 U'
    squares, U = np.linalg.eigh(gram)
    kept = squares > 1e-9 * squares[-1]
    to_coordinates = train.T @ (U[:, kept] / np.sqrt(squares[kept])).astype(train.dtype)  # (M, n): V
    return [each @ to_coordinates for each in (train, *others)]


def svm(x, labels, C):
    """Return scikit-learn's linear L2-SVM (squared hinge loss, one against the rest) of x (N, M) and labels (N,)."""
    with warnings.catch_warnings():  # where it has not come to rest after 200 rounds, C is too large in any case
        warnings.simplefilter("ignore", sklearn("exceptions").ConvergenceWarning)
        return sklearn("svm").LinearSVC(C=C, dual=True, tol=1e-3, max_iter=200, random_state=0).fit(x, labels)


def all_labels(train, labels, test, test_labels, *, grid=COARSE, held_out=0.2, seed=0, progress=None):
    """Choose C on a held-out share of ``train``, train with all of it, and test.

    train (N, M) and test (T, M) features, labels (N,) and (T,). C goes up ``grid`` until the error on what was held out
    rises: a large C takes longest. Returns {"C", "validation_error", "error"}, shares of
    pictures. ``progress`` wraps the grid (tqdm).

    Raises UserError if those that teach are of one class, or none is held out.
    """
    order = seeded_rng(seed, "held out").permutation(len(train))
    hold, rest = np.split(order, [int(held_out * len(train))])
    _check(labels[rest], hold)
    errors = []
    for C in (progress or iter)(grid):
        errors.append(_error(svm(train[rest], labels[rest], C), train[hold], labels[hold]))
        if errors[-1] > min(errors):
            break
    best = int(np.argmin(errors))
    return {
        "C": grid[best],
        "validation_error": errors[best],
        "error": _error(svm(train, labels, grid[best]), test, test_labels),
    }


def few_labels(
    train, labels, validation, test, *, per_class=100, choosing=10, draws=100, grid=GRID, seed=0, progress=None
):
    """Train with ``per_class`` labels of each class, drawn anew ``draws`` times; return the errors' mean and spread.

    train (N, M), labels (N,); validation and test are pairs of features and labels. The first ``choosing`` draws choose
    C, by their mean error on ``validation``; then ``draws`` others are tested. Returns {"C", "validation_error",
    "error", "spread"}; spread is 1.96 standard deviations of one draw's error. ``progress`` wraps the draws (tqdm).

    Raises UserError if a class has fewer pictures, there is one class, or nothing to choose with or to test.
    """
    _check(labels, validation[0], test[0])
    rng = seeded_rng(seed, "labels")
    classes = [np.flatnonzero(labels == each) for each in np.unique(labels)]
    if min(map(len, classes)) < per_class:
        raise UserError(
            f"{per_class} labels of each class were asked for, one has {min(map(len, classes))}: use more pictures"
        )
    chosen, errors = np.zeros((choosing, len(grid))), []
    for i in (progress or iter)(range(choosing + draws)):
        some = np.concatenate([rng.choice(each, per_class, replace=False) for each in classes])
        x, y = in_their_span(train[some], (validation if i < choosing else test)[0])
        if i < choosing:
            chosen[i] = [_error(svm(x, labels[some], C), y, validation[1]) for C in grid]
        else:
            C = grid[int(chosen.mean(axis=0).argmin())]
            errors.append(_error(svm(x, labels[some], C), y, test[1]))
    return {
        "C": C,
        "validation_error": float(chosen.mean(axis=0).min()),
        "error": float(np.mean(errors)),
        "spread": float(1.96 * np.std(errors)),
    }


def _check(labels, *others):
    """Raise UserError unless labels are of two classes or more, and there are others to tell."""
    if len(np.unique(labels)) < 2:
        raise UserError(f"a classifier expected pictures of 2 classes or more, got {len(np.unique(labels))}: use more")
    if not all(map(len, others)):
        raise UserError("a classifier expected pictures to choose C with and to be tested on, got none: use more")


def _error(classifier, x, labels):
    return float((classifier.predict(x) != labels).mean())


def sklearn(part):
    """Return scikit-learn's module ``part``. Raises UserError if it is not installed, saying how to get it."""
    try:
        return importlib.import_module(f"sklearn.{part}")
    except ImportError:
        raise UserError('scikit-learn is missing, whose classifier this uses: pip install -e ".[analysis]"') from None
