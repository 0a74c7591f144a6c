"""How parameters start: PyTorch's defaults, and the DCGAN paper's normal distribution."""

import numpy as np

from nanogan.backend import channels_last, copy_into

NORMALISED = "parametrizations.weight.original"  # torch's name of a weight under spectral normalisation


def kaiming_uniform(rng, shape, fan_in, dtype=np.float32):
    """Draw from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), what torch does for the weights and biases of its layers.

    ``shape`` (F, C, ...); ``fan_in`` is the number of inputs of one output. (torch reaches this bound as Kaiming's
    initialisation with a = sqrt(5).)
    """
    bound = fan_in**-0.5
    return channels_last(rng.uniform(-bound, bound, shape).astype(dtype))


def dcgan_(network, rng, gain=1.0):
    """Set ``network``'s parameters as the DCGAN paper does, and return it.

    Gains of normalisations are drawn from N(``gain``, 0.02), all other weights (of convolutions and linear layers) from
    N(0, 0.02); biases are 0. Source: A. Radford et al., arXiv:1511.06434, section 4; pytorch/examples, dcgan/main.py,
    weights_init.
    """
    for _, layer in network.named_layers():
        for name, parameter in layer.params.items():
            if name == "bias":
                parameter[...] = 0
            elif name in ("weight", NORMALISED):
                normalises = "running_mean" in layer.buffers or getattr(layer, "normalises", False)
                mean = gain if normalises else 0.0
                copy_into(parameter, rng.normal(mean, 0.02, parameter.shape).astype(parameter.dtype))
    return network


def kaiming_(network, rng):
    """Set ``network``'s weights as suits ReLU: from N(0, 2 / fan_in), biases 0; return it.

    ReLU halves the mean of squares, and a weight of variance 2 / fan_in doubles it again: values keep their size from
    layer to layer. ``weight`` (F, C, ...) has a fan_in of C * ...: of Conv2d and Linear. BatchNorm's parameters stay.
    Source: K. He et al., arXiv:1502.01852, section 2.2.
    """
    for _, layer in network.named_layers():
        for name, parameter in layer.params.items():
            if name == "bias" and "weight" in layer.params and layer.params["weight"].ndim > 1:
                parameter[...] = 0
            elif name == "weight" and parameter.ndim > 1:
                std = (2 / np.prod(parameter.shape[1:])) ** 0.5
                copy_into(parameter, rng.normal(0, std, parameter.shape).astype(parameter.dtype))
    return network
