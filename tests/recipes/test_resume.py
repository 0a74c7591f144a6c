"""Runs that are taken up from another working folder, or after they or their data moved."""

import json
import shutil

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from PIL import Image

from nanogan import checkpoint
from nanogan.analysis.judges.classifier import Classifier
from tests.data.sets.test_mnist import write_set
from tests.examples import starting

TINY = ("--image-size", 16, "--width", 2, "--batch-size", 4)
SMALL = ("--width", 2, "--batch-size", 4, "--latent", 3)  # at the digits' own size


def write_images(folder, count, seed=0):
    """Colour images, half of them in each of two folders."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        path = folder / ("b" if i % 2 else "a") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (18, 18, 3), dtype=np.uint8)).save(path)


def write_captions(folder, colour="red"):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    lines = ["file,caption"]
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,a {('blue', colour)[i % 2]} one")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")


def write_classifier(path, channels, size):
    network = Classifier(image_size=size, channels=channels, width=2, classes=10, rng=np.random.default_rng(0))
    checkpoint.save(path, network)


def write_all(home):
    """What the scripts below are given, by relative paths."""
    write_images(home / "photos", 12)
    write_images(home / "others", 16, seed=1)
    write_captions(home / "captioned")
    write_set(home / "MNIST/raw", 12)
    write_classifier(home / "colour.safetensors", 3, 16)
    write_classifier(home / "grey.safetensors", 1, 28)


STARTS = [  # script, its flags, and those that name data
    ("folder_dcgan.py", (*TINY, "--cache", "photos.npy", "--best-by", "colour.safetensors"), ("photos",)),
    ("folder_dcgan.py", TINY, ("MNIST",)),
    ("mnist_dcgan.py", (*SMALL, "--judge", "grey.safetensors"), ("--data-dir", "MNIST/raw")),
    ("lsgan.py", (*TINY, "--channels", 3), ("--data", "photos")),
    ("discogan.py", TINY, ("--a", "photos", "--b", "others")),
    ("stackgan.py", (*TINY, "--condition", 2, "--text-size", 3), ("--data", "captioned")),
]
IDS = [f"{script} {' '.join(data)}" for script, _, data in STARTS]


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "home"
    write_all(home)
    return home


def started(home, script, flags, data):
    """The folder of a run of one epoch, which was started in ``home``."""
    starting.run(script, *data, *flags, "--epochs", 1, "--out", "runs/one", folder=home)
    assert (home / "runs/one/checkpoints/last.safetensors").is_file()
    return home / "runs/one"


def goes_on(script, *arguments, folder, epochs=2):
    """Resume and return what is said on standard error; the images are those of the run."""
    code, out, err = starting.run(script, "--epochs", epochs, "--resume", *arguments, folder=folder)
    assert code == 0, err
    assert "resumed at step" in out
    assert "not those" not in err
    return err


@pytest.mark.parametrize(("script", "flags", "data"), STARTS, ids=IDS)
def test_a_run_goes_on_from_another_working_folder_after_it_was_renamed(home, tmp_path, script, flags, data):
    """And ends as one that never moved; then once more from where it started."""
    started(home, script, flags, data)
    shutil.copytree(home, tmp_path / "whole")
    starting.run(script, "--resume", "runs/one", "--epochs", 2, folder=tmp_path / "whole")
    (tmp_path / "away").mkdir()
    (home / "runs/one").rename(tmp_path / "renamed")
    goes_on(script, "../renamed/checkpoints/last.safetensors", folder=tmp_path / "away")
    assert not list((tmp_path / "away").iterdir()), "all is written where the run is"
    networks = sorted(path.name for path in (tmp_path / "renamed").glob("*.safetensors"))
    assert networks
    for name in networks:
        resumed, whole = tmp_path / "renamed" / name, tmp_path / "whole/runs/one" / name
        assert resumed.read_bytes() == whole.read_bytes(), name
    code, _, err = starting.run(script, "--resume", tmp_path / "renamed", "--epochs", 3, folder=home)
    assert code == 0, err


@pytest.mark.parametrize(("script", "flags", "data"), STARTS, ids=IDS)
def test_data_that_moved_are_named_anew_but_no_others(home, tmp_path, script, flags, data):
    """The run itself remembers the new place. Others of the same number are refused, before anything is written."""
    run = started(home, script, flags, data)
    moved, new = ([v if v.startswith("--") else tmp_path / place / v for v in data] for place in ("moved", "new"))
    (tmp_path / "moved").mkdir()
    for name in ("photos", "others", "MNIST", "captioned"):
        (home / name).rename(tmp_path / "moved" / name)
    code, _, err = starting.run(script, "--resume", run, "--epochs", 2, folder=home)
    assert code == 2
    flag = data[0] if data[0].startswith("--") else "PATH"
    assert f"if the run's images moved, say where to with {flag}" in err
    goes_on(script, run, *moved, folder=home)
    goes_on(script, run, folder=tmp_path, epochs=3)

    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    write_images(tmp_path / "new/photos", 12, seed=2)
    write_images(tmp_path / "new/others", 16, seed=3)
    write_set(tmp_path / "new/MNIST/raw", 12, value=3)
    write_captions(tmp_path / "new/captioned", colour="pink")
    code, _, err = starting.run(script, "--epochs", 4, "--resume", run, *new, folder=home)
    assert code == 2
    assert ("with other captions than" if script == "stackgan.py" else "are not those that") in err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_classifiers_that_moved_are_known_by_their_contents(home, tmp_path):
    flags = (*SMALL, "--judge", "grey.safetensors", "--best-by", "grey.safetensors")
    run = started(home, "mnist_dcgan.py", flags, ("--data-dir", "MNIST/raw"))
    (home / "grey.safetensors").rename(tmp_path / "moved.safetensors")
    named = ("--judge", tmp_path / "moved.safetensors", "--best-by", tmp_path / "moved.safetensors")
    err = goes_on("mnist_dcgan.py", run, *named, folder=home)
    assert "another classifier" not in err
    other = Classifier(image_size=28, channels=1, width=2, classes=10, rng=np.random.default_rng(1))
    checkpoint.save(tmp_path / "other.safetensors", other)
    err = goes_on("mnist_dcgan.py", run, "--judge", tmp_path / "other.safetensors", folder=home, epochs=3)
    assert "samples are judged by another classifier from here on" in err
    code, _, err = starting.run(
        "mnist_dcgan.py", "--resume", run, "--best-by", tmp_path / "other.safetensors", "--epochs", 4, folder=home
    )
    assert code == 2
    assert "contradicts" in err


def test_other_kinds_of_data_are_refused_at_once(home):
    """Without reading them: a name is no moved folder."""
    run = started(home, "lsgan.py", (*TINY, "--channels", 3), ("--data", "photos"))
    starting.run("lsgan.py", *TINY, "--data", "digits", "--dry-run", "--out", "runs/digits", folder=home)
    for arguments, message in [
        (("runs/digits", "--data", "mnist"), "--data=mnist contradicts runs/digits/checkpoints/last.safetensors"),
        ((run, "--channels", 1), "--channels=1 contradicts"),
        ((run, "--data", "others"), "was trained on 12 images, others has 16 now"),
    ]:
        code, out, err = starting.run("lsgan.py", "--resume", *arguments, "--epochs", 2, folder=home)
        assert code == 2
        assert message in err
        assert out == ""


def test_the_page_of_a_run_does_not_say_where_it_was_started(home, tmp_path):
    """It is for friends too; a user's name stands in most such paths."""
    run = started(home, "lsgan.py", (*TINY, "--channels", 3), ("--data", "photos"))
    assert json.loads((run / "options.json").read_text())["working_folder"] == str(home)
    assert str(home) not in (run / "report.html").read_text()
    (tmp_path / "away").mkdir()
    goes_on("lsgan.py", "../home/runs/one", folder=tmp_path / "away")
    assert str(tmp_path) not in (run / "report.html").read_text()
    options = json.loads((run / "options.json").read_text())
    assert (options["data"], options["working_folder"]) == ("../home/photos", str(tmp_path / "away"))


@pytest.mark.parametrize("folder", [None, 7, "/nowhere", "a\0b", ["x"]])
def test_a_checkpoint_without_a_usable_working_folder(home, tmp_path, folder):
    """Those of earlier versions have none."""
    run = started(home, "lsgan.py", (*TINY, "--channels", 3), ("--data", "photos"))
    path = run / "checkpoints/last.safetensors"
    with safetensors.safe_open(path, framework="numpy") as file:
        fields = json.loads(file.metadata()["nanogan_training"])
    arrays = safetensors.numpy.load_file(path)
    del fields["checksum"], fields["options"]["working_folder"]
    if folder is not None:
        fields["options"]["working_folder"] = folder
    fields["checksum"] = checkpoint.runs._checksum(fields, arrays)
    safetensors.numpy.save_file(arrays, path, {"nanogan_training": json.dumps(fields)})
    code, _, err = starting.run("lsgan.py", "--resume", run, "--epochs", 2, folder=tmp_path)
    assert code == 2
    assert "if the run's images moved, say where to with --data PATH" in err
    goes_on("lsgan.py", run, folder=home)
