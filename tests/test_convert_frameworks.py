"""Checkpoints as frameworks write them: whoever follows the messages word by word gets to a network that opens."""

import argparse
import re
import shlex
import shutil
import sys
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn.utils import parametrizations

from nanogan import checkpoint, convert
from nanogan.convert import __main__ as command_line
from nanogan.errors import UserError
from tests.test_convert import same_logits, same_pictures, their_d, their_g

G, D = their_g(), their_d()


def named(prefix, network):
    """A state dict with ``prefix`` before all names."""
    return {prefix + name: tensor.clone() for name, tensor in network.state_dict().items()}


def both(g, d):
    return named(g, G) | named(d, D)


def renamed(network, *names):
    """A state dict with other names of layers, in the order of the network's."""
    layers = dict.fromkeys(name.rpartition(".")[0] for name in network.state_dict())
    names = dict(zip(layers, names, strict=True))
    return {f"{names[n.rpartition('.')[0]]}.{n.rpartition('.')[2]}": t for n, t in network.state_dict().items()}


def adam():
    network = their_g()
    optimizer = torch.optim.Adam(network.parameters())
    sum(parameter.sum() for parameter in network.parameters()).backward()
    optimizer.step()
    return optimizer.state_dict()


def lightning(state):
    return {
        "epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.1", "state_dict": state, "loops": {"fit": {}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best": torch.tensor(0.5)}}, "lr_schedulers": [],
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3}]}],
        "hparams_name": "kwargs", "hyper_parameters": {"latent_dim": 5, "lr": 2e-4},
    }  # fmt: skip


ATTRIBUTES = "layers.0.conv", "layers.0.bn", "layers.1.conv", "layers.1.bn", "layers.2.conv"
FILES = {  # name: (content, --key that the user picks where several are offered)
    "lightning.ckpt": (lambda: lightning(both("generator.", "discriminator.")), None),
    "lightning with a metric.ckpt": (lambda: lightning(both("G.", "D.") | {"fid.mu": torch.ones(3)}), None),
    "pytorch_model.bin": (lambda: named("", G), None),
    "netG and netD.pt": (lambda: {"netG": named("", G), "netD": named("", D), "epoch": 4}, "netG"),
    "nested.pth": (
        lambda: {"G": {"state_dict": named("", G), "opt": {"state": {}, "param_groups": []}},
                 "D": {"state_dict": named("", D)}}, "G.state_dict"),
    "deeper.pth": (lambda: {"state": {"models": {"G": {"state_dict": named("", G)}}}}, "state.models.G.state_dict"),
    "ddp inside.pth": (lambda: both("generator.module.", "discriminator.module."), None),
    "ddp outside.pth": (lambda: both("module.G.", "module.D."), None),
    "compiled inside.pth": (lambda: {"state_dict": both("generator._orig_mod.", "discriminator._orig_mod.")}, None),
    "accelerate.bin": (lambda: named("module.", G), None),
    "basicsr.pth": (lambda: {"params": named("", G), "params_ema": named("", G)}, "params_ema"),
    "basicsr2.pth": (lambda: {"params_ema": named("", G)}, None),
    "stylegan.pt": (lambda: {"g": named("", G), "d": named("", D), "g_ema": named("", G)}, "g_ema"),
    "swa.pth": (lambda: named("module.", G) | {"n_averaged": torch.tensor(3)}, None),
    "ema_pytorch.pt": (
        lambda: both("ema_model.", "other.") | {"step": torch.tensor([3]), "initted": torch.tensor([True])}, None),
    "ema inside.pth": (lambda: named("ema_model.module.", G), None),
    "sequential.pth": (lambda: {name.removeprefix("main."): t for name, t in named("", G).items()}, None),
    "net.pth": (lambda: {name.replace("main.", "net."): t for name, t in named("", G).items()}, None),
    "blocks.pth": (lambda: renamed(G, *ATTRIBUTES), None),
    "blocks of lightning.ckpt": (
        lambda: lightning({f"gen.{n}": t for n, t in renamed(G, *ATTRIBUTES).items()} | named("disc.", D)), None),
    "torch 0.4.pth": (lambda: {n: t for n, t in named("", G).items() if "num_batches" not in n}, None),
    "UPPER.PTH": (lambda: named("", G), None),
    "best.pth.tar": (lambda: {"epoch": 3, "state_dict": named("", G), "best": 0.1}, None),
    "with its optimizer.pth": (lambda: {"model": named("", G), "optimizer": adam(), "scaler": {"scale": 1.0}}, None),
    "with numbers among it.pth": (lambda: named("", G) | {"epoch": 3, "args": {"lr": 1e-3}}, None),
    "with an embedding.pth": (lambda: named("", G) | {"embed.weight": torch.ones(10, 5)}, None),
}  # fmt: skip
SAFETENSORS = {
    "model.safetensors": lambda: named("", G),
    "prefixed.safetensors": lambda: named("generator.", G),
    "both.safetensors": lambda: both("generator.", "discriminator."),
    "parallel.safetensors": lambda: named("module.", G),
    "model.bin": lambda: named("", G),
    "both in parallel.bin": lambda: both("module.generator.", "module.discriminator."),
}


