"""Optimisers, learning-rate schedules, averages of weights."""

from nanogan.optim.ema import Ema
from nanogan.optim.optimizers import SGD, Adam, LinearDecay, Optimizer

__all__ = ["SGD", "Adam", "Ema", "LinearDecay", "Optimizer"]
