"""The same bits: a run depends on its seed, data, options and number of threads, never on what the process did before.

Networks and batches lie on both sides of every threshold by which fast/cpu chooses a path: the test says which.
"""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from nanogan import dispatch, ops
from nanogan.data import Loader
from nanogan.fast.cpu import (
    batchnorm,
    chunked,
    discriminator,
    elementwise,
    linear,
    threads,
    updates,
    winograd,
)
from nanogan.games.conditional import ConditionalDCGAN, ConditionalOptions
from nanogan.games.dcgan import DCGAN, DCGANOptions
from nanogan.games.game import At

STEPS = 3
# image size, width, batch: small ones run the book, larger ones threads and Winograd's convolution
SIZES = [(8, 2, 4), (28, 32, 32), (32, 32, 32), (32, 64, 32)]


def pictures_of(size, count, seed=5):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 1)).astype(np.uint8)


def play(size, width, batch, *, seed=0, between=lambda game: None, steps=STEPS, **options):
    """Train for a few steps and return every array of the game, as bytes."""
    loader = Loader(pictures_of(size, steps * batch), batch_size=batch, seed=seed)
    game = DCGAN(DCGANOptions(width=width, latent=10, **options), loader.shapes, seed=seed)
    for step, batches in enumerate(loader.epoch(1), start=1):
        inputs = game.draw([batches], np.random.default_rng([seed, step]), At(step, 1, steps, steps))
        game.step(**inputs)
        between(game)
    return bits(game)


def bits(game):
    return b"".join(
        np.ascontiguousarray(array).tobytes() for network in (game.g, game.d) for array in network.state_dict().values()
    )


@pytest.fixture
def two_threads(monkeypatch):
    threads.count()
    monkeypatch.setattr(threads, "_count", 2)


def test_the_sizes_lie_on_both_sides_of_every_threshold(two_threads):
    """Else the tests below would prove little: every path of fast/cpu runs, and so does the book."""
    with dispatch.watch() as small:
        play(*SIZES[0], steps=1)
    with dispatch.watch() as large:
        for sizes in SIZES[1:]:
            play(*sizes, steps=1)
        game = ConditionalDCGAN(ConditionalOptions(networks="mlp"), {"images": (1, 28, 28), "labels": 10})
        batch = {"images": np.zeros((128, 1, 28, 28), np.float32), "labels": np.zeros(128, np.int64)}
        game.step(**game.draw([batch], np.random.default_rng(0), At(1, 1, 1)))
    for operation in ("conv2d_forward", "conv_transpose2d_forward", "batchnorm_forward"):
        assert f"nanogan.fast.cpu.small.{operation}" in {*small, *large}, operation
    modules = winograd, chunked, batchnorm, linear, updates, discriminator
    assert {name.rsplit(".", 1)[0] for name in large} >= {module.__name__ for module in modules}
    assert not {name for name in small if "chunked" in name or "winograd" in name}


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_same_training_twice_in_one_process(sizes, two_threads):
    first = play(*sizes)
    assert play(*sizes) == first
    assert play(*sizes, seed=1) != first


@pytest.mark.parametrize("sizes", SIZES[1:3], ids=str)
def test_samples_between_steps_change_nothing(sizes, two_threads):
    """Drawing 64 samples is a large convolution; it once switched threads on for the steps after it."""

    def draw(game):
        game.sample(game.fixed([], np.random.default_rng(1)))

    assert play(*sizes, between=draw) == play(*sizes)


def test_other_work_of_the_process_changes_nothing(two_threads, rng):
    expected = play(*SIZES[1])

    def others(game):
        play(*SIZES[3], steps=1)
        for _ in range(5):
            ops.conv2d_forward(rng.standard_normal((2, 3, 8, 8)), rng.standard_normal((4, 3, 3, 3)))

    assert play(*SIZES[1], between=others) == expected


def test_two_threads_that_train_at_once(two_threads):
    """Each as it would alone, though BLAS has one number of threads for all."""
    expected, results = [play(*sizes) for sizes in SIZES[1:]], {}

    def work(i):
        results[i] = play(*SIZES[1 + i])

    for _ in range(2):
        workers = [threading.Thread(target=work, args=(i,)) for i in range(len(expected))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [results[i] == expected[i] for i in range(len(expected))] == [True] * len(expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_trains_as_its_parent():
    program = """
import os, sys, hashlib
from nanogan.fast.cpu import threads
threads.count(); threads._count = 2
from tests.test_same_bits import SIZES, play
digest = lambda sizes: hashlib.sha256(play(*sizes)).hexdigest()
before = [digest(sizes) for sizes in SIZES[1:]]
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, ",".join(digest(sizes) for sizes in SIZES[1:]).encode())
    os._exit(0)
os.wait()
print(os.read(read, 10000).decode() == ",".join(before), ",".join(before))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=".")
    assert result.stdout.startswith("True"), result.stderr


def test_a_chosen_path_is_a_function_of_its_arguments(two_threads, rng):
    """The same call, whatever ran before: no path looks at the process's history."""
    dispatch.load("cpu")
    arrays = [
        (rng.standard_normal((n, c, s, s)).astype(np.float32), rng.standard_normal((f, c, 4, 4)).astype(np.float32))
        for n, c, f, s in ((2, 1, 4, 8), (32, 32, 64, 14), (64, 64, 128, 16))
    ]

    def chosen():
        with dispatch.watch() as ran:
            for x, w in arrays:
                dispatch.dispatch(ops.conv2d_forward, ops.conv2d_backward, x, w, stride=2, padding=1)
        return list(ran)

    first = chosen()
    assert len(set(first)) == 3
    for _ in range(3):
        assert chosen() == first
        elementwise.relu_forward(np.zeros((1000, 1000), np.float32))
