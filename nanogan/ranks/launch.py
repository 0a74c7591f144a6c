"""What a launcher (mpiexec, srun) tells the processes that it starts, before any MPI is asked."""

import os
from typing import NamedTuple

from nanogan.errors import UserError

# What launchers call the rank and the number of ranks
NAMES = (
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI, srun --mpi=pmi2
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),  # srun
)
THREADS = ("NANOGAN_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")  # any of them decides


_sharing = 1  # processes, this one too, that share its cores


class Launched(NamedTuple):
    """A process among others: its ``rank``, counted from 0, and the ``size`` of all."""

    rank: int
    size: int


def launched():
    """Return what the launcher says of this process; (0, 1) where there is none, or where it started one alone.

    MPI is not imported: without a launcher nothing of it is needed.
    """
    for names in NAMES:
        rank, size = map(_number, names)
        if rank is not None and (size or 1) > 1:
            return Launched(rank, size)
    return Launched(0, 1)


def launcher():
    """Return the words that start as many processes again, a list: ["mpiexec", "-n", "4"]; empty for one."""
    size = launched().size
    if size == 1:
        return []
    by_slurm = _number("SLURM_STEP_NUM_TASKS") == size
    return ["srun" if by_slurm else "mpiexec", "-n", str(size)]


def _number(name):
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else None


def share_cores(of_others):
    """Note how many processes share this one's cores.

    of_others: the :func:`cores` of every rank of this machine, this one's too. A launcher may give each its own, or all
    of them the same.
    """
    global _sharing
    _sharing = sum(not cores().isdisjoint(others) for others in of_others)


def use_threads(count):
    """Compute with so many threads, unless the user has set a number. Nothing may have computed yet.

    Waiting for other ranks takes a core, so more threads than cores are many times slower.
    """
    if not any(os.environ.get(name, "").strip() for name in THREADS):
        os.environ["NANOGAN_THREADS"] = str(count)


def core_count():
    """The number of cores that are this process's share."""
    return max(1, len(cores()) // _sharing)


def cores():
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def check(launched, size, library):
    """Raise UserError if MPI, ``library``, sees other processes than the launcher started."""
    if launched.size != size:
        raise UserError(
            f"mpi4py uses {library}, which sees {size} of the {launched.size} processes that the launcher started: "
            f"start with that MPI's own mpiexec (in this environment's bin folder, if pip installed it), or install "
            "mpi4py for the launcher's MPI"
        )
