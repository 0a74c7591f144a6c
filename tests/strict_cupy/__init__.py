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
- Copies on a stream of their own happen late, when something waits for them, and once more as long as the host has not
  waited: a missing wait or an overwritten source shows as wrong numbers. A copy into memory that the stream has not
  been ordered after is refused.
- ``ElementwiseKernel`` compiles its C++ with g++ and runs that.

``transfers`` lists what crossed between host and device, ``("to device", shape)`` and ``("to host", shape)``; for the
latter the host waits, in ``float(x)``, ``bool(x)`` and ``int(x)`` too.
"""

import json
import math
import operator
import sys
import threading
import types
from pathlib import Path

import numpy as np

NAMES = json.loads((Path(__file__).parent / "names.json").read_text(encoding="utf-8"))
DEVICES = 2

transfers = []  # in order
compute_types = {}  # dtype -> what cuBLAS is to compute its products with
_state = threading.local()
_tickets = 0  # counts allocations and events, so that "after" can be asked


# ---------------------------------------------------------------------------------------------------------- arrays


class ndarray:
    """An array on a device."""

    __hash__ = None

    def __init__(self, shape=(), dtype=float, memptr=None, strides=None, order="C", *, _host=None, _like=None):
        global _tickets
        if _host is None:
            assert (memptr, strides) == (None, None), "not in the double"
            _host = _uninitialised(np.empty(shape, dtype, order))
        self._host = _host
        self.base = None if _like is None else (_like if _like.base is None else _like.base)
        _tickets += 1
        self._born = _tickets if _like is None else _like._born
        self._stream = _current_stream() if _like is None else _like._stream
        self._device = _current_device() if _like is None else _like._device

    def __getattr__(self, name):
        if name not in NAMES["ndarray"]:
            raise AttributeError(f"a CuPy array has no attribute {name!r}")
        value = getattr(self._host, name)
        if not callable(value):
            return value
        _host_of(self)
        return _checked(f"ndarray.{name}", value, NAMES["ndarray"][name], owner=self)

    device = property(lambda self: Device(self._device))
    data = property(lambda self: types.SimpleNamespace(ptr=self._host.ctypes.data))
    T = property(lambda self: _wrap(self._host.T, self))
    real = property(lambda self: _wrap(self._host.real, self))

    # ---- what is not as in NumPy

    def get(self, stream=None, order="C", out=None, blocking=True):
        transfers.append(("to host", self.shape))
        result = np.array(_host_of(self), order=order)
        if out is not None:
            out[...] = result
        return result if out is None else out

    def set(self, arr, stream=None):
        if not isinstance(arr, np.ndarray) or arr.dtype != self.dtype or arr.shape != self.shape:
            raise TypeError(f"set expected a NumPy array {self.shape} of {self.dtype}")
        if not (self._host.flags.c_contiguous and arr.flags.c_contiguous):
            raise RuntimeError("set copies C-contiguous arrays")
        transfers.append(("to device", self.shape))
        stream = stream or _current_stream()
        if stream is not self._stream and stream._seen.get(self._stream, -1) < self._born:
            raise RuntimeError("this copy may run before what used this memory last: let its stream wait first")
        if isinstance(arr, Pinned):
            stream._run_late()
            stream._queue.append(lambda: self._host.__setitem__(..., arr))
            if stream is _current_stream():
                stream.synchronize()
        else:
            self._host[...] = arr

    def item(self, *args):
        transfers.append(("to host", ()))
        return _host_of(self).item(*args)

    def tolist(self):
        transfers.append(("to host", self.shape))
        return _host_of(self).tolist()

    def astype(self, dtype, order="K", copy=True):
        with _quiet():
            result = _host_of(self).astype(dtype, order=order, copy=copy)
        return self if result is self._host else _wrap(result)

    def dot(self, b, out=None):
        return _module.dot(self, b, out)

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    __index__ = None

    def __bool__(self):
        return bool(self.item())

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        index = _index(index)
        advanced = any(isinstance(part, np.ndarray) for part in index)
        result = _host_of(self)[index] if advanced or Ellipsis in index else self._host[(*index, ...)]
        return _wrap(np.array(result, order="C")) if advanced else _wrap(result, self)

    def __setitem__(self, index, value):
        _host_of(self)[_index(index)] = _host_of(value)

    def __repr__(self):
        return f"strict_cupy.{self._host!r}"

    def __deepcopy__(self, memo):
        return _wrap(self._host.copy(order="C"))

    # ---- refused

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        raise TypeError(f"numpy.{ufunc.__name__} was called with an array on the device")

    def __array_function__(self, function, *args, **kwargs):
        raise TypeError(f"numpy.{function.__name__} was called with an array on the device")


def _matmul(a, b):
    """16-bit numbers are added up in float32 and rounded once, as cuBLAS does."""
    if a.dtype == b.dtype and a.dtype.itemsize == 2:
        return (a.astype(np.float32) @ b.astype(np.float32)).astype(a.dtype)
    return a @ b


def _operators():
    def binary(function, swapped=False):
        def method(self, other):
            a, b = _host_of(self), _host_of(other, beside=self)
            with _quiet():
                return _wrap(np.array(function(b, a) if swapped else function(a, b), order="C"))

        return method

    def in_place(ufunc):
        def method(self, other):
            with _quiet():
                ufunc(_host_of(self), _host_of(other, beside=self), out=self._host)
            return self

        return method

    ufuncs = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "pow": np.power}
    ufuncs |= {"floordiv": np.floor_divide, "mod": np.remainder, "and": np.bitwise_and, "or": np.bitwise_or}
    for name, ufunc in ufuncs.items():
        setattr(ndarray, f"__{name}__", binary(ufunc))
        setattr(ndarray, f"__r{name}__", binary(ufunc, swapped=True))
        setattr(ndarray, f"__i{name}__", in_place(ufunc))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(ndarray, f"__{name}__", binary(getattr(operator, name)))
    ndarray.__matmul__ = binary(_matmul)
    for name in ("neg", "abs", "invert"):
        function = getattr(operator, name)
        setattr(ndarray, f"__{name}__", lambda self, f=function: _wrap(np.array(f(_host_of(self)), order="C")))


_operators()


def _quiet():
    """A GPU does not warn of overflows."""
    return np.errstate(all="ignore")


def _host_of(value, beside=None):
    """The NumPy array behind a device array; numbers as they are; anything else is refused."""
    if isinstance(value, ndarray):
        if value._device != _current_device():
            raise ValueError(f"an array of device {value._device} is used while {_current_device()} is current")
        return value._host
    if isinstance(value, (np.ndarray, list)):
        raise TypeError(f"Unsupported type {type(value)}: data of the host meets an array on the device")
    if isinstance(value, np.generic) and beside is not None and np.result_type(beside.dtype, value) != beside.dtype:
        raise TypeError(
            f"a NumPy scalar of {value.dtype} would make {np.result_type(beside.dtype, value)} of the array"
        )
    return value


def _wrap(result, like=None):
    """Results of NumPy as arrays on the device; ``like`` is the array that the result may be a view of."""
    if isinstance(result, tuple):
        return tuple(_wrap(each, like) for each in result)
    if isinstance(result, list):
        return [_wrap(each, like) for each in result]
    if not isinstance(result, (np.ndarray, np.generic)):
        return result
    host = np.asarray(result)
    view = like is not None and host.base is not None and np.may_share_memory(host, like._host)
    return ndarray(_host=host, _like=like if view else None)


def _index(index):
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        if isinstance(part, (np.ndarray, list)):
            raise TypeError(f"an array on the device is indexed with a {type(part).__name__} of the host")
    return tuple(_host_of(part) for part in parts)


def _uninitialised(host):
    host.fill(np.nan if host.dtype.kind == "f" else 1 if host.dtype.kind == "b" else np.iinfo(host.dtype).max)
    return host


# ------------------------------------------------------------------------------------------------------- functions


def _checked(name, function, parameters, elementwise=False, owner=None):
    """NumPy's function as CuPy's: device arrays in and out, and only the arguments that CuPy's has."""

    def call(*args, **kwargs):
        unknown = [key for key in kwargs if parameters is not None and key not in parameters]
        if unknown:
            raise TypeError(f"CuPy's {name} takes no {', '.join(unknown)}")
        out = kwargs.get("out")
        first = owner if owner is not None else next((a for a in args if isinstance(a, ndarray)), None)
        values = [_unpacked(a, first) for a in args]
        kwargs = {key: _unpacked(value, first) for key, value in kwargs.items()}
        with _quiet():
            result = function(*values, **kwargs)
        if out is not None:
            return out
        if elementwise:
            result = np.array(result, order="C")
        return _wrap(result, first)

    return call


