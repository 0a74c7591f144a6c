"""Devices and arrays: NumPy on the CPU, CuPy on the GPU.

This is the only file outside ``fast/gpu`` that imports CuPy, and it does so only when a GPU is asked for. Everything
else writes ``xp = array_module(x)`` and then the same line for both libraries.
"""

import contextlib
import ctypes
import importlib
import os
import sys
from collections import deque
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


def copied_ahead(batches, device, *, ahead=1):
    """Yield each NumPy array of ``batches`` on ``device``; up to ``ahead`` more travel while the caller computes.

    A GPU's copy engine works beside its processors, but only from memory that the system may not move ("pinned"), and
    on a stream of its own. So each batch goes through one of ``ahead + 1`` pinned buffers, and two waits keep order:
    the copy waits for what is queued so far, which may still use the memory that it writes to; and what the caller
    queues next waits for the copy. The host waits only for a buffer that is still being read.
    """
    device = get_device(device)
    if device.kind == "cpu":
        yield from batches
        return
    import cupyx

    xp, here = device.array_module, device.array_module.cuda.Device(device.index)
    copies = xp.cuda.Stream(non_blocking=True)
    buffers, read = [None] * (ahead + 1), [None] * (ahead + 1)  # pinned memory, and the event after its last copy
    travelling = deque()

    def arrived(array, copied):
        with here:  # what is queued from now on waits until the array is there
            xp.cuda.get_current_stream().wait_event(copied)
        return array

    try:
        for i, batch in enumerate(batches):
            slot = i % len(buffers)
            if read[slot] is not None:
                read[slot].synchronize()
            if buffers[slot] is None or buffers[slot].size < batch.size or buffers[slot].dtype != batch.dtype:
                buffers[slot] = cupyx.empty_pinned(batch.size, batch.dtype)
            pinned = buffers[slot][: batch.size].reshape(batch.shape)
            pinned[...] = batch
            with here:
                there = xp.empty(batch.shape, batch.dtype)
                copies.wait_event(xp.cuda.get_current_stream().record())
                there.set(pinned, stream=copies)
                read[slot] = copies.record()
            travelling.append((there, read[slot]))
            if len(travelling) > ahead:
                yield arrived(*travelling.popleft())
        while travelling:
            yield arrived(*travelling.popleft())
    finally:
        with here:
            copies.synchronize()  # memory that a copy still writes to may not go back to the pool


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
CHECK_DRIVER = "check that nvidia-smi lists one, or use device cpu"
CUPY_PACKAGES = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")  # each overwrites the files of the others


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
        _tell_cublas(device.array_module)
    device.array_module.cuda.Device(device.index).use()
    return device


_probed = set()


def _probe_gpu(index):
    """Raise DeviceError unless CuPy can run a kernel and a matrix product on GPU ``index``; asked once per GPU."""
    if index in _probed:
        return
    try:
        import cupy
    except Exception as error:  # a broken installation fails with exceptions of many kinds
        raise DeviceError(_import_problem(error)) from None
    if not cupy.is_available():
        raise DeviceError(f"device gpu is not to be had: {_driver_problem(cupy)}")
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
        raise DeviceError(_several_cupys() or _use_problem(cupy, index, error)) from None
    if not works:
        raise DeviceError(f"gpu:{index} computes wrongly: a product of 2 x 2 matrices of ones was not all 4")
    _probed.add(index)


def _import_problem(error):
    """Say in one sentence why ``import cupy`` raised ``error``, and what to do."""
    if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
        return f"device gpu needs CuPy, which is not installed: {INSTALL_CUPY}"
    reason = _reason(error.__cause__ or error)  # CuPy's own ImportError is a page of general advice
    return (
        _several_cupys() or f"device gpu needs CuPy, which cannot be imported ({reason}): reinstall it, {INSTALL_CUPY}"
    )


def _several_cupys():
    """Say in one sentence that several packages of CuPy are installed, and what to do; None if there is one."""
    from importlib import metadata  # only needed when something is wrong

    found = []
    for name in CUPY_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(metadata.distribution(name).metadata["Name"])
    if len(found) < 2:
        return None
    return (
        f"device gpu needs one CuPy, but {' and '.join(found)} are installed over each other: "
        f"pip uninstall {' '.join(found)}, then {INSTALL_CUPY}"
    )


