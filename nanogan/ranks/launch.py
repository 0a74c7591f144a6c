"""What a launcher (mpiexec, srun) tells the processes that it starts, before any MPI is asked."""

import os
from typing import NamedTuple

from nanogan.errors import UserError

# What launchers call the rank, the number of ranks, and the number of those on this machine
NAMES = (
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"),  # MPICH, Intel MPI, srun --mpi=pmi2
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),  # Open MPI
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS_PER_NODE"),  # srun
)
THREADS = ("NANOGAN_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")  # any of them decides


class Launched(NamedTuple):
    """A process among others: its ``rank``, the ``size`` of all, and how many are on this machine (None: not said)."""

    rank: int
    size: int
    local_size: int | None


def launched():
    """Return what the launcher says of this process; (0, 1, 1) where there is none, or where it started one alone.

    MPI is not imported: without a launcher nothing of it is needed.
    """
    for rank, size, local in NAMES:
        found = [_number(name) for name in (rank, size, local)]
        if found[0] is not None and (found[1] or 1) > 1:
            return Launched(*found)
    return Launched(0, 1, 1)


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


def share_cores(local_size):
    """Give this process its share of the machine's cores, unless the user has set a number of threads.

    Waiting for other ranks takes a core, so more threads than cores are many times slower. Nothing may have computed
    yet: see :func:`nanogan.fast.cpu.threads.count`.
    """
    if not any(os.environ.get(name, "").strip() for name in THREADS):
        os.environ["NANOGAN_THREADS"] = str(max(1, cores() // local_size))


def cores():
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check(launched, size, library):
    """Raise UserError if MPI, ``library``, sees other processes than the launcher started."""
    if launched.size != size:
        raise UserError(
            f"the launcher started {launched.size} processes, but mpi4py's MPI ({library}) sees {size}, so it is "
            "another MPI's launcher: use the mpiexec of that MPI (in this environment's bin folder, if it was "
            'installed by pip install ".[mpi]"), or install mpi4py for the launcher\'s MPI'
        )
