"""The conditional DCGAN's step beside torch's autograd, written from M. Mirza and S. Osindero, arXiv:1411.1784."""

import copy

import numpy as np
import pytest
import torch

from benchmarks import torch_dcgan
from nanogan.errors import UserError
from nanogan.games.conditional import ConditionalDCGAN, ConditionalOptions
from nanogan.games.game import At
from nanogan.optim import SGD

N, C, SIZE, CLASSES, LATENT, WIDTH = 6, 2, 16, 3, 4, 3
F = torch.nn.functional


def played(steps, **options):
    """A game in float64, the inputs of its steps, and what they returned."""
    rng = np.random.default_rng(3)
    options = ConditionalOptions(image_size=SIZE, latent=LATENT, width=WIDTH, lr=0.5, **options)
    game = ConditionalDCGAN(options, {"images": (C, SIZE, SIZE), "labels": CLASSES}, seed=1, dtype=np.float64)
    start = {kind: {k: a.copy() for k, a in getattr(game, kind).state_dict().items()} for kind in "gd"}
    inputs, seen = [], []
    for i in range(1, steps + 1):
        batch = {"images": rng.uniform(-1, 1, (N, C, SIZE, SIZE)), "labels": rng.integers(0, CLASSES, N)}
        inputs.append(game.draw([batch], rng, At(i, 1, steps, steps)) | {"lr": 1e-2})
        seen.append([float(value) for value in game.step(**inputs[-1])])
    return game, start, inputs, seen


def of_torch(state, *, channels, latent=None):
    options = {"image_size": SIZE, "channels": channels, "width": WIDTH}
    network = (
        torch_dcgan.discriminator(**options) if latent is None else torch_dcgan.generator(latent=latent, **options)
    )
    tensors = {name: torch.tensor(array) for name, array in state.items() if name != "classes"}
    network.double().load_state_dict(tensors)
    return network


def test_steps_are_torchs():
    game, start, inputs, seen = played(4)
    g = of_torch(start["g"], channels=C, latent=LATENT + CLASSES)
    d = of_torch(start["d"], channels=C + CLASSES)
    opt_g, opt_d = (torch.optim.Adam(network.parameters(), lr=1e-2, betas=(0.5, 0.999)) for network in (g, d))

    def judged(images, hot):
        maps = hot[:, :, None, None].expand(-1, -1, SIZE, SIZE)
        return d(torch.cat([images, maps], dim=1))

    for step, numbers in zip(inputs, seen, strict=True):
        hot = F.one_hot(torch.tensor(step["labels"]), CLASSES).double()
        z = torch.cat([torch.tensor(step["z"]), hot], dim=1)[:, :, None, None]
        opt_d.zero_grad()
        on_real, fake = judged(torch.tensor(step["real"]), hot), g(z)
        on_fake = judged(fake.detach(), hot)
        loss_d = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        loss_d.backward()
        opt_d.step()
        opt_g.zero_grad()
        again = judged(fake, hot)
        loss_g = F.softplus(-again).mean()
        loss_g.backward()
        opt_g.step()
        beliefs = [torch.sigmoid(logits).mean().item() for logits in (on_real, on_fake, again)]
        np.testing.assert_allclose(numbers, [loss_d.item(), loss_g.item(), *beliefs], rtol=1e-9)
    for ours, theirs in ((game.g, g), (game.d, d)):
        for name, parameter in theirs.named_parameters():
            np.testing.assert_allclose(ours.state_dict()[name], parameter.detach().numpy(), rtol=0, atol=1e-8)


def test_each_network_takes_the_steps_learning_rate_and_its_own_optimisers_dloss():
    """Adam's first step moves by lr; with SGD, a loss 8 times as large and an eighth of the rate are the same step."""
    game, start, inputs, _ = played(1)
    for kind in "gd":
        moved = max(abs(array - start[kind][name]).max() for name, array, _ in getattr(game, kind).named_parameters())
        assert moved == pytest.approx(1e-2, rel=1e-3)
    after = []
    for scale_g, scale_d in ((1.0, 1.0), (4.0, 8.0)):
        game, *_ = played(0)
        game.opt_g, game.opt_d = SGD(game.g, lr=1.0), SGD(game.d, lr=1.0)
        game.opt_g.dloss, game.opt_d.dloss = scale_g, scale_d
        for optimizer, scale in ((game.opt_g, scale_g), (game.opt_d, scale_d)):
            step = optimizer.step
            optimizer.step = lambda optimizer=optimizer, scale=scale, step=step: (
                setattr(optimizer, "lr", 0.5 / scale), step()
            )  # fmt: skip
        game.step(**inputs[0])
        after.append(game.g.state_dict() | {f"d.{name}": array for name, array in game.d.state_dict().items()})
    for name, array in after[0].items():
        np.testing.assert_allclose(after[1][name], array, rtol=0, atol=1e-12, err_msg=name)


def test_the_fully_connected_pair_takes_an_image_as_it_lies():
    """G's row of numbers is an image again; its order is the one in which D is given the real ones."""
    game, _, inputs, _ = played(1, networks="mlp")
    fixed = game.fixed([], np.random.default_rng(0))
    flat, _ = game.g.forward(fixed, train=False)
    np.testing.assert_array_equal(game.sample(fixed), flat.reshape(-1, C, SIZE, SIZE))
    single = copy.deepcopy(game.g).astype(np.float32)
    generated = game.generate(single, 3, game.options, np.random.default_rng(0), game.device)
    assert generated.shape == (3, C, SIZE, SIZE)
    seen = []
    game.d.forward, forward = lambda x, **options: seen.append(x) or forward(x, **options), game.d.forward
    game.step(**inputs[0])
    np.testing.assert_array_equal(seen[0][:, : C * SIZE * SIZE, 0, 0], inputs[0]["real"].reshape(N, -1))


def test_samples_have_a_row_for_each_class_and_a_z_for_each_column():
    game, *_ = played(1)
    fixed = game.fixed([], np.random.default_rng(0))
    rows = fixed.reshape(CLASSES, game.images_per_row, LATENT + CLASSES)
    assert (rows[:, :, :LATENT] == rows[:1, :, :LATENT]).all()
    assert (rows[:, :, LATENT:].argmax(axis=2) == np.arange(CLASSES)[:, None]).all()


def test_images_without_labels_are_refused():
    with pytest.raises(UserError, match="expected images with labels, got images alone: use a data set with labels"):
        ConditionalDCGAN(ConditionalOptions(), {"images": (1, 28, 28)})
