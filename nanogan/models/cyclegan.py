"""CycleGAN's networks: J.-Y. Zhu, T. Park, P. Isola, A. A. Efros, arXiv:1703.10593, section 4 and appendix 7.2.

    translator      image -> 7x7 to w -> 3x3/2 to 2w -> 3x3/2 to 4w -> residual blocks -> back to 2w, w -> 7x7 to image
    discriminator   image -> 4x4/2 to w -> 4x4/2 to 2w -> ... -> 4x4 -> 4x4 to a map of logits

The translator starts from an image where a GAN's generator starts from noise. It is a ResNet (J. Johnson et al.,
arXiv:1603.08155): two strides see more of the image for less work, the blocks change the small map step by step, and
two transposed convolutions enlarge it again. The paper has width 64 and 6 blocks for 128 pixels, 9 for 256.

The discriminator is a PatchGAN: each logit of its map judges the patch of the image that it sees, 70 pixels with the
paper's three strides, 34 with two. It has fewer weights than one logit for the whole image would need, and leaves what
goes together far apart to the cycle.

Both are fully convolutional, so they take images of other sizes than they were trained on. Instance normalisation
subtracts the mean of every map, so a convolution before it needs no bias (the authors' has one, whose gradient is 0).
"""

import itertools
import re

import numpy as np

from nanogan.errors import UserError
from nanogan.layers import (
    Conv2d,
    ConvTranspose2d,
    InstanceNorm2d,
    Layer,
    LeakyReLU,
    ReflectionPad2d,
    ReLU,
    Residual,
    Sequential,
    Tanh,
    init,
)
from nanogan.models.dcgan import check_counts
from nanogan.ops.examples import normal

SMALLEST = 8  # pixels: reflection needs maps larger than its padding
MAX_BLOCKS = 64


class Translator(Sequential):
    """Images of one domain (N, C_in, H, W) -> images of another (N, C_out, H, W), -1 to 1; H, W multiples of ``step``.

    The size that it is trained at is a buffer, so that it is saved with the weights. Attributes: image_size,
    in_channels, out_channels, width; others by the network's kind.
    """

    def __init__(self, *layers, image_size, in_channels, out_channels, width, step, **attributes):
        super().__init__(*layers, prefix="main")
        self.image_size, self.in_channels, self.out_channels = image_size, in_channels, out_channels
        self.width, self.step = width, step
        vars(self).update(attributes)
        self.buffers["image_size"] = np.array(image_size, np.int64)

    def forward(self, x, train=True):
        if x.ndim != 4 or x.shape[1] != self.in_channels or any(side < 1 or side % self.step for side in x.shape[2:]):
            raise UserError(
                f"a translator expected images (N, {self.in_channels}, H, W), H and W multiples of {self.step}, "
                f"got {x.shape}"
            )
        return super().forward(x, train=train)


class Translators(Layer):
    """Two translators that one optimiser trains: ``ab`` from A to B, and ``ba`` from B to A. It has no forward."""

    def __init__(self, ab, ba):
        super().__init__()
        self.ab, self.ba = ab, ba


def generator(
    *, image_size=256, in_channels=3, out_channels=3, width=64, blocks=9, rng=None, dtype=np.float32
):  # fmt: skip
    """Return the translator, (N, in_channels, H, W) -> (N, out_channels, H, W).

    image_size: a multiple of 4, at least 8. Weights are drawn from N(0, 0.02), biases are 0. Raises UserError for other
    sizes and for counts below 1.
    """
    check_size(image_size, 4, SMALLEST)
    check_counts(in_channels=in_channels, out_channels=out_channels, width=width, blocks=blocks)
    rng = rng or np.random.default_rng()
    how = {"rng": rng, "dtype": dtype}
    w = width

    layers = [ReflectionPad2d(3), Conv2d(in_channels, w, kernel_size=7, bias=False, **how), InstanceNorm2d(w), ReLU()]
    for narrow, wide in ((w, 2 * w), (2 * w, 4 * w)):
        layers += [Conv2d(narrow, wide, kernel_size=3, stride=2, padding=1, bias=False, **how)]
        layers += [InstanceNorm2d(wide), ReLU()]
    for _ in range(blocks):
        layers += [_block(4 * w, how)]
    for wide, narrow in ((4 * w, 2 * w), (2 * w, w)):
        options = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "bias": False}
        layers += [ConvTranspose2d(wide, narrow, **options, **how), InstanceNorm2d(narrow), ReLU()]
    layers += [ReflectionPad2d(3), Conv2d(w, out_channels, kernel_size=7, **how), Tanh()]  # no normalisation here
    sizes = {"image_size": image_size, "in_channels": in_channels, "out_channels": out_channels, "width": width}
    return init.dcgan_(Translator(*layers, step=4, blocks=blocks, **sizes), rng)


