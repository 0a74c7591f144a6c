"""Batches, in a new order every epoch."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np

from nanogan.backend import copied_ahead, get_device, seeded_rng
from nanogan.errors import UserError

AHEAD = 3  # batches of a slow source that are made, or waiting, while the one before them is trained on


class Loader:
    """Cut pictures into batches of floating-point numbers from -1 to 1, on a device.

    images: uint8 (N, H, W, C), 0 to 255; an array, or what can be indexed like one, such as a PictureFolder, whose
    batches are then made ahead in a thread of their own. A batch is (batch_size, C, H, W), channels-last in memory; the
    last one of an epoch is shorter, or left out with ``drop_last``. The order depends on ``seed`` and the number of the
    epoch alone, so that a run can be resumed at any batch of any epoch. ``len(loader)`` is the number of batches.

    Raises UserError if there are fewer pictures than a batch holds.
    """

    def __init__(self, images, *, batch_size, seed=0, shuffle=True, drop_last=False, device="cpu", dtype=np.float32):
        if images.ndim != 4 or images.dtype != np.uint8:
            raise UserError(f"Loader expected uint8 pictures (N, H, W, C), got {images.dtype} of shape {images.shape}")
        if batch_size < 1:
            raise UserError(f"Loader expected a batch size of at least 1, got {batch_size}")
        if len(images) < batch_size:
            raise UserError(
                f"a batch of {batch_size} was asked for, but there are {len(images)} pictures: "
                f"use batches of {len(images)} or less, or more pictures"
            )
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.shuffle, self.drop_last = shuffle, drop_last
        self.device, self.dtype = get_device(device), np.dtype(dtype)

    def __len__(self):
        whole, rest = divmod(len(self.images), self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def epoch(self, number, start=0):
        """Yield the batches of epoch ``number``, without the first ``start`` ones, which are not even decoded."""
        if not 0 <= start <= len(self):
            raise UserError(f"an epoch of {len(self)} batches was to start after {start} of them")
        with (
            closing(self._host_batches(number, start)) as batches,
            closing(copied_ahead(batches, self.device)) as arrived,
        ):
            for pixels in arrived:  # bytes travel, a quarter of what they become
                batch = pixels.astype(self.dtype)  # (B, H, W, C)
                batch /= 127.5
                batch -= 1
                yield batch.transpose(0, 3, 1, 2)  # (B, C, H, W)

    def _host_batches(self, number, start):
        """Yield batches of pixels, uint8 (B, H, W, C), in the host's memory."""
        N = len(self.images)
        order = seeded_rng(self.seed, f"order of epoch {number}").permutation(N) if self.shuffle else np.arange(N)

        def make(i):
            return self.images[order[i * self.batch_size : (i + 1) * self.batch_size]]

        numbers = range(start, len(self))
        yield from map(make, numbers) if isinstance(self.images, np.ndarray) else _made_ahead(make, numbers)


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
