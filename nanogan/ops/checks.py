"""The checks at the door that all operations share: what a caller can get wrong, in one sentence."""

from numbers import Integral

import numpy as np

from nanogan.backend import array_module
from nanogan.errors import UserError


def pair(value, name, *, least=0):
    """Return ``value`` as (vertical, horizontal), neither below ``least``: torch's ``kernel_size=4`` means (4, 4)."""
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(isinstance(n, Integral) and n >= least for n in both):
        raise UserError(f"{name} expected a whole number of at least {least}, or two of them, got {value!r}")
    return tuple(map(int, both))  # a NumPy integer would make results float64


def check_input(op, x, w, shape, channel_axis=1, *, half=True):
    """Raise UserError unless ``x`` has ``len(shape)`` dimensions, ``w``'s dtype and the channels that ``shape`` names.

    ``shape`` is what is expected, with None for a free size: ``(None, 64, None, None)``.
    """
    array_module(x)
    axes = "NTC" if len(shape) == 3 else "NCHW"
    layout = "(" + ", ".join(axes[i] if size is None else str(size) for i, size in enumerate(shape)) + ")"
    if x.ndim != len(shape):
        raise UserError(f"{op} expected an input of {len(shape)} dimensions, {layout}, got one of shape {x.shape}")
    if shape[channel_axis] is not None and x.shape[channel_axis] != shape[channel_axis]:
        wanted, got = shape[channel_axis], x.shape[channel_axis]
        what = "input channels" if len(shape) == 4 else "input features"
        raise UserError(f"{op} expected {wanted} {what}, got {got} (x has shape {x.shape})")
    check_dtype(op, x, w, half=half)


def check_dtype(op, x, w=None, *, half=True):
    """Raise UserError unless ``x`` is an array of floating-point numbers, of ``w``'s dtype where there is a ``w``.

    half: whether ``op`` is right in float16 as well, which ends at 65504 and 6e-8: sums of squares and small steps are
    not. (Products of 16 bits are another thing: :func:`nanogan.backend.set_matmul_precision`.)
    """
    xp = array_module(x)
    if w is not None and array_module(w) is not xp:
        theirs, ours = array_module(w).__name__, xp.__name__
        raise UserError(
            f"{op} expected a {theirs} array, as its parameters are, got {ours}'s: use nanogan.backend.to_device"
        )
    if x.dtype.kind != "f":
        raise UserError(f"{op} expected floating-point numbers, got {x.dtype}: scale pictures with x / 127.5 - 1 first")
    if not half and x.dtype.itemsize == 2:
        raise UserError(f"{op} expected float32 or float64, got {x.dtype}, whose range is too small: "
                        "use astype('float32')")  # fmt: skip
    if w is not None and x.dtype != w.dtype:
        raise UserError(
            f"{op} expected {w.dtype}, its parameters' dtype, got {x.dtype}: use x.astype({str(w.dtype)!r})"
        )


def check_real(op, name, x):
    """Raise UserError unless ``x`` is an array of real numbers, which may then be converted to another dtype."""
    array_module(x)
    if x.dtype.kind not in "fiub":
        raise UserError(f"{op} expected real numbers as its {name}, got {x.dtype}")


def check_dy(op, dy, y_shape, dtype):
    """Raise UserError unless ``dy``, the gradient of y, has y's shape and dtype."""
    array_module(dy)
    if dy.shape != y_shape or dy.dtype != dtype:
        raise UserError(
            f"{op}'s backward expected dy of y's shape {y_shape} and {dtype}, got {dy.shape} and {dy.dtype}"
        )


def check_classes(op, indices, K):
    """Raise UserError unless ``indices`` are integers from 0 to K - 1.

    The range is checked in NumPy arrays alone: to see a GPU's smallest and largest, the host would have to wait for it.
    """
    xp = array_module(indices)
    if indices.dtype.kind not in "iu":
        raise UserError(f"{op} expected whole numbers from 0 to {K - 1}, got {indices.dtype}")
    if xp is np and indices.size and not (indices.min() >= 0 and indices.max() < K):
        raise UserError(f"{op} expected numbers from 0 to {K - 1}, got {indices.min()} to {indices.max()}")