def _unpacked(value, beside):
    if isinstance(value, (tuple, list)):
        return type(value)(_unpacked(each, beside) for each in value)
    return _host_of(value, beside)


class _Ufunc:
    def __init__(self, name):
        self.name, self._ufunc = name, getattr(np, name)
        self._call = _checked(name, self._ufunc, NAMES["cupy"][name], elementwise=True)

    def __call__(self, *args, **kwargs):
        return self._call(*args, **kwargs)

    def at(self, a, indices, b=None):
        self._ufunc.at(_host_of(a), _host_of(indices), _host_of(b))


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    if isinstance(a, ndarray) and a._device != _current_device():
        return ndarray(_host=a._host.copy())
    if isinstance(a, ndarray):
        return a if dtype is None or a.dtype == dtype else a.astype(dtype)
    host = np.array(a, dtype=dtype, order=order or "C")
    if isinstance(a, np.ndarray):
        transfers.append(("to device", host.shape))
    return ndarray(_host=host)


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if isinstance(obj, ndarray):
        return obj.astype(dtype or obj.dtype)
    return asarray(obj, dtype)


def _filled(function):
    def call(*args, **kwargs):
        result = _checked(function.__name__, function, NAMES["cupy"][function.__name__])(*args, **kwargs)
        _uninitialised(result._host)
        return result

    return call


