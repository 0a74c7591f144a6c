"""Conditional generators: what G and D are given, the gradients, and files that are not trusted."""

import numpy as np
import pytest
import safetensors.numpy
import torch

from nanogan import checkpoint
from nanogan.errors import UserError
from nanogan.games.conditional import ConditionalDCGAN
from nanogan.games.drawing import sample
from nanogan.gradcheck import check_layer
from nanogan.models import conditional, dcgan

F = torch.nn.functional
SIZES = {"classes": 3, "image_size": 8, "channels": 2, "width": 3}


def networks(dtype=np.float64):
    rng = np.random.default_rng(2)
    g = conditional.generator(latent=4, rng=rng, dtype=dtype, **SIZES)
    d = conditional.discriminator(rng=rng, dtype=dtype, **SIZES)
    for network in (g, d):  # at the initial 0.02 all gradients are tiny
        for _, parameter, _ in network.named_parameters():
            parameter += (0.2 * rng.standard_normal(parameter.shape)).astype(dtype)
    return g, d


def test_one_hot_labels_and_their_maps_by_hand():
    hot = conditional.one_hot(np.array([2, 0], np.uint8), 3)
    assert hot.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert hot.dtype == np.float32
    z = np.array([[5, 6], [7, 8]], np.float32)
    assert conditional.join(z, hot).tolist() == [[5, 6, 0, 0, 1], [7, 8, 1, 0, 0]]
    images = np.arange(16, dtype=np.float32).reshape(2, 1, 2, 4)
    y = conditional.with_maps(images, hot)
    assert y.shape == (2, 4, 2, 4)
    assert (y[:, :1] == images).all()
    assert y[0, 1:, :, :].tolist() == [[[0] * 4] * 2, [[0] * 4] * 2, [[1] * 4] * 2]
    assert y[1, 1:, :, :].tolist() == [[[1] * 4] * 2, [[0] * 4] * 2, [[0] * 4] * 2]
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_the_generator_is_a_dcgan_whose_last_inputs_are_the_label(rng):
    g, d = networks()
    assert (g.latent, g.classes, g.channels, d.channels) == (4, 3, 2, 5)
    z = np.concatenate([rng.standard_normal((5, 4)), np.eye(3)[[0, 2, 1, 1, 0]]], axis=1)
    plain = dcgan.generator(image_size=8, channels=2, latent=7, width=3, dtype=np.float64)
    plain.load_state_dict({name: array for name, array in g.state_dict().items() if name != "classes"})
    images = sample(g, z)
    assert images.shape == (5, 2, 8, 8)
    np.testing.assert_array_equal(images, sample(plain, z))


