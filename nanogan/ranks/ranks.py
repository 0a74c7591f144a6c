"""What ranks do together: sums, means, and what one of them tells the others."""

import contextlib
import signal
import sys
import time

import numpy as np

from nanogan.backend import array_module
from nanogan.errors import EndedElsewhere, UserError
from nanogan.ranks import launch

PATIENCE = 3.0  # seconds in which ranks that failed alike find each other
POLL = 0.01  # seconds


class Ranks:
    """Processes of one size of batch each: ``rank`` of ``size``, counted from 0; ``local_rank`` of ``local_size`` here.

    ``comm`` is mpi4py's communicator. All methods but :meth:`own` are for all ranks to call, in the same order.
    """

    def __init__(self, comm):
        self.comm, self._mpi = comm, _mpi()
        self.rank, self.size = comm.rank, comm.size
        here = comm.Split_type(self._mpi.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = here.rank, here.size
        self._here, self._end = here, comm.Dup()  # of its own: a rank may end while the others wait elsewhere
        self._cards = None

    @classmethod
    def of_the_launcher(cls, launched):
        """Return the ranks that a launcher started. Raises UserError if MPI does not see the same."""
        try:
            MPI = _mpi()
        except ImportError as error:
            raise UserError(
                f"the launcher started {launched.size} processes, and mpi4py, by which they talk, cannot be used "
                f"({error}): pip install mpi4py mpich, or start one process without the launcher"
            ) from None
        launch.check(launched, MPI.COMM_WORLD.size, library_of(MPI))
        return cls(MPI.COMM_WORLD)

    def __deepcopy__(self, memo):
        return self  # copies share the ranks

    @property
    def leads(self):
        """Whether this is rank 0, which alone writes files and speaks."""
        return self.rank == 0

    def own(self, N):
        """The slice of N things that belongs to this rank; N is a multiple of the number of ranks."""
        return slice(N * self.rank // self.size, N * (self.rank + 1) // self.size)

    # ----------------------------------------------------------------------------------------------- sums of arrays

    def total(self, x):
        """Replace the array x, of the same shape on each rank, by the sum over all ranks, and return it."""
        dense, is_view = _dense(x)
        if array_module(x) is np:
            self.comm.Allreduce(self._mpi.IN_PLACE, dense)
        else:
            self.cards.all_reduce(dense)
        if not is_view:
            x[...] = _undone(dense, x)
        return x

    def mean(self, x):
        """Replace the array x by the mean over all ranks, and return it."""
        x = self.total(x)
        x *= 1 / self.size
        return x

    def gather(self, x):
        """Return the arrays x (N, ...) of all ranks, of the same shape each, one after the other: (size * N, ...)."""
        dense, _ = _dense(x)
        together = array_module(x).empty((self.size * len(x), *dense.shape[1:]), x.dtype)
        if array_module(x) is np:
            self.comm.Allgather(dense, together)
        else:
            self.cards.all_gather(dense, together)
        return _undone(together, x)

    def broadcast(self, x):
        """Replace the array x by rank 0's, and return it."""
        dense, is_view = _dense(x)
        if array_module(x) is np:
            self.comm.Bcast(dense)
        else:
            self.cards.broadcast(dense)
        if not is_view:
            x[...] = _undone(dense, x)
        return x

    @property
    def cards(self):
        """What carries arrays from GPU to GPU; made when first needed, by all ranks at once."""
        if self._cards is None:
            from nanogan.ranks.cards import cards_of

            self._cards = cards_of(self)
        return self._cards

    # --------------------------------------------------------------------------------------- what ranks tell each other

    def highest(self, *numbers):
        """Return the largest value of each number over all ranks, a list of floats."""
        values = np.array(numbers, np.float64)
        self.comm.Allreduce(self._mpi.IN_PLACE, values, self._mpi.MAX)
        return values.tolist()

    def told(self, thing=None):
        """Return rank 0's ``thing``, whatever can be pickled, on every rank."""
        return self.comm.bcast(thing)

    def all_told(self, thing):
        """Return what every rank has to say, a list."""
        return self.comm.allgather(thing)

    def all_here(self, thing):
        """The same of the ranks on this machine."""
        return self._here.allgather(thing)

    def led(self, function):
        """Call ``function`` on rank 0 alone, and return its result there, None elsewhere.

        If it raises, rank 0 raises that, and the others EndedElsewhere, in the same place.
        """
        result = error = None
        if self.leads:
            try:
                result = function()
            except BaseException as raised:
                error = raised
        self.check(error)
        return result

    def check(self, error=None):
        """Raise ``error`` if there is one, and EndedElsewhere if another rank has one."""
        (failed,) = self.highest(error is not None)
        if error is not None:
            raise error
        if failed:
            raise EndedElsewhere

    def first_on_each_machine(self, function):
        """Call ``function`` on one rank of each machine, then on the others, and return its result.

        For what is downloaded or made once, and read by all. What it raises comes once all ranks have tried.
        """
        result = error = None
        for turn in (self.local_rank == 0, self.local_rank > 0):
            try:
                if turn:
                    result = function()
            except BaseException as raised:
                error = raised
            self._here.Barrier()
        self.check(error)
        return result

    # --------------------------------------------------------------------------------------------------- the end

    def leave(self, code, tell=None, *, by_itself=True):
        """End this process with an exit status, and all others with it.

        tell: a function that prints what is to be said; None: nothing is. by_itself: whether the status is of this
        rank's own doing, and not EndedElsewhere.

        Ranks that fail alike, by an unknown option for instance, come here together, and one speaks for all: rank 0, or
        the first that has something to say. A rank that fails alone is not followed by those that wait for it in the
        middle of a step: after PATIENCE it speaks for itself, and ends them all.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # outside the main thread
                signal.signal(number, signal.SIG_IGN)  # this is the end already
        if self.leads and tell is not None:
            tell()
        arrived = self._end.Ibarrier()
        deadline = time.monotonic() + (PATIENCE if code and by_itself else float("inf"))
        while not arrived.Test():
            if time.monotonic() > deadline:
                self._end_all(code, tell)
            time.sleep(POLL)
        reports = self._end.allgather((code, tell is not None, by_itself))
        speaks = [rank for rank, (_, has_words, _) in enumerate(reports) if has_words]
        if speaks and speaks[0] == self.rank > 0:
            tell()
        causes = [code for code, _, by_itself in reports if code and by_itself]
        sys.exit(causes[0] if causes else max(code for code, *_ in reports))

    def _end_all(self, code, tell):
        """End all processes, whatever the others do."""
        if not self.leads and tell is not None:
            tell()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # its reader has gone
                stream.flush()
        if self._cards is not None:
            self._cards.abort()  # a kernel of NCCL's may wait for ever
        time.sleep(0.3)  # else the launcher would end before it has passed on what was printed
        self.comm.Abort(code)


class _Alone:
    """One process: what it does together with no others."""

    rank, size, local_rank, local_size, leads = 0, 1, 0, 1, True

    def own(self, N):
        """All of them."""
        return slice(0, N)

    def led(self, function):
        """Call it."""
        return function()

    def told(self, thing=None):
        """Return it."""
        return thing

    def all_told(self, thing):
        """Return a list of it."""
        return [thing]

    def first_on_each_machine(self, function):
        """Call it."""
        return function()


ALONE = _Alone()


def library_of(MPI):
    """Return the name and version of mpi4py's MPI: "MPICH 5.0.2"."""
    return " ".join(MPI.Get_library_version().split("\n")[0].replace("Version:", "").split())


def _mpi():
    from mpi4py import MPI

    return MPI


def _dense(x):
    """x as an array without gaps in C's order, with the channels of 4 dimensions last; and whether that is a view."""
    x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
    return (x, True) if x.flags.c_contiguous else (array_module(x).ascontiguousarray(x), False)


def _undone(dense, like):
    """What :func:`_dense` made of an array like ``like``, in that one's order of dimensions."""
    return dense.transpose(0, 3, 1, 2) if like.ndim == 4 else dense
