"""Networks from and to torch's files: the same pictures, nothing executed, one sentence for whatever is no network."""

import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.numpy
import torch

from benchmarks import torch_dcgan
from nanogan import checkpoint, convert
from nanogan.checkpoint.recognition import recognise
from nanogan.convert import torch_files
from nanogan.data import load_mnist
from nanogan.errors import UserError
from nanogan.layers import BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, LeakyReLU, ReLU, Sequential, Sigmoid, Tanh
from nanogan.models import cyclegan, dcgan
from nanogan.optim import Adam
from nanogan.training import sample
from tests import starting
from tests.checkpoint.test_checkpoint import Pair, progress
from tests.checkpoint.test_checkpoint import trained as a_training
from tests.failing_files import fill_the_disk

SIZES = [(8, 1, 3), (16, 3, 4), (28, 1, 2), (64, 3, 2)]  # image_size, channels, width


def trained(network, x):
    """A torch network whose parameters and running statistics are not the initial ones."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        network(x)  # in train mode
    return network.eval()


def their_g(size=16, channels=3, width=4, latent=5):
    g = torch_dcgan.generator(image_size=size, channels=channels, latent=latent, width=width)
    return trained(g, torch.randn(8, latent, 1, 1, generator=torch.Generator().manual_seed(1)))


def their_d(size=16, channels=3, width=4):
    d = torch_dcgan.discriminator(image_size=size, channels=channels, width=width)
    return trained(d, torch.randn(8, channels, size, size, generator=torch.Generator().manual_seed(2)))


def run(*arguments, **environment):
    return starting.run("nanogan.convert", *arguments, **environment)


def assert_refused(source, *matches, target=None, **options):
    """One sentence, and nothing is written."""
    target = target or source.parent / "new" / "out.safetensors"
    with pytest.raises(UserError) as caught:
        convert.convert(source, target, **options)
    text = str(caught.value)
    for match in matches:
        assert match in text, text
    assert "\n" not in text
    assert len(text) < 700
    assert not target.exists()
    return text


def same_pictures(g, theirs, latent=5):
    z = np.random.default_rng(3).standard_normal((6, latent), dtype=np.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor(z)[:, :, None, None]).numpy()
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(sample(g, z), expected, atol=2e-6)


def same_logits(d, theirs):
    x = np.random.default_rng(4).uniform(-1, 1, (6, d.channels, d.image_size, d.image_size)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor(x)).numpy()
    assert np.ptp(expected) > 1e-4
    np.testing.assert_allclose(d.forward(x, train=False)[0], expected, rtol=2e-5, atol=2e-6)


# --------------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize(("size", "channels", "width"), SIZES)
@pytest.mark.parametrize("new_format", [True, False])
def test_pytorch_examples_networks_are_opened(tmp_path, size, channels, width, new_format):
    g, d = their_g(size, channels, width), their_d(size, channels, width)
    for network, name in ((g, "netG"), (d, "netD")):
        torch.save(network.state_dict(), tmp_path / f"{name}_epoch_0.pth", _use_new_zipfile_serialization=new_format)
        notes = convert.convert(tmp_path / f"{name}_epoch_0.pth", tmp_path / f"{name}.safetensors")
        kind = {"netG": "generator", "netD": "discriminator"}[name]
        assert f"a DCGAN {kind} of {size} x {size} pixels with {channels} channel" in notes[0]
        assert f"{'latent 5, ' if name == 'netG' else ''}width {width}" in notes[0]
        assert f"{sum(tensor.numel() for tensor in network.state_dict().values()):,} numbers" in notes[-1]
    ours = checkpoint.load_generator(tmp_path / "netG.safetensors")
    assert (ours.image_size, ours.channels, ours.latent, ours.width) == (size, channels, 5, width)
    same_pictures(ours, g)
    ours = checkpoint.load_discriminator(tmp_path / "netD.safetensors")
    assert (ours.image_size, ours.channels, ours.width) == (size, channels, width)
    same_logits(ours, d)


def test_the_command_tells_what_it_did(tmp_path):
    g = their_g()
    torch.save(g.state_dict(), tmp_path / "netG_epoch_0.pth")
    result = run(tmp_path / "netG_epoch_0.pth", tmp_path / "missing" / "folder" / "netG.safetensors")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "it holds a DCGAN generator of 16 x 16 pixels with 3 channels, latent 5, width 4\n" in result.stdout
    same_pictures(checkpoint.load_generator(tmp_path / "missing" / "folder" / "netG.safetensors"), g)
    result = run(tmp_path / "nothing.pth", tmp_path / "netG.safetensors")
    assert result.returncode == 2
    assert "there is no file" in result.stderr
    assert "Traceback" not in result.stderr
    assert run(tmp_path / "netG_epoch_0.pth", tmp_path / "g.pth", "--rename", "main").returncode == 2


@pytest.mark.parametrize(("size", "channels", "width"), SIZES)
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_ours_are_opened_by_torch(tmp_path, size, channels, width, suffix):
    rng = np.random.default_rng(9)
    g = dcgan.generator(image_size=size, channels=channels, latent=5, width=width, rng=rng)
    d = dcgan.discriminator(image_size=size, channels=channels, width=width, rng=rng)
    for network in (g, d):
        for _, parameter, _ in network.named_parameters():
            parameter += 0.1 * rng.standard_normal(parameter.shape, dtype=np.float32)
    pictures, _ = g.forward(rng.standard_normal((8, 5), dtype=np.float32))
    d.forward(pictures)
    for network, name in ((g, "g"), (d, "d")):
        checkpoint.save(tmp_path / f"{name}.safetensors", network)
        convert.convert(tmp_path / f"{name}.safetensors", tmp_path / f"{name}{suffix}")
    theirs = torch_dcgan.generator(image_size=size, channels=channels, latent=5, width=width).eval()
    theirs.load_state_dict(torch.load(tmp_path / f"g{suffix}", weights_only=True))
    same_pictures(g, theirs)
    theirs = torch_dcgan.discriminator(image_size=size, channels=channels, width=width).eval()
    theirs.load_state_dict(torch.load(tmp_path / f"d{suffix}", weights_only=True))
    same_logits(d, theirs)


def test_every_array_goes_there_and_back_to_the_bit(tmp_path, rng):
    state = {
        "a.f4": rng.standard_normal((3, 1, 2), dtype=np.float32),
        "a.f8": rng.standard_normal(5),
        "a.f2": rng.standard_normal(4).astype(np.float16),
        "i8": np.array(-7),
        "u1": rng.integers(0, 255, (2, 2), dtype=np.uint8),
        "b": np.array([True, False]),
        "none": np.zeros((0, 3), np.float32),
        "special": np.array([np.nan, np.inf, -0.0], np.float32),
    }
    safetensors.numpy.save_file(state, tmp_path / "in.safetensors")
    convert.convert(tmp_path / "in.safetensors", tmp_path / "out.pth")
    loaded = torch.load(tmp_path / "out.pth", weights_only=True)
    assert type(loaded) is OrderedDict
    convert.convert(tmp_path / "out.pth", tmp_path / "back.safetensors")
    back = checkpoint.read(tmp_path / "back.safetensors")
    assert back.keys() == loaded.keys() == state.keys()
    for name, array in state.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes() == loaded[name].numpy().tobytes()


def test_arrays_in_any_order_of_memory(tmp_path):
    d = their_d().to(memory_format=torch.channels_last)
    assert not d.state_dict()["main.0.weight"].is_contiguous()
    torch.save(d.state_dict(), tmp_path / "d.pth")
    convert.convert(tmp_path / "d.pth", tmp_path / "d.safetensors")
    same_logits(checkpoint.load_discriminator(tmp_path / "d.safetensors"), d)


def test_bfloat16_becomes_float32_and_is_told(tmp_path):
    values = torch.randn(3, 5).bfloat16()
    torch.save({"w": values, "v": torch.ones(2)}, tmp_path / "w.pth")
    notes = convert.convert(tmp_path / "w.pth", tmp_path / "w.safetensors")
    assert "1 arrays of bfloat16 became float32, exactly" in notes
    np.testing.assert_array_equal(checkpoint.read(tmp_path / "w.safetensors")["w"], values.double().numpy())


# ---------------------------------------------------------------------------------------------- where the weights are


@pytest.mark.parametrize("key", ["state_dict", "model", "netG", "generator", "G", "model_state_dict"])
def test_the_one_state_dict_of_a_checkpoint_is_taken(tmp_path, key):
    g = their_g()
    adam = torch.optim.Adam(g.parameters())
    sum(p.sum() for p in g.parameters()).backward()
    adam.step()
    torch.save({"epoch": 3, key: g.state_dict(), "optimizer": adam.state_dict(), "loss": [0.1]}, tmp_path / "c.pth")
    notes = convert.convert(tmp_path / "c.pth", tmp_path / "g.safetensors")
    assert notes[0] == f"taken: {key}; left out: epoch, optimizer, loss"
    same_pictures(checkpoint.load_generator(tmp_path / "g.safetensors"), g)


def test_one_of_several_state_dicts_is_asked_for(tmp_path):
    g, d = their_g(), their_d()
    content = {"netG": g.state_dict(), "netD": d.state_dict(), "step": 4}
    torch.save(content, tmp_path / "c.pth")
    # of 3 convolutions each, 2 and 1 with a BatchNorm of 5 arrays
    assert_refused(tmp_path / "c.pth", "--key netG (13 arrays), --key netD (8 arrays)")
    assert_refused(tmp_path / "c.pth", "not netQ", "--key netG", key="netQ")
    notes = convert.convert(tmp_path / "c.pth", tmp_path / "d.safetensors", key="netD")
    assert notes[0] == "taken: netD; left out: netG, step"
    same_logits(checkpoint.load_discriminator(tmp_path / "d.safetensors"), d)
    torch.save({"nets": content, "x": 1}, tmp_path / "n.pth")
    notes = convert.convert(tmp_path / "n.pth", tmp_path / "g.safetensors", key="nets.netG")
    assert notes[0] == "taken: nets.netG; left out: x, nets.netD, nets.step"
    same_pictures(checkpoint.load_generator(tmp_path / "g.safetensors"), g)


def test_the_translators_of_a_cyclegans_run_are_named_one_by_one(tmp_path):
    network = cyclegan.generator(image_size=16, in_channels=1, out_channels=1, width=2, blocks=1)

    class Run:
        def state_dict(self):
            return {"translators": {"ab": network.state_dict(), "ba": network.state_dict()}, "d_a": their_weights}

    their_weights = dcgan.discriminator(image_size=8, channels=1, width=2).state_dict()
    checkpoint.save_training(tmp_path / "c.safetensors", Run(), checkpoint.Progress(1, 1, 1, 1, 0.0))
    text = assert_refused(tmp_path / "c.safetensors", "choose one of its networks with", target=tmp_path / "ab.pth")
    assert text.endswith("--key d_a, --key translators.ab, --key translators.ba")
    notes = convert.convert(tmp_path / "c.safetensors", tmp_path / "ab.safetensors", key="translators.ab")
    assert "it holds a CycleGAN's translator, as cyclegan.py trains" in notes
    assert checkpoint.load_translator(tmp_path / "ab.safetensors").image_size == 16


def test_an_unusual_key_has_to_be_named(tmp_path):
    torch.save({"frobnicated": their_g().state_dict()}, tmp_path / "c.pth")
    assert_refused(tmp_path / "c.pth", "--key frobnicated")
    convert.convert(tmp_path / "c.pth", tmp_path / "g.safetensors", key="frobnicated")
    assert checkpoint.load_generator(tmp_path / "g.safetensors").latent == 5


def test_two_networks_in_one_state_dict(tmp_path):
    g, d = their_g(), their_d()
    state = {f"generator.{k}": v for k, v in g.state_dict().items()} | {
        f"disc.{k}": v for k, v in d.state_dict().items()
    }
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "lightning.ckpt")
    torch.save(state, tmp_path / "plain.pth")
    for path, key in ((tmp_path / "plain.pth", "generator"), (tmp_path / "lightning.ckpt", "state_dict.generator")):
        notes = convert.convert(path, tmp_path / "g.safetensors", key=key)
        assert notes[0].startswith("taken: generator.*; left out: ")
        assert "disc.main.0.weight" in notes[0]
        same_pictures(checkpoint.load_generator(tmp_path / "g.safetensors"), g)
    assert_refused(tmp_path / "plain.pth", "nothing named gen,", key="gen")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_prefixes_are_taken_off(tmp_path, prefix):
    g = their_g()
    torch.save({prefix + name: tensor for name, tensor in g.state_dict().items()}, tmp_path / "g.pth")
    notes = convert.convert(tmp_path / "g.pth", tmp_path / "g.safetensors")
    assert notes[0].startswith(f'"{prefix.partition(".")[0]}." was taken off all')
    same_pictures(checkpoint.load_generator(tmp_path / "g.safetensors"), g)


def test_a_prefix_of_some_names_stays(tmp_path):
    torch.save({"module.a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "g.pth")
    convert.convert(tmp_path / "g.pth", tmp_path / "g.safetensors")
    assert sorted(checkpoint.read(tmp_path / "g.safetensors")) == ["b", "module.a"]


def test_networks_are_taken_out_of_a_training_checkpoint(tmp_path):
    saved = a_training(ema=0.9)
    g = saved.g
    d = dcgan.discriminator(image_size=8, channels=1, width=2, rng=np.random.default_rng(1))
    d.forward(np.random.default_rng(2).standard_normal((4, 1, 8, 8), dtype=np.float32))
    pair = Pair(g, d, saved.opt_g, Adam(d, lr=1e-3), saved.ema)
    checkpoint.save_training(tmp_path / "c.safetensors", pair, progress())
    text = assert_refused(tmp_path / "c.safetensors", target=tmp_path / "g.pth")
    assert text.endswith("choose one of its networks with --key d, --key ema.average, --key g"), (
        "and none of its optimisers"
    )
    assert_refused(tmp_path / "c.safetensors", "no arrays named e.*", target=tmp_path / "g.pth", key="e")
    for key, network in (("g", g), ("d", d), ("ema", saved.ema.average), ("ema.average", saved.ema.average)):
        notes = convert.convert(tmp_path / "c.safetensors", tmp_path / f"{key}.pth", key=key)
        assert "opt_g.state.main.0.weight.exp_avg" in notes[0] or " more" in notes[0]
        state = torch.load(tmp_path / f"{key}.pth", weights_only=True)
        assert state.keys() == network.state_dict().keys()
        for name, array in network.state_dict().items():
            np.testing.assert_array_equal(state[name].numpy(), array)
    x = np.random.default_rng(4).standard_normal((3, 1, 8, 8), dtype=np.float32)
    ours = checkpoint.load_discriminator(tmp_path / "c.safetensors")
    np.testing.assert_array_equal(ours.forward(x, train=False)[0], d.forward(x, train=False)[0])
    with pytest.raises(UserError, match="training checkpoint, which load_generator and load_discriminator open"):
        checkpoint.load(tmp_path / "c.safetensors", d)


# --------------------------------------------------------------------------------------------------- nothing is run


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def traps(content):
    """Ways of hiding ``content`` in a file."""
    return {
        "zip": lambda path: torch.save(content, path),
        "legacy": lambda path: torch.save(content, path, _use_new_zipfile_serialization=False),
        "pickle0": lambda path: path.write_bytes(pickle.dumps(content, 0)),
        "pickle2": lambda path: path.write_bytes(pickle.dumps(content, 2)),
        "pickle5": lambda path: path.write_bytes(pickle.dumps(content, 5)),
    }


@pytest.mark.parametrize("how", traps(None))
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_program_in_a_file_is_refused_and_not_run(tmp_path, monkeypatch, how, deep, suffix):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    content = Trap(str(tmp_path / "executed"))
    path = tmp_path / f"trap{suffix}"
    traps({"state_dict": {"main.0.weight": torch.ones(2), "x": content}} if deep else content)[how](path)
    text = assert_refused(path)
    assert not (tmp_path / "executed").exists()
    if suffix == ".pth" and how in ("zip", "legacy"):
        of_a_dictionary = deep and how == "zip"
        saving = "m = {k: v.state_dict() if" if of_a_dictionary else "torch.save(m.state_dict()"
        assert f"m = torch.load({str(path)!r}, weights_only=False), then {saving}" in text
        torch.load(path, weights_only=False)
        assert (tmp_path / "executed").exists(), "the trap works"


def test_a_whole_module_is_refused_with_the_way_out(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3)), tmp_path / "m.pth")
    assert_refused(tmp_path / "m.pth", "if you trust who made it", "weights_only=False", "m.state_dict()")


def test_torchscript_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        for name in ("version", "data.pkl", "constants.pkl"):
            archive.writestr(f"m/{name}", b"3\n")
    assert_refused(tmp_path / "m.pt", "TorchScript", "torch.jit.load")


def test_what_unfolds_is_refused(tmp_path):
    """A few bytes that stand for terabytes."""
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "w.pth")
    assert_refused(tmp_path / "w.pth", "would take 4000000000000, because they share their numbers")
    shared = torch.zeros(1000)
    torch.save({str(i): shared for i in range(100)}, tmp_path / "w.pth")
    assert_refused(tmp_path / "w.pth", "would take 400000")
    torch.save({"w": torch.zeros(1000)}, tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as old,
        zipfile.ZipFile(tmp_path / "z.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert_refused(tmp_path / "z.pth", "is compressed")


@pytest.mark.parametrize("new_format", [True, False])
def test_truncated_and_damaged_files_get_one_sentence(tmp_path, new_format):
    path = tmp_path / "g.pth"
    torch.save(their_g(8, 1, 2).state_dict(), path, _use_new_zipfile_serialization=new_format)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in [0, 1, 2, 9, len(data) - 1, *rng.integers(len(data), size=15)]:
        path.write_bytes(data[:length])
        text = assert_refused(path)
        assert "is not a whole file of torch.save's (" in text or "(or was cut short)" in text
    for position in rng.integers(min(len(data), 1500), size=60):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            convert.convert(path, tmp_path / "flipped.safetensors")
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([1, 2], "got a list of 2"),
        (torch.ones(3), "expected a state dict, got Tensor"),
        (3, "got int"),
        ({}, "only nothing"),
        ({"epoch": 3, "arrays": [torch.ones(2)]}, "holds no state dict, only epoch, arrays"),
        ({"w": torch.eye(3).to_sparse()}, "w is of layout torch.sparse_coo"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "w is of torch.complex64"),
        ({"w": torch.ones(2, device="meta")}, "w is on the device meta"),
        ({"w": torch.ones(2), "scale": 0.5}, "holds no state dict, only w, scale"),
        ({3: torch.ones(2), None: {"a": {4: torch.ones(1)}}}, "holds no state dict, only 3, None"),
        ({"__metadata__": torch.ones(2)}, "keeps the name"),
        ({"a\n\x1b[31m": torch.eye(2).to_sparse()}, r"'a\n\x1b[31m' is of layout"),
    ],
)
def test_what_is_no_state_dict_gets_one_sentence(tmp_path, content, match):
    torch.save(content, tmp_path / "x.pth")
    assert_refused(tmp_path / "x.pth", match)


def test_dictionaries_without_end(tmp_path):
    endless = {"epoch": 1}
    endless["model"] = endless
    torch.save(endless, tmp_path / "x.pth")
    assert_refused(tmp_path / "x.pth", "holds no state dict")
    shared = {"a": {"w": torch.ones(2)}, "x": 1}  # looked at once, however often it is there
    torch.save({f"k{i}": shared for i in range(5)}, tmp_path / "x.pth")
    assert_refused(tmp_path / "x.pth", "choose one with --key k0.a (1 arrays)")
    assert "k1" not in assert_refused(tmp_path / "x.pth")


def test_paths_that_cannot_be(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pth")
    assert_refused(tmp_path / "nothing.pth", "there is no file")
    assert_refused(tmp_path / "nothing.safetensors", "there is no file", target=tmp_path / "x2.pth")
    assert_refused(tmp_path, f"is a folder, and a file was expected: name one in it, as {tmp_path / 'x.pth'}")
    for name in ("out.npz", "out"):
        assert_refused(tmp_path / "x.pth", "ends in .safetensors or .pth", target=tmp_path / name)
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(UserError, match="got the folder"):
        convert.convert(tmp_path / "x.pth", tmp_path / "folder.pth")
    before = (tmp_path / "x.pth").read_bytes()
    with pytest.raises(UserError, match="are the same file"):
        convert.convert(tmp_path / "x.pth", tmp_path / "x.pth")
    assert (tmp_path / "x.pth").read_bytes() == before


@pytest.mark.parametrize("target", ["out.safetensors", "out.pth"])
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, target):
    torch.save(their_g(8, 1, 2).state_dict(), tmp_path / "in.pth")
    (tmp_path / target).write_text("old")

    fill_the_disk(monkeypatch, torch_files)
    with pytest.raises(OSError, match="No space left"):
        convert.convert(tmp_path / "in.pth", tmp_path / target)
    assert (tmp_path / target).read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == sorted(["in.pth", target])


@pytest.mark.parametrize("names", [("in.pth", "out.safetensors"), ("in.safetensors", "out.pth")])
def test_without_torch_it_says_what_to_install(tmp_path, monkeypatch, names):
    safetensors.numpy.save_file({"w": np.ones(2)}, tmp_path / "in.safetensors")
    (tmp_path / "in.pth").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert_refused(tmp_path / names[0], 'pip install "nanogan[torch]"', target=tmp_path / names[1])
    convert.convert(tmp_path / "in.safetensors", tmp_path / "o.safetensors", renames={"w": "v"})  # asks for no torch
    assert list(checkpoint.read(tmp_path / "o.safetensors")) == ["v"]


@pytest.mark.parametrize(
    ("version", "safe"), [("2.9.1", False), ("2.5.1+cu121", False), ("1.13", False), ("2.10.0", True), ("3.0", True)]
)
def test_torch_with_known_holes_is_refused(tmp_path, monkeypatch, version, safe):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pth")
    monkeypatch.setattr(torch, "__version__", version)
    if safe:
        convert.convert(tmp_path / "x.pth", tmp_path / "x.safetensors")
    else:
        assert_refused(tmp_path / "x.pth", f"torch {version} can be made to run a program", "2.10 or newer")


def test_nothing_else_imports_torch():
    code = (
        "import sys, pkgutil, importlib, nanogan\n"
        "for m in pkgutil.walk_packages(nanogan.__path__, 'nanogan.'):\n"
        "    if not m.name.endswith('__main__') and '.gpu' not in m.name: importlib.import_module(m.name)\n"
        "assert 'nanogan.convert' in sys.modules\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.stdout == "False\n", result.stderr


# ------------------------------------------------------------------------------------------------ strangers' networks


class NamedOtherwise(torch.nn.Module):
    """pytorch/examples' netD with layers as attributes."""

    def __init__(self, width=4):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, width, 4, 2, 1, bias=False)
        self.conv2 = torch.nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(2 * width)
        self.conv3 = torch.nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False)
        self.bn3 = torch.nn.BatchNorm2d(4 * width)
        self.last = torch.nn.Conv2d(4 * width, 1, 4, 1, 0, bias=False)

    def forward(self, x):
        x = torch.nn.functional.leaky_relu(self.conv1(x), 0.2)
        x = torch.nn.functional.leaky_relu(self.bn2(self.conv2(x)), 0.2)
        x = torch.nn.functional.leaky_relu(self.bn3(self.conv3(x)), 0.2)
        return self.last(x).flatten(1)


