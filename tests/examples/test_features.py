"""Classifying with a discriminator's features, as a user starts it: on built-in digits, in seconds."""

import importlib.util
import json
import sys

import numpy as np
import pytest
from PIL import Image

from nanogan import checkpoint
from nanogan.models import dcgan
from tests.examples.starting import EXAMPLES, run, size_of, succeed

KINDS = ("d", "untrained", "k-means", "pixels")


@pytest.fixture
def discriminator(tmp_path):
    path = tmp_path / "runs/mnist_dcgan/discriminator.safetensors"
    checkpoint.save(path, dcgan.discriminator(image_size=16, channels=1, width=4, rng=np.random.default_rng(0)))
    return path


def test_a_discriminator_of_ours(discriminator, tmp_path):
    out = succeed("features.py", "--dry-run", "--data", "digits", folder=tmp_path)
    numbers = json.loads((tmp_path / "runs/features/numbers.json").read_text())
    assert (numbers["pictures"], numbers["test_pictures"]) == (300, 100)
    assert [numbers[f"{kind}_features"] for kind in KINDS] == [(4 + 8) * 16, (4 + 8) * 16, 4 * 16, 16 * 16]
    for kind in KINDS:
        for protocol in ("all", "few"):
            assert 0 <= numbers[f"{kind}_{protocol}_error"] <= 1
        assert numbers[f"{kind}_few_spread"] > 0
    assert numbers["pixels_all_error"] < 0.4  # of digits; 0.9 if it had learned nothing
    assert numbers["d_all_error"] != numbers["untrained_all_error"]
    assert "the same, D untrained" in out
    assert "22.48% SVHN" in out
    assert size_of(tmp_path / "runs/features/features.png") == (640, 2 * (40 + 4 * 24) + 10)


def test_one_of_the_papers_trained_here_and_used_again(tmp_path):
    options = ("--dry-run", "--data", "digits", "--kinds", "d")
    network = ("--train", "svhn", "--width", "2", "--channels", "1", "--batch-size", "8")
    out = succeed("features.py", *options, *network, folder=tmp_path)
    left = tmp_path / "runs/features"
    assert "D, for --checkpoint: runs/features/discriminator.safetensors" in out
    assert size_of(left / "samples.png") == (2 + 8 * 34, 2 + 8 * 34)
    first = json.loads((left / "numbers.json").read_text())
    assert first["d_features"] == (2 + 4 + 8) * 16
    succeed("features.py", *options, "--checkpoint", left / "discriminator.safetensors", folder=tmp_path)
    assert json.loads((left / "numbers.json").read_text()) == first


def test_a_users_mistake_gets_one_sentence(discriminator, tmp_path):
    for arguments, message in (
        (("--data", "."), "expected a data set with labels, got the folder .: use --data mnist"),
        (("--checkpoint", "none"), "there is no checkpoint none: train one first"),
        (
            ("--data", "digits", "--pictures", "100", "--test", "9", "--kinds", "pixels"),
            "100 labels of each class were asked for, one has",
        ),
        (("--train", "lsun"), "invalid choice: 'lsun'"),
        (("--train", "svhn", "--checkpoint", "d"), "--train makes a discriminator and --checkpoint names one"),
        (("--width", "3"), "--width is of a game that is played first: add --train"),
    ):
        code, _, err = run("features.py", *arguments, folder=tmp_path)
        assert code == 2, arguments
        assert message in err
        assert "Traceback" not in err


def test_bars_are_as_long_as_their_numbers(tmp_path):
    from nanogan.images.plots import save_bars

    groups = {"one": [("half", 0.25, 0.0), ("all", 0.5, 0.0)], "two": [("none", 0.0, 0.0), ("wide", 0.25, 0.25)]}
    save_bars(tmp_path / "bars.png", groups)
    with Image.open(tmp_path / "bars.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    paper = 255
    lengths = []
    for middle in (30 + 6, 54 + 6, 118 + 6, 142 + 6):  # above the line of a spread
        row = pixels[middle, 171:]
        lengths.append(int((row.sum(axis=1) < 3 * paper).argmin()) if (row[0] < paper).any() else 0)
    half, whole, none, wide = lengths
    assert half > 100
    assert whole == pytest.approx(2 * half, abs=2)
    assert none == 0
    assert wide == half
    spread = pixels[154, 171:600]
    assert (spread.sum(axis=1) < 3 * paper)[: 2 * half - 2].all(), "from 0 to 0.5"


def test_no_picture_teaches_that_chooses_or_tests(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("features_example", EXAMPLES / "features.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (60, 28, 28), dtype=np.uint8)
    pictures[:, 0, 0] = np.arange(60)  # each tells its number: 0 to 39 are training pictures, the others test pictures
    labels = np.arange(60) % 2
    np.savez(tmp_path / "set.npz", x_train=pictures[:40], y_train=labels[:40], x_test=pictures[40:], y_test=labels[40:])
    checkpoint.save(tmp_path / "d.safetensors", dcgan.discriminator(image_size=28, channels=1, width=2, rng=rng))
    taught, told = [], []
    svm, error = script.analysis.svm, script.analysis._error

    def recorded_svm(x, labels, C):
        taught.append(x[:, 0])
        return svm(x, labels, C)

    def recorded_error(classifier, x, labels):
        told.append(x[:, 0])
        return error(classifier, x, labels)

    monkeypatch.setattr(script.analysis, "in_their_span", lambda *features: features)  # which would turn them
    monkeypatch.setattr(script.analysis, "svm", recorded_svm)
    monkeypatch.setattr(script.analysis, "_error", recorded_error)
    monkeypatch.chdir(tmp_path)
    options = ("--data", "set.npz", "--checkpoint", "d.safetensors", "--kinds", "pixels")
    options = (*options, "--per-class", "5", "--choosing", "1", "--draws", "2")
    monkeypatch.setattr(sys, "argv", ["features.py", *options])
    script.main()
    scale = np.sqrt((script.analysis.pixels(pictures[:40, :, :, None]).astype(float) ** 2).mean())
    numbers = [[set(np.rint((scale * x + 1) * 127.5).astype(int)) for x in each] for each in (taught, told)]
    assert len(numbers[0]) == len(numbers[1]) > 6
    for teaches, tells in zip(*numbers, strict=True):
        assert not teaches & tells
        assert max(teaches) < 40
        assert tells == set(range(40, 60)) or (len(tells) == 8 and max(tells) < 40)  # a fifth chooses C
    assert sum(tells == set(range(40, 60)) for tells in numbers[1]) == 3, "two draws, and all labels"