class _Module(types.ModuleType):
    """The module: names that CuPy has and NumPy implements are made when they are asked for."""

    def __getattr__(self, name):
        if name not in NAMES["cupy"]:
            raise AttributeError(f"cupy {NAMES['version']} has no {name!r}")
        host = getattr(np, name, None)
        if isinstance(host, np.ufunc) and NAMES["cupy"][name] and "*args" in NAMES["cupy"][name]:
            value = _Ufunc(name)
        elif isinstance(host, type) or not callable(host):  # dtypes and constants
            if host is None and name != "newaxis":
                raise NotImplementedError(f"the double has no {name}: add it if CuPy's is to be used")
            value = host
        else:
            value = _checked(name, host, NAMES["cupy"][name], elementwise=name in ("matmul", "where", "concatenate"))
        setattr(self, name, value)
        return value


# ------------------------------------------------------------------------------------------- devices and streams


class Device:
    compute_capability = "90"

    def __init__(self, device=None):
        self.id = _current_device() if device is None else int(device)
        if not 0 <= self.id < DEVICES:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def use(self):
        _state.device = self.id

    def __enter__(self):
        self._before = _current_device()
        self.use()
        return self

    def __exit__(self, *exception):
        _state.device = self._before


class Stream:
    """Copies from pinned memory wait in a queue until something waits for them; all else runs at once."""

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=0):
        self._queue, self._late, self._seen = [], 0, {}  # _seen: stream -> ticket up to which this one runs after it
        self._device = _current_device()

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        """What ``event`` stands for happens before anything more on this stream, but the host does not wait for it."""
        assert self._device == _current_device(), "a stream is used while another device is current"
        event._stream._run(event._position, host_waits=False)
        self._seen[event._stream] = event._ticket

    def synchronize(self):
        self._run(len(self._queue), host_waits=True)

    def _run(self, count, host_waits):
        """Copy. Unless the host waits, it cannot know when this happens: it may be as late as the next copy."""
        for i, copy in enumerate(self._queue[:count]):
            if copy is not None:
                copy()
                self._late = max(self._late, i + 1)
                if host_waits:
                    self._queue[i] = None  # done; positions stay, as events hold them

    def _run_late(self):
        """Copy once more, as late as it may have been, what was not waited for: an overwritten source shows."""
        self._run(self._late, host_waits=True)


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self._stream = None

    def record(self, stream=None):
        self._stream = stream or _current_stream()
        assert self._stream._device == _current_device(), "a stream is used while another device is current"
        self._position, self._ticket = len(self._stream._queue), _tickets

    def synchronize(self):
        if self._stream is not None:
            self._stream._run(self._position, host_waits=True)

    done = True


