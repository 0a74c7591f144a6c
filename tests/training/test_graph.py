"""A game's steps as one CUDA graph, on the strict double: a replay is the step, and what cannot be recorded says why.

The double records what is launched and runs it again, on the same memory: a number that Python baked in stays what it
was. The real CuPy records every game in tests/test_launches.py.
"""

import csv
import gc

import numpy as np
import pytest

from nanogan import backend, checkpoint, dispatch
from nanogan.data import Loader
from nanogan.errors import UserError
from nanogan.games.dcgan import DCGAN, DCGANOptions, StepResult
from nanogan.games.game import At
from nanogan.gradcheck.cases import GAMES
from nanogan.gradcheck.games import random_batches
from nanogan.optim import Adam, Ema
from nanogan.training import Run, train
from nanogan.training.graph import Graphed, steps_of
from tests import strict_cupy
from tests.helpers import relative_error

SHAPES = {"images": (1, 16, 16)}
OPTIONS = {"image_size": 16, "latent": 3, "width": 2}
RECORDED = "from this step on a step is one CUDA graph (NANOGAN_GRAPH=0 launches its kernels one by one)"


@pytest.fixture(autouse=True)
def precision_as_it_was():
    yield
    backend.set_matmul_precision("float32")


def dcgan(game_class=DCGAN, dtype=np.float64, **options):
    return game_class(DCGANOptions(**OPTIONS | options), SHAPES, "gpu", seed=1, dtype=dtype)


def play(game, play_step, steps=range(1, 8), shapes=SHAPES, count=None):
    """Play ``steps`` with random inputs that depend on their numbers alone; return what they returned, as floats.

    count: images of a batch, all if None.
    """
    seen = []
    for step in steps:
        game.reseed(1, step)
        batches = random_batches(shapes, game.batches, np.random.default_rng(step), "gpu")
        batches = [
            {name: (a.astype(game.dtype) if a.dtype.kind == "f" else a)[:count] for name, a in batch.items()}
            for batch in batches
        ]
        seen.append(play_step(game.draw(batches, np.random.default_rng([2, step]), At(step, 1, 20, 20))))
    return [[float(value) for value in row] for row in seen]


def eager(game):
    return lambda inputs: game.step(**inputs)


def arrays_of(state, prefix=""):
    """{name: array} of a nested state."""
    found = {}
    for name, value in state.items():
        if isinstance(value, dict):
            found |= arrays_of(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = np.asarray(value if np.isscalar(value) else backend.to_numpy(value))
    return found


def assert_same(game, other, tolerance=1e-9):
    ours, theirs = arrays_of(game.state_dict()), arrays_of(other.state_dict())
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], rtol=tolerance, atol=1e-3 * tolerance, err_msg=name)


CHANGES = {
    "a learning rate that falls": {"lr_decay": "linear"},
    "an average of weights": {"ema": 0.9},
    "noise that falls": {"instance_noise": 0.5},
    "all of it": {"lr_decay": "linear", "ema": 0.5, "instance_noise": 0.1, "d_steps": 2, "d_lr": 1e-3, "d_weight": 0.5},
}


@pytest.mark.parametrize("options", CHANGES.values(), ids=CHANGES)
def test_what_changes_from_step_to_step_is_obeyed(double, options):
    games = [dcgan(**options) for _ in range(2)]
    graphed = Graphed(games[0])
    ours, theirs = play(games[0], graphed), play(games[1], eager(games[1]))
    assert graphed.play == graphed.replay
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert_same(*games)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-4), ("tf32", 1e-4), ("fp16", 3e-2), ("bf16", 3e-2)]
)
def test_in_every_precision(double, precision, tolerance):
    """Adam's corrections are computed on the device here, and rounded once; weights near 0 feel it."""
    backend.get_device("gpu")
    backend.set_matmul_precision(precision)
    games = [dcgan(dtype=np.float32) for _ in range(2)]
    graphed = Graphed(games[0])
    ours, theirs = play(games[0], graphed), play(games[1], eager(games[1]))
    assert graphed.play == graphed.replay
    np.testing.assert_allclose(ours, theirs, rtol=tolerance)
    for name, array in arrays_of(games[0].state_dict()).items():
        assert relative_error(array, arrays_of(games[1].state_dict())[name]) < 10 * tolerance, name


