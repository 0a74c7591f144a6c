"""Networks from image to image: the authors' sizes, images of other sizes, and files that are not trusted."""

import numpy as np
import pytest
import safetensors.numpy

from nanogan import checkpoint
from nanogan.errors import UserError
from nanogan.models import cyclegan, dcgan, discogan

RNG = np.random.default_rng(0)
CYCLE = {"image_size": 12, "in_channels": 1, "out_channels": 3, "width": 2, "blocks": 2}
DISCO = {"image_size": 24, "in_channels": 3, "out_channels": 1, "width": 2}


def test_at_the_papers_size_they_are_the_authors():
    """Parameters as their code counts them, without the biases before a normalisation, which learn nothing.

    11,378,179 and 2,764,737 with them, for 256 pixels, 3 channels and 9 blocks.
    """
    assert cyclegan.generator(rng=RNG).parameter_count() == 11_378_179 - (64 + 128 + 18 * 256 + 256 + 128 + 64)
    d = cyclegan.discriminator(rng=RNG)
    assert d.parameter_count() == 2_764_737 - (128 + 256 + 512)
    narrow = cyclegan.discriminator(width=1, rng=RNG)
    logits, _ = narrow.forward(np.zeros((1, 3, 256, 256), np.float32))
    assert logits.shape == (1, 1, 30, 30)


@pytest.mark.parametrize(
    ("network", "shape"),
    [(cyclegan.generator(rng=RNG, **CYCLE), (1, 16, 20)), (discogan.generator(rng=RNG, **DISCO), (3, 16, 28))],
    ids=["cyclegan", "discogan"],
)
def test_images_of_other_sizes_are_translated_too(network, shape, rng):
    x = rng.uniform(-1, 1, (2, *shape)).astype(np.float32)
    y, _ = network.forward(x, train=False)
    assert y.shape == (2, network.out_channels, *shape[1:])
    assert abs(y).max() <= 1
    for wrong in (x[:, :, :-1], x[:, :, :, :-2], np.concatenate([x, x], axis=1), x[0]):
        with pytest.raises(UserError, match=rf"expected images \(N, {shape[0]}, H, W\), H and W multiples of 4"):
            network.forward(wrong)


def test_a_residual_block_starts_near_the_identity_and_nothing_follows_the_sum(rng):
    """Negative values come out of it: there is no ReLU behind."""
    block = cyclegan.generator(rng=RNG, **CYCLE)[10]
    x = rng.standard_normal((2, 8, 3, 3)).astype(np.float32)
    for _, parameter, _ in block.named_parameters():
        parameter[...] = 0
    np.testing.assert_array_equal(block.forward(x)[0], x)


@pytest.mark.parametrize("image_size", [7, 14, 4])
def test_sizes_that_the_networks_cannot_have(image_size):
    with pytest.raises(UserError, match="image_size expected a multiple of 4, at least 8, got"):
        cyclegan.generator(image_size=image_size)


@pytest.mark.parametrize(("size", "message"), [(44, "use 40 or 48"), (16, "at least 24, got 16: use 24$")])
def test_images_too_small_for_the_strides(size, message):
    with pytest.raises(UserError, match=f"image_size expected a multiple of 8.*{message}"):
        cyclegan.discriminator(image_size=size, strides=3)


# ----------------------------------------------------------------------------------------------------------- in files


@pytest.mark.parametrize(("models", "options"), [(cyclegan, CYCLE), (discogan, DISCO)], ids=["cyclegan", "discogan"])
def test_a_file_of_weights_is_enough(models, options, tmp_path, rng):
    network = models.generator(rng=rng, **options)
    checkpoint.save(tmp_path / "a_to_b.safetensors", network)
    loaded = checkpoint.load_translator(tmp_path / "a_to_b.safetensors")
    assert type(loaded) is cyclegan.Translator
    assert {name: getattr(loaded, name) for name in options} == options
    x = rng.uniform(-1, 1, (2, options["in_channels"], 24, 24)).astype(np.float32)
    np.testing.assert_array_equal(loaded.forward(x, train=False)[0], network.forward(x, train=False)[0])


def spoiled(models, options, change):
    """The state of a translator after ``change(state)``."""
    state = {name: array.copy() for name, array in models.generator(rng=RNG, **options).state_dict().items()}
    change(state)
    return state


def without_size(state):
    del state["image_size"]


def other_kernel(state):
    state["main.1.weight"] = np.zeros((2, 1, 5, 5), np.float32)


def nothing(state):
    state["main.0.weight"] = np.zeros((0, 3, 4, 4), np.float32)


def nan(state):
    state["main.1.weight"][0] = np.nan


def odd_size(state):
    state["image_size"] = np.array(13)


def a_dcgan(state):
    state.clear()
    state.update(dcgan.generator(image_size=8, channels=1, latent=2, width=2).state_dict())


@pytest.mark.parametrize(
    ("models", "options", "change", "message"),
    [
        (cyclegan, CYCLE, without_size, "is not a translator, such as a CycleGAN's a_to_b.safetensors: it holds"),
        (cyclegan, CYCLE, other_kernel, "is not a translator"),
        (cyclegan, CYCLE, odd_size, "is not a translator"),
        (cyclegan, CYCLE, nan, "its weights are not finite"),
        (discogan, DISCO, nothing, "is not a translator"),
        (discogan, DISCO, odd_size, "is not a translator"),
        (discogan, DISCO, a_dcgan, "it holds a DCGAN generator of 8 x 8 pixels"),
    ],
)
def test_other_files_get_one_sentence(models, options, change, message, tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(spoiled(models, options, change), path)
    with pytest.raises(UserError, match=message):
        checkpoint.load_translator(path)
