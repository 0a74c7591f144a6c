"""Generators that draw what they are asked for: M. Mirza, S. Osindero, arXiv:1411.1784.

    labels (N,) -> hot (N, K): one-hot, a 1 in column labels[n] of row n
    G:  z (N, L) and hot side by side, (N, L + K)                       -> pictures (N, C, H, W)
    D:  pictures and K more channels, channel C + k all of hot[:, k]    -> logits (N, 1)

D is to tell pictures with their labels from drawn ones with the labels that were asked for: a fine 3 that was to be a 5
is a fake. So G learns p(picture | label). Both networks are those of :mod:`nanogan.models.dcgan` with K more inputs;
:class:`Conditional` adds their label maps to the pictures that G draws, so the step of the game stays as it is:

    g, d = conditional.generator(classes=10, ...), conditional.discriminator(classes=10, ...)
    hot = conditional.one_hot(labels, 10)
    adversarial_step(g, d, opt_g, opt_d, conditional.with_maps(real, hot), conditional.join(z, hot))
    pictures = sample(g.network, conditional.join(z, hot))              (N, C, H, W), without maps

The authors' code (https://github.com/Newmu/dcgan_code, mnist/train_cond_dcgan.py) gives the label to every layer. Here
it is given to the first ones alone: docs/experiments/conditional.md compares the two.
"""

import numpy as np

from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.layers import BatchNorm1d, Flatten, Layer, LeakyReLU, Linear, ReLU, Reshape, Sequential, Tanh
from nanogan.models import dcgan
from nanogan.ops.examples import normal


class Conditional(Layer):
    """Pictures with the maps of their labels, (N, C + classes, H, W), from z and one-hot labels, (N, latent + classes).

    ``network`` is a generator (N, latent + classes) -> (N, C, H, W); by itself it draws the pictures without maps. The
    number of classes is a buffer too, so that it is saved with the weights. Attributes: network, latent, classes.
    """

    def __init__(self, network, *, latent, classes):
        super().__init__()
        self.network, self.latent, self.classes = network, latent, classes
        self.buffers["classes"] = np.array(classes, np.int64)

    def forward(self, z, train=True):
        if z.ndim != 2 or z.shape[1] != self.latent + self.classes:
            expected = f"(N, {self.latent} + {self.classes})"
            raise UserError(f"a conditional generator expected z joined with one-hot labels, {expected}, got {z.shape}")
        pictures, cache = self.network.forward(z, train=train)
        return with_maps(pictures, z[:, self.latent :]), cache

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        C = dy.shape[1] - self.classes
        dz = self.network.backward(dy[:, :C], cache, need_dx=need_dx, need_dw=need_dw)
        if not need_dx:
            return None
        # a label goes two ways: through the network, and into every pixel of its map
        return join(dz[:, : self.latent], dz[:, self.latent :] + dy[:, C:].sum(axis=(2, 3)))

    def load_state_dict(self, state):
        """As a layer's; raises UserError too if the other generator has as many inputs, but other classes."""
        classes = state.get("classes")
        if getattr(classes, "shape", None) == () and int(classes) != self.classes:
            raise UserError(f"these weights are of a generator of {int(classes)} classes, this one has {self.classes}")
        super().load_state_dict(state)


def one_hot(labels, classes, *, dtype=np.float32):
    """Return (N, classes), NumPy: 1 in column ``labels[n]`` of row n, else 0.

    Raises UserError unless labels (N,), NumPy, are whole numbers from 0 to classes - 1.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not ((labels >= 0) & (labels < classes)).all():
        some = np.array2string(labels.ravel()[:4], separator=", ")
        raise UserError(f"labels (N,) expected whole numbers from 0 to {classes - 1}, got {labels.shape} {some}")
    return np.eye(classes, dtype=dtype)[labels]


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


def generator(*, classes, latent=100, **options):
    """Return a :class:`Conditional` DCGAN; ``options`` and errors are those of :func:`nanogan.models.dcgan.generator`.

    Its first layer is given latent + classes numbers.
    """
    dcgan.check_counts(classes=classes, latent=latent)
    return Conditional(dcgan.generator(latent=latent + classes, **options), latent=latent, classes=classes)


def discriminator(*, classes, channels=3, **options):
    """Return the discriminator of pictures with label maps, (N, channels + classes, image_size, image_size)."""
    dcgan.check_counts(classes=classes, channels=channels)
    return dcgan.discriminator(channels=channels + classes, **options)


def options_of(state):
    """Infer :func:`generator`'s options from its state dict. Raises UserError if the arrays are not of such a one."""
    found = dcgan.options_of({name.removeprefix("network."): array for name, array in state.items()})
    classes = state.get("classes")
    if classes is None or classes.shape != () or classes.dtype != np.int64 or not 1 <= classes < found["latent"]:
        raise UserError("a number of classes was expected, less than the inputs of the first layer")
    return found | {"classes": int(classes), "latent": found["latent"] - int(classes)}


def mlp_pair(*, classes, pixels=784, latent=100, width=512, rng=None):
    """Return G and D of fully connected layers, which know nothing of neighbouring pixels: the paper's baseline.

    A picture is (N, pixels, 1, 1), one pixel of many channels: any order of them is as good, and a label's map is one
    number.
    """
    rng = rng or np.random.default_rng()
    g = Sequential(
        Linear(latent + classes, width, bias=False, rng=rng), BatchNorm1d(width), ReLU(),
        Linear(width, width, bias=False, rng=rng), BatchNorm1d(width), ReLU(),
        Linear(width, pixels, rng=rng), Tanh(), Reshape(pixels, 1, 1),
    )  # fmt: skip
    d = Sequential(
        Flatten(),
        Linear(pixels + classes, width, rng=rng), LeakyReLU(negative_slope=0.2),
        Linear(width, width, rng=rng), LeakyReLU(negative_slope=0.2),
        Linear(width, 1, rng=rng),
    )  # fmt: skip
    return Conditional(g, latent=latent, classes=classes), d


def _example():
    return generator(classes=2, image_size=8, channels=2, latent=3, width=2, rng=np.random.default_rng(11))


EXAMPLES = {"conditional generator": (_example, normal(4, 5))}
