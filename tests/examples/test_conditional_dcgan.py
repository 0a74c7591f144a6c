"""The conditional DCGAN's example as a user starts it, on built-in digits."""

import importlib.util
import json
import signal
import sys
import time

import numpy as np
import pytest
from PIL import Image

from nanogan import checkpoint
from nanogan.analysis.judges.classifier import Classifier
from nanogan.models import conditional, dcgan
from tests.examples import starting
from tests.starting import EXAMPLES, process

TINY = ("--data", "digits", "--width", "2", "--latent", "3")


def run(*arguments, folder):
    return starting.run("conditional_dcgan.py", *arguments, folder=folder)


def test_from_nothing_to_a_table_and_again_from_the_file(tmp_path):
    checkpoint.save(tmp_path / "c.safetensors", Classifier(width=2, rng=np.random.default_rng(0)))
    code, out, err = run(*TINY, "--dry-run", "--classifier", "c.safetensors", folder=tmp_path)
    assert (code, err) == (0, "")
    left = tmp_path / "runs" / "conditional_dcgan"
    numbers = json.loads((left / "numbers.json").read_text())
    names = "real", "dcgan", "mlp", "noise"
    assert numbers.keys() == {
        *("data", "judge", "judged_by", "trained_on"),
        *(f"{name} one_nn_error 480" for name in names),
        *(f"{name} label_accuracy" for name in names[:3]),
    }
    assert (numbers["judged_by"], numbers["trained_on"]) == (480, 400)
    assert numbers["real one_nn_error 480"] < 0.3
    assert numbers["noise one_nn_error 480"] > 0.7
    assert "dcgan: epoch 1 of 1  Loss_D: " in out
    for name in ("dcgan", "mlp"):
        with Image.open(left / f"{name}.png") as picture:
            assert picture.size == (2 + 16 * 30, 2 + 10 * 30)
    g = checkpoint.load_conditional(left / "generator.safetensors")
    assert (g.latent, g.classes) == (3, 10)

    sheet = (left / "dcgan.png").read_bytes()
    options = ("--checkpoint", left / "generator.safetensors", "--mlp-epochs", "0", "--judge", "validation")
    code, out, err = run(*TINY, "--dry-run", *options, "--out", "again", folder=tmp_path)
    assert (code, err) == (0, "")
    assert "training" not in out
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["dcgan.png", "numbers.json"]
    assert (tmp_path / "again" / "dcgan.png").read_bytes() == sheet
    again = json.loads((tmp_path / "again" / "numbers.json").read_text())
    assert again["judged_by"] == 80
    assert {key for key in again if "one_nn" in key} == {
        "real one_nn_error 400",  # the other 80 judge
        "dcgan one_nn_error 480",
        "noise one_nn_error 480",
    }


