"""How exact each operation is in float32, nanogan beside torch: both measured against torch in float64.

    python -m benchmarks.numerics --out docs/numerics.md

The inputs are rounded to float32 first and then handed to all three, so that only the operation's own error counts.
Sizes are those of a DCGAN. ``tests/ops/test_numerics.py`` holds nanogan to twice torch's error.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine
from nanogan import cli, ops
from nanogan.backend import channels_last
from nanogan.ops.batchnorm import example as batchnorm
from nanogan.ops.examples import Example, constant, integers, normal, probabilities
from nanogan.ops.instancenorm import example as instancenorm
from nanogan.ops.layernorm import example as layernorm

PRECISION = 2.0**-24  # a number rounded to float32 is off by at most this part of itself

SHAPE = (16, 64, 16, 16)
TARGET = constant(probabilities(128, 1))
CASES = [
    Example(ops.conv2d_forward, x=normal(64, 3, 64, 64), w=normal(64, 3, 4, 4), stride=2, padding=1),
    Example(ops.conv2d_forward, x=normal(16, 64, 16, 16), w=normal(128, 64, 4, 4), b=normal(128), stride=2, padding=1),
    Example(ops.conv2d_forward, x=normal(64, 512, 4, 4), w=normal(1, 512, 4, 4)),
    Example(ops.conv_transpose2d_forward, x=normal(16, 128, 8, 8), w=normal(128, 64, 4, 4), b=normal(64),
            stride=2, padding=1),
    Example(ops.conv_transpose2d_forward, x=normal(64, 100, 1, 1), w=normal(100, 256, 4, 4)),
    Example(ops.linear_forward, x=normal(64, 1024), w=normal(256, 1024), b=normal(256)),
    batchnorm(*SHAPE, train=True),
    batchnorm(64, 64, 32, 32, train=True),
    batchnorm(*SHAPE, train=False),
    instancenorm(*SHAPE),
    layernorm(*SHAPE, normalized_shape=SHAPE[1:]),
    layernorm(128, 1024, normalized_shape=1024),
    Example(ops.relu_forward, x=normal(*SHAPE)),
    Example(ops.leaky_relu_forward, x=normal(*SHAPE), negative_slope=0.2),
    Example(ops.tanh_forward, x=normal(*SHAPE)),
    Example(ops.sigmoid_forward, x=normal(*SHAPE)),
    Example(ops.softplus_forward, x=normal(*SHAPE)),
    Example(ops.elu_forward, x=normal(*SHAPE)),
    Example(ops.selu_forward, x=normal(*SHAPE)),
    Example(ops.silu_forward, x=normal(*SHAPE)),
    Example(ops.gelu_forward, x=normal(*SHAPE)),
    Example(ops.glu_forward, x=normal(*SHAPE), dim=1),
    Example(ops.upsample_forward, torch="interpolate", x=normal(*SHAPE), scale_factor=2),
    Example(ops.max_pool2d_forward, x=normal(*SHAPE), kernel_size=3, stride=2, padding=1),
    Example(ops.avg_pool2d_forward, x=normal(*SHAPE), kernel_size=3, stride=2, padding=1),
    Example(ops.adaptive_avg_pool2d_forward, x=normal(*SHAPE), output_size=7),
    Example(ops.bce_forward, torch="binary_cross_entropy", p=probabilities(128, 1), target=TARGET),
    Example(ops.bce_with_logits_forward, torch="binary_cross_entropy_with_logits",
            logits=normal(128, 1, scale=5), target=TARGET),
    Example(ops.mse_forward, torch="mse_loss", x=normal(*SHAPE), target=constant(normal(*SHAPE))),
    Example(ops.l1_forward, torch="l1_loss", x=normal(*SHAPE), target=constant(normal(*SHAPE))),
    Example(ops.cross_entropy_forward, logits=normal(256, 10, scale=3), labels=integers(10, 256)),
]  # fmt: skip


def nanogans(case, inputs, rng):
    """Return [y, *gradients] in the inputs' dtype, and the random dy that was drawn."""
    positional, named = case.split({name: channels_last(array) for name, array in inputs.items()})
    forward, backward = case.pair
    y, cache = forward(*(array.copy() for array in positional.values()), **named)
    dy = channels_last(np.asarray(rng.standard_normal(y.shape), y.dtype))
    gradients = backward(dy, cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return [y, *(g for name, g in zip(case.differentiable, gradients, strict=False) if name is not None)], dy


def torchs(case, inputs, dy, dtype):
    """Return torch's [y, *gradients], computed in ``dtype`` and channels-last."""
    tensors = {name: torch.tensor(array) for name, array in inputs.items()}
    for name, t in tensors.items():
        t = t.to(dtype) if t.is_floating_point() else t
        t = t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t
        tensors[name] = t.requires_grad_(name in case.differentiable)
    y = case.expected(torch.nn.functional, tensors)
    y.backward(torch.tensor(dy, dtype=dtype))
    return [y.detach().numpy(), *(tensors[name].grad.numpy() for name in case.differentiable if name is not None)]


def errors(case, draws=3):
    """Return {"y", "dx", "dw", ...: (nanogan's error, torch's)} over ``draws`` of the inputs.

    Each error is the root mean square of the difference from float64, as a part of the result's, in
    units of PRECISION.
    """
    names = ["y", *(f"d{name}" for name in case.differentiable if name is not None)]
    squares = np.zeros((len(names), 2))
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        inputs = case.draw(rng, np.float32)
        ours, dy = nanogans(case, inputs, rng)
        theirs, exact = torchs(case, inputs, dy, torch.float32), torchs(case, inputs, dy, torch.float64)
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            for j, found in enumerate(pair):
                assert found.dtype == np.float32
                squares[i, j] += ((found.astype(np.float64) - exact[i]) ** 2).sum() / (exact[i] ** 2).sum() / draws
    return {name: tuple(row**0.5 / PRECISION) for name, row in zip(names, squares, strict=True)}


def main():
    parser = argparse.ArgumentParser(description="The float32 error of each operation, nanogan beside torch.")
    parser.add_argument("--out", type=cli.path, metavar="FILE", help="write the table there too (Markdown)")
    args = parser.parse_args()
    lines = ["| operation | result | nanogan | torch |", "|---|---|---|---|"]
    for case in CASES:
        for name, (ours, theirs) in errors(case).items():
            lines.append(f"| {case} | {name} | {ours:.2f} | {theirs:.2f} |")
    print("\n".join(lines))
    if args.out:
        intro = [
            "# The error of each operation in float32",
            "",
            "Root mean square of the difference from torch in float64 on the same inputs, as a part of the result's,",
            "in units of 2^-24 = 6e-8 (one rounding of a random number costs about 0.6 of it). 0 is exact. torch runs",
            "channels-last. `python -m benchmarks.numerics` prints this table.",
            "",
        ]
        about = ["", *(f"- {line}" for line in machine.describe()[:-1])]
        Path(args.out).write_text("\n".join([*intro, *lines, *about]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
