"""What is added to nanogan is one new file, and in no list: tried on a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "nanogan"


class Copy:
    """A copy of the package ``nanogan`` in ``folder``, to which files can be added."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(PACKAGE, folder / "nanogan", ignore=shutil.ignore_patterns("__pycache__"))

    def add(self, name, text):
        """Write the file ``name``, "nanogan/ops/square.py", which must be new."""
        path = self.folder / name
        assert not path.exists(), name
        path.write_text(text, encoding="utf-8")

    def edit(self, name, old, new):
        """Replace ``old``, which occurs once in the file ``name``."""
        path = self.folder / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} contains {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def python(self, *arguments):
        """Run Python, which imports nanogan from the copy alone; return the finished process."""
        environment = os.environ | {"PYTHONPATH": str(self.folder), "NANOGAN_FAST": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip


@pytest.fixture
def grown(tmp_path):
    """A :class:`Copy` of nanogan."""
    return Copy(tmp_path)


OPERATION = '''"""The square of each element."""

from nanogan.ops.examples import Example, normal


def square_forward(x, *, scale=1.0):
    """y = scale * x^2."""
    return scale * x * x, (x, scale)


def square_backward(dy, cache):
    """dx = dy * 2 * scale * x."""
    x, scale = cache
    return dy * 2 * scale * x


EXAMPLES = [Example(square_forward, torch=lambda F, x, scale: scale * x.square(), x=normal(3, 4), scale=1.5)]
'''

FAST_PATH = '''"""The square again, for small arrays."""

from nanogan import ops
from nanogan.dispatch import register


def square_forward(x, *, scale=1.0):
    return scale * x**2, (x, scale)


def square_backward(dy, cache):
    return ops.square_backward(dy, cache)


register("cpu", ops.square_forward, square_forward, square_backward, serves=lambda x, **_: x.size < 100)
'''

USE = """
import runpy, sys
import numpy as np
import nanogan
from nanogan import ops
from nanogan.dispatch import dispatch, watch

assert nanogan.__file__.startswith(sys.argv[1]), nanogan.__file__
assert {"square_forward", "square_backward"} <= set(ops.__all__)
from nanogan.ops import square_forward

for size, expected in ((3, "nanogan.fast.cpu.square.square_forward"), (100, "nanogan.ops.square.square_forward")):
    with watch() as ran:
        y, (backward, cache) = dispatch(ops.square_forward, ops.square_backward, np.full(size, 3.0), scale=2.0)
    assert ran == [expected], ran
    assert (y == 18).all() and (backward(np.ones(size), cache) == 12).all()
sys.argv[1:] = ["--op", "square"]
runpy.run_module("nanogan.gradcheck", run_name="__main__")
"""


def test_an_operation_is_one_file_and_a_fast_path_another(grown):
    """Both are found; and the gradient check, which passes, fails once the backward is wrong."""
    grown.add("nanogan/ops/square.py", OPERATION)
    grown.add("nanogan/fast/cpu/square.py", FAST_PATH)
    result = grown.python("-c", USE, grown.folder)
    assert result.returncode == 0, result.stdout + result.stderr
    (row,) = [line.split() for line in result.stdout.splitlines() if line.startswith("square")]
    assert (row[1], row[-1]) == ("2", "ok")
    assert float(row[3]) < 1e-14, "beside torch's"

    grown.edit("nanogan/ops/square.py", "return dy * 2 * scale * x", "return -dy * 2 * scale * x")
    result = grown.python("-m", "nanogan.gradcheck", "--op", "square")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "WRONG: square x(3,4) scale=1.5" in result.stdout
    assert "sign?" in result.stdout


MODEL = '''"""Two small networks of fully connected layers."""

from nanogan.layers import Flatten, LeakyReLU, Linear, Reshape, Sequential, Tanh


def pair(shape, latent, rng, dtype):
    """An artist (N, latent) -> (N, *shape), and a critic (N, *shape) -> scores (N, 1)."""
    C, H, W = shape
    options = {"rng": rng, "dtype": dtype}
    artist = Sequential(Linear(latent, C * H * W, **options), Tanh(), Reshape(C, H, W))
    critic = Sequential(Flatten(), Linear(C * H * W, 8, **options), LeakyReLU(0.2), Linear(8, 1, **options))
    return artist, critic
'''

GAME = '''"""A critic that gives scores, two updates of it for each of the artist."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nanogan import ops
from nanogan.backend import get_device, seeded_rng
from nanogan.games.drawing import draw_z, sample
from nanogan.games.game import Game, Options, option
from nanogan.models import toy
from nanogan.optim import Adam


class Seen(NamedTuple):
    loss_critic: np.ndarray
    loss_artist: np.ndarray
    margin: np.ndarray


@dataclass(frozen=True)
class ToyOptions(Options):
    latent: int = option(4, "elements of z", low=1)
    lr: float = option(1e-3, "learning rate", above=0, may_change=True)


class ToyGAN(Game):
    Options, batches = ToyOptions, 2
    exports = {"artist.safetensors": "artist"}
    curves = {"what each minimises": ("loss_critic", "loss_artist"), "margin": ("margin",)}
    labels = {"loss_critic": "the critic's loss"}

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        self.options, self.device, self.dtype = options, get_device(device), dtype
        artist, critic = toy.pair(shapes["images"], options.latent, seeded_rng(seed, "weights"), dtype)
        self.artist, self.critic = artist.to(self.device), critic.to(self.device)
        self.opt_artist, self.opt_critic = Adam(self.artist, lr=options.lr), Adam(self.critic, lr=options.lr)

    def draw(self, batches, rng, at):
        reals = [batch["images"] for batch in batches]
        zs = [draw_z(rng, len(real), self.options.latent, device=self.device, dtype=self.dtype) for real in reals]
        return {"reals": reals, "zs": zs, "lr": self.options.lr}

    def step(self, reals, zs, lr) -> Seen:
        self.opt_critic.lr = self.opt_artist.lr = lr
        for real, z in zip(reals, zs, strict=True):
            self.critic.zero_grad()
            score, cache = self.critic.forward(real)
            loss_real, loss_cache = ops.hinge_forward(score, 1.0)
            self.critic.backward(ops.hinge_backward(1.0, loss_cache), cache, need_dx=False)
            fake, artist_cache = self.artist.forward(z)
            on_fake, cache = self.critic.forward(fake)
            loss_fake, loss_cache = ops.hinge_forward(on_fake, 0.0)
            self.critic.backward(ops.hinge_backward(1.0, loss_cache), cache, need_dx=False)
            self.opt_critic.step()
        self.artist.zero_grad()
        new, cache = self.critic.forward(fake)
        loss_artist, loss_cache = ops.score_forward(new, 1.0)
        dfake = self.critic.backward(ops.score_backward(1.0, loss_cache), cache, need_dw=False)
        self.artist.backward(dfake, artist_cache, need_dx=False)
        self.opt_artist.step()
        return Seen(loss_real + loss_fake, loss_artist, score.mean() - on_fake.mean())

    def objectives(self, seen):
        return {"opt_critic": seen.loss_critic, "opt_artist": seen.loss_artist}

    def fixed(self, batches, rng):
        return draw_z(rng, 16, self.options.latent, device=self.device, dtype=self.dtype)

    def sample(self, z):
        return sample(self.artist, z)

    @classmethod
    def generate(cls, network, count, options, rng, device):
        return sample(network, draw_z(rng, count, options.latent, device=device))


EXAMPLES = {"toy GAN": (ToyGAN, {"latent": 3}, {"images": (1, 4, 4)})}
'''

SCRIPT = '''"""Train the toy on random images."""

import numpy as np

from nanogan import checkpoint, cli, recipes
from nanogan.games.toy import ToyGAN
from nanogan.models import toy


def load_data(args):
    return "noise", np.random.default_rng(0).integers(0, 256, (48, 8, 8, 1)).astype(np.uint8)


def load(path):
    artist, _ = toy.pair((1, 8, 8), 4, np.random.default_rng(0), np.float32)
    return checkpoint.load(path, artist)


if __name__ == "__main__":
    parser = recipes.parser("Train a toy.", game=ToyGAN, out="runs/toy", epochs=2, batch_size=8)
    cli.run(lambda: recipes.run(parser, load_data, load=load))
'''

PLAY = """
import runpy, sys

def run(*arguments):
    sys.argv = ["toy.py", *arguments]
    try:
        runpy.run_path("examples/toy.py", run_name="__main__")
    except SystemExit as end:
        assert end.code == 0, (arguments, end.code)

run("--out", "whole")
run("--out", "part", "--epochs", "1")
run("--out", "part", "--resume", "--epochs", "2")
run("--out", "generated", "--generate", "4", "--checkpoint", "whole/artist.safetensors")
run("--dry-run", "--out", "dry")
sys.argv = ["gradcheck", "--op", "toy GAN"]
runpy.run_module("nanogan.gradcheck", run_name="__main__")
"""


def test_a_GAN_is_three_files(grown):
    """With networks, losses and files of other names than the DCGAN's: trained, resumed, reported, checked."""
    grown.add("nanogan/models/toy.py", MODEL)
    grown.add("nanogan/games/toy.py", GAME)
    (grown.folder / "examples").mkdir()
    grown.add("examples/toy.py", SCRIPT)
    result = grown.python("-c", PLAY)
    assert result.returncode == 0, result.stdout + result.stderr
    (row,) = [line.split() for line in result.stdout.splitlines() if line.startswith("toy GAN")]
    assert (row[2], row[-1]) == ("2", "ok")
    assert "[1/2][1/3]  the critic's loss: " in result.stdout
    whole, part = grown.folder / "whole", grown.folder / "part"
    assert (whole / "artist.safetensors").read_bytes() == (part / "artist.safetensors").read_bytes()
    assert not (whole / "generator.safetensors").exists()
    header, *rows = (whole / "log.csv").read_text(encoding="utf-8").splitlines()
    assert header == "epoch,step,loss_critic,loss_artist,margin,seconds"
    assert len(rows) == 6, "48 images in batches of 8, two for each step, twice"
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert "What each minimises" in page
    assert "the critic" in page
    for name in ("losses.png", "training.gif", "real.png", "samples/epoch_002_step_000006.png"):
        assert (whole / name).stat().st_size > 0, name
    assert (grown.folder / "generated/generated.png").stat().st_size > 0

    grown.edit("nanogan/games/toy.py", "ops.score_backward(1.0, loss_cache)", "ops.score_backward(0.5, loss_cache)")
    result = grown.python("-m", "nanogan.gradcheck", "--op", "toy GAN")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "opt_artist: 0.weight along a random direction" in result.stdout
    assert "a factor of 0.5 too much?" in result.stdout