class Pinned(np.ndarray):
    """Host memory that a GPU copies from while the program goes on."""


def empty_pinned(shape, dtype=float, order="C"):
    return _uninitialised(np.empty(shape, dtype, order)).view(Pinned)


def _current_device():
    return getattr(_state, "device", 0)


def _current_stream():
    """The null stream of the current device: the only one that computes here."""
    streams = _state.__dict__.setdefault("streams", {})
    if _current_device() not in streams:
        streams[_current_device()] = Stream()
    return streams[_current_device()]


class OutOfMemoryError(MemoryError):
    pass


class MemoryPool:
    used_bytes = staticmethod(lambda: 0)
    total_bytes = staticmethod(lambda: 0)
    free_all_blocks = staticmethod(lambda stream=None: None)


# ------------------------------------------------------------------------------------------------------ the modules


def _make_modules():
    from tests.strict_cupy.kernels import ElementwiseKernel

    module = _Module("cupy")
    module.ndarray, module.asarray, module.array = ndarray, asarray, array
    module.empty, module.empty_like = _filled(np.empty), _filled(np.empty_like)
    module.ElementwiseKernel, module.__version__ = ElementwiseKernel, NAMES["version"]
    module.newaxis, module.inf, module.nan = None, math.inf, math.nan
    module.is_available = lambda: True
    module.get_default_memory_pool = MemoryPool
    strides = types.SimpleNamespace(
        as_strided=_checked("as_strided", np.lib.stride_tricks.as_strided, ["x", "shape", "strides"])
    )
    module.lib = types.SimpleNamespace(stride_tricks=strides)
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: DEVICES, driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13000
    )
    cuda = {
        "Device": Device,
        "Stream": Stream,
        "Event": Event,
        "runtime": runtime,
        "get_current_stream": _current_stream,
    }
    cuda |= {"memory": types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError), "is_available": lambda: True}
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
    from nanogan import backend, dispatch

    if _module is None:
        _module, _cupyx = _make_modules()
    _state.__dict__.clear()
    transfers.clear()
    monkeypatch.setitem(sys.modules, "cupy", _module)
    monkeypatch.setitem(sys.modules, "cupyx", _cupyx)
    for name in ("nanogan.fast.gpu", "nanogan.fast.gpu.batchnorm", "nanogan.fast.gpu.elementwise"):
        monkeypatch.setitem(sys.modules, name, None)  # undone, it is what was there before: never the double's kernels
        del sys.modules[name]
    monkeypatch.setattr(backend.devices, "_probed", set())
    monkeypatch.setattr(dispatch, "_loaded", dispatch._loaded - {"gpu"})
    monkeypatch.setattr(dispatch, "_paths", {k: v for k, v in dispatch._paths.items() if k[0] != "gpu"})
    monkeypatch.setattr(dispatch, "_walks", {k: v for k, v in dispatch._walks.items() if k != "gpu"})
    return _module
