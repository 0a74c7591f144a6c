"""ACGAN's discriminator, which says of an image whether it is real and of which class it is: A. Odena et al.,
arXiv:1610.09585, section 3 and appendix A.

    trunk    images (N, C, S, S)       -> h (N, F, s, s), what both heads look at
    source   h                         -> logits (N, 1), above 0 for "real"
    classes  h                         -> logits (N, K), the largest for the class

D is not given the label: it has to find it in the image. G is the conditional generator of
:mod:`nanogan.models.conditional`. The trunk is the DCGAN's discriminator without its last convolution, with dropout
behind each LeakyReLU; each head is a convolution like the one left out. The game, :mod:`nanogan.games.acgan`, joins the
three.
"""

import numpy as np

from nanogan.errors import UserError
from nanogan.layers import Conv2d, Dropout, Flatten, Layer, LeakyReLU, Sequential, init
from nanogan.models import dcgan
from nanogan.ops.examples import normal


class Discriminator(Layer):
    """D's three networks, so that one optimiser updates them: ``trunk``, ``source``, ``classes``.

    It has no forward of its own: a step runs the three, and adds the heads' gradients where they meet.
    """

    def __init__(self, trunk, source, classes):
        super().__init__()
        self.trunk, self.source, self.classes = trunk, source, classes

    @property
    def classifier(self):
        """The trunk and the class head, (N, C, S, S) -> logits (N, K): the same layers, not copies."""
        return Sequential(self.trunk, self.classes)


def discriminator(*, classes, dropout=0.5, rng=None, dtype=np.float32, **sizes):
    """Return a :class:`Discriminator` of ``classes`` classes, with parameters from N(0, 0.02).

    sizes: image_size, channels and width of :func:`nanogan.models.dcgan.discriminator`, whose errors are raised.
    dropout: the probability with which an element of the trunk's maps is zeroed in train mode; the paper's is 0.5.
    """
    dcgan.check_counts(classes=classes)
    if not 0 <= dropout < 1:
        raise UserError(f"dropout expected a probability of at least 0 and below 1, got {dropout!r}")
    rng = rng or np.random.default_rng()
    plain = dcgan.discriminator(rng=rng, dtype=dtype, **sizes)
    trunk = []
    for layer in plain[:-2]:
        trunk += [layer, Dropout(dropout, rng=rng)] if isinstance(layer, LeakyReLU) else [layer]
    _, maps, start, _ = plain[-2].params["weight"].shape  # of the convolution that covers the smallest map
    convolution = Conv2d(maps, classes, kernel_size=start, bias=False, rng=rng, dtype=dtype)
    return Discriminator(Sequential(*trunk), plain[-2:], init.dcgan_(Sequential(convolution, Flatten()), rng))


def _example():
    return discriminator(
        classes=3, image_size=8, channels=2, width=2, dropout=0.3, rng=np.random.default_rng(11)
    ).classifier


EXAMPLES = {"ACGAN trunk and classes": (_example, normal(4, 2, 8, 8))}