def _driver_problem(cupy):
    """Say why CuPy finds no GPU, and what to do: there is no driver, it is too old, or it sees no GPU."""
    driver, reason = None, ""
    try:
        runtime = cupy.cuda.runtime
        driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()  # 12040 means CUDA 12.4
        runtime.getDeviceCount()
    except Exception as error:
        reason = _reason(error)
    if driver == 0:
        return (
            "CuPy is installed but finds no NVIDIA driver: install one (in a container, start it with the GPU: "
            "docker run --gpus all), or use device cpu"
        )
    if driver and "InsufficientDriver" in reason:
        older = f'pip install "cupy-cuda12x[ctk]" instead of {_package(cupy)}, or ' if 12000 <= driver < 13000 else ""
        return (
            f"the NVIDIA driver is made for CUDA {_version(driver)} and CuPy for {_version(needed)}: {older}"
            "install a newer driver (CUDA 13 takes 580 or newer)"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver and "NoDevice" in reason:
        if visible is not None:
            return f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU: unset it, or name one, such as 0"
        return f"the NVIDIA driver (CUDA {_version(driver)}) sees no GPU: {CHECK_DRIVER}"
    told = f" ({reason})" if driver and reason else ""
    return f"CuPy is installed but finds no NVIDIA driver or no GPU{told}; {CHECK_DRIVER}"


def _use_problem(cupy, index, error):
    """Say in one sentence why a first kernel and product on GPU ``index`` raised ``error``, and what to do."""
    reason, text = _reason(error), f"{type(error).__name__} {error}".lower()
    there = f"gpu:{index} is there, but CuPy"
    if "out of memory" in text or "alloc_failed" in text:
        return (
            f"gpu:{index} has no memory left ({reason}): end other programs that use it, which nvidia-smi lists, or "
            "use another gpu:N"
        )
    if any(sign in text for sign in ("gpu-architecture", "nokernelimage", "no_binary_for_gpu", "unsupported gpu")):
        capability = ""
        with contextlib.suppress(Exception):
            digits = cupy.cuda.Device(index).compute_capability  # "90" means 9.0
            capability = f", of compute capability {digits[:-1]}.{digits[-1]},"
        return (
            f"gpu:{index}{capability} is not served by {_package(cupy)} ({reason}): CUDA 13 serves 7.5 and newer, "
            'pip install "cupy-cuda12x[ctk]" 5.0 and newer'
        )
    if "open source file" in text or "cuda headers" in text:
        return f'{there} does not find CUDA\'s headers ({reason}): pip install "{_package(cupy)}[ctk]"'
    missing = any(
        sign in text for sign in ("failure finding", "cannot open shared object", "could not find", "failed to load")
    )
    for library, purpose in (
        ("nvrtc", "NVRTC, which compiles its kernels"),
        ("cublas", "cuBLAS, CUDA's matrix products"),
    ):
        if missing and library in text:
            return f'{there} does not find {purpose} ({reason}): pip install "{_package(cupy)}[ctk]"'
    return f"{there} cannot use it ({reason}): reinstall CuPy with its CUDA libraries, {INSTALL_CUPY}"


def _package(cupy):
    """The package of this CuPy, by the CUDA that it was built for."""
    try:
        return f"cupy-cuda{cupy.cuda.runtime.runtimeGetVersion() // 1000}x"
    except Exception:
        return "cupy-cuda13x"


def _version(number):
    """13020 -> "13.2"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _reason(error):
    """The first line of an error's text that says something, else its type."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line[:200] for line in lines if any(map(str.isalpha, line))), type(error).__name__)


# --------------------------------------------------------------------------------------------------------- seeding


def seeded_rng(seed, purpose):
    """Return NumPy's random generator for one ``purpose`` of a run, such as "weights" or "noise".

    Streams of different purposes are independent, so drawing more of one leaves the others as they were. Everything
    random is drawn by NumPy and then moved, so that a run starts from the same numbers on every device.
    """
    return np.random.default_rng([seed, *purpose.encode()])


# ------------------------------------------------------------------------------------ precision of matrix products

PRECISIONS = ("float32", "tf32", "fp16", "bf16")
_precision = "float32"


def matmul_precision():
    """Return the name that :func:`set_matmul_precision` set last; "float32" if none."""
    return _precision


def set_matmul_precision(name):
    """Choose what the matrix products of float32 arrays read: all else, and all sums, stay in float32.

    - "float32": the arrays as they are. The default: a GPU's results are the CPU's but for rounding.
    - "tf32": on a GPU since Ampere, float32 of which the product reads 10 of 23 fraction bits.
    - "fp16": 16-bit floating point, 10 fraction bits, from 6e-8 to 65504. Small gradients become 0: see the optimisers'
      ``loss_scaling``.
    - "bf16": 16 bits with float32's range and 7 fraction bits. On a GPU it needs the package ml_dtypes.

    Products of 16-bit numbers are added up in float32 and rounded to 16 bits once, as under torch.autocast. On the CPU
    fp16 and bf16 are emulated, for study: the same numbers, more slowly. float64 arrays are left alone.

    Raises UserError for another name, or if the device in use cannot do it.
    """
    global _precision
    if name not in PRECISIONS:
        raise UserError(f"unknown precision {name!r}: use one of {', '.join(PRECISIONS)}")
    cupy = sys.modules.get("cupy")
    if name == "tf32" and not _probed:
        raise UserError("precision tf32 expected a GPU in use: choose the device first, or use float32")
    if name == "tf32" and int(cupy.cuda.Device().compute_capability) < 80:
        raise UserError("precision tf32 expected a GPU of compute capability 8.0 (Ampere) or newer: use float32")
    if name == "bf16" and _probed:
        _bfloat16()
    _precision = name
    if cupy is not None and _probed:
        _tell_cublas(cupy)


def _tell_cublas(cupy):
    """Set how CuPy's matrix products of float32 read their arrays; CUPY_TF32 in the environment does not count."""
    linalg = cupy._core._routines_linalg
    chosen = linalg.COMPUTE_TYPE_TF32 if _precision == "tf32" else linalg.COMPUTE_TYPE_FP32
    linalg.set_compute_type(np.float32, chosen)


def _bfloat16():
    try:
        import ml_dtypes
    except ImportError:
        raise UserError("precision bf16 on a GPU expected the package ml_dtypes: pip install ml_dtypes") from None
    return np.dtype(ml_dtypes.bfloat16)


def product(a, b):
    """a @ b for two matrices, in the precision that :func:`set_matmul_precision` chose; float32 in is float32 out."""
    if _precision in ("float32", "tf32") or a.dtype == np.float64:
        return a @ b
    if isinstance(a, np.ndarray):
        with np.errstate(over="ignore", invalid="ignore"):  # beyond 65504 fp16 is infinite, and training is told so
            return _rounded(_rounded(a) @ _rounded(b))
    half = np.dtype(np.float16) if _precision == "fp16" else _bfloat16()
    if a.shape[0] == b.shape[1] == 1:  # CuPy would round each product, not the sum
        a, b = (factor.astype(half, copy=False).astype(np.float32) for factor in (a, b))
        return (a @ b).astype(half).astype(np.float32)
    return (a.astype(half, copy=False) @ b.astype(half, copy=False)).astype(np.float32)


def narrow(x):
    """Return x as :func:`product` is going to read it, in half the bytes where a GPU is set to 16 bits."""
    if _precision in ("float32", "tf32") or x.dtype != np.float32 or isinstance(x, np.ndarray):
        return x
    return x.astype(np.float16 if _precision == "fp16" else _bfloat16())


def _rounded(x):
    """float32 -> the nearest number of the chosen 16-bit format, in float32."""
    if _precision == "fp16":
        return x.astype(np.float16).astype(np.float32)
    # bfloat16 is float32 without its last 16 bits; to the nearest, and to the even one of two that are equally near
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(x), rounded.view(np.float32), x)


