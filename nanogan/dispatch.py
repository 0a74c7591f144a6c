"""Which code computes: the book's (:mod:`nanogan.ops`), or a fast path that has registered itself.

    y, cache = dispatch(ops.relu_forward, ops.relu_backward, x)                                    in a layer
    register("cpu", ops.relu_forward, relu_forward, relu_backward, serves=serves)                  in a file of fast/cpu
    with watch() as ran: network.forward(x)                                                        what computed it?

Nobody imports :mod:`nanogan.fast`: the first operation on a kind of device imports all files of its folder, so a new
fast path is one new file. Which path computes is a function of shapes, dtypes, options, the precision of products and
the number of threads, never of what the process did before. ``NANOGAN_FAST=0`` in the environment leaves the book
alone at work.
"""

import contextlib
import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from nanogan.backend import array_module, cublas, matmul_precision
from nanogan.folders import modules_in

FAST = os.environ.get("NANOGAN_FAST", "1").strip().lower() not in ("0", "false", "no", "off")
cublas.wanted = FAST

settings = {}  # name -> function that returns it, as "threads": what fast paths can be asked about

_paths = {}  # (kind of device, function of nanogan.ops) -> [Path, ...], the first that serves is taken
_walks = {}  # kind of device -> how an update walks over groups of arrays
_loaded = set()  # kinds of devices whose fast paths are imported
_watching = []  # lists to which what ran is added


class Path(NamedTuple):
    """A fast path: ``serves(*args, **options)`` says whether it takes these arguments."""

    serves: Callable
    forward: Callable
    backward: Callable | None
    priority: int
    precisions: tuple | None  # those of nanogan.backend.set_matmul_precision that it knows; None: all
    by_the_book: bool  # it runs the operation's own code, in other surroundings


def register(kind, function, forward, backward=None, *, serves, priority=0, precisions=None, by_the_book=False):
    """Offer ``forward`` and ``backward`` in place of an operation of the book, with the same signatures.

    kind: "cpu" or "gpu". function: the operation's forward; an update of :mod:`nanogan.ops.updates`, which has no
    backward; the forwards of two operations, the second on the first's result: see :func:`dispatch_both`; or a function
    for :func:`run`. Of several paths that serve, the one of highest ``priority`` is taken. ``precisions``: names of the
    precisions of products that it computes in, all if not given. ``by_the_book``: whether it runs the operation itself.
    """
    paths = _paths.setdefault((kind, function), [])
    paths.append(Path(serves, forward, backward, priority, precisions, by_the_book))
    paths.sort(key=lambda path: -path.priority)


def adds_gradients(backward):
    """Mark a fast path's backward that can add the parameters' gradients to arrays that it is given.

    It takes ``into``, the layer's gradients in the order of its own, and returns None for those that it has added.
    """
    backward.adds_gradients = True
    return backward


def register_walk(kind, walk):
    """Let ``walk(update, groups)`` call ``update(*arrays)`` for groups of arrays on a kind of device.

    ``update`` changes arrays of one shape element by element, so pieces and memory order are free.
    """
    _walks[kind] = walk


def dispatch(forward, backward, *args, **options):
    """Run a layer's operation, by the book or by a fast path.

    ``forward`` and ``backward`` are a pair of :mod:`nanogan.ops`. Returns ``y, (chosen_backward, cache)``: a cache is
    only understood by the backward of the forward that packed it, so the two travel together.
    """
    path = _path(kind_of(args[0]), forward, args, options)
    if path is not None:
        forward, backward = path.forward, path.backward
    for ran in _watching:
        ran.append(_full_name(forward))
    y, cache = forward(*args, **options)
    return y, (backward, cache)


def dispatch_both(forward, then, args, options, then_options):
    """Run two operations, ``then`` on the result of ``forward``, if a fast path computes both at once.

    It is registered for the pair (forward, then) and takes ``(args, options), then_options``. It returns y, a cache,
    and for each of the two by itself a backward and a cache; its backward is of both, with the first's gradients.
    Returns ``y, (its backward, cache), ((backward, cache), (backward, cache))``; None where there is none.
    """
    both = (args, options), then_options
    path = _path(kind_of(args[0]), (forward, then), both, {})
    if path is None:
        return None
    for ran in _watching:
        ran.append(_full_name(path.forward))
    y, cache, of_each = path.forward(*both)
    return y, (path.backward, cache), of_each


def run(function, *args, **options):
    """Call a function of several layers, by the book or by a fast path: :func:`dispatch` for parts of a game's step.

    ``args[0]`` is an array, whose device decides. Returns what the function returns.
    """
    path = _path(kind_of(args[0]), function, args, options)
    if path is not None:
        function = path.forward
    for ran in _watching:
        ran.append(_full_name(function))
    return function(*args, **options)


def elementwise(update, groups, **options):
    """Call ``update(*arrays, **options)``, which changes arrays element by element, for each group of arrays.

    :func:`dispatch` for optimisers and sums of gradients. Arrays of a group have one shape; the largest group decides.
    """
    if not groups:
        return
    kind = kind_of(groups[0][0])
    path = _path(kind, update, max(groups, key=lambda arrays: arrays[0].size), options)
    if path is not None:
        update = path.forward
    for ran in _watching:
        ran.append(_full_name(update))
    walk = _walks.get(kind, _one_by_one) if FAST else _one_by_one
    walk(partial(update, **options) if options else update, groups)


@contextlib.contextmanager
def watch():
    """Yield a list that grows by the full name of every function that computes, in whatever thread."""
    ran = []
    _watching.append(ran)
    try:
        yield ran
    finally:
        _watching[:] = [watching for watching in _watching if watching is not ran]  # others may be equal to it


def fast_paths(kind):
    """Return {function as :func:`watch` names it: operation that it computes, as "conv2d"} of a device's fast paths.

    Without those that run the book's own code; empty if fast paths are turned off.
    """
    if not FAST:
        return {}
    if kind not in _loaded:
        load(kind)
    return {
        _full_name(path.forward): _operation_name(function)
        for (of, function), paths in _paths.items()
        for path in paths
        if of == kind and not path.by_the_book
    }


def kind_of(array):
    """The kind of device that holds ``array``: "cpu" or "gpu"."""
    return "cpu" if array_module(array) is np else "gpu"


def load(kind):
    """Import the fast paths for a kind of device, each of which registers what it serves."""
    modules_in(f"nanogan.fast.{kind}")
    _loaded.add(kind)  # last: another thread waits for the imports and does not go on without them


def _path(kind, function, args, options):
    """The first path that serves; None for the book."""
    if not FAST:
        return None
    if kind not in _loaded:
        load(kind)
    for path in _paths.get((kind, function), ()):
        if (path.precisions is None or matmul_precision() in path.precisions) and path.serves(*args, **options):
            return path
    return None


def _full_name(function):
    return f"{function.__module__}.{function.__name__}"


def _operation_name(function):
    """conv2d of conv2d_forward, adam of adam_update, "batchnorm and relu" of a pair."""
    if isinstance(function, tuple):
        return " and ".join(map(_operation_name, function))
    return function.__name__.removesuffix("_forward").removesuffix("_update").removesuffix("_by_the_book")


def _one_by_one(update, groups):
    for arrays in groups:
        update(*arrays)
