"""A judge of several attributes at once, each of which has several values: what a caption names, found in the image."""

import numpy as np

from nanogan.analysis.judges.attributes import as_network_input, fit
from nanogan.backend import array_module, get_device, to_device, to_numpy
from nanogan.errors import UserError


class AttributeJudge:
    """Says of images which value each attribute has.

    One network of :func:`nanogan.analysis.judges.attributes.classifier` with a logit for each value of each attribute;
    of an attribute's logits the largest one counts. Attributes: network, sizes ({attribute: number of values}).
    """

    def __init__(self, network, sizes):
        self.network, self.sizes = network, dict(sizes)

    def __call__(self, images, *, batch_size=256):
        """Return {attribute: int64 (N,)} for images: uint8 (N, S, S, C), or (N, C, S, S) from -1 to 1."""
        if images.dtype == np.uint8:
            images = to_device(as_network_input(images), self.network.device)
        batches = range(0, len(images), batch_size)
        logits = [self.network.forward(images[i : i + batch_size], train=False)[0] for i in batches]
        logits, found, start = to_numpy(array_module(images).concatenate(logits)), {}, 0
        for name, size in self.sizes.items():
            found[name] = logits[:, start : start + size].argmax(axis=1)
            start += size
        return found

    def agreement(self, images, attributes):
        """Return {attribute: share of the images whose value is that in ``attributes``}, and "all": of all at once."""
        found = self(images)
        right = {name: found[name] == np.asarray(attributes[name]) for name in self.sizes}
        return {name: float(each.mean()) for name, each in right.items()} | {
            "all": float(np.all(list(right.values()), axis=0).mean())
        }


def train_attribute_judge(images, attributes, *, epochs=3, seed=0, device="cpu", progress=None):
    """Train and return an :class:`AttributeJudge`.

    images: uint8 (N, S, S, C), S a multiple of 8; attributes: {name: integers (N,), from 0}. ``progress`` wraps the
    iteration over steps (tqdm). Raises UserError for no attribute and for another size.
    """
    if not attributes:
        raise UserError("a judge expected at least one attribute of the images, got none")
    sizes = {name: int(np.max(values)) + 1 for name, values in attributes.items()}
    hot = [np.asarray(values)[:, None] == np.arange(sizes[name]) for name, values in attributes.items()]
    network = fit(
        images, np.concatenate(hot, axis=1), epochs=epochs, batch_size=min(64, len(images)), seed=seed,
        device=get_device(device), progress=progress,
    )  # fmt: skip
    return AttributeJudge(network, sizes)
