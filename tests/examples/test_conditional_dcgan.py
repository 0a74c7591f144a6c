"""The conditional DCGAN's example as a user starts it, on built-in digits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanogan import checkpoint
from nanogan.analysis.classifier import Classifier
from nanogan.models import conditional, dcgan

SCRIPT = Path(__file__).parents[2] / "examples" / "conditional_dcgan.py"
TINY = ("--data", "digits", "--width", "2", "--latent", "3")


def start(*arguments, folder):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        cwd=folder,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments, folder):
    with start(*arguments, folder=folder) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err


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
    with start(*TINY, folder=tmp_path) as process:
        left = tmp_path / "runs" / "conditional_dcgan"
        deadline = time.monotonic() + 60
        while not left.is_dir() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)  # the digits are being drawn
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
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
        (("--batch-size", "401"), "there are 400 pictures to train on, less than a batch: use --batch-size 400"),
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
