"""A sequence of kernels as one CUDA graph: recorded once, launched as often as wanted with one call.

Launching a kernel costs the host some microseconds; a small network's kernels take less than that. A graph's are
launched by the GPU itself.

What is recorded are kernels, their arguments and the addresses of their arrays. So a replay computes with what those
arrays hold then; Python numbers are as they were; and memory that the kernels use must never be reused by others. Hence
a memory pool for the recording alone, and calls that fill it beforehand: while a stream is recorded, the driver should
not be asked for memory.
"""

import contextlib
import functools
import gc
import os
import weakref

import numpy as np

from nanogan.backend import cublas

ON = os.environ.get("NANOGAN_GRAPH", "1").strip().lower() not in ("0", "false", "no", "off")


class Recorder:
    """Records what a function launches, on the current GPU: :meth:`warm_up`, :meth:`record`, then :meth:`replay`.

    Its memory goes back to the driver with it.
    """

    def __init__(self):
        import cupy

        self.cupy = cupy
        self.stream = cupy.cuda.Stream(non_blocking=True)  # the null stream cannot be recorded
        self.pool = cupy.cuda.MemoryPool()
        # CuPy's pools do not free what they hold when they go
        release = weakref.finalize(self, _release, self.pool, cupy.cuda.Device().id, self.stream.ptr)
        release.atexit = False

    def warm_up(self, function):
        """Call ``function`` as :meth:`record` will, but let it compute; return what it returns."""
        self.cupy.get_default_memory_pool().free_all_blocks()  # what earlier calls left is needed once more
        with self._aside():
            return function()

    def record(self, function):
        """Call ``function``, whose kernels are recorded instead of launched; return what it returns.

        What it returns holds values once a :meth:`replay` has computed them. Raises what CuPy and CUDA raise for what
        cannot be recorded: copies between host and device, and waiting.
        """
        with self._aside():
            self.stream.begin_capture()
            try:
                result = function()
            except BaseException:
                with contextlib.suppress(Exception):  # the recording is void; the first error is the cause
                    self.stream.end_capture()
                raise
            self.graph = self.stream.end_capture()
        return result

    def replay(self):
        """Launch what was recorded, on the current stream."""
        self.graph.launch()

    @contextlib.contextmanager
    def _aside(self):
        """A context on the stream and the memory of the recording, with everything before and after it kept apart.

        Garbage is collected before, and not meanwhile: whether it is would change what memory is free, and give some
        back to the driver while the stream is recorded.
        """
        cuda, collecting = self.cupy.cuda, gc.isenabled()
        cuda.get_current_stream().synchronize()
        gc.collect(1)  # the young: all that the step before can have left
        gc.disable()
        try:
            with self.stream, cuda.using_allocator(self.pool.malloc):
                yield
        finally:
            if collecting:
                gc.enable()
            self.stream.synchronize()


def _release(pool, device, stream):
    cublas.forget(device, stream)
    pool.free_all_blocks()


class Static:
    """Arrays of fixed addresses that stand for a function's arguments while it is recorded.

    ``arguments`` are arrays on the device and numbers in dictionaries, lists and tuples. Floats become 0-dimensional
    arrays of ``dtype``, so that they may change from one replay to the next; everything else is part of the recording.
    :meth:`fill` copies other arguments of the same kind, as :func:`kind_of_arguments` says, into them.
    """

    def __init__(self, arguments, dtype):
        import cupy

        self.arrays, self._floats = [], None
        self.numbers = cupy.empty(sum(type(leaf) is float for leaf in leaves(arguments)), dtype)
        free = iter(range(len(self.numbers)))

        def static(leaf):
            if type(leaf) is float:
                return self.numbers[next(free)]
            if isinstance(leaf, cupy.ndarray):
                self.arrays.append(cupy.empty_like(leaf))
                return self.arrays[-1]
            return leaf

        self.arguments = mapped(static, arguments)
        self.fill(arguments)

    def fill(self, arguments):
        """Copy ``arguments`` into the arrays. Floats cross to the device only if one has changed."""
        given = list(leaves(arguments))
        floats = [leaf for leaf in given if type(leaf) is float]
        for target, source in zip(self.arrays, (leaf for leaf in given if hasattr(leaf, "shape")), strict=True):
            target[...] = source
        if floats and floats != self._floats:
            self.numbers.set(np.array(floats, self.numbers.dtype))
        self._floats = floats


def leaves(arguments):
    """Yield what is in dictionaries, lists and tuples, in order."""
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    if isinstance(arguments, (list, tuple)):
        for each in arguments:
            yield from leaves(each)
    else:
        yield arguments


def mapped(function, arguments):
    """Return ``arguments`` with every leaf replaced by ``function(leaf)``."""
    if isinstance(arguments, dict):
        return {name: mapped(function, each) for name, each in arguments.items()}
    if isinstance(arguments, tuple) and hasattr(arguments, "_fields"):
        return type(arguments)(*(mapped(function, each) for each in arguments))
    if isinstance(arguments, (list, tuple)):
        return type(arguments)(mapped(function, each) for each in arguments)
    return function(arguments)


def kind_of_arguments(arguments):
    """Return what must be the same for one recording to serve: structure, shapes, dtypes, and values but floats."""

    def kind(leaf):
        if hasattr(leaf, "shape"):
            return type(leaf), leaf.shape, leaf.strides, str(leaf.dtype)
        return (float,) if type(leaf) is float else (type(leaf), leaf)

    if isinstance(arguments, dict):
        return tuple((name, kind_of_arguments(each)) for name, each in arguments.items())
    if isinstance(arguments, (list, tuple)):
        return tuple(kind_of_arguments(each) for each in arguments)
    return kind(arguments)


def packed(values, together=None):
    """Return 0-dimensional arrays on the device as one, (len(values),), by one kernel; in ``together`` if given."""
    import cupy

    if together is None:
        together = cupy.empty(len(values), np.result_type(*(value.dtype for value in values)))
    values = [value.astype(together.dtype, copy=False) for value in values]
    _packing(len(values))(*values, *(together[i] for i in range(len(values))))
    return together


@functools.cache
def _packing(count):
    """The kernel that copies ``count`` numbers."""
    import cupy

    inputs, outputs = (", ".join(f"T {letter}{i}" for i in range(count)) for letter in "xy")
    return cupy.ElementwiseKernel(
        inputs, outputs, "; ".join(f"y{i} = x{i}" for i in range(count)), f"nanogan_pack_{count}"
    )
