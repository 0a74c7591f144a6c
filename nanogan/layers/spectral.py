"""Spectral normalisation around a layer."""

import numpy as np

from nanogan import ops
from nanogan.dispatch import dispatch
from nanogan.errors import UserError
from nanogan.layers.affine import Conv2d, ConvTranspose2d, Linear
from nanogan.layers.init import NORMALISED
from nanogan.layers.layer import Layer
from nanogan.ops.examples import normal
from nanogan.ops.spectral_norm import matrix, power_iteration, unit

U, V = "parametrizations.weight.0._u", "parametrizations.weight.0._v"
FIRST_ITERATIONS = 15  # when the layer is made, as in torch


class SpectralNorm(Layer):
    """``layer``, a Conv2d, ConvTranspose2d or Linear, with its weight divided by the weight's largest singular value.

    torch.nn.utils.parametrizations.spectral_norm(layer); see :func:`nanogan.ops.spectral_norm_forward`. A forward in
    train mode first takes ``n_power_iterations`` of power iteration, so that two forwards use slightly different
    divisors; each one's cache holds its own. In eval mode the vectors stay as they are. ``rng`` draws those to start
    from. The layer's arrays become this layer's; use it no more by itself.

    Parameters: parametrizations.weight.original, the weight before the division, and perhaps bias. Buffers:
    parametrizations.weight.0._u and ._v, the singular vectors. The names are torch's.
    """

    def __init__(self, layer, *, n_power_iterations=1, eps=1e-12, rng=None):
        super().__init__()
        if not isinstance(layer, (Conv2d, ConvTranspose2d, Linear)):
            raise UserError(f"SpectralNorm expected a Conv2d, a ConvTranspose2d or a Linear, got {layer!r}")
        if not (n_power_iterations >= 1 and eps > 0):
            raise UserError(
                f"SpectralNorm expected n_power_iterations >= 1 and eps > 0, got {n_power_iterations} and {eps}"
            )
        self.operation, self.options, self.inside = layer.operation, layer.options, repr(layer)
        self.iteration = {"dim": 1 if isinstance(layer, ConvTranspose2d) else 0, "eps": float(eps)}
        self.n_power_iterations = n_power_iterations
        for name, array in layer.params.items():
            self.add_param(NORMALISED if name == "weight" else name, array)
        weight, xp, rng = self.params[NORMALISED], layer.array_module, rng or np.random.default_rng()
        sizes = matrix(weight, self.iteration["dim"]).shape
        u, v = (unit(xp.asarray(rng.standard_normal(size).astype(weight.dtype)), eps=float(eps)) for size in sizes)
        u, v = power_iteration(weight, u, v, n_power_iterations=FIRST_ITERATIONS, **self.iteration)
        self.buffers |= {U: u, V: v}

    def forward(self, x, train=True):
        original = self.params[NORMALISED]
        u, v = self.buffers[U].copy(), self.buffers[V].copy()  # for the cache: the buffers change in the next forward
        if train:
            u, v = power_iteration(original, u, v, n_power_iterations=self.n_power_iterations, **self.iteration)
        weight, weight_cache = dispatch(
            ops.spectral_norm_forward, ops.spectral_norm_backward, original, u, v, dim=self.iteration["dim"]
        )
        y, cache = dispatch(*self.operation, x, weight, self.params.get("bias"), **self.options)
        if train:
            self.buffers[U][...], self.buffers[V][...] = u, v
        return y, (weight_cache, cache)

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        (weight_backward, weight_cache), (backward, cache) = cache
        dx, dweight, db = backward(dy, cache, need_dx=need_dx, need_dw=need_dw)
        if need_dw:
            self.add_grads(**{NORMALISED: weight_backward(dweight, weight_cache), "bias": db})
        return dx

    def __repr__(self):
        return f"SpectralNorm({self.inside})"


def _example():
    """A weight with one singular value far above the others: u and v are exact, so that they may count as constants."""
    rng = np.random.default_rng(11)
    layer = Conv2d(3, 4, 3, padding=1, rng=rng)
    layer.params["weight"] *= 0.1
    layer.params["weight"] += rng.standard_normal((4, 1, 1, 1)) * rng.standard_normal((3, 3, 3))
    return SpectralNorm(layer, rng=rng)


EXAMPLES = {"SpectralNorm": (_example, normal(2, 3, 4, 4))}
