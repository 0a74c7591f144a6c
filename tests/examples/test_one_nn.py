"""The 1-NN score's example as a user starts it, on built-in digits and on a set whose images can be told apart."""

import json
import os
import signal

import numpy as np
import pytest

from nanogan import checkpoint
from nanogan.analysis.judges.classifier import Classifier
from nanogan.games.conditional import ConditionalDCGAN
from nanogan.models import conditional, dcgan
from tests.examples import starting
from tests.examples.sorted_set import COUNT, recorded_steps, start_in, values_of, write_sorted_set
from tests.examples.starting import size_of

DIGITS = ("--data", "digits", "--dry-run", "--checkpoint", "g.safetensors")
SORTED = ("--data", "set.npz", "--checkpoint", "g.safetensors", "--batch-size", 7, "--one-nn", 10)


def run(*arguments, folder):
    return starting.run("one_nn.py", *arguments, folder=folder)


def save_generator(path, classes=10, size=28):
    rng = np.random.default_rng(0)
    g = conditional.generator(classes=classes, image_size=size, channels=1, latent=3, width=2, rng=rng)
    checkpoint.save(path, g)


@pytest.fixture
def script(monkeypatch, tmp_path):
    save_generator(tmp_path / "g.safetensors")
    return start_in(tmp_path, "one_nn", monkeypatch)


def numbers_in(folder):
    return json.loads((folder / "numbers.json").read_text())


def test_from_a_generator_to_a_table(tmp_path):
    save_generator(tmp_path / "g.safetensors")
    checkpoint.save(tmp_path / "c.safetensors", Classifier(width=2, rng=np.random.default_rng(0)))
    out = starting.succeed("one_nn.py", *DIGITS, "--classifier", "c.safetensors", folder=tmp_path)
    left = tmp_path / "runs/one_nn"
    numbers = numbers_in(left)
    names = "real", "dcgan", "mlp", "noise"
    assert numbers.keys() == {
        *("data", "judge", "judged_by", "trained_on"),
        *(f"{name} one_nn_error 480" for name in names),
        *(f"{name} label_accuracy" for name in names[:3]),
    }
    assert (numbers["judged_by"], numbers["trained_on"]) == (480, 400)
    assert numbers["real one_nn_error 480"] < 0.3
    assert numbers["noise one_nn_error 480"] > 0.7
    assert "[1/1][3/12]  Loss_D: " in out
    for name in ("dcgan", "mlp"):
        assert size_of(left / f"{name}.png") == (2 + 16 * 30, 2 + 10 * 30)
    assert (left / "mlp/report.html").is_file()
    assert json.loads((left / "mlp/options.json").read_text())["lr"] == 5e-4

    sheet = (left / "dcgan.png").read_bytes()
    options = (*DIGITS, "--mlp-epochs", 0, "--judge", "validation", "--out", "again")
    out = starting.succeed("one_nn.py", *options, folder=tmp_path)
    assert "training" not in out
    assert sorted(path.name for path in (tmp_path / "again").glob("[!.]*")) == ["dcgan.png", "numbers.json"]
    assert (tmp_path / "again/dcgan.png").read_bytes() == sheet
    again = numbers_in(tmp_path / "again")
    assert again["judged_by"] == 80
    assert {key for key in again if "one_nn" in key} == {
        "real one_nn_error 400",  # the other 80 judge
        "dcgan one_nn_error 480",
        "noise one_nn_error 480",
    }


