"""The DCGAN: A. Radford, L. Metz, S. Chintala, arXiv:1511.06434, in the form of pytorch/examples' dcgan/main.py.

Both networks halve or double the picture with 4x4 convolutions of stride 2, and have their widest layer at the smallest
map. For 64 x 64 pixels and width w:

    generator       z -> 8w@4x4 -> 4w@8x8 -> 2w@16x16 -> w@32x32 -> channels@64x64
    discriminator   channels@64x64 -> w@32x32 -> 2w@16x16 -> 4w@8x8 -> 8w@4x4 -> one logit

Other sizes double a smallest map of 4 to 7 pixels as often as they need: 28 = 7*2*2, 32 = 4*2*2*2, 128 = 4*2^5. With
width=64 and 3 channels at 64 x 64 the networks are exactly pytorch/examples' (3,576,704 and 2,765,568 parameters, the
same names); width=128 gives the 1024-512-256-128 generator of the paper's figure 1.

A transposed convolution paints overlapping kernels, and where they overlap unevenly it leaves a checkerboard.
``upsample="resize"`` doubles by repeating pixels and then convolves them, 3x3 with stride 1, so that all pixels are
treated alike; with 9 weights where there were 16. Source: A. Odena et al., Deconvolution and Checkerboard Artifacts,
Distill 2016, doi:10.23915/distill.00003.
"""

import itertools
from numbers import Integral

import numpy as np

from nanogan.errors import UserError
from nanogan.layers import (
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    LeakyReLU,
    ReLU,
    Sequential,
    Tanh,
    Upsample,
    init,
)
from nanogan.ops.examples import normal

MAX_DOUBLINGS = 10  # 4096 to 7168 pixels
UPSAMPLES = ("deconv", "resize")  # how the generator doubles


class Generator(Sequential):
    """Pictures from noise: z (N, latent) or (N, latent, 1, 1) -> (N, channels, image_size, image_size), -1 to 1.

    Attributes: image_size, channels, latent, width, upsample, last_bias.
    """

    def __init__(self, *layers, image_size, channels, latent, width, upsample="deconv", last_bias=False):
        super().__init__(*layers, prefix="main")
        self.image_size, self.channels, self.latent, self.width = image_size, channels, latent, width
        self.upsample, self.last_bias = upsample, last_bias
        self.inputs = latent  # of the first layer

    def forward(self, z, train=True):
        if z.ndim not in (2, 4) or z.shape[1] != self.inputs or z.size != len(z) * self.inputs:
            raise UserError(f"the generator expected z of shape (N, {self.inputs}), got {z.shape}")
        y, caches = super().forward(z.reshape(-1, self.inputs, 1, 1), train=train)
        return y, (z.shape, caches)

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        z_shape, caches = cache
        dz = super().backward(dy, caches, need_dx=need_dx, need_dw=need_dw)
        return dz.reshape(z_shape) if need_dx else None


class Discriminator(Sequential):
    """Logits (N, 1) from pictures (N, channels, image_size, image_size) of numbers from -1 to 1.

    Attributes: image_size, channels, width.
    """

    def __init__(self, *layers, image_size, channels, width):
        super().__init__(*layers, prefix="main")
        self.image_size, self.channels, self.width = image_size, channels, width

    def _check(self, x):
        if x.shape[1:] != (self.channels, self.image_size, self.image_size):  # a larger picture would give more logits
            expected = f"(N, {self.channels}, {self.image_size}, {self.image_size})"
            raise UserError(f"the discriminator expected pictures of shape {expected}, got {x.shape}")


def generator(
    *, image_size=64, channels=3, latent=100, width=64, upsample="deconv", last_bias=False, gain=1.0, rng=None,
    dtype=np.float32,
):  # fmt: skip
    """Return the generator, with parameters from :func:`nanogan.layers.init.dcgan_`, to which ``gain`` goes.

    image_size: 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, ... ``rng`` is a numpy.random.Generator.
    upsample: how a map is doubled, "deconv" by a transposed convolution, "resize" by repeating pixels and a 3x3
    convolution. last_bias: whether the last layer has a bias. Raises UserError for a size that cannot be reached,
    naming the nearest ones.
    """
    rng = rng or np.random.default_rng()
    sizes = {"image_size": image_size, "channels": channels, "latent": latent, "width": width}
    form = {"upsample": upsample, "last_bias": last_bias}
    layers = generator_layers(**sizes, **form, rng=rng, dtype=dtype)
    return init.dcgan_(Generator(*layers, **sizes, **form), rng, gain)