def test_shorter_batches_are_played_kernel_by_kernel_and_counted(double):
    games, told = [dcgan(ema=0.9) for _ in range(2)], []
    graphed = Graphed(games[0], told.append)
    for play_step, game in ((graphed, games[0]), (eager(games[1]), games[1])):
        play(game, play_step, range(1, 6))
        play(game, play_step, [6], count=3)
        play(game, play_step, range(7, 10))
    assert told == [RECORDED]
    assert games[0].opt_g.steps == games[0].ema.steps == 9
    assert_same(*games)


def test_a_run_that_begins_with_a_short_batch_is_recorded_too(double):
    games, told = [dcgan() for _ in range(2)], []
    graphed = Graphed(games[0], told.append)
    for play_step, game in ((graphed, games[0]), (eager(games[1]), games[1])):
        play(game, play_step, [1], count=3)
        play(game, play_step, range(2, 9))
    assert told == [RECORDED]
    assert_same(*games)


def test_inputs_that_are_never_of_one_kind_are_noticed(double):
    class Numbered(DCGAN):
        """Is given the number of the step, an int, which a recording would hold."""

        def draw(self, batches, rng, at):
            return super().draw(batches, rng, at) | {"number": at.step}

        def step(self, number, **inputs) -> StepResult:
            return super().step(**inputs)

    games, told = [dcgan(Numbered) for _ in range(2)], []
    ours = play(games[0], Graphed(games[0], told.append), range(1, 15))
    (line,) = told
    assert line.startswith("a step cannot be one CUDA graph (its inputs are of another kind at every step): ")
    np.testing.assert_allclose(ours, play(games[1], eager(games[1]), range(1, 15)), rtol=1e-9)


def test_numpys_numbers_are_floats(double):
    """As of a schedule in NumPy."""

    class Cosine(DCGAN):
        def draw(self, batches, rng, at):
            return super().draw(batches, rng, at) | {"lr": 1e-3 * (1 + np.cos(np.float64(at.done)))}

    games, told = [dcgan(Cosine) for _ in range(2)], []
    play(games[0], Graphed(games[0], told.append))
    play(games[1], eager(games[1]))
    assert told == [RECORDED]
    assert_same(*games)


def changed(name):
    """{what is changed between two steps: a function of the game that does it}"""
    return {
        "BatchNorm's momentum": lambda game: setattr(game.g[1], "momentum", 0.5),
        "a slope": lambda game: game.d[1].options.update(negative_slope=0.5),
        "running statistics": lambda game: game.g[1].buffers.update(running_mean=game.g[1].buffers["running_mean"] * 2),
        "the average's beta": lambda game: setattr(game.ema, "beta", 0.2),
        "the average": lambda game: setattr(game, "ema", Ema(game.g, beta=0.5)),
        "weight decay": lambda game: setattr(game.opt_d, "weight_decay", 0.1),
        "the precision": lambda game: backend.set_matmul_precision("bf16"),
    }[name]


@pytest.mark.parametrize(
    "name",
    ["BatchNorm's momentum", "a slope", "running statistics", "the average's beta", "the average", "weight decay",
     "the precision"],
)  # fmt: skip
def test_what_is_changed_between_steps_is_recorded_anew(double, name):
    games, told = [dcgan(ema=0.9, dtype=np.float32) for _ in range(2)], []
    for game, play_step in ((games[0], Graphed(games[0], told.append)), (games[1], eager(games[1]))):
        backend.set_matmul_precision("float32")
        play(game, play_step, range(1, 7))
        changed(name)(game)
        if name == "the average" and game is games[0]:
            game.ema.keep_clock(True)
        play(game, play_step, range(7, 10))
    assert told == [RECORDED, RECORDED]
    for key, array in arrays_of(games[0].state_dict()).items():
        assert relative_error(array, arrays_of(games[1].state_dict())[key]) < 1e-3, key


def test_memory_and_cublas_of_a_graph_go_with_it(double):
    game, freed = dcgan(), []
    graphed = Graphed(game)
    play(game, graphed)
    handles, pool = len(backend.cublas._handles), graphed.recorder.pool
    pool.free_all_blocks = lambda stream=None: freed.append(True)
    del graphed
    gc.collect()
    assert freed == [True]
    assert len(backend.cublas._handles) == handles - 1


