"""The ACGAN's step beside torch's autograd, written from A. Odena et al., arXiv:1610.09585, section 3."""

import numpy as np
import pytest
import torch

from benchmarks import torch_dcgan
from nanogan.errors import UserError
from nanogan.games.acgan import ACGAN, ACGANOptions
from nanogan.games.game import At
from nanogan.optim import SGD

N, C, SIZE, CLASSES, LATENT, WIDTH = 6, 2, 16, 3, 4, 3
F = torch.nn.functional


def played(steps, **options):
    """A game in float64, its first state, the inputs of its steps, and what they returned."""
    rng = np.random.default_rng(3)
    options = ACGANOptions(image_size=SIZE, latent=LATENT, width=WIDTH, lr=0.5, **options)
    game = ACGAN(options, {"images": (C, SIZE, SIZE), "labels": CLASSES}, seed=1, dtype=np.float64)
    start = {kind: {k: a.copy() for k, a in getattr(game, kind).state_dict().items()} for kind in "gd"}
    inputs, seen = [], []
    for i in range(1, steps + 1):
        batch = {"images": rng.uniform(-1, 1, (N, C, SIZE, SIZE)), "labels": rng.integers(0, CLASSES, N)}
        inputs.append(game.draw([batch], rng, At(i, 1, steps, steps)) | {"lr": 1e-2})
        seen.append([float(value) for value in game.step(**inputs[-1])])
    return game, start, inputs, seen


class Discriminator(torch.nn.Module):
    """netD but for its last convolution is the trunk, its last convolution one head; the other names the class."""

    def __init__(self, state):
        super().__init__()
        *trunk, last, flatten = torch_dcgan.discriminator(image_size=SIZE, channels=C, width=WIDTH).main
        modules = [[m, torch.nn.Dropout(0.0)] if isinstance(m, torch.nn.LeakyReLU) else [m] for m in trunk]
        self.trunk, self.source = torch.nn.Sequential(*sum(modules, [])), torch.nn.Sequential(last, flatten)
        classes = torch.nn.Conv2d(last.in_channels, CLASSES, last.kernel_size, bias=False)
        self.classes = torch.nn.Sequential(classes, torch.nn.Flatten())
        self.double().load_state_dict({name: torch.tensor(array) for name, array in state.items()})

    def forward(self, x):
        h = self.trunk(x)
        return self.source(h), self.classes(h)


def test_steps_are_torchs():
    """Without dropout, whose zeros torch would draw otherwise; the games' contract has it."""
    game, start, inputs, seen = played(4, dropout=0.0)
    d = Discriminator(start["d"])
    g = torch_dcgan.generator(image_size=SIZE, channels=C, latent=LATENT + CLASSES, width=WIDTH).double()
    g.load_state_dict({name: torch.tensor(array) for name, array in start["g"].items() if name != "classes"})
    opt_g, opt_d = (torch.optim.Adam(network.parameters(), lr=1e-2, betas=(0.5, 0.999)) for network in (g, d))
    for step, numbers in zip(inputs, seen, strict=True):
        labels, wanted = torch.tensor(step["labels"]), torch.tensor(step["wanted"])
        z = torch.cat([torch.tensor(step["z"]), F.one_hot(wanted, CLASSES).double()], dim=1)[:, :, None, None]
        opt_d.zero_grad()
        fake = g(z)
        (on_real, class_real), (on_fake, class_fake) = d(torch.tensor(step["real"])), d(fake.detach())
        class_losses = F.cross_entropy(class_real, labels), F.cross_entropy(class_fake, wanted)
        loss_d = F.softplus(-on_real).mean() + F.softplus(on_fake).mean() + sum(class_losses)
        loss_d.backward()
        opt_d.step()
        opt_g.zero_grad()
        again, class_again = d(fake)
        loss_g = F.softplus(-again).mean() + F.cross_entropy(class_again, wanted)
        loss_g.backward()
        opt_g.step()
        beliefs = [torch.sigmoid(logits).mean().item() for logits in (on_real, on_fake, again)]
        expected = [loss_d.item(), loss_g.item(), *(loss.item() for loss in class_losses), *beliefs]
        np.testing.assert_allclose(numbers, expected, rtol=1e-9)
    for ours, theirs in ((game.g, g), (game.d, d)):
        for name, parameter in theirs.named_parameters():
            np.testing.assert_allclose(ours.state_dict()[name], parameter.detach().numpy(), rtol=0, atol=1e-8)