def test_a_network_that_differs_in_names_only_is_told_the_flags_that_mend_it(tmp_path):
    theirs = trained(NamedOtherwise(), torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    torch.save(theirs.state_dict(), tmp_path / "d.pth")
    notes = convert.convert(tmp_path / "d.pth", tmp_path / "d.safetensors")
    assert "discriminator of 32 x 32 pixels with 3 channels, width 4, under other names" in notes[0]
    flags = notes[1].removeprefix("nanogan opens it after ")
    assert flags == (
        "--rename conv1=main.0 --rename conv2=main.2 --rename bn2=main.3 --rename conv3=main.5 --rename bn3=main.6 "
        "--rename last=main.8"
    )
    for load in (
        checkpoint.load_discriminator,
        lambda path: checkpoint.load(path, dcgan.discriminator(image_size=32, channels=3, width=4)),
    ):
        with pytest.raises(UserError) as caught:
            load(tmp_path / "d.safetensors")
        assert f"NEW.safetensors {flags}" in str(caught.value)
    for source in ("d.pth", "d.safetensors"):
        assert run(tmp_path / source, tmp_path / "new.safetensors", *flags.split()).returncode == 0
        same_logits(checkpoint.load_discriminator(tmp_path / "new.safetensors"), theirs)
    with pytest.raises(UserError, match=r"not a DCGAN generator of nanogan's: it holds a DCGAN discriminator"):
        checkpoint.load_generator(tmp_path / "d.safetensors")


def test_renames(tmp_path):
    torch.save({"a.w": torch.ones(1), "a.b.w": torch.zeros(2), "ab.w": torch.ones(3)}, tmp_path / "x.pth")

    def renamed(**renames):
        convert.convert(
            tmp_path / "x.pth", tmp_path / "y.safetensors", renames={k.replace("_", "."): v for k, v in renames.items()}
        )
        return {name: len(array) for name, array in checkpoint.read(tmp_path / "y.safetensors").items()}

    assert renamed(a="c") == {"c.w": 1, "c.b.w": 2, "ab.w": 3}
    assert renamed(a="ab", ab="a") == {"ab.w": 1, "ab.b.w": 2, "a.w": 3}
    assert renamed(a="c", a_b="d.") == {"c.w": 1, "d.w": 2, "ab.w": 3}
    assert renamed(a_b_w="q") == {"a.w": 1, "q": 2, "ab.w": 3}
    os.unlink(tmp_path / "y.safetensors")
    assert_refused(tmp_path / "x.pth", "two arrays would be named ab.w", renames={"a": "ab"})
    assert_refused(tmp_path / "x.pth", "--rename c=...: no array is named so", renames={"c": "d"})


def strange(change):
    state = {
        name: np.asarray(array)
        for name, array in dcgan.generator(image_size=32, channels=3, latent=7, width=2).state_dict().items()
    }
    change(state)
    return state


def without(state, ending):
    for name in [name for name in state if name.endswith(ending)]:
        del state[name]


@pytest.mark.parametrize(
    ("change", "kind", "texts"),
    [
        (
            lambda s: s.update({"main.6.weight": np.zeros((4, 2, 5, 5))}),
            "generator",
            ["main.6.weight has a kernel of 5x5 where 4x4 was expected"],
        ),
        (
            lambda s: s.update({"main.0.weight": np.zeros((7, 8, 3, 3))}),
            "generator",
            ["main.0.weight has a kernel of 3x3 where 4x4 to 7x7 was expected"],
        ),
        (
            lambda s: s.update({"main.0.bias": np.zeros(8)}),
            "generator",
            ["main.0.bias: nanogan's convolutions have no biases"],
        ),
        (lambda s: without(s, "running_mean"), "generator", ["main.1.running_mean and 2 more: missing"]),
        (
            lambda s: [
                without(s, f"main.4.{leaf}")
                for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            ],
            "generator",
            ["it lacks BatchNorm of 4 channels"],
        ),
        (
            lambda s: s.update({"embed.weight": np.zeros((10, 7))}),
            "generator",
            ["embed.weight of shape (10, 7): nanogan's has no such array"],
        ),
        (lambda s: s.update({"main.9.weight": np.zeros((5, 3, 4, 4))}), None, ["do not make a row"]),
        (lambda s: without(s, "weight"), None, ["it holds no convolutions"]),
    ],
)
def test_what_differs_is_told(tmp_path, change, kind, texts):
    state = strange(change)
    found = recognise(state)
    assert found.kind == kind
    assert not found.fits
    assert found.differences == texts or all(any(text in got for got in found.differences) for text in texts)
    if kind:
        assert found.differences == texts
    safetensors.numpy.save_file(state, tmp_path / "g.safetensors")
    for load in (checkpoint.load_generator, checkpoint.load_discriminator):
        with pytest.raises(UserError) as caught:
            load(tmp_path / "g.safetensors")
        assert all(text in str(caught.value) for text in texts)
    with pytest.raises(UserError, match="another network: .*; the file holds "):
        checkpoint.load(tmp_path / "g.safetensors", dcgan.generator(image_size=32, channels=3, latent=7, width=2))


def test_every_size_is_recognised():
    for size in (8, 12, 20, 28, 32, 56, 64, 128):
        for channels, width, latent in ((1, 1, 1), (3, 2, 5), (2, 4, 16)):
            g = {"image_size": size, "channels": channels, "width": width, "latent": latent}
            form = {"upsample": "deconv", "last_bias": size > 28}
            d = {"image_size": size, "channels": channels, "width": width}
            state = dcgan.discriminator(**d).state_dict()
            assert dcgan.discriminator_options_of(state) == d
            found = recognise(state)
            assert (found.kind, found.options, found.fits) == ("discriminator", d, True)
            found = recognise(dcgan.generator(**g, **form).state_dict())
            assert (found.kind, found.options, found.fits) == ("generator", g | form, True)


def test_no_sizes_are_believed():
    """Nothing is allocated for what the shapes only promise."""

    class Promise:
        def __init__(self, *shape):
            self.shape, self.ndim = shape, len(shape)

    for shapes in (
        [(1 << 40, 3, 4, 4), (1, 64, 4, 4)],
        [(0, 1, 4, 4), (1, 0, 4, 4)],
        [(4, 0, 4, 4), (1, 4, 4, 4)],
        [(4, 1, 4, 4), (1, 4, 0, 0)],
        [(4, 1, 4, 4), (1, 4, 1 << 40, 1 << 40)],
        [(4, 1, 4, 4)],
        [(1, 4, 4, 4)] * 40,
        [(4, 1, 4, 4), (8, 4, 4, 5), (1, 8, 4, 4)],
    ):
        state = {f"main.{i}.weight": Promise(*shape) for i, shape in enumerate(shapes)}
        assert not recognise(state).fits
        if 0 not in shapes[0]:
            with pytest.raises(UserError):
                dcgan.discriminator_options_of(state)


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    d = dcgan.discriminator(image_size=8, channels=1, width=2)
    d.layers[0].params["weight"][0, 0, 0, 0] = np.inf
    checkpoint.save(tmp_path / "d.safetensors", d)
    with pytest.raises(UserError, match="not finite"):
        checkpoint.load_discriminator(tmp_path / "d.safetensors")


def test_names_and_flags_are_fit_for_a_shell_and_one_line(tmp_path):
    state = {
        name: torch.tensor(np.array(a))
        for name, a in dcgan.discriminator(image_size=8, channels=3, width=2).state_dict().items()
    }
    state["a b;c\n.weight"] = state.pop("main.0.weight")
    torch.save(state, tmp_path / "d.pth")
    notes = convert.convert(tmp_path / "d.pth", tmp_path / "d.safetensors")
    assert "--rename 'a b;c" in notes[1]
    assert all("\n" not in note for note in notes[:1])


# ------------------------------------------------------------------------------------------------------ real strangers


@pytest.fixture
def weights(real_data):
    folder = os.path.join(real_data, "weights")
    if not os.path.isdir(folder):
        pytest.skip("no weights in NANOGAN_DATA")
    return folder


def test_a_strangers_generator_of_other_kernels(weights, tmp_path):
    """Ryhan9834's: 3x3 and 4x4 kernels, biases, blocks in blocks."""
    source, path = os.path.join(weights, "mnist_generator_ryhan9834.pth"), tmp_path / "g.safetensors"
    notes = convert.convert(source, path)
    for text in (
        "gen.0.0.weight has a kernel of 3x3 where 4x4 to 7x7 was expected",
        "gen.2.0.weight has a kernel of 3x3 where 4x4 was expected",
        "gen.0.0.bias and 3 more: nanogan's convolutions have no biases",
        "named gen.0.0, ... where main.0, ... was expected",
    ):
        assert text in notes[0]
        with pytest.raises(UserError) as caught:
            checkpoint.load_generator(path)
        assert text in str(caught.value)

    def block(c, f, kernel, stride):
        return Sequential(ConvTranspose2d(c, f, kernel_size=kernel, stride=stride), BatchNorm2d(f), ReLU())

    last = Sequential(ConvTranspose2d(64, 1, kernel_size=4, stride=2), Tanh())
    network = Sequential(block(64, 256, 3, 2), block(256, 128, 4, 1), block(128, 64, 3, 2), last, prefix="gen")
    checkpoint.load(path, network)
    with np.load(os.path.join(weights, "expected_outputs.npz")) as file:
        expected = dict(file)
    got, _ = network.forward(expected["ryhan_z"], train=False)
    np.testing.assert_allclose(got, expected["ryhan_out"], atol=1e-5)


def test_a_strangers_discriminator_of_another_depth(weights, real_data, tmp_path):
    """csinva's, for 28 x 28 pixels: its last convolution has stride 2 and padding 1, which no shape tells."""
    source, path = os.path.join(weights, "mnist_netD_csinva.pth"), tmp_path / "d.safetensors"
    notes = convert.convert(source, path)
    assert "discriminator of 32 x 32 pixels with 1 channel, width 64" in notes[0]
    assert "strides and paddings are in no such file" in notes[1]

    def conv(c, f):
        return Conv2d(c, f, kernel_size=4, stride=2, padding=1, bias=False)

    def leaky():
        return LeakyReLU(negative_slope=0.2)

    network = Sequential(
        conv(1, 64), leaky(), conv(64, 128), BatchNorm2d(128), leaky(), conv(128, 256), BatchNorm2d(256), leaky(),
        conv(256, 1), Sigmoid(), Flatten(), prefix="main",
    )  # fmt: skip
    checkpoint.load(path, network)
    pictures, _ = load_mnist(data_dir=real_data, split="test")
    x = pictures[:200].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1
    got, _ = network.forward(x, train=False)
    with np.load(os.path.join(weights, "expected_outputs.npz")) as file:
        expected = file["csinva_netD_out_t10k_first200"]
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-5)

    with pytest.raises(UserError, match="it holds a DCGAN discriminator .*; name the file of a DCGAN generator"):
        checkpoint.load_generator(path)
    ours = checkpoint.load_discriminator(path)  # of just these shapes, at another size of picture
    with pytest.raises(UserError, match=r"expected pictures of shape \(N, 1, 32, 32\)"):
        ours.forward(x, train=False)


def test_widths_and_outputs_that_differ_are_told():
    state = {"main.0.weight": (6, 3, 4, 4), "main.2.weight": (9, 6, 4, 4), "main.10.weight": (5, 9, 4, 4)}
    found = recognise({name: np.zeros(shape) for name, shape in state.items()})
    assert found.kind == "discriminator"
    assert found.differences == [
        "its layers are 6 -> 9 wide where each was expected to be twice the one before",
        "main.10.weight gives 5 numbers where one logit was expected",
        "it lacks BatchNorm of 9 channels",
    ]
