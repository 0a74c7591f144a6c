"""The DCGAN networks: pytorch/examples' at 64 x 64, and every other size that can be reached."""

import itertools
import runpy

import numpy as np
import pytest

from benchmarks import torch_dcgan
from nanogan.errors import UserError
from nanogan.games.dcgan import DCGAN, DCGANOptions
from nanogan.models import dcgan
from tests import starting
from tests.helpers import channels_last, relative_error

import torch  # isort: skip


def test_at_64_pixels_they_are_pytorch_examples_networks():
    g, d = dcgan.generator(image_size=64, channels=3), dcgan.discriminator(image_size=64, channels=3)
    assert g.parameter_count() == 3_576_704
    assert d.parameter_count() == 2_765_568
    weights = {name: array.shape for name, array in g.state_dict().items() if array.ndim == 4}
    assert weights == {
        "main.0.weight": (100, 512, 4, 4),
        "main.3.weight": (512, 256, 4, 4),
        "main.6.weight": (256, 128, 4, 4),
        "main.9.weight": (128, 64, 4, 4),
        "main.12.weight": (64, 3, 4, 4),
    }
    assert [name for name, array in d.state_dict().items() if array.ndim == 4] == [
        f"main.{i}.weight" for i in (0, 2, 5, 8, 11)
    ]


def test_width_128_is_the_papers_generator():
    g = dcgan.generator(image_size=64, channels=3, width=128)
    assert [array.shape[0] for array in g.state_dict().values() if array.ndim == 4] == [100, 1024, 512, 256, 128]


