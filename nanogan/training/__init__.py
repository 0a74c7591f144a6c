"""Training: the loop round a game's step, and the folder that a run leaves."""

from nanogan.games.dcgan import LOSSES, StepResult, adversarial_step, discriminator_step
from nanogan.games.drawing import sample
from nanogan.training.earlier import BEST, LAST
from nanogan.training.loop import Plan, train
from nanogan.training.run import Run

__all__ = [
    "BEST", "LAST", "LOSSES", "Plan", "Run", "StepResult", "adversarial_step", "discriminator_step", "sample", "train",
]  # fmt: skip