def test_a_loaded_state_is_gone_on_from(double):
    """Between replays, and with as many steps done as the saved one had."""
    games = [dcgan(ema=0.9, lr_decay="linear") for _ in range(3)]
    play(games[2], eager(games[2]), range(1, 14))
    for game, play_step in ((games[0], Graphed(games[0])), (games[1], eager(games[1]))):
        play(game, play_step, range(1, 7))
        game.load_state_dict(games[2].state_dict())
        play(game, play_step, range(14, 18))
        assert game.opt_d.steps == 17
    assert_same(games[0], games[1])


def test_a_learning_rate_that_no_step_sets_and_arrays_that_moved_are_noticed(double):
    class Plain(DCGAN):
        """A game whose draw says nothing of learning rates."""

        def draw(self, batches, rng, at):
            inputs = super().draw(batches, rng, at)
            return {name: inputs[name] for name in ("reals", "zs", "noises")}

        def step(self, reals, zs, noises) -> StepResult:
            return super().step(reals, zs, noises, self.opt_g.lr, self.opt_d.lr)

    games, told = [dcgan(Plain) for _ in range(2)], []
    for game, play_step in ((games[0], Graphed(games[0], told.append)), (games[1], eager(games[1]))):
        play(game, play_step, range(1, 7))
        game.opt_g.lr = 0.05
        play(game, play_step, range(7, 9))
    assert told == [RECORDED, RECORDED]
    assert_same(*games)
    game, graphed = games[0], Graphed(games[0], told.append)
    play(game, graphed, range(9, 15))
    game.g.astype(np.float32)
    with pytest.raises(UserError, match="expected float32"):
        play(game, graphed, [15])
    assert "a step cannot be one CUDA graph (ConvTranspose2d expected float32" in told[-1]


def test_numbers_of_a_replay_outlive_the_next_one(double):
    game = dcgan()
    graphed, kept = Graphed(game), []
    play(game, lambda inputs: kept.append(graphed(inputs)) or kept[-1], range(1, 9))
    assert len({float(seen.loss_d) for seen in kept}) == 8
    assert isinstance(kept[-1], StepResult)
    np.testing.assert_array_equal(backend.to_numpy(kept[-1].row), [float(value) for value in kept[-1]])


class Counting(DCGAN):
    """Counts its steps by itself, on the host."""

    done = 0

    def step(self, **inputs) -> StepResult:
        self.done = self.done + 1
        return super().step(**inputs)


class Waiting(DCGAN):
    """Reads a number back in its step."""

    def step(self, **inputs) -> StepResult:
        seen = super().step(**inputs)
        self.opt_g.lr = 1e-4 if float(seen.loss_d) > 1 else 2e-4
        return seen


class OwnRule(Adam):
    """An optimiser of a user."""

    def rule(self):
        update, options = super().rule()
        return update, options | {"step": self.steps}


class WithOwnRule(DCGAN):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.opt_g = OwnRule(self.g, lr=1e-3)


class Rebinding(DCGAN):
    """Keeps a running mean of its loss, a new array after each step."""

    running = None

    def step(self, **inputs) -> StepResult:
        seen = super().step(**inputs)
        self.running = seen.loss_d if self.running is None else 0.9 * self.running + 0.1 * seen.loss_d
        return seen


class Alternating(DCGAN):
    """Its G learns in every other step."""

    recordable = False

    def step(self, **inputs) -> StepResult:
        return super().step(**inputs | {"lr": inputs["lr"] * (self.opt_g.steps % 2)})


class OwnEma(Ema):
    """An average of a user."""


class WithOwnEma(DCGAN):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.ema = OwnEma(self.g, beta=0.5)


class OnTheHost(DCGAN):
    """Is given its noise as a NumPy array."""

    def draw(self, batches, rng, at):
        return super().draw(batches, rng, at) | {"zs": [rng.standard_normal((len(batches[0]["images"]), 3))]}

    def step(self, zs, **inputs) -> StepResult:
        return super().step(zs=[backend.to_device(z, "gpu") for z in zs], **inputs)


