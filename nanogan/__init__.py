"""GANs by hand, at the speed of a framework: every forward and backward written out in NumPy and CuPy."""

from nanogan import backend, checkpoint, data, errors, images, layers, models, ops, optim, training
from nanogan.layers import init
from nanogan.version import __version__

__all__ = [
    "__version__",
    "backend",
    "checkpoint",
    "data",
    "errors",
    "images",
    "init",
    "layers",
    "models",
    "ops",
    "optim",
    "training",
]