def command(monkeypatch, text, *more):
    """Run the command of convert's that a message ends in, in this process."""
    words = shlex.split(re.search(r"python -m nanogan\.convert (.*)$", text)[1])
    monkeypatch.setattr(sys, "argv", ["convert", *words, *more])
    assert command_line.main() == 0


def follow(path, load, monkeypatch, key=None):
    """Load a file; while that is refused, run the command that the message recommends."""
    monkeypatch.chdir(path.parent)
    for turn in range(4):
        try:
            return load(path)
        except UserError as error:
            text = str(error)
        try:
            command(monkeypatch, text)
        except UserError as error:
            if f"--key {key} (" not in str(error):
                raise
            command(monkeypatch, text, "--key", key)
        path = path.with_name(f"converted{turn}.safetensors")
        shutil.move("NEW.safetensors", path)
    raise AssertionError(text)


@pytest.mark.parametrize("name", FILES)
def test_the_messages_lead_from_a_frameworks_file_to_its_generator(tmp_path, monkeypatch, name):
    content, key = FILES[name]
    torch.save(content(), tmp_path / name, _use_new_zipfile_serialization=name != "net.pth")
    same_pictures(follow(tmp_path / name, checkpoint.load_generator, monkeypatch, key), G)


@pytest.mark.parametrize("name", SAFETENSORS)
def test_the_messages_lead_from_a_safetensors_file_to_its_generator(tmp_path, monkeypatch, name):
    safetensors.torch.save_file(SAFETENSORS[name](), tmp_path / name, {"format": "pt"})
    same_pictures(follow(tmp_path / name, checkpoint.load_generator, monkeypatch), G)


@pytest.mark.parametrize("name", ["lightning.ckpt", "ddp inside.pth", "ddp outside.pth", "compiled inside.pth"])
def test_the_messages_lead_to_the_discriminator_too(tmp_path, monkeypatch, name):
    torch.save(FILES[name][0](), tmp_path / name)
    same_logits(follow(tmp_path / name, checkpoint.load_discriminator, monkeypatch), D)


@pytest.mark.parametrize("key", ["state_dict.generator", "generator", "state_dict.generator.module"])
def test_a_key_may_leave_the_one_state_dict_out(tmp_path, key):
    torch.save(lightning(both("generator.module.", "discriminator.")), tmp_path / "x.ckpt")
    notes = convert.convert(tmp_path / "x.ckpt", tmp_path / "g.safetensors", key=key)
    assert "it holds a DCGAN generator of 16 x 16 pixels with 3 channels, latent 5, width 4" in notes
    same_pictures(checkpoint.load_generator(tmp_path / "g.safetensors"), G)


