"""The WGAN's step beside torch's autograd, written from M. Arjovsky et al., arXiv:1701.07875, algorithm 1."""

import numpy as np
import pytest
import torch

from benchmarks import torch_dcgan
from nanogan.errors import UserError
from nanogan.games.game import At
from nanogan.games.wgan import WGAN, WGANOptions
from nanogan.optim import SGD
from tests.test_tangent import torchs_critic

N, C, SIZE, LATENT, WIDTH = 6, 2, 16, 3, 2


def played(steps, **options):
    """A game in float64, its networks before the first step in torch, the inputs of its steps, what they returned."""
    rng = np.random.default_rng(3)
    sizes = {"image_size": SIZE, "latent": LATENT, "width": WIDTH, "lr": 0.5, "n_critic": 2}
    game = WGAN(WGANOptions(**sizes | options), {"images": (C, SIZE, SIZE)}, seed=1, dtype=np.float64)
    for network in (game.g, game.d):
        for _, parameter, _ in network.named_parameters():
            parameter += rng.normal(0, 0.2, parameter.shape)
    d = torch_dcgan.copy_of(game.d) if game.options.critic == "dcgan" else torchs_critic(game.d)
    torchs, inputs, seen = (torch_dcgan.copy_of(game.g), d), [], []
    for i in range(1, steps + 1):
        images = [{"images": rng.uniform(-1, 1, (N, C, SIZE, SIZE))} for _ in range(2)]
        drawn = game.draw(images, rng, At(i, 1, 4, 4))
        assert drawn["lr"] == 0.5
        inputs.append(drawn | {"lr": 1e-2})
        seen.append(game.step(**inputs[-1]))
    return game, torchs, inputs, seen


@pytest.mark.parametrize("options", [{"clip": 0.1}, {"clip": 0.3, "critic": "plain"}])
def test_steps_are_torchs_and_the_clipping_follows_the_update(options):
    """After it, so that G never sees a weight beyond the limit."""
    game, (g, d), inputs, seen = played(3, **options)
    opt_g, opt_d = (torch.optim.RMSprop(network.parameters(), lr=1e-2) for network in (g, d))
    for step, numbers in zip(inputs, seen, strict=True):
        for real, z in zip(step["reals"], step["zs"], strict=True):
            opt_d.zero_grad()
            fake = g(torch.tensor(z)[:, :, None, None])
            on_real, on_fake = d(torch.tensor(real)), d(fake.detach())
            loss_d = on_fake.mean() - on_real.mean()
            loss_d.backward()
            opt_d.step()
            with torch.no_grad():
                for parameter in d.parameters():
                    parameter.clamp_(-options["clip"], options["clip"])
        opt_g.zero_grad()
        loss_g = -d(fake).mean()
        loss_g.backward()
        opt_g.step()
        expected = {"loss_d": loss_d, "loss_g": loss_g, "wasserstein": -loss_d}
        assert numbers._asdict() == pytest.approx({n: v.item() for n, v in expected.items()}, rel=1e-8)
    for ours, theirs in ((game.g, g), (game.d, d)):
        for name, parameter in theirs.named_parameters():
            np.testing.assert_allclose(ours.state_dict()[name], parameter.detach().numpy(), rtol=0, atol=1e-8)
    weights = np.concatenate([parameter.ravel() for _, parameter, _ in game.d.named_parameters()])
    assert abs(weights).max() == options["clip"], "some are at the limit, none beyond"
    assert max(abs(parameter).max() for _, parameter, _ in game.g.named_parameters()) > options["clip"]


def test_each_network_takes_its_own_optimisers_dloss():
    """With SGD, a loss 8 times as large and an eighth of the rate are the same step."""
    after = []
    for scale_g, scale_d in ((1.0, 1.0), (4.0, 8.0)):
        game, *_ = played(0)
        images = [{"images": np.random.default_rng(5).uniform(-1, 1, (N, C, SIZE, SIZE))}]
        inputs = game.draw(images, np.random.default_rng(6), At(1, 1, 1))
        game.opt_g, game.opt_d = SGD(game.g, lr=1.0), SGD(game.d, lr=1.0)
        game.opt_g.dloss, game.opt_d.dloss = scale_g, scale_d
        for optimizer, scale in ((game.opt_g, scale_g), (game.opt_d, scale_d)):
            step = optimizer.step
            optimizer.step = lambda optimizer=optimizer, scale=scale, step=step: (
                setattr(optimizer, "lr", 0.5 / scale), step()
            )  # fmt: skip
        game.step(**inputs)
        after.append(game.g.state_dict() | {f"d.{name}": array for name, array in game.d.state_dict().items()})
    for name, array in after[0].items():
        np.testing.assert_allclose(after[1][name], array, rtol=0, atol=1e-12, err_msg=name)


def test_the_learning_rate_falls_to_0_if_it_is_asked_to():
    game, *_ = played(0, lr_decay="linear")
    images = [{"images": np.zeros((2, C, SIZE, SIZE))}]
    rates = [game.draw(images, np.random.default_rng(0), At(i, 1, 4, 4))["lr"] for i in (1, 3)]
    assert rates == [0.5, 0.25]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 0.0}, "clip expected a number above 0"),
        ({"n_critic": 0}, "n_critic expected an integer of at least 1"),
        ({"critic": "mlp"}, "unknown critic 'mlp': use one of dcgan, plain"),
        ({"image_size": 30}, "30 pixels"),
    ],
)
def test_wrong_options_get_one_sentence(options, message):
    with pytest.raises(UserError, match=message):
        WGANOptions(**options)
