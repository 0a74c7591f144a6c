"""The WGAN-GP's step beside torch's autograd, written from I. Gulrajani et al., arXiv:1704.00028, algorithm 1."""

import numpy as np
import pytest
import torch

from benchmarks import torch_dcgan
from nanogan.errors import UserError
from nanogan.games.game import At
from nanogan.games.wgan_gp import WGANGP, WGANGPOptions
from nanogan.layers import BatchNorm2d
from nanogan.optim import SGD
from nanogan.training.health import Health
from tests.test_tangent import torchs_critic

N, C, SIZE, LATENT, WIDTH = 6, 2, 16, 3, 2


def played(steps, batches=2, **options):
    """A game in float64, its networks before the first step in torch, the inputs of its steps, what they returned."""
    rng = np.random.default_rng(3)
    options = WGANGPOptions(
        **{"image_size": SIZE, "latent": LATENT, "width": WIDTH, "lr": 0.5, "n_critic": batches} | options
    )
    game = WGANGP(options, {"images": (C, SIZE, SIZE)}, seed=1, dtype=np.float64)
    for network in (game.g, game.d):
        for _, parameter, _ in network.named_parameters():
            parameter += rng.normal(0, 0.2, parameter.shape)
    torchs = torch_dcgan.copy_of(game.g), torchs_critic(game.d)
    inputs, seen = [], []
    for i in range(1, steps + 1):
        images = [{"images": rng.uniform(-1, 1, (N, C, SIZE, SIZE))} for _ in range(batches)]
        inputs.append(game.draw(images, rng, At(i, 1, steps, steps)) | {"lr": 1e-2})
        seen.append(game.step(**inputs[-1]))
    return game, torchs, inputs, seen


@pytest.mark.parametrize("options", [{}, {"beta1": 0.0, "beta2": 0.7, "penalty": 3.0}])
def test_steps_are_torchs(options):
    game, (g, d), inputs, seen = played(3, **options)
    betas, weight = (options.get("beta1", 0.5), options.get("beta2", 0.9)), options.get("penalty", 10.0)
    opt_g, opt_d = (torch.optim.Adam(network.parameters(), lr=1e-2, betas=betas) for network in (g, d))
    for step, numbers in zip(inputs, seen, strict=True):
        for real, z, e in zip(step["reals"], step["zs"], step["es"], strict=True):
            real, z, e = (torch.tensor(array) for array in (real, z, e))
            opt_d.zero_grad()
            fake = g(z[:, :, None, None])
            between = (e * real + (1 - e) * fake.detach()).requires_grad_()
            (gradient,) = torch.autograd.grad(d(between).sum(), between, create_graph=True)
            norm = gradient.flatten(1).norm(dim=1)
            penalty, distance = ((norm - 1) ** 2).mean(), d(real).mean() - d(fake.detach()).mean()
            loss_d = -distance + weight * penalty
            loss_d.backward()
            opt_d.step()
        opt_g.zero_grad()
        loss_g = -d(fake).mean()
        loss_g.backward()
        opt_g.step()
        expected = {
            "loss_d": loss_d,
            "loss_g": loss_g,
            "wasserstein": distance,
            "penalty": penalty,
            "gradient_norm": norm.mean(),
        }
        assert numbers._asdict() == pytest.approx({n: v.item() for n, v in expected.items()}, rel=1e-9)
    for ours, theirs in ((game.g, g), (game.d, d)):
        for name, parameter in theirs.named_parameters():
            np.testing.assert_allclose(ours.state_dict()[name], parameter.detach().numpy(), rtol=0, atol=1e-8)


def test_a_step_of_an_epochs_end_may_have_fewer_batches():
    game, _, _, (seen,) = played(1, batches=2)
    assert game.batches == 2
    rng = np.random.default_rng(0)
    inputs = game.draw([{"images": rng.uniform(-1, 1, (4, C, SIZE, SIZE))}], rng, At(1, 1, 1))
    before = game.opt_d.steps, game.opt_g.steps
    game.step(**inputs)
    assert (game.opt_d.steps - before[0], game.opt_g.steps - before[1]) == (1, 1)
    assert {len(value[0]) for name, value in inputs.items() if name != "lr"} == {4}


def test_each_pair_of_images_has_one_share_drawn_evenly_from_0_to_1():
    """Not one for each pixel, and none from N(0, 1): known mistakes of other implementations."""
    game, *_ = played(0)
    images = {"images": np.zeros((4000, C, SIZE, SIZE))}
    (e,) = game.draw([images], np.random.default_rng(0), At(1, 1, 1))["es"]
    assert e.shape == (4000, 1, 1, 1)
    assert e.dtype == np.float64
    counts, _ = np.histogram(e, 10, (0, 1))
    assert counts.sum() == 4000
    assert counts.min() > 320  # 400 +- 19


def test_the_learning_rate_falls_to_0_if_it_is_asked_to():
    for decay, expected in (("none", [0.5, 0.5]), ("linear", [0.5, 0.25])):
        game, *_ = played(0, lr_decay=decay)
        images = [{"images": np.zeros((2, C, SIZE, SIZE))}]
        drawn = [game.draw(images, np.random.default_rng(0), At(i, 1, 2, 2))["lr"] for i in (1, 2)]
        assert drawn == expected


def test_each_network_takes_its_own_optimisers_dloss():
    """With SGD, a loss 8 times as large and an eighth of the rate are the same step."""
    after = []
    for scale_g, scale_d in ((1.0, 1.0), (4.0, 8.0)):
        game, _, _, _ = played(0)
        rng = np.random.default_rng(5)
        images = [{"images": rng.uniform(-1, 1, (N, C, SIZE, SIZE))} for _ in range(2)]
        inputs = game.draw(images, rng, At(1, 1, 1))
        game.opt_g, game.opt_d = SGD(game.g, lr=1.0), SGD(game.d, lr=1.0)
        game.opt_g.dloss, game.opt_d.dloss = scale_g, scale_d
        for optimizer, scale in ((game.opt_g, scale_g), (game.opt_d, scale_d)):
            step = optimizer.step
            optimizer.step = lambda optimizer=optimizer, scale=scale, step=step: (
                setattr(optimizer, "lr", 0.1 / scale), step()
            )  # fmt: skip
        game.step(**inputs)
        after.append(game.g.state_dict() | {f"d.{name}": array for name, array in game.d.state_dict().items()})
    for name, array in after[0].items():
        np.testing.assert_allclose(after[1][name], array, rtol=0, atol=1e-12, err_msg=name)


def test_the_critic_has_no_batchnorm_and_its_scores_are_not_watched_as_probabilities():
    game, *_ = played(1)
    assert not any(isinstance(layer, BatchNorm2d) for _, layer in game.d.named_layers())
    assert any(isinstance(layer, BatchNorm2d) for _, layer in game.g.named_layers())
    columns = ("epoch", "step", *game.fields())
    assert Health(columns, window=1, warm_up=0).check([(1, 1, *range(len(game.fields())))]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_critic": 0}, "n_critic expected an integer of at least 1"),
        ({"penalty": -1.0}, "penalty expected a number of at least 0"),
        ({"image_size": 30}, "30 pixels"),
        ({"beta2": 1.0}, "beta2 expected a number of at least 0 and at most"),
    ],
)
def test_wrong_options_get_one_sentence(options, message):
    with pytest.raises(UserError, match=message):
        WGANGPOptions(**options)