def generator_layers(image_size, channels, latent, width, upsample, rng, dtype, last_bias=False):
    """Return the layers from ``latent`` numbers to an image; errors are those of :func:`generator`."""
    check_counts(channels=channels, latent=latent, width=width)
    if upsample not in UPSAMPLES:
        raise UserError(f'upsample expected "deconv" or "resize", got {upsample!r}')
    options = {"bias": False, "rng": rng, "dtype": dtype}

    start, widths = _generator_widths(image_size, width)
    layers = [ConvTranspose2d(latent, widths[0], kernel_size=start, stride=1, padding=0, **options)]
    for i, (wide, narrow) in enumerate(itertools.pairwise([*widths, channels]), start=1):
        layers += [BatchNorm2d(wide, dtype=dtype), ReLU()]
        options["bias"] = last_bias and i == len(widths)
        if upsample == "resize":
            layers += [Upsample(scale_factor=2), Conv2d(wide, narrow, kernel_size=3, stride=1, padding=1, **options)]
        else:
            layers += [ConvTranspose2d(wide, narrow, kernel_size=4, stride=2, padding=1, **options)]
    return [*layers, Tanh()]


def discriminator(*, image_size=64, channels=3, width=64, gain=1.0, rng=None, dtype=np.float32):
    """Return the discriminator, (N, channels, image_size, image_size) -> logits (N, 1), above 0 for "real".

    It ends in logits where pytorch/examples has a sigmoid: the loss takes them, and stays exact when D is sure.
    Parameters, sizes and errors as for :func:`generator`.
    """
    start, doublings = plan(image_size)
    check_counts(channels=channels, width=width)
    rng = rng or np.random.default_rng()
    options = {"bias": False, "rng": rng, "dtype": dtype}
    widths = [width * 2**i for i in range(doublings)]  # w, 2w, 4w, 8w

    layers = [Conv2d(channels, width, kernel_size=4, stride=2, padding=1, **options), LeakyReLU(negative_slope=0.2)]
    for narrow, wide in itertools.pairwise(widths):
        layers += [Conv2d(narrow, wide, kernel_size=4, stride=2, padding=1, **options)]
        layers += [BatchNorm2d(wide, dtype=dtype), LeakyReLU(negative_slope=0.2)]
    layers += [Conv2d(widths[-1], 1, kernel_size=start, stride=1, padding=0, **options), Flatten()]
    network = Discriminator(*layers, image_size=image_size, channels=channels, width=width)
    return init.dcgan_(network, rng, gain)


def options_of(state):
    """Infer ``generator``'s options from the shapes in its state dict, so that a file of weights is enough to draw.

    Works for pytorch/examples' ``netG`` too. Returns {"image_size", "channels", "latent", "width", "upsample",
    "last_bias"}. Raises UserError if the arrays are not those of such a generator.
    """
    names = sorted((name for name in state if state[name].ndim == 4), key=lambda name: (len(name), name))
    shapes = [state[name].shape for name in names]  # in the network's order: main.0, main.3, ..., main.12
    found = None
    if 1 < len(shapes) <= MAX_DOUBLINGS + 1:
        upsample = "resize" if shapes[-1][2:] == (3, 3) else "deconv"
        # a transposed convolution's weight is (in, out, KH, KW), a convolution's (out, in, KH, KW)
        width, channels = shapes[-1][:2] if upsample == "deconv" else shapes[-1][1::-1]
        found = {
            "image_size": shapes[0][2] * 2 ** (len(shapes) - 1),
            "channels": channels,
            "latent": shapes[0][0],
            "width": width,
            "upsample": upsample,
            "last_bias": names[-1].removesuffix("weight") + "bias" in state,
        }
    # Nothing is built from these numbers unless the file holds arrays of just these shapes.
    if found is None or 0 in shapes[-1] or shapes != _generator_weights(**found):
        raise UserError(
            "a transposed convolution for the smallest map and one for each doubling were expected, or a 3x3 "
            "convolution for each"
        )
    return found


