"""DiscoGAN's networks: T. Kim, M. Cha, H. Kim, J. K. Lee, J. Kim, arXiv:1703.05192, section 3.4 and the authors' code.

    translator      image -> w -> 2w -> 4w -> ... at 4x4 to 7x7 pixels -> ... -> 2w -> w -> image
    discriminator   a DCGAN's: image -> w -> 2w -> 4w -> ... -> one logit

Every convolution is 4x4 and halves the map, every transposed one doubles it; both networks have BatchNorm but at their
ends, and no biases. All that the translator knows of an image when it starts to paint is its smallest map, at which
nothing is tied to its place: it may turn a whole figure into another. Weights start as torch's do.
"""

import itertools

import numpy as np

from nanogan.errors import UserError
from nanogan.layers import BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, LeakyReLU, ReLU, Tanh
from nanogan.models import dcgan
from nanogan.models.cyclegan import Translator, in_order
from nanogan.models.dcgan import check_counts, plan
from nanogan.ops.examples import normal


def generator(*, image_size=64, in_channels=3, out_channels=3, width=64, rng=None, dtype=np.float32):
    """Return the translator, (N, in_channels, H, W) -> (N, out_channels, H, W); sizes and errors as for a DCGAN.

    H and W may be other multiples of 2^halvings than image_size. The authors' has 64 pixels and width 64.
    """
    _, halvings = plan(image_size)
    check_counts(in_channels=in_channels, out_channels=out_channels, width=width)
    options = {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False}
    options |= {"rng": rng or np.random.default_rng(), "dtype": dtype}
    widths = [width * 2**i for i in range(halvings)]  # w, 2w, 4w, 8w

    layers = [Conv2d(in_channels, width, **options), LeakyReLU(negative_slope=0.2)]
    for narrow, wide in itertools.pairwise(widths):
        layers += [Conv2d(narrow, wide, **options), BatchNorm2d(wide, dtype=dtype), LeakyReLU(negative_slope=0.2)]
    for wide, narrow in itertools.pairwise(reversed(widths)):
        layers += [ConvTranspose2d(wide, narrow, **options), BatchNorm2d(narrow, dtype=dtype), ReLU()]
    layers += [ConvTranspose2d(width, out_channels, **options), Tanh()]
    sizes = {"image_size": image_size, "in_channels": in_channels, "out_channels": out_channels, "width": width}
    return Translator(*layers, step=2**halvings, **sizes)


def discriminator(*, image_size=64, channels=3, width=64, rng=None, dtype=np.float32):
    """Return a DCGAN's discriminator, (N, channels, image_size, image_size) -> logits (N, 1), with torch's weights."""
    start, halvings = plan(image_size)
    check_counts(channels=channels, width=width)
    options = {"bias": False, "rng": rng or np.random.default_rng(), "dtype": dtype}
    widths = [width * 2**i for i in range(halvings)]

    layers = [Conv2d(channels, width, kernel_size=4, stride=2, padding=1, **options), LeakyReLU(negative_slope=0.2)]
    for narrow, wide in itertools.pairwise(widths):
        layers += [Conv2d(narrow, wide, kernel_size=4, stride=2, padding=1, **options)]
        layers += [BatchNorm2d(wide, dtype=dtype), LeakyReLU(negative_slope=0.2)]
    layers += [Conv2d(widths[-1], 1, kernel_size=start, **options), Flatten()]
    return dcgan.Discriminator(*layers, image_size=image_size, channels=channels, width=width)


def options_of(state):
    """Infer :func:`generator`'s arguments from its state dict. Raises UserError if the arrays are of another network.

    Returns {"image_size", "in_channels", "out_channels", "width"}.
    """
    shapes = [array.shape for array in in_order(state)]
    size = state.get("image_size")
    if 2 <= len(shapes) <= 2 * dcgan.MAX_DOUBLINGS and getattr(size, "shape", None) == () and size.dtype.kind == "i":
        width, in_channels = shapes[0][:2]
        options = {"in_channels": in_channels, "out_channels": shapes[-1][1], "width": width}
        # Nothing is built from these numbers unless the file holds arrays of just these shapes.
        _, halvings = plan(int(size))
        if 0 not in shapes[0] + shapes[-1] and shapes == _weights(halvings=halvings, **options):
            return {"image_size": int(size), **options}
    raise UserError("the convolutions of a DiscoGAN's generator were expected, and the image size of its training")


def _weights(halvings, in_channels, out_channels, width):
    """The shapes of the generator's convolution weights, first to last."""
    pairs = list(itertools.pairwise([width * 2**i for i in range(halvings)]))
    down = [(width, in_channels, 4, 4), *((wide, narrow, 4, 4) for narrow, wide in pairs)]
    up = [*((wide, narrow, 4, 4) for narrow, wide in reversed(pairs)), (width, out_channels, 4, 4)]
    return down + up


def _rng():
    return np.random.default_rng(11)


EXAMPLES = {
    "DiscoGAN generator": (
        lambda: generator(image_size=16, in_channels=1, out_channels=2, width=2, rng=_rng()),
        normal(3, 1, 16, 16),
    ),
    "DiscoGAN discriminator": (
        lambda: discriminator(image_size=8, channels=2, width=2, rng=_rng()),
        normal(4, 2, 8, 8),
    ),
}
