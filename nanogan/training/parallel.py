"""One game on several ranks: what is shared before the first step, and a run whose folder rank 0 writes.

    own = loader.shared(ranks)              batches of which a rank makes its own images
    join(game, ranks)                       the same parameters everywhere; sums over the batch are those of all ranks
    play = steps_of_rank(game, ranks)       a step on this rank's part of its inputs
    run = Led(run, ranks)                   a Run: rank 0 does what it asks for, the others hear how it went

Each function is for all ranks to call, in the same order.
"""

import contextlib
import zlib
from collections.abc import Mapping

import numpy as np

from nanogan import dispatch
from nanogan.backend import array_module, matmul_precision, to_numpy
from nanogan.errors import TrainingDiverged, UserError
from nanogan.layers.norm import BatchNorm2d
from nanogan.ranks.shards import own_part
from nanogan.training.graph import steps_of
from nanogan.version import __version__


def together(game, loader, run, ranks, sync_bn):
    """Return what :func:`nanogan.training.train` takes in place of loader, step and run, on one of several ranks."""
    _compare_settings(ranks)
    own = loader.shared(ranks)
    join(game, ranks, sync_bn=sync_bn)
    return own, steps_of_rank(game, ranks), Led(run, ranks)


def _compare_settings(ranks):
    """Raise UserError if ranks would take other paths, or other versions, which make other calls than their peers."""
    dispatch.load("cpu")  # whose fast paths are what the threads are for
    threads, fast = dispatch.settings["threads"](), "on" if dispatch.FAST else "off"
    every = ranks.all_told(
        {"threads": threads, "fast paths": fast, "products": matmul_precision(), "nanogan": __version__,
         "NumPy": np.__version__}
    )  # fmt: skip
    for name, value in every[0].items():
        rank = next((rank for rank, each in enumerate(every) if each[name] != value), None)
        if rank is not None:
            raise UserError(
                f"all processes expected the same {name}, got {value} in rank 0 and {every[rank][name]} in rank "
                f"{rank}: give them the same environment, or set NANOGAN_THREADS for all"
            )


def join(game, ranks, *, sync_bn=True):
    """Let ``game`` be played by ``ranks``: each has one that was made alike, and gets the state of rank 0's.

    sync_bn: whether BatchNorm's statistics are those of the whole batch, as in one process, or of a rank's own images.
    """
    state = game.state_dict()
    for array in _arrays(state):
        ranks.broadcast(array)
    game.load_state_dict(_with(state, ranks.told(_numbers(state))))
    if game.device.kind == "gpu" and not ranks.cards.recordable:
        game.recordable = False
    for layer in _norms(game):
        layer.ranks = ranks if sync_bn else None
    for optimizer in game.optimizers().values():
        optimizer.share(ranks)
    for whose in (game, *game.members().values()):
        if getattr(whose, "ranks", ranks) is None:  # what takes sums over a batch: feature matching, a pool of fakes
            whose.ranks = ranks


def steps_of_rank(game, ranks):
    """Return what :func:`nanogan.training.graph.steps_of` does, on this rank's part of the inputs.

    What a step returns, means over the images of a rank, becomes the mean over all.
    """
    play = steps_of(game)

    def step(inputs):
        seen = play(own_part(inputs, ranks))
        xp = array_module(seen[0])
        numbers = ranks.mean(xp.stack([number.astype(np.float64) for number in seen]))
        return type(seen)(*numbers)

    return step


