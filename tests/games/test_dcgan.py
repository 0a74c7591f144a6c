"""What the game can be changed to: other losses, soft labels, noise on pictures, more updates of D, schedules."""

import csv

import numpy as np
import pytest
import torch

from benchmarks import torch_dcgan
from nanogan import checkpoint
from nanogan.backend import seeded_rng, to_device, to_numpy
from nanogan.data import Loader
from nanogan.errors import UserError
from nanogan.games import dcgan as games_dcgan
from nanogan.games.drawing import draw_noise, draw_z
from nanogan.games.game import At
from nanogan.optim import SGD, Adam
from nanogan.training import LOSSES, Run, adversarial_step, discriminator_step, sample, train
from tests.games.playing import dcgan_of, recorded
from tests.games.test_adversarial import BATCH, LATENT, batches, networks
from tests.helpers import channels_last, relative_error

F = torch.nn.functional

# D's loss on real and on drawn pictures, and G's, each of logits; a is the label smoothing
FORMULAS = {
    "bce": (
        lambda r, a: ((1 - a) * F.softplus(-r) + a * F.softplus(r)).mean(),
        lambda f: F.softplus(f).mean(),
        lambda n: F.softplus(-n).mean(),
    ),
    "saturating": (
        lambda r, a: ((1 - a) * F.softplus(-r) + a * F.softplus(r)).mean(),
        lambda f: F.softplus(f).mean(),
        lambda n: torch.log(1 - torch.sigmoid(n)).mean(),
    ),
    "lsgan": (
        lambda r, a: ((r - (1 - a)) ** 2).mean(),
        lambda f: (f**2).mean(),
        lambda n: ((n - 1) ** 2).mean(),
    ),
    "hinge": (
        lambda r, a: F.relu(1 - r).mean(),
        lambda f: F.relu(1 + f).mean(),
        lambda n: -n.mean(),
    ),
}
GAMES = [
    *({"loss": name} for name in FORMULAS),
    {"loss": "bce", "label_smoothing": 0.1},
    {"loss": "saturating", "label_smoothing": 0.25},
    {"loss": "lsgan", "label_smoothing": 0.1},
    *({"loss": name, "noisy": True} for name in FORMULAS),
]


def lively(dtype=np.float64):
    """Networks whose logits reach beyond 1 and -1, where the hinge loss has its kinks."""
    rng = np.random.default_rng(12)
    result = networks(dtype)
    for network in result:
        for name, parameter, _ in network.named_parameters():
            parameter += (0.4 * rng.standard_normal(parameter.shape)).astype(dtype) * (not name.endswith("bias"))
    return result


def noise_for(dtype, seed=8):
    rng = np.random.default_rng(seed)
    ((real, _),) = batches(1, dtype)
    return [channels_last(0.3 * rng.standard_normal(real.shape)).astype(dtype) for _ in range(2)]


def split(game):
    """The keyword arguments of a step, and the noise."""
    game = dict(game)
    noise = noise_for(np.float64) if game.pop("noisy", False) else (None, None)
    return game, noise


def test_every_loss_is_compared():
    assert LOSSES.keys() == FORMULAS.keys()


