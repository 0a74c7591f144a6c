"""CycleGAN's step beside torch's autograd, written from arXiv:1703.10593 and the authors' description of their code."""

import numpy as np
import pytest
import torch

from nanogan.errors import UserError
from nanogan.games.cyclegan import CycleGAN, CycleGANOptions
from nanogan.games.game import At
from tests.games.two_domains import gradients_for, load_into

N, SIZE, WIDTH = 3, 12, 3
L1 = torch.nn.functional.l1_loss


class Block(torch.nn.Module):
    def __init__(self, w):
        super().__init__()
        pad, conv, norm = torch.nn.ReflectionPad2d, torch.nn.Conv2d, torch.nn.InstanceNorm2d
        self.f = torch.nn.Sequential(
            pad(1), conv(w, w, 3, bias=False), norm(w), torch.nn.ReLU(), pad(1), conv(w, w, 3, bias=False), norm(w)
        )

    def forward(self, x):
        return x + self.f(x)


def torch_generator(inputs, outputs, w=WIDTH, blocks=1):
    n = torch.nn
    return n.Sequential(
        n.ReflectionPad2d(3), n.Conv2d(inputs, w, 7, bias=False), n.InstanceNorm2d(w), n.ReLU(),
        n.Conv2d(w, 2 * w, 3, 2, 1, bias=False), n.InstanceNorm2d(2 * w), n.ReLU(),
        n.Conv2d(2 * w, 4 * w, 3, 2, 1, bias=False), n.InstanceNorm2d(4 * w), n.ReLU(),
        *[Block(4 * w) for _ in range(blocks)],
        n.ConvTranspose2d(4 * w, 2 * w, 3, 2, 1, 1, bias=False), n.InstanceNorm2d(2 * w), n.ReLU(),
        n.ConvTranspose2d(2 * w, w, 3, 2, 1, 1, bias=False), n.InstanceNorm2d(w), n.ReLU(),
        n.ReflectionPad2d(3), n.Conv2d(w, outputs, 7), n.Tanh(),
    ).double()  # fmt: skip


def torch_discriminator(channels, w=WIDTH):
    n = torch.nn
    return n.Sequential(
        n.Conv2d(channels, w, 4, 2, 1), n.LeakyReLU(0.2),
        n.Conv2d(w, 2 * w, 4, 2, 1, bias=False), n.InstanceNorm2d(2 * w), n.LeakyReLU(0.2),
        n.Conv2d(2 * w, 4 * w, 4, 1, 1, bias=False), n.InstanceNorm2d(4 * w), n.LeakyReLU(0.2),
        n.Conv2d(4 * w, 1, 4, 1, 1),
    ).double()  # fmt: skip


def game_of(channels=(2, 2), dtype=np.float64, **options):
    """A game in float64 with larger weights than its first ones, of which losses of 1 would come."""
    options = {"image_size": SIZE, "width": WIDTH, "blocks": 1, "pool": 4} | options
    shapes = {name: (C, SIZE, SIZE) for name, C in zip("ab", channels, strict=True)}
    game = CycleGAN(CycleGANOptions(**options), shapes, seed=1, dtype=dtype)
    for network in game.networks().values():
        for _, parameter, _ in network.named_parameters():
            parameter *= 10
    return game


def batch_of(rng, channels=(2, 2)):
    return {name: rng.uniform(-1, 1, (N, C, SIZE, SIZE)) for name, C in zip("ab", channels, strict=True)}


