"""The semi-supervised GAN's networks: fully connected layers, as for MNIST in T. Salimans et al., arXiv:1606.03498.

    G:  z (N, latent), beside a one-hot class if it is conditional -> w, w, BatchNorm and ReLU -> images (N, C, H, W)
    D:  images (N, C, H, W) -> w, w/2, w/2, ReLU, each after noise: features (N, w/2) -> logits of the classes (N, K)

D is two networks, one after the other: ``features`` and ``head``, since feature matching needs what is between them.
Noise from N(0, std^2) is added to what each layer of D is given, in train mode: without it, D knows a few labelled
images by heart after some steps, and learns nothing else from them.

There: D has five hidden layers, 1000-500-250-250-250, with weight normalisation. Here the networks are half as wide
and D has three, which trains in minutes; instead of weight normalisation, weights start at the size that keeps the
values' size from layer to layer (K. He et al., arXiv:1502.01852).
"""

import itertools
import math

import numpy as np

from nanogan.errors import UserError
from nanogan.layers import BatchNorm1d, Flatten, GaussianNoise, Layer, Linear, ReLU, Reshape, Sequential, Tanh, init
from nanogan.models.dcgan import check_counts
from nanogan.ops.examples import normal

INPUT_NOISE, HIDDEN_NOISE = 0.6, 0.5  # standard deviations; images are -1 to 1


class Generator(Sequential):
    """Images (N, channels, image_size, image_size) from -1 to 1, from z (N, latent), or (N, latent + classes).

    ``classes`` is 0 if it is unconditional, else the number of columns of the one-hot class beside z; a buffer, so that
    it is saved with the weights. Attributes: image_size, channels, latent, width, classes.
    """

    def __init__(self, *layers, image_size, channels, latent, width, classes):
        super().__init__(*layers, prefix="main")
        self.image_size, self.channels, self.latent, self.width = image_size, channels, latent, width
        self.classes = classes
        self.buffers["classes"] = np.array(classes, np.int64)

    def forward(self, z, train=True):
        if z.ndim != 2 or z.shape[1] != self.latent + self.classes:
            raise UserError(f"the generator expected z of shape (N, {self.latent} + {self.classes}), got {z.shape}")
        return super().forward(z, train=train)


class Discriminator(Layer):
    """Logits (N, classes) from images (N, channels, image_size, image_size): ``features``, then ``head``.

    Attributes: features (images -> (N, F)), head ((N, F) -> (N, classes)), image_size, channels, width, classes.
    """

    def __init__(self, features, head, *, image_size, channels, width, classes):
        super().__init__()
        self.features, self.head = features, head
        self.image_size, self.channels, self.width, self.classes = image_size, channels, width, classes

    def forward(self, x, train=True):
        h, features_cache = self.features.forward(x, train=train)
        logits, head_cache = self.head.forward(h, train=train)
        return logits, (features_cache, head_cache)

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        features_cache, head_cache = cache
        dh = self.head.backward(dy, head_cache, need_dw=need_dw)
        return self.features.backward(dh, features_cache, need_dx=need_dx, need_dw=need_dw)


def generator(*, image_size=28, channels=1, latent=100, width=500, classes=0, rng=None, dtype=np.float32):
    """Return the :class:`Generator`. Raises UserError for a size that is no integer of at least 1 (classes: 0)."""
    sizes = {"image_size": image_size, "channels": channels, "latent": latent, "width": width}
    check_counts(**sizes, **({"classes": classes} if classes else {}))
    how, shape = {"rng": rng or np.random.default_rng(), "dtype": dtype}, (channels, image_size, image_size)
    layers = (
        Linear(latent + classes, width, bias=False, **how), BatchNorm1d(width, dtype=dtype), ReLU(),
        Linear(width, width, bias=False, **how), BatchNorm1d(width, dtype=dtype), ReLU(),
        Linear(width, math.prod(shape), **how), Tanh(), Reshape(shape),
    )  # fmt: skip
    return Generator(*layers, **sizes, classes=classes)


def discriminator(*, image_size=28, channels=1, width=500, classes=10, rng=None, dtype=np.float32):
    """Return the :class:`Discriminator`, (N, channels, image_size, image_size) -> logits (N, classes).

    ``rng`` draws the weights, and the noise in train mode. Raises UserError for a size that is no integer of at least
    1.
    """
    check_counts(image_size=image_size, channels=channels, width=width, classes=classes)
    how = {"rng": rng or np.random.default_rng(), "dtype": dtype}
    sizes = [channels * image_size**2, width, width // 2, width // 2]
    layers = [Flatten(), GaussianNoise(INPUT_NOISE, rng=how["rng"])]
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [Linear(inputs, outputs, **how), ReLU(), GaussianNoise(HIDDEN_NOISE, rng=how["rng"])]
    *features, noise = layers
    head = Sequential(noise, Linear(sizes[-1], classes, **how))
    network = Discriminator(
        Sequential(*features), head, image_size=image_size, channels=channels, width=width, classes=classes
    )
    return init.kaiming_(network, how["rng"])


def options_of(state):
    """Infer :func:`generator`'s options from its state dict, {"image_size", "channels", "latent", "width", "classes"}.

    Raises UserError if the arrays are not of such a generator.
    """
    first, second, last = (getattr(state.get(f"main.{i}.weight"), "shape", ()) for i in (0, 3, 6))
    classes = state.get("classes")
    found = None
    if len(first) == 2 and len(last) == 2 and getattr(classes, "shape", None) == () and classes.dtype == np.int64:
        (pixels, width), classes = last, int(classes)
        channels = 1 if math.isqrt(pixels) ** 2 == pixels else 3  # 3 n^2 is no square
        found = {
            "image_size": math.isqrt(pixels // channels),
            "channels": channels,
            "latent": first[1] - classes,
            "width": width,
        }
    # Nothing is built from these numbers unless the file holds arrays of just these shapes.
    if (
        found is None
        or min(found.values()) < 1
        or classes < 0
        or pixels != found["channels"] * found["image_size"] ** 2
        or (first[0], second) != (width, (width, width))
    ):
        raise UserError("three fully connected layers, the last of which makes square images, were expected")
    return found | {"classes": classes}


def _generator(classes):
    return generator(image_size=3, channels=2, latent=4, width=5, classes=classes, rng=np.random.default_rng(11))


def _discriminator():
    return discriminator(image_size=3, channels=2, width=8, classes=3, rng=np.random.default_rng(11))


EXAMPLES = {
    "semi-supervised generator": (lambda: _generator(classes=0), normal(5, 4)),
    "semi-supervised generator, conditional": (lambda: _generator(classes=3), normal(5, 7)),
    "semi-supervised discriminator": (_discriminator, normal(5, 2, 3, 3)),
}
