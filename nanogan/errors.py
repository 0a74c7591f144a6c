"""The exceptions that tell a caller, in one sentence, what to do differently."""

from numbers import Integral


class UserError(ValueError):
    """A mistake that the caller can mend.

    The text is one sentence that names what was given, what was expected and the way out. Scripts print it without a
    traceback and exit with status 2 (see :func:`nanogan.cli.run`).
    """


class DeviceError(UserError):
    """The device asked for does not exist or cannot be used here."""


class DataNotFound(UserError):
    """The data set is not on this machine and could not be downloaded."""


def checked_count(name, value, low):
    """Return ``value`` as an int. Raises UserError unless it is an integer of at least ``low``; True is none."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise UserError(f"{name} expected an integer of at least {low}, got {value!r}")
    return int(value)


class TrainingDiverged(ArithmeticError):
    """A loss became NaN or infinite; training cannot go on from these parameters."""


class EndedElsewhere(Exception):
    """Another of the processes that train together has ended the run, and said why."""