def test_ctrl_c_leaves_whole_files_alone(tmp_path):
    with process(EXAMPLES / "conditional_dcgan.py", *TINY, folder=tmp_path) as started:
        left = tmp_path / "runs" / "conditional_dcgan"
        deadline = time.monotonic() + 60
        while not left.is_dir() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)  # the digits are being drawn
        started.send_signal(signal.SIGINT)
        _, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert err.endswith("conditional_dcgan.py: stopped\n")
    assert "Traceback" not in err
    assert list(left.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "."), "labels come with data sets, not with the folder .: use --data mnist"),
        (("--checkpoint", "plain.safetensors"), "is not a conditional DCGAN generator of nanogan's"),
        (("--checkpoint", "g.safetensors"), "with 1 channels: add --image-size 16 --channels 1, or give another --che"),
        (
            ("--checkpoint", "g.safetensors", "--image-size", "16"),
            "knows 3 classes, digits has 10: use another --",
        ),
        (("--classifier", "c.safetensors"), "c.safetensors is for pictures of 28 x 28 with 3 channels: add --image-s"),
        (
            ("--batch-size", "401"),
            "there are 400 pictures to train on, 401 or more were expected: use more, or a smaller",
        ),
        (("--image-size", "30"), "a DCGAN cannot draw pictures of 30 pixels"),
    ],
)
def test_a_users_mistake_gets_one_sentence(tmp_path, arguments, message):
    rng = np.random.default_rng(0)
    sizes = {"image_size": 16, "channels": 1, "width": 2, "rng": rng}
    checkpoint.save(tmp_path / "plain.safetensors", dcgan.generator(**sizes))
    checkpoint.save(tmp_path / "g.safetensors", conditional.generator(classes=3, **sizes))
    checkpoint.save(tmp_path / "c.safetensors", Classifier(channels=3, width=2, rng=rng))
    data = () if "--data" in arguments else ("--data", "digits")
    code, _, err = run("--dry-run", *data, *arguments, folder=tmp_path)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def sorted_set(path, classes=10, count=24):
    """A set sorted by class, each picture of one grey value: twice its number, from 0 on; test pictures are odd."""
    values, labels = np.arange(0, 2 * count, 2, dtype=np.uint8), np.sort(np.arange(count) % classes)
    pictures = np.broadcast_to(values[:, None, None], (count, 28, 28))
    np.savez(path, x_train=pictures, y_train=labels, x_test=pictures + np.uint8(1), y_test=labels)
    return labels


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The example as a module, to be started in the folder of the test."""
    spec = importlib.util.spec_from_file_location("conditional_dcgan", EXAMPLES / "conditional_dcgan.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["conditional_dcgan.py", *TINY, "--data", "set.npz", *arguments])
        module.main()

    module.start = start
    return module


def test_pictures_are_played_with_under_their_own_labels(script, monkeypatch, tmp_path):
    labels = sorted_set(tmp_path / "set.npz")
    games = []
    step = script.adversarial_step

    def recorded(g, d, opt_g, opt_d, real, z):
        games.append((real, z))
        return step(g, d, opt_g, opt_d, real, z)

    monkeypatch.setattr(script, "adversarial_step", recorded)
    script.start("--batch-size", "7", "--mlp-epochs", "1", "--epochs", "1", "--one-nn", "10")
    assert len(games) == 4  # 20 of 24 pictures, two whole batches, for each of two networks
    for real, z in games:
        C = real.shape[1] - 10
        numbers = np.rint((real[:, 0, 0, 0] + 1) * 127.5 / 2).astype(int)  # of the pictures
        hot = np.eye(10)[labels[numbers]]
        np.testing.assert_array_equal(real[:, C:], np.broadcast_to(hot[:, :, None, None], real[:, C:].shape))
        np.testing.assert_array_equal(z[:, -10:], hot)


@pytest.mark.parametrize("judge", ["test", "validation"])
def test_no_picture_judges_that_was_played_with(script, monkeypatch, tmp_path, judge):
    labels = sorted_set(tmp_path / "set.npz")
    played, judged = [], []
    monkeypatch.setattr(script, "train", lambda name, g, d, pictures, labels, args, **_: played.append(pictures))
    errors_at = script.errors_at

    def recorded(counts, parts, pictures, labels):
        judged.append((pictures, labels))
        return errors_at(counts, parts, pictures, labels)

    monkeypatch.setattr(script, "errors_at", recorded)
    script.start("--batch-size", "2", "--judge", judge, "--one-nn", "10", "--mlp-epochs", "0")
    values = [set(np.unique(each).tolist()) for each in (played[0], judged[0][0])]
    assert len(values[0]) == 20
    assert not values[0] & values[1]
    assert len(values[1]) == (24 if judge == "test" else 4)
    assert (labels[judged[0][0][:, 0, 0, 0] // 2] == judged[0][1]).all()
    assert len(np.unique(labels[np.array(sorted(values[0])) // 2])) > 7, "a set sorted by class is mixed first"


def test_a_classifier_may_know_more_classes(script, tmp_path):
    sorted_set(tmp_path / "set.npz", classes=5)
    checkpoint.save(tmp_path / "c.safetensors", Classifier(width=2, rng=np.random.default_rng(0)))
    script.start("--dry-run", "--batch-size", "2", "--classifier", "c.safetensors", "--mlp-epochs", "0")
    assert "dcgan label_accuracy" in json.loads((tmp_path / "runs/conditional_dcgan/numbers.json").read_text())
