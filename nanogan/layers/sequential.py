"""Layers one after the other."""

import numpy as np

from nanogan.layers.activations import LeakyReLU
from nanogan.layers.affine import Conv2d, Linear
from nanogan.layers.layer import Layer, join
from nanogan.layers.norm import BatchNorm2d
from nanogan.layers.shapes import Flatten
from nanogan.ops.examples import normal


class Caches(list):
    """The cache of each layer, and ``both``: {number of a layer: one cache for the backward of it and the next one}."""

    def __init__(self):
        super().__init__()
        self.both = {}


class Sequential(Layer):
    """Layers one after the other. The cache is the list of the layers' caches, :class:`Caches`.

    A fast path may compute two layers at once, such as BatchNorm and the ReLU behind it. Each has its own cache all the
    same: a network can be cut anywhere, and its caches with it.

    ``prefix`` stands before the layers' numbers in the names of their arrays: with ``prefix="main"`` they are those of
    pytorch/examples' DCGAN, "main.0.weight". Index and slice it like a list: ``network[3]``.
    """

    def __init__(self, *layers, prefix=""):
        super().__init__()
        self.layers, self.prefix = list(layers), prefix

    def _check(self, x):
        """Raise UserError unless x is what the layers are made for: for a subclass that knows."""

    def forward(self, x, train=True):
        self._check(x)
        caches = Caches()
        for i, layer in enumerate(self.layers):
            if i - 1 in caches.both:  # the layer before computed this one as well
                continue
            both = layer.forward_with(self.layers[i + 1], x, train=train) if i + 1 < len(self.layers) else None
            if both is None:
                x, cache = layer.forward(x, train=train)
                caches.append(cache)
            else:
                x, caches.both[i], of_each = both
                caches += of_each
        return x, caches

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        both = getattr(cache, "both", {})  # a part of the list has none; a part of the network has other neighbours
        both = {i: of_both for i, of_both in both.items() if i + 1 < len(self.layers)}
        for i in reversed(range(len(self.layers))):
            if i - 1 not in both:
                dy = self.layers[i].backward(dy, both.get(i, cache[i]), need_dx=need_dx or i > 0, need_dw=need_dw)
        return dy if need_dx else None

    def tangent(self, v, cache):
        caches = []
        for layer, cache_of_x in zip(self.layers, cache, strict=True):
            v, cache_of_v = layer.tangent(v, cache_of_x)
            caches.append(cache_of_v)
        return v, caches

    def named_layers(self, prefix=""):
        for name, layer in super().named_layers(prefix):
            if layer is not self or self.params or self.buffers:
                yield name, layer
        for i, layer in enumerate(self.layers):
            yield from layer.named_layers(join(join(prefix, self.prefix), str(i)))

    def __len__(self):
        return len(self.layers)

    def __getitem__(self, i):
        return Sequential(*self.layers[i]) if isinstance(i, slice) else self.layers[i]

    def __repr__(self):
        lines = "\n".join(f"  {i}: {layer!r}".replace("\n", "\n  ") for i, layer in enumerate(self.layers))
        return f"{type(self).__name__}(\n{lines}\n)"


def _example():
    rng = np.random.default_rng(11)
    end = Sequential(Flatten(), Linear(64, 2, rng=rng))
    return Sequential(Conv2d(3, 4, 3, padding=1, rng=rng), BatchNorm2d(4), LeakyReLU(0.2), end)


EXAMPLES = {"Sequential": (_example, normal(3, 3, 4, 4))}
