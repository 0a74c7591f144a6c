"""Learning rates as functions of the step."""

from nanogan.errors import UserError
from nanogan.optim.options import as_float, share


def linear_decay(at, hold=0.0):
    """Return the factor of a learning rate that is constant for a share ``hold`` of the run, then falls to 0.

        factor = min(1, (1 - done) / (1 - hold))

    ``at.done`` is the share of the run's steps before this one (:class:`nanogan.games.game.At`), 0 to below 1: a run
    that is resumed for longer follows the line to the new end. hold from 0 to below 1; CycleGAN holds half.
    """
    hold = share("hold").checked("linear_decay", hold)
    return min(1.0, (1 - at.done) / (1 - hold))


class LinearDecay:
    """Lower an optimiser's learning rate in a straight line to 0: constant for ``hold`` steps, then falling.

        lr = optimizer.initial_lr * min(1, (total - steps) / (total - hold))

    ``total`` and ``hold`` count optimiser steps, which the optimiser's state knows, so a resumed run goes on as it was.
    Call :meth:`step` after ``optimizer.step()``. (CycleGAN holds half.)
    """

    def __init__(self, optimizer, *, total, hold=0):
        steps = as_float(hold), as_float(total)
        if None in steps or not 0 <= steps[0] < steps[1] < float("inf"):
            raise UserError(f"LinearDecay expected 0 <= hold < total steps, got hold={hold!r}, total={total!r}")
        self.optimizer, self.total, self.hold = optimizer, total, hold

    def step(self):
        """Set the learning rate for the optimiser's next step."""
        left = max(0, self.total - self.optimizer.steps)
        self.optimizer.lr = self.optimizer.initial_lr * min(1.0, left / (self.total - self.hold))
