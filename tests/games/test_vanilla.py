"""The vanilla GAN's step beside torch's autograd, with a sigmoid and probabilities as arXiv:1406.2661 writes it."""

import numpy as np
import pytest
import torch
from torch import nn

from nanogan.errors import UserError
from nanogan.games.game import At
from nanogan.games.vanilla import VanillaGAN, VanillaOptions, mean_length

N, C, SIZE, LATENT, HIDDEN = 6, 2, 4, 3, 7
GS_LOSS = {
    "non-saturating": lambda p: -torch.log(p).mean(),
    "saturating": lambda p: torch.log(1 - p).mean(),
}


def played(steps, **options):
    """A game in float64, its networks' states at the start, the inputs of its steps, and what they returned."""
    rng = np.random.default_rng(3)
    options = VanillaOptions(image_size=SIZE, latent=LATENT, hidden=HIDDEN, lr=0.5, beta1=0.7, **options)
    game = VanillaGAN(options, {"images": (C, SIZE, SIZE)}, seed=1, dtype=np.float64)
    start = {kind: {k: a.copy() for k, a in getattr(game, kind).state_dict().items()} for kind in "gd"}
    inputs, seen = [], []
    for i in range(1, steps + 1):
        drawn = game.draw([{"images": rng.uniform(-1, 1, (N, C, SIZE, SIZE))}], rng, At(i, 1, steps, steps))
        assert drawn["lr"] == 0.5
        inputs.append(drawn | {"lr": 1e-2})
        seen.append(game.step(**inputs[-1]))
    return game, start, inputs, seen


def of_torch(start):
    """G and D in torch, D's sigmoid included; layer 5 of G has no counterpart here but the reshape."""
    g = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
                      nn.Linear(HIDDEN, C * SIZE**2), nn.Tanh(), nn.Unflatten(1, (C, SIZE, SIZE)))  # fmt: skip
    d = nn.Sequential(nn.Flatten(), nn.Linear(C * SIZE**2, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, HIDDEN),
                      nn.LeakyReLU(0.2), nn.Linear(HIDDEN, 1), nn.Sigmoid())  # fmt: skip
    for network, state in ((g, start["g"]), (d, start["d"])):
        tensors = {name.removeprefix("main."): torch.tensor(array) for name, array in state.items()}
        network.double().load_state_dict(tensors)
    return g, d


@pytest.mark.parametrize("loss", GS_LOSS)
def test_steps_are_torchs(loss):
    game, start, inputs, seen = played(4, loss=loss)
    g, d = of_torch(start)
    opt_g, opt_d = (torch.optim.Adam(network.parameters(), lr=1e-2, betas=(0.7, 0.999)) for network in (g, d))
    for step, numbers in zip(inputs, seen, strict=True):
        opt_d.zero_grad()
        fake = g(torch.tensor(step["z"]))
        real_p, fake_p = d(torch.tensor(step["real"])), d(fake.detach())
        loss_d = -torch.log(real_p).mean() - torch.log(1 - fake_p).mean()
        loss_d.backward()
        opt_d.step()
        opt_g.zero_grad()
        fake.retain_grad()
        new_p = d(fake)
        loss_g = GS_LOSS[loss](new_p)
        loss_g.backward()
        opt_g.step()
        expected = {
            "loss_d": loss_d,
            "loss_g": loss_g,
            "d_real": real_p.mean(),
            "d_fake_before": fake_p.mean(),
            "d_fake_after": new_p.mean(),
            "gradient_fake": sum(torch.linalg.norm(N * fake.grad[i]) for i in range(N)) / N,
        }
        for name, value in expected.items():
            assert float(getattr(numbers, name)) == pytest.approx(value.item(), rel=1e-9), name
    for ours, theirs in ((game.g, g), (game.d, d)):
        for name, parameter in theirs.named_parameters():
            np.testing.assert_allclose(ours.state_dict()[f"main.{name}"], parameter.detach().numpy(), rtol=0, atol=1e-8)


def test_the_saturating_loss_loses_its_gradient_where_d_wins():
    """With D's last bias at -12, where a fake's probability is 6e-6: one loss keeps its slope, the other a shadow."""
    sizes = {}
    for loss in GS_LOSS:
        game, _, inputs, _ = played(0, loss=loss)
        game.d[-1].params["bias"][...] = -12
        inputs = game.draw([{"images": np.zeros((N, C, SIZE, SIZE))}], np.random.default_rng(0), At(1, 1, 1))
        sizes[loss] = float(game.step(**inputs | {"lr": 1e-9}).gradient_fake)
    assert sizes["saturating"] == pytest.approx(sizes["non-saturating"] * np.exp(-12), rel=0.5)


def test_the_mean_length_is_that_of_each_images_own_loss():
    dfake = np.zeros((2, 1, 2, 2))
    dfake[0, 0, 0], dfake[1, 0, 1, 1] = (3, 4), 2
    assert mean_length(dfake) == pytest.approx(2 * (5 + 2) / 2)


def test_samples_come_from_the_z_that_is_shown_and_no_two_are_alike():
    game, *_ = played(1)
    z = game.fixed([], np.random.default_rng(0))
    images = game.sample(z)
    assert images.shape == (64, C, SIZE, SIZE)
    np.testing.assert_array_equal(images, game.g.forward(z)[0])
    assert np.abs(images[0] - images[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "minimax"}, "unknown loss 'minimax': use one of non-saturating, saturating"),
        ({"hidden": 0}, "hidden expected an integer of at least 1 .*got 0"),
        ({"lr": 0.0}, "lr expected a number above 0, got 0"),
    ],
)
def test_wrong_options_get_one_sentence(options, message):
    with pytest.raises(UserError, match=message):
        VanillaOptions(**options)
