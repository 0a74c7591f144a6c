"""The contract of games: every game of nanogan.games is checked, and the check notices what it is for."""

import copy
import dataclasses
import importlib
import json
import pkgutil
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from nanogan import games, ops
from nanogan.errors import UserError
from nanogan.games.game import At, Game, Options, option
from nanogan.gradcheck.games import check_game, random_batches
from nanogan.layers import BatchNorm1d, Dropout, LeakyReLU, Linear, Sequential, Tanh
from nanogan.optim import SGD

MODULES = [importlib.import_module(f"nanogan.games.{module.name}") for module in pkgutil.iter_modules(games.__path__)]
EXAMPLES = {name: example for module in MODULES for name, example in getattr(module, "EXAMPLES", {}).items()}


def test_every_game_has_an_example():
    defined = {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Game)
        and value.step is not Game.step  # a base, which leaves the step to others
        and value.__module__ == module.__name__
    }
    assert defined
    assert defined == {game for game, _, _ in EXAMPLES.values()}


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)], indirect=True)
@pytest.mark.parametrize("name", EXAMPLES)
def test_its_optimisers_step_with_the_slopes_of_their_losses(name, device):
    """Not in the double's hands: there its gradients are the CPU's (tests/test_gpu_path.py), which are checked here."""
    game, options, shapes = EXAMPLES[name]
    check_game(game, options, shapes, device=device, subject=name).raise_if_wrong()


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_a_run_needs_of_it(name):
    """Files, curves, samples, the line and the state: all by the names of its attributes and of what a step returns."""
    game_class, options, shapes = EXAMPLES[name]
    game = game_class(game_class.Options.of(options), shapes)
    batches = random_batches(shapes, game.batches, np.random.default_rng(0))
    batches = [{k: a.astype(np.float32) if a.dtype.kind == "f" else a for k, a in batch.items()} for batch in batches]
    seen = game.step(**game.draw(batches, np.random.default_rng(1), At(1, 1, 1)))
    assert seen._fields == game.fields()
    assert any(field.startswith("loss") for field in seen._fields)
    assert isinstance(game.line({field: float(value) for field, value in seen._asdict().items()}), str)
    assert {column for columns in game.curves.values() for column in columns} <= set(game.fields())
    assert all(network in game.networks().values() or network for network in game.exported().values())
    assert set(game.objectives(seen)) == set(game.optimizers())
    images = game.sample(game.fixed(batches, np.random.default_rng(2)))
    assert images.ndim == 4
    assert abs(images).max() <= 1
    exported = next(iter(game.exported().values()))
    if game.generates:
        assert len(game_class.generate(exported, 5, game.options, np.random.default_rng(3), "cpu")) == 5
    other = game_class(game_class.Options.of(options), shapes, seed=1)
    other.load_state_dict(game.state_dict())
    fixed = game.fixed(batches, np.random.default_rng(2))
    np.testing.assert_array_equal(other.sample(fixed), game.sample(fixed))


