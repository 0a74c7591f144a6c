"""Devices: the CPU with NumPy, GPUs with CuPy, which is imported when one is asked for."""

import os
from dataclasses import dataclass

import numpy as np

from nanogan.backend.arrays import array_module, channels_last, to_numpy
from nanogan.backend.diagnosis import driver_problem, import_problem, several_cupys, use_problem
from nanogan.errors import DeviceError

_probed = set()  # numbers of the GPUs that are known to work
when_first_used = []  # functions of CuPy's module, called before a GPU is first used: what precision tells cuBLAS


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
        if name.kind == "gpu":
            name.array_module.cuda.Device(name.index).use()  # CuPy's current device is each thread's own
        return name
    kind, _, index = str(name).partition(":")
    if kind == "cpu" and not index:
        return Device("cpu")
    if kind not in ("gpu", "cuda") or not (index or "0").isdecimal():
        raise DeviceError(f"unknown device {name!r}: use cpu, gpu, or gpu:N for the GPU number N, counted from 0")
    device = Device("gpu", int(index or 0))
    if device.index not in _probed:
        _probe_gpu(device.index)
        for function in when_first_used:
            function(device.array_module)
    device.array_module.cuda.Device(device.index).use()
    return device


def _probe_gpu(index):
    """Raise DeviceError unless CuPy can run a kernel and a matrix product on GPU ``index``; asked once per GPU."""
    if index in _probed:
        return
    try:
        import cupy
    except Exception as error:  # a broken installation fails with exceptions of many kinds
        raise DeviceError(import_problem(error)) from None
    if not cupy.is_available():
        raise DeviceError(f"no usable GPU was found: {driver_problem(cupy)}")
    count = cupy.cuda.runtime.getDeviceCount()
    if index >= count:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible!r} may hide others)"
        raise DeviceError(f"there is no gpu:{index}: this machine has {count}, numbered from 0 to {count - 1}{hidden}")
    try:
        cupy.cuda.Device(index).use()
        ones = cupy.ones((2, 2), np.float32)
        works = bool(((ones + ones) @ ones == 4).all())  # one compiled kernel (NVRTC) and one product (cuBLAS)
    except Exception as error:  # CuPy reports a missing NVRTC, cuBLAS or driver with exceptions of many kinds
        raise DeviceError(several_cupys() or use_problem(cupy, index, error)) from None
    if not works:
        raise DeviceError(f"gpu:{index} computes wrongly: a product of 2 x 2 matrices of ones was not all 4")
    _probed.add(index)


def device_of(x):
    """Return the :class:`Device` that holds the array ``x``."""
    return Device("cpu") if array_module(x) is np else Device("gpu", x.device.id)


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
