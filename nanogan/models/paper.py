"""The paper's own discriminators for 32 x 32 pictures, whose activations it classifies with.

    "cifar10"   3x3 kernels, strides 1, 2, 1, 2, 1, 2, maps 128, 128, 256, 256, 512, 512   28,672 features
    "svhn"      5x5 kernels, stride 2, maps 64, 128, 256                                    7,168 features

Features are counted as :func:`nanogan.analysis.inside.features.features` takes them: 4 x 4 of each map. Source: A.
Radford, L. Metz, S. Chintala, arXiv:1511.06434, section 5 and, where that is silent, the authors' code.
"""

import itertools

import numpy as np

from nanogan.errors import UserError
from nanogan.layers import BatchNorm2d, Conv2d, Flatten, LeakyReLU, init
from nanogan.models.dcgan import Discriminator

SIZE = 32
# name: kernel size, and of each convolution its stride and its maps, as multiples of the first one's
PLANS = {
    "cifar10": (3, ((1, 1), (2, 1), (1, 2), (2, 2), (1, 4), (2, 4))),
    "svhn": (5, ((2, 1), (2, 2), (2, 4))),
}
WIDTHS = {"cifar10": 128, "svhn": 64}  # the paper's


def discriminator(name, *, channels=3, width=None, rng=None, dtype=np.float32):
    """Return the discriminator ``name`` of :data:`PLANS`, (N, channels, 32, 32) -> logits (N, 1).

    BatchNorm everywhere but at the input, LeakyReLU of slope 0.2, no hidden dense layer. ``width``: maps of the first
    convolution, the paper's if not given. Raises UserError for another name or counts below 1.
    """
    if name not in PLANS:
        raise UserError(f"unknown discriminator {name!r}: use one of {', '.join(PLANS)}")
    kernel_size, plan = PLANS[name]
    width = WIDTHS[name] if width is None else width
    if min(channels, width) < 1:
        raise UserError(f"channels and width expected at least 1, got {channels} and {width}")
    rng = rng or np.random.default_rng()
    options = {"bias": False, "rng": rng, "dtype": dtype}
    widths = [channels, *(width * times for _, times in plan)]

    layers = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        layers += [
            Conv2d(inputs, outputs, kernel_size=kernel_size, stride=plan[i][0], padding=kernel_size // 2, **options)
        ]
        layers += [BatchNorm2d(outputs, dtype=dtype)] * (i > 0) + [LeakyReLU(negative_slope=0.2)]
    layers += [Conv2d(widths[-1], 1, kernel_size=4, stride=1, padding=0, **options), Flatten()]  # of maps of 4 x 4
    return init.dcgan_(Discriminator(*layers, image_size=SIZE, channels=channels, width=width), rng)


def options_of(state):
    """Infer ``discriminator``'s arguments from the shapes in its state dict: {"name", "channels", "width"}.

    Raises UserError if the arrays are not those of such a discriminator.
    """
    shape = getattr(state.get("main.0.weight"), "shape", ())
    for name, (kernel_size, _) in PLANS.items():
        if len(shape) == 4 and shape[2:] == (kernel_size, kernel_size) and shape[0] * shape[1] and len(state) < 64:
            found = {"name": name, "channels": shape[1], "width": shape[0]}
            # Nothing is built from these numbers unless the file holds arrays of just these shapes.
            if {key: array.shape for key, array in state.items() if array.ndim == 4} == _weights(**found):
                return found
    raise UserError("the convolutions of the paper's discriminator for CIFAR-10 or SVHN were expected")


def _weights(name, channels, width):
    """The names and shapes of the convolutions' weights."""
    kernel_size, plan = PLANS[name]
    widths = [channels, *(width * times for _, times in plan)]
    places = [0, *range(2, 3 * len(plan) - 1, 3), 3 * len(plan) - 1]  # main.0, main.2, main.5, ...
    shapes = [(outputs, inputs, kernel_size, kernel_size) for inputs, outputs in itertools.pairwise(widths)]
    return {f"main.{i}.weight": shape for i, shape in zip(places, [*shapes, (1, widths[-1], 4, 4)], strict=True)}