@pytest.mark.parametrize(
    ("channels", "options"), [((2, 2), {"identity": 3.0, "cycle": 7.0}), ((1, 3), {"lr": 1e-3, "pool": 0})]
)
def test_steps_are_torchs(channels, options):
    """Losses of every step, and every parameter after the last; the pools are lists that take fake after fake."""
    steps, rng = 6, np.random.default_rng(3)
    game = game_of(channels, **options)
    chosen, lists = game.options, {"a": [], "b": []}
    ab, ba = torch_generator(*channels), torch_generator(*reversed(channels))
    d = {name: torch_discriminator(C) for name, C in zip("ab", channels, strict=True)}
    for network, ours in ((ab, game.ab), (ba, game.ba), (d["a"], game.d_a), (d["b"], game.d_b)):
        load_into(network, ours)
    opt_g = torch.optim.Adam([*ab.parameters(), *ba.parameters()], betas=(0.5, 0.999))
    opt_d = {name: torch.optim.Adam(network.parameters(), betas=(0.5, 0.999)) for name, network in d.items()}

    for i in range(1, steps + 1):
        inputs = game.draw([batch_of(rng, channels)], np.random.default_rng(i), At(i, 1, steps, steps))
        assert inputs["lr"] == pytest.approx(chosen.lr * min(1, (steps + 1 - i) / (steps / 2)))
        for optimizer in (opt_g, *opt_d.values()):
            optimizer.param_groups[0]["lr"] = inputs["lr"]
        x = {name: torch.tensor(inputs[name]) for name in "ab"}
        fake = {"b": ab(x["a"]), "a": ba(x["b"])}
        fooled = sum(((d[name](fake[name]) - 1) ** 2).mean() for name in "ab")
        cycle = L1(ba(fake["b"]), x["a"]) + L1(ab(fake["a"]), x["b"])
        identity = L1(ab(x["b"]), x["b"]) + L1(ba(x["a"]), x["a"]) if chosen.identity else torch.zeros(())
        loss_g = fooled + chosen.cycle * cycle + chosen.identity * identity
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        losses_d = {}
        for name in "ab":
            pooled = []
            for image, place, swap in zip(fake[name].detach(), *inputs[f"pooled_{name}"], strict=True):
                stored = lists[name]
                if len(stored) < chosen.pool:
                    stored.append(image)
                elif chosen.pool and swap:
                    image, stored[place] = stored[place], image
                pooled.append(image)
            opt_d[name].zero_grad()
            on_real, on_fake = d[name](x[name]), d[name](torch.stack(pooled))
            losses_d[name] = 0.5 * (((on_real - 1) ** 2).mean() + (on_fake**2).mean())
            losses_d[name].backward()
            opt_d[name].step()
        expected = [losses_d["a"], losses_d["b"], loss_g, cycle, identity]
        seen = game.step(**inputs)
        assert all(value.dtype == np.float64 for value in seen), "arrays, not numbers of Python"
        np.testing.assert_allclose(seen, [value.item() for value in expected], rtol=1e-9)
    for ours, theirs in ((game.ab, ab), (game.ba, ba), (game.d_a, d["a"]), (game.d_b, d["b"])):
        for (name, parameter, _), tensor in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(parameter, tensor.detach(), rtol=0, atol=1e-8, err_msg=name)


def test_a_backward_starts_from_its_optimisers_dloss():
    """The translators' loss is scaled by one factor, though its gradient comes through the discriminators."""
    game, rng = game_of(pool=0, identity=3.0), np.random.default_rng(0)
    inputs = game.draw([batch_of(rng)], rng, At(1, 1, 4, 4))
    scaled = gradients_for(game, inputs, (4.0, 8.0, 2.0))
    for name, gradient in gradients_for(game, inputs, (1.0, 1.0, 1.0)).items():
        np.testing.assert_allclose(scaled[name], gradient, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_grid_shows_sources_translations_and_what_came_back():
    game, rng = game_of((1, 3), np.float32), np.random.default_rng(0)
    batches = [{name: x.astype(np.float32) for name, x in batch_of(rng, (1, 3)).items()} for _ in range(2)]
    batch = {name: np.concatenate([each[name] for each in batches]) for name in "ab"}  # of 6 images
    rows = game.sample(game.fixed(batches, rng)).reshape(6, game.images_per_row, 3, SIZE, SIZE)
    fake_b, fake_a = game.ab.forward(batch["a"])[0], game.ba.forward(batch["b"])[0]
    expected = [
        *(batch["a"], fake_b, game.ba.forward(fake_b)[0]),
        *(batch["b"], fake_a, game.ab.forward(fake_a)[0]),
    ]
    for row, images in zip(rows, expected, strict=True):
        np.testing.assert_allclose(row[:6], np.broadcast_to(images, (6, 3, SIZE, SIZE)), atol=1e-6)
        assert (row[6:] == -1).all()
    np.testing.assert_array_equal(rows.reshape(-1, 3, SIZE, SIZE)[game.generated], rows[1])


@pytest.mark.parametrize(
    ("options", "shapes", "message"),
    [
        ({}, {"a": (1, 12, 12)}, "expected images in the columns a and b, got none in b"),
        ({}, {"images": (1, 12, 12)}, "expected images in the columns a and b, got none in a and b"),
        ({}, {"a": (1, 12, 12), "b": 10}, "got none in b"),
        ({}, {"a": (1, 12, 12), "b": (1, 16, 16)}, "of one size, got 12 x 12 in a and 16 x 16 in b"),
        ({}, {"a": (1, 12, 16), "b": (1, 12, 16)}, "square images of one size, got 16 x 12 in a"),
        ({"identity": 5.0}, {"a": (1, 12, 12), "b": (3, 12, 12)}, "the same channels, got 1 in a and 3 in b"),
        ({"image_size": 14}, {}, "image_size expected a multiple of 4, at least 12, got 14: use 12 or 16"),
        ({"image_size": 12, "strides": 3}, {}, "image_size expected a multiple of 8, at least 24, got 12: use 24"),
        ({"image_size": 5, "strides": 1}, {}, "image_size expected a multiple of 4, at least 8, got 5: use 8$"),
    ],
)
def test_wrong_domains_get_one_sentence(options, shapes, message):
    with pytest.raises(UserError, match=message):
        CycleGAN(CycleGANOptions(**{"image_size": SIZE, "width": 2} | options), shapes)
