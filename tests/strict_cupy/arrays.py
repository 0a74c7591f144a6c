"""The double's arrays, the functions on them, and the module that offers CuPy's names."""

import json
import operator
import types
import weakref
from pathlib import Path

import numpy as np

from tests.strict_cupy import streams
from tests.strict_cupy.streams import Device, launches

NAMES = json.loads((Path(__file__).parent / "names.json").read_text(encoding="utf-8"))

transfers = []  # in order
compute_types = {}  # dtype -> what cuBLAS is to compute its products with
# What copies, whatever it is called; what fills; what runs nothing on the device.
COPIES = {"reshape", "ravel", "flatten", "copy", "astype", "ascontiguousarray", "asfortranarray", "copyto"}
OTHER_NAMES = dict.fromkeys(COPIES, "copy") | dict.fromkeys(("zeros", "zeros_like"), "memset")
OTHER_NAMES |= dict.fromkeys(("ones", "ones_like", "full", "full_like"), "fill")
IN_PLACE = {"fill", "sort", "put", "partition", "copyto", "place", "putmask", "fill_diagonal"}
# The host waits for their size.
SYNCHRONOUS = {"nonzero", "argwhere", "flatnonzero", "unique", "extract", "compress", "bincount", "histogram"}
PRODUCTS = {"matmul", "dot", "tensordot", "inner", "outer", "vdot", "einsum", "kron"}


# ---------------------------------------------------------------------------------------------------------- arrays


class ndarray:
    """An array on a device."""

    __hash__ = None
    _pool = None

    def __init__(self, shape=(), dtype=float, memptr=None, strides=None, order="C", *, _host=None, _like=None):
        if _host is None:
            assert (memptr, strides) == (None, None), "not in the double"
            _host = _uninitialised(np.empty(shape, dtype, order))
        self._host = _host
        self.base = None if _like is None else (_like if _like.base is None else _like.base)
        if _like is None:
            self._born, self._stream = next(streams.tickets), streams.current_stream()
            self._device, self._graph = streams.current_device(), getattr(self._stream._graph, "itself", None)
            self._bytes = -(-_host.nbytes // 512) * 512
            streams.current_pool()._take(self._bytes)
            self._pool = streams.current_pool().itself
            start = _host.ctypes.data
            streams.live[id(self)] = start, start + _host.nbytes, weakref.ref(self)
        else:
            self._born, self._stream = _like._born, _like._stream
            self._device, self._graph = _like._device, _like._graph

    def __del__(self):
        if self._pool is None:
            return
        streams.live.pop(id(self), None)
        pool = self._pool()
        if pool is not None:
            pool._give(self._bytes)

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
        result = np.array(self._fetched(self.shape, stream), order=order)
        if out is not None:
            out[...] = result
        return result if out is None else out

    def _fetched(self, shape, stream=None):
        stream = stream or streams.current_stream()
        if stream.is_capturing():
            raise RuntimeError("the current stream is capturing, so D2H transfers are disallowed")
        host = _host_of(self)
        transfers.append(("to host", shape))
        stream._launch("copy", lambda: None)
        return host

    def set(self, arr, stream=None):
        if not isinstance(arr, np.ndarray) or arr.dtype != self.dtype or arr.shape != self.shape:
            raise TypeError(f"set expected a NumPy array {self.shape} of {self.dtype}")
        if not (self._host.flags.c_contiguous and arr.flags.c_contiguous):
            raise RuntimeError("set copies C-contiguous arrays")
        streams.refuse_copies_from_host(stream)
        transfers.append(("to device", self.shape))
        stream = stream or streams.current_stream()
        if stream is not self._stream and stream._seen.get(self._stream, -1) < self._born:
            raise RuntimeError("this copy may run before what used this memory last: let its stream wait first")
        if isinstance(arr, Pinned) and stream is not streams.current_stream():
            launches.append("copy")
            stream._run_late()
            stream._queue.append(lambda: self._host.__setitem__(..., arr))
        else:
            stream._launch("copy", lambda: self._host.__setitem__(..., arr))

    def item(self, *args):
        return self._fetched(()).item(*args)

    def tolist(self):
        return self._fetched(self.shape).tolist()

    def astype(self, dtype, order="K", copy=True):
        host = _host_of(self)
        if not copy and host.dtype == dtype:
            return self
        return _launched("copy", lambda: host.astype(dtype, order=order), [])

    def dot(self, b, out=None):
        from tests import strict_cupy  # whose functions are made of these arrays

        return strict_cupy._module.dot(self, b, out)

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
        if any(isinstance(part, np.ndarray) for part in index):
            if any(part.dtype.kind == "b" for part in index if isinstance(part, np.ndarray)):
                streams.refuse_copies_to_host()  # the host waits for the number of elements
            host = _host_of(self)
            return _launched("getitem", lambda: np.array(host[index], order="C"), [], like=_taken(host, index))
        return _wrap(_host_of(self)[index] if Ellipsis in index else self._host[(*index, ...)], self)

    def __setitem__(self, index, value):
        index, host, value = _index(index), _host_of(self), _host_of(value)
        if streams.capturing() and not any(isinstance(part, np.ndarray) for part in index):
            host.copy()[index] = value  # raises what it would
        streams.launch("copy" if isinstance(value, np.ndarray) else "fill", lambda: host.__setitem__(index, value))

    def __repr__(self):
        return f"strict_cupy.{self._host!r}"

    def __deepcopy__(self, memo):
        host = _host_of(self)
        return _launched("copy", lambda: host.copy(order="C"), [])

    # ---- refused

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        raise TypeError(f"numpy.{ufunc.__name__} was called with an array on the device")

    def __array_function__(self, function, *args, **kwargs):
        raise TypeError(f"numpy.{function.__name__} was called with an array on the device")


def _matmul(a, b, out=None):
    """16-bit numbers are added up in float32 and rounded once, as cuBLAS does."""
    if a.dtype == b.dtype and a.dtype.itemsize == 2:
        return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
    return a @ b


def _operators():
    def binary(function, name, swapped=False):
        def method(self, other):
            a, b = _host_of(self), _host_of(other, beside=self)
            if name in PRODUCTS:
                _check_product(a, b)
            a, b = (b, a) if swapped else (a, b)
            return _launched(name, lambda: np.array(function(a, b), order="C"), [])

        return method

    def in_place(ufunc):
        def method(self, other):
            a, b = _host_of(self), _host_of(other, beside=self)
            _check_in_place(ufunc, a, b)
            streams.launch(ufunc.__name__, lambda: ufunc(a, b, out=a))
            return self

        return method

    def unary(function, name):
        def method(self):
            host = _host_of(self)
            return _launched(name, lambda: np.array(function(host), order="C"), [])

        return method

    ufuncs = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "pow": np.power}
    ufuncs |= {"floordiv": np.floor_divide, "mod": np.remainder, "and": np.bitwise_and, "or": np.bitwise_or}
    for name, ufunc in ufuncs.items():
        setattr(ndarray, f"__{name}__", binary(ufunc, ufunc.__name__))
        setattr(ndarray, f"__r{name}__", binary(ufunc, ufunc.__name__, swapped=True))
        setattr(ndarray, f"__i{name}__", in_place(ufunc))
    names = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
    for short, name in names.items():
        setattr(ndarray, f"__{short}__", binary(getattr(operator, short), name))
    ndarray.__matmul__ = binary(_matmul, "matmul")
    for short, name in {"neg": "negative", "abs": "absolute", "invert": "invert"}.items():
        setattr(ndarray, f"__{short}__", unary(getattr(operator, short), name))


