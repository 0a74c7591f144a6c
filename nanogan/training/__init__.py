"""Training: one adversarial step written out, and the loop round it."""

from nanogan.games.dcgan import LOSSES, StepResult, adversarial_step, discriminator_step
from nanogan.games.drawing import sample
from nanogan.training.loop import train

__all__ = ["LOSSES", "StepResult", "adversarial_step", "discriminator_step", "sample", "train"]