# ------------------------------------------------------------------------------------------------------ fast paths

FAST = os.environ.get("NANOGAN_FAST", "1") != "0"

# (forward of nanogan.ops, kind of device) -> [(serves(*args, **options), fast forward, fast backward), ...]
_fast_paths = {}
_loaded = set()


def _load_fast_paths(kind):
    """Import the fast paths for a kind of device, once it is used."""
    _loaded.add(kind)
    fast = importlib.import_module(f"nanogan.fast.{kind}")
    _fast_paths.update({(function, kind): paths for function, paths in fast.PATHS.items()})


def _paths(function, kind):
    """Return the fast paths of a function for a kind of device."""
    if kind not in _loaded:
        _load_fast_paths(kind)
    return _fast_paths.get((function, kind), ())


def dispatch(forward, backward, *args, **options):
    """Run a layer's operation: the one place that chooses between ``nanogan.ops`` and a fast path.

    ``forward`` and ``backward`` are a pair of ``nanogan.ops``. Returns ``y, (chosen_backward, cache)``: a cache is
    only understood by the backward of the forward that packed it, so the two travel together.
    """
    kind = "cpu" if array_module(args[0]) is np else "gpu"
    if FAST and (kind == "gpu" or _precision == "float32"):  # the CPU's fast paths know no other precision
        for serves, fast_forward, fast_backward in _paths(forward, kind):
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
    if FAST and _precision == "float32" and isinstance(x, np.ndarray):
        from nanogan.fast.cpu import fused

        result = fused.forward_next(layers, x, train)
        if result is not None:
            return result
    y, cache = layers[0].forward(x, train=train)
    return y, [cache]


def elementwise(update, groups):
    """Call ``update(*arrays)``, which changes arrays element by element, for each group of arrays of one shape.

    :func:`dispatch` for optimisers and sums of gradients: a fast path may hand the arrays over in pieces or in another
    order, or do the work of ``update`` itself.
    """
    if FAST and groups:
        if array_module(groups[0][0]) is np:
            from nanogan.fast.cpu.elementwise import update_all
        else:
            from nanogan.fast.gpu.elementwise import update_all

        update_all(update, groups)
        return
    for arrays in groups:
        update(*arrays)
