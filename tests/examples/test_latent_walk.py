"""The walk as a user starts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from nanogan import checkpoint
from nanogan.models import dcgan

SCRIPT = Path(__file__).parents[2] / "examples" / "latent_walk.py"


def run(*arguments, folder):
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--out", "out", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_it_walks_and_measures(tmp_path, channels):
    checkpoint.save(tmp_path / "g.safetensors", dcgan.generator(image_size=16, channels=channels, latent=6, width=4))
    done = run("--checkpoint", "g.safetensors", "--dry-run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "out/numbers.json").read_text())
    for path in ("line", "circle"):
        assert numbers[f"{path}_largest_over_median"] >= 1
        assert 0 < numbers[f"{path}_largest_halved"] <= 1
        with Image.open(tmp_path / f"out/walk_{path}.png") as strip:
            assert strip.size == (2 + 5 * 18, 2 + 3 * 18)  # three legs of four steps
        with Image.open(tmp_path / f"out/walk_{path}.gif") as animation:
            assert animation.n_frames == 12


def test_mistakes_get_one_sentence(tmp_path):
    done = run("--dry-run", folder=tmp_path)
    assert done.returncode == 2
    expected = (
        "there is no generator runs/mnist_dcgan/generator.safetensors: train one first (python examples/mnist_dcg"
    )
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert run("--path", "spiral", folder=tmp_path).returncode == 2
