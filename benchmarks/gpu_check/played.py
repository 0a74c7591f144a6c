"""A game whose step is recorded, and the comparison of a replay with the step launched kernel by kernel."""

import functools

import numpy as np

from benchmarks.gpu_check.compare import SIZES, Wrong
from nanogan import backend
from nanogan.backend import to_device, to_numpy
from nanogan.games.dcgan import DCGAN
from nanogan.games.game import At
from nanogan.gradcheck.games import random_batches
from nanogan.training.graph import Graphed

RECORDED = 1e-5  # the largest difference of an array between a replay and the same step launched kernel by kernel


class Played:
    """A game of which a step is recorded, the fourth of ``steps``, and the states between which its steps lead.

    prepare: a function of the game, called before its first step.

    Attributes: game; play (Graphed); notes, what that has said; inputs, of a step.
    """

    def __init__(self, cls, options, shapes, device, *, precision="float32", batch=None, steps=5, prepare=None):
        backend.set_matmul_precision(precision)
        self.device, self.shapes, self.batch, self.notes = device, shapes, batch, []
        self.game = cls(cls.Options.of(options), shapes, device, 0, np.float32)
        if prepare is not None:
            prepare(self.game)
        self.play = Graphed(self.game, self.notes.append)
        self.rng = np.random.default_rng(12)
        self.inputs = self.drawn(1)
        for step in range(1, steps + 1):
            self.play(self.inputs if step == 1 else self.drawn(step))

    def drawn(self, step, batch=None):
        """Return a step's inputs, of random images."""
        batch = batch or self.batch
        if batch is None:
            batches = random_batches(self.shapes, self.game.batches, self.rng)
        else:
            shape = (batch, *self.shapes["images"])
            batches = [{"images": self.rng.uniform(-1, 1, shape)} for _ in range(self.game.batches)]
        batches = [
            {n: to_device(a.astype(np.float32) if a.dtype == np.float64 else a, self.device) for n, a in b.items()}
            for b in batches
        ]
        self.game.reseed(0, step)
        return self.game.draw(batches, np.random.default_rng(step), At(step, 1, 100, 100))

    @property
    def is_recorded(self):
        return self.play.play == self.play.replay

    def needs_recording(self):
        if not self.is_recorded:
            raise Wrong(f"not recorded: {(self.notes or ['nothing was said'])[-1]}")

    def state(self):
        """A copy of the game's state, on the host."""
        return _copied(self.game.state_dict())

    def restore(self, state):
        """Go back to ``state``. Rates stay where the recording reads them."""
        rates = {optimizer: optimizer.lr for optimizer in self.game.optimizers().values()}
        self.game.load_state_dict(state)
        for optimizer, lr in rates.items():
            optimizer.lr = lr

    def replayed(self, inputs):
        """Return state and numbers after a replay with ``inputs``."""
        said = len(self.notes)
        self.game.reseed(0, 1)  # layers that draw numbers draw the same in an eager step
        result = self.play(inputs)
        self.needs_recording()
        if len(self.notes) > said:
            raise Wrong(f"it was not a replay: {self.notes[-1]}")
        return self.state() | {"numbers": _row(result)}

    def eager(self, inputs):
        """Return state and numbers after the same step, launched kernel by kernel."""
        self.play.inputs.fill(inputs)
        self.game.reseed(0, 1)
        result = self.game.step(**self.play.inputs.arguments)
        return self.state() | {"numbers": _row(result)}

    def compare(self, inputs=None):
        """Compare a replay with the eager step from the same state; return how far they are apart, in words."""
        inputs = self.inputs if inputs is None else inputs
        self.needs_recording()
        start = self.state()
        got = self.replayed(inputs)
        self.restore(start)
        expected = self.eager(inputs)
        if not any(changed(start, expected)):
            raise Wrong("the eager step changed no array")
        return alike(got, expected)


def played_dcgan(device, label, options=None, precision="float32", steps=5, prepare=None):
    network = SIZES[label]
    options, shapes = training_of(network, options)
    batch = network["batch_size"]
    how = {"precision": precision, "batch": batch, "steps": steps, "prepare": prepare}
    return Played(DCGAN, options, shapes, device, **how)


def training_of(network, options=None):
    """Return the training options and the data's shapes of the DCGAN of one of NETWORKS' values."""
    size = network["image_size"]
    options = {"image_size": size, "width": network["width"]} | (options or {})
    return options, {"images": (network["channels"], size, size)}


def alike(got, expected):
    """Say how far two states are apart. Raises Wrong if it is further than RECORDED."""
    worst, count, name = differing(got, expected)
    if not count:
        return "the same bits"
    text = f"{count} arrays differ, {name} by {worst:.1e}"
    if not worst <= RECORDED:
        raise Wrong(text)
    return text


def differing(got, expected):
    """Return (the largest relative difference, how many arrays and numbers differ, which differs most)."""
    got, expected = dict(_flat(got)), dict(_flat(expected))
    worst, count, which = 0.0, 0, ""
    for name, b in expected.items():
        a = got[name]
        if np.array_equal(a, b, equal_nan=True):
            continue
        count += 1
        scale = float(np.abs(b).max(initial=0)) or 1.0
        far = float(np.abs(np.asarray(a, np.float64) - b).max()) / scale
        far = np.inf if np.isnan(far) else far
        if far >= worst:
            worst, which = far, name
    return worst, count, which


def changed(before, after):
    """Yield the names of the arrays that differ, without numbers such as counts of steps."""
    after = dict(_flat(after))
    for name, array in _flat(before):
        if array.ndim and not np.array_equal(array, after[name], equal_nan=True):
            yield name


def _flat(state, prefix=""):
    for name, value in state.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) or hasattr(value, "dtype"):
            yield f"{prefix}{name}", np.asarray(to_numpy(value) if hasattr(value, "dtype") else value)


def _copied(state):
    return {
        key: _copied(value) if isinstance(value, dict) else to_numpy(value).copy() if hasattr(value, "dtype") else value
        for key, value in state.items()
    }


def _row(result):
    return np.array([float(value) for value in result])


def needs_a_gpu(questions):
    """Make a group of questions about recorded steps one line on a CPU, which records nothing."""

    @functools.wraps(questions)
    def group(device, *arguments):
        if device.kind == "cpu":
            yield questions.__name__, lambda: (None, "not asked of a CPU, whose steps are not recorded")
        else:
            yield from questions(device, *arguments)

    return group
