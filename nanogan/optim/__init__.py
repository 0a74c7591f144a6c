"""Optimisers, learning-rate schedules, averages of weights."""

from nanogan.optim.ema import Ema
from nanogan.optim.optimizers import SGD, Adam, LinearDecay, Optimizer
from nanogan.optim.supervised import supervised_step

__all__ = ["SGD", "Adam", "Ema", "LinearDecay", "Optimizer", "supervised_step"]
