"""A judge of several attributes at once, each of which has several values: what a caption names, found in the image."""

import numpy as np

from nanogan.analysis.judges.classifier import Classifier
from nanogan.backend import array_module, seeded_rng, to_device, to_numpy
from nanogan.errors import UserError
from nanogan.images import from_uint8
from nanogan.ops import cross_entropy_backward, cross_entropy_forward
from nanogan.optim import Adam, supervised_step

NOISE = 0.1  # added to images in training, which go from -1 to 1: what a GAN generates is never as clean as the data


class AttributeJudge:
    """Says of images which value each attribute has.

    One :class:`nanogan.analysis.judges.classifier.Classifier` with a logit for each value of each attribute; of an
    attribute's logits the largest one counts. Attributes: network, sizes ({attribute: number of values}).
    """

    def __init__(self, network, sizes):
        self.network, self.sizes = network, dict(sizes)

    def __call__(self, images, *, batch_size=256):
        """Return {attribute: int64 (N,)} for images: uint8 (N, S, S, C), or (N, C, S, S) from -1 to 1."""
        if images.dtype == np.uint8:
            images = to_device(from_uint8(images), self.network.device)
        batches = range(0, len(images), batch_size)
        logits = [self.network.forward(images[i : i + batch_size], train=False)[0] for i in batches]
        logits = to_numpy(array_module(images).concatenate(logits))
        return {name: logits[:, part].argmax(axis=1) for name, part in parts_of(self.sizes).items()}

    def agreement(self, images, attributes):
        """Return {attribute: share of the images whose value is that in ``attributes``}, and "all": of all at once."""
        found = self(images)
        right = {name: found[name] == np.asarray(attributes[name]) for name in self.sizes}
        return {name: float(each.mean()) for name, each in right.items()} | {
            "all": float(np.all(list(right.values()), axis=0).mean())
        }


def parts_of(sizes):
    """{attribute: the slice of the logits that are its}."""
    ends = np.cumsum([0, *sizes.values()]).tolist()
    return {name: slice(*ends[i : i + 2]) for i, name in enumerate(sizes)}


def train_attribute_judge(
    images, attributes, *, epochs=3, batch_size=64, lr=2e-3, width=16, seed=0, device="cpu", progress=None
):
    """Train and return an :class:`AttributeJudge`: the sum of each attribute's cross entropy, Adam, lr falling to 0.

    images: uint8 (N, S, S, C), S a multiple of 4; attributes: {name: integers (N,), from 0}. ``progress`` wraps the
    iteration over steps (tqdm). Raises UserError for no attribute, fewer than two images, and for another size.
    """
    if not attributes or len(images) < 2:
        raise UserError(
            f"a judge expected at least two images and an attribute of them, got {len(images)} and {len(attributes)}"
        )
    sizes = {name: int(np.max(values)) + 1 for name, values in attributes.items()}
    parts, labels = parts_of(sizes), np.stack([np.asarray(values, np.int64) for values in attributes.values()], axis=1)
    _, S, _, C = images.shape
    rng, noise = seeded_rng(seed, "attribute judge"), seeded_rng(seed, "attribute judge's noise")
    network = Classifier(image_size=S, channels=C, width=width, classes=sum(sizes.values()), rng=rng).to(device)
    optimizer = Adam(network, lr=lr)

    def forward(logits, target):
        pairs = [cross_entropy_forward(logits[:, part], target[:, i]) for i, part in enumerate(parts.values())]
        return sum(loss for loss, _ in pairs), [cache for _, cache in pairs]

    def backward(dy, caches):
        return array_module(caches[0][0]).concatenate([cross_entropy_backward(dy, each) for each in caches], axis=1)

    N = len(images)
    batches = [order[i : i + batch_size] for order in map(rng.permutation, [N] * epochs)
               for i in range(0, N, batch_size) if N - i > 1]  # fmt: skip
    for step, batch in enumerate((progress or iter)(batches)):
        x = from_uint8(images[batch])
        x = to_device(x + NOISE * noise.standard_normal(x.shape, dtype=np.float32), device)
        optimizer.lr = lr * (1 - step / len(batches))
        supervised_step(network, optimizer, x, to_device(labels[batch], device), forward, backward)
    return AttributeJudge(network, sizes)
