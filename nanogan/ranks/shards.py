"""A batch, of which each rank has its part."""

import math
from collections.abc import Mapping

import numpy as np

from nanogan.backend import array_module
from nanogan.errors import UserError


class Shard:
    """Images of a batch of which this rank holds its own alone: ``own`` (N / ranks, C, H, W).

    ``shape``, ``ndim``, ``dtype`` and the length are those of the whole batch, so that what is drawn for it is drawn
    for all ranks. It cannot be computed with.
    """

    def __init__(self, own, ranks):
        self.own = own
        self.shape = len(own) * ranks.size, *own.shape[1:]

    @property
    def ndim(self):
        """The number of dimensions."""
        return self.own.ndim

    @property
    def size(self):
        """The number of elements of the whole batch."""
        return math.prod(self.shape)

    @property
    def dtype(self):
        """The dtype."""
        return self.own.dtype

    def __len__(self):
        return self.shape[0]

    def __getattr__(self, name):
        raise UserError(
            f"on several ranks draw() has {len(self.own)} of {len(self)} images, and cannot compute with them "
            f"(.{name}): pass them on, and let step() do it"
        )

    def __getitem__(self, key):
        return self.__getattr__("[...]")

    def __array__(self, *args, **options):
        return self.__getattr__("__array__")


def check_batch(size, ranks):
    """Raise UserError if ``ranks`` cannot share batches of ``size`` images equally."""
    if size % ranks.size:
        raise UserError(
            f"{ranks.size} processes cannot share batches of {size} images equally: use a --batch-size that is a "
            f"multiple of {ranks.size}, or another number of processes"
        )


def _refusing(name):
    return lambda shard, *others: shard.__getattr__(name)


for _operator in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "neg", "matmul"):
    setattr(Shard, f"__{_operator}__", _refusing(_operator))


def own_part(inputs, ranks):
    """Return step's ``inputs``, drawn for whole batches, as this rank's: of each array the rows of its own images.

    ``inputs``: arrays (N, ...), shards, numbers, texts, None, and lists, tuples and dictionaries of them. Raises
    UserError for an array without rows, or whose rows cannot be shared out.
    """

    def own(value, name):
        if isinstance(value, Shard):
            return value.own
        if isinstance(value, Mapping):
            return {key: own(each, name) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            parts = [own(each, name) for each in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if not hasattr(value, "ndim") or isinstance(value, np.generic):
            return value
        array_module(value)  # raises UserError for what is no plain array
        if value.ndim == 0:
            return value
        if len(value) % ranks.size:
            raise UserError(
                f"the input {name} of shape {value.shape} cannot be shared by {ranks.size} ranks: an array that draw() "
                "returns has a row for each image of its batch; give numbers as floats or tuples"
            )
        return value[ranks.own(len(value))]

    return {name: own(value, name) for name, value in inputs.items()}
