"""Devices, streams, graphs and memory pools of the double."""

import contextlib
import itertools
import threading
import types
import weakref

import numpy as np

DEVICES = 2

launches = []  # names of what a GPU would launch, in order: kernels, copies, fills
live = {}  # id of an array that owns memory -> its first address, the one behind its last, weak reference to it
state = threading.local()
tickets = itertools.count()  # of allocations and events, so that "after" can be asked


def current_device():
    return state.__dict__.get("device", 0)


class Device:
    compute_capability = "90"

    def __init__(self, device=None):
        self.id = current_device() if device is None else int(device)
        if not 0 <= self.id < DEVICES:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def use(self):
        state.device = self.id

    def __enter__(self):
        self._before = current_device()
        self.use()
        return self

    def __exit__(self, *exception):
        state.device = self._before


# --------------------------------------------------------------------------------------------------------- streams


class _Null:
    """``Stream.null``: the null stream of the current device."""

    def __get__(self, instance, owner):
        streams = state.__dict__.setdefault("null_streams", {})
        if current_device() not in streams:
            streams[current_device()] = Stream(null=True)
        return streams[current_device()]


class Stream:
    """Copies from pinned memory wait in a queue until something waits for them; all else runs at once.

    While it captures, nothing runs: operations are recorded in its ``graph``.
    """

    null = _Null()
    _numbers = itertools.count(1000)
    _alive = weakref.WeakValueDictionary()  # ptr -> stream

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self._queue, self._late, self._seen = [], 0, {}  # _seen: stream -> ticket up to which this one runs after it
        self._device = current_device()
        self.ptr = 0 if null else next(self._numbers)
        self.device_id, self.is_non_blocking = -1 if null else self._device, non_blocking
        self._graph, self._invalid = None, None
        if not null:
            self._alive[self.ptr] = self

    @property
    def done(self):
        self._refuse_while_capturing("cudaErrorStreamCaptureUnsupported")
        return True

    def __enter__(self):
        self._check_device()
        state.__dict__.setdefault("streams", {}).setdefault(self._device, []).append(self)
        return self

    def __exit__(self, *exception):
        state.streams[self._device].pop()

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        """What ``event`` stands for happens before anything more on this stream, but the host does not wait for it."""
        self._check_device()
        if event._stream is None:
            return
        if event._graph is not None and event._stream is self:
            return
        if event._graph is not None:
            raise NotImplementedError("the double captures on one stream: this event belongs to a capture")
        if event._stream is not self:  # work that is not part of the graph
            self._refuse_while_capturing("cudaErrorStreamCaptureIsolation")
        event._stream._run(event._position, host_waits=False)
        self._seen[event._stream] = event._ticket

    def synchronize(self):
        self._refuse_while_capturing("cudaErrorStreamCaptureUnsupported")
        self._run(len(self._queue), host_waits=True)

    def begin_capture(self, mode=None):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self._graph is not None:
            raise RuntimeError("cudaErrorIllegalState: the stream is capturing")
        self._graph, self._invalid = Graph(self._device), None

    def end_capture(self):
        if self._graph is None:
            raise RuntimeError("cudaErrorIllegalState: the stream is not capturing")
        graph, invalid = self._graph, self._invalid
        self._graph = self._invalid = None
        if invalid:
            raise RuntimeError(f"cudaErrorStreamCaptureInvalidated: {invalid} came before")
        for pool in graph._pools:
            pool._graphs.add(graph)
        return graph

    def is_capturing(self):
        if self._invalid:
            raise RuntimeError("the stream was capturing, but an error has invalidated the capture sequence")
        return self._graph is not None

    def _check_device(self):
        if self._device != current_device():
            raise RuntimeError(
                f"The device that the stream is created on ({self._device})"
                f" does not match with the current device ({current_device()})"
            )

    def _refuse_while_capturing(self, error):
        """What CUDA refuses; the graph is lost."""
        if self._graph is not None:
            self._invalid = error
            raise RuntimeError(f"{error}: not while the stream is capturing")

    def _launch(self, name, function):
        """Call ``function`` as something that runs on this stream, or record it; return whether it was called."""
        self._check_device()
        if self.is_capturing():
            self._graph.nodes.append(name)
            self._graph._functions.append(function)
            return False
        if self.ptr == 0:  # it waits for all streams that are not non-blocking
            for stream in self._alive.values():
                if not stream.is_non_blocking and stream._device == self._device:
                    stream._refuse_while_capturing("cudaErrorStreamCaptureImplicit")
        self._run_new()
        launches.append(name)
        with np.errstate(all="ignore"):  # a GPU does not warn of overflows
            function()
        return True

    def _run(self, count, host_waits):
        """Copy. Unless the host waits, it cannot know when this happens: it may be as late as the next copy."""
        for i, copy in enumerate(self._queue[:count]):
            if copy is not None:
                copy()
                self._late = max(self._late, i + 1)
                if host_waits:
                    self._queue[i] = None  # done; positions stay, as events hold them

    def _run_new(self):
        """Copy what no one has waited for yet: something else runs behind it."""
        for copy in self._queue[self._late :]:
            copy()
        self._late = len(self._queue)

    def _run_late(self):
        """Copy once more, as late as it may have been, what was not waited for: an overwritten source shows."""
        self._run(self._late, host_waits=True)


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self._stream = self._graph = None

    def record(self, stream=None):
        self._stream = stream or current_stream()
        self._stream._check_device()
        self._position, self._ticket = len(self._stream._queue), next(tickets)
        self._graph = self._stream._graph

    def synchronize(self):
        if self._graph is not None:
            raise RuntimeError("cudaErrorCapturedEvent: the event was recorded while its stream was capturing")
        if self._stream is not None:
            self._stream._run(self._position, host_waits=True)

    done = True