def test_the_networks_of_the_notes_preset_are_those_of_torch_modules(rng):
    """Also D's last convolution, which the notes write with stride 2: a map of the kernel's size has one window."""
    nn = torch.nn
    modules, widths = [nn.ConvTranspose2d(100, 1024, 4, 1, 0, bias=False)], (1024, 512, 256, 128, 1)
    for wide, narrow in itertools.pairwise(widths):
        modules += [nn.BatchNorm2d(wide), nn.ReLU(), nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=narrow == 1)]
    theirs_g = torch_dcgan.Network([*modules, nn.Tanh()])
    modules = [nn.Conv2d(1, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for narrow, wide in itertools.pairwise((64, 128, 256, 512)):
        modules += [nn.Conv2d(narrow, wide, 4, 2, 1, bias=False), nn.BatchNorm2d(wide), nn.LeakyReLU(0.2)]
    theirs_d = torch_dcgan.Network([*modules, nn.Conv2d(512, 1, 4, stride=2, padding=0, bias=False), nn.Flatten()])

    script = runpy.run_path(str(starting.EXAMPLES / "mnist_dcgan.py"))
    options = DCGANOptions.of(script["NOTES"])
    game = DCGAN(options, {"images": (1, 64, 64)})
    x, z = rng.standard_normal((2, 1, 64, 64)), rng.standard_normal((2, 100))
    for ours, theirs, inputs in ((game.g, theirs_g, z), (game.d, theirs_d, x)):
        assert ours.parameter_count() == sum(tensor.numel() for tensor in theirs.parameters())
        gains = np.concatenate([a for name, a, _ in ours.named_parameters() if a.ndim == 1 and "weight" in name])
        assert abs(gains.mean()) < 0.002
        assert gains.std() == pytest.approx(0.02, rel=0.1)
        theirs.load_state_dict({name: torch.tensor(array.copy()) for name, array in ours.state_dict().items()})
        shape = (2, 100, 1, 1) if ours is game.g else x.shape
        expected = theirs.double()(torch.tensor(inputs).reshape(shape)).detach().numpy()
        assert relative_error(ours.astype(np.float64).forward(inputs)[0], expected) < 1e-12


@pytest.mark.parametrize("image_size", [8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_goes_there_and_back(image_size, channels, rng):
    g = dcgan.generator(image_size=image_size, channels=channels, latent=5, width=1, rng=rng)
    d = dcgan.discriminator(image_size=image_size, channels=channels, width=1, rng=rng)
    fake, g_cache = g.forward(rng.standard_normal((2, 5), dtype=np.float32))
    assert fake.shape == (2, channels, image_size, image_size)
    assert np.abs(fake).max() <= 1
    logits, cache = d.forward(fake)
    assert logits.shape == (2, 1)
    dfake = d.backward(rng.standard_normal(logits.shape).astype(np.float32), cache)
    assert g.backward(dfake, g_cache).shape == (2, 5)


def test_z_may_have_torchs_four_dimensions(rng):
    g = dcgan.generator(image_size=8, latent=5, width=2, rng=rng)
    z = rng.standard_normal((3, 5), dtype=np.float32)
    flat, _ = g.forward(z, train=False)
    y, cache = g.forward(z.reshape(3, 5, 1, 1), train=False)
    np.testing.assert_array_equal(y, flat)
    assert g.backward(rng.standard_normal(y.shape).astype(np.float32), cache).shape == (3, 5, 1, 1)


@pytest.mark.parametrize("image_size", [16, 28])
@pytest.mark.parametrize("which", ["generator", "discriminator"])
def test_values_and_gradients_are_torchs(which, image_size, rng):
    options = {"image_size": image_size, "channels": 2, "width": 4, "rng": rng, "dtype": np.float64}
    if which == "generator":
        network, x = dcgan.generator(latent=5, **options), rng.standard_normal((3, 5, 1, 1))
    else:
        network, x = dcgan.discriminator(**options), rng.standard_normal((3, 2, image_size, image_size))
    for _, parameter, _ in network.named_parameters():  # at the initial 0.02, a tanh is almost its argument
        parameter += 0.2 * rng.standard_normal(parameter.shape)
    theirs = torch_dcgan.copy_of(network)
    y, cache = network.forward(channels_last(x))
    dy = rng.standard_normal(y.shape)
    dx = network.backward(dy, cache)
    t = torch.tensor(x, requires_grad=True)
    expected_y = theirs(t)
    expected_y.backward(torch.tensor(dy))
    assert relative_error(y, expected_y.detach().numpy()) < 1e-11
    assert relative_error(dx, t.grad.numpy()) < 1e-11
    expected = dict(theirs.named_parameters())
    for name, _, gradient in network.named_parameters():
        assert relative_error(gradient, expected[name].grad.numpy()) < 1e-11, name


def test_parameters_start_as_in_the_paper():
    rng = np.random.default_rng(0)
    networks = dcgan.generator(image_size=32, width=32, rng=rng), dcgan.discriminator(image_size=32, width=32, rng=rng)
    for name, parameter, _ in (item for network in networks for item in network.named_parameters()):
        mean, std = {True: (0, 0.02), False: (1, 0.02)}[parameter.ndim == 4]
        if name.endswith("bias"):
            mean, std = 0, 0
        many = 6 / parameter.size**0.5  # six standard errors
        assert parameter.mean() == pytest.approx(mean, abs=std * many + 1e-12), name
        assert parameter.std() == pytest.approx(std, rel=many, abs=1e-12), name


def test_the_seed_decides_the_parameters():
    def state(seed):
        return dcgan.generator(image_size=8, width=2, rng=np.random.default_rng(seed)).state_dict()["main.0.weight"]

    np.testing.assert_array_equal(state(1), state(1))
    assert (state(1) != state(2)).all()


def test_options_are_told_by_a_files_shapes(rng):
    for options in (
        {"image_size": 28, "channels": 1, "latent": 7, "width": 3},
        {"image_size": 64, "channels": 3, "latent": 100, "width": 4},
        {"image_size": 8, "channels": 1, "latent": 2, "width": 1},
        {"image_size": 8, "channels": 3, "latent": 2, "width": 3},
        {"image_size": 128, "channels": 3, "latent": 3, "width": 1},
    ):
        for form in ({"upsample": "deconv", "last_bias": True}, {"upsample": "resize", "last_bias": False}):
            network = dcgan.generator(**options, **form)
            assert {name: getattr(network, name) for name in form} == form
            assert dcgan.options_of(network.state_dict()) == options | form


def test_a_mixture_of_both_generators_is_neither():
    state = dcgan.generator(image_size=16, width=2, upsample="resize").state_dict()
    state["main.4.weight"] = np.zeros((4, 2, 4, 4), np.float32)
    with pytest.raises(UserError, match="or a 3x3 convolution for each"):
        dcgan.options_of(state)
    state = dcgan.generator(image_size=16, width=2).state_dict()
    state["main.6.weight"] = np.zeros((2, 3, 3, 3), np.float32)
    with pytest.raises(UserError, match="or a 3x3 convolution for each"):
        dcgan.options_of(state)


def test_a_generator_that_resizes_has_the_shapes_and_the_count():
    g = dcgan.generator(image_size=64, channels=3, upsample="resize")
    weights = {name: array.shape for name, array in g.state_dict().items() if array.ndim == 4}
    assert weights == {
        "main.0.weight": (100, 512, 4, 4),
        "main.4.weight": (256, 512, 3, 3),
        "main.8.weight": (128, 256, 3, 3),
        "main.12.weight": (64, 128, 3, 3),
        "main.16.weight": (3, 64, 3, 3),
    }
    assert g.parameter_count() == 100 * 512 * 16 + 9 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3) + 2 * (
        512 + 256 + 128 + 64
    )


@pytest.mark.parametrize("image_size", [8, 20, 28, 64])
def test_a_generator_that_resizes_is_torchs(image_size, rng):
    """Values and gradients of the same layers in torch, with copied weights; in train and in eval mode."""
    g = dcgan.generator(
        image_size=image_size, channels=2, latent=5, width=3, upsample="resize", rng=rng, dtype=np.float64
    )
    for _, parameter, _ in g.named_parameters():
        parameter += 0.2 * rng.standard_normal(parameter.shape)
    start, doublings = {8: (4, 1), 20: (5, 2), 28: (7, 2), 64: (4, 4)}[image_size]
    maps = [3 * 2**i for i in reversed(range(doublings))] + [2]
    nn = torch.nn
    modules = [nn.ConvTranspose2d(5, maps[0], start, bias=False)]
    for wide, narrow in itertools.pairwise(maps):
        modules += [nn.BatchNorm2d(wide), nn.ReLU(), nn.Upsample(scale_factor=2, mode="nearest")]
        modules += [nn.Conv2d(wide, narrow, 3, 1, 1, bias=False)]
    theirs = torch_dcgan.Network([*modules, nn.Tanh()]).double()
    theirs.load_state_dict({name: torch.tensor(array.copy()) for name, array in g.state_dict().items()})
    z = rng.standard_normal((3, 5, 1, 1))
    y, cache = g.forward(z)
    assert y.shape == (3, 2, image_size, image_size)
    dy = rng.standard_normal(y.shape)
    dz = g.backward(dy, cache)
    t = torch.tensor(z, requires_grad=True)
    expected = theirs(t)
    expected.backward(torch.tensor(dy))
    assert relative_error(y, expected.detach().numpy()) < 1e-11
    assert relative_error(dz, t.grad.numpy()) < 1e-11
    gradients = dict(theirs.named_parameters())
    for name, _, gradient in g.named_parameters():
        assert relative_error(gradient, gradients[name].grad.numpy()) < 1e-11, name
    theirs.eval()
    assert relative_error(g.forward(z, train=False)[0], theirs(t).detach().numpy()) < 1e-11


def test_shapes_in_a_file_cannot_ask_for_more_memory_than_they_take():
    """Thirty tiny arrays that look like thirty doublings would need 2^30 pixels."""
    state = {f"main.{3 * i}.weight": np.zeros((1, 1, 4, 4), np.float32) for i in range(31)}
    with pytest.raises(UserError, match="one for each doubling were expected"):
        dcgan.options_of(state)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dcgan.generator(image_size=36), "cannot draw pictures of 36 pixels.*use 32 or 40"),
        (lambda: dcgan.discriminator(image_size=29), "cannot draw pictures of 29 pixels.*use 28 or 32"),
        (lambda: dcgan.generator(image_size=4), "use 8 or 10"),
        (lambda: dcgan.generator(image_size=1000), "use 896 or 1024"),
        (lambda: dcgan.generator(image_size="28"), "image_size expected a whole number"),
        (lambda: dcgan.generator(image_size=1), "cannot draw pictures of 1 pixels"),
        (lambda: dcgan.generator(upsample="bilinear"), 'upsample expected "deconv" or "resize", got \'bilinear\''),
        (lambda: dcgan.generator(width=0), "width expected a whole number of at least 1, got 0"),
        (lambda: dcgan.generator(channels=1.5), "channels expected a whole number"),
        (
            lambda: dcgan.generator(image_size=8, width=1).forward(np.zeros((2, 99), np.float32)),
            r"expected z of shape \(N, 100\), got \(2, 99\)",
        ),
        (
            lambda: dcgan.discriminator(image_size=8, width=1).forward(np.zeros((2, 1, 8, 8), np.float32)),
            r"expected pictures of shape \(N, 3, 8, 8\), got \(2, 1, 8, 8\)",
        ),
        (lambda: dcgan.options_of({"a": np.zeros(3)}), "were expected"),
    ],
)
def test_wrong_input_gets_one_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()
