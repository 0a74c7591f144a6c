"""A small classifier of pictures, trained with nanogan; its last hidden layer is the feature space of the scores.

    pictures (N, C, S, S) -> 4x4 conv, w maps -> 4x4 conv, 2w maps -> linear, 64 features -> linear, K logits

Both convolutions halve the map and end in BatchNorm and LeakyReLU, as a DCGAN's discriminator does; the features end in
BatchNorm and ReLU, so that each is of size 1 or so.
"""

from numbers import Integral

import numpy as np

from nanogan import checkpoint, images
from nanogan.backend import seeded_rng, to_numpy
from nanogan.errors import TrainingDiverged, UserError
from nanogan.layers import BatchNorm1d, BatchNorm2d, Conv2d, Flatten, LeakyReLU, Linear, ReLU, Sequential
from nanogan.ops import cross_entropy_backward, cross_entropy_forward
from nanogan.optim import Adam, supervised_step

FEATURES = 64


class Classifier(Sequential):
    """Logits (N, classes) from pictures (N, channels, image_size, image_size) of numbers from -1 to 1.

    Attributes: image_size, channels, width, classes, path (the file that it is from, or None).
    """

    path = None

    def __init__(self, *, image_size=28, channels=1, width=32, classes=10, rng=None, dtype=np.float32):
        counts = {"image_size": image_size, "channels": channels, "width": width, "classes": classes}
        for name, count in counts.items():
            if not isinstance(count, Integral) or count < 1:
                raise UserError(f"{name} expected a whole number of at least 1, got {count!r}")
        if image_size % 4:
            raise UserError(f"a classifier halves its pictures twice: image_size {image_size} is no multiple of 4")
        options = {"rng": rng or np.random.default_rng(), "dtype": dtype}
        convolution = {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False, **options}
        super().__init__(
            Conv2d(channels, width, **convolution),
            BatchNorm2d(width, dtype=dtype),
            LeakyReLU(negative_slope=0.2),
            Conv2d(width, 2 * width, **convolution),
            BatchNorm2d(2 * width, dtype=dtype),
            LeakyReLU(negative_slope=0.2),
            Flatten(),
            Linear(2 * width * (image_size // 4) ** 2, FEATURES, bias=False, **options),
            BatchNorm1d(FEATURES, dtype=dtype),
            ReLU(),
            Linear(FEATURES, classes, **options),
        )
        self.image_size, self.channels, self.width, self.classes = image_size, channels, width, classes

    def forward(self, x, train=True):
        self.check(x)
        return super().forward(x, train=train)

    def check(self, x):
        """Raise UserError unless x is a batch of pictures of this network's shape."""
        expected = (self.channels, self.image_size, self.image_size)
        if x.shape[1:] != expected:
            expected = ", ".join(map(str, expected))
            raise UserError(f"the classifier expected pictures (N, {expected}), got {x.shape}{self._advice(x.shape)}")

    def _advice(self, shape):
        """What to do about pictures of another shape, if this network is from a file."""
        if self.path is None:
            return ""
        advice = f"; {self.path} was trained on the former"
        C, H, W = shape[1:] if len(shape) == 4 else (0, 0, 0)
        if C in (1, 3) and H == W and H % 4 == 0:
            advice += f", python examples/train_classifier.py --image-size {H} --channels {C} trains one on the latter"
        return advice


def load_classifier(path):
    """Return the classifier saved in ``path``, on the CPU; its sizes are inferred from its arrays' shapes.

    Raises UserError if there is no such file, or if it holds something else.
    """
    state = checkpoint.read(path)
    try:
        convolution, hidden, last = (state[name] for name in ("0.weight", "7.weight", "10.weight"))
        width, channels = convolution.shape[:2]
        side = int((hidden.shape[1] / (2 * width)) ** 0.5 + 0.5)
        classes = len(last)
        # Nothing is built from these numbers unless the file holds arrays of just these shapes.
        shapes = (width, channels, 4, 4), (FEATURES, 2 * width * side**2), (classes, FEATURES)
        if shapes != (convolution.shape, hidden.shape, last.shape):
            raise KeyError
        network = Classifier(image_size=4 * side, channels=channels, width=width, classes=classes)
        checkpoint.copy_state(state, network)
    except (KeyError, ValueError, IndexError, TypeError, ZeroDivisionError):  # a UserError is a ValueError
        raise UserError(
            f"{path} is not a classifier of nanogan's: train one with python examples/train_classifier.py; the file "
            f"holds {checkpoint.described(state)}"
        ) from None
    if not all(np.isfinite(array).all() for array in network.state_dict().values()):
        raise UserError(f"{path} is not a classifier: its weights are not finite numbers")
    network.path = path
    return network


def train_classifier(network, pictures, labels, *, epochs=4, batch_size=128, lr=2e-3, seed=0, progress=None):
    """Train ``network`` on pictures, uint8 (N, H, W, C), and labels (N,), in place; return the last epoch's mean loss.

    Softmax cross entropy, Adam, a learning rate that falls linearly to 0. The order of the pictures depends on ``seed``
    and the epoch alone. ``progress`` wraps the iteration over all steps (tqdm). A last batch of one picture is left
    out: BatchNorm has nothing to compare it with.

    Raises UserError if labels are not the classifier's, TrainingDiverged if the loss is not finite.
    """
    labels = np.asarray(labels).astype(np.int64)
    if len(labels) != len(pictures) or len(labels) < 2:
        raise UserError(
            f"training a classifier expected at least 2 pictures, each with its label, "
            f"got {len(pictures)} and {len(labels)}"
        )
    if labels.min() < 0 or labels.max() >= network.classes:
        raise UserError(
            f"a classifier of {network.classes} classes expected labels from 0 to {network.classes - 1}, "
            f"got {labels.min()} to {labels.max()}"
        )
    optimizer = Adam(network, lr=lr)
    starts = [i for i in range(0, len(pictures), batch_size) if len(pictures) - i > 1]
    steps, losses = epochs * len(starts), []
    for step in (progress or iter)(range(steps)):
        epoch, batch = divmod(step, len(starts))
        if batch == 0:
            order, losses = seeded_rng(seed, f"order of epoch {epoch}").permutation(len(pictures)), []
        chosen = order[starts[batch] : starts[batch] + batch_size]
        x, target = _to_batch(network, pictures[chosen]), network.array_module.asarray(labels[chosen])
        optimizer.lr = lr * (1 - step / steps)
        losses.append(supervised_step(network, optimizer, x, target, cross_entropy_forward, cross_entropy_backward))
    mean = float(sum(losses)) / len(losses)
    if not np.isfinite(mean):
        raise TrainingDiverged("the classifier's loss is no longer finite; try a lower learning rate")
    return mean


def classify(network, pictures, *, batch_size=256, progress=None):
    """Return what a classifier sees in pictures: features (N, 64) and probabilities (N, classes), NumPy float64.

    pictures: uint8 (N, H, W, C), or (N, C, H, W) from -1 to 1 on either device. The latter are rounded to 8 bits first,
    as a file would hold them, so that drawn and real pictures are treated alike. ``progress`` wraps the iteration.
    """
    features, probabilities = [], []
    for i in (progress or iter)(range(0, len(pictures), batch_size)):
        x = _to_batch(network, images.to_uint8(pictures[i : i + batch_size]))
        network.check(x)
        y, _ = network[:-1].forward(x, train=False)
        logits, _ = network[-1].forward(y, train=False)
        features.append(to_numpy(y).astype(np.float64))
        logits = to_numpy(logits).astype(np.float64)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))  # the largest is 1: nothing overflows
        probabilities.append(exponentials / exponentials.sum(axis=1, keepdims=True))
    if not features:
        raise UserError("a classifier expected at least one picture, got none")
    return np.concatenate(features), np.concatenate(probabilities)


def _to_batch(network, pixels):
    """uint8 (N, H, W, C) -> (N, C, H, W) from -1 to 1, in the dtype and on the device of ``network``."""
    return images.from_uint8(network.array_module.asarray(pixels), network.dtype)
