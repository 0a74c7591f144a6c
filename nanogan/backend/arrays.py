"""One line for both libraries: ``xp = array_module(x)``, and what depends on how arrays lie in memory."""

import sys

import numpy as np

from nanogan.errors import UserError, checked_count


def array_module(x):
    """Return the library that ``x`` belongs to: ``numpy``, or ``cupy`` where ``x`` is a CuPy array.

    Raises UserError for everything else, and for NumPy's matrices and masked arrays: their ``*`` is another product,
    their sums leave elements out.
    """
    cupy = sys.modules.get("cupy")  # never imported for those who only use NumPy
    if cupy is not None and isinstance(x, cupy.ndarray):
        return cupy
    if type(x) is np.ndarray:
        return np
    if isinstance(x, np.ma.MaskedArray):
        raise UserError("expected a NumPy or CuPy array, got a masked one: fill its gaps with x.filled(value)")
    if not isinstance(x, (np.ndarray, np.generic)) or isinstance(x, np.matrix):
        raise UserError(f"expected a NumPy or CuPy array, got {type(x).__name__}: convert it with numpy.asarray")
    return np


def channels_last(x):
    """Return ``x`` with the same shape and values; if it has 4 dimensions, its channels come last in memory."""
    if x.ndim != 4:
        return x
    return array_module(x).ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def to_numpy(x):
    """Return ``x`` as a NumPy array; a CuPy array is copied from the device, a NumPy array is returned as it is."""
    if array_module(x) is np:
        return x
    if x.ndim == 4:  # copies between host and device are C-ordered: copy a channels-last array as the NHWC that it is
        return channels_last(x).transpose(0, 2, 3, 1).get().transpose(0, 3, 1, 2)
    return x.get()


def all_to_numpy(arrays):
    """Return {name: NumPy array} of ``arrays``, on either device: as :func:`to_numpy`, but a GPU is waited for once."""
    there = {name: x for name, x in arrays.items() if array_module(x) is not np}
    if not there:
        return dict(arrays)
    import cupy
    import cupyx

    copied = {}
    for name, x in there.items():
        with x.device:
            rows = cupy.ascontiguousarray(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x)  # as it lies in memory
            pinned = cupyx.empty_pinned(rows.shape, rows.dtype)  # memory that the GPU writes to while the host goes on
            rows.get(out=pinned, blocking=False)
        host = np.asarray(pinned)
        copied[name] = host.transpose(0, 3, 1, 2) if x.ndim == 4 else host.reshape(x.shape)
    for device in {x.device.id for x in there.values()}:
        with cupy.cuda.Device(device):
            cupy.cuda.get_current_stream().synchronize()
    return {name: copied.get(name, x) for name, x in arrays.items()}


def copy_into(target, source):
    """Copy ``source``, on either device, into the array ``target``."""
    target[...] = (
        source if array_module(target) is array_module(source) else array_module(target).asarray(to_numpy(source))
    )


def seeded_rng(seed, purpose):
    """Return NumPy's random generator for one ``purpose`` of a run, such as "weights" or "noise".

    Streams of different purposes are independent, so drawing more of one leaves the others as they were. Everything
    random is drawn by NumPy and then moved, so that a run starts from the same numbers on every device. Raises
    UserError unless the seed is an integer of at least 0, Python's or NumPy's.
    """
    return np.random.default_rng([checked_count("seed", seed, 0), *purpose.encode()])