@pytest.mark.parametrize("judge", ["test", "validation"])
def test_no_image_judges_that_either_gan_was_trained_on(script, monkeypatch, tmp_path, judge):
    """Whatever the seeds of the two scripts."""
    labels = write_sorted_set(tmp_path / "set.npz")
    steps, judged = recorded_steps(monkeypatch), []
    errors_at = script.errors_at

    def recorded(counts, parts, images, its_labels):
        parts = list(parts)
        judged.append((parts, images[:, 0, 0, 0], its_labels))
        return errors_at(counts, parts, images, its_labels)

    monkeypatch.setattr(script, "errors_at", recorded)
    training = start_in(tmp_path, "conditional_dcgan", monkeypatch)
    training.start("--data", "set.npz", "--width", 2, "--batch-size", 7, "--epochs", 2, "--seed", 3)
    by_the_dcgan = {value for inputs in steps for value in values_of(inputs["real"]).tolist()}
    steps.clear()
    script.start(*SORTED, "--judge", judge, "--mlp-epochs", 30)
    by_the_mlp = {value for inputs in steps for value in values_of(inputs["real"]).tolist()}
    for inputs in steps:
        assert inputs["labels"].tolist() == labels[values_of(inputs["real"]) // 2].tolist()
    assert len(steps) == 60  # 20 of 24 images, two whole batches
    assert by_the_dcgan == by_the_mlp
    assert len(by_the_mlp) == 20

    real_parts, judges, its_labels = judged[0]  # the first source are real images
    assert not by_the_mlp & set(judges.tolist())
    assert len(judges) == (COUNT if judge == "test" else COUNT // 6)
    assert its_labels.tolist() == labels[judges // 2].tolist()
    teachers = {value for images, _ in real_parts for value in images[:, 0, 0, 0].tolist()}
    assert teachers == (set(range(0, 2 * COUNT, 2)) if judge == "test" else by_the_mlp)
    for images, its_labels in real_parts:
        assert its_labels.tolist() == labels[images[:, 0, 0, 0] // 2].tolist()


def test_a_generator_that_has_seen_all_cannot_be_judged_by_the_sixth(tmp_path, script, monkeypatch):
    write_sorted_set(tmp_path / "set.npz")
    training = start_in(tmp_path, "conditional_dcgan", monkeypatch)
    training.start("--data", "set.npz", "--width", 2, "--batch-size", 7, "--epochs", 1, "--train-on-all")
    for name in ("generator.safetensors", "checkpoints/last.safetensors"):
        path = f"runs/conditional_dcgan/{name}"
        options = ("--data", "set.npz", "--mlp-epochs", 0, "--one-nn", 10, "--checkpoint", path)
        code, _, err = run(*options, "--judge", "validation", folder=tmp_path)
        assert code == 2
        assert f"{path} was trained on the whole training set" in err
        assert run(*options, folder=tmp_path)[0] == 0, "the test set may judge"


def test_ctrl_c_while_the_baseline_trains_leaves_no_table(script, monkeypatch, tmp_path):
    write_sorted_set(tmp_path / "set.npz")
    steps = recorded_steps(monkeypatch)
    draw = ConditionalDCGAN.draw

    def press(self, *arguments):
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(self, *arguments)

    monkeypatch.setattr(ConditionalDCGAN, "draw", press)
    with pytest.raises(KeyboardInterrupt):
        script.start(*SORTED, "--mlp-epochs", 5)
    assert len(steps) == 4, "the step is finished"
    assert sorted(path.name for path in (tmp_path / "runs/one_nn").glob("[!.]*")) == ["mlp"]
    assert (tmp_path / "runs/one_nn/mlp/checkpoints/last.safetensors").is_file()


def test_a_classifier_and_a_generator_may_know_more_classes(script, tmp_path):
    write_sorted_set(tmp_path / "set.npz", classes=5)
    checkpoint.save(tmp_path / "c.safetensors", Classifier(width=2, rng=np.random.default_rng(0)))
    script.start(*SORTED, "--dry-run", "--classifier", "c.safetensors")
    assert "mlp label_accuracy" in numbers_in(tmp_path / "runs/one_nn")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "."), "with data sets, not with the folder .: use --data mnist"),
        (
            ("--checkpoint", "runs/conditional_dcgan/generator.safetensors"),
            "generator.safetensors: train one first (python examples/conditional_dcgan.py), or name",
        ),
        (("--checkpoint", "plain.safetensors"), "is not a conditional DCGAN generator of nanogan's"),
        (("--checkpoint", "3.safetensors"), "3.safetensors knows 3 classes, digits has 10: use another --checkpoint"),
        (
            ("--classifier", "c.safetensors"),
            "c.safetensors is for images of 28 x 28 with 3 channels, g.safetensors gen",
        ),
        (("--classifier", "g.safetensors"), "g.safetensors is not a classifier of nanogan's"),
        (("--batch-size", "401"), "a batch of 401 was asked for, but there are 400"),
    ],
)
def test_a_users_mistake_gets_one_sentence(tmp_path, arguments, message):
    rng = np.random.default_rng(0)
    checkpoint.save(tmp_path / "plain.safetensors", dcgan.generator(image_size=16, channels=1, width=2, rng=rng))
    save_generator(tmp_path / "g.safetensors")
    save_generator(tmp_path / "3.safetensors", classes=3)
    checkpoint.save(tmp_path / "c.safetensors", Classifier(channels=3, width=2, rng=rng))
    code, _, err = run(*DIGITS, *arguments, folder=tmp_path)
    assert code == 2
    assert message in err
    assert len([line for line in err.splitlines() if "error: " in line]) == 1
