"""What a state may hold in place of an array: checked before anything is copied, so that nothing is half loaded.

What no formula reads has no say: files of torch before 0.4.1 lack BatchNorm's ``num_batches_tracked``, other tools
write it as (1,) or as floats, or for norms that keep no statistics here. It is taken over where that is possible.
"""

import numpy as np

from nanogan.backend import array_module, copy_into
from nanogan.errors import UserError

# A BatchNorm's counter, the counter of torch.optim.swa_utils.AveragedModel, and what the profiler thop leaves.
UNREAD = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")


def is_unread(name):
    """Whether no formula reads the array called ``name``, such as "main.1.num_batches_tracked"."""
    return name.rpartition(".")[2] in UNREAD


def problem(name, saved, own):
    """Return what is wrong with ``saved`` in place of the array ``own``, in words; None if it can be copied there.

    Other dtypes may be rounded, but no number may become infinite, no fraction an integer.
    """
    try:
        xp = array_module(saved)
    except UserError as error:
        return f"{name} {error}"
    if saved.shape != own.shape:
        return f"{name} has shape {saved.shape} instead of {own.shape}"
    if saved.dtype == own.dtype:
        return None
    if saved.dtype.kind not in "fiub" and not np.can_cast(saved.dtype, own.dtype):
        return f"{name} is {saved.dtype} instead of {own.dtype}"
    with np.errstate(over="ignore", invalid="ignore"):
        copied = saved.astype(own.dtype)
    kept = copied == saved if own.dtype.kind in "iu" else xp.isfinite(copied) == xp.isfinite(saved)
    return None if bool(kept.all()) else f"{name} holds {saved.dtype} values that {own.dtype} cannot hold"


def copy_unread(name, own, saved):
    """Copy an array that nothing reads, if there is one and it can be."""
    if getattr(saved, "size", None) == own.size and problem(name, saved.reshape(own.shape), own) is None:
        copy_into(own, saved.reshape(own.shape))
