"""Batches, in a new order every epoch."""

import numpy as np

from nanogan.backend import get_device, seeded_rng, to_device
from nanogan.errors import UserError


class Loader:
    """Cut pictures into batches of floating-point numbers from -1 to 1, on a device.

    images: uint8 (N, H, W, C), 0 to 255. A batch is (batch_size, C, H, W), channels-last in memory; the last one of an
    epoch is shorter, or left out with ``drop_last``. The order depends on ``seed`` and the number of the epoch alone,
    so that a run can be resumed at any epoch. ``len(loader)`` is the number of batches.

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

    def epoch(self, number):
        """Yield the batches of epoch ``number``."""
        N = len(self.images)
        order = seeded_rng(self.seed, f"order of epoch {number}").permutation(N) if self.shuffle else np.arange(N)
        for i in range(len(self)):
            chosen = self.images[order[i * self.batch_size : (i + 1) * self.batch_size]]  # (B, H, W, C)
            batch = chosen.astype(self.dtype)
            batch /= 127.5
            batch -= 1
            yield to_device(batch.transpose(0, 3, 1, 2), self.device)  # (B, C, H, W)