def test_each_network_takes_the_steps_learning_rate_and_its_own_optimisers_dloss():
    """Adam's first step moves by lr; with SGD, a loss 8 times as large and an eighth of the rate are the same step."""
    game, start, inputs, _ = played(1, dropout=0.0)
    for kind in "gd":
        moved = max(abs(array - start[kind][name]).max() for name, array, _ in getattr(game, kind).named_parameters())
        assert moved == pytest.approx(1e-2, rel=1e-3)
    after = []
    for scale_g, scale_d in ((1.0, 1.0), (4.0, 8.0)):
        game, *_ = played(0, dropout=0.0)
        game.opt_g, game.opt_d = Scaled(game.g, scale_g), Scaled(game.d, scale_d)
        game.step(**inputs[0])
        after.append(game.g.state_dict() | {f"d.{name}": array for name, array in game.d.state_dict().items()})
    for name, array in after[0].items():
        np.testing.assert_allclose(after[1][name], array, rtol=0, atol=1e-12, err_msg=name)


def test_the_images_gradient_is_computed_for_g_alone():
    game, _, (inputs,), _ = played(1)
    images, labels = inputs["real"], inputs["labels"]
    *_, dx = game.through_d(images, 1.0, labels, 1.0, need_dx=False)
    assert dx is None
    *_, dx = game.through_d(images, 1.0, labels, 1.0, need_dw=False)
    assert dx.shape == images.shape
    assert abs(dx).max() > 0


class Scaled(SGD):
    """Losses are ``scale`` times as large, the rate is as much smaller."""

    def __init__(self, network, scale):
        super().__init__(network, lr=1.0)
        self.dloss = scale

    def step(self):
        self.lr = 0.5 / self.dloss
        super().step()


def test_the_classes_asked_for_are_uniform_and_not_the_batchs():
    game, *_ = played(0)
    batch = {"images": np.zeros((600, C, SIZE, SIZE)), "labels": np.ones(600, np.int64)}
    drawn = game.draw([batch], np.random.default_rng(0), At(1, 1, 1))
    assert np.bincount(drawn["wanted"], minlength=CLASSES) == pytest.approx([200] * CLASSES, abs=40)
    assert (drawn["labels"] == 1).all()


def test_the_learning_rate_falls_if_asked_to():
    batch = {"images": np.zeros((2, C, SIZE, SIZE)), "labels": np.zeros(2, np.int64)}
    for decay, expected in (("none", 0.5), ("linear", 0.125)):
        game, *_ = played(0, lr_decay=decay)
        assert game.draw([batch], np.random.default_rng(0), At(4, 1, 4))["lr"] == expected


def test_samples_have_a_column_for_each_class_and_a_z_for_each_row():
    game, *_ = played(0)
    fixed = game.fixed([], np.random.default_rng(0))
    rows = fixed.reshape(-1, CLASSES, LATENT + CLASSES)
    assert game.images_per_row == CLASSES
    assert (rows[:, :, :LATENT] == rows[:, :1, :LATENT]).all()
    assert (rows[:, :, LATENT:].argmax(axis=2) == np.arange(CLASSES)).all()
    assert len({row.tobytes() for row in rows[:, 0]}) == 8


def test_images_without_labels_are_refused():
    with pytest.raises(UserError, match="an ACGAN expected images with labels, got images alone: use a data set with"):
        ACGAN(ACGANOptions(), {"images": (1, 28, 28)})