def _generator_weights(image_size, channels, latent, width, upsample, last_bias):
    """The shapes of the generator's convolution weights, first to last."""
    start, widths = _generator_widths(image_size, width)
    pairs = itertools.pairwise([*widths, channels])
    shapes = [(wide, narrow, 4, 4) if upsample == "deconv" else (narrow, wide, 3, 3) for wide, narrow in pairs]
    return [(latent, widths[0], start, start), *shapes]


def _generator_widths(image_size, width):
    """The smallest map's size, and the channels of the maps before each doubling: 64 -> 4, [8w, 4w, 2w, w]."""
    start, doublings = plan(image_size)
    return start, [width * 2**i for i in reversed(range(doublings))]


def discriminator_options_of(state):
    """Infer ``discriminator``'s options from the shapes in its state dict.

    Works for pytorch/examples' ``netD`` too. Returns {"image_size", "channels", "width"}. Shapes do not tell strides
    and paddings: a network that ends otherwise may have the shapes of this one at another size of picture.
    Raises UserError if the arrays are not those of such a discriminator.
    """
    names = sorted((name for name in state if state[name].ndim == 4), key=lambda name: (len(name), name))
    shapes = [state[name].shape for name in names]  # main.0, main.2, main.5, ...
    found = None
    if 1 < len(shapes) <= MAX_DOUBLINGS + 1 and 0 not in shapes[0]:
        found = {
            "image_size": shapes[-1][2] * 2 ** (len(shapes) - 1),
            "channels": shapes[0][1],
            "width": shapes[0][0],
        }
    # Nothing is built from these numbers unless the file holds arrays of just these shapes.
    if found is None or shapes != _discriminator_weights(**found):
        raise UserError("a convolution for each halving and one for the smallest map were expected")
    return found


def _discriminator_weights(image_size, channels, width):
    """The shapes of the discriminator's convolution weights, first to last."""
    start, doublings = plan(image_size)
    widths = [width * 2**i for i in range(doublings)]  # w, 2w, 4w, 8w
    halvings = ((wide, narrow, 4, 4) for narrow, wide in itertools.pairwise([channels, *widths]))
    return [*halvings, (1, widths[-1], start, start)]


def plan(image_size, scale=1):
    """Return (smallest map, number of doublings): 64 -> (4, 4), 28 -> (7, 2).

    Raises UserError for other sizes, and names those that are near; ``scale`` times as large ones, if what a user chose
    was ``scale`` times ``image_size``.
    """
    check_counts(image_size=image_size)
    size, doublings = image_size, 0
    while size >= 8 and size % 2 == 0:
        size, doublings = size // 2, doublings + 1
    if not 1 <= doublings <= MAX_DOUBLINGS or not 4 <= size <= 7:
        reached = sorted(start * 2**n for start in (4, 5, 6, 7) for n in range(1, MAX_DOUBLINGS + 1))
        near = sorted(reached, key=lambda other: abs(other - image_size))[:2]
        raise UserError(
            f"a DCGAN cannot draw pictures of {image_size} pixels: it doubles a map of 4 to 7 pixels; "
            f"use {scale * min(near)} or {scale * max(near)}"
        )
    return size, doublings


def check_counts(**counts):
    """Raise UserError unless each is a whole number of at least 1."""
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < 1:
            raise UserError(f"{name} expected a whole number of at least 1, got {count!r}")


def _example(make, **options):
    return lambda: make(image_size=16, channels=2, width=3, rng=np.random.default_rng(11), **options)


EXAMPLES = {
    "DCGAN generator": (_example(generator, latent=5), normal(4, 5)),
    "DCGAN generator, resize": (_example(generator, latent=5, upsample="resize"), normal(4, 5)),
    "DCGAN discriminator": (_example(discriminator), normal(4, 2, 16, 16)),
}
