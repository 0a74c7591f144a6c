"""Layers that draw numbers."""

import numpy as np

from nanogan import ops
from nanogan.dispatch import dispatch
from nanogan.layers.layer import Plain, same_as_backward
from nanogan.ops.examples import normal


class GaussianNoise(Plain):
    """Add noise from N(0, std^2) in train mode. ``rng`` draws it; a game draws it anew for every step.

    See :func:`nanogan.ops.gaussian_noise_forward`. torch has no such layer; the name is Keras's.
    """

    operation = ops.gaussian_noise_forward, ops.gaussian_noise_backward
    tangent = same_as_backward  # the noise stays as x moves

    def __init__(self, std=1.0, *, rng=None):
        super().__init__(std=std)
        self.rng = rng or np.random.default_rng()

    def forward(self, x, train=True):
        return dispatch(*self.operation, x, rng=self.rng, train=train, **self.options)


EXAMPLES = {"GaussianNoise": (lambda: GaussianNoise(0.4, rng=np.random.default_rng(11)), normal(2, 3, 4, 4))}
