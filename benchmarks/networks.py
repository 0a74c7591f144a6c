"""The DCGANs that are measured, and how they are trained."""

import numpy as np

from nanogan.models import dcgan

NETWORKS = {
    "64": {"image_size": 64, "channels": 3, "width": 64, "batch_size": 64},  # pytorch/examples' defaults
    "32": {"image_size": 32, "channels": 1, "width": 64, "batch_size": 64},
    "mnist": {
        "image_size": 28,
        "channels": 1,
        "width": 32,
        "batch_size": 32,
    },  # examples/mnist_dcgan.py's, half a batch
}
LARGE = {
    "64-b128": {"image_size": 64, "channels": 3, "width": 64, "batch_size": 128},  # as the paper and torch's tutorial
    "64-w128": {"image_size": 64, "channels": 3, "width": 128, "batch_size": 128},  # the paper's figure 1
}
TINY = {"tiny": {"image_size": 16, "channels": 1, "width": 4, "batch_size": 8}}  # shows that a benchmark works
LATENT, LR, BETAS = 100, 2e-4, (0.5, 0.999)


def shape_of(network):
    """Return the options of nanogan.models.dcgan's two functions for one of NETWORKS' values."""
    return {key: network[key] for key in ("image_size", "channels", "width")}


def pair_of(network, rng=None):
    """Return the generator and the discriminator of one of NETWORKS' values, on the CPU."""
    rng = np.random.default_rng(0) if rng is None else rng
    shape = shape_of(network)
    return dcgan.generator(latent=LATENT, rng=rng, **shape), dcgan.discriminator(rng=rng, **shape)