@pytest.mark.parametrize("game", GAMES, ids=str)
def test_a_step_is_torchs(game, device):
    """Every number that it returns, and both networks' gradients: with SGD a step moves them by lr times those."""
    game, noise = split(game)
    g, d = lively()
    tg, td = torch_dcgan.copy_of(g), torch_dcgan.copy_of(d)
    before = {
        name: array.copy() for n in (g, d) for name, array in ((f"{id(n)}.{k}", a) for k, a in n.state_dict().items())
    }
    keys = {"g": id(g), "d": id(d)}
    ((real, z),) = batches(1, np.float64)
    g, d = g.to(device), d.to(device)
    moved = [to_device(array, device) for array in (real, z)]
    there = [None if array is None else to_device(array, device) for array in noise]
    result = adversarial_step(g, d, SGD(g, lr=0.01), SGD(d, lr=0.01), *moved, noise=there, **game)

    on_real, on_drawn, of_g = FORMULAS[game["loss"]]
    add = [torch.zeros(1, dtype=torch.float64) if array is None else torch.tensor(array) for array in noise]
    opt_g, opt_d = (torch.optim.SGD(network.parameters(), lr=0.01) for network in (tg, td))
    real_logits = td(torch.tensor(real) + add[0])
    fake = tg(torch.tensor(z).reshape(BATCH, LATENT, 1, 1))
    fake_logits = td(fake.detach() + add[1])
    loss_d = on_real(real_logits, game.get("label_smoothing", 0.0)) + on_drawn(fake_logits)
    loss_d.backward()
    opt_d.step()
    new_logits = td(fake + add[1])
    loss_g = of_g(new_logits)
    opt_g.zero_grad()
    loss_g.backward()
    opt_g.step()

    if game["loss"] == "hinge":
        reached = torch.cat([real_logits > 1, fake_logits < -1])
        assert reached.any(), "both sides of the kink must have been tried"
        assert not reached.all()
    logits = (real_logits, fake_logits, new_logits)
    expected = [loss_d.item(), loss_g.item(), *(torch.sigmoid(x).mean().item() for x in logits)]
    np.testing.assert_allclose([float(to_numpy(value)) for value in result], expected, rtol=1e-9)
    for kind, network, other in (("g", g, tg), ("d", d, td)):
        theirs = dict(other.named_parameters())
        for name, parameter, _ in network.named_parameters():
            start = before[f"{keys[kind]}.{name}"]
            change, theirs_change = to_numpy(parameter) - start, theirs[name].detach().numpy() - start
            assert np.abs(theirs_change).max() > 1e-9, f"{kind}: {name} must move for this to prove anything"
            assert relative_error(change, theirs_change) < 1e-7, (kind, name)


@pytest.mark.parametrize("game", GAMES, ids=str)
def test_a_step_of_the_discriminator_alone_is_the_first_half_of_a_whole_one(game):
    game, noise = split(game)
    game["d_weight"] = 0.5  # it shows in the optimiser's state alone: Adam's steps are those of the whole loss
    ((real, z),) = batches(1, np.float64)
    g, d = lively()
    other_g, other_d = lively()
    opt_d, other_opt_d = Adam(d, lr=1e-3), Adam(other_d, lr=1e-3)
    before = {name: parameter.copy() for name, parameter, _ in g.named_parameters()}
    assert discriminator_step(g, d, opt_d, real, z, noise=noise, **game) is None
    adversarial_step(other_g, other_d, Adam(other_g), other_opt_d, real, z, noise=noise, **game)
    for name, parameter, _ in other_d.named_parameters():
        np.testing.assert_array_equal(d.state_dict()[name], parameter)
    for name, array in other_opt_d.state.items():
        np.testing.assert_array_equal(opt_d.state[name], array)
    for name, parameter, _ in g.named_parameters():
        np.testing.assert_array_equal(parameter, before[name])
    for name, array in other_g.state_dict().items():
        if "running" in name:
            np.testing.assert_array_equal(g.state_dict()[name], array)


def test_pictures_without_noise_are_not_copied_and_nothing_that_is_given_changes():
    g, d = networks(np.float32)
    ((real, z),) = batches(1, np.float32)
    noise = noise_for(np.float32)
    given = [real, z, *noise]
    kept = [array.copy() for array in given]
    adversarial_step(g, d, Adam(g), Adam(d), real, z, noise=noise)
    for array, before in zip(given, kept, strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "wgan"}, "unknown loss 'wgan': use one of bce, saturating, lsgan, hinge"),
        ({"label_smoothing": -0.1}, "label_smoothing expected a number from 0 to 0.5, got -0.1"),
        ({"label_smoothing": 0.6}, "from 0 to 0.5, got 0.6"),
        ({"label_smoothing": float("nan")}, "from 0 to 0.5, got nan"),
        ({"label_smoothing": 0.1, "loss": "hinge"}, "the hinge loss has none: leave it out"),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_a_game_that_is_none_gets_one_sentence_and_changes_nothing(options, message, alone):
    g, d = networks(np.float32)
    ((real, z),) = batches(1, np.float32)
    before = [array.copy() for network in (g, d) for array in network.state_dict().values()]
    with pytest.raises(UserError, match=message):
        if alone:
            discriminator_step(g, d, Adam(d), real, z, **options)
        else:
            adversarial_step(g, d, Adam(g), Adam(d), real, z, **options)
    after = [array for network in (g, d) for array in network.state_dict().values()]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


