"""The critic of a Wasserstein GAN: a score for each image, and no normalisation that would mix the images of a batch.

    critic(28, 1 channel, width w)    1@28x28 -> w@14x14 -> 2w@7x7 -> 4w@3x3 -> score
    critic(64, 3 channels, width w)   3@64x64 -> w@32x32 -> 2w@16x16 -> 4w@8x8 -> 8w@4x4 -> score

4x4 convolutions of stride 2 halve the map until it has at most 4 pixels on a side, then a linear layer reads all of it.
A gradient penalty asks for the gradient of each image's score along that image. With BatchNorm a score depends on the
whole batch and there is no such gradient, so the convolutions have biases and nothing comes between them and LeakyReLU.
All layers are linear piece by piece, and so have a tangent (:meth:`nanogan.layers.Layer.tangent`).

The generator is the DCGAN's, :func:`nanogan.models.dcgan.generator`, BatchNorm included: nothing is asked of its slope.
Source: I. Gulrajani et al., arXiv:1704.00028, section 4 and appendix F; their code's critic (gan_mnist.py) has 5x5
kernels, which cost 1.6 times as much.
"""

import itertools

import numpy as np

from nanogan.errors import UserError
from nanogan.layers import Conv2d, Flatten, LeakyReLU, Linear, Sequential
from nanogan.models.dcgan import check_counts
from nanogan.ops.examples import normal

SMALLEST = 4  # pixels on a side of a map that is not halved again


class Critic(Sequential):
    """Scores (N, 1) of images (N, channels, image_size, image_size) from -1 to 1; the higher, the more real.

    Attributes: image_size, channels, width.
    """

    def __init__(self, *layers, image_size, channels, width):
        super().__init__(*layers, prefix="main")
        self.image_size, self.channels, self.width = image_size, channels, width

    def forward(self, x, train=True):
        expected = (self.channels, self.image_size, self.image_size)
        if x.shape[1:] != expected:
            raise UserError(f"the critic expected images of shape (N, {', '.join(map(str, expected))}), got {x.shape}")
        return super().forward(x, train=train)


def critic(*, image_size=64, channels=3, width=64, rng=None, dtype=np.float32):
    """Return the critic, with torch's initial parameters from ``rng``, a numpy.random.Generator.

    image_size: at least 5, so that there is a map to halve. Raises UserError for sizes below that and for counts that
    are no integers of at least 1.
    """
    check_counts(image_size=image_size, channels=channels, width=width)
    if image_size <= SMALLEST:
        raise UserError(f"a critic expected images of at least {SMALLEST + 1} pixels on a side, got {image_size}")
    options = {"rng": rng or np.random.default_rng(), "dtype": dtype}
    size, widths = image_size, [channels]
    while size > SMALLEST:
        size, widths = size // 2, [*widths, width * 2 ** (len(widths) - 1)]

    layers = []
    for narrow, wide in itertools.pairwise(widths):
        layers += [Conv2d(narrow, wide, kernel_size=4, stride=2, padding=1, **options), LeakyReLU(negative_slope=0.2)]
    # a bias here would move all scores alike, and the losses are differences of scores
    layers += [Flatten(), Linear(widths[-1] * size * size, 1, bias=False, **options)]
    return Critic(*layers, image_size=image_size, channels=channels, width=width)


def _example():
    return critic(image_size=12, channels=2, width=3, rng=np.random.default_rng(11))


EXAMPLES = {"WGAN critic": (_example, normal(4, 2, 12, 12))}