@pytest.mark.parametrize(
    ("game_class", "why"),
    [
        (Counting, "it changes Counting.done on the host"),
        (Waiting, "to the host|capturing|while"),
        (Rebinding, "it replaces Rebinding.running"),
        (Alternating, "Alternating says so"),
        (WithOwnEma, "ema, a OwnEma, may count its steps on the host"),
        (WithOwnRule, "opt_g, a OwnRule, may count its steps on the host"),
        (OnTheHost, "its input zs is on the host"),
    ],
)
def test_what_cannot_be_recorded_says_why_and_is_played_kernel_by_kernel(double, game_class, why):
    games, told = [dcgan(game_class) for _ in range(2)], []
    ours = play(games[0], Graphed(games[0], told.append))
    (line,) = told
    assert line.startswith("a step cannot be one CUDA graph (")
    assert line.endswith("): its kernels are launched one by one")
    assert any(part in line for part in why.split("|")), line
    np.testing.assert_allclose(ours, play(games[1], eager(games[1])), rtol=1e-9)
    assert_same(*games)
    assert games[0].opt_g.clock is None
    assert games[0].opt_g.steps == 7
    for name, value in vars(games[1]).items():
        if isinstance(value, int):
            assert vars(games[0])[name] == value, name


@pytest.mark.parametrize("switch", ["graph", "fast", "cpu"])
def test_it_can_be_turned_off(double, switch, monkeypatch):
    game = DCGAN(DCGANOptions(**OPTIONS), SHAPES, "cpu" if switch == "cpu" else "gpu")
    monkeypatch.setattr(backend.graphs, "ON", switch != "graph")
    monkeypatch.setattr(dispatch, "FAST", switch != "fast")
    assert not isinstance(steps_of(game), Graphed)
    monkeypatch.undo()


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_a_run_is_a_graph_and_a_resumed_one_goes_on(double, tmp_path, capsys, precision):
    """With a shorter last batch in each epoch, and with loss scaling; against the CPU's run."""
    backend.get_device("gpu")
    backend.set_matmul_precision(precision)
    images = np.random.default_rng(0).integers(0, 256, (8 * 6 + 3, 16, 16, 1)).astype(np.uint8)

    def run(out, device, epochs, resume=None, monkeypatch=None):
        loader = Loader(images, batch_size=8, device=device)
        game = DCGAN(DCGANOptions(**OPTIONS, ema=0.9), loader.shapes, device, seed=1, dtype=np.float32)
        progress = None if resume is None else checkpoint.load_training(resume, game)
        train(game, loader, Run(out), epochs=epochs, resume=progress)
        return game

    whole = run(tmp_path / "whole", "gpu", 2)
    assert capsys.readouterr().out.count("one CUDA graph") == 1
    run(tmp_path / "parts", "gpu", 1)
    parts = run(tmp_path / "parts", "gpu", 2, tmp_path / "parts" / "checkpoints" / "last.safetensors")
    on_cpu = run(tmp_path / "cpu", "cpu", 2)
    assert whole.opt_g.steps == parts.opt_g.steps == on_cpu.opt_g.steps == 14
    assert int(whole.g.state_dict()["main.1.num_batches_tracked"]) == 14
    rows = {}
    for name in ("whole", "parts", "cpu"):
        with open(tmp_path / name / "log.csv", newline="", encoding="utf-8") as file:
            rows[name] = [[float(row[key]) for key in ("loss_d", "loss_g", "d_real")] for row in csv.DictReader(file)]
    assert len(rows["whole"]) == 14
    np.testing.assert_allclose(rows["parts"], rows["whole"], rtol=1e-4 if precision == "float32" else 1e-2)
    np.testing.assert_allclose(rows["cpu"], rows["whole"], rtol=1e-3 if precision == "float32" else 3e-2)


def test_a_replay_is_a_few_launches(double):
    """Its inputs' copies, the graph, and the copy of what it returned; nothing crosses while nothing changes."""
    game = dcgan()
    graphed = Graphed(game)
    play(game, graphed)

    def counted(inputs):
        strict_cupy.launches.clear()
        strict_cupy.transfers.clear()
        seen = graphed(inputs)
        assert strict_cupy.launches == ["copy", "copy", "graph", "copy"]
        assert strict_cupy.transfers == []
        return seen

    play(game, counted, [8])


@pytest.mark.parametrize("name", GAMES)
def test_replays_are_the_steps_of_every_game(double, name):
    """In float64, so that nothing else differs: what a step returned, and all weights, states and counts.

    The last test here, for it takes the longest: planted mistakes are mostly noticed before.
    """
    game_class, options, shapes = GAMES[name]
    games = [game_class(game_class.Options.of(options), shapes, "gpu", seed=1, dtype=np.float64) for _ in range(2)]
    told = []
    ours = play(games[0], Graphed(games[0], told.append), range(1, 7), shapes=shapes)
    assert told == [RECORDED]
    theirs = play(games[1], eager(games[1]), range(1, 7), shapes=shapes)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert_same(*games)