# ------------------------------------------------------------------------------------------------- what is drawn


def test_noise_has_its_standard_deviation_and_is_the_same_on_every_device(device):
    noise = draw_noise(np.random.default_rng(3), (20, 3, 16, 12), 0.25, device)
    assert noise.shape == (20, 3, 16, 12)
    assert noise.dtype == np.float32
    assert noise.transpose(0, 2, 3, 1).flags.c_contiguous
    drawn = to_numpy(noise).astype(float)
    many = drawn.size**-0.5
    assert abs(drawn.mean()) < 5 * 0.25 * many
    assert drawn.std() == pytest.approx(0.25, rel=5 * many)
    assert abs((drawn[:, 0] * drawn[:, 1]).mean()) < 5 * 0.25**2 * 3**0.5 * many, "channels are independent"
    expected = np.random.default_rng(3).standard_normal((20, 16, 12, 3), dtype=np.float32).transpose(0, 3, 1, 2) / 4
    np.testing.assert_array_equal(to_numpy(noise), expected)


@pytest.mark.parametrize(("kind", "std", "largest"), [("normal", 1.0, 6.0), ("uniform", 3**-0.5, 1.0)])
def test_z_is_normal_or_uniform_and_the_same_on_every_device(kind, std, largest, device):
    z = to_numpy(draw_z(np.random.default_rng(4), 500, 20, kind, device))
    assert z.shape == (500, 20)
    assert z.dtype == np.float32
    assert abs(z.mean()) < 5 * std / 100
    assert z.std() == pytest.approx(std, rel=0.04)
    assert 0.99 * min(largest, 3) < np.abs(z).max() <= largest
    np.testing.assert_array_equal(z, draw_z(np.random.default_rng(4), 500, 20, kind))


# ------------------------------------------------------------------------------------------------------- the loop


PICTURES = np.random.default_rng(2).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)


@pytest.fixture
def record(tmp_path):
    """Run 2 epochs of 3 batches whose steps are only recorded; return their inputs and the log's epochs and steps."""

    def run(name="run", *, max_steps=None, **options):
        loader = Loader(PICTURES, batch_size=3)
        game = recorded(loader, **options)
        train(game, loader, Run(tmp_path / name), epochs=2, seed=1, max_steps=max_steps)
        with open(tmp_path / name / "log.csv", newline="") as file:
            return game.seen, [(int(row["epoch"]), int(row["step"])) for row in csv.DictReader(file)]

    return run


def test_nothing_is_added_unless_asked_for(record):
    seen, _ = record(lr=0.5)
    for step in seen:
        assert step["lr"] == 0.5
        assert step["noises"] == [(None, None)]
        assert step["zs"][0].dtype == np.float32
    expected = seeded_rng(1, "step 1").standard_normal((3, 3), dtype=np.float32)
    np.testing.assert_array_equal(seen[0]["zs"][0], expected)


def test_a_step_is_told_what_to_minimise(monkeypatch):
    """By the options of its game, for D alone too."""
    loader, told = Loader(PICTURES, batch_size=3), []
    monkeypatch.setattr(games_dcgan, "discriminator_step", lambda *arrays, **how: told.append(how))
    monkeypatch.setattr(games_dcgan, "adversarial_step", lambda *arrays, **how: told.append(how))
    game = dcgan_of(loader, d_steps=2, loss="lsgan", label_smoothing=0.2)
    batches = [batch for batch, _ in zip(loader.epoch(1), range(2), strict=False)]
    game.step(**game.draw(batches, seeded_rng(1, "step 1"), At(1, 1, 2, 2)))
    assert len(told) == 2
    for how in told:
        assert (how["loss"], how["label_smoothing"]) == ("lsgan", 0.2)


