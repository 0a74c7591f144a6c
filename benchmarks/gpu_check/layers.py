"""Layers and the DCGAN's networks, forward and backward, by whatever path serves them."""

import contextlib
import functools

import numpy as np

from benchmarks.gpu_check.compare import SIZES, Worst, allowed, error, on_a_cpu, precisions, products_in, readable
from benchmarks.networks import LATENT, shape_of
from nanogan import dispatch, layers
from nanogan.backend import channels_last, to_device
from nanogan.gradcheck.cases import LAYERS
from nanogan.models import dcgan
from nanogan.ops.examples import Draw, normal


def all_layers(device):
    """Every layer's example, and BatchNorm with what follows it."""
    for name, (make, draw) in LAYERS.items():
        if any(hasattr(layer, "rng") for _, layer in make().named_layers()):
            continue  # its random numbers depend on the dtype
        yield f"layer {name}, float32", functools.partial(compared, device, [(name, make, draw)])
    for activation in (layers.ReLU, layers.LeakyReLU):
        for dtype in ("float64", "float32"):
            for mean in (0, 1e4):
                label = f"BatchNorm and {activation.__name__}, {dtype}, mean {mean:g}"
                yield label, functools.partial(compared, device, list(pairs(activation, mean)), dtype=dtype)


def pairs(activation, mean):
    """Yield (size, function that makes BatchNorm and an activation, input) for several sizes."""
    options = {"negative_slope": 0.2} if activation is layers.LeakyReLU else {}
    shapes = (4, 3, 5, 5), (16, 64, 32, 32), (64, 512, 4, 4), (8, 130, 7, 7), (64, 33), (32, 128, 7, 7)
    for shape in shapes:
        kind = layers.BatchNorm2d if len(shape) == 4 else layers.BatchNorm1d

        def make(kind=kind, C=shape[1]):
            network = layers.Sequential(kind(C), activation(**options))
            rng = np.random.default_rng(8)
            for _, parameter, _ in network.named_parameters():
                parameter[...] = rng.standard_normal(parameter.shape)
            return network

        def values(rng, shape):
            return mean + rng.standard_normal(shape)

        yield str(shape), make, Draw(shape, values)


def compared(device, cases, dtype="float32", precision="float32"):
    """Compare forward and backward, whose gradients are added to what is there, by whatever path serves."""
    worst, ran = Worst(), set()
    for name, make, draw in cases:
        x = draw(np.random.default_rng(9))
        x = x.astype(dtype) if x.dtype.kind == "f" else x
        exact = through(make(), x, np.float64, "cpu")
        with products_in(on_a_cpu(precision)):
            usual = through(make(), x, np.dtype(dtype), "cpu", exact["dy"])
        with products_in(precision), dispatch.watch() as paths:
            got = through(make(), x, np.dtype(dtype), device, exact["dy"], fast=True)
        ran |= {path.rpartition(".")[2] for path in paths if path.startswith("nanogan.fast")}
        for key, expected in exact.items():
            if key != "dy":
                tolerance = allowed(error(usual[key], expected), dtype, precision)
                worst.add(f"{key} of {name}", error(got[key], expected), tolerance)
    return True, f"{worst.answer()}; fast paths: {', '.join(sorted(ran)) or 'none'}"


def through(network, x, dtype, device, dy=None, fast=False):
    """Return {name: array} of y, dx, gradients and state after a forward and two backwards."""
    network = network.astype(dtype).to(device)
    x = to_device(channels_last(x.astype(dtype) if x.dtype.kind == "f" else x), device)
    for _, _, gradient in network.named_parameters():
        gradient[...] = 0.5
    with contextlib.nullcontext() if fast else readable():
        y, cache = network.forward(x, train=True)
        if dy is None:
            dy = channels_last(np.random.default_rng(10).standard_normal(y.shape))
        for _ in range(2):
            dx = network.backward(to_device(dy.astype(dtype), device), cache)
    results = {"y": y, "dy": dy} | ({} if dx is None else {"dx": dx})
    results |= {f"d {name}": gradient for name, _, gradient in network.named_parameters()}
    return results | {name: a for name, a in network.state_dict().items() if name.rpartition(".")[2].startswith("run")}


def networks(device):
    """The DCGAN's two networks in the sizes that are trained, in every precision of products."""
    for label, network in SIZES.items():
        N, C, size = max(2, network["batch_size"] // 4), network["channels"], network["image_size"]
        for letter, make, shape in (
            ("G", dcgan.generator, (N, LATENT)),
            ("D", dcgan.discriminator, (N, C, size, size)),
        ):
            if device.kind == "cpu" and label != "MNIST default":
                continue  # its float64 takes a minute on a laptop

            def build(make=make, network=network):
                return make(**shape_of(network), rng=np.random.default_rng(11))

            for precision in precisions(device):
                case = (f"{letter}, {label}", build, normal(*shape))
                yield (
                    f"{letter}, {label}, {precision}",
                    functools.partial(compared, device, [case], "float32", precision),
                )
