"""What the tests of the CPU's fast paths share."""

import pytest

from nanogan.fast.cpu import batchnorm, blocks, chunked, discriminator, elementwise, linear, threads, updates, winograd


@pytest.fixture
def set_threads(monkeypatch):
    """A function that sets the number of threads, and has them used."""

    def set_threads(number):
        threads.count()
        monkeypatch.setattr(threads, "_count", number)

    return set_threads


@pytest.fixture
def small_pieces(monkeypatch, set_threads):
    """Everything takes the fast paths, in several chunks, on three threads."""
    set_threads(3)
    for module, name, value in (
        (winograd, "LARGE", 0),
        (winograd, "CHANNELS", 1),
        (winograd, "ROWS", 4),
        (winograd, "PLANE", 64),
        (chunked, "SMALL", 0),
        (chunked, "THIN", 0),
        (chunked, "WORTHWHILE", 0),
        (chunked, "COLS", 500),
        (blocks, "SMALL", 50),
        (linear, "LEAST", 0),
        (linear, "WORTHWHILE", 0),
        (updates, "LEAST", 0),
        (discriminator, "LEAST", 0),
        (batchnorm, "LEAST", 0),
        (batchnorm, "WORTHWHILE", 0),
        (batchnorm, "CHUNK", 50),
        (batchnorm, "WIDE", 12),
        (elementwise, "WORTHWHILE", 0),
        (elementwise, "LEAST", 0),
        (elementwise, "BLOCK", 50),
        (elementwise, "PIECE", 50),
    ):
        monkeypatch.setattr(module, name, value)