@pytest.mark.parametrize("name", EXAMPLES)
def test_backwards_start_from_their_optimisers_dloss(name):
    """Losses scaled by another factor for each optimiser: gradients are that many times as large, the log is as it was.

    No optimiser changes anything here, so that all gradients of a network are of the same parameters.
    """
    game_class, options, shapes = EXAMPLES[name]
    game = game_class(game_class.Options.of(options), shapes, dtype=np.float64)
    batches = random_batches(shapes, game.batches, np.random.default_rng(0))
    inputs, start = game.draw(batches, np.random.default_rng(1), At(1, 1, 1)), copy.deepcopy(game.state_dict())

    def played(scales):
        noted, optimizers = {}, game.optimizers()
        for (key, optimizer), scale in zip(optimizers.items(), scales, strict=False):
            optimizer.dloss, noted[key] = scale, []
            optimizer.step = lambda key=key, optimizer=optimizer, scale=scale: noted[key].append(
                [gradient / scale for _, _, gradient in optimizer.network.named_parameters()]
            )
        game.load_state_dict(start)
        game.reseed(0, 1)
        return game.step(**inputs), noted

    seen, gradients = played([1.0] * 9)
    seen_scaled, scaled = played([2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 23.0])
    np.testing.assert_allclose(list(seen_scaled), list(seen), rtol=1e-9)
    for key, updates in gradients.items():
        for update, other in zip(updates, scaled[key], strict=True):
            for one, two in zip(update, other, strict=True):
                np.testing.assert_allclose(two, one, rtol=1e-8, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_step_takes_the_learning_rates_that_it_is_given(name):
    """Whatever the options say: a schedule and a resumed run's --lr come this way."""
    game_class, options, shapes = EXAMPLES[name]
    game = game_class(game_class.Options.of(options), shapes, dtype=np.float64)
    inputs = game.draw(
        random_batches(shapes, game.batches, np.random.default_rng(0)), np.random.default_rng(1), At(1, 1, 1)
    )
    rates = {key: 1e-4 * i for i, key in enumerate(inputs, start=1) if key == "lr" or key.endswith("_lr")}
    assert rates, "draw hands over a learning rate"
    game.step(**inputs | rates)
    assert {optimizer.lr for optimizer in game.optimizers().values()} == set(rates.values())


def test_a_state_of_another_game_is_refused():
    (game_class, options, shapes), *_ = EXAMPLES.values()
    game = game_class(game_class.Options.of(options), shapes)
    state = game.state_dict()
    del state["d"]
    with pytest.raises(UserError, match="belongs to another game: .* has g, d, opt_g, opt_d, got g, opt_g, opt_d"):
        game.load_state_dict(state)


# ------------------------------------------------------------------------------------------- the check can be failed


class Seen(NamedTuple):
    loss_d: np.ndarray
    loss_g: np.ndarray


@dataclasses.dataclass(frozen=True)
class ToyOptions(Options):
    lr: float = option(0.1, "learning rate", above=0)


class Toy(Game):
    """The smallest GAN: two small networks on vectors; ``mistake`` names what is wrong with its step."""

    Options, mistake = ToyOptions, None

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        rng = np.random.default_rng(seed)
        size, how = shapes["images"][0], {"rng": rng, "dtype": dtype}
        self.options, self.remembered = options, 0.0
        self.g = Sequential(Linear(3, 4, **how), BatchNorm1d(4, dtype=dtype), Tanh(), Linear(4, size, **how))
        self.d = Sequential(Linear(size, 4, **how), LeakyReLU(negative_slope=0.2), Dropout(p=0.3), Linear(4, 1, **how))
        self.judge = Linear(size, 1, **how)  # frozen: it has no optimiser
        self.opt_g, self.opt_d = SGD(self.g, lr=options.lr), SGD(self.d, lr=options.lr)
        self.noise = np.random.default_rng(0)

    def draw(self, batches, rng, at):
        real = batches[0]["images"]
        return {"real": real, "z": rng.standard_normal((len(real), 3)).astype(real.dtype)}

    def objectives(self, seen):
        return {"opt_d": seen.loss_d, "opt_g": seen.loss_g}

    def step(self, real, z) -> Seen:
        wrong = self.mistake
        forward, backward = ops.bce_with_logits_forward, ops.bce_with_logits_backward
        if wrong != "D's gradients are not zeroed":
            self.d.zero_grad()
        logits, cache = self.d.forward(real)
        loss_real, loss_cache = forward(logits, 1.0)
        self.d.backward(backward(1.0, loss_cache), cache, need_dx=False)
        fake, g_cache = self.g.forward(z)
        logits, cache = self.d.forward(fake)
        loss_fake, loss_cache = forward(logits, 1.0 if wrong == "another label in the loss that is told" else 0.0)
        if wrong != "the fake batch is forgotten":
            self.d.backward(backward(-1.0 if wrong == "a sign" else 1.0, loss_cache), cache, need_dx=False)
        if wrong == "another label in the loss that is told":
            loss_fake, _ = forward(logits, 0.0)
        if wrong != "D takes no step":
            self.opt_d.step()

        self.g.zero_grad()
        if wrong == "another loss than the one told":
            logits, cache = self.d.forward(2 * fake)
        else:
            logits, cache = self.d.forward(fake)
        loss_g, loss_cache = forward(logits, 1.0)
        verdict, judge_cache = self.judge.forward(fake)
        loss_judge, judge_loss_cache = forward(verdict, 1.0)
        dfake = self.d.backward(backward(1.0, loss_cache), cache, need_dw=wrong == "D gathers gradients in G's turn")
        if wrong != "a term of G's loss has no gradient":
            dfake = dfake + self.judge.backward(backward(1.0, judge_loss_cache), judge_cache, need_dw=False)
        self.g.backward(dfake, g_cache, need_dx=False)
        if wrong == "random inside a step":
            self.g.layers[0].grads["bias"] += self.noise.standard_normal(4)
        if wrong == "remembers outside its state":
            self.remembered += 1.0
            loss_real = loss_real + self.remembered
        if wrong == "a frozen network moves":
            self.judge.params["weight"] += 1e-3
        if wrong == "G is moved by hand":
            self.g.layers[0].params["weight"] *= 0.9
        self.opt_g.step()
        if wrong == "D moves twice":
            self.d.layers[0].params["weight"] *= 0.9
        return Seen(loss_real + loss_fake, loss_g + loss_judge)


MISTAKES = {
    "D's gradients are not zeroed": "d0.weight|opt_d",
    "another label in the loss that is told": "opt_d",
    "the fake batch is forgotten": "opt_d",
    "a sign": "opt_d",
    "D takes no step": "opt_d takes no step",
    "another loss than the one told": "opt_g",
    "D gathers gradients in G's turn": "the gradients of opt_d's network change after its step",
    "a term of G's loss has no gradient": "opt_g",
    "random inside a step": "two steps from one state differ",
    "remembers outside its state": "two steps from one state differ",
    "a frozen network moves": "the parameters of judge change",
    "G is moved by hand": "the parameters of g change before opt_g.step",
    "D moves twice": "the parameters of d change after the optimisers",
}


def test_a_right_toy_passes():
    check_game(Toy, {}, {"images": (5,)}).raise_if_wrong()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed_and_named(mistake):
    wrong = type("Wrong", (Toy,), {"mistake": mistake})
    report = check_game(wrong, {}, {"images": (5,)})
    assert not report.passed
    with pytest.raises(AssertionError, match=MISTAKES[mistake]):
        report.raise_if_wrong()


class Twice(Toy):
    """Two updates of D, each with a batch; ``mistake`` names what is wrong with the first."""

    batches = 2

    def draw(self, batches, rng, at):
        drawn = [Toy.draw(self, [batch], rng, at) for batch in batches]
        return {"reals": [each["real"] for each in drawn], "zs": [each["z"] for each in drawn]}

    def step(self, reals, zs) -> Seen:
        for real, z in zip(reals[:-1], zs[:-1], strict=True):
            self.d.zero_grad()
            fake, _ = self.g.forward(z)
            for x, label in ((real, 1.0), (fake, 0.0)):
                logits, cache = self.d.forward(x)
                _, loss_cache = ops.bce_with_logits_forward(logits, label)
                dlogits = ops.bce_with_logits_backward(1.0, loss_cache)
                if self.mistake == "a sign in the first update" and label:
                    dlogits = -dlogits
                self.d.backward(dlogits, cache, need_dx=False)
            self.opt_d.step()
            if self.mistake == "weights clipped after a step":
                self.d.layers[0].params["weight"][...] = self.d.layers[0].params["weight"].clip(-0.1, 0.1)
        mistake, self.mistake = self.mistake, None
        seen = Toy.step(self, reals[-1], zs[-1])
        self.mistake = mistake
        return seen


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("a sign in the first update", "update 1 of opt_d has another gradient than its last one"),
        ("weights clipped after a step", "weights are clipped by the optimiser: weight_clip=0.01"),
    ],
)
def test_the_updates_before_the_last_are_checked_too(mistake, told):
    check_game(Twice, {}, {"images": (5,)}).raise_if_wrong()
    report = check_game(type("Wrong", (Twice,), {"mistake": mistake}), {}, {"images": (5,)})
    assert len(report.broken) == 1, "one mistake, one sentence"
    with pytest.raises(AssertionError, match=told):
        report.raise_if_wrong()


