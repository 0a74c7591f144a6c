"""The walk as a user starts it."""

import json

import pytest
from PIL import Image

from nanogan import checkpoint
from nanogan.models import dcgan
from tests.examples.starting import run

OPTIONS = ("latent_walk.py", "--out", "out")


@pytest.mark.parametrize("channels", [1, 3])
def test_it_walks_and_measures(tmp_path, channels):
    checkpoint.save(tmp_path / "g.safetensors", dcgan.generator(image_size=16, channels=channels, latent=6, width=4))
    code, _, err = run(*OPTIONS, "--checkpoint", "g.safetensors", "--dry-run", folder=tmp_path)
    assert code == 0, err
    numbers = json.loads((tmp_path / "out/numbers.json").read_text())
    for path in ("line", "circle"):
        assert numbers[f"{path}_largest_over_median"] >= 1
        assert 0 < numbers[f"{path}_largest_halved"] <= 1
        with Image.open(tmp_path / f"out/walk_{path}.png") as strip:
            assert strip.size == (2 + 5 * 18, 2 + 3 * 18)  # three legs of four steps
        with Image.open(tmp_path / f"out/walk_{path}.gif") as animation:
            assert animation.n_frames == 12


def test_mistakes_get_one_sentence(tmp_path):
    code, _, err = run(*OPTIONS, "--dry-run", folder=tmp_path)
    assert code == 2
    expected = (
        "there is no generator runs/mnist_dcgan/generator.safetensors: train one first (python examples/mnist_dcg"
    )
    assert expected in err
    assert "Traceback" not in err
    assert run(*OPTIONS, "--path", "spiral", folder=tmp_path)[0] == 2
