"""What is checked: every operation and every layer, with inputs, options, and torch's function for it.

One list serves ``python -m nanogan.gradcheck`` and the tests. torch is handed in as ``F`` (torch.nn.functional) where
it is installed; nothing here imports it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from nanogan import layers, ops
from nanogan.models import conditional, dcgan


def normal(*shape):
    return lambda rng: rng.standard_normal(shape)


def positive(*shape):
    return lambda rng: rng.uniform(0.5, 1.5, shape)


def probabilities(*shape):
    return lambda rng: rng.uniform(0.05, 0.95, shape)


def off_zero(*shape):
    """Normal numbers, none within 0.01 of 0: away from the kink of ReLU and |x|."""
    return lambda rng: (lambda x: x + np.copysign(0.01, x))(rng.standard_normal(shape))


def off_kinks(*shape):
    """Normal numbers, none within 0.01 of 1 or -1: away from the kinks of the hinge loss."""
    return lambda rng: (lambda x: x + np.copysign(0.01, abs(x) - 1) * np.sign(x))(2 * rng.standard_normal(shape))


def all_different(*shape):
    """Numbers in random order, neighbours 0.01 apart: away from the kink of a maximum."""
    return lambda rng: 0.01 * (rng.permutation(np.prod(shape)) - np.prod(shape) / 2).reshape(shape)


def whole(high, *shape):
    return lambda rng: rng.integers(0, high, shape)


@dataclass
class Case:
    """An operation, how to draw its inputs, which of them have gradients (in the backward's order), and the oracle."""

    op: str
    inputs: dict[str, Callable]
    torch: Callable
    options: dict = field(default_factory=dict)
    differentiable: tuple[str, ...] = ("x",)
    tag: str = ""

    def __str__(self):
        return f"{self.op}-{self.tag}" if self.tag else self.op

    @property
    def pair(self):
        """The forward and the backward."""
        return getattr(ops, f"{self.op}_forward"), getattr(ops, f"{self.op}_backward")

    def forward_options(self):
        """The forward's keyword arguments, with a random generator as new."""
        if "rng" in self.options:
            return self.options | {"rng": np.random.default_rng(self.options["rng"])}
        return self.options

    def split(self, inputs):
        """Return inputs that the forward takes by position, and those that it takes by name."""
        named = {name: array for name, array in inputs.items() if name in ("weight", "pos_weight")}
        return {name: array for name, array in inputs.items() if name not in named}, named

    def draw(self, rng, dtype=np.float64):
        """Return {name: array}, pictures channels-first."""
        drawn = {name: make(rng) for name, make in self.inputs.items()}
        return {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in drawn.items()}


def conv(n, c, f, size, kernel, stride, padding, bias=True):
    inputs = {"x": normal(n, c, *size), "w": normal(f, c, *kernel)} | ({"b": normal(f)} if bias else {})
    return Case(
        "conv2d",
        inputs,
        lambda F, x, w, b=None: F.conv2d(x, w, b, stride=stride, padding=padding),
        {"stride": stride, "padding": padding},
        tuple(inputs),
        f"n{n}c{c}f{f}-{size[0]}x{size[1]}-k{kernel[0]}x{kernel[1]}-s{stride}-p{padding}",
    )


def conv_transpose(n, c, f, size, kernel, stride, padding, output_padding=0, bias=True):
    inputs = {"x": normal(n, c, *size), "w": normal(c, f, *kernel)} | ({"b": normal(f)} if bias else {})
    options = {"stride": stride, "padding": padding, "output_padding": output_padding}
    return Case(
        "conv_transpose2d",
        inputs,
        lambda F, x, w, b=None: F.conv_transpose2d(x, w, b, **options),
        options,
        tuple(inputs),
        f"n{n}c{c}f{f}-{size[0]}x{size[1]}-k{kernel[0]}x{kernel[1]}-s{stride}-p{padding}-o{output_padding}",
    )


def batchnorm(shape, train, momentum=0.1, eps=1e-5):
    C = shape[1]
    inputs = {"x": normal(*shape), "gamma": normal(C), "beta": normal(C)}
    inputs |= {"running_mean": normal(C), "running_var": positive(C)}
    return Case(
        "batchnorm",
        inputs,
        lambda F, x, gamma, beta, running_mean, running_var: F.batch_norm(
            x, running_mean.clone(), running_var.clone(), gamma, beta, train, momentum, eps
        ),
        {"train": train, "momentum": momentum, "eps": eps},
        ("x", "gamma", "beta"),
        f"{'train' if train else 'eval'}-{'x'.join(map(str, shape))}",
    )


def linear_oracle(F, *arrays):
    return F.linear(*arrays)


def dropout_oracle(_, x):
    """The zeros are drawn as the operation is to draw them; torch's own generator gives others."""
    kept = np.random.default_rng(3).random(tuple(x.shape), dtype=x.detach().numpy().dtype) >= 0.3
    return x * x.new_tensor(kept.tolist()) / 0.7


def loss(op, inputs, oracle, tag="", **options):
    return Case(op, inputs, oracle, options, (next(iter(inputs)),), tag)


OPERATIONS = [
    conv(2, 3, 5, (8, 8), (4, 4), 2, 1),
    conv(2, 3, 5, (8, 8), (4, 4), 2, 1, bias=False),
    conv(1, 1, 1, (5, 6), (3, 2), 1, 0),
    conv(3, 2, 4, (7, 9), (3, 5), 1, (1, 2)),
    conv(2, 2, 3, (9, 7), (1, 1), 3, 0),
    conv(2, 3, 2, (10, 11), (5, 4), (2, 3), (2, 0)),
    conv(4, 6, 1, (4, 4), (4, 4), 1, 0, bias=False),
    conv_transpose(2, 3, 5, (4, 4), (4, 4), 2, 1),
    conv_transpose(2, 3, 5, (4, 4), (4, 4), 2, 1, bias=False),
    conv_transpose(4, 6, 3, (1, 1), (4, 4), 1, 0, bias=False),
    conv_transpose(2, 2, 3, (4, 5), (5, 5), 2, 2, 1),
    conv_transpose(1, 1, 1, (3, 3), (2, 3), 1, 0),
    conv_transpose(3, 2, 4, (3, 4), (3, 2), (3, 2), (1, 0), (2, 1)),
    conv_transpose(2, 3, 2, (4, 3), (2, 2), 4, 0, 3),
    Case("linear", {"x": normal(4, 3), "w": normal(5, 3), "b": normal(5)}, linear_oracle, {}, ("x", "w", "b")),
    Case("linear", {"x": normal(1, 3), "w": normal(5, 3)}, linear_oracle, {}, ("x", "w"), "no-bias"),
    Case(
        "embedding",
        {"indices": whole(4, 3, 5), "w": normal(4, 6)},
        lambda F, indices, w: F.embedding(indices, w),
        {},
        (None, "w"),
    ),
    batchnorm((4, 3, 5, 6), True),
    batchnorm((4, 3, 5, 6), True, 0.3, 1e-2),
    batchnorm((1, 2, 3, 3), True),
    batchnorm((7, 3), True),
    batchnorm((4, 3, 5, 6), False),
    batchnorm((7, 3), False),
    Case("relu", {"x": off_zero(3, 4, 5, 2)}, lambda F, x: F.relu(x)),
    Case("leaky_relu", {"x": off_zero(3, 4, 5, 2)}, lambda F, x: F.leaky_relu(x, 0.2), {"negative_slope": 0.2}),
    Case("leaky_relu", {"x": off_zero(3, 4)}, lambda F, x: F.leaky_relu(x), {}, tag="default"),
    Case("tanh", {"x": normal(3, 4, 5, 2)}, lambda F, x: F.tanh(x)),
    Case("sigmoid", {"x": normal(3, 4, 5, 2)}, lambda F, x: F.sigmoid(x)),
    Case("dropout", {"x": normal(2, 3, 4, 4)}, dropout_oracle, {"p": 0.3, "rng": 3}),
    Case("dropout", {"x": normal(6, 4)}, lambda F, x: x, {"p": 0.3, "train": False}, tag="eval"),
    Case("upsample", {"x": normal(2, 3, 3, 4)}, lambda F, x: F.interpolate(x, scale_factor=3), {"scale_factor": 3}),
    Case("max_pool2d", {"x": all_different(2, 3, 6, 8)}, lambda F, x: F.max_pool2d(x, 2), {"kernel_size": 2}),
    Case(
        "max_pool2d",
        {"x": all_different(2, 3, 7, 6)},
        lambda F, x: F.max_pool2d(x, (3, 2), (2, 1), (1, 1)),
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": 1},
        tag="overlapping",
    ),
    Case("flatten", {"x": normal(2, 3, 4, 5)}, lambda F, x: x.flatten(1)),
    Case("reshape", {"x": normal(2, 12)}, lambda F, x: x.reshape(2, 3, 2, 2), {"shape": (3, 2, 2)}),
    loss(
        "bce",
        {"p": probabilities(4, 3), "target": probabilities(4, 3)},
        lambda F, p, target: F.binary_cross_entropy(p, target),
    ),
    loss(
        "bce",
        {"p": probabilities(4, 3), "target": probabilities(4, 3), "weight": positive(4, 3)},
        lambda F, p, target, weight: F.binary_cross_entropy(p, target, weight, reduction="sum"),
        "weighted-sum",
        reduction="sum",
    ),
    loss(
        "bce_with_logits",
        {"logits": normal(4, 3), "target": probabilities(4, 3)},
        lambda F, logits, target: F.binary_cross_entropy_with_logits(logits, target),
    ),
    loss(
        "bce_with_logits",
        {"logits": normal(4, 3), "target": probabilities(4, 3), "weight": positive(4, 3), "pos_weight": positive(3)},
        lambda F, logits, target, weight, pos_weight: F.binary_cross_entropy_with_logits(
            logits, target, weight, pos_weight=pos_weight
        ),
        "weighted",
    ),
    loss("mse", {"x": normal(4, 3), "target": normal(4, 3)}, lambda F, x, target: F.mse_loss(x, target)),
    loss("l1", {"x": off_zero(4, 3)}, lambda F, x: F.l1_loss(x, 0 * x.detach()), "to-number", target=0.0),
    loss("l1", {"x": normal(4, 3), "target": normal(4, 3)}, lambda F, x, target: F.l1_loss(x, target, reduction="sum"),
         "sum", reduction="sum"),
    loss("hinge", {"x": off_kinks(4, 3)}, lambda F, x: F.relu(1 - x).mean(), "real", target=1.0),
    loss("hinge", {"x": off_kinks(4, 3)}, lambda F, x: F.relu(1 + x).sum(), "drawn-sum", target=0.0, reduction="sum"),
    loss("hinge", {"x": off_kinks(4, 3), "target": whole(2, 4, 3)},
         lambda F, x, target: F.relu(1 - (2 * target - 1) * x).mean(), "array"),
    loss("score", {"x": normal(4, 3)}, lambda F, x: -x.mean(), "real", target=1.0),
    loss("score", {"x": normal(4, 3), "target": whole(2, 4, 3)},
         lambda F, x, target: ((1 - 2 * target) * x).sum(), "array-sum", reduction="sum"),
    loss("saturating_bce", {"logits": normal(4, 3)}, lambda F, logits: F.logsigmoid(-logits).mean(), "real",
         target=1.0),
    loss("saturating_bce", {"logits": normal(4, 3), "target": probabilities(4, 3)},
         lambda F, logits, target: -F.binary_cross_entropy_with_logits(logits, 1 - target, reduction="sum"),
         "array-sum", reduction="sum"),
    loss(
        "cross_entropy",
        {"logits": normal(6, 4), "labels": whole(4, 6)},
        lambda F, logits, labels: F.cross_entropy(logits, labels),
    ),
    loss(
        "cross_entropy",
        {"logits": normal(6, 4), "labels": whole(4, 6), "weight": positive(4)},
        lambda F, logits, labels, weight: F.cross_entropy(logits, labels, weight, label_smoothing=0.1),
        "weighted-smoothed",
        label_smoothing=0.1,
    ),
    loss(
        "cross_entropy",
        {"logits": normal(6, 4), "labels": whole(4, 6), "weight": positive(4)},
        lambda F, logits, labels, weight: F.cross_entropy(
            logits, labels, weight, label_smoothing=0.2, reduction="sum"
        ),
        "weighted-smoothed-sum",
        label_smoothing=0.2,
        reduction="sum",
    ),
]  # fmt: skip


def _rng():
    return np.random.default_rng(11)


# name -> (a function that makes the layer, how to draw its input)
LAYERS = {
    "Conv2d": (lambda: layers.Conv2d(3, 4, kernel_size=4, stride=2, padding=1, rng=_rng()), normal(2, 3, 8, 8)),
    "ConvTranspose2d": (
        lambda: layers.ConvTranspose2d(3, 4, kernel_size=3, stride=2, padding=1, output_padding=1, rng=_rng()),
        normal(2, 3, 4, 4),
    ),
    "Linear": (lambda: layers.Linear(6, 4, rng=_rng()), normal(3, 6)),
    "BatchNorm2d": (lambda: layers.BatchNorm2d(3), normal(4, 3, 5, 5)),
    "BatchNorm1d": (lambda: layers.BatchNorm1d(3), normal(8, 3)),
    "Embedding": (lambda: layers.Embedding(5, 3, rng=_rng()), whole(5, 4)),
    "ReLU": (layers.ReLU, normal(2, 3, 4, 4)),
    "LeakyReLU": (lambda: layers.LeakyReLU(negative_slope=0.2), normal(2, 3, 4, 4)),
    "Tanh": (layers.Tanh, normal(2, 3, 4, 4)),
    "Sigmoid": (layers.Sigmoid, normal(2, 3, 4, 4)),
    "Dropout": (lambda: layers.Dropout(p=0.4, rng=_rng()), normal(2, 3, 4, 4)),
    "Upsample": (lambda: layers.Upsample(scale_factor=2), normal(2, 3, 4, 4)),
    "MaxPool2d": (lambda: layers.MaxPool2d(kernel_size=2), normal(2, 3, 4, 4)),
    "Flatten": (layers.Flatten, normal(2, 3, 4, 4)),
    "Reshape": (lambda: layers.Reshape(3, 2, 2), normal(2, 12)),
    "Sequential": (
        lambda: layers.Sequential(
            layers.Conv2d(3, 4, kernel_size=3, padding=1, rng=_rng()),
            layers.BatchNorm2d(4),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Sequential(layers.Flatten(), layers.Linear(64, 2, rng=_rng())),
        ),
        normal(3, 3, 4, 4),
    ),
}

NETWORKS = {
    "DCGAN generator": (
        lambda: dcgan.generator(image_size=16, channels=2, latent=5, width=3, rng=_rng()),
        normal(4, 5),
    ),
    "DCGAN generator, resize": (
        lambda: dcgan.generator(image_size=16, channels=2, latent=5, width=3, upsample="resize", rng=_rng()),
        normal(4, 5),
    ),
    "DCGAN discriminator": (
        lambda: dcgan.discriminator(image_size=16, channels=2, width=3, rng=_rng()),
        normal(4, 2, 16, 16),
    ),
    "conditional generator": (
        lambda: conditional.generator(classes=2, image_size=8, channels=2, latent=3, width=2, rng=_rng()),
        normal(4, 5),
    ),
}