@pytest.mark.parametrize(
    ("d_steps", "kinds", "rows"),
    [
        (2, "dggdgg", [(1, 1), (1, 2), (2, 3), (2, 4)]),
        (3, "ddgddg", [(1, 1), (2, 2)]),
        (5, "ddgddg", [(1, 1), (2, 2)]),
    ],
)
def test_d_takes_every_batch_once_an_epoch_and_g_every_nth(record, d_steps, kinds, rows):
    plain, _ = record("plain")
    seen, logged = record(d_steps=d_steps)
    assert "".join("d" * (len(step["reals"]) - 1) + "g" for step in seen) == kinds
    assert logged == rows, "a step is one of g"
    reals = [real for step in seen for real in step["reals"]]
    for real, step in zip(reals, plain, strict=True):
        np.testing.assert_array_equal(real, step["reals"][0])
    zs = [z for step in seen for z in step["zs"]]
    assert [len(z) for z in zs] == [len(real) for real in reals]
    assert len(np.unique(np.concatenate(zs))) == sum(z.size for z in zs), "each update of D has a z of its own"


def test_of_a_step_d_takes_as_many_updates_as_it_has_batches_and_g_one():
    loader = Loader(PICTURES, batch_size=2)
    game = dcgan_of(loader, d_steps=3)
    game.step(**game.draw([batch for batch, _ in zip(loader.epoch(1), range(3), strict=False)], seeded_rng(1, "s"),
                          At(1, 1, 2, 2)))  # fmt: skip
    assert (game.opt_d.steps, game.opt_g.steps) == (3, 1)


def test_noise_is_drawn_anew_for_each_batch_and_falls_to_nothing(record):
    seen, _ = record(instance_noise=0.6)
    for step, inputs in enumerate(seen):
        rng = seeded_rng(1, f"step {step + 1}")
        N = len(inputs["reals"][0])
        rng.standard_normal((N, 3), dtype=np.float32)  # z
        ((on_real, on_fake),) = inputs["noises"]
        for added in (on_real, on_fake):
            drawn = rng.standard_normal((N, 8, 8, 1), dtype=np.float32).transpose(0, 3, 1, 2)
            np.testing.assert_allclose(added, 0.6 * (6 - step) / 6 * drawn, rtol=1e-6)


def test_noise_and_decay_follow_the_planned_run_not_where_it_stops(record):
    whole, _ = record("whole", instance_noise=0.6, lr_decay="linear")
    short, _ = record("short", instance_noise=0.6, lr_decay="linear", max_steps=4)
    assert len(short) == 4
    for step, other in zip(short, whole, strict=False):
        assert step["lr"] == other["lr"]
        np.testing.assert_array_equal(step["noises"][0][0], other["noises"][0][0])


@pytest.mark.parametrize(("d_steps", "steps"), [(1, 6), (2, 4)])
def test_learning_rates_fall_in_a_straight_line(record, d_steps, steps):
    seen, _ = record(lr_decay="linear", d_steps=d_steps, lr=0.5)
    assert [step["lr"] for step in seen] == pytest.approx([0.5 * (steps - i) / steps for i in range(steps)])


def test_the_step_takes_the_learning_rate_that_it_is_given():
    """With gradients of any size Adam's first step moves by about lr."""
    loader = Loader(PICTURES, batch_size=4)
    for lr in (1e-3, 1e-2):
        game = dcgan_of(loader, lr=0.123, d_lr=0.246)
        before = {name: array.copy() for name, array, _ in (*game.g.named_parameters(), *game.d.named_parameters())}
        inputs = game.draw([next(loader.epoch(1))], seeded_rng(1, "step 1"), At(1, 1, 2, 2))
        assert (inputs["lr"], inputs["d_lr"]) == (0.123, 0.246)
        game.step(**inputs | {"lr": lr, "d_lr": 3 * lr})
        for network, factor in ((game.g, 1), (game.d, 3)):
            moved = [abs(array - before[name]).max() for name, array, _ in network.named_parameters()
                     if before[name].shape == array.shape]  # fmt: skip
            assert max(moved) == pytest.approx(factor * lr, rel=0.01)
    game = dcgan_of(loader, lr=0.123)
    assert game.draw([next(loader.epoch(1))], seeded_rng(1, "step 1"), At(1, 1, 2, 2))["d_lr"] == 0.123, (
        "G's if not given"
    )


