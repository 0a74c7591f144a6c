"""The ACGAN's scripts; what all training scripts share is tested in test_every_game.py."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from nanogan.games.acgan import ACGAN
from tests.examples.sorted_set import recorded_steps, start_in, values_of, write_sorted_set
from tests.examples.starting import run, size_of, succeed

TINY = ("--data", "digits", "--width", 2, "--latent", 3, "--dry-run")


def test_a_run_is_judged_and_its_generator_generates_by_class(tmp_path):
    out = succeed("acgan.py", *TINY, folder=tmp_path)
    left = tmp_path / "runs/acgan"
    assert "class: " in out
    assert "measured after epoch 1: as_asked " in out
    with open(left / "measures.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert {"as_asked", "worst_class", "spread", "recall"} < row.keys()
    assert size_of(left / "samples/epoch_001_step_000004.png") == (2 + 10 * 30, 2 + 8 * 30), "a column for each class"
    assert (left / "judge.safetensors").is_file()
    assert "20 images" in succeed("acgan.py", "--generate", 20, "--out", "some", folder=tmp_path)
    assert size_of(tmp_path / "some/generated.png") == (2 + 10 * 30, 2 + 2 * 30)


def test_images_are_trained_on_under_their_own_labels(monkeypatch, tmp_path):
    labels = write_sorted_set(tmp_path / "set.npz")
    steps = recorded_steps(monkeypatch, ACGAN)
    script = start_in(tmp_path, "acgan", monkeypatch)
    script.start("--data", "set.npz", "--width", 2, "--latent", 3, "--batch-size", 6, "--epochs", 1)
    numbers = np.concatenate([values_of(inputs["real"]) // 2 for inputs in steps])
    assert sorted(numbers) == list(range(len(labels)))
    assert np.concatenate([inputs["labels"] for inputs in steps]).tolist() == labels[numbers].tolist()


@pytest.mark.parametrize("script", ["acgan.py", "acgan_noise.py"])
def test_images_without_labels_are_refused(script, tmp_path):
    (tmp_path / "flat").mkdir()
    for i in range(40):
        Image.new("L", (28, 28), i).save(tmp_path / f"flat/{i}.png")
    code, _, err = run(script, "--data", "flat", "--batch-size", 4, folder=tmp_path)
    assert code == 2
    assert "expected images with labels" in err
    assert len([line for line in err.splitlines() if "error: " in line]) == 1


def test_noisy_images_are_classified_in_four_ways(tmp_path):
    out = succeed("acgan_noise.py", "--data", "digits", "--width", 2, "--dry-run", folder=tmp_path)
    assert "digits: 200 images to learn from, 200 to be tested with" in out
    numbers = json.loads((tmp_path / "runs/acgan_noise/numbers.json").read_text())
    kinds = {name.split()[0] for name in numbers if " " in name}
    assert kinds == {"alone", "acgan", "samples", "noise"}
    assert all(0 <= value <= 1 for name, value in numbers.items() if " " in name)
    assert size_of(tmp_path / "runs/acgan_noise/noisy.png") == (2 + 16 * 30, 2 + 5 * 30)
