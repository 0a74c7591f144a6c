"""Conditional generators: what G and D are given, the gradients, and files that are not trusted."""

import numpy as np
import pytest

from nanogan import checkpoint
from nanogan.backend import to_device, to_numpy
from nanogan.errors import UserError
from nanogan.gradcheck import check_layer
from nanogan.models import conditional, dcgan
from nanogan.ops import bce_with_logits_backward, bce_with_logits_forward
from nanogan.optim import SGD, Adam
from nanogan.training import adversarial_step, sample
from tests.helpers import directional_error

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
    pictures = np.arange(16, dtype=np.float32).reshape(2, 1, 2, 4)
    y = conditional.with_maps(pictures, hot)
    assert y.shape == (2, 4, 2, 4)
    assert (y[:, :1] == pictures).all()
    assert y[0, 1:, :, :].tolist() == [[[0] * 4] * 2, [[0] * 4] * 2, [[1] * 4] * 2]
    assert y[1, 1:, :, :].tolist() == [[[1] * 4] * 2, [[0] * 4] * 2, [[0] * 4] * 2]
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_the_generator_is_a_dcgan_whose_last_inputs_are_the_label_and_hands_it_on(rng):
    g, d = networks()
    assert (g.latent, g.classes) == (4, 3)
    z = np.concatenate([rng.standard_normal((5, 4)), np.eye(3)[[0, 2, 1, 1, 0]]], axis=1)
    y, _ = g.forward(z, train=False)
    inner, _ = g.network.forward(z, train=False)
    np.testing.assert_array_equal(y[:, :2], inner)
    np.testing.assert_array_equal(y[:, 2:], np.broadcast_to(z[:, 4:, None, None], (5, 3, 8, 8)))
    assert (d.channels, g.network.latent, g.network.channels) == (5, 7, 2)
    np.testing.assert_array_equal(sample(g.network, z), inner)  # as the docstring says: pictures without maps


def test_a_picture_depends_on_its_label(rng):
    g, _ = networks()
    z = rng.standard_normal((1, 4))
    drawn = [sample(g.network, conditional.join(z, conditional.one_hot([k], 3, dtype=np.float64))) for k in (0, 1, 2)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(drawn[one] - drawn[other]).max() > 0.01


@pytest.mark.parametrize("train", [True, False])
def test_gradients_of_z_labels_and_weights_are_the_slopes(train, rng):
    g, _ = networks()
    check_layer(g, rng.standard_normal((3, 7)), train=train).raise_if_wrong()
    mlp, d = conditional.mlp_pair(classes=3, pixels=5, latent=4, width=6, rng=rng)
    check_layer(mlp, rng.standard_normal((4, 7)), train=train).raise_if_wrong()
    check_layer(d, rng.standard_normal((4, 8, 1, 1)), train=train).raise_if_wrong()


def test_the_generators_gradient_goes_through_the_discriminator_of_pictures_with_maps(rng):
    g, d = networks()
    z = conditional.join(rng.standard_normal((6, 4)), conditional.one_hot([0, 1, 2, 0, 1, 2], 3, dtype=np.float64))

    def loss():
        return bce_with_logits_forward(d.forward(g.forward(z)[0])[0], 1.0)[0]

    fake, g_cache = g.forward(z)
    logits, cache = d.forward(fake)
    dfake = d.backward(bce_with_logits_backward(1.0, bce_with_logits_forward(logits, 1.0)[1]), cache, need_dw=False)
    dz = g.backward(dfake, g_cache)
    names, parameters, gradients = zip(*g.named_parameters(), strict=True)
    for name, gradient in zip(names, gradients, strict=True):
        assert np.abs(gradient).max() > 1e-6, f"{name} gets no gradient"
    assert np.abs(dz[:, :4]).max() > 1e-6
    for _ in range(3):
        assert directional_error(loss, [*parameters, z], [*gradients, dz], rng, eps=1e-7) < 1e-6

    # what D says of the label maps is no matter of G's weights: they get the picture's part alone
    expected = [gradient.copy() for gradient in gradients]
    g.zero_grad()
    dfake[:, 2:] = 1000
    assert g.backward(dfake, g_cache, need_dx=False) is None
    for name, gradient, picture in zip(names, gradients, expected, strict=True):
        np.testing.assert_array_equal(gradient, picture, err_msg=name)


def test_a_step_of_the_game_moves_both_networks_and_no_label(device, rng):
    g, d = (network.to(device) for network in networks(np.float32))
    hot = conditional.one_hot(np.array([0, 1, 2, 2]), 3)
    z = conditional.join(rng.standard_normal((4, 4), dtype=np.float32), hot)
    real = np.tanh(rng.standard_normal((4, 2, 8, 8), dtype=np.float32))
    real, hot, z = (to_device(each, device) for each in (real, hot, z))
    before = {name: to_numpy(p).copy() for each in (g, d) for name, p, _ in each.named_parameters()}
    result = adversarial_step(g, d, SGD(g, lr=0.1), SGD(d, lr=0.1), conditional.with_maps(real, hot), z)
    assert np.isfinite(float(result.loss_g))
    assert to_numpy(z[:, 4:]).tolist() == to_numpy(hot).tolist()
    assert int(g.buffers["classes"]) == 3
    for each in (g, d):
        for name, p, _ in each.named_parameters():
            assert (to_numpy(p) != before[name]).any(), name


def test_the_game_teaches_g_what_belongs_to_a_label(rng):
    """Dark pictures are of class 0, bright ones of class 1; D must compare pictures with labels to tell G so."""
    g, d = conditional.mlp_pair(classes=2, pixels=4, latent=2, width=16, rng=rng)
    opt_g, opt_d = (Adam(network, lr=2e-3, betas=(0.5, 0.999)) for network in (g, d))
    for _ in range(200):
        labels = rng.integers(0, 2, 32)
        real = (labels[:, None, None, None] - 0.5 + 0.2 * rng.standard_normal((32, 4, 1, 1))).astype(np.float32)
        hot = conditional.one_hot(labels, 2)
        z = conditional.join(rng.standard_normal((32, 2), dtype=np.float32), hot)
        adversarial_step(g, d, opt_g, opt_d, conditional.with_maps(real, hot), z)
    z = rng.standard_normal((50, 2), dtype=np.float32)
    means = [sample(g.network, conditional.join(z, conditional.one_hot([k] * 50, 2))).mean() for k in (0, 1)]
    assert means[0] < -0.25
    assert means[1] > 0.25


def test_the_baseline_does_not_know_which_pixels_are_neighbours(rng):
    g, d = conditional.mlp_pair(classes=3, pixels=20, latent=4, width=6, rng=rng)
    hot = conditional.one_hot([0, 1, 2, 2, 1], 3)
    fake, cache = g.forward(conditional.join(rng.standard_normal((5, 4), dtype=np.float32), hot))
    assert fake.shape == (5, 23, 1, 1)
    assert fake[:, 20:, 0, 0].tolist() == hot.tolist()
    logits, _ = d.forward(fake)
    assert logits.shape == (5, 1)
    order = np.r_[rng.permutation(20), 20:23]
    d[1].params["weight"][...] = d[1].params["weight"][:, order]
    np.testing.assert_allclose(d.forward(fake[:, order])[0], logits, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- files


def test_a_file_tells_the_number_of_classes_and_all_sizes(tmp_path, rng):
    path = tmp_path / "g.safetensors"
    for upsample in ("deconv", "resize"):
        g = conditional.generator(latent=4, upsample=upsample, rng=rng, **SIZES)
        checkpoint.save(path, g)
        loaded = checkpoint.load_conditional(path)
        assert (loaded.latent, loaded.classes, loaded.network.upsample) == (4, 3, upsample)
        assert (loaded.network.image_size, loaded.network.channels, loaded.network.width) == (8, 2, 3)
        z = rng.standard_normal((2, 7), dtype=np.float32)
        np.testing.assert_array_equal(loaded.forward(z, train=False)[0], g.forward(z, train=False)[0])


def test_a_runs_checkpoint_opens_too(tmp_path):
    g, d = networks(np.float32)
    progress = checkpoint.Progress(
        step=1, epoch=1, batch=1, steps_per_epoch=1, seconds=1.0, noise_rng=np.random.default_rng(0)
    )
    checkpoint.save_training(tmp_path / "last.safetensors", g, d, Adam(g), Adam(d), progress)
    loaded = checkpoint.load_conditional(tmp_path / "last.safetensors")
    for name, array in g.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], array)