LATER = """from __future__ import annotations
import dataclasses
from typing import NamedTuple
from nanogan.games.game import Game, Options, option

class Seen(NamedTuple):
    loss: float

@dataclasses.dataclass(frozen=True)
class LaterOptions(Options):
    beta: float | None = option(None, "a number", low=0, high=1)
    count: int = option(3, "an integer")

class Later(Game):
    Options = LaterOptions
    def step(self, real) -> Seen: ...
"""


def test_annotations_may_be_texts():
    """A game's file may say "from __future__ import annotations"."""
    names = {"__name__": "later"}
    sys.modules["later"] = types.ModuleType("later")
    try:
        exec(LATER, names)
        vars(sys.modules["later"]).update(names)
        assert names["Later"].fields() == ("loss",)
        assert names["LaterOptions"](beta=0.5).beta == 0.5
        with pytest.raises(UserError, match=r"beta expected a number of at least 0 and at most 1, got 2\.0"):
            names["LaterOptions"](beta=2.0)
        with pytest.raises(UserError, match="count expected an integer, got 1.5"):
            names["LaterOptions"](count=1.5)
    finally:
        del sys.modules["later"]


@dataclass(frozen=True)
class EveryKind(Options):
    count: int = option(3, "an integer", low=1)
    share: float = option(0.5, "a number", low=0, high=1)
    flag: bool = option(False, "yes or no")
    text: str = option("a", "a text")
    choice: str = option("a", "a or b", choices=("a", "b"))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", np.int64(4), 4),
        ("count", np.array(4, np.uint8), 4),
        ("share", np.float32(0.25), 0.25),
        ("share", np.float64(0.25), 0.25),
        ("share", np.array(0.25), 0.25),
        ("share", np.int32(1), 1.0),
        ("share", 1, 1.0),
        ("flag", np.bool_(True), True),
        ("text", np.str_("b"), "b"),
        ("text", Path("b"), "b"),
        ("choice", np.str_("b"), "b"),
    ],
)
def test_options_are_kept_as_pythons_values_which_a_checkpoint_can_hold(name, value, expected):
    options = dataclasses.asdict(EveryKind(**{name: value}))
    assert json.loads(json.dumps(options))[name] == expected
    assert type(options[name]) is type(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 4.0), ("count", "4"), ("count", True), ("count", np.float64(4)), ("count", np.array([4])),
        ("share", "0.5"), ("share", 0.5j), ("share", float("nan")), ("share", np.array([0.5])), ("share", True),
        ("share", np.complex64(0.5)), ("share", 10**400), ("flag", 1), ("flag", "no"), ("text", b"a"), ("text", None),
        ("choice", np.array(["a", "b"])), ("choice", ["a"]), ("choice", b"a"), ("choice", None),
    ],
)  # fmt: skip
def test_options_of_another_type_are_refused_when_they_are_made(name, value):
    with pytest.raises(UserError, match=f"{name} "):
        EveryKind(**{name: value})
