"""What a run is given and could not save is refused when the run is made or begins, not at its first checkpoint."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nanogan import checkpoint
from nanogan.data import Loader
from nanogan.errors import UserError
from nanogan.training import LAST, Run, StepResult, train
from tests.games.playing import recorded


@pytest.fixture
def setup(tmp_path):
    """``run(**options)`` trains an epoch of 3 steps that are only recorded."""
    pictures = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
    loader = Loader(pictures, batch_size=3)
    game = recorded(loader)
    game.result = lambda step: StepResult(*np.float32([1, 2, 3, 4, 5]))

    def run(**options):
        return train(game, loader, Run(tmp_path / "run", **options), epochs=1, seed=1)

    return run, game, tmp_path / "run"


OPTIONS = {
    "path": (Path("a") / "b", str(Path("a") / "b")),
    "n": (np.int64(3), 3),
    "lr": (np.float32(0.5), 0.5),
    "flag": (np.True_, True),
    "text": (np.str_("x"), "x"),
    "betas": ((0.5, np.float64(0.999)), [0.5, 0.999]),
    "inner": ({"list": [Path("c"), None, {3: "three"}]}, {"list": ["c", None, {"3": "three"}]}),
    "array": (np.array([[1, 2]], np.uint8), [[1, 2]]),
    "scalar": (np.array(2.5), 2.5),
}


def test_paths_and_numpys_numbers_among_the_options_are_saved_as_text_and_numbers(setup):
    run, _, out = setup
    given = {name: value for name, (value, _) in OPTIONS.items()}
    expected = {name: value for name, (_, value) in OPTIONS.items()}
    assert run(options=given) is True
    assert json.loads((out / "options.json").read_text()) == expected
    saved = checkpoint.read_training(out / LAST)[0].options
    assert saved == expected
    assert type(saved["n"]) is int
    assert type(saved["flag"]) is bool
    assert isinstance(given["path"], Path), "the caller's dictionary stays as it is"


NESTED = []
for _ in range(100):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"x": float("nan")},
            r"options\['x'\] expected what JSON can hold .*, got nan: give it as text",
        ),
        ({"a": {"b": [1, np.inf]}}, r"options\['a'\]\['b'\]\[1\] expected what JSON can hold .* got inf"),
        ({"f": print}, r"options\['f'\] expected what JSON can hold .* got <built-in function print>"),
        ({"s": {1, 2}}, r"options\['s'\] expected what JSON can hold"),
        ({"b": b"bytes"}, r"options\['b'\] expected what JSON can hold"),
        ({"c": 1j}, r"options\['c'\] expected what JSON can hold"),
        ({"huge": 10**400}, r"options\['huge'\] expected what JSON can hold"),
        ({1: "b", "1": "c"}, "each once, got 1"),
        ({True: "b"}, "each once, got True"),
        ({("a", 1): 2}, r"options expected names that are text, each once, got \('a', 1\)"),
        ({"nested": NESTED}, "at most 20 dictionaries and lists in one another"),
        ({"long": "x" * (1 << 20)}, "expected options of at most 1048576 characters, got 10485"),
        (argparse.Namespace(lr=1), r"options expected a dictionary, got Namespace\(lr=1\): .* give vars\(args\)"),
        ([("lr", 1)], "options expected a dictionary"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[:20],
)
def test_options_that_json_cannot_hold_are_refused_when_the_run_is_made(tmp_path, options, match):
    with pytest.raises(UserError, match=match) as caught:
        Run(tmp_path / "run", options=options)
    assert len(str(caught.value)) < 400
    assert not (tmp_path / "run").exists()


def test_options_that_contain_themselves_are_refused(tmp_path):
    options = {"a": 1}
    options["self"] = options
    with pytest.raises(UserError, match="in one another, got more"):
        Run(tmp_path / "run", options=options)


def test_the_longest_options_that_are_accepted_can_be_saved(setup):
    run, _, out = setup
    assert run(options={"long": "x" * ((1 << 20) - (1 << 16) - 20)}) is True
    assert len(checkpoint.read_training(out / LAST)[0].options["long"]) > 980_000


def test_a_state_that_cannot_be_saved_is_refused_before_a_step_and_an_earlier_run_stays(setup):
    run, game, out = setup
    run()
    before = (out / LAST).read_bytes()
    state, steps = game.state_dict, len(game.seen)
    game.state_dict = lambda: state() | {"mood": "good"}
    with pytest.raises(UserError, match="mood expected a finite number, got 'good'"):
        run()
    assert len(game.seen) == steps
    assert (out / LAST).read_bytes() == before
    assert not (out / "previous").exists()


@pytest.mark.parametrize("name", ["metric", "measure"])
def test_a_measure_that_is_no_function_is_refused_when_the_run_is_made(tmp_path, name):
    with pytest.raises(UserError, match=f"{name} expected a function of the game, got 0.5"):
        Run(tmp_path / "run", **{name: 0.5})


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), np.array([0.5]), torch.tensor(0.5), 0.5])
def test_numbers_of_all_kinds_are_measured(setup, value):
    run, _, out = setup
    run(measure=lambda game: {"m": value}, metric=lambda game: value)
    assert (out / "measures.csv").read_text().splitlines()[1].endswith(",0.5")
    assert checkpoint.read_training(out / LAST)[0].best == 0.5


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"metric": None}, "metric expected a number, got None: return one, NaN if there is none"),
        ({"metric": "0.5"}, "metric expected a number, got '0.5'"),
        ({"metric": np.ones(2)}, "metric expected a number, got array"),
        ({"measure": 0.5}, "measure expected to return a dictionary of numbers by name, .* got 0.5"),
        ({"measure": {"fid": None}}, "measure's fid expected a number, got None"),
        ({"measure": {"fid": "low"}}, "measure's fid expected a number, got 'low'"),
        ({"measure": {"step": 1}}, "other than epoch, step, seconds, got {'step': 1}"),
    ],
    ids=str,
)
def test_a_measure_that_is_no_number_gets_one_sentence_and_costs_no_training(setup, options, match):
    run, _, out = setup
    with pytest.raises(UserError, match=match):
        run(**{name: lambda game, value=value: value for name, value in options.items()})
    assert checkpoint.read_training(out / LAST)[0].step == 3


@pytest.mark.parametrize(
    "option",
    [
        {"log_every": 0},
        {"log_every": None},
        {"log_every": 2.5},
        {"sample_every": -1},
        {"sample_every": "1"},
        {"keep": -1},
        {"keep": True},
        {"checkpoint_minutes": None},
        {"checkpoint_minutes": -1.0},
        {"checkpoint_minutes": float("nan")},
    ],
)
def test_an_interval_that_is_none_is_refused_when_the_run_is_made(tmp_path, option):
    ((name, value),) = option.items()
    with pytest.raises(UserError, match=f"{name} expected an? (integer|number) of at least [01], got {value!r}"):
        Run(tmp_path / "run", **option)


@pytest.mark.parametrize(
    "count", [*({"epochs": value} for value in (0, -1, 1.0, "1", None, True)), {"max_steps": 0}, {"max_steps": 2.5}]
)
def test_a_length_that_is_none_is_refused_before_the_folder_is_made(setup, count):
    _, game, out = setup
    loader = Loader(np.zeros((8, 8, 8, 1), np.uint8), batch_size=3)
    with pytest.raises(UserError, match=f"{next(iter(count))} expected an integer of at least 1, got"):
        train(game, loader, Run(out), **{"epochs": 1} | count)
    assert not out.exists()
