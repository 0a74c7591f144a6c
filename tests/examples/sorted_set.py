"""For tests of conditional scripts: a data set in which each image says which one it is, and scripts as modules."""

import functools
import importlib.util
import sys

import numpy as np

from nanogan.games.conditional import ConditionalDCGAN
from tests.examples.starting import EXAMPLES

COUNT = 24


def write_sorted_set(path, classes=10, count=COUNT):
    """Write a set sorted by class and return its labels. Image i is of one grey value, 2 i; the test set's, 2 i + 1."""
    values, labels = np.arange(0, 2 * count, 2, dtype=np.uint8), np.sort(np.arange(count) % classes)
    images = np.broadcast_to(values[:, None, None], (count, 28, 28))
    np.savez(path, x_train=images, y_train=labels, x_test=images + np.uint8(1), y_test=labels)
    return labels


def values_of(images):
    """The grey values of images (N, C, H, W), -1 to 1."""
    return np.rint((images[:, 0, 0, 0] + 1) * 127.5).astype(int)


def start_in(folder, name, monkeypatch):
    """Return the example ``name`` as a module, whose ``start(*arguments)`` runs it in ``folder``."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def start(*arguments):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        return module.main()

    module.start = start
    return module


def recorded_steps(monkeypatch, game=ConditionalDCGAN):
    """Return the list into which the inputs of each step of ``game`` come from now on."""
    inputs, step = [], game.step

    @functools.wraps(step)  # a game's step is annotated
    def recorded(self, **given):
        inputs.append(given)
        return step(self, **given)

    monkeypatch.setattr(game, "step", recorded)
    return inputs
