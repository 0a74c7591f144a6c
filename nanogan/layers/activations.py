"""Elementwise layers, without parameters."""

import numpy as np

from nanogan import ops
from nanogan.dispatch import dispatch
from nanogan.layers.layer import Plain, same_as_backward
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
    no_tangent = "its slope changes with x"


class Sigmoid(Plain):
    """1 / (1 + e^-x)."""

    operation = ops.sigmoid_forward, ops.sigmoid_backward
    no_tangent = "its slope changes with x"


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
    "Dropout": (lambda: Dropout(0.4, rng=np.random.default_rng(11)), normal(2, 3, 4, 4)),
}
