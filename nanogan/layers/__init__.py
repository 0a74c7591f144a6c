"""Layers: operations that own their parameters, gradients and buffers, and hold no activations.

    y, cache = layer.forward(x, train=True)
    dx = layer.backward(dy, cache)          # and adds dw into layer.grads

A cache belongs to the caller. So one discriminator can have a real and a fake batch alive at once, and their backwards
may run in either order. It holds parameters by reference: step the optimiser only when no cache is still to be used.

A layer of your own subclasses :class:`Layer`, registers its parameters, and defines the two methods:

    class Scale(Layer):
        def __init__(self):
            super().__init__()
            self.add_param("weight", np.ones((), np.float32))

        def forward(self, x, train=True):
            return self.params["weight"] * x, x

        def backward(self, dy, cache, need_dx=True, need_dw=True):
            x = cache
            self.add_grads(weight=(dy * x).sum() if need_dw else None)
            return self.params["weight"] * dy if need_dx else None

It may use other layers, kept as attributes: ``self.inner = Conv2d(...)``. Their parameters are then its own.

A layer that is linear piece by piece may have a third method, ``tangent``: how its output moves along a direction of
its input. A gradient penalty needs it; see :meth:`Layer.tangent`.

Each file ends with EXAMPLES, {name: (a function that makes the layer, its random input)}, for the gradient checks.
"""

from nanogan.layers.activations import (
    ELU,
    GELU,
    GLU,
    SELU,
    Dropout,
    Identity,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from nanogan.layers.affine import Conv2d, ConvTranspose2d, Embedding, Linear
from nanogan.layers.layer import Layer
from nanogan.layers.noise import GaussianNoise
from nanogan.layers.norm import BatchNorm1d, BatchNorm2d, InstanceNorm2d, LayerNorm
from nanogan.layers.recurrent import GRU
from nanogan.layers.sequential import Sequential
from nanogan.layers.shapes import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Flatten,
    MaxPool2d,
    ReflectionPad2d,
    Reshape,
    Upsample,
    ZeroPad2d,
)
from nanogan.layers.spectral import SpectralNorm
from nanogan.layers.structure import Concat, Residual

__all__ = [
    "Layer", "Conv2d", "ConvTranspose2d", "Linear", "BatchNorm2d", "BatchNorm1d", "InstanceNorm2d", "LayerNorm",
    "Embedding", "ReLU", "LeakyReLU", "Tanh", "Sigmoid", "Softplus", "ELU", "SELU", "GELU", "SiLU", "GLU", "Identity",
    "Dropout", "GaussianNoise", "Upsample", "ReflectionPad2d", "ZeroPad2d", "MaxPool2d", "AvgPool2d",
    "AdaptiveAvgPool2d", "Flatten", "Reshape", "Sequential", "Residual", "Concat", "GRU", "SpectralNorm",
]  # fmt: skip
