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
from nanogan.backend import channels_last
from nanogan.gradcheck import cases

PRECISION = 2.0**-24  # a number rounded to float32 is off by at most this part of itself

SHAPE = (16, 64, 16, 16)
CASES = [
    cases.conv(64, 3, 64, (64, 64), (4, 4), 2, 1, bias=False),
    cases.conv(16, 64, 128, (16, 16), (4, 4), 2, 1),
    cases.conv(64, 512, 1, (4, 4), (4, 4), 1, 0, bias=False),
    cases.conv_transpose(16, 128, 64, (8, 8), (4, 4), 2, 1),
    cases.conv_transpose(64, 100, 256, (1, 1), (4, 4), 1, 0, bias=False),
    cases.Case(
        "linear",
        {"x": cases.normal(64, 1024), "w": cases.normal(256, 1024), "b": cases.normal(256)},
        cases.linear_oracle,
        {},
        ("x", "w", "b"),
        "n64-1024to256",
    ),
    cases.batchnorm(SHAPE, True),
    cases.batchnorm((64, 64, 32, 32), True),
    cases.batchnorm(SHAPE, False),
    cases.Case("relu", {"x": cases.normal(*SHAPE)}, lambda F, x: F.relu(x)),
    cases.Case("leaky_relu", {"x": cases.normal(*SHAPE)}, lambda F, x: F.leaky_relu(x, 0.2), {"negative_slope": 0.2}),
    cases.Case("tanh", {"x": cases.normal(*SHAPE)}, lambda F, x: F.tanh(x)),
    cases.Case("sigmoid", {"x": cases.normal(*SHAPE)}, lambda F, x: F.sigmoid(x)),
    cases.Case("upsample", {"x": cases.normal(*SHAPE)}, lambda F, x: F.interpolate(x, scale_factor=2)),
    cases.Case(
        "max_pool2d", {"x": cases.normal(*SHAPE)}, lambda F, x: F.max_pool2d(x, 3, 2, 1),
        {"kernel_size": 3, "stride": 2, "padding": 1},
    ),
    cases.loss(
        "bce",
        {"p": cases.probabilities(128, 1), "target": cases.probabilities(128, 1)},
        lambda F, p, target: F.binary_cross_entropy(p, target),
    ),
    cases.loss(
        "bce_with_logits",
        {"logits": lambda rng: 5 * rng.standard_normal((128, 1)), "target": cases.probabilities(128, 1)},
        lambda F, logits, target: F.binary_cross_entropy_with_logits(logits, target),
    ),
    cases.loss(
        "mse",
        {"x": cases.normal(*SHAPE), "target": cases.normal(*SHAPE)},
        lambda F, x, target: F.mse_loss(x, target),
    ),
    cases.loss(
        "l1", {"x": cases.normal(*SHAPE), "target": cases.normal(*SHAPE)}, lambda F, x, target: F.l1_loss(x, target)
    ),
    cases.loss(
        "cross_entropy",
        {"logits": lambda rng: 3 * rng.standard_normal((256, 10)), "labels": cases.whole(10, 256)},
        lambda F, logits, labels: F.cross_entropy(logits, labels),
    ),
]  # fmt: skip


def nanogans(case, inputs, rng):
    """Return [y, *gradients] in the inputs' dtype, and the random dy that was drawn."""
    positional, named = case.split({name: channels_last(array) for name, array in inputs.items()})
    forward, backward = case.pair
    y, cache = forward(*(array.copy() for array in positional.values()), **case.forward_options(), **named)
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
    y = case.torch(torch.nn.functional, *tensors.values())
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
    parser.add_argument("--out", metavar="FILE", help="write the table there too (Markdown)")
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
    main()