def current_stream():
    """The stream of the current device that ``with`` made current; else its null stream."""
    mine = state.__dict__  # asked for at every operation: no detours
    device = mine.get("device", 0)
    streams = mine["streams"].get(device) if "streams" in mine else None
    if streams:
        return streams[-1]
    null = mine["null_streams"].get(device) if "null_streams" in mine else None
    return null or Stream.null


def capturing(stream=None):
    return (stream or current_stream()).is_capturing()


def refuse_copies_to_host():
    if capturing():
        raise RuntimeError("the current stream is capturing, so D2H transfers are disallowed")


def refuse_copies_from_host(stream=None):
    if capturing(stream):
        raise RuntimeError("the current stream is capturing, so H2D transfers are disallowed")


def refuse_cublas():
    if capturing():
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")


def launch(name, function):
    return current_stream()._launch(name, function)


# ---------------------------------------------------------------------------------------------------------- graphs


class Graph:
    """What a stream recorded. ``nodes`` are the names of its launches."""

    def __init__(self, device):
        self.nodes, self._functions, self._device = [], [], device
        self._pools = weakref.WeakSet()  # of the memory that was allocated meanwhile
        self.itself = weakref.ref(self)  # what arrays hold that were made meanwhile
        self._pool_count, self._arrays = 0, {}  # id -> weak reference to an array from before the capture

    def launch(self, stream=None):
        stream = stream or current_stream()
        if stream.is_capturing():
            raise NotImplementedError("the double has no graphs in graphs")
        if len(self._pools) < self._pool_count:
            raise RuntimeError("the pool is gone that the graph's memory came from")
        if any(array() is None for array in self._arrays.values()):
            raise RuntimeError("an array is gone that the graph reads or writes: its memory may be another's by now")
        stream._launch("graph", self._run)

    def _run(self):
        for function in self._functions:
            function()

    def _uses(self, array):
        if array._graph is not self.itself:
            self._arrays[id(array)] = weakref.ref(array)

    def _allocates_in(self, pool):
        if pool not in self._pools:
            self._pools.add(pool)
            self._pool_count += 1


# ------------------------------------------------------------------------------------------------------------ pools


class OutOfMemoryError(MemoryError):
    pass


class MemoryPool:
    """Counts bytes, and refuses what would let others write into the memory of a graph.

    Temporary arrays of a capture go back to their pool at once, and the graph goes on to use their memory. So they may
    neither come from the pool of everything else, nor may anything else come from theirs as long as the graph lives.
    """

    def __init__(self, allocator=None):
        self._used = self._total = 0
        self._graphs = weakref.WeakSet()
        self.itself = weakref.ref(self)  # what arrays hold, for a pool is gone when nothing else holds it

    def malloc(self, size):
        from tests.strict_cupy import arrays

        with using_allocator(self.malloc):
            memory = arrays.ndarray((size,), np.uint8)
        return types.SimpleNamespace(ptr=memory.data.ptr, mem=memory)

    def used_bytes(self):
        return self._used

    def total_bytes(self):
        return self._total

    def free_bytes(self):
        return self._total - self._used

    def free_all_blocks(self, stream=None):
        self._total = self._used

    def _take(self, size):
        if capturing():
            if self is default_pool:
                raise RuntimeError("memory of a graph must come from a pool that nothing else uses: using_allocator")
            current_stream()._graph._allocates_in(self)
        elif self._graphs:
            raise RuntimeError("this pool's memory belongs to a graph: other work must use another pool")
        self._used += size
        self._total = max(self._total, self._used)

    def _give(self, size):
        self._used -= size


default_pool = MemoryPool()


@contextlib.contextmanager
def using_allocator(allocator=None):
    before = current_pool()
    if not isinstance(getattr(allocator, "__self__", None), MemoryPool):
        raise NotImplementedError("the double's allocators are MemoryPool().malloc")
    state.pool = allocator.__self__
    try:
        yield
    finally:
        state.pool = before


def current_pool():
    return getattr(state, "pool", default_pool)
