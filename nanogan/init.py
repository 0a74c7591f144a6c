"""How parameters start: PyTorch's defaults, and the DCGAN paper's normal distribution."""

import numpy as np


def kaiming_uniform(rng, shape, fan_in, dtype=np.float32):
    """Draw from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), what torch does for the weights and biases of its layers.

    ``shape`` (F, C, ...); ``fan_in`` is the number of inputs of one output. (torch reaches this bound as Kaiming's
    initialisation with a = sqrt(5).)
    """
    bound = fan_in**-0.5
    return channels_last(rng.uniform(-bound, bound, shape).astype(dtype))


def dcgan_(network, rng):
    """Set ``network``'s parameters as the DCGAN paper and pytorch/examples do, and return it.

    Weights of convolutions from N(0, 0.02), gains of BatchNorm from N(1, 0.02), all biases 0.
    Source: A. Radford et al., arXiv:1511.06434, section 4; pytorch/examples, dcgan/main.py, weights_init.
    """
    from nanogan.layers import BatchNorm2d, Conv2d, ConvTranspose2d, Linear

    means = {Conv2d: 0.0, ConvTranspose2d: 0.0, Linear: 0.0, BatchNorm2d: 1.0}
    for _, layer in network.named_layers():
        if type(layer) in means:
            weight = layer.params["weight"]
            weight[...] = rng.normal(means[type(layer)], 0.02, weight.shape)
            if "bias" in layer.params:
                layer.params["bias"][...] = 0
    return network


def channels_last(w):
    """Return w with the same shape and values, and 4-D arrays with the channels last in memory (see ops/_layout.py)."""
    if w.ndim != 4:
        return w
    return np.ascontiguousarray(w.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
