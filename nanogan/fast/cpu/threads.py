"""Threads that share one operation, and memory that they use again.

NumPy releases Python's lock while it computes, so ordinary threads run its loops and its matrix products side by side.
Inside :func:`parallel` BLAS itself is kept to one thread: the split of the work is ours, into chunks that stay in a
core's cache from one line of code to the next.

Threads of Python's pay for large networks only: between two calls they take turns, and waking one up takes as long as
a small operation. BLAS's own threads are quicker to start, but then spin for some 20 ms in wait of more, on a core that
is then not ours; so the two do not go together. A large convolution starts ours, and from then on all operations go
through here, until as many convolutions in a row were small as no network with large ones has: :func:`choose`. A
network of small operations is left to BLAS's threads.

The split depends on the number of threads, on shapes, and on whether these threads are in use; each adds up in a fixed
order. So a run gives the same bits each time on the same machine. With another number of threads, sums are grouped
otherwise, and the last digit may differ.
"""

import contextlib
import contextvars
import itertools
import math
import os
import queue
import threading

import numpy as np
import threadpoolctl

LINE = 64  # bytes of a cache line
LARGE = 60 * 1000 * 1000  # multiplications in a convolution, counted without any trick, for which threads pay
MANY = 100  # convolutions
LARGE_PAGES = 5 << 20  # bytes

_local = threading.local()
_lock = threading.Lock()
_helpers = []  # queues of the helper threads, made when first needed
_blas = None
_count = None
_started = False
_small_ones = 0  # since the last large convolution


def count():
    """Number of threads: NANOGAN_THREADS, or as many as NumPy's BLAS was set to use (one per core, unless told)."""
    global _blas, _count
    if _count is None:
        with _lock:
            _blas = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
            set_by_user = os.environ.get("NANOGAN_THREADS", "")
            of_blas = [library.get_num_threads() for library in _blas]
            _count = int(set_by_user) if set_by_user.isdecimal() and int(set_by_user) > 0 else max(of_blas, default=1)
    return _count


def choose(multiplications):
    """Note the size of a convolution, and start or stop these threads. Returns whether they are in use."""
    global _started, _small_ones
    if multiplications >= LARGE:
        _started, _small_ones = True, 0
    else:
        _small_ones += 1
        if _small_ones >= MANY:
            _started = False
    return _started


def started():
    """Whether these threads are in use, and not BLAS's."""
    return _started


def shares(total):
    """Cut range(total) into one slice for each thread in use."""
    return slices(total, count() if _started else 1)


def parallel(function, items):
    """Call ``function(item)`` for every item; item i runs on thread i modulo :func:`count`, the caller being number 0.

    Returns the results in the items' order. The first exception is raised here, once all threads are done.
    """
    items = list(items)
    if getattr(_local, "inside", False) or not _started:
        return [function(item) for item in items]
    threads = max(1, min(count(), len(items)))
    results, errors, done, finished = [None] * len(items), [], queue.SimpleQueue(), []

    def share(thread):
        _local.inside = True
        try:
            for i in range(thread, len(items), threads):
                results[i] = function(items[i])
        except BaseException as error:  # handed to the caller
            errors.append(error)
        finally:
            _local.inside = False
            finished.append(thread)
            done.put(None)

    with _lock, _one_blas_thread():
        while len(_helpers) < threads - 1:
            jobs = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(jobs,), daemon=True, name="nanogan").start()
            _helpers.append(jobs)
        for i in range(1, threads):  # in a copy of the caller's context, where numpy.errstate is kept
            _helpers[i - 1].put((contextvars.copy_context().run, share, i))
        share(0)
        _local.inside = True  # a signal's handler may come here, too, while the lock is held
        while len(finished) < threads:
            try:
                done.get()
            except BaseException as error:  # Ctrl-C: the others' work is waited for first
                errors.insert(0, error)
        _local.inside = False
    if errors:
        raise errors[0]
    return results


def _serve(jobs):
    while True:
        run, *arguments = jobs.get()
        run(*arguments)
        del run, arguments  # what a job has used is not kept alive until the next one


@contextlib.contextmanager
def _one_blas_thread():
    before = [library.get_num_threads() for library in _blas]
    try:
        for library in _blas:
            library.set_num_threads(1)
        yield
    finally:
        for library, number in zip(_blas, before, strict=True):
            library.set_num_threads(number)


def workspace(name, shape, dtype):
    """Return this thread's array called ``name``, uninitialised: the same memory each time.

    New memory costs as much as the computation, because the system hands it out page by page. From 4 MB on NumPy asks
    for large pages, which make the convolutions 2% faster.
    """
    arrays = _local.__dict__.setdefault("arrays", {})
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = arrays.get(name)
    if buffer is None or buffer.nbytes < size:
        arrays[name] = buffer = empty((max(size, LARGE_PAGES),), np.uint8)
    return buffer[:size].view(dtype).reshape(shape)


def empty(shape, dtype):
    """numpy.empty, starting at a multiple of 64 bytes: else each of AVX-512's loads would touch two cache lines."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(size + LINE, np.uint8)
    start = -buffer.ctypes.data % LINE
    return buffer[start : start + size].view(dtype).reshape(shape)


def slices(total, parts):
    """Cut range(total) into at most ``parts`` slices of nearly equal length."""
    parts = max(1, min(parts, total))
    edges = [total * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _after_fork():
    """A child has none of its parent's threads, and perhaps a lock that one of them held."""
    global _lock
    _lock = threading.Lock()
    _local.inside = False
    _helpers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