def test_an_image_depends_on_its_label(rng):
    g, _ = networks()
    z = rng.standard_normal((1, 4))
    images = [sample(g, conditional.join(z, conditional.one_hot([k], 3, dtype=np.float64))) for k in (0, 1, 2)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(images[first] - images[second]).max() > 0.01


@pytest.mark.parametrize("train", [True, False])
def test_gradients_of_z_labels_and_weights_are_the_slopes(train, rng):
    """Through the game, tests/games checks them; here, each network by itself."""
    g, _ = networks()
    check_layer(g, rng.standard_normal((3, 7)), train=train).raise_if_wrong()
    mlp, d = conditional.mlp_pair(classes=3, pixels=5, latent=4, width=6, rng=rng)
    check_layer(mlp, rng.standard_normal((4, 7)), train=train).raise_if_wrong()
    check_layer(d, rng.standard_normal((4, 8, 1, 1)), train=train).raise_if_wrong()


def test_the_baseline_does_not_know_which_pixels_are_neighbours(rng):
    g, d = conditional.mlp_pair(classes=3, pixels=20, latent=4, width=6, rng=rng)
    hot = conditional.one_hot([0, 1, 2, 2, 1], 3)
    fake, _ = g.forward(conditional.join(rng.standard_normal((5, 4), dtype=np.float32), hot))
    assert fake.shape == (5, 20, 1, 1)
    seen = conditional.with_maps(fake, hot)
    logits, _ = d.forward(seen)
    assert logits.shape == (5, 1)
    order = np.r_[rng.permutation(20), 20:23]
    d[1].params["weight"][...] = d[1].params["weight"][:, order]
    np.testing.assert_allclose(d.forward(seen[:, order])[0], logits, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- files


def test_a_file_holds_the_number_of_classes_and_all_sizes(tmp_path, rng):
    path = tmp_path / "g.safetensors"
    for upsample in ("deconv", "resize"):
        g = conditional.generator(latent=4, upsample=upsample, rng=rng, **SIZES)
        checkpoint.save(path, g)
        loaded = checkpoint.load_conditional(path)
        assert (loaded.latent, loaded.classes, loaded.upsample) == (4, 3, upsample)
        assert (loaded.image_size, loaded.channels, loaded.width) == (8, 2, 3)
        z = rng.standard_normal((2, 7), dtype=np.float32)
        np.testing.assert_array_equal(loaded.forward(z, train=False)[0], g.forward(z, train=False)[0])


def old_arrays(rng):
    """What earlier versions wrote: 5 x 5 pixels doubled once, z of 4 elements, 3 classes."""
    return {
        "network.main.0.weight": rng.standard_normal((7, 2, 5, 5), dtype=np.float32),
        "network.main.1.weight": np.float32([1.5, 0.5]),
        "network.main.1.bias": np.float32([0.1, -0.2]),
        "network.main.1.running_mean": np.float32([0.3, 0.4]),
        "network.main.1.running_var": np.float32([2, 3]),
        "network.main.1.num_batches_tracked": np.array(9),
        "network.main.3.weight": rng.standard_normal((2, 1, 4, 4), dtype=np.float32),
        "classes": np.array(3),
    }


def test_files_of_earlier_versions_load(tmp_path, rng):
    """Their arrays are named after a layer that held the network, "network.main.0.weight"."""
    arrays = old_arrays(rng)
    safetensors.numpy.save_file(arrays, tmp_path / "old.safetensors")
    g = checkpoint.load_conditional(tmp_path / "old.safetensors")
    assert (g.image_size, g.channels, g.latent, g.width, g.classes) == (10, 1, 4, 2, 3)
    joined = np.concatenate([rng.standard_normal((3, 4), dtype=np.float32), np.eye(3, dtype=np.float32)], axis=1)

    def tensor(name):
        return torch.from_numpy(arrays[f"network.main.{name}"])

    y = F.conv_transpose2d(torch.from_numpy(joined)[:, :, None, None], tensor("0.weight"))
    norm = (tensor(f"1.{name}") for name in ("running_mean", "running_var", "weight", "bias"))
    y = F.conv_transpose2d(F.relu(F.batch_norm(y, *norm)), tensor("3.weight"), stride=2, padding=1)
    np.testing.assert_allclose(sample(g, joined), torch.tanh(y).numpy(), atol=1e-5)
    checkpoint.save(tmp_path / "new.safetensors", g)
    assert "main.0.weight" in checkpoint.read(tmp_path / "new.safetensors"), "saved again, it has today's names"


def test_a_file_of_an_earlier_version_is_not_trusted_either(tmp_path, rng):
    for name in ("network.main.1.running_var", "network.main.3.weight", "classes"):
        arrays = old_arrays(rng)
        del arrays[name]
        safetensors.numpy.save_file(arrays, tmp_path / "old.safetensors")
        with pytest.raises(UserError, match="is not a conditional DCGAN generator of nanogan's"):
            checkpoint.load_conditional(tmp_path / "old.safetensors")


def test_a_runs_checkpoint_opens_too(tmp_path):
    options = ConditionalDCGAN.Options(image_size=8, latent=4, width=3)
    game = ConditionalDCGAN(options, {"images": (2, 8, 8), "labels": 3})
    progress = checkpoint.Progress(step=1, epoch=1, batch=1, steps_per_epoch=1, seconds=1.0)
    checkpoint.save_training(tmp_path / "last.safetensors", game, progress)
    loaded = checkpoint.load_conditional(tmp_path / "last.safetensors")
    assert loaded.classes == 3
    for name, array in game.g.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], array)


