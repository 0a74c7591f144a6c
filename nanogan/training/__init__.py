"""Training: one adversarial step written out, and the loop round it."""

from nanogan.training.adversarial import StepResult, adversarial_step, sample
from nanogan.training.loop import train

__all__ = ["StepResult", "adversarial_step", "sample", "train"]