def _block(channels, how):
    """x + f(x) with nothing after the sum; the padding reflects, so that borders look like the rest."""

    def conv():
        return Conv2d(channels, channels, kernel_size=3, bias=False, **how)

    return Residual(
        ReflectionPad2d(1), conv(), InstanceNorm2d(channels), ReLU(),
        ReflectionPad2d(1), conv(), InstanceNorm2d(channels),
    )  # fmt: skip


def discriminator(*, image_size=256, channels=3, width=64, strides=3, rng=None, dtype=np.float32):
    """Return the PatchGAN, (N, channels, H, W) -> logits (N, 1, h, w): 30 x 30 of them for 256 pixels, 3 strides.

    It halves the image ``strides`` times, then follow two convolutions of stride 1. Weights as :func:`generator`'s.
    Raises UserError for images too small for the strides.
    """
    check_counts(channels=channels, width=width, strides=strides)
    check_size(image_size, 2**strides, 3 * 2**strides)
    rng = rng or np.random.default_rng()
    how = {"rng": rng, "dtype": dtype}
    widths = [width * 2**i for i in range(strides)]  # w, 2w, 4w
    last = 2 * widths[-1]

    layers = [Conv2d(channels, width, kernel_size=4, stride=2, padding=1, **how), LeakyReLU(negative_slope=0.2)]
    for narrow, wide, stride in [*((n, w, 2) for n, w in itertools.pairwise(widths)), (widths[-1], last, 1)]:
        layers += [Conv2d(narrow, wide, kernel_size=4, stride=stride, padding=1, bias=False, **how)]
        layers += [InstanceNorm2d(wide), LeakyReLU(negative_slope=0.2)]
    layers += [Conv2d(last, 1, kernel_size=4, stride=1, padding=1, **how)]
    return init.dcgan_(Sequential(*layers, prefix="main"), rng)


def check_size(image_size, step, least):
    """Raise UserError unless ``image_size`` is a multiple of ``step`` of at least ``least``."""
    check_counts(image_size=image_size)
    least = -(-least // step) * step
    if image_size % step or image_size < least:
        below, above = image_size // step * step, -(-image_size // step) * step
        near = sorted({max(least, below), max(least, above)})
        raise UserError(
            f"image_size expected a multiple of {step}, at least {least}, got {image_size}: use "
            + " or ".join(map(str, near))
        )


def options_of(state):
    """Infer :func:`generator`'s arguments from its state dict. Raises UserError if the arrays are of another network.

    Returns {"image_size", "in_channels", "out_channels", "width", "blocks"}.
    """
    shapes = [array.shape for array in in_order(state)]
    size = state.get("image_size")
    if 8 <= len(shapes) <= 6 + 2 * MAX_BLOCKS and getattr(size, "shape", None) == () and size.dtype.kind == "i":
        options = {
            "image_size": int(size),
            "in_channels": shapes[0][1],
            "out_channels": shapes[-1][0],
            "width": shapes[0][0],
            "blocks": (len(shapes) - 6) // 2,
        }
        # Nothing is built from these numbers unless the file holds arrays of just these shapes.
        if 0 not in shapes[0] + shapes[-1] and shapes == _weights(**options):
            return options
    raise UserError("the convolutions of a CycleGAN's generator were expected, and the image size of its training")


def _weights(image_size, in_channels, out_channels, width, blocks):
    """The shapes of the generator's convolution weights, first to last."""
    w = width
    down = [(w, in_channels, 7, 7), (2 * w, w, 3, 3), (4 * w, 2 * w, 3, 3)]
    up = [(4 * w, 2 * w, 3, 3), (2 * w, w, 3, 3), (out_channels, w, 7, 7)]  # transposed: (in, out, KH, KW)
    return [*down, *[(4 * w, 4 * w, 3, 3)] * (2 * blocks), *up]


def in_order(state):
    """The convolutions' weights in a translator's state dict, first to last: main.2 comes before main.10."""
    names = {tuple(map(int, re.findall(r"\d+", name))): name for name in state if state[name].ndim == 4}
    return [state[name] for _, name in sorted(names.items())]


def _rng():
    return np.random.default_rng(11)


EXAMPLES = {
    "CycleGAN generator": (
        lambda: generator(image_size=8, in_channels=1, out_channels=2, width=2, blocks=1, rng=_rng()),
        normal(2, 1, 8, 8),
    ),
    "CycleGAN discriminator": (
        lambda: discriminator(image_size=12, channels=2, width=2, strides=2, rng=_rng()),
        normal(2, 2, 12, 12),
    ),
}