@pytest.mark.parametrize(
    "classes",
    [np.array(0), np.array(-3), np.array(7), np.array(10**12), np.array(3.0), np.array([3]), np.array(3, np.int32)],
)
def test_a_file_with_an_impossible_number_of_classes_is_refused(tmp_path, classes, rng):
    state = conditional.generator(latent=4, rng=rng, **SIZES).state_dict()
    safetensors.numpy.save_file(state | {"classes": classes}, tmp_path / "g.safetensors")
    with pytest.raises(UserError, match="is not a conditional DCGAN generator of nanogan's"):
        checkpoint.load_conditional(tmp_path / "g.safetensors")


def test_other_files_are_refused_in_one_sentence(tmp_path, rng):
    plain = dcgan.generator(image_size=8, channels=1, latent=4, width=2, rng=rng)
    checkpoint.save(tmp_path / "plain.safetensors", plain)
    with pytest.raises(UserError, match="holds a DCGAN generator .*; name the file of a conditional DCGAN generator"):
        checkpoint.load_conditional(tmp_path / "plain.safetensors")
    g = conditional.generator(latent=4, rng=rng, **SIZES)
    checkpoint.save(tmp_path / "g.safetensors", g)
    with pytest.raises(UserError, match="is not a DCGAN generator of nanogan's"):
        checkpoint.load_generator(tmp_path / "g.safetensors")
    state = g.state_dict()
    less = {name: array for name, array in state.items() if "running" not in name}
    safetensors.numpy.save_file(less, tmp_path / "less.safetensors")
    with pytest.raises(UserError, match="not a conditional"):
        checkpoint.load_conditional(tmp_path / "less.safetensors")
    state["main.0.weight"][0, 0, 0, 0] = np.nan
    checkpoint.save(tmp_path / "nan.safetensors", g)
    with pytest.raises(UserError, match="not a conditional DCGAN generator: its weights are not finite"):
        checkpoint.load_conditional(tmp_path / "nan.safetensors")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conditional.one_hot(np.array([0, 3]), 3), "integers from 0 to 2, got (2,) [0, 3]"),
        (lambda: conditional.one_hot(np.array([0, -1]), 3), "integers from 0 to 2, got (2,) [ 0, -1]"),
        (lambda: conditional.one_hot(np.array([1.0]), 3), "integers from 0 to 2"),
        (lambda: conditional.one_hot(np.array([[1]]), 3), "labels (N,) expected integers from 0 to 2, got (1, 1)"),
        (lambda: networks()[0].forward(np.zeros((2, 4))), "joined with one-hot labels, (N, 4 + 3), got (2, 4)"),
        (lambda: conditional.generator(**SIZES | {"classes": 0}), "classes expected a whole number of at least 1"),
        (lambda: conditional.discriminator(**SIZES | {"channels": 0}), "channels expected a whole number of at least"),
    ],
)
def test_a_callers_mistake_gets_one_sentence(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)


def test_weights_of_as_many_inputs_but_other_classes_are_refused(rng):
    sizes = {"image_size": 8, "channels": 1, "width": 2, "rng": rng}
    g = conditional.generator(classes=3, latent=4, **sizes)
    with pytest.raises(UserError, match="of a generator of 2 classes, this one has 3"):
        g.load_state_dict(conditional.generator(classes=2, latent=5, **sizes).state_dict())
    g.load_state_dict(conditional.generator(classes=3, latent=4, **sizes).state_dict())