class Led:
    """A :class:`nanogan.training.Run` that rank 0 writes. Each method is for all ranks to call, at the same time.

    What fails on rank 0 it raises there, and EndedElsewhere on the others: no rank waits for one that has ended.
    """

    def __init__(self, run, ranks):
        self.run, self.ranks = run, ranks
        self.failed = None  # what rank 0 is to raise once the others know
        self.due = False  # whether a checkpoint is, by rank 0's clock

    @contextlib.contextmanager
    def reserved(self):
        """See Run."""
        with contextlib.ExitStack() as stack:
            self.ranks.led(lambda: stack.enter_context(self.run.reserved()))
            yield

    def begin(self, game, loader, plan, seed, resume=None):
        """See Run; ``loader`` makes whole batches."""
        self.game, self.local_norms = game, [layer for layer in _norms(game) if layer.ranks is None]
        begun = self.ranks.led(lambda: self.run.begin(game, loader, plan, seed, resume))
        begun, progress = self.ranks.told((begun, getattr(self.run, "progress", None) if begun else None))
        self.run.plan, self.progress = plan, progress
        return begun

    def note(self, at, seen):
        """See Run. What fails is raised by :meth:`is_last`, which is called next."""
        self.due = False
        if self.ranks.leads:
            try:
                self.run.note(at, seen)
                self.due = self.run.checkpoint_is_due()
            except Exception as error:
                self.failed = error

    def is_last(self, at, stop):
        """See Run: the run ends for all if one rank is told to stop, or if rank 0 failed."""
        failed, stopped, due = self.ranks.highest(self.failed is not None, stop(), self.due)
        if failed:
            self.ranks.check(self.failed)
        self.due = bool(due)
        return at.step == self.run.plan.total or bool(stopped)

    def samples_are_due(self, at):
        """See Run."""
        return self.run.samples_are_due(at)

    def checkpoint_is_due(self):
        """See Run."""
        return self.due

    def save_samples(self, at, last=False):
        """See Run."""
        with self._averaged():
            self.ranks.led(lambda: self.run.save_samples(at, last))

    def save_checkpoint(self, at, last=False):
        """See Run. Raises TrainingDiverged before anything is written if the ranks' parameters are not alike."""
        self._compare(at)
        with self._averaged():
            self.ranks.led(lambda: self.run.save_checkpoint(at, last))

    def end(self, completed):
        """See Run."""
        self.ranks.led(lambda: self.run.end(completed))
        return completed

    def errors_told(self):
        """See Run."""
        return self.run.errors_told() if self.ranks.leads else contextlib.nullcontext()

    def _compare(self, at):
        """Raise TrainingDiverged if a rank has other parameters than rank 0, which should never be."""
        sums = self.ranks.all_told([_checksum(network) for network in self.game.networks().values()])
        wrong = [rank for rank, each in enumerate(sums) if each != sums[0]]
        if wrong:
            error = TrainingDiverged(
                f"after step {at.step} the parameters of rank {', '.join(map(str, wrong))} were not those of rank 0: "
                "start again from the last checkpoint, and on one kind of processor and NumPy only"
            )
            self.ranks.check(error if self.ranks.leads else None)

    @contextlib.contextmanager
    def _averaged(self):
        """A context in which rank 0's running statistics are the ranks' mean, where each took those of its own images.

        Only its files and samples are made of them: each rank goes on with its own, so that when a checkpoint happens
        to be written changes nothing.
        """
        arrays = [layer.buffers[name] for layer in self.local_norms for name in ("running_mean", "running_var")]
        own = [array.copy() for array in arrays]
        for array in arrays:
            self.ranks.mean(array)
        try:
            yield
        finally:
            for array, before in zip(arrays, own, strict=True):
                array[...] = before


def described(ranks, game, loader, sync_bn):
    """Return in a line how ``ranks`` share the work."""
    dispatch.load("cpu")  # whose fast paths are what the threads are for
    threads, batch = dispatch.settings["threads"](), loader.batch_size
    over = "the whole batch" if sync_bn else "each process's own images"
    left_out = loader.last_batch % ranks.size
    return (
        f"{ranks.size} processes, each with {batch // ranks.size} of a batch's {batch} images and "
        f"{threads} thread{'s' if threads > 1 else ''}"
        + (f"; BatchNorm over {over}" if _norms(game) else "")
        + (f"; {left_out} of the {loader.last_batch} images of an epoch's last batch are left out" if left_out else "")
    )


def other_ranks(before, now):
    """Return what to say of a run that goes on with other ranks than ``before``; None if there is nothing.

    Both are a run's options: ``processes``, 1 if not there; ``batchnorm_images``, the number of images that BatchNorm's
    statistics are of, a whole batch if not there; ``left_out``, images of an epoch's last batch, 0 if not there.
    """
    facts = {"processes": 1, "batchnorm_images": before["batch_size"], "left_out": 0}
    old, new = ({name: options.get(name, usual) for name, usual in facts.items()} for options in (before, now))
    if old == new:
        return None
    changes = []
    if old["batchnorm_images"] != new["batchnorm_images"]:
        changes.append("BatchNorm's statistics are of {batchnorm_images} images".format(**new)
                       + ", and were of {batchnorm_images}".format(**old))  # fmt: skip
    if old["left_out"] != new["left_out"]:
        changes.append("an epoch's last batch leaves out {left_out} images".format(**new)
                       + ", and left out {left_out}".format(**old))  # fmt: skip
    return f"it was saved by {_processes(old['processes'])}, this run has {_processes(new['processes'])}: " + (
        "; ".join(changes) or "the images and random numbers stay the same, and only the last digits may differ"
    )


def _processes(count):
    return "1 process" if count == 1 else f"{count} processes"


def _norms(game):
    """All BatchNorms of a game, those of averaged networks too."""
    networks = [*game.networks().values(), *(getattr(member, "average", None) for member in game.members().values())]
    layers = [layer for network in networks if network is not None for _, layer in network.named_layers()]
    return list({id(layer): layer for layer in layers if isinstance(layer, BatchNorm2d)}.values())


def _arrays(state):
    """All arrays of a state, in the same order on each rank."""
    for value in state.values():
        if isinstance(value, Mapping):
            yield from _arrays(value)
        elif _is_array(value):
            yield value


def _numbers(state):
    """A state without its arrays."""
    return {
        name: _numbers(value) if isinstance(value, Mapping) else value
        for name, value in state.items()
        if not _is_array(value)
    }


def _with(state, numbers):
    """A state's arrays, with the ``numbers`` of another."""
    return {
        name: value
        if _is_array(value)
        else _with(value, numbers[name])
        if isinstance(value, Mapping)
        else numbers[name]
        for name, value in state.items()
    }


def _is_array(value):
    return hasattr(value, "ndim") and not isinstance(value, np.generic)


def _checksum(network):
    """The CRC-32 of a network's parameters."""
    checksum = 0
    for _, parameter, _ in network.named_parameters():
        checksum = zlib.crc32(np.ascontiguousarray(to_numpy(parameter)), checksum)
    return checksum
