"""Options that are numbers: checked whenever they are set, and kept as Python floats, which every checkpoint can hold.

With ``eps = Number("eps > 0", lambda eps: eps > 0)`` in class Adam, ``opt.eps = np.float32(0.5)`` makes it the float
0.5, and ``opt.eps = "0.5"`` raises UserError: Adam expected eps > 0, got '0.5'.
"""

from numbers import Real

import numpy as np

from nanogan.backend import array_module
from nanogan.errors import UserError


class Number:
    """An attribute that takes real numbers for which ``fits``; also None if ``or_none``. ``expected`` says so in words.

    Takes Python's and NumPy's numbers and 0-d arrays. Raises UserError for everything else, NaN included. With
    ``on_gpu`` a 0-d array on a GPU stays what it is, and is not checked: to read it, the host would have to wait.
    """

    def __init__(self, expected, fits, *, or_none=False, on_gpu=False):
        self.expected, self.fits, self.or_none, self.on_gpu = expected, fits, or_none, on_gpu

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        try:
            return vars(instance)[self.name]
        except KeyError:
            raise AttributeError(f"{type(instance).__name__} has no {self.name} yet") from None

    def __set__(self, instance, value):
        if (
            self.on_gpu
            and getattr(value, "shape", None) == ()
            and hasattr(value, "device")
            and array_module(value) is not np
        ):
            vars(instance)[self.name] = value
            return
        vars(instance)[self.name] = self.checked(type(instance).__name__, value)

    def checked(self, whose, value):
        """Return ``value`` as a float. Raises UserError, which names ``whose`` it is, if it does not fit."""
        if value is None and self.or_none:
            return None
        number = as_float(value)
        if number is None or not self.fits(number):
            raise UserError(f"{whose} expected {self.expected}, got {value!r}")
        return number


def as_float(value):
    """Return a real number, Python's or NumPy's or a 0-d array, as a Python float; None for everything else."""
    is_array = not isinstance(value, Real) and getattr(value, "shape", None) == ()
    if isinstance(value, (bool, np.bool_)) or (is_array and getattr(value.dtype, "kind", "") not in ("f", "i", "u")):
        return None
    try:
        return float(value) if is_array or isinstance(value, Real) else None
    except OverflowError:  # an integer beyond the largest float
        return None


def checked_steps(whose, value):
    """Return a saved number of steps as a Python int. Raises UserError unless it is an integer of at least 0."""
    number = as_float(value)
    if number is None or not number >= 0 or not number.is_integer():
        raise UserError(f"{whose} expected its steps as an integer of at least 0, got {value!r}")
    return int(value)


def share(name):
    """Return a :class:`Number` from 0 to below 1."""
    return Number(f"0 <= {name} < 1", lambda value: 0 <= value < 1)
