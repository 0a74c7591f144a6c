"""Optimisers, learning-rate schedules, averages of weights."""

from nanogan.optim.ema import Ema
from nanogan.optim.optimizers import SGD, Adam, Optimizer
from nanogan.optim.schedules import LinearDecay, linear_decay
from nanogan.optim.supervised import supervised_step

__all__ = ["SGD", "Adam", "Ema", "LinearDecay", "Optimizer", "linear_decay", "supervised_step"]
