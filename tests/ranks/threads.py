"""Ranks as threads of one process: a stand-in for mpi4py's communicator, which adds up in the order of the ranks.

    results = play(4, lambda ranks: ...)        what each rank's function returned, in order

A rank that fails, or that calls something else than the others, ends them all: nothing hangs.
"""

import threading
from types import SimpleNamespace
from unittest import mock

import numpy as np

from nanogan.ranks import Ranks
from nanogan.ranks import ranks as module

PATIENCE = 60  # seconds
MPI = SimpleNamespace(IN_PLACE="in place", MAX="max", COMM_TYPE_SHARED="shared")


class World:
    """What the ranks share."""

    def __init__(self, size):
        self.size, self.barrier, self.board = size, threading.Barrier(size, timeout=PATIENCE), [None] * size
        self.arrived = set()  # at the non-blocking barrier, of which there is one


class Aborted(Exception):
    """What MPI's Abort does to all, it does here to the rank that calls it. ``args[0]`` is the exit status."""


class Comm:
    """A rank's end of it: of mpi4py's methods those that :class:`nanogan.ranks.Ranks` calls."""

    def __init__(self, world, rank):
        self.world, self.rank, self.size = world, rank, world.size

    def _exchanged(self, what, thing):
        self.world.board[self.rank] = what, thing
        self.world.barrier.wait()
        board = list(self.world.board)
        self.world.barrier.wait()
        assert {other for other, _ in board} == {what}, f"ranks call different things: {[call for call, _ in board]}"
        return [each for _, each in board]

    def Allreduce(self, here, array, operation="sum"):
        assert here is MPI.IN_PLACE
        assert array.flags.c_contiguous
        parts = self._exchanged(("Allreduce", operation, array.shape, array.dtype), array.copy())
        array[...] = np.max(parts, axis=0) if operation == "max" else sum(parts[1:], start=parts[0])

    def Allgather(self, array, out):
        assert array.flags.c_contiguous
        out[...] = np.concatenate(self._exchanged(("Allgather", array.shape, array.dtype), array.copy()))

    def Bcast(self, array):
        assert array.flags.c_contiguous
        array[...] = self._exchanged(("Bcast", array.shape, array.dtype), array.copy())[0]

    def bcast(self, thing):
        return self._exchanged("bcast", thing)[0]

    def allgather(self, thing):
        return self._exchanged("allgather", thing)

    def Barrier(self):
        self._exchanged("Barrier", None)

    def Ibarrier(self):
        self.world.arrived.add(self.rank)
        return SimpleNamespace(Test=lambda: len(self.world.arrived) == self.size)

    def Abort(self, code):
        raise Aborted(code)

    def Split_type(self, kind):
        return self

    def Dup(self):
        return self


def play(size, function):
    """Call ``function(ranks)`` on ``size`` threads, each of which is a rank, and return what they returned."""
    world, results, errors = World(size), [None] * size, []

    def run(rank):
        try:
            results[rank] = function(Ranks(Comm(world, rank)))
        except BaseException as error:
            errors.append(error)
            world.barrier.abort()

    with mock.patch.object(module, "_mpi", return_value=MPI):
        threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * PATIENCE)
    errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))  # the cause comes first
    if errors:
        raise errors[0]
    return results
