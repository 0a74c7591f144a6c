"""The judge that recipes train: which images, which seed, which file; and what is said of wrong ones."""

import argparse

import numpy as np
import pytest

from nanogan import checkpoint, recipes
from nanogan.analysis.judges.classifier import Classifier, classify
from nanogan.data import builtin_digits
from nanogan.errors import UserError
from nanogan.recipes import trained


def arguments(tmp_path, **values):
    defaults = {"data": "digits", "judge": None, "device": "cpu", "seed": 0, "out": str(tmp_path), "dry_run": False}
    defaults["when_begun"] = []
    return argparse.Namespace(**defaults | {"image_size": 28, "channels": 1} | values)


def test_a_judge_learns_its_images_and_says_how_well(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nanogan.recipes.judging.TEST_IMAGES", 300)
    images, labels = builtin_digits(1500, seed=0)
    args = arguments(tmp_path)
    judge = recipes.judge(args, {"images": images, "labels": labels})
    assert not list(tmp_path.iterdir()), "the run may still be refused"
    (write,) = args.when_begun
    write()
    out = capsys.readouterr().out
    test_images, test_labels = builtin_digits(300, seed=1_000_000)
    right = np.mean(classify(judge, test_images)[1].argmax(axis=1) == test_labels)
    assert f"right on {right:.1%} of 300 test images" in out
    assert right > 0.7, "chance is a tenth"
    saved = recipes.judge(arguments(tmp_path, judge=str(tmp_path / "judge.safetensors")), {"images": images})
    np.testing.assert_array_equal(classify(saved, test_images)[1], classify(judge, test_images)[1])
    again = recipes.judge(arguments(tmp_path / "again"), {"images": images, "labels": labels})
    np.testing.assert_array_equal(classify(again, test_images)[1], classify(judge, test_images)[1])


def test_a_users_mistake_gets_one_sentence(tmp_path):
    images = np.zeros((8, 28, 28, 1), np.uint8)
    with pytest.raises(UserError, match="a judge expected images with labels, got images alone: .* --judge"):
        recipes.judge(arguments(tmp_path), {"images": images})
    checkpoint.save(tmp_path / "colour.safetensors", Classifier(channels=3, width=2))
    with pytest.raises(UserError, match=r"expected pictures \(N, 3, 28, 28\), got \(0, 1, 28, 28\)"):
        recipes.judge(arguments(tmp_path, judge=str(tmp_path / "colour.safetensors")), {"images": images})
    checkpoint.save(tmp_path / "three.safetensors", Classifier(channels=1, width=2, classes=3))
    with pytest.raises(UserError, match=r"three.safetensors knows 3 classes, and the images are of 8: train a class"):
        recipes.judge(
            arguments(tmp_path, judge=str(tmp_path / "three.safetensors")), {"images": images, "labels": np.arange(8)}
        )


def test_what_cannot_be_judged_is_said(tmp_path, capsys):
    labels, square = np.zeros(8, int), {size: np.zeros((8, size, size, 1), np.uint8) for size in (28, 30)}
    assert recipes.can_judge(arguments(tmp_path), {"images": square[28], "labels": labels})
    assert recipes.can_judge(arguments(tmp_path, judge="any.safetensors"), {"images": square[30]})
    assert not capsys.readouterr().out
    assert not recipes.can_judge(arguments(tmp_path), {"images": square[30], "labels": labels})
    assert not recipes.can_judge(arguments(tmp_path), {"images": square[28]})
    assert "a multiple of 4; --judge FILE" in (out := capsys.readouterr().out)
    assert "the images have no labels; --judge FILE" in out


def test_a_set_without_a_test_split_is_judged_all_the_same(tmp_path, capsys):
    images, labels = builtin_digits(300, seed=0)
    np.savez(tmp_path / "train_only.npz", x_train=images, y_train=labels)
    recipes.judge(arguments(tmp_path, data=str(tmp_path / "train_only.npz")), {"images": images, "labels": labels})
    out = capsys.readouterr().out
    assert "trained on 300 images" in out
    assert "no test images are used" in out
    assert "x_test" in out, "what it lacks"


def test_a_judge_of_other_images_is_told_with_its_file_and_both_ways_out(tmp_path):
    path = tmp_path / "judge.safetensors"
    checkpoint.save(path, Classifier(image_size=8, width=2))
    columns = {"images": np.zeros((8, 20, 20, 1), np.uint8), "labels": np.zeros(8, int)}
    with pytest.raises(UserError) as caught:
        recipes.judge(arguments(tmp_path, judge=str(path)), columns)
    assert str(caught.value).endswith(
        f"; {path} was trained on the former, python examples/train_classifier.py --image-size 20 --channels 1 trains "
        "one on the latter, or leave --judge out"
    )


def test_a_folder_in_place_of_a_network_is_called_one(tmp_path):
    checkpoint.save(tmp_path / "generator.safetensors", Classifier(image_size=8, width=2))
    with pytest.raises(UserError, match=r"is a folder, and a file was expected: name one in it, as .*generator\.safet"):
        trained.generator(tmp_path)