def test_ds_loss_is_weighed_and_gs_is_not():
    loader, seen = Loader(PICTURES, batch_size=4), []
    for weight in (1.0, 0.5):
        game = dcgan_of(loader, d_weight=weight)
        game.opt_d = SGD(game.d, lr=1.0)
        before = game.d.layers[0].params["weight"].copy()
        result = game.step(
            **game.draw([next(loader.epoch(1))], seeded_rng(1, "step 1"), At(1, 1, 2, 2)) | {"d_lr": 1.0}
        )
        seen.append((result.loss_d, game.d.layers[0].params["weight"] - before))
    assert seen[1][0] == pytest.approx(seen[0][0] / 2)
    np.testing.assert_allclose(seen[1][1], seen[0][1] / 2, rtol=1e-3, atol=1e-6)


def test_z_of_the_run_is_uniform_if_asked_for(record):
    seen, _ = record(z="uniform")
    z = np.concatenate([step["zs"][0] for step in seen])
    assert np.abs(z).max() <= 1
    assert z.std() == pytest.approx(3**-0.5, rel=0.3)
    assert np.abs(np.concatenate([step["zs"][0] for step in record("normal")[0]])).max() > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "wgan"}, "unknown loss 'wgan'"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "the hinge loss has none"),
        ({"instance_noise": -1.0}, "instance_noise expected a number of at least 0 and at most 100, got -1.0"),
        ({"instance_noise": float("nan")}, "at most 100, got nan"),
        ({"lr": 0.0}, "lr expected a number above 0, got 0.0"),
        ({"lr": float("inf")}, "lr expected a number above 0, got inf"),
        ({"lr_decay": "cosine"}, "unknown lr_decay 'cosine': use one of none, linear"),
        ({"d_steps": 0}, "d_steps expected an integer of at least 1 and at most 1000, got 0"),
        ({"d_steps": 1.5}, "got 1.5"),
        ({"d_steps": True}, "got True"),
        ({"z": "cauchy"}, "unknown z 'cauchy'"),
        ({"image_size": 30}, "30"),
        ({"ema": 1.0}, "ema expected a number of at least 0 and at most 0.999999, got 1.0"),
    ],
)
def test_options_that_are_none_get_one_sentence_before_anything_is_written(record, tmp_path, options, message):
    with pytest.raises(UserError, match=message) as caught:
        record(**options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_average_is_what_is_drawn_saved_and_measured(tmp_path):
    loader, measured = Loader(PICTURES, batch_size=2), []
    game = dcgan_of(loader, lr=1e-2, ema=0.9)

    def metric(game):
        measured.append(game.exported()["generator.safetensors"])
        return 1.0

    train(game, loader, Run(tmp_path, metric=metric), epochs=1, seed=3)
    average = game.ema.average
    assert game.ema.steps == 4
    assert measured == [average]
    z = game.fixed([], seeded_rng(3, "fixed noise"))
    np.testing.assert_array_equal(game.sample(z), sample(average, z))
    saved = checkpoint.read(tmp_path / "generator.safetensors")
    training = checkpoint.read_training(tmp_path / "checkpoints/last.safetensors")[1]
    for name, array in average.state_dict().items():
        np.testing.assert_array_equal(saved[name], array)
        np.testing.assert_array_equal(training[f"ema.average.{name}"], array)
        np.testing.assert_array_equal(training[f"g.{name}"], game.g.state_dict()[name])
        if array.ndim == 4:
            assert np.abs(array - game.g.state_dict()[name]).max() > 1e-4
