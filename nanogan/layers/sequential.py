"""Layers one after the other."""

import numpy as np

from nanogan.layers.activations import LeakyReLU
from nanogan.layers.affine import Conv2d, Linear
from nanogan.layers.layer import Layer, join
from nanogan.layers.norm import BatchNorm2d
from nanogan.layers.shapes import Flatten
from nanogan.ops.examples import normal

WITH_THE_ONE_BEFORE = "in the cache of the layer before"  # in place of a layer's own cache


class Sequential(Layer):
    """Layers one after the other. The cache is the list of the layers' caches.

    Where a fast path computes two layers at once, such as BatchNorm and the ReLU behind it, the first one's cache and
    backward are those of both.

    ``prefix`` stands before the layers' numbers in the names of their arrays: with ``prefix="main"`` they are those of
    pytorch/examples' DCGAN, "main.0.weight". Index and slice it like a list: ``network[3]``.
    """

    def __init__(self, *layers, prefix=""):
        super().__init__()
        self.layers, self.prefix = list(layers), prefix

    def forward(self, x, train=True):
        caches = []
        for i, layer in enumerate(self.layers):
            if len(caches) > i:  # the layer before computed this one as well
                continue
            both = layer.forward_with(self.layers[i + 1], x, train=train) if i + 1 < len(self.layers) else None
            if both is None:
                x, cache = layer.forward(x, train=train)
                caches.append(cache)
            else:
                x, cache = both
                caches += [cache, WITH_THE_ONE_BEFORE]
        return x, caches

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        for i in reversed(range(len(self.layers))):
            if cache[i] is not WITH_THE_ONE_BEFORE:
                dy = self.layers[i].backward(dy, cache[i], need_dx=need_dx or i > 0, need_dw=need_dw)
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
