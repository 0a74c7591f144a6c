"""How many launches a training step takes, counted with the real CuPy on a driver that computes nothing.

See :mod:`tests.fake_cuda`. Skipped unless the variable NANOGAN_FAKE_CUDA names a folder that was built for it.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanogan import backend
from nanogan.gradcheck.cases import GAMES
from tests.fake_cuda import build
from tests.starting import ROOT

FOLDER = os.environ.get("NANOGAN_FAKE_CUDA")
LIMITS = {("mnist", "float32"): 130, ("64x64", "float32"): 200}  # launches of an eager step
SIZES = ("mnist", "64x64")

needs_the_fake_driver = pytest.mark.skipif(
    not FOLDER,
    reason="NANOGAN_FAKE_CUDA names no folder: python -m tests.fake_cuda.build FOLDER makes one, in a minute",
)
each_step = pytest.mark.parametrize(
    ("size", "precision"), [(size, precision) for size in SIZES for precision in backend.PRECISIONS]
)


def on_the_fake_driver(module, *arguments):
    """Return what a module prints, run by the Python of the folder; fail with its traceback if it fails."""
    python = Path(FOLDER).resolve() / "venv" / "bin" / "python"
    assert python.exists(), f"NANOGAN_FAKE_CUDA={FOLDER} expected a folder that tests.fake_cuda.build made"
    result = subprocess.run([python, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return result.stdout


@functools.cache
def step(size, precision, mode="eager"):
    """What a step takes, as tests/fake_cuda/step.py prints it."""
    return json.loads(on_the_fake_driver("tests.fake_cuda.step", size, precision, "--mode", mode))


@needs_the_fake_driver
def test_the_driver_keeps_its_books():
    assert "checks passed" in on_the_fake_driver("tests.fake_cuda.check")


@needs_the_fake_driver
@pytest.mark.parametrize(("size", "precision"), LIMITS)
def test_a_step_is_few_launches(size, precision):
    seen = step(size, precision)
    assert seen["launches"] <= LIMITS[size, precision], seen["launches_by_name"]


@needs_the_fake_driver
@each_step
def test_a_step_waits_for_nothing_and_copies_nothing_to_or_from_the_host(size, precision):
    seen = step(size, precision)
    assert seen["launches"] > 0
    assert seen["device_syncs"] == {}
    assert not {direction for direction in seen["copies"] if "host" in direction}, seen["copies"]


@needs_the_fake_driver
@each_step
def test_the_fourth_step_allocates_nothing(size, precision):
    assert step(size, precision)["allocations"] == {}


@needs_the_fake_driver
@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_every_game_is_recorded_whole(precision):
    """As one CUDA graph; a replay waits for nothing.

    The recording gives no memory back, and nearly always asks for none: CuPy's pool picks among free blocks by their
    addresses, which no two runs share, and once in some twenty needs one block more. CUDA allows that in the mode in
    which CuPy records.
    """
    games = json.loads(on_the_fake_driver("tests.fake_cuda.graph", precision))
    assert {"mnist", "64x64", *GAMES} == set(games)
    assert sum(seen["allocations"] == {} for seen in games.values()) >= len(games) - 2
    for name, seen in games.items():
        assert seen["plays"] == "replay", (name, seen["told"])
        assert len(seen["told"]) == 1, (name, seen["told"])
        assert seen["recorded"] > 50, name
        assert seen["allocations"] in ({}, {"cudaMalloc": 1}), (name, seen["allocations"])
        assert seen["waits"] == {}, name
    assert sum(games["mnist"]["replay"].values()) == 4


@needs_the_fake_driver
def test_every_game_of_two_ranks_is_recorded_whole():
    """What BatchNorm, a pool and an optimiser compute for sums over ranks is no obstacle; NCCL has no part in it."""
    games = json.loads(on_the_fake_driver("tests.fake_cuda.graph", "float32", "2"))
    for name, seen in games.items():
        assert (seen["plays"], seen["waits"]) == ("replay", {}), (name, seen["told"])


# ------------------------------------------------------------------------------------------------------- without it


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [("g++", "g++ was not found: install it first"), ("nm", "nm was not found"), ("Python.h", "Python's headers")],
)
def test_what_is_missing_is_said_in_one_sentence(missing, sentence, monkeypatch, tmp_path):
    monkeypatch.setattr(build.sys, "platform", "linux")
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(build.shutil, "which", lambda program: None if program == missing else program)
    if missing == "Python.h":
        monkeypatch.setattr(build.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    with pytest.raises(SystemExit) as stopped:
        build.main([str(tmp_path / "folder")])
    assert stopped.value.code.startswith(sentence)
    assert "\n" not in stopped.value.code
    assert not (tmp_path / "folder").exists()


def test_a_command_that_fails_is_said_in_one_sentence():
    with pytest.raises(SystemExit) as stopped:
        build.run(sys.executable, "-c", "import sys; sys.exit('first\\nfatal error: no such file\\nlast')")
    assert stopped.value.code.endswith("failed: fatal error: no such file")
