"""A pool of past fakes, of which a discriminator sees some in place of the newest.

A discriminator forgets what it no longer sees, and a generator may return to what fooled it long ago. Source: A.
Shrivastava et al., arXiv:1612.07828, section 2.3; the rule is that of J.-Y. Zhu et al., arXiv:1703.10593, section 4,
and their code.
"""

import numpy as np

from nanogan.backend import copy_into, get_device, to_device
from nanogan.errors import UserError

SWAPPED = 0.5  # the share of fakes that change places with an older one


class Pool:
    """Room for ``size`` images of ``shape`` (C, H, W) on ``device``, empty at first; size 0: every fake passes by.

    It takes one fake after the other. Until it is full, a fake is stored, and D sees it. After that a fake changes
    places with a random image of the pool, with a probability of 1/2, and D sees the old image; or it passes by.

    ``ranks``: processes that share a batch put the fakes of all of them into the pool, so that it is the same on each.

    What is random is drawn on the host, in a game's ``draw``; :meth:`swap` is for its ``step``. Memory for all images
    is there from the start, and their count is a number on the device: no shape ever changes, nothing is read back.
    """

    ranks = None

    def __init__(self, size, shape, device="cpu", dtype=np.float32):
        C, H, W = shape
        self.size, self.device = size, get_device(device)
        xp = self.device.array_module
        self.images = xp.zeros((size, H, W, C), dtype).transpose(0, 3, 1, 2)  # (size, C, H, W), channels-last
        self.count = xp.zeros(1, np.int64)  # of images stored, from the front

    def draw(self, rng, N):
        """Return what :meth:`swap` needs for N fakes: a place in the pool for each, and whether it swaps, both (N,)."""
        places, swaps = rng.integers(0, max(1, self.size), N), rng.random(N) < SWAPPED
        return to_device(places, self.device), to_device(swaps, self.device)

    def swap(self, fakes, drawn):
        """Take the fakes (N, C, H, W), with what :meth:`draw` returned, and return the N images that D sees."""
        if not self.size:
            return fakes
        xp, own = self.device.array_module, slice(None)
        places, swaps = drawn
        if self.ranks is not None:
            fakes, places, swaps = map(self.ranks.gather, (fakes, places, swaps))
            own = self.ranks.own(len(fakes))
        seen = xp.empty_like(fakes)
        for i in range(len(fakes)):
            i = slice(i, i + 1)  # places, conditions and the count are arrays of one element: nothing waits for them
            fake = fakes[i]  # (1, C, H, W)
            filling = self.count < self.size
            place = xp.where(filling, self.count, places[i])
            old = self.images[place]
            seen[i] = xp.where(swaps[i] & ~filling, old, fake)
            self.images[place] = xp.where(swaps[i] | filling, fake, old)
            self.count += filling
        return seen[own]

    def state_dict(self):
        """Return {"images": those stored, and zeros, "count": how many are stored}."""
        return {"images": self.images, "count": self.count}

    def load_state_dict(self, saved):
        """Go on from :meth:`state_dict`'s result; the arrays are copied."""
        if saved["images"].shape != self.images.shape:
            raise UserError(f"this pool holds images {self.images.shape}, the saved one {saved['images'].shape}")
        copy_into(self.images, saved["images"])
        copy_into(self.count, saved["count"].clip(0, self.size))