@pytest.mark.parametrize(
    "classes",
    [np.array(0), np.array(-3), np.array(7), np.array(10**12), np.array(3.0), np.array([3]), np.array(3, np.int32)],
)
def test_a_file_with_an_impossible_number_of_classes_is_refused(tmp_path, classes, rng):
    state = conditional.generator(latent=4, rng=rng, **SIZES).state_dict()
    checkpoint._write(tmp_path / "g.safetensors", state | {"classes": classes})
    with pytest.raises(UserError, match="is not a conditional DCGAN generator of nanogan's"):
        checkpoint.load_conditional(tmp_path / "g.safetensors")


def test_other_files_are_refused_in_one_sentence(tmp_path, rng):
    plain = dcgan.generator(image_size=8, channels=1, latent=4, width=2, rng=rng)
    checkpoint.save(tmp_path / "plain.safetensors", plain)
    with pytest.raises(UserError, match="not a conditional DCGAN generator .* load_generator opens it"):
        checkpoint.load_conditional(tmp_path / "plain.safetensors")
    g = conditional.generator(latent=4, rng=rng, **SIZES)
    checkpoint.save(tmp_path / "g.safetensors", g)
    with pytest.raises(UserError, match="is not a DCGAN generator of nanogan's"):
        checkpoint.load_generator(tmp_path / "g.safetensors")
    state = g.state_dict()
    checkpoint._write(tmp_path / "less.safetensors", {k: v for k, v in state.items() if "running" not in k})
    with pytest.raises(UserError, match="not a conditional"):
        checkpoint.load_conditional(tmp_path / "less.safetensors")
    state["network.main.0.weight"][0, 0, 0, 0] = np.nan
    checkpoint.save(tmp_path / "nan.safetensors", g)
    with pytest.raises(UserError, match="not a conditional DCGAN generator: its weights are not finite"):
        checkpoint.load_conditional(tmp_path / "nan.safetensors")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conditional.one_hot(np.array([0, 3]), 3), "whole numbers from 0 to 2, got (2,) [0, 3]"),
        (lambda: conditional.one_hot(np.array([0, -1]), 3), "whole numbers from 0 to 2, got (2,) [ 0, -1]"),
        (lambda: conditional.one_hot(np.array([1.0]), 3), "whole numbers from 0 to 2"),
        (lambda: conditional.one_hot(np.array([[1]]), 3), "labels (N,) expected whole numbers from 0 to 2, got (1, 1)"),
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
