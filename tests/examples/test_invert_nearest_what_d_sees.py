"""Inversion, nearest pictures and what a discriminator sees, as a user starts them: on built-in digits, in seconds."""

import json

import numpy as np
import pytest

from nanogan import checkpoint
from nanogan.images import save_png
from nanogan.models import dcgan
from tests.examples.starting import run, size_of, succeed


@pytest.fixture
def networks(tmp_path):
    """A folder as training leaves it, but untrained."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "runs" / "mnist_dcgan"
    shape = {"image_size": 16, "channels": 1, "width": 4, "rng": rng}
    checkpoint.save(folder / "generator.safetensors", dcgan.generator(latent=6, **shape))
    checkpoint.save(folder / "discriminator.safetensors", dcgan.discriminator(**shape))
    return folder


def test_invert(networks, tmp_path):
    out = succeed("invert.py", "--dry-run", "--data", "digits", "--feature-weight", "0.5", folder=tmp_path)
    left = tmp_path / "runs" / "invert"
    numbers = json.loads((left / "numbers.json").read_text())
    assert (numbers["pictures"], numbers["steps"], numbers["restarts"]) == (3, 3, 2)
    for kind in ("training", "unseen", "samples", "upside_down"):
        assert f"error_{kind}: " in out
        assert 0 < numbers[f"error_{kind}"] < 2
    assert size_of(left / "inversion.png") == (2 + 3 * 18, 2 + 9 * 18)  # four pairs of rows, and nearest pictures


def test_what_d_sees(networks, tmp_path):
    options = ("--dry-run", "--data", "digits", "--features", "0", "3", "--strongest", "5")
    out = succeed("what_d_sees.py", *options, folder=tmp_path)
    assert "receptive_field: [10, 10]" in out  # of the second of three convolutions
    left = tmp_path / "runs" / "what_d_sees"
    for rule in ("guided", "gradient", "gradient_x_input"):
        assert size_of(left / f"{rule}.png") == (2 * (2 + 5 * 42) + 12, 2 + 4 * 42)
        assert f"{rule}_untrained_smoothness: " in out
    code, _, err = run("what_d_sees.py", *options, "--convolution", "4", folder=tmp_path)
    assert code == 2
    assert "--convolution expected a number from 1 to 3, got 4" in err


def test_nearest(networks, tmp_path):
    out = succeed("nearest.py", "--dry-run", "--data", "digits", "--shown", "3", "--neighbours", "2", folder=tmp_path)
    left = tmp_path / "runs" / "nearest"
    assert size_of(left / "nearest.png") == ((2 + 18) + 2 * (4 + 2 + 2 * 18), 2 + 3 * 18)
    assert "pictures: 200" in out
    numbers = json.loads((left / "numbers.json").read_text())
    assert 0 <= numbers["sample_nearer_than_unseen_features"] <= 1


def test_planted_duplicates_and_unseen_pictures_of_folders(networks, tmp_path):
    rng = np.random.default_rng(1)
    for name, count in (("seen", 12), ("unseen", 5)):
        for i in range(count):
            save_png(tmp_path / name / f"{i:02d}.png", rng.integers(0, 256, (16, 16, 1), dtype=np.uint8))
    for i in (3, 4):
        (tmp_path / "seen" / f"copy{i}.png").write_bytes((tmp_path / "seen" / f"0{i}.png").read_bytes())
    folders = ("--data", "seen", "--unseen", "unseen")
    out = succeed("nearest.py", *folders, "--samples", "6", folder=tmp_path)
    assert "groups_of_equal_pictures: 2" in out
    assert "groups_within_12_levels: 2" in out
    assert size_of(tmp_path / "runs/nearest/duplicates.png") == (2 + 2 * 18, 2 + 2 * 18)
    succeed("invert.py", *folders, "--dry-run", folder=tmp_path)
    code, _, err = run("invert.py", "--dry-run", "--data", "seen", folder=tmp_path)
    assert code == 2
    assert "seen is a folder, which has no test split: give a folder of its own" in err


@pytest.mark.parametrize("script", ["invert.py", "nearest.py", "what_d_sees.py"])
def test_a_missing_checkpoint_says_how_to_train_one(tmp_path, script):
    code, _, err = run(script, "--data", "digits", folder=tmp_path)
    assert code == 2
    assert "there is no checkpoint runs/mnist_dcgan/" in err
    assert "train one first (python examples/mnist_dcgan.py)" in err
    code, out, _ = run(script, "--help", folder=tmp_path)
    assert code == 0
    assert "The paper's section" in " ".join(out.split())


def test_a_discriminator_of_its_own_and_a_missing_one(networks, tmp_path):
    moved = networks / "d.safetensors"
    (networks / "discriminator.safetensors").rename(moved)
    options = ("--dry-run", "--data", "digits")
    succeed("nearest.py", *options, "--discriminator", moved, folder=tmp_path)
    code, _, err = run("nearest.py", *options, folder=tmp_path)
    assert code == 2
    assert "is not a DCGAN discriminator of nanogan's" in err
