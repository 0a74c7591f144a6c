"""What the groups of questions share: tolerances, errors, precisions."""

import contextlib

import numpy as np

from benchmarks.networks import NETWORKS
from nanogan import backend, dispatch
from nanogan.backend import to_numpy

EXACT = {"float32": 1e-5, "float64": 1e-11}  # an error that is right whatever the readable operations' own
TF32, SIXTEEN_BITS = 3e-3, 1e-4  # the same for TF32, and for sums of 16-bit products in float32
WORSE = 5  # times the readable operations' own error is still right
SIZES = {"MNIST default": NETWORKS["mnist"], "64x64": NETWORKS["64"]}


class Wrong(Exception):
    """An answer, the exception's text, that is not the right one."""


def error(got, expected):
    """||got - expected|| / ||expected||; NaN stays NaN, and is no right answer."""
    got, expected = (np.asarray(to_numpy(np.asarray(a) if np.isscalar(a) else a), np.float64) for a in (got, expected))
    if got.shape != expected.shape:
        raise Wrong(f"shape {got.shape} instead of {expected.shape}")
    size = np.linalg.norm(expected.ravel())
    return float(np.linalg.norm((got - expected).ravel()) / (size or 1))


class Worst:
    """The worst of several errors, each compared with a tolerance."""

    def __init__(self):
        self.count, self.share, self.text = 0, -1.0, "nothing was compared"

    def add(self, what, got, tolerance):
        """Add the error ``got``; it is right up to ``tolerance``."""
        self.count += 1
        share = got / tolerance if np.isfinite(got) else np.inf
        if share > self.share:
            self.share, self.text = share, f"{got:.1e} ({what}; right up to {tolerance:.1e})"

    def answer(self):
        """The answer's text. Raises Wrong if an error is too large, or there is none."""
        text = f"{self.count} compared, worst {self.text}"
        if not self.count or not self.share <= 1:
            raise Wrong(text)
        return text


@contextlib.contextmanager
def readable():
    """The readable operations alone, in this block."""
    before, dispatch.FAST = dispatch.FAST, False
    try:
        yield
    finally:
        dispatch.FAST = before


@contextlib.contextmanager
def products_in(precision):
    """Matrix products in ``precision``, in this block."""
    backend.set_matmul_precision(precision)
    try:
        yield
    finally:
        backend.set_matmul_precision("float32")


def allowed(usual, dtype, precision):
    """The largest error that is right where the readable operations' own is ``usual``."""
    if precision == "tf32":  # a GPU may cut bits off where the emulation rounds
        return max(TF32, 2 * WORSE * usual)
    return max(EXACT[dtype], WORSE * usual)


def precisions(device):
    return [p for p in backend.PRECISIONS if device.kind == "gpu" or p != "tf32"]


def on_a_cpu(precision):
    """The precision that rounds like ``precision`` where it is emulated: fp16 has as many fraction bits as TF32."""
    return "fp16" if precision == "tf32" else precision
