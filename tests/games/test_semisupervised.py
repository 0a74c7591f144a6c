"""The semi-supervised GAN's step beside torch's autograd, with a softmax over K + 1 classes written out."""

import numpy as np
import pytest
import torch

from nanogan.backend import seeded_rng
from nanogan.data import Loader, few_labels
from nanogan.errors import UserError
from nanogan.games.game import At
from nanogan.games.semisupervised import SemiSupervisedGAN, SemiSupervisedOptions
from nanogan.layers import GaussianNoise

N, C, SIZE, K, LATENT, WIDTH = 6, 2, 4, 3, 4, 8
SHAPES = {"images": (C, SIZE, SIZE), "labelled": (C, SIZE, SIZE), "labels": K}
F = torch.nn.functional


def made(dtype=np.float64, **options):
    return SemiSupervisedGAN(SemiSupervisedOptions(latent=LATENT, width=WIDTH, **options), SHAPES, seed=1, dtype=dtype)


def batches(rng):
    shape = (N, C, SIZE, SIZE)
    return [{"images": rng.uniform(-1, 1, shape), "labelled": rng.uniform(-1, 1, shape), "labels": np.arange(N) % K}]


class Noise(torch.nn.Module):
    """Draws what the layer of the same name draws in a step."""

    def __init__(self, name, std):
        super().__init__()
        self.name, self.std = name, std

    def forward(self, x):
        return x + self.std * torch.tensor(self.rng.standard_normal(tuple(x.shape)))


def of_torch(network, prefix=""):
    """A Sequential of nanogan's, with the same weights."""
    made = []
    for i, layer in enumerate(network.layers):
        kind = type(layer).__name__
        if kind == "Linear":
            out, inputs = layer.params["weight"].shape
            made.append(torch.nn.Linear(inputs, out, bias="bias" in layer.params))
        elif kind == "BatchNorm1d":
            made.append(torch.nn.BatchNorm1d(layer.params["weight"].size))
        elif kind == "GaussianNoise":
            made.append(Noise(f"{prefix}.{i}", layer.options["std"]))
        else:
            made.append({"ReLU": torch.nn.ReLU, "Tanh": torch.nn.Tanh}.get(kind, torch.nn.Flatten)())
        arrays = {name: torch.tensor(array) for name, array in (layer.params | layer.buffers).items()}
        made[-1].double().load_state_dict(arrays)
    return torch.nn.Sequential(*made)


def probabilities(logits):
    """Of K classes and "fake", from K logits: (N, K + 1)."""
    return torch.cat([logits, torch.zeros(len(logits), 1, dtype=logits.dtype)], dim=1).softmax(dim=1)


def torch_step(networks, optimizers, inputs, step, options):
    """The three losses of D and that of G, from probabilities."""
    (g, features, head), (opt_g, opt_d) = networks, optimizers
    for layer in (*features, *head):
        if isinstance(layer, Noise):
            layer.rng = seeded_rng(1, f"{layer.name} in step {step}")
    real, labelled, z = (torch.tensor(inputs[name]) for name in ("real", "labelled", "z"))
    labels, everyone = torch.tensor(inputs["labels"]), torch.arange(N)
    if inputs["wanted"] is not None:
        wanted = torch.tensor(inputs["wanted"])
        z = torch.cat([z, F.one_hot(wanted, K).double()], dim=1)

    opt_d.zero_grad()
    loss_class = -head(features(labelled)).softmax(dim=1)[everyone, labels].log().mean()
    on_real, fake = probabilities(head(features(real))), g(z).reshape(N, C, SIZE, SIZE)
    on_fake = probabilities(head(features(fake.detach())))
    loss_d = loss_class - 0.5 * (1 - on_real[:, K]).log().mean() - 0.5 * on_fake[:, K].log().mean()
    loss_d.backward()
    opt_d.step()

    opt_g.zero_grad()
    of_fake = features(fake)
    logits = head(of_fake)
    again = probabilities(logits)
    if options.g_loss == "features":
        loss_g = ((of_fake.mean(dim=0) - features(real).detach().mean(dim=0)) ** 2).mean()
    else:
        loss_g = -(1 - again[:, K]).log().mean()
    if inputs["wanted"] is not None:
        loss_g = loss_g - 0.25 * logits.softmax(dim=1)[everyone, wanted].log().mean()
    loss_g.backward()
    opt_g.step()
    believed = [1 - p[:, K].mean() for p in (on_real, on_fake, again)]
    return [value.item() for value in (loss_d, loss_g, loss_class, *believed)]


@pytest.mark.parametrize("generator", ["conditional", "unconditional"])
@pytest.mark.parametrize("g_loss", ["features", "non-saturating"])
def test_steps_are_torchs(generator, g_loss):
    game, rng = made(generator=generator, g_loss=g_loss, class_weight=0.25, class_rise=0.0), np.random.default_rng(3)
    networks = of_torch(game.g), of_torch(game.d.features, "d.features"), of_torch(game.d.head, "d.head")
    g, features, head = networks
    how = {"lr": 1e-2, "betas": (0.5, 0.999)}
    of_d = [*features.parameters(), *head.parameters()]
    optimizers = torch.optim.Adam(g.parameters(), **how), torch.optim.Adam(of_d, **how)
    for step in (1, 2, 3):
        game.reseed(1, step)
        inputs = game.draw(batches(rng), rng, At(step, 1, 3, 3)) | {"lr": 1e-2}
        expected = torch_step(networks, optimizers, inputs, step, game.options)
        np.testing.assert_allclose([float(value) for value in game.step(**inputs)], expected, rtol=1e-9)
    for ours, theirs in ((game.g, g), (game.d.features, features), (game.d.head, head)):
        for name, parameter in theirs.named_parameters():
            array = ours.state_dict()[f"{'main.' if ours is game.g else ''}{name}"]
            np.testing.assert_allclose(array, parameter.detach().numpy(), rtol=0, atol=1e-8)


