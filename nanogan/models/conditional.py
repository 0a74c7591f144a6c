"""Generators that make what they are asked for: M. Mirza, S. Osindero, arXiv:1411.1784.

    labels (N,) -> hot (N, K): one-hot, a 1 in column labels[n] of row n
    G:  z (N, L) and hot side by side, (N, L + K)                       -> images (N, C, H, W)
    D:  images and K more channels, channel C + k all of hot[:, k]      -> logits (N, 1)

D is to tell images with their labels from fake ones with the labels that were asked for: a fine 3 that was to be a 5 is
a fake. So G learns p(image | label). Both networks are those of :mod:`nanogan.models.dcgan` with K more inputs; the
game is :mod:`nanogan.games.conditional`.

The authors' code (https://github.com/Newmu/dcgan_code, mnist/train_cond_dcgan.py) gives the label to every layer. Here
it is given to the first ones alone: docs/experiments/conditional.md compares the two.
"""

import numpy as np

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.layers import BatchNorm1d, Flatten, LeakyReLU, Linear, ReLU, Reshape, Sequential, Tanh, init
from nanogan.models import dcgan
from nanogan.ops.examples import normal


class Generator(dcgan.Generator):
    """Images (N, C, H, W) from z and one-hot labels side by side, (N, latent + classes).

    The number of classes is a buffer, so that it is saved with the weights. Attributes: image_size, channels, latent,
    width, upsample, classes.
    """

    def __init__(self, *layers, classes, **sizes):
        super().__init__(*layers, **sizes)
        self.classes, self.inputs = classes, self.latent + classes
        self.buffers["classes"] = np.array(classes, np.int64)

    def forward(self, z, train=True):
        if z.ndim != 2 or z.shape[1] != self.inputs:
            expected = f"(N, {self.latent} + {self.classes})"
            raise UserError(f"a conditional generator expected z joined with one-hot labels, {expected}, got {z.shape}")
        return super().forward(z, train=train)

    def load_state_dict(self, state):
        """As a layer's; raises UserError too if the other generator has as many inputs, but other classes."""
        classes = state.get("classes")
        if getattr(classes, "shape", None) == () and int(classes) != self.classes:
            raise UserError(f"these weights are of a generator of {int(classes)} classes, this one has {self.classes}")
        super().load_state_dict({name.removeprefix("network."): array for name, array in state.items()})


def one_hot(labels, classes, *, dtype=np.float32):
    """Return (N, classes) on the labels' device: 1 in column ``labels[n]`` of row n, else 0.

    Raises UserError unless labels (N,) are integers from 0 to classes - 1; the values of a GPU's are not looked at,
    which would wait for it: the loader checks them once.
    """
    labels = labels if hasattr(labels, "dtype") else np.asarray(labels)
    xp = array_module(labels)
    right = labels.ndim == 1 and labels.dtype.kind in "iu"
    if not right or (xp is np and not ((labels >= 0) & (labels < classes)).all()):
        some = np.array2string(np.asarray(labels).ravel()[:4], separator=", ") if xp is np else labels.dtype
        raise UserError(f"labels (N,) expected integers from 0 to {classes - 1}, got {labels.shape} {some}")
    return xp.eye(classes, dtype=dtype)[labels]


def join(z, hot):
    """Return z (N, latent) and hot (N, classes) side by side, (N, latent + classes)."""
    return array_module(z).concatenate([z, hot], axis=1)


def with_maps(pictures, hot):
    """Return pictures (N, C, H, W) with ``classes`` more channels, C + k all of hot[:, k]; channels-last in memory."""
    N, C, H, W = pictures.shape
    y = array_module(pictures).empty((N, H, W, C + hot.shape[1]), pictures.dtype)
    y[..., :C] = pictures.transpose(0, 2, 3, 1)
    y[..., C:] = hot[:, None, None, :]
    return y.transpose(0, 3, 1, 2)


def generator(
    *, classes, image_size=64, channels=3, latent=100, width=64, upsample="deconv", last_bias=False, rng=None,
    dtype=np.float32,
):  # fmt: skip
    """Return a :class:`Generator`; options and errors are those of :func:`nanogan.models.dcgan.generator`.

    Its first layer is given latent + classes numbers.
    """
    dcgan.check_counts(classes=classes, latent=latent)
    rng = rng or np.random.default_rng()
    sizes = {"image_size": image_size, "channels": channels, "width": width}
    sizes |= {"upsample": upsample, "last_bias": last_bias}
    layers = dcgan.generator_layers(latent=latent + classes, rng=rng, dtype=dtype, **sizes)
    return init.dcgan_(Generator(*layers, classes=classes, latent=latent, **sizes), rng)


def discriminator(*, classes, channels=3, **options):
    """Return the discriminator of pictures with label maps, (N, channels + classes, image_size, image_size)."""
    dcgan.check_counts(classes=classes, channels=channels)
    return dcgan.discriminator(channels=channels + classes, **options)


def options_of(state):
    """Infer :func:`generator`'s options from its state dict. Raises UserError if the arrays are of another network."""
    found = dcgan.options_of({name.removeprefix("network."): array for name, array in state.items()})
    classes = state.get("classes")
    if classes is None or classes.shape != () or classes.dtype != np.int64 or not 1 <= classes < found["latent"]:
        raise UserError("a number of classes was expected, less than the inputs of the first layer")
    return found | {"classes": int(classes), "latent": found["latent"] - int(classes)}


def mlp_pair(*, classes, pixels=784, latent=100, width=512, rng=None, dtype=np.float32):
    """Return G and D of fully connected layers, which know nothing of neighbouring pixels: the DCGAN paper's
    baseline.

    A picture is (N, pixels, 1, 1), one pixel of many channels: any order of them is as good, and a label's map is one
    number.
    """
    options = {"rng": rng or np.random.default_rng(), "dtype": dtype}
    g = Sequential(
        Linear(latent + classes, width, bias=False, **options), BatchNorm1d(width, dtype=dtype), ReLU(),
        Linear(width, width, bias=False, **options), BatchNorm1d(width, dtype=dtype), ReLU(),
        Linear(width, pixels, **options), Tanh(), Reshape(pixels, 1, 1),
    )  # fmt: skip
    d = Sequential(
        Flatten(),
        Linear(pixels + classes, width, **options), LeakyReLU(negative_slope=0.2),
        Linear(width, width, **options), LeakyReLU(negative_slope=0.2),
        Linear(width, 1, **options),
    )  # fmt: skip
    g.latent, g.classes = latent, classes
    return g, d


def _example():
    return generator(classes=2, image_size=8, channels=2, latent=3, width=2, rng=np.random.default_rng(11))


EXAMPLES = {"conditional generator": (_example, normal(4, 5))}
