"""Sums over ranks on a card: NCCL by one rank alone, in kernels launched one by one and in a recorded step.

One card cannot show that several add up right. It can show that each call is made as NCCL expects it, and that it can
be recorded.
"""

import numpy as np

from benchmarks.gpu_check.compare import Wrong
from benchmarks.gpu_check.played import needs_a_gpu, played_dcgan
from nanogan.backend import to_device, to_numpy
from nanogan.ranks import Ranks, cards
from nanogan.training.parallel import join


class OneRank(Ranks):
    """One rank, which asks NCCL all the same."""

    def __init__(self):
        self.rank, self.size = 0, 1
        self._cards = cards.ByNccl(self)

    def told(self, thing=None):
        return thing


@needs_a_gpu
def nccl(device):
    """NCCL's calls, and a DCGAN whose gradients and statistics go through them."""

    def calls():
        problem = missing()
        if problem:
            return None, problem
        ranks = OneRank()
        for shape in ((), (7,), (5, 3), (4, 3, 6, 6)):
            for dtype in (np.float32, np.float64, np.int64):
                x = (10 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)
                there = to_device(np.asarray(x), device)
                results = ranks.total(there.copy()), ranks.broadcast(there.copy())
                results = [*results, ranks.gather(there)] if shape else results
                if not all(np.array_equal(to_numpy(result), x) for result in results):
                    raise Wrong(f"another array comes back: {dtype.__name__} of shape {shape}")
        return True, cards.what_carries()

    def step():
        problem = missing()
        if problem:
            return None, problem
        played = played_dcgan(device, "MNIST default", prepare=lambda game: join(game, OneRank()))
        return True, played.compare()

    def alike():
        problem = missing()
        if problem:
            return None, problem
        ranks = played_dcgan(device, "MNIST default", prepare=lambda game: join(game, OneRank()))
        alone = played_dcgan(device, "MNIST default")
        numbers = [played.replayed(alone.inputs)["numbers"] for played in (ranks, alone)]
        difference = float(np.abs(numbers[0] - numbers[1]).max())
        if not difference < 1e-2:  # BatchNorm's statistics are added up in another order, and five steps were taken
            raise Wrong(f"its numbers are {numbers[0]}, without ranks {numbers[1]}")
        return True, f"numbers of the sixth step: {difference:.1e} apart"

    yield "NCCL by one rank: sum, broadcast, gather", calls
    yield "DCGAN MNIST default, one rank over NCCL: a replay is the eager step", step
    yield "DCGAN MNIST default, one rank over NCCL: the step without ranks", alike


def missing():
    """Why NCCL cannot be asked; None if it can."""
    return None if cards._nccl().available else cards.what_carries()
