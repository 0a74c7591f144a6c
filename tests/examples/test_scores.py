"""The examples of the scores as a user starts them, on built-in data."""

import json

import numpy as np
import pytest
from PIL import Image

from nanogan import checkpoint
from nanogan.analysis.judges.classifier import Classifier, load_classifier
from nanogan.models import dcgan
from tests.examples.starting import run

SCORES = ("inception_score", "frechet_distance", "kid", "precision", "recall", "one_nn_error")


def save_generator(path, size=28):
    network = dcgan.generator(image_size=size, channels=1, latent=4, width=2, rng=np.random.default_rng(0))
    checkpoint.save(path, network)
    return path


def test_from_nothing_to_scores(tmp_path):
    save_generator(tmp_path / "g.safetensors")
    code, out, err = run("train_classifier.py", "--data", "digits", "--dry-run", folder=tmp_path)
    assert code == 0, err
    assert err == ""
    assert "test_accuracy: " in out
    load_classifier(tmp_path / "runs/classifier/classifier.safetensors")
    with Image.open(tmp_path / "runs/classifier/mistakes.png") as picture:
        assert picture.mode == "L"
    code, out, err = run("scores.py", "--data", "digits", "--checkpoint", "g.safetensors", "--dry-run", folder=tmp_path)
    assert code == 0, err
    assert err == ""
    numbers = json.loads((tmp_path / "runs/scores/numbers.json").read_text())
    assert numbers.keys() == {
        "data",
        "pictures",
        "one_nn_pictures",
        *(f"{a} {b}" for a in ("real", "generator", "noise") for b in SCORES),
    }
    assert numbers["real kid"] < numbers["noise kid"]
    assert numbers["real frechet_distance"] < numbers["noise frechet_distance"]
    assert numbers["real one_nn_error"] < 0.7  # of 64 digits; 0.9 if it knew nothing
    with Image.open(tmp_path / "runs/scores/scores.png") as picture:
        assert picture.size == (2 + 16 * 30, 2 + 6 * 30)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (
            "scores.py",
            ("--checkpoint", "no"),
            "there is no checkpoint no: train one first (python examples/mnist_dcgan",
        ),
        ("scores.py", (), "there is no classifier runs/classifier/classifier.safetensors: train one first (python ex"),
        ("scores.py", ("--classifier", "g.safetensors"), "g.safetensors is not a classifier of nanogan's: train one"),
        ("scores.py", ("--classifier", "c.safetensors", "--checkpoint", "16.safetensors"), "28 x 28 and 1 channels"),
        ("scores.py", ("--classifier", "c.safetensors", "--data", "."), "got the folder .: use --data mnist"),
        ("scores.py", ("--samples", "9"), "expected a whole number of at least 64 and at most 60000, got '9'"),
        ("train_classifier.py", ("--data", "."), "got the folder .: use --data mnist"),
        ("train_classifier.py", ("--image-size", "30"), "image_size 30 is no multiple of 4"),
    ],
)
def test_a_users_mistake_gets_one_sentence(tmp_path, script, arguments, message):
    save_generator(tmp_path / "g.safetensors")
    save_generator(tmp_path / "16.safetensors", size=16)
    checkpoint.save(tmp_path / "c.safetensors", Classifier(width=2))
    if script == "scores.py" and "--checkpoint" not in arguments:
        arguments = ("--checkpoint", "g.safetensors", *arguments)
    code, _, err = run(script, *arguments, folder=tmp_path)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_training_keeps_the_epoch_that_a_classifier_finds_best(tmp_path):
    checkpoint.save(tmp_path / "c.safetensors", Classifier(image_size=16, width=2, rng=np.random.default_rng(0)))
    rng = np.random.default_rng(1)
    for i in range(16):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(tmp_path / f"pictures/{i}.png")
    tiny = ("pictures", "--channels", "1", "--image-size", "16", "--width", "2", "--batch-size", "8", "--latent", "4")
    code, out, err = run("folder_dcgan.py", *tiny, "--epochs", "2", "--best-by", "c.safetensors", folder=tmp_path)
    assert code == 0, err
    values = [float(line.split(": ")[1].split(",")[0]) for line in out.splitlines() if line.startswith("metric after")]
    assert len(values) == 2
    best, _, _ = checkpoint.read_training(tmp_path / "runs/folder_dcgan/checkpoints/best.safetensors")
    assert best.epoch == 1 + values.index(min(values))
    assert best.best == pytest.approx(min(values), rel=1e-5)
    code, _, err = run("folder_dcgan.py", *tiny, "--best-by", "pictures/0.png", folder=tmp_path)
    assert code == 2
    assert "pictures/0.png is not a whole safetensors file" in err
    code, _, err = run(
        "folder_dcgan.py", *tiny[:3], "--image-size", "8", *tiny[5:], "--best-by", "c.safetensors", folder=tmp_path
    )
    assert code == 2
    assert "the classifier expected pictures (N, 1, 16, 16), got" in err
