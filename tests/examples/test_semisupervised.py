"""The semi-supervised GAN's script; what all training scripts promise is tested in test_every_game.py."""

import argparse
import csv

import numpy as np
import pytest
from PIL import Image

from nanogan.data import few_labels
from nanogan.layers import Layer
from tests.examples import starting
from tests.examples.sorted_set import start_in, write_sorted_set

TINY = ("--width", "8", "--latent", "3", "--batch-size", "8", "--dry-run")


def run(*arguments, folder):
    return starting.run("semisupervised.py", *arguments, folder=folder)


@pytest.fixture
def script(monkeypatch, tmp_path):
    return start_in(tmp_path, "semisupervised", monkeypatch)


def test_both_accuracies_are_measured_and_written(tmp_path):
    out = starting.succeed("semisupervised.py", "--data", "digits", "--labels", "20", *TINY, folder=tmp_path)
    with open(tmp_path / "runs/semisupervised/measures.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert 0 <= float(row["test accuracy"]) <= 1
    assert 0 <= float(row["as_asked"]) <= 1
    assert f"trained on the 20 labelled images alone, D is right on {float(row['labels alone']):.2%} of 200" in out
    code, _, err = run("--resume", "--labels", "30", folder=tmp_path)
    assert code == 2
    assert "--labels=30 contradicts runs/semisupervised/checkpoints/last.safetensors" in err


def test_a_folder_has_no_test_images(tmp_path):
    for name, value in (("dark", 20), ("bright", 220)):
        (tmp_path / "sorted" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("L", (28, 28), value + i).save(tmp_path / "sorted" / name / f"{i}.png")
    out = starting.succeed("semisupervised.py", "--data", "sorted", "--labels", "4", *TINY, folder=tmp_path)
    assert "sorted has no test images: no accuracy is measured" in out
    assert not (tmp_path / "runs/semisupervised/measures.csv").exists()


def test_a_size_without_a_judge_is_trained_and_not_judged(tmp_path):
    more = ("--image-size", "30", "--labels", "20")
    out = starting.succeed("semisupervised.py", "--data", "digits", *more, *TINY, folder=tmp_path)
    assert "samples are not judged: a judge needs a size that is a multiple of 4" in out
    assert "as_asked" not in (tmp_path / "runs/semisupervised/measures.csv").read_text()


def test_accuracy_is_the_share_of_images_named_right(script):
    class Brightness(Layer):
        """Calls images of a mean above 0 class 1."""

        array_module = np

        def forward(self, x, train=True):
            assert not train
            mean = x.mean(axis=(1, 2, 3))
            return np.stack([-mean, mean], axis=1), None

    tested = np.array([0, 255, 255, 0, 255], np.uint8).repeat(4).reshape(5, 2, 2, 1)
    assert script.accuracy(Brightness(), tested, np.array([0, 1, 1, 1, 0]), batch_size=2) == 0.6


def test_the_labelled_images_alone_teach_what_they_can(script):
    """Images that are dark or bright, of which 4 have labels: enough to tell dark from bright, with a fresh network."""
    images, labels = np.array([20, 230], np.uint8).repeat(16).reshape(-1, 4, 4, 1).repeat(4, axis=0), np.arange(8) // 4
    columns = few_labels(images, labels, 4)
    args = argparse.Namespace(seed=0, width=8, labels=4, device="cpu", dry_run=False)
    network, again = (script.trained_alone(args, columns).state_dict() for _ in range(2))
    assert all((again[name] == array).all() for name, array in network.items()), "its noise comes from the seed, too"
    assert script.accuracy(script.trained_alone(args, columns), images, labels) == 1
    columns["labels"] = 1 - columns["labels"]
    assert script.accuracy(script.trained_alone(args, columns), images, labels) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--data", "digits", "--labels", "9"),
            "a label for at least one image of each of the 10 classes was expected",
        ),
        (
            ("--data", "set.npz", "--labels", "25"),
            "at most as many labels as images were expected, got 25 labels for 24",
        ),
        (("--data", "flat"), "images with labels were expected, to choose a few labelled ones, got images alone"),
        (("--labels", "0"), "argument --labels"),
        (("--data", "digits", "--labels", "100000"), "at most as many labels as images"),
        (("--judge", "nothing.safetensors"), "nothing.safetensors"),
        (
            ("--data", "odd.npz", "--labels", "10"),
            "25 images in batches of 8 leave a batch of 1, and SemiSupervisedGAN expected batches of at least 2",
        ),
    ],
)
def test_a_users_mistake_gets_one_sentence(tmp_path, arguments, message):
    (tmp_path / "flat").mkdir()
    for i in range(40):
        Image.new("L", (28, 28), i).save(tmp_path / f"flat/{i}.png")
    write_sorted_set(tmp_path / "set.npz")
    write_sorted_set(tmp_path / "odd.npz", count=25)
    code, _, err = run(*TINY, *arguments, folder=tmp_path)
    assert code == 2
    assert message in err
    assert len([line for line in err.splitlines() if "error: " in line]) == 1
    assert not (tmp_path / "runs/semisupervised/log.csv").exists()
