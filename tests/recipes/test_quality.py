"""What recipes measure of samples: which images are compared, and what happens where there is no judge for them."""

import argparse
from types import SimpleNamespace

import numpy as np
import pytest

from nanogan import checkpoint, recipes
from nanogan.analysis.judges.classifier import Classifier, classify
from nanogan.analysis.measures.scores import frechet_distance
from nanogan.backend import seeded_rng
from nanogan.data import builtin_digits
from nanogan.games.vanilla import VanillaGAN


def arguments(tmp_path, **values):
    defaults = {"data": "digits", "judge": None, "device": "cpu", "seed": 3, "out": str(tmp_path), "dry_run": True}
    defaults["when_begun"] = []
    return argparse.Namespace(**defaults | {"image_size": 28, "channels": 1} | values)


@pytest.fixture
def judge(tmp_path):
    checkpoint.save(tmp_path / "judge.safetensors", Classifier(width=2, rng=np.random.default_rng(0)))
    return str(tmp_path / "judge.safetensors")


def test_samples_are_compared_with_test_images(tmp_path, judge, capsys, monkeypatch):
    monkeypatch.setattr("nanogan.recipes.quality.SAMPLES", 30)
    args = arguments(tmp_path, judge=judge, dry_run=False)
    measured = recipes.measure_samples(args, {"images": builtin_digits(8)[0]})
    assert "30 other real images: sure 0, rarest 0, frechet " in capsys.readouterr().out
    game = VanillaGAN(VanillaGAN.Options(hidden=4), {"images": (1, 28, 28)})
    numbers = measured(game)
    assert numbers == measured(game), "the same z each time"
    network, (test, _) = recipes.judge(args, {"images": blank()}), builtin_digits(150, seed=1_000_003)
    samples = game.generate(game.g, 30, game.options, seeded_rng(3, "measure"), "cpu")
    chosen = seeded_rng(0, "real images of a measure").permutation(150)[:30]
    expected = frechet_distance(classify(network, test[chosen])[0], classify(network, samples)[0])
    assert numbers["frechet"] == pytest.approx(expected)


def blank(count=8):
    return np.zeros((count, 28, 28, 1), np.uint8)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"images": np.zeros((8, 28, 28, 1), np.uint8)}, "the images have no labels; --judge FILE"),
        (
            {"images": np.zeros((8, 30, 30, 1), np.uint8), "labels": np.zeros(8, int)},
            "a judge needs a size that is a multiple of 4",
        ),
    ],
)
def test_without_a_judge_the_run_goes_on_unmeasured(tmp_path, capsys, columns, why):
    assert recipes.measure_samples(arguments(tmp_path), columns) is None
    assert f"samples are not judged: {why}" in capsys.readouterr().out


def test_samples_are_judged_by_the_class_asked_for(tmp_path, monkeypatch):
    """A stub of a game whose G makes class 1 for class 2, too; the judge sees what is there."""
    drawn = []

    def generate(network, count, options, rng, device):
        drawn.append(rng.standard_normal())
        return np.array([0, 1, 1])[np.arange(count) % 3].reshape(-1, 1, 1, 1) / 2

    def classify(judge, images):
        values = images[:, 0, 0, 0] * (2 if images.dtype.kind == "f" else 1)
        return np.zeros((len(images), 2)), np.eye(3)[values.astype(int)]

    monkeypatch.setattr("nanogan.recipes.quality.SAMPLES", 9)
    monkeypatch.setattr("nanogan.recipes.quality.judge", lambda args, columns: None)
    monkeypatch.setattr("nanogan.analysis.measures.classes.classify", classify)
    labels = np.arange(12) % 3
    columns = {"images": labels.astype(np.uint8).reshape(-1, 1, 1, 1).repeat(4, 1).repeat(4, 2), "labels": labels}
    measured = recipes.measure_classes(arguments(tmp_path), columns)
    game = SimpleNamespace(g=None, classes=3, options=None, device="cpu", generate=generate)
    for _ in range(2):
        numbers = measured(game)
        assert numbers["as_asked"] == pytest.approx(2 / 3)
        assert numbers["worst_class"] == 0
    assert drawn[0] == drawn[1], "the same z after each epoch"