_operators()


def _check_in_place(ufunc, a, b):
    """Raise what ``ufunc(a, b, out=a)`` would, where a capture would only find out when it is launched."""
    if streams.capturing():
        with _quiet():
            ufunc(a, b, out=a.copy())


def _check_product(*factors):
    """CuPy refuses its own cuBLAS while capturing; it has other kernels for integers and for two vectors."""
    if not streams.capturing() or np.result_type(*factors).kind in "biu" or not all(a.size for a in factors):
        return
    a, b = factors if len(factors) == 2 else (None, None)
    if a is None or max(a.ndim, b.ndim) > 2 or (a.ndim and b.ndim and not a.size == b.size == a.shape[-1]):
        streams.refuse_cublas()


def _quiet():
    """A GPU does not warn of overflows."""
    return np.errstate(all="ignore")


def _host_of(value, beside=None):
    """The NumPy array behind a device array; numbers as they are; anything else is refused."""
    if isinstance(value, ndarray):
        if value._device != streams.current_device():
            raise ValueError(f"an array of device {value._device} is used while {streams.current_device()} is current")
        graph = streams.current_stream()._graph
        if graph is not None:
            graph._uses(value if value.base is None else value.base)
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
    if like is not None and host is like._host:
        return like
    return ndarray(_host=host, _like=like if like is not None and _is_view(host, [like]) else None)


def _is_view(host, of):
    return any(host is each._host or (host.base is not None and np.may_share_memory(host, each._host)) for each in of)


