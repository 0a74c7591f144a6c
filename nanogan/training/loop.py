"""The loop round a game's step: all of it."""

import itertools

import numpy as np

from nanogan.backend import seeded_rng
from nanogan.errors import checked_count
from nanogan.games.game import At
from nanogan.ranks import ALONE
from nanogan.training import parallel
from nanogan.training.graph import steps_of
from nanogan.training.interrupt import stop_between_steps


def train(game, loader, run, *, epochs, seed=0, max_steps=None, resume=None, ranks=ALONE, sync_bn=True):
    """Play ``game`` for ``epochs`` rounds of ``loader``; return True if completed, False after Ctrl-C.

    ``run`` is the folder that this leaves, a :class:`nanogan.training.Run`. max_steps: ends the run early. resume: the
    Progress that :func:`nanogan.checkpoint.load_training` returned; on the CPU the result is then the same to the bit
    as without the interruption, since the random numbers of step n are a function of ``seed`` and n.

    ranks: what :func:`nanogan.ranks.start` returned, if processes train the game together. Each calls this with a game,
    a loader and a run that were made alike; rank 0's state counts, and only rank 0 writes. With ``sync_bn`` the result
    is that of one process but for rounding; without, BatchNorm's statistics are those of each rank's own images, and a
    resumed run starts from their mean, not to the bit.

    Raises TrainingDiverged if a loss or a parameter is not finite, OSError for what cannot be written (see Run), and
    UserError if another run writes into the folder.
    """
    plan = Plan(loader, game.batches, epochs, max_steps)
    if ranks is ALONE:
        own, play = loader, steps_of(game)
    else:
        own, play, run = parallel.together(game, loader, run, ranks, sync_bn)
    with run.reserved():
        if not run.begin(game, loader, plan, seed, resume):
            return True
        with stop_between_steps() as stop, np.errstate(over="ignore", invalid="ignore"), run.errors_told():
            for at, batches in plan.steps(own, after=run.progress.step):
                game.reseed(seed, at.step)
                inputs = game.draw(batches, seeded_rng(seed, f"step {at.step}"), at)
                run.note(at, play(inputs))
                last = run.is_last(at, stop)
                if last or at.ends_epoch or run.samples_are_due(at):
                    run.save_samples(at, last)
                if last or at.ends_epoch or run.checkpoint_is_due():
                    run.save_checkpoint(at, last)
                if last:
                    return run.end(completed=at.step == plan.total)


class Plan:
    """The steps of a run: each takes the next ``batches`` batches, an epoch's last step what is left of them.

    Attributes: epochs, batches, steps_per_epoch; total, the steps of the run; planned, those of all epochs, which the
    schedules look at. They differ if ``max_steps`` ends the run early.
    """

    def __init__(self, loader, batches, epochs, max_steps=None):
        self.batches, self.epochs = batches, checked_count("epochs", epochs, 1)
        self.steps_per_epoch = -(-len(loader) // batches)
        self.planned = self.epochs * self.steps_per_epoch
        self.total = self.planned if max_steps is None else min(self.planned, checked_count("max_steps", max_steps, 1))

    def steps(self, loader, after=0):
        """Yield (At, list of batches) of each step but the first ``after``."""
        step = after
        for epoch in range(after // self.steps_per_epoch + 1, self.epochs + 1):
            done = step - (epoch - 1) * self.steps_per_epoch
            batches = loader.epoch(epoch, start=min(done * self.batches, len(loader)))
            while group := list(itertools.islice(batches, self.batches)):
                step += 1
                yield At(step, epoch, self.planned, self.steps_per_epoch), group
