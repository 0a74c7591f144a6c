"""Threads that share one operation, and memory that they use again.

NumPy releases Python's lock while it computes, so ordinary threads run its loops and its matrix products side by side.
While an operation of ours computes, BLAS itself is kept to one thread: the split of the work is ours, into chunks that
stay in a core's cache from one line of code to the next. BLAS's own threads would be quicker to start, but then spin
for some 20 ms in wait of more, on a core that is then not ours; so the two do not go together.

How many threads share an operation is a function of its shapes and of :func:`count` alone, and each adds up in a fixed
order. So a run gives the same bits each time on the same machine, whatever else the process has done. With another
number of threads, sums are grouped otherwise, and the last digit may differ.

Between two calls of NumPy a thread needs Python's lock. If another holds it, the thread sleeps, and waking up takes 20
to 50 microseconds, as long as adding half a million numbers. So the fast paths make few and long calls on threads, and
short work stays with one.
"""

import contextlib
import contextvars
import itertools
import math
import mmap
import os
import queue
import threading

import numpy as np
import threadpoolctl

from nanogan import dispatch
from nanogan.errors import UserError

LINE = 64  # bytes of a cache line
MOST = 1024  # threads

_local = threading.local()
_lock = threading.Lock()  # of the helper threads: they serve one operation at a time
_helpers = []  # their queues, made when first needed
_count = None
_blas = []  # (function that returns BLAS's number of threads, function that sets it) for each BLAS that is loaded
_blas_lock = threading.RLock()
_computing = 0  # operations of ours that compute at the moment, in whatever threads
_before = []  # BLAS's numbers of threads before the first of them


def count():
    """Number of threads: NANOGAN_THREADS, or as many as NumPy's BLAS is set to use (one per core, unless told).

    Asked once, when the process first computes: set BLAS's number before that, or not at all. NANOGAN_THREADS sets it
    too: BLAS's own threads compute what none of ours do. Raises UserError if it is no integer of at least 1.
    """
    global _count
    if _count is None:
        with _blas_lock:
            if _count is None:
                libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
                # threadpoolctl lets one thread of Python set OpenBLAS's number and ignores the others; here whichever
                # thread computes first sets it, and the last one restores it
                _blas[:] = [_functions_of(library) for library in libraries]
                asked = _asked()
                for _, set_number in _blas if asked else ():
                    set_number(asked)
                _count = asked or max((get() for get, _ in _blas), default=1)
    return _count


def _asked():
    """What NANOGAN_THREADS asks for; None if it is not set."""
    text = os.environ.get("NANOGAN_THREADS", "").strip()
    if text and not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST):
        raise UserError(f"NANOGAN_THREADS expected an integer from 1 to {MOST}, got {text!r}: correct it or unset it")
    return int(text) if text else None


dispatch.settings["threads"] = count


def _functions_of(library):
    """A BLAS's own functions that return and set its number of threads; threadpoolctl's where it is not OpenBLAS."""
    if library.internal_api == "openblas" and library.threading_layer != "openmp" and hasattr(library, "_get_symbol"):
        found = [library._get_symbol(f"openblas_{verb}_num_threads") for verb in ("get", "set")]
        if all(found):
            return tuple(found)
    return library.get_num_threads, getattr(library, "_real_set_num_threads", library.set_num_threads)


class OneBlasThread:
    """While any thread is in such a block, BLAS uses one thread; after the last one, as many as before."""

    def __enter__(self):
        global _computing
        count()
        with _blas_lock:
            if not _computing:
                _before[:] = [get() for get, _ in _blas]
                _set(1 for _ in _blas)
            _computing += 1

    def __exit__(self, *error):
        global _computing
        with _blas_lock:
            _computing -= 1
            if not _computing:
                _set(_before)


def _set(numbers):
    """Set each BLAS's number of threads, if it is not 1 outside these blocks too."""
    for (_, set_number), number, before in zip(_blas, numbers, _before, strict=True):
        if before != 1:  # else it was 1 all the time
            set_number(number)


