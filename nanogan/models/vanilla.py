"""The vanilla GAN's networks: fully connected layers, to which an image is a vector of C * H * W values.

    generator       z (N, latent) -> hidden, ReLU -> hidden, ReLU -> C * H * W, tanh -> images (N, C, H, W)
    discriminator   images (N, C, H, W) -> vectors -> hidden, LeakyReLU(0.2) -> hidden, LeakyReLU(0.2) -> logits (N, 1)

Neither network knows which pixels are neighbours. Weights start as torch's do. Source of the idea: I. Goodfellow et
al., arXiv:1406.2661; there D is of maxout units with dropout, G ends in a sigmoid, and both are wider.
"""

import math

import numpy as np

from nanogan.errors import UserError
from nanogan.layers import Flatten, LeakyReLU, Linear, ReLU, Reshape, Sequential, Tanh
from nanogan.models.dcgan import check_counts
from nanogan.ops.examples import normal


class Generator(Sequential):
    """Images (N, channels, image_size, image_size) from -1 to 1, from z (N, latent).

    Attributes: image_size, channels, latent, hidden.
    """

    def __init__(self, *layers, image_size, channels, latent, hidden):
        super().__init__(*layers, prefix="main")
        self.image_size, self.channels, self.latent, self.hidden = image_size, channels, latent, hidden

    def forward(self, z, train=True):
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise UserError(f"the generator expected z of shape (N, {self.latent}), got {z.shape}")
        return super().forward(z, train=train)


def generator(*, image_size=28, channels=1, latent=64, hidden=256, rng=None, dtype=np.float32):
    """Return the :class:`Generator`. Raises UserError for a size that is no integer of at least 1."""
    sizes = {"image_size": image_size, "channels": channels, "latent": latent, "hidden": hidden}
    check_counts(**sizes)
    how, shape = {"rng": rng or np.random.default_rng(), "dtype": dtype}, (channels, image_size, image_size)
    layers = (
        Linear(latent, hidden, **how), ReLU(),
        Linear(hidden, hidden, **how), ReLU(),
        Linear(hidden, math.prod(shape), **how), Tanh(), Reshape(shape),
    )  # fmt: skip
    return Generator(*layers, **sizes)


def discriminator(*, image_size=28, channels=1, hidden=256, rng=None, dtype=np.float32):
    """Return the discriminator, images (N, channels, image_size, image_size) -> logits (N, 1), above 0 for "real".

    The sigmoid of the literature is in the loss, which takes logits. Raises UserError as :func:`generator`.
    """
    check_counts(image_size=image_size, channels=channels, hidden=hidden)
    how = {"rng": rng or np.random.default_rng(), "dtype": dtype}
    return Sequential(
        Flatten(),
        Linear(channels * image_size**2, hidden, **how), LeakyReLU(negative_slope=0.2),
        Linear(hidden, hidden, **how), LeakyReLU(negative_slope=0.2),
        Linear(hidden, 1, **how),
        prefix="main",
    )  # fmt: skip


def options_of(state):
    """Infer :func:`generator`'s options from the shapes in its state dict.

    Returns {"image_size", "channels", "latent", "hidden"}. Raises UserError if the arrays are not of such a generator.
    """
    first, second, last = (getattr(state.get(f"main.{i}.weight"), "shape", ()) for i in (0, 2, 4))
    found = None
    if len(first) == 2 and len(last) == 2:
        pixels, hidden = last
        channels = 1 if math.isqrt(pixels) ** 2 == pixels else 3  # 3 n^2 is no square
        found = {
            "image_size": math.isqrt(pixels // channels),
            "channels": channels,
            "latent": first[1],
            "hidden": hidden,
        }
    # Nothing is built from these numbers unless the file holds arrays of just these shapes.
    if (
        found is None
        or 0 in found.values()
        or pixels != channels * found["image_size"] ** 2
        or (first, second)
        != (
            (hidden, found["latent"]),
            (hidden, hidden),
        )
    ):
        raise UserError("three fully connected layers, the last of which makes square images, were expected")
    return found


def _example(make, **options):
    return lambda: make(image_size=4, channels=2, hidden=6, rng=np.random.default_rng(11), **options)


EXAMPLES = {
    "vanilla generator": (_example(generator, latent=5), normal(4, 5)),
    "vanilla discriminator": (_example(discriminator), normal(4, 2, 4, 4)),
}
