#!/usr/bin/env python3
"""Write a layer, see its gradient check fail, read what it says, mend the layer.

    python examples/gradcheck_your_own_layer.py                 under a second; writes DIR/report.txt

The layer is a softplus with a learned sharpness a, y = log(1 + e^(a x)) / a. Two of its slopes are wrong at first.
"""

import numpy as np

from nanogan import backend, cli
from nanogan.disk import replacing, writable_folder
from nanogan.gradcheck import check_layer
from nanogan.layers import Layer
from nanogan.ops.activations import stable_sigmoid
from nanogan.ops.losses import softplus


class SharpSoftplusWrong(Layer):
    """y = log(1 + e^(a x)) / a, and a backward with two mistakes."""

    def __init__(self):
        super().__init__()
        self.add_param("sharpness", np.full((), 2.0, np.float32))

    def forward(self, x, train=True):
        a = self.params["sharpness"]
        y = softplus(a * x) / a
        return y, (x, y)  # last line of the forward, first line of the backward

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        x, y = cache
        a = self.params["sharpness"]
        slope = stable_sigmoid(a * x)
        if need_dw:
            self.add_grads(sharpness=(dy * x * slope).sum())  # a stands in the denominator too
        return a * dy * slope if need_dx else None  # d(a x)/dx = a, but the 1/a outside takes it away again


class SharpSoftplus(SharpSoftplusWrong):
    """The same forward with the right backward.

    With s = log(1 + e^(a x)), whose slope along a x is sigmoid(a x):

        dy/dx = s' * a / a = sigmoid(a x)
        dy/da = s' * x / a - s / a^2 = (x * sigmoid(a x) - y) / a
    """

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        x, y = cache
        a = self.params["sharpness"]
        slope = stable_sigmoid(a * x)
        if need_dw:
            self.add_grads(sharpness=(dy * (x * slope - y) / a).sum())
        return dy * slope if need_dx else None


def main():
    args = cli.parser(
        "Check the gradients of a wrong layer and of the mended one.", out="runs/gradcheck_your_own_layer"
    ).parse_args()
    device = backend.get_device(args.device)
    out = writable_folder(args.out)
    x = backend.to_device(backend.seeded_rng(args.seed, "x").standard_normal((2, 3)), device)

    lines = []
    for layer in (SharpSoftplusWrong(), SharpSoftplus()):
        report = check_layer(layer.to(device), x)
        lines += [f"{report.subject}: {'right' if report.passed else 'WRONG'}", str(report), ""]
    print("\n".join(lines))
    with replacing(out / "report.txt") as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
