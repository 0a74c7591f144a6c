"""How many steps are done, on the host and, while steps are recorded on a GPU, there too."""

import numpy as np


class Timed:
    """What an optimiser and an average of weights share: both depend on how many steps they have done.

    A recorded step (:mod:`nanogan.training.graph`) holds Python's numbers as they were. So its count is an array on the
    device, the clock, which every step advances.

    Attributes: network; steps, an int; clock, a 0-dimensional float64 array on the GPU, or None.
    """

    # Whether a step depends on ``time`` and not on ``steps``; each class says it for itself
    keeps_time_on_a_gpu = False

    def start_at(self, steps):
        """Set the number of steps done."""
        self.steps = steps
        if getattr(self, "clock", None) is None:
            self.clock = None
        else:
            self.clock[...] = steps

    def advance(self):
        """Count one step."""
        self.steps += 1
        if self.clock is not None:
            self.clock += 1

    @property
    def time(self):
        """The number of steps done: an int, or the clock if there is one."""
        return self.steps if self.clock is None else self.clock

    def keep_clock(self, keep):
        """Count the steps on the GPU too, or no longer."""
        self.clock = self.network.array_module.full((), self.steps, np.float64) if keep else None
