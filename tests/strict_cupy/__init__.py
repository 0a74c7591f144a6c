"""A stand-in for CuPy that runs on the CPU and is stricter than CuPy itself.

It is an array library over NumPy whose module and arrays offer only the names, and whose functions take only the
arguments, that the real CuPy has (names.json, written by ``collect.py``). What a GPU forbids, or what makes it slow or
wrong without a word, is an error here:

- NumPy arrays do not mix with device arrays, in operators, calls, indices or assignments; NumPy functions do not take
  device arrays; ``numpy.asarray(x)`` refuses: what moves, moves through ``asarray``, ``set`` and ``get``.
- Wider NumPy scalars are refused: ``x * numpy.float64(2)`` would make float64 of float32.
- Reductions and ``x[0]`` give 0-dimensional arrays, which ``+=`` changes in place for everyone who holds them.
- Results of elementwise functions are C-ordered, whatever the order of the inputs, as CuPy's are.
- Memory that nothing wrote holds NaN, or large whole numbers.
- Every array lives on one of two devices, and is only used while that one is current, in the current thread.
- While a stream captures, nothing runs: operations are recorded, their results hold what memory holds that nothing
  wrote, and what CuPy refuses is refused. A graph's memory comes from a pool that nothing else uses (streams.py).
- Copies on a stream of their own happen late, when something waits for them, and once more as long as the host has not
  waited: a missing wait or an overwritten source shows as wrong numbers. A copy into memory that the stream has not
  been ordered after is refused.
- cuBLAS's own functions, for who calls them through ctypes, are in cublas.py.
- ``ElementwiseKernel`` and ``RawModule`` compile their C++ with g++ and run that; a ``RawModule``'s kernels run thread
  by thread (cuda.h), and their arguments must be of the parameters' types.

``transfers`` lists what crossed between host and device, ``("to device", shape)`` and ``("to host", shape)``; for the
latter the host waits, in ``float(x)``, ``bool(x)`` and ``int(x)`` too. ``launches`` names what a GPU would launch, one
name for each function, operator, kernel, copy or fill; CuPy launches more where it composes a function of several.
"""

import functools
import importlib
import math
import pkgutil
import sys
import threading
import types

import numpy as np

from tests.strict_cupy import streams
from tests.strict_cupy.arrays import (
    NAMES,
    _checked,
    _filled,
    _Module,
    array,
    asarray,
    compute_types,
    empty_pinned,
    ndarray,
    transfers,
)
from tests.strict_cupy.streams import DEVICES, Device, launches

# ------------------------------------------------------------------------------------------------------ the modules


def _make_modules():
    from tests.strict_cupy.kernels import ElementwiseKernel
    from tests.strict_cupy.raw import RawModule

    module = _Module("cupy")
    module.ndarray, module.asarray, module.array = ndarray, asarray, array
    module.empty, module.empty_like = _filled(np.empty), _filled(np.empty_like)
    module.ElementwiseKernel, module.RawModule, module.__version__ = ElementwiseKernel, RawModule, NAMES["version"]
    module.newaxis, module.inf, module.nan = None, math.inf, math.nan
    module.is_available = lambda: True
    module.get_default_memory_pool = lambda: streams.default_pool
    strides = types.SimpleNamespace(
        as_strided=_checked("as_strided", np.lib.stride_tricks.as_strided, ["x", "shape", "strides"])
    )
    module.lib = types.SimpleNamespace(stride_tricks=strides)
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: DEVICES, driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13000
    )
    cuda = {
        "Device": Device,
        "Stream": streams.Stream,
        "Event": streams.Event,
        "Graph": streams.Graph,
        "MemoryPool": streams.MemoryPool,
        "using_allocator": streams.using_allocator,
        "alloc": lambda size: streams.current_pool().malloc(size),
        "runtime": runtime,
        "get_current_stream": streams.current_stream,
        "is_available": lambda: True,
    }
    cuda |= {"memory": types.SimpleNamespace(OutOfMemoryError=streams.OutOfMemoryError)}
    linalg = {"COMPUTE_TYPE_FP32": 4, "COMPUTE_TYPE_TF32": 7, "set_compute_type": compute_types.__setitem__}
    assert not set(cuda) - set(NAMES["cuda"])
    assert not set(linalg) - set(NAMES["linalg"])
    module.cuda = types.SimpleNamespace(**cuda)
    module._core = types.SimpleNamespace(_routines_linalg=types.SimpleNamespace(**linalg))
    cupyx = types.ModuleType("cupyx")
    cupyx.empty_pinned = empty_pinned
    return module, cupyx


_module, _cupyx = None, None


def install(monkeypatch):
    """Put the double in CuPy's place until the test ends, with nothing on its way and device 0 current."""
    global _module, _cupyx
    from nanogan import dispatch
    from nanogan.backend import cublas
    from tests.strict_cupy.cublas import Library

    if _module is None:
        _module, _cupyx = _make_modules()
    streams.state.__dict__.clear()
    transfers.clear()
    launches.clear()
    monkeypatch.setitem(sys.modules, "cupy", _module)
    monkeypatch.setitem(sys.modules, "cupyx", _cupyx)
    fast = importlib.import_module("nanogan.fast")
    if hasattr(fast, "gpu"):
        monkeypatch.delattr(fast, "gpu")
    for name in _names_of("nanogan.fast.gpu"):
        monkeypatch.setitem(sys.modules, name, None)  # undone, it is what was there before: never the double's kernels
        del sys.modules[name]
    monkeypatch.setattr(cublas, "open_library", lambda cupy: Library())
    monkeypatch.setattr(cublas, "_library", None)
    for name in _names_of("nanogan.backend") & set(sys.modules):
        _forget_caches(monkeypatch, sys.modules[name])
    monkeypatch.setattr(dispatch, "_loaded", dispatch._loaded - {"gpu"})
    monkeypatch.setattr(dispatch, "_paths", {k: v for k, v in dispatch._paths.items() if k[0] != "gpu"})
    monkeypatch.setattr(dispatch, "_walks", {k: v for k, v in dispatch._walks.items() if k != "gpu"})
    return _module


def _names_of(package):
    """The names of a package and of all modules in its folder, imported or not."""
    folders = importlib.util.find_spec(package).submodule_search_locations
    inside = {module.name for module in pkgutil.walk_packages(folders, f"{package}.")}
    return {package} | inside | {name for name in sys.modules if name.startswith(f"{package}.")}


def _forget_caches(monkeypatch, module):
    """Let a module start with empty caches: collections called _like_this, and functions that keep their results."""
    for key, value in list(vars(module).items()):
        if hasattr(value, "cache_clear") and value.__module__ == module.__name__:
            monkeypatch.setattr(module, key, functools.cache(value.__wrapped__))
        elif isinstance(value, (dict, list, set, threading.local)) and key[0] == "_" != key[1] and key.islower():
            monkeypatch.setattr(module, key, type(value)())
