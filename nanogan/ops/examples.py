"""What an operation is tried with: the ``EXAMPLES`` at the end of each file of ``nanogan.ops``.

    EXAMPLES = [
        Example(linear_forward, x=normal(4, 3), w=normal(5, 3), b=normal(5)),
        Example(mse_forward, torch="mse_loss", x=normal(4, 3), target=constant(normal(4, 3)), reduction="sum"),
    ]

``python -m nanogan.gradcheck`` and the tests walk through them: finite differences, the contract of an operation, and
torch's function on the same inputs. torch is handed in by those who have it; nothing here imports it.
"""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nanogan.backend import array_module
from nanogan.errors import UserError


class Draw(NamedTuple):
    """A random array: ``draw(rng)`` has the given shape. ``gradient``: whether a backward returns one for it."""

    shape: tuple
    values: Callable  # (rng, shape) -> array
    gradient: bool = True

    def __call__(self, rng):
        return self.values(rng, self.shape)


def normal(*shape, scale=1.0):
    return Draw(shape, lambda rng, shape: scale * rng.standard_normal(shape))


def positive(*shape):
    return Draw(shape, lambda rng, shape: rng.uniform(0.5, 1.5, shape))


def probabilities(*shape):
    return Draw(shape, lambda rng, shape: rng.uniform(0.05, 0.95, shape))


def off_zero(*shape):
    """Normal values, none within 0.01 of 0: away from the kink of ReLU and |x|."""

    def values(rng, shape):
        x = rng.standard_normal(shape)
        return x + np.copysign(0.01, x)

    return Draw(shape, values)


def off_kinks(*shape):
    """Normal values, none within 0.01 of 1 or -1: away from the kinks of the hinge loss."""

    def values(rng, shape):
        x = 2 * rng.standard_normal(shape)
        return x + np.copysign(0.01, abs(x) - 1) * np.sign(x)

    return Draw(shape, values)


def all_different(*shape):
    """Values in random order, neighbours 0.01 apart: away from the kink of a maximum."""
    size = int(np.prod(shape))
    return Draw(shape, lambda rng, shape: 0.01 * (rng.permutation(size) - size / 2).reshape(shape))


def integers(high, *shape):
    """Integers from 0 to high - 1, which have no gradient."""
    return Draw(shape, lambda rng, shape: rng.integers(0, high, shape), gradient=False)


def constant(draw):
    """The same values, for an input that no backward returns a gradient for: a target, running statistics."""
    return draw._replace(gradient=False)


class Example:
    """One call of an operation: ``Example(conv2d_forward, x=normal(2, 3, 8, 8), w=normal(5, 3, 4, 4), stride=2)``.

    Inputs are given as draws, in forward's order, everything else as it is. The backward stands in forward's file under
    its name. ``rng=3`` stands for a new ``default_rng(3)`` in every call. ``torch``: the function of
    torch.nn.functional that computes the same from the same arguments, by name, if it has another than the operation;
    or a function of torch.nn.functional, the inputs and the options.

    Attributes: op (the operation's name), differentiable (names of the arrays that backward returns gradients for, in
    order, None where it returns none).
    """

    def __init__(self, forward, *, torch=None, **arguments):
        self.forward, self.torch = forward, torch
        self.op = forward.__name__.removesuffix("_forward")
        self.draws = {name: value for name, value in arguments.items() if isinstance(value, Draw)}
        self.options = {name: value for name, value in arguments.items() if name not in self.draws}
        parameters = inspect.signature(forward).parameters
        self.keywords = {name for name in self.draws if parameters[name].kind is inspect.Parameter.KEYWORD_ONLY}
        differentiable = [
            name if draw.gradient else None for name, draw in self.draws.items() if name not in self.keywords
        ]
        while differentiable and differentiable[-1] is None:
            differentiable.pop()
        self.differentiable = tuple(differentiable)

    def __str__(self):
        inputs = [f"{name}({','.join(map(str, draw.shape))})" for name, draw in self.draws.items()]
        return " ".join([self.op, *inputs, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def pair(self):
        """The forward and the backward."""
        backward = self.forward.__globals__.get(f"{self.op}_backward")
        if backward is None:
            raise UserError(f"{self.op}_forward expected {self.op}_backward beside it, in {self.forward.__module__}")
        return self.forward, backward

    def draw(self, rng, dtype=np.float64):
        """Return {name: array}, images channels-first; floats in ``dtype``."""
        drawn = {name: draw(rng) for name, draw in self.draws.items()}
        return {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in drawn.items()}

    def split(self, inputs):
        """Return the inputs that forward takes by position, {name: array}, and all that it takes by keyword."""
        positional = {name: array for name, array in inputs.items() if name not in self.keywords}
        named = {name: array for name, array in inputs.items() if name in self.keywords}
        rng = {"rng": np.random.default_rng(self.options["rng"])} if "rng" in self.options else {}
        return positional, self.options | rng | named

    def expected(self, functional, tensors):
        """Return torch's result for ``tensors`` {name: tensor}; ``functional`` is torch.nn.functional."""
        positional, named = self.split(tensors)
        if callable(self.torch):
            return self.torch(functional, *positional.values(), **named)
        return getattr(functional, self.torch or self.op)(*positional.values(), **named)


class UpdateExample:
    """An optimiser's rule with its options, and the optimiser of torch.optim that does the same: ``torch="SGD"``."""

    def __init__(self, update, *, torch, **options):
        self.update, self.torch, self.options = update, torch, options
        self.op = update.__name__

    def __str__(self):
        return " ".join([self.op, *(f"{name}={value}" for name, value in self.options.items())])

    def run(self, parameter, gradients):
        """Update ``parameter`` in place, once with each of ``gradients``, from slots of zeros."""
        parameters = inspect.signature(self.update).parameters
        kept = [p for p in list(parameters.values())[2:] if p.kind is p.POSITIONAL_OR_KEYWORD]  # after the gradient
        slots = [array_module(parameter).zeros_like(parameter) for _ in kept]
        for step, gradient in enumerate(gradients, 1):
            count = {"step": step} if "step" in parameters else {}
            self.update(parameter, gradient, *slots, **count, **self.options)