def test_each_network_takes_the_steps_learning_rate_and_its_own_optimisers_dloss():
    """A loss of G 4 times as large has gradients 4 times as large, one of D 8 times."""
    for g_loss in ("features", "non-saturating"):
        found = []
        for scale_g, scale_d in ((1.0, 1.0), (4.0, 8.0)):
            game, rng = made(g_loss=g_loss, class_weight=0.25, class_rise=0.0), np.random.default_rng(3)
            game.opt_g.dloss, game.opt_d.dloss = scale_g, scale_d
            game.opt_g.step = game.opt_d.step = lambda: None
            game.reseed(1, 1)
            game.step(**game.draw(batches(rng), rng, At(1, 1, 1)) | {"lr": 0.25})
            assert game.opt_g.lr == game.opt_d.lr == 0.25
            found.append([
                gradient / scale
                for network, scale in ((game.g, scale_g), (game.d, scale_d))
                for _, _, gradient in network.named_parameters()
            ])  # fmt: skip
        for unscaled, scaled in zip(*found, strict=True):
            np.testing.assert_allclose(scaled, unscaled, rtol=1e-10, atol=1e-14)


def test_the_average_of_d_moves_with_its_update():
    game, rng = made(ema=0.9), np.random.default_rng(3)
    before = game.d.head[1].params["weight"].copy()
    game.reseed(1, 1)
    game.step(**game.draw(batches(rng), rng, At(1, 1, 1)))
    after = game.d.head[1].params["weight"]
    np.testing.assert_allclose(game.averaged_d.head[1].params["weight"], 0.1 * before + 0.9 * after, rtol=1e-12)
    assert abs(after - before).max() > 1e-4


def test_samples_have_a_row_for_each_class_and_a_z_for_each_column():
    game = made()
    rows = game.fixed([], np.random.default_rng(0)).reshape(K, game.images_per_row, LATENT + K)
    assert (rows[:, :, :LATENT] == rows[:1, :, :LATENT]).all()
    assert (rows[:, :, LATENT:].argmax(axis=2) == np.arange(K)[:, None]).all()
    z = made(generator="unconditional").fixed([], np.random.default_rng(0))
    assert z.shape == (K * game.images_per_row, LATENT)
    assert len(np.unique(z)) == z.size


def test_the_classes_asked_for_are_drawn_and_are_not_the_labels():
    game, rng = made(), np.random.default_rng(3)
    drawn = [game.draw(batches(rng), rng, At(1, 1, 1))["wanted"] for _ in range(100)]
    assert 0.25 < np.mean(np.concatenate(drawn) == 2) < 0.42
    assert np.mean(np.concatenate(drawn) == np.tile(np.arange(N) % K, 100)) < 0.5


def test_the_weight_of_the_class_asked_for_rises_with_the_run_or_stays():
    for rise, weights in ((2.0, [0.0, 0.25, 1.0, 2.25]), (0.0, [4.0] * 4)):
        rng, game = np.random.default_rng(3), made(class_weight=4.0, class_rise=rise)
        drawn = [game.draw(batches(rng), rng, At(step, 1, of=4))["class_weight"] for step in (1, 2, 3, 4)]
        assert drawn == weights


def test_the_rate_falls_to_0_or_stays():
    for lr_decay, lr in (("linear", 0.75), ("none", 1.0)):
        rng = np.random.default_rng(3)
        drawn = made(lr=1.0, lr_decay=lr_decay).draw(batches(rng), rng, At(step=2, epoch=1, of=4))
        assert drawn["lr"] == lr


def test_d_has_noise_in_train_mode_alone():
    d = made().d
    noisy = [layer for _, layer in d.named_layers() if isinstance(layer, GaussianNoise)]
    assert [layer.options["std"] for layer in noisy] == [0.6, 0.5, 0.5, 0.5]
    x = np.random.default_rng(0).uniform(-1, 1, (N, C, SIZE, SIZE))
    assert (d.forward(x, train=False)[0] == d.forward(x, train=False)[0]).all()
    assert (d.forward(x)[0] != d.forward(x)[0]).all()


@pytest.mark.parametrize("column", ["labelled", "labels"])
def test_columns_without_few_labels_are_refused(column):
    shapes = {name: shape for name, shape in SHAPES.items() if name != column}
    with pytest.raises(UserError, match=f"got no {column}: nanogan.data.few_labels makes all three"):
        SemiSupervisedGAN(SemiSupervisedOptions(), shapes)


def test_it_plays_with_the_loaders_batches():
    rng = np.random.default_rng(0)
    columns = few_labels(rng.integers(0, 256, (20, SIZE, SIZE, C), np.uint8), np.arange(20) % K, 2 * K)
    loader, game = Loader(columns, batch_size=5), made(np.float32)
    assert loader.shapes == SHAPES
    batch = next(loader.epoch(1))
    assert np.isfinite(game.step(**game.draw([batch], rng, At(1, 1, 4, 4))).loss_d)