def test_the_command_tells_which_networks_it_wrote_together(tmp_path, monkeypatch):
    torch.save(lightning(both("generator.", "discriminator.")), tmp_path / "x.ckpt")
    notes = convert.convert(tmp_path / "x.ckpt", tmp_path / "all.safetensors")
    told = [note for note in notes if "python -m nanogan.convert" in note]
    assert [note.partition(" in it are ")[0] for note in told] == ["generator.*", "discriminator.*"]
    monkeypatch.chdir(tmp_path)
    for note, load, same, theirs in (
        (told[0], checkpoint.load_generator, same_pictures, G), (told[1], checkpoint.load_discriminator, same_logits, D)
    ):  # fmt: skip
        command(monkeypatch, note)
        same(load("NEW.safetensors"), theirs)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (lambda: G, None),
        (lambda: {"netG": G, "netD": D, "epoch": 3}, "netG"),
        (lambda: lightning(named("generator.", G)) | {"hyper_parameters": argparse.Namespace(lr=1)}, None),
        (lambda: {"netG": named("", G), "epoch": np.int64(3), "best": np.float64(0.5)}, None),
        (lambda: named("", G) | {"options": argparse.Namespace(lr=1)}, None),
        (lambda: OrderedDict(named("", G) | {"options": argparse.Namespace(lr=1)}), None),
    ],
    ids=["module", "modules", "options", "numpy scalars", "options among arrays", "ordered"],
)
def test_what_is_recommended_for_a_file_with_programs_works(tmp_path, monkeypatch, content, key):
    torch.save(content(), tmp_path / "x.pth")
    with pytest.raises(UserError) as caught:
        convert.convert(tmp_path / "x.pth", tmp_path / "g.safetensors")
    text = str(caught.value)
    assert "if you trust who made it" in text
    assert len(text) < 700
    advice = text.partition(" made it, run ")[2].partition(", where its classes can be imported")[0]
    monkeypatch.chdir(tmp_path)
    exec("\n".join(advice.split(", then ")), {"torch": torch})
    convert.convert(tmp_path / "weights.pth", tmp_path / "g.safetensors", key=key)
    same_pictures(follow(tmp_path / "g.safetensors", checkpoint.load_generator, monkeypatch), G)


@pytest.mark.filterwarnings("ignore")  # torch's, of TorchScript
def test_what_is_recommended_for_torchscript_works(tmp_path, monkeypatch):
    torch.jit.save(torch.jit.script(G), tmp_path / "x.pt")
    with pytest.raises(UserError) as caught:
        convert.convert(tmp_path / "x.pt", tmp_path / "g.safetensors")
    monkeypatch.chdir(tmp_path)
    exec(str(caught.value).partition("run ")[2].removesuffix(" and convert that"), {"torch": torch})
    convert.convert(tmp_path / "weights.pth", tmp_path / "g.safetensors")
    same_pictures(checkpoint.load_generator(tmp_path / "g.safetensors"), G)


@pytest.mark.parametrize(
    ("make", "load"),
    [
        (lambda layer: torch.nn.utils.spectral_norm(layer), checkpoint.load_discriminator),
        (lambda layer: parametrizations.spectral_norm(layer), checkpoint.load_discriminator),
        (lambda layer: torch.nn.utils.weight_norm(layer), checkpoint.load_generator),
        (lambda layer: parametrizations.weight_norm(layer), checkpoint.load_generator),
    ],
    ids=["spectral_norm", "spectral_norm, new", "weight_norm", "weight_norm, new"],
)
@pytest.mark.filterwarnings("ignore")  # torch's, of its old functions
def test_weights_in_parts_are_told_with_what_joins_them(tmp_path, make, load):
    network, same = (their_d(), same_logits) if load is checkpoint.load_discriminator else (their_g(), same_pictures)
    layers = [m for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
    for layer in layers:
        make(layer)
    network.eval()
    torch.save(network.state_dict(), tmp_path / "x.pth")
    convert.convert(tmp_path / "x.pth", tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"main\.0\..* is of torch's (spectral|weight)_norm: in torch, call ") as caught:
        load(tmp_path / "x.safetensors")
    for layer in layers:
        exec(re.search(r"call (.*) of each", str(caught.value))[1], {"torch": torch, "layer": layer})
    torch.save(network.state_dict(), tmp_path / "y.pth")
    convert.convert(tmp_path / "y.pth", tmp_path / "y.safetensors")
    same(load(tmp_path / "y.safetensors"), network)


def test_an_optimizers_state_alone_is_called_that(tmp_path):
    torch.save(adam(), tmp_path / "opt.pth")
    with pytest.raises(UserError, match="holds the state of an optimizer and no network"):
        convert.convert(tmp_path / "opt.pth", tmp_path / "g.safetensors")
