"""Layers with a weight and perhaps a bias: convolutions, fully connected layers, tables of vectors."""

import numpy as np

from nanogan import ops
from nanogan.dispatch import dispatch
from nanogan.errors import UserError
from nanogan.layers import init
from nanogan.layers.layer import Layer
from nanogan.ops.checks import pair
from nanogan.ops.examples import integers, normal


class _Affine(Layer):
    """What Conv2d, ConvTranspose2d and Linear share: a weight, perhaps a bias, and one operation with its options."""

    operation = None  # (forward, backward) of nanogan.ops

    def __init__(self, shape, outputs, fan_in, bias, rng, dtype, **options):
        super().__init__()
        if min(shape) < 1:
            raise UserError(f"{type(self).__name__} expected at least one input and one output, got weight {shape}")
        rng = rng or np.random.default_rng()
        self.options = options
        self.add_param("weight", init.kaiming_uniform(rng, shape, fan_in, dtype))
        if bias:
            self.add_param("bias", init.kaiming_uniform(rng, (outputs,), fan_in, dtype))

    def forward(self, x, train=True):
        return dispatch(*self.operation, x, self.params["weight"], self.params.get("bias"), **self.options)

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        return self.backward_of(cache, dy, need_dx, need_dw, "weight", "bias")

    def tangent(self, v, cache):
        """Return W v, the layer's operation without its bias. Its backward gives dw of dy and v, and no db."""
        return dispatch(*self.operation, v, self.params["weight"], None, **self.options)

    def __repr__(self):
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        bias = "" if "bias" in self.params else ", bias=False"
        return f"{type(self).__name__}{tuple(self.params['weight'].shape)}{options}{bias}"


class Conv2d(_Affine):
    """Convolution, (N, in_channels, H, W) -> (N, out_channels, OH, OW); see :func:`nanogan.ops.conv2d_forward`.

    Parameters: weight (out_channels, in_channels, KH, KW), bias (out_channels,); drawn from ``rng`` as torch does.
    """

    operation = ops.conv2d_forward, ops.conv2d_backward

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, *, bias=True, rng=None, dtype=np.float32
    ):
        KH, KW = pair(kernel_size, "kernel_size", least=1)
        shape = (out_channels, in_channels, KH, KW)
        super().__init__(shape, out_channels, in_channels * KH * KW, bias, rng, dtype, stride=stride, padding=padding)


class ConvTranspose2d(_Affine):
    """Transposed convolution, (N, in_channels, H, W) -> (N, out_channels, OH, OW).

    See :func:`nanogan.ops.conv_transpose2d_forward`. Parameters: weight (in_channels, out_channels, KH, KW), bias
    (out_channels,); drawn from ``rng`` as torch does.
    """

    operation = ops.conv_transpose2d_forward, ops.conv_transpose2d_backward

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        output_padding=0,
        *,
        bias=True,
        rng=None,
        dtype=np.float32,
    ):
        KH, KW = pair(kernel_size, "kernel_size", least=1)
        shape = (in_channels, out_channels, KH, KW)
        options = {"stride": stride, "padding": padding, "output_padding": output_padding}
        # torch counts the fan-in of its transposed convolution along the weight's second axis too
        super().__init__(shape, out_channels, out_channels * KH * KW, bias, rng, dtype, **options)


class Linear(_Affine):
    """Fully connected layer, (N, in_features) -> (N, out_features); see :func:`nanogan.ops.linear_forward`.

    Parameters: weight (out_features, in_features), bias (out_features,); drawn from ``rng`` as torch does.
    """

    operation = ops.linear_forward, ops.linear_backward

    def __init__(self, in_features, out_features, *, bias=True, rng=None, dtype=np.float32):
        super().__init__((out_features, in_features), out_features, in_features, bias, rng, dtype)


class Embedding(Layer):
    """A table of vectors: whole numbers (...) -> (..., embedding_dim); see :func:`nanogan.ops.embedding_forward`.

    Parameter: weight (num_embeddings, embedding_dim), drawn from N(0, 1) as torch does.
    """

    no_tangent = "whole numbers do not move along a direction"

    def __init__(self, num_embeddings, embedding_dim, *, rng=None, dtype=np.float32):
        super().__init__()
        rng = rng or np.random.default_rng()
        self.add_param("weight", rng.standard_normal((num_embeddings, embedding_dim)).astype(dtype))

    def forward(self, x, train=True):
        return dispatch(ops.embedding_forward, ops.embedding_backward, x, self.params["weight"])

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        """Add dw; return None, since whole numbers have no gradient."""
        backward, cache = cache
        _, dw = backward(dy, cache, need_dx=need_dx, need_dw=need_dw)
        self.add_grads(weight=dw)

    def __repr__(self):
        return f"Embedding{self.params['weight'].shape}"


def _rng():
    return np.random.default_rng(11)


EXAMPLES = {
    "Conv2d": (lambda: Conv2d(3, 4, 4, 2, 1, rng=_rng()), normal(2, 3, 8, 8)),
    "ConvTranspose2d": (lambda: ConvTranspose2d(3, 4, 3, 2, 1, 1, rng=_rng()), normal(2, 3, 4, 4)),
    "Linear": (lambda: Linear(6, 4, rng=_rng()), normal(3, 6)),
    "Embedding": (lambda: Embedding(5, 3, rng=_rng()), integers(5, 4)),
}