one_blas_thread = OneBlasThread()


def shares(total, worthwhile=True):
    """Cut range(total) into a slice for each thread; into one if it is not ``worthwhile`` to wake the others."""
    return slices(total, count() if worthwhile else 1)


def parallel(function, items):
    """Call ``function(item)`` for every item; item i runs on thread i modulo :func:`count`, the caller being number 0.

    Returns the results in the items' order. The first exception is raised here, once all threads are done.
    """
    items = list(items)
    with one_blas_thread:
        if len(items) < 2 or count() == 1 or getattr(_local, "inside", False):
            return [function(item) for item in items]
        return _shared(function, items, min(count(), len(items)))


def _shared(function, items, threads):
    results, errors, done, finished = [None] * len(items), [], queue.SimpleQueue(), []

    def share(thread):
        try:
            for i in range(thread, len(items), threads):
                results[i] = function(items[i])
        except BaseException as error:  # handed to the caller
            errors.append(error)
        finally:
            finished.append(thread)
            done.put(None)

    def help(thread):
        _local.inside = True
        try:
            share(thread)
        finally:
            _local.inside = False

    _local.inside = True  # before the lock is taken: what a signal's handler computes is not to wait for it
    try:
        with _lock:
            while len(_helpers) < threads - 1:
                jobs = queue.SimpleQueue()
                threading.Thread(target=_serve, args=(jobs,), daemon=True, name="nanogan").start()
                _helpers.append(jobs)
            for i in range(1, threads):  # in a copy of the caller's context, where numpy.errstate is kept
                _helpers[i - 1].put((contextvars.copy_context().run, help, i))
            share(0)
            while len(finished) < threads:
                try:
                    done.get()
                except BaseException as error:  # Ctrl-C: the others' work is waited for first
                    errors.insert(0, error)
    finally:
        _local.inside = False
    if errors:
        raise errors[0]
    return results


def _serve(jobs):
    while True:
        run, *arguments = jobs.get()
        run(*arguments)
        del run, arguments  # what a job has used is not kept alive until the next one


def workspace(name, shape, dtype):
    """Return this thread's array called ``name``, uninitialised: the same memory each time.

    New memory costs as much as the computation, because the system hands it out page by page. So it is kept, and it is
    none of the heap's, where it would leave holes as it grows.
    """
    arrays = _local.__dict__.setdefault("arrays", {})
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = arrays.get(name)
    if memory is None or memory.nbytes < size:
        arrays[name] = memory = _pages(max(size, 1))
    return memory[:size].view(dtype).reshape(shape)


def _pages(size):
    """So many bytes straight from the system, in large pages where it has them; a fork's child gets a copy."""
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        pages = mmap.mmap(-1, size, **private)
    except OSError:
        raise MemoryError(f"unable to allocate {size} bytes for intermediate results") from None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without large pages
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)


def empty(shape, dtype):
    """numpy.empty, starting at a multiple of 64 bytes: else each of AVX-512's loads would touch two cache lines.

    A little more is asked for, and of twice the size more than twice as much: so two arrays fit into the hole that one
    of twice the size has left, and a step that frees and takes arrays of many sizes needs less memory.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(size + LINE + (size >> 12) * size.bit_length(), np.uint8)
    start = -buffer.ctypes.data % LINE
    return buffer[start : start + size].view(dtype).reshape(shape)


def slices(total, parts):
    """Cut range(total) into at most ``parts`` slices of nearly equal length."""
    parts = max(1, min(parts, total))
    edges = [total * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _after_fork():
    """A child has none of its parent's threads, and perhaps a lock that one of them held."""
    global _lock, _blas_lock, _computing
    _lock, _blas_lock = threading.Lock(), threading.RLock()
    if _computing:
        for (_, set_number), number in zip(_blas, _before, strict=True):
            set_number(number)
    _computing = 0
    _local.inside = False
    _helpers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
