"""Ranks: processes that train one game together, each on its part of every batch.

    mpiexec -n 4 python examples/mnist_dcgan.py

Every rank runs the same program, holds all networks, and computes the gradients of its share of the images. Before an
optimiser's step the gradients are averaged over all ranks; so each takes the same step, and the parameters stay alike.

    ranks = start()                   by :func:`nanogan.cli.run`: the ranks that the launcher started, or ALONE
    ranks.mean(gradients)             in place, the same bits on every rank
    batch = images[ranks.own(N)]      this rank's share of N images

MPI (mpi4py) carries NumPy's arrays and what ranks tell each other; CuPy's arrays go by NCCL from GPU to GPU, where it
is installed, else through the host's memory. Neither is imported by a process that was started alone.
"""

from nanogan.ranks.launch import core_count, cores, launched, launcher, share_cores, use_threads
from nanogan.ranks.ranks import ALONE, Ranks

_started = None


def start():
    """Return the ranks that this process was launched with, ALONE if with none. The second time, the same again.

    Raises UserError if mpi4py is missing, or if its MPI is not the launcher's.
    """
    global _started
    if _started is None:
        told = launched()
        _started = Ranks.of_the_launcher(told) if told.size > 1 else ALONE
        if _started is not ALONE:
            share_cores(_started.all_here(cores()))
            use_threads(min(_started.all_told(core_count())))  # the same for all: it decides which paths compute
    return _started


def current():
    """Return the ranks that were started; ALONE if none were."""
    return _started or ALONE


__all__ = ["ALONE", "Ranks", "core_count", "cores", "current", "launched", "launcher", "start"]
