"""DiscoGAN's step beside torch's autograd, written from arXiv:1703.05192, section 3."""

import numpy as np
import pytest
import torch

from nanogan.errors import UserError
from nanogan.games.discogan import DiscoGAN, DiscoGANOptions
from nanogan.games.game import At
from tests.games.two_domains import gradients_for, load_into

N, SIZE, WIDTH, CHANNELS, WEIGHT = 5, 16, 3, (1, 2), 4.0
BCE = torch.nn.functional.binary_cross_entropy_with_logits
MSE = torch.nn.functional.mse_loss


def torch_generator(inputs, outputs, w=WIDTH):
    n, how = torch.nn, {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False}
    return n.Sequential(
        n.Conv2d(inputs, w, **how), n.LeakyReLU(0.2),
        n.Conv2d(w, 2 * w, **how), n.BatchNorm2d(2 * w), n.LeakyReLU(0.2),
        n.ConvTranspose2d(2 * w, w, **how), n.BatchNorm2d(w), n.ReLU(),
        n.ConvTranspose2d(w, outputs, **how), n.Tanh(),
    ).double()  # fmt: skip


def torch_discriminator(channels, w=WIDTH):
    n, how = torch.nn, {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False}
    return n.Sequential(
        n.Conv2d(channels, w, **how), n.LeakyReLU(0.2),
        n.Conv2d(w, 2 * w, **how), n.BatchNorm2d(2 * w), n.LeakyReLU(0.2),
        n.Conv2d(2 * w, 1, 4, bias=False), n.Flatten(),
    ).double()  # fmt: skip


def game_and_inputs(steps):
    rng, shapes = np.random.default_rng(3), {name: (C, SIZE, SIZE) for name, C in zip("ab", CHANNELS, strict=True)}
    options = DiscoGANOptions(image_size=SIZE, width=WIDTH, reconstruction=WEIGHT, lr=2e-3)
    game = DiscoGAN(options, shapes, seed=1, dtype=np.float64)
    batches = [{name: rng.uniform(-1, 1, (N, *shape)) for name, shape in shapes.items()} for _ in range(steps)]
    return game, [game.draw([batch], rng, At(i, 1, steps, steps)) for i, batch in enumerate(batches, start=1)]


def test_steps_are_torchs():
    """Losses of every step, and every parameter and running statistic after the last."""
    game, steps = game_and_inputs(4)
    assert {inputs["lr"] for inputs in steps} == {2e-3}
    ab, ba = torch_generator(*CHANNELS), torch_generator(*reversed(CHANNELS))
    d_a, d_b = map(torch_discriminator, CHANNELS)
    pairs = (game.ab, ab), (game.ba, ba), (game.d_a, d_a), (game.d_b, d_b)
    for ours, theirs in pairs:
        load_into(theirs, ours)
    opt_g, opt_d = (
        torch.optim.Adam([p for network in networks for p in network.parameters()], lr=1e-2, betas=(0.5, 0.999))
        for networks in ((ab, ba), (d_a, d_b))
    )
    real, fake = torch.ones(N, 1).double(), torch.zeros(N, 1).double()
    for inputs in steps:
        a, b = torch.tensor(inputs["a"]), torch.tensor(inputs["b"])
        fake_b, fake_a = ab(a), ba(b)
        turns = (d_a, a, fake_a.detach()), (d_b, b, fake_b.detach())
        losses_d = [0.5 * (BCE(d(x), real) + BCE(d(y), fake)) for d, x, y in turns]
        opt_d.zero_grad()
        sum(losses_d).backward()
        opt_d.step()
        fooled = BCE(d_b(fake_b), real) + BCE(d_a(fake_a), real)
        reconstruction = MSE(ba(fake_b), a) + MSE(ab(fake_a), b)
        loss_g = fooled + WEIGHT * reconstruction
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        expected = [value.item() for value in (*losses_d, loss_g, reconstruction)]
        np.testing.assert_allclose(game.step(**inputs | {"lr": 1e-2}), expected, rtol=1e-9)
    for ours, theirs in pairs:
        arrays = [array for name, array in ours.state_dict().items() if name != "image_size"]
        for array, tensor in zip(arrays, theirs.state_dict().values(), strict=True):
            np.testing.assert_allclose(array, tensor.numpy(), rtol=0, atol=1e-8)


def test_a_backward_starts_from_its_optimisers_dloss():
    game, (inputs,) = game_and_inputs(1)
    scaled = gradients_for(game, inputs, (4.0, 8.0, 2.0))
    for name, gradient in gradients_for(game, inputs, (1.0, 1.0, 1.0)).items():
        np.testing.assert_allclose(scaled[name], gradient, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_size_that_cannot_be_halved_gets_one_sentence():
    with pytest.raises(UserError, match="30 pixels: it doubles a map of 4 to 7 pixels; use 28 or 32"):
        DiscoGANOptions(image_size=30)
