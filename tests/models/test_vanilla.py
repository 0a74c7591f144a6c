"""The fully connected networks: their sizes, files, and what is said of wrong ones. tests/games compares with torch."""

import numpy as np
import pytest
import safetensors.numpy

from nanogan import checkpoint
from nanogan.errors import UserError
from nanogan.games.game import At
from nanogan.games.vanilla import VanillaGAN
from nanogan.models import dcgan, vanilla

LOAD = checkpoint.generator_loader(vanilla, "vanilla GAN generator")
SIZES = {"image_size": 5, "latent": 4, "hidden": 6}


def test_parameters_are_those_of_the_layers():
    """64-256-256-784 and 784-256-256-1, with biases."""
    g, d = vanilla.generator(), vanilla.discriminator()
    assert g.parameter_count() == 64 * 256 + 256 + 256 * 256 + 256 + 256 * 784 + 784
    assert d.parameter_count() == 784 * 256 + 256 + 256 * 256 + 256 + 256 + 1
    assert vanilla.generator(**SIZES, channels=3)[4].params["weight"].shape == (75, 6)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_holds_all_sizes(tmp_path, channels, rng):
    g = vanilla.generator(**SIZES, channels=channels, rng=rng)
    checkpoint.save(tmp_path / "g.safetensors", g)
    loaded = LOAD(tmp_path / "g.safetensors")
    assert (loaded.image_size, loaded.channels, loaded.latent, loaded.hidden) == (5, channels, 4, 6)
    z = rng.standard_normal((3, 4), dtype=np.float32)
    images, _ = g.forward(z)
    assert images.shape == (3, channels, 5, 5)
    np.testing.assert_array_equal(loaded.forward(z)[0], images)


def test_a_runs_checkpoint_opens_too_and_is_compared_with_its_options(tmp_path, rng):
    game = VanillaGAN(VanillaGAN.Options(**SIZES), {"images": (1, 5, 5)})
    game.step(**game.draw([{"images": rng.uniform(-1, 1, (3, 1, 5, 5)).astype(np.float32)}], rng, At(1, 1, 1)))
    progress = checkpoint.Progress(step=1, epoch=1, batch=1, steps_per_epoch=1, seconds=1.0)
    checkpoint.save_training(tmp_path / "last.safetensors", game, progress)
    loaded = LOAD(tmp_path / "last.safetensors")
    for name, array in game.g.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], array)
    _, arrays, _ = checkpoint.read_training(tmp_path / "last.safetensors")
    assert VanillaGAN.contradiction(game.options, arrays) is None
    for name, value in {"image_size": 6, "latent": 5, "hidden": 7}.items():
        other = VanillaGAN.Options(**SIZES | {name: value})
        assert f"its {name} is {value}, its arrays' {SIZES[name]}" in VanillaGAN.contradiction(other, arrays)


@pytest.mark.parametrize(
    "change",
    [
        {"main.4.weight": np.zeros((26, 6), np.float32)},  # no square image
        {"main.4.weight": np.zeros((50, 6), np.float32)},
        {"main.2.weight": np.zeros((6, 5), np.float32)},
        {"main.0.weight": np.zeros((5, 4), np.float32)},
        {"main.0.weight": np.zeros((6, 0), np.float32)},
        {"main.0.weight": np.zeros(6, np.float32)},
        {"main.6.weight": np.zeros((6, 6), np.float32)},
    ],
)
def test_other_arrays_are_refused_in_one_sentence(tmp_path, change, rng):
    state = vanilla.generator(**SIZES, rng=rng).state_dict()
    safetensors.numpy.save_file(state | change, tmp_path / "g.safetensors")
    with pytest.raises(UserError, match="is not a vanilla GAN generator of nanogan's"):
        LOAD(tmp_path / "g.safetensors")


def test_a_dcgans_file_is_refused(tmp_path, rng):
    checkpoint.save(tmp_path / "g.safetensors", dcgan.generator(image_size=8, channels=1, latent=2, width=2, rng=rng))
    with pytest.raises(UserError, match="a DCGAN generator .*; name the file of a vanilla GAN generator"):
        LOAD(tmp_path / "g.safetensors")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vanilla.generator(hidden=0), "hidden expected a whole number of at least 1, got 0"),
        (lambda: vanilla.discriminator(image_size=2.5), "image_size expected a whole number of at least 1, got 2.5"),
        (lambda: vanilla.generator().forward(np.zeros((2, 5))), r"z of shape \(N, 64\), got \(2, 5\)"),
        (lambda: vanilla.discriminator().forward(np.zeros((2, 1, 5, 5))), "784"),
    ],
)
def test_a_callers_mistake_gets_one_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()
