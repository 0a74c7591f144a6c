"""Batches, in a new order every epoch."""

import copy
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np

from nanogan.backend import array_module, copied_ahead, get_device, seeded_rng
from nanogan.data.sets.captions import Captions
from nanogan.errors import UserError, checked_count
from nanogan.images import from_uint8
from nanogan.ranks import ALONE
from nanogan.ranks.shards import Shard, check_batch

AHEAD = 3  # batches of a slow source that are made, or waiting, while the one before them is trained on


class Loader:
    """Cut images, labels and other columns into batches on a device: dictionaries {column: array}.

    images: uint8 (N, H, W, C), 0 to 255; an array, or what can be indexed like one, such as a PictureFolder, whose
    batches are then made ahead in a thread of their own. ``labels``: integers (N,), or None. Or ``images`` is itself a
    dictionary of columns, all of one length N, each of which is known by what it holds:

        column                              in a batch                                               in ``shapes``
        uint8 (N, H, W, C): images          ``dtype`` (B, C, H, W), -1 to 1, channels-last in memory  (C, H, W)
        integers (N,): labels               int64 (B,)                                               K
        floats (N, ...)                     ``dtype`` (B, ...), as they are                           (...)
        a Captions of T words each          int64 (B, T), places in its ``words``                     {"words", "shown"}

    Labels run from 0 to K - 1. K is the largest + 1, or ``classes``: a number for the column "labels", or a dictionary
    {column: number}. ``shapes`` is a dictionary of what a sample of each column is.

    A batch has ``batch_size`` samples; the last one of an epoch is shorter, or left out with ``drop_last``. The order
    depends on ``seed`` and the number of the epoch alone, so that a run can be resumed at any batch of any epoch.
    ``len(loader)`` is the number of batches.

    ``unpaired`` names columns whose samples do not belong to those of the others: a second set of images. Each has its
    own length and its own order. An epoch is as long as the longest column; shorter ones start again, in a new order.

    Raises UserError for columns of other kinds, of different lengths (but for unpaired ones) or without samples, for
    labels below 0 or above K - 1, and if there are fewer samples than a batch holds. When a batch is made, it raises
    UserError if none of a class's images in a PictureFolder can be read: others would stand under its label.
    """

    def __init__(
        self, images, *, labels=None, batch_size, seed=0, shuffle=True, drop_last=False, device="cpu",
        dtype=np.float32, classes=None, unpaired=(),
    ):  # fmt: skip
        columns = dict(images) if isinstance(images, dict) else {"images": images}
        if labels is not None and "labels" in columns:
            raise UserError("Loader expected one column of labels, got labels=... and a column of that name")
        if labels is not None:
            columns["labels"] = labels
        seeded_rng(seed, "order")  # raises UserError for what is no seed
        self.device, self.dtype = get_device(device), _float_dtype(dtype)
        classes = classes if isinstance(classes, dict) else {} if classes is None else {"labels": classes}
        for name in classes.keys() - columns.keys():
            raise UserError(f"Loader got classes={classes[name]}, but no column {name}")
        checked = {name: _checked(name, column, classes.get(name)) for name, column in columns.items()}
        self.columns = {name: column for name, (column, _) in checked.items()}
        self.shapes = {name: shape for name, (_, shape) in checked.items()}
        self._N = _length(self.columns, unpaired)
        batch_size = checked_count("batch_size", batch_size, 1)
        if self._N < batch_size:
            raise UserError(
                f"a batch of {batch_size} was asked for, but there are {self._N} pictures: "
                f"use batches of {self._N} or less, or more pictures"
            )
        for name, column in self.columns.items():
            _check_range(name, column, self.dtype)
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, int(seed), shuffle, drop_last
        self.unpaired = tuple(unpaired)
        self.ranks = ALONE

    def shared(self, ranks):
        """Return a loader of the same batches, of whose images this one of the ``ranks`` makes its own alone.

        A batch then holds a :class:`nanogan.ranks.shards.Shard` for each column of images, and the other columns whole.
        All ranks have equally many: of an epoch's last batch, as many images are left out as they cannot share. Raises
        UserError if a batch cannot be shared at all.
        """
        check_batch(self.batch_size, ranks)
        if self.last_batch < ranks.size:
            raise UserError(
                f"the last batch of an epoch has {self.last_batch} of the {self._N} images, too few for {ranks.size} "
                f"processes: use {self.last_batch} at most, --drop-last, or another --batch-size"
            )
        shared = copy.copy(self)
        shared.ranks = ranks
        return shared

    @property
    def last_batch(self):
        """The number of samples in an epoch's last batch."""
        return self.batch_size if self.drop_last else self._N % self.batch_size or self.batch_size

    def __len__(self):
        whole, rest = divmod(self._N, self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def epoch(self, number, start=0, stop=None):
        """Yield the batches of epoch ``number`` from ``start`` to before ``stop``; the others are not even decoded."""
        if not 0 <= start <= len(self):
            raise UserError(f"start must be between 0 and {len(self)}, the number of batches, got {start}")
        with (
            closing(self._host_batches(number, start, len(self) if stop is None else stop)) as batches,
            closing(copied_ahead(batches, self.device)) as arrived,
        ):
            for batch in arrived:  # images travel as bytes, a quarter of what they become
                yield {name: self._images(array) if array.dtype == np.uint8 else array for name, array in batch.items()}

    def _images(self, array):
        images = from_uint8(array, self.dtype)
        return images if self.ranks.size == 1 else Shard(images, self.ranks)

    def _host_batches(self, number, start, stop):
        """Yield batches in the host's memory, in which images are still uint8 (B, H, W, C)."""
        orders = self._orders(number)
        are_arrays = all(isinstance(column, np.ndarray) for column in self.columns.values())

        def make(i):
            first = i * self.batch_size
            N = min(self.batch_size, self._N - first) // self.ranks.size * self.ranks.size
            of_batch = {name: order[first : first + N] for name, order in orders.items()}
            return self._samples({name: self._own(name, indices) for name, indices in of_batch.items()})

        numbers = range(start, min(stop, len(self)))
        yield from map(make, numbers) if are_arrays else _made_ahead(make, numbers)

    def _orders(self, number):
        """Return {column: the indices of its samples in epoch ``number``, (N,)}; paired columns share their array."""
        drawn = {}

        def order(name):
            length, whose = len(self.columns[name]), f" of {name}" if name in self.unpaired else ""
            if whose not in drawn:
                rounds = [self._round(length, number, whose, i) for i in range(-(-self._N // length))]
                drawn[whose] = np.concatenate(rounds)[: self._N]
            return drawn[whose]

        return {name: order(name) for name in self.columns}

    def _round(self, length, number, whose, i):
        """The order of the samples, each once, in round ``i`` of epoch ``number``."""
        if not self.shuffle:
            return np.arange(length)
        purpose = f"order{whose} of epoch {number}" + (f", round {i}" if i else "")
        return seeded_rng(self.seed, purpose).permutation(length)

    def _own(self, name, indices):
        """Those of the samples that are made here: of images this rank's, of other columns all."""
        return indices[self.ranks.own(len(indices))] if self.columns[name].dtype == np.uint8 else indices

    def _samples(self, indices):
        """Return {column: its samples at ``indices[column]``}, in the host's memory."""
        batch = {}
        for name, column in self.columns.items():
            samples = column[indices[name]]
            batch[name] = samples.astype(self.dtype, copy=False) if samples.dtype.kind == "f" else samples
        if any(isinstance(shape, int) for shape in self.shapes.values()):
            for column in self.columns.values():
                for name, reason in getattr(column, "lost_classes", {}).items():
                    raise UserError(f"none of the images of class {name!r} can be read ({reason}): remove its folder")
        return batch


def _checked(name, column, classes):
    """Return a column as it is kept, and what ``Loader.shapes`` says of it. Raises UserError if it is of no known kind.

    Labels are checked here, once, so that no step and no loss has to.
    """
    if isinstance(column, Captions):
        return column.numbers, column.described()
    if not hasattr(column, "dtype"):
        column = np.asarray(column)
    if isinstance(column, np.ndarray):
        array_module(column)  # raises UserError for a matrix and a masked array
    kind, shape = column.dtype.kind, column.shape
    if name == "images" or (column.dtype == np.uint8 and len(shape) == 4):
        if column.dtype != np.uint8 or len(shape) != 4:
            raise UserError(f"Loader expected uint8 images (N, H, W, C), got {column.dtype} of shape {shape}")
        if classes is not None:
            raise UserError(f"Loader got classes={classes}, but the column {name} holds images")
        N, H, W, C = shape
        return column, (C, H, W)
    if name == "labels" or classes is not None or (kind in "iu" and len(shape) == 1):
        return _checked_labels(name, column, classes)
    if kind != "f" or not shape:
        raise UserError(
            f"Loader expected uint8 images (N, H, W, C), integer labels (N,) or floats (N, ...) in the column {name}, "
            f"got {column.dtype} of shape {shape}"
        )
    return column, shape[1:]


def _checked_labels(name, labels, classes):
    """Return labels as int64 and the number of classes."""
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        whole = labels.ndim == 1 and labels.dtype.kind in "fb" and np.array_equal(labels, np.rint(labels * 1.0))
        way_out = f": use {name}.astype(int)" if whole else ""
        raise UserError(f"Loader expected integers (N,) as {name}, got {labels.dtype} of shape {labels.shape}{way_out}")
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, -1)
    K = high + 1 if classes is None else checked_count(f"classes of {name}", classes, 1)
    if low < 0 or high >= min(K, np.iinfo(np.int64).max):
        expected = f"from 0 to {K - 1}" if classes is not None else "of at least 0" if low < 0 else "below 2^63 - 1"
        raise UserError(f"Loader expected {name} {expected}, got {low} to {high}")
    return labels.astype(np.int64), K


def _float_dtype(dtype):
    """``dtype`` in this machine's byte order. Raises UserError unless it is one of floating-point numbers."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.kind != "f":
        raise UserError(f"Loader expected a floating-point dtype such as numpy.float32, got {dtype!r}")
    return found.newbyteorder("=")


def _check_range(name, column, dtype):
    """Raise UserError if finite floats of a column would become infinite in ``dtype``."""
    if not isinstance(column, np.ndarray) or column.dtype.kind != "f" or column.dtype.itemsize <= dtype.itemsize:
        return
    largest = float(np.finfo(dtype).max)
    for value in (column.min(initial=0), column.max(initial=0)):
        if largest < abs(value) < np.inf:
            raise UserError(
                f"Loader expected a column {name} of at most {largest:.5g}, which {dtype} holds, got {value}"
            )


def _length(columns, unpaired):
    """Return the length of the longest column. Raises UserError if paired ones differ, or if one has no samples."""
    for name in set(unpaired) - columns.keys():
        raise UserError(f"Loader expected an unpaired column {name}, got {', '.join(columns) or 'none'}")
    lengths = {name: len(column) for name, column in columns.items()}
    paired = {name: length for name, length in lengths.items() if name not in unpaired}
    if len(set(paired.values())) > 1 or not lengths:
        found = ", ".join(f"{name} {length}" for name, length in paired.items())
        raise UserError(f"Loader expected columns of one length, got {found or 'none'}")
    for name, length in lengths.items():
        if unpaired and not length:
            raise UserError(f"Loader expected samples in every column, got none in {name}")
    return max(lengths.values())


def _made_ahead(make, numbers):
    """Yield ``make(i)`` for every i, each made in one background thread up to AHEAD before it is asked for.

    What ``make`` raises is raised here, in its turn. The thread ends with this generator, however that ends. A process
    forked meanwhile has no such thread: it goes on by itself.
    """
    owner, waiting, left = os.getpid(), deque(), deque(numbers)
    with ThreadPoolExecutor(1, thread_name_prefix="nanogan-loader") as thread:
        try:
            while waiting or left:
                if os.getpid() != owner:
                    yield make(waiting.popleft()[0] if waiting else left.popleft())
                    continue
                while left and len(waiting) < AHEAD + 1:
                    i = left.popleft()
                    waiting.append((i, thread.submit(make, i)))
                yield waiting.popleft()[1].result()
        finally:
            for _, future in waiting if os.getpid() == owner else ():
                future.cancel()