def _launched(name, compute, inputs, like=None):
    """The results of ``compute`` on the device: views of the arrays ``inputs`` at once, others by a launch ``name``.

    While a stream captures, ``like`` or else a first result tells shape and dtype, and nothing else.
    """
    if not streams.capturing():
        streams.current_stream()._run_new()
    with _quiet():
        result = like if like is not None and streams.capturing() else compute()
    arrays = [np.asarray(each) for each in _flat(result) if isinstance(each, (np.ndarray, np.generic))]
    results = _wrap(result, inputs[0] if inputs else None)
    new = [i for i, host in enumerate(arrays) if host.size and not _is_view(host, inputs)]
    if not new or name is None:
        return results
    places = [each._host for each in _flat(results) if isinstance(each, ndarray)]

    def again():
        values = [each for each in _flat(compute()) if isinstance(each, (np.ndarray, np.generic))]
        for i in new:
            places[i][...] = values[i]

    if streams.capturing():
        for i in new:
            _uninitialised(places[i])
        streams.launch(name, again)
    else:
        streams.launch(name, lambda: None)
    return results


def _flat(result):
    return [part for each in result for part in _flat(each)] if isinstance(result, (tuple, list)) else [result]


def _taken(host, index):
    """What ``host[index]`` is in shape and dtype, where the numbers in ``index`` are not there yet."""
    if not streams.capturing():
        return None
    return host[tuple(np.zeros_like(part) if isinstance(part, np.ndarray) else part for part in index)].copy()


def _index(index):
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        if isinstance(part, (np.ndarray, list)):
            raise TypeError(f"an array on the device is indexed with a {type(part).__name__} of the host")
    return tuple(_host_of(part) for part in parts)


def _uninitialised(host):
    host.fill(np.nan if host.dtype.kind in "fV" else 1 if host.dtype.kind == "b" else np.iinfo(host.dtype).max)
    return host


# ------------------------------------------------------------------------------------------------------- functions


def _checked(name, function, parameters, elementwise=False, owner=None):
    """NumPy's function as CuPy's: device arrays in and out, and only the arguments that CuPy's has."""

    def call(*args, **kwargs):
        unknown = [key for key in kwargs if parameters is not None and key not in parameters]
        if unknown:
            raise TypeError(f"CuPy's {name} takes no {', '.join(unknown)}")
        out = kwargs.get("out")
        inputs = [a for a in _flat([*args, *kwargs.values()]) if isinstance(a, ndarray)]
        first = owner if owner is not None else inputs[0] if inputs else None
        values = [_unpacked(a, first) for a in args]
        kwargs = {key: _unpacked(value, first) for key, value in kwargs.items()}
        if short in SYNCHRONOUS or (short == "where" and len(args) == 1):
            streams.refuse_copies_to_host()
        if short in PRODUCTS:
            _check_product(*(each._host for each in ([owner] if owner is not None else []) + inputs))

        def compute(**others):
            result = function(*values, **{**kwargs, **others})
            return np.array(result, order="C") if elementwise else result

        if short in IN_PLACE:
            streams.launch(launched, compute)
            return None
        if out is not None:
            if streams.capturing():
                with _quiet():
                    compute(out=_copied(kwargs["out"]))
            streams.launch(launched, compute)
            return out
        return _launched(launched, compute, ([owner] if owner is not None else []) + inputs)

    short = name.split(".")[-1]
    launched = None if short in ("empty", "empty_like") else OTHER_NAMES.get(short, short)
    return call


def _copied(out):
    return tuple(each.copy() for each in out) if isinstance(out, tuple) else out.copy()


def _unpacked(value, beside):
    if isinstance(value, (tuple, list)):
        return type(value)(_unpacked(each, beside) for each in value)
    return _host_of(value, beside)


class _Ufunc:
    def __init__(self, name):
        self.name, self._ufunc = name, getattr(np, name)
        self._call = _checked(name, self._ufunc, NAMES["cupy"][name], elementwise=True)

    def __call__(self, *args, **kwargs):
        if len(args) > self._ufunc.nin:
            outs = args[self._ufunc.nin :]
            args, kwargs = args[: self._ufunc.nin], kwargs | {"out": outs[0] if len(outs) == 1 else outs}
        return self._call(*args, **kwargs)

    def at(self, a, indices, b=None):
        a, indices, b = _host_of(a), _host_of(indices), _host_of(b)
        streams.launch(f"{self.name}.at", lambda: self._ufunc.at(a, indices, b))


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    if isinstance(a, ndarray) and a._device != streams.current_device():
        there = a._host
        return _launched("copy", lambda: there.copy(), [])
    if isinstance(a, ndarray):
        return a if dtype is None or a.dtype == dtype else a.astype(dtype)
    host = np.array(a, dtype=dtype, order=order or "C")
    if host.ndim:
        streams.refuse_copies_from_host()
    if isinstance(a, np.ndarray):
        transfers.append(("to device", host.shape))
    return _launched(
        "copy" if host.ndim else "fill", lambda: host.copy("K"), []
    )  # a number travels as a kernel's argument


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


# --------------------------------------------------------------------------------------------------- pinned memory


class Pinned(np.ndarray):
    """Host memory that a GPU copies from while the program goes on."""


def empty_pinned(shape, dtype=float, order="C"):
    return _uninitialised(np.empty(shape, dtype, order)).view(Pinned)
