"""Where a DCGAN's step spends its time: each operation of a network by itself, nanogan beside torch.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m benchmarks.operations --out FILE.md

Convolutions are counted as the definition counts them, 2 operations for each multiplication, so that Winograd's may
pass the machine's own matrix product, whose speed in the same run is the last column's 100%. torch runs channels-last.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import machine, torch_dcgan
from benchmarks.step import NETWORKS
from nanogan import layers
from nanogan.cli import at_least
from nanogan.models import dcgan
from nanogan.optim import Adam


def torch_conv(kind, layer, x, dy):
    """Return {"forward", "dx", "dw"}: torch's functions for the same convolution."""
    x, dy, w = (
        torch.tensor(np.ascontiguousarray(a)).contiguous(memory_format=torch.channels_last)
        for a in (x, dy, layer.params["weight"])
    )
    stride, padding = ([layer.options[name]] * 2 for name in ("stride", "padding"))
    transposed = kind is layers.ConvTranspose2d
    function = F.conv_transpose2d if transposed else F.conv2d

    def backward(*wanted):
        options = None, stride, padding, [1, 1], transposed, [0, 0], 1, wanted
        return lambda: torch.ops.aten.convolution_backward(dy, x, w, *options)

    return {
        "forward": lambda: function(x, w, stride=stride, padding=padding),
        "dx": backward(True, False, False),
        "dw": backward(False, True, False),
    }


def convolutions(network, rng):
    """Yield (name, operation, multiply-adds * 2, nanogan's function, torch's function)."""
    shape = {key: network[key] for key in ("image_size", "channels", "width")}
    N, size, channels = network["batch_size"], network["image_size"], network["channels"]
    g, d = dcgan.generator(latent=100, rng=rng, **shape), dcgan.discriminator(rng=rng, **shape)
    for letter, net, x_shape in (("D", d, (N, channels, size, size)), ("G", g, (N, 100, 1, 1))):
        x = rng.standard_normal((N, *x_shape[2:], x_shape[1]), dtype=np.float32).transpose(0, 3, 1, 2)
        for layer in net.layers:
            y, cache = layer.forward(x)
            kind = type(layer)
            if kind in (layers.Conv2d, layers.ConvTranspose2d):
                dy = rng.standard_normal((N, *y.shape[2:], y.shape[1]), dtype=np.float32).transpose(0, 3, 1, 2)
                pixels = np.prod((y if kind is layers.Conv2d else x).shape[2:])
                operations = 2 * N * pixels * layer.params["weight"].size
                name = f"{letter} {x.shape[1]}->{y.shape[1]} @{x.shape[2]}->{y.shape[2]}"
                ours = {
                    "forward": lambda layer=layer, x=x: layer.forward(x),
                    "dx": lambda layer=layer, dy=dy, cache=cache: layer.backward(dy, cache, need_dw=False),
                    "dw": lambda layer=layer, dy=dy, cache=cache: layer.backward(dy, cache, need_dx=False),
                }
                theirs = torch_conv(kind, layer, x, dy)
                for what in ours:
                    yield name, what, operations, ours[what], theirs[what]
            x = y


def others(network, rng):
    """Yield (name, operation, nanogan's function, torch's) for BatchNorm with its activation, and for Adam."""
    N, size, width = network["batch_size"], network["image_size"], network["width"]
    C, s = 2 * width, size // 4
    x, dy = (rng.standard_normal((N, s, s, C), dtype=np.float32).transpose(0, 3, 1, 2) for _ in range(2))
    ours = layers.Sequential(layers.BatchNorm2d(C), layers.LeakyReLU(negative_slope=0.2))
    _, cache = ours.forward(x)
    norm = torch.nn.BatchNorm2d(C)
    t = torch.tensor(np.ascontiguousarray(x)).contiguous(memory_format=torch.channels_last).requires_grad_()
    t_dy = torch.tensor(np.ascontiguousarray(dy)).contiguous(memory_format=torch.channels_last)
    t_y = F.leaky_relu(norm(t), 0.2)
    name = f"BatchNorm + LeakyReLU, {C} channels @{s}"
    yield name, "forward", lambda: ours.forward(x), lambda: F.leaky_relu(norm(t), 0.2, inplace=True)
    inputs = [t, *norm.parameters()]
    yield (
        name,
        "backward",
        lambda: ours.backward(dy, cache),
        lambda: torch.autograd.grad(t_y, inputs, t_dy, retain_graph=True),
    )
    d = dcgan.discriminator(image_size=size, channels=network["channels"], width=width, rng=rng)
    for _, _, gradient in d.named_parameters():
        gradient[...] = rng.standard_normal(gradient.shape)
    td = torch_dcgan.copy_of(d).to(memory_format=torch.channels_last)
    for parameter in td.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer, theirs = Adam(d, lr=2e-4), torch.optim.Adam(td.parameters(), lr=2e-4)
    yield f"Adam, {d.parameter_count() / 1e6:.1f} M parameters", "step", optimizer.step, theirs.step


def alternate(ours, theirs, rounds):
    """Return the medians of both, in seconds: in turns, three calls to warm up and three that count."""
    times = [], []
    for _ in range(-(-rounds // 3)):
        for function, seconds in zip((ours, theirs), times, strict=True):
            for call in range(6):
                start = time.perf_counter()
                function()
                if call >= 3:
                    seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def main():
    parser = argparse.ArgumentParser(description="Each operation of a DCGAN, nanogan beside torch.")
    parser.add_argument("--network", choices=NETWORKS, default="64", help="default: 64")
    parser.add_argument("--rounds", type=at_least(int, 1), default=15, help="default: 15")
    parser.add_argument("--out", metavar="FILE", help="write the table there too (Markdown)")
    args = parser.parse_args()
    network, rng = NETWORKS[args.network], np.random.default_rng(0)
    peak = machine.sgemm_peak()
    lines = [f"- {line}" for line in machine.describe()]
    lines += [
        f"- network {args.network}: {network}; float32; medians of {args.rounds} calls, in alternation",
        "",
        "| operation | | nanogan, ms | torch, ms | speed, torch = 1 | nanogan, GFLOP/s | of sgemm's |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)

    def row(*cells):
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)

    with torch.no_grad():
        for name, what, operations, ours, theirs in convolutions(network, rng):
            a, b = alternate(ours, theirs, args.rounds)
            speed = operations / a / 1e9
            row(name, what, f"{a * 1e3:.2f}", f"{b * 1e3:.2f}", f"{b / a:.2f}", f"{speed:.0f}", f"{speed / peak:.0%}")
    for name, what, ours, theirs in others(network, rng):
        a, b = alternate(ours, theirs, args.rounds)
        row(name, what, f"{a * 1e3:.2f}", f"{b * 1e3:.2f}", f"{b / a:.2f}", "", "")
    if args.out:
        Path(args.out).write_text("# Each operation\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
