"""Optimisers, clipping of gradients, learning-rate schedules, averages of weights."""

from nanogan.optim.clipping import clip_grad_norm, clip_grad_value
from nanogan.optim.ema import Ema
from nanogan.optim.optimizers import SGD, Adam, Optimizer, RMSprop
from nanogan.optim.schedules import LinearDecay, linear_decay
from nanogan.optim.supervised import supervised_step

__all__ = [
    "SGD", "Adam", "Ema", "LinearDecay", "Optimizer", "RMSprop", "clip_grad_norm", "clip_grad_value", "linear_decay",
    "supervised_step",
]  # fmt: skip
