"""Devices and arrays: NumPy on the CPU, CuPy on the GPU.

This is the only file outside ``fast/gpu`` that imports CuPy, and it does so only when a GPU is asked for. Everything
else writes ``xp = array_module(x)`` and then the same line for both libraries.
"""

import ctypes
import os
import sys
from dataclasses import dataclass

import numpy as np

from nanogan.errors import DeviceError, UserError

# ---------------------------------------------------------------------------------------------------------- arrays


def array_module(x):
    """Return the library that ``x`` belongs to: ``numpy``, or ``cupy`` where ``x`` is a CuPy array."""
    cupy = sys.modules.get("cupy")  # never imported for those who only use NumPy
    if cupy is not None and isinstance(x, cupy.ndarray):
        return cupy
    if not isinstance(x, (np.ndarray, np.generic)):
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


def to_device(x, device):
    """Return ``x`` on ``device`` ("cpu", "gpu", "gpu:1" or a :class:`Device`); 4-D arrays arrive channels-last.

    An array that is already there is returned as it is.
    """
    device = get_device(device)
    if device.kind == "cpu":
        return to_numpy(x)
    xp = device.array_module
    if isinstance(x, xp.ndarray) and x.device.id == device.index:
        return x
    with xp.cuda.Device(device.index):
        if x.ndim == 4:
            return xp.asarray(channels_last(x).transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        return xp.asarray(x)


def copy_into(target, source):
    """Copy ``source``, on either device, into the array ``target``."""
    target[...] = (
        source if array_module(target) is array_module(source) else array_module(target).asarray(to_numpy(source))
    )


def _keep_freed_memory():
    """Make the C library keep freed arrays for the next ones instead of handing them back to the system each time.

    Getting pages back from the system costs as much as filling them: a step of the MNIST example took 2.2 times
    as long. In glibc's terms (mallopt(3)): no array gets a mapping of its own, and the heap's free top stays. What is
    kept is at most what was once in use. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc; on Windows, CDLL(None) is a TypeError
        return
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_MMAP_MAX, 0)


_keep_freed_memory()

# --------------------------------------------------------------------------------------------------------- devices

INSTALL_CUPY = 'pip install "cupy-cuda13x[ctk]" (NVIDIA driver 580 or newer) or pip install "cupy-cuda12x[ctk]"'


@dataclass(frozen=True)
class Device:
    """Where arrays live: ``kind`` is "cpu" or "gpu", ``index`` counts the machine's GPUs from 0."""

    kind: str
    index: int = 0

    @property
    def array_module(self):
        """The array library of this device."""
        if self.kind == "cpu":
            return np
        import cupy

        return cupy

    def __str__(self):
        return "cpu" if self.kind == "cpu" else f"gpu:{self.index}"


def get_device(name):
    """Return the :class:`Device` called ``name`` once it is known to work.

    ``name`` is "cpu", "gpu" or "gpu:N"; "cuda" and "cuda:N" mean the same. A GPU becomes CuPy's current device.

    Raises :class:`DeviceError`, in one sentence with the remedy, if the name is unknown or the GPU cannot be used.
    """
    if isinstance(name, Device):
        return name
    kind, _, index = str(name).partition(":")
    if kind == "cpu" and not index:
        return Device("cpu")
    if kind not in ("gpu", "cuda") or not (index or "0").isdecimal():
        raise DeviceError(f"unknown device {name!r}: use cpu, gpu, or gpu:N for the GPU number N, counted from 0")
    device = Device("gpu", int(index or 0))
    _probe_gpu(device.index)
    device.array_module.cuda.Device(device.index).use()
    return device


_probed = set()


def _probe_gpu(index):
    """Raise DeviceError unless CuPy can run a kernel and a matrix product on GPU ``index``; asked once per GPU."""
    if index in _probed:
        return
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(f"device gpu needs CuPy, which cannot be imported ({error}): {INSTALL_CUPY}") from None
    if not cupy.is_available():
        raise DeviceError(
            "device gpu is not to be had: CuPy is installed but finds no NVIDIA driver or no GPU; "
            "check that nvidia-smi lists one, or use device cpu"
        )
    count = cupy.cuda.runtime.getDeviceCount()
    if index >= count:
        raise DeviceError(f"there is no gpu:{index}: this machine has {count}, numbered from 0 to {count - 1}")
    try:
        cupy.cuda.Device(index).use()
        ones = cupy.ones((2, 2), np.float32)
        works = bool(((ones + ones) @ ones == 4).all())  # one compiled kernel (NVRTC) and one product (cuBLAS)
    except Exception as error:  # CuPy reports a missing NVRTC, cuBLAS or driver with exceptions of many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DeviceError(
            f"device gpu is there, but CuPy cannot use it ({reason}): reinstall CuPy with its CUDA "
            f"libraries, {INSTALL_CUPY}"
        ) from None
    if not works:
        raise DeviceError(f"gpu:{index} computes wrongly: a product of 2 x 2 matrices of ones was not all 4")
    _probed.add(index)


# --------------------------------------------------------------------------------------------------------- seeding


def seeded_rng(seed, purpose):
    """Return NumPy's random generator for one ``purpose`` of a run, such as "weights" or "noise".

    Streams of different purposes are independent, so drawing more of one leaves the others as they were. Everything
    random is drawn by NumPy and then moved, so that a run starts from the same numbers on every device.
    """
    return np.random.default_rng([seed, *purpose.encode()])


# ------------------------------------------------------------------------------------------------------ fast paths

FAST = os.environ.get("NANOGAN_FAST", "1") != "0"

# (forward of nanogan.ops, kind of device) -> [(serves(*args, **options), fast forward, fast backward), ...]
_fast_paths = {}
_loaded = set()


def _load_fast_paths(kind):
    """Import the fast paths for a kind of device, once it is used."""
    _loaded.add(kind)
    if kind == "cpu":
        from nanogan.fast import cpu

        _fast_paths.update({(forward, kind): paths for forward, paths in cpu.PATHS.items()})


def dispatch(forward, backward, *args, **options):
    """Run a layer's operation: the one place that chooses between ``nanogan.ops`` and a fast path.

    ``forward`` and ``backward`` are a pair of ``nanogan.ops``. Returns ``y, (chosen_backward, cache)``: a cache is
    only understood by the backward of the forward that packed it, so the two travel together.
    """
    if FAST:
        kind = "cpu" if array_module(args[0]) is np else "gpu"
        if kind not in _loaded:
            _load_fast_paths(kind)
        for serves, fast_forward, fast_backward in _fast_paths.get((forward, kind), ()):
            if serves(*args, **options):
                forward, backward = fast_forward, fast_backward
                break
    y, cache = forward(*args, **options)
    return y, (backward, cache)


def forward_next(layers, x, train):
    """Run the first of ``layers``, or the first few at once where a fast path fuses them.

    Returns y and the list of their caches, each for its own layer's backward: of two fused layers, one does the work
    and the other hands dy on.
    """
    if FAST and isinstance(x, np.ndarray):
        from nanogan.fast.cpu import fused

        result = fused.forward_next(layers, x, train)
        if result is not None:
            return result
    y, cache = layers[0].forward(x, train=train)
    return y, [cache]


def elementwise(update, groups):
    """Call ``update(*arrays)``, which changes arrays element by element, for each group of arrays of one shape.

    :func:`dispatch` for optimisers and sums of gradients: a fast path may hand the arrays over in pieces.
    """
    if FAST and groups and array_module(groups[0][0]) is np:
        from nanogan.fast.cpu.elementwise import in_blocks

        in_blocks(update, groups)
        return
    for arrays in groups:
        update(*arrays)
