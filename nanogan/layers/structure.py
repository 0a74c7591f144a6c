"""Layers that lead x along several ways at once: residual blocks, and layers side by side.

Where x goes two ways, its gradient comes back two ways and adds up. Where results are joined, dy is cut at the same
places. That is all that a backward pass needs to know about the shape of a network.
"""

import numpy as np

from nanogan.errors import UserError
from nanogan.layers.activations import Identity, ReLU
from nanogan.layers.affine import Conv2d
from nanogan.layers.norm import BatchNorm2d
from nanogan.layers.sequential import Sequential
from nanogan.ops.examples import normal
from nanogan.ops.rows import add, join_channels, split_channels


class Residual(Sequential):
    """y = x + f(x), where f is the given layers one after the other: a residual block.

    ``Residual(Conv2d(64, 64, 3, padding=1), BatchNorm2d(64), ReLU(), ...)``. x and f(x) have one shape, of any number
    of dimensions. The arrays are named as those of a :class:`Sequential` of the same layers ("0.weight"); with
    ``prefix="conv_block"`` as those of junyanz' CycleGAN ("conv_block.1.weight"). For an activation after the sum, put
    one behind the block. The gradient goes both ways: dx = dy + (df/dx)^T dy.

    Raises UserError if f changes the shape. Source: K. He et al., arXiv:1512.03385.
    """

    def forward(self, x, train=True):
        fx, caches = super().forward(x, train=train)
        if fx.shape != x.shape:
            raise UserError(
                f"Residual expected layers that keep the shape {x.shape}, to add their result to x, got {fx.shape}: "
                "let convolutions pad, and change the number of channels outside the block"
            )
        return add(x, fx), caches

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        dx = super().backward(dy, cache, need_dx=need_dx, need_dw=need_dw)
        return add(dy, dx) if need_dx else None

    def tangent(self, v, cache):
        fv, caches = super().tangent(v, cache)
        return add(v, fv), caches


class Concat(Sequential):
    """The layers side by side: each is given the same x, and the results are joined along the channels, axis 1.

        y = concatenate([layer(x) for layer in layers], axis=1)

    x of any shape; results (N, C1, ...), (N, C2, ...) -> y (N, C1 + C2 + ..., ...). ``Concat(Identity(), f)`` is the
    skip connection of a U-Net or of DenseNet, [x, f(x)]. The arrays are named as those of a :class:`Sequential`
    ("0.weight", "1.weight"). dy is cut where the results were joined, and dx is the sum of what the layers return. (To
    join arrays of other sources: :func:`nanogan.ops.rows.join_channels`.)

    Raises UserError if the results differ in more than their channels. Source: G. Huang et al., arXiv:1608.06993.
    """

    def forward(self, x, train=True):
        if not self.layers:
            raise UserError("Concat expected at least one layer, got none")
        ys, caches = zip(*(layer.forward(x, train=train) for layer in self.layers), strict=True)
        return join_channels(*ys), (caches, [y.shape[1] for y in ys])

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        caches, sizes = cache
        total = None
        for layer, part, layer_cache in zip(self.layers, split_channels(dy, *sizes), caches, strict=True):
            dx = layer.backward(part, layer_cache, need_dx=need_dx, need_dw=need_dw)
            total = dx if total is None else add(total, dx)
        return total if need_dx else None

    def tangent(self, v, cache):
        caches, sizes = cache
        pairs = zip(self.layers, caches, strict=True)
        ts, tangent_caches = zip(*(layer.tangent(v, layer_cache) for layer, layer_cache in pairs), strict=True)
        return join_channels(*ts), (tangent_caches, sizes)

    def __getitem__(self, i):
        return Concat(*self.layers[i]) if isinstance(i, slice) else self.layers[i]


def _residual():
    rng = np.random.default_rng(11)
    return Residual(Conv2d(3, 4, 3, padding=1, rng=rng), BatchNorm2d(4), ReLU(), Conv2d(4, 3, 1, rng=rng))


def _concat():
    rng = np.random.default_rng(11)
    return Concat(Conv2d(3, 2, 3, padding=1, rng=rng), Identity(), Conv2d(3, 4, 1, rng=rng))


EXAMPLES = {"Residual": (_residual, normal(3, 3, 4, 4)), "Concat": (_concat, normal(2, 3, 4, 4))}
