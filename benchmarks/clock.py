"""Time and memory on either device, by one code path: what a benchmark asks of the machine that it measures on.

A GPU works behind the program's back: a call returns before the work is done. So a window of calls is timed with the
device idle at both ends, and holds enough of them that waiting for the last one does not count.
"""

import math

import torch

from benchmarks import machine, timing
from nanogan import backend
from nanogan.errors import UserError


class Target:
    """The device that is measured: "cpu", "gpu" or "gpu:N". ``torch`` is the same device as torch calls it.

    Raises DeviceError, in one sentence, where nanogan cannot use it. A torch without CUDA is no error here: its
    contenders then say so one by one.
    """

    def __init__(self, name):
        self.device = backend.get_device(name)
        self.is_gpu = self.device.kind == "gpu"
        self.torch = torch.device("cuda", self.device.index) if self.is_gpu else torch.device("cpu")
        self.has_torch = not self.is_gpu or torch.cuda.is_available()
        self.least_window = 0.1 if self.is_gpu else 0.2  # seconds
        if self.is_gpu and self.has_torch:
            torch.cuda.set_device(self.torch)

    @classmethod
    def chosen(cls, name, parser):
        """Return the device of the command line; end the program with its usage where nanogan cannot use it."""
        try:
            return cls(name)
        except UserError as error:
            parser.error(str(error))

    def synchronize(self):
        """Wait until the device is idle. CuPy and torch share its one context, so this waits for both."""
        if self.is_gpu:
            self.device.array_module.cuda.runtime.deviceSynchronize()

    def seconds(self, function, calls=1):
        """Return the seconds that one of ``calls`` calls takes, queued one behind the other."""
        return timing.seconds(function, calls, self.synchronize)

    def calls(self, function, least=None, most=10_000):
        """Return how many calls fill a window of ``least`` seconds; the device should be warm."""
        least = self.least_window if least is None else least
        if not least:
            return 1
        once = min(self.seconds(function, 3) for _ in range(2))
        return max(1, min(most, math.ceil(least / max(once, 1e-9))))

    def free(self):
        """Hand cached memory back, so that the next contender finds what this one found."""
        if self.is_gpu:
            self.device.array_module.get_default_memory_pool().free_all_blocks()
            if self.has_torch:
                torch.cuda.empty_cache()

    def peak_memory(self, function):
        """Call ``function`` and return the MB that it needed at its worst, and the MB that the pools then keep.

        On the CPU both are what the process grew by. On a GPU they are arrays in use, and what the two libraries took
        from the driver for them; the context and the libraries' code are not counted. For a process that does nothing
        else.
        """
        if not self.is_gpu:
            before = machine.peak_memory()
            function()
            grown = machine.peak_memory() - before
            return grown, grown
        cupy = self.device.array_module
        with _peak_of_cupy(cupy) as ours:
            function()
            self.synchronize()
        peak, kept = ours.peak, cupy.get_default_memory_pool().total_bytes()
        if self.has_torch:
            peak += torch.cuda.max_memory_allocated(self.torch)
            kept += torch.cuda.max_memory_reserved(self.torch)
        return peak / 1e6, max(kept, peak) / 1e6


def _peak_of_cupy(cupy):
    """Return a hook that knows, in ``peak``, the most bytes that CuPy's pools had handed out while it was active."""

    class Peak(cupy.cuda.memory_hook.MemoryHook):
        name = "peak"
        used = peak = 0

        def malloc_postprocess(self, device_id, size, mem_size, mem_ptr, pmem_id):
            self.used += mem_size
            self.peak = max(self.peak, self.used)

        def free_postprocess(self, device_id, mem_size, mem_ptr, pmem_id):
            self.used -= mem_size

    return Peak()
