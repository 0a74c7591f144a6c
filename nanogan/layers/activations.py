"""Elementwise layers, without parameters."""

import numpy as np

from nanogan import ops
from nanogan.dispatch import dispatch
from nanogan.layers.layer import Layer, Plain, same_as_backward, same_as_forward
from nanogan.ops.examples import normal


class ReLU(Plain):
    """max(x, 0)."""

    operation = ops.relu_forward, ops.relu_backward
    tangent = same_as_backward


class LeakyReLU(Plain):
    """x where x > 0, else negative_slope * x. The default is torch's 0.01; DCGANs use 0.2."""

    operation = ops.leaky_relu_forward, ops.leaky_relu_backward
    tangent = same_as_backward

    def __init__(self, negative_slope=0.01):
        super().__init__(negative_slope=negative_slope)


class Tanh(Plain):
    """tanh(x), from -1 to 1 like the pictures."""

    operation = ops.tanh_forward, ops.tanh_backward


class Sigmoid(Plain):
    """1 / (1 + e^-x)."""

    operation = ops.sigmoid_forward, ops.sigmoid_backward


class Softplus(Plain):
    """log(1 + e^x), a smooth ReLU that is positive everywhere."""

    operation = ops.softplus_forward, ops.softplus_backward


class ELU(Plain):
    """x where x > 0, else alpha * (e^x - 1)."""

    operation = ops.elu_forward, ops.elu_backward

    def __init__(self, alpha=1.0):
        super().__init__(alpha=alpha)


class SELU(Plain):
    """ELU with the alpha and the scale of self-normalising networks."""

    operation = ops.selu_forward, ops.selu_backward


class GELU(Plain):
    """x * Phi(x), Phi the normal distribution function: torch's GELU(approximate="none")."""

    operation = ops.gelu_forward, ops.gelu_backward


class SiLU(Plain):
    """x * sigmoid(x), also called swish."""

    operation = ops.silu_forward, ops.silu_backward


class GLU(Plain):
    """a * sigmoid(b), a and b the halves of x along ``dim``: the last dimension, as in torch; ``GLU(1)`` for images."""

    operation = ops.glu_forward, ops.glu_backward

    def __init__(self, dim=-1):
        super().__init__(dim=dim)


class Identity(Layer):
    """x itself: what stands where a network may have a layer or none."""

    def forward(self, x, train=True):
        return x, None

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        return dy if need_dx else None

    tangent = same_as_forward


class Dropout(Plain):
    """Zero each element with probability p in train mode. ``rng`` draws the zeros; its state is part of a run's."""

    operation = ops.dropout_forward, ops.dropout_backward
    tangent = same_as_backward  # the zeros that the forward drew

    def __init__(self, p=0.5, *, rng=None):
        super().__init__(p=p)
        self.rng = rng or np.random.default_rng()

    def forward(self, x, train=True):
        return dispatch(*self.operation, x, rng=self.rng, train=train, **self.options)


EXAMPLES = {
    "ReLU": (ReLU, normal(2, 3, 4, 4)),
    "LeakyReLU": (lambda: LeakyReLU(0.2), normal(2, 3, 4, 4)),
    "Tanh": (Tanh, normal(2, 3, 4, 4)),
    "Sigmoid": (Sigmoid, normal(2, 3, 4, 4)),
    "Softplus": (Softplus, normal(2, 3, 4, 4)),
    "ELU": (lambda: ELU(0.5), normal(2, 3, 4, 4)),
    "SELU": (SELU, normal(2, 3, 4, 4)),
    "GELU": (GELU, normal(2, 3, 4, 4)),
    "SiLU": (SiLU, normal(2, 3, 4, 4)),
    "GLU": (lambda: GLU(1), normal(2, 4, 3, 3)),
    "Identity": (Identity, normal(2, 3, 4, 4)),
    "Dropout": (lambda: Dropout(0.4, rng=np.random.default_rng(11)), normal(2, 3, 4, 4)),
}
