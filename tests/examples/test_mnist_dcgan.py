"""The MNIST example as a user starts it: what it writes, what it says, and how it stops."""

import csv
import json
import os
import pickle
import shlex
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from PIL import Image

from nanogan import checkpoint
from nanogan.data import builtin_digits
from tests import starting

SCRIPT = starting.EXAMPLES / "mnist_dcgan.py"
NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
TINY = ("--data", "digits", "--width", "4", "--batch-size", "16", "--latent", "8")


def write_idx(folder, count, seed=0):
    for name, array in zip(("images-idx3", "labels-idx1"), builtin_digits(count, seed=seed), strict=True):
        array = array.reshape(array.shape[:3])
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / f"train-{name}-ubyte").write_bytes(header + array.tobytes())


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    """The flags of a network as small as TINY's on an idx data set of 600 images, quicker to make than 60,000."""
    folder = tmp_path_factory.mktemp("small-set")
    write_idx(folder, 600)
    return ("--data", "mnist", "--data-dir", folder, *TINY[2:])


def start(*arguments, folder):
    """Start the script in a process of its own, to which signals can be sent."""
    return starting.process(SCRIPT, *arguments, folder=folder)


def run(*arguments, folder):
    done = starting.run(SCRIPT, *arguments, folder=folder, **NO_NETWORK)
    return done.returncode, done.stdout, done.stderr


def succeed(*arguments, folder):
    code, out, err = run(*arguments, folder=folder)
    assert code == 0, err
    return out


def files(folder):
    return sorted(
        str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file() and path.name[0] != "."
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A dry run's folder and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    out = succeed(*TINY, "--dry-run", "--out", "run", folder=folder)
    return folder, out


def test_a_dry_run_leaves_everything_a_run_leaves(trained):
    folder, _ = trained
    assert files(folder) == [
        "run/checkpoints/epoch_001.safetensors",
        "run/checkpoints/last.safetensors",
        "run/curves.json",
        "run/discriminator.safetensors",
        "run/generator.safetensors",
        "run/log.csv",
        "run/losses.png",
        "run/machine.json",
        "run/options.json",
        "run/real.png",
        "run/report.html",
        "run/samples/epoch_001_step_000004.png",
        "run/training.gif",
        "run/warnings.csv",
    ]
    for name in ("real.png", "losses.png", "training.gif", "samples/epoch_001_step_000004.png"):
        with Image.open(folder / "run" / name) as image:
            image.load()
            assert min(image.size) > 28
    options = json.loads((folder / "run/options.json").read_text())
    assert options["data"] == "digits"
    assert options["seed"] == 0
    assert options["width"] == 4


def test_the_log_line_is_the_familiar_one_and_the_csv_has_every_step(trained):
    folder, out = trained
    lines = [line for line in out.splitlines() if line.startswith("[")]
    assert [line.split()[0] for line in lines] == [f"[1/1][{i}/4]" for i in (1, 2, 3, 4)]
    for word in ("Loss_D: ", "Loss_G: ", "D(x): ", "D(G(z)): ", " before D's step, ", " after"):
        assert word in lines[0]
    with open(folder / "run/log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert lines[2].split("Loss_D: ")[1].split()[0] == f"{float(rows[2]['loss_d']):.4f}"
    assert lines[2].split("D(G(z)): ")[1].split()[0] == f"{float(rows[2]['d_fake_before']):.4f}"
    assert float(rows[0]["seconds"]) <= float(rows[3]["seconds"])


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(trained, tmp_path):
    folder, _ = trained
    for seed, same in ((0, True), (1, False)):
        succeed(*TINY, "--dry-run", "--out", f"seed{seed}", "--seed", seed, folder=tmp_path)
        for name in ("generator.safetensors", "discriminator.safetensors", "samples/epoch_001_step_000004.png"):
            assert ((tmp_path / f"seed{seed}" / name).read_bytes() == (folder / "run" / name).read_bytes()) == same


def test_pictures_are_drawn_with_a_saved_generator(trained, tmp_path):
    weights = trained[0] / "run/generator.safetensors"
    out = succeed("--generate", 7, "--checkpoint", weights, "--out", "grid", folder=tmp_path)
    assert "7 images: grid/generated.png" in out
    succeed("--generate", 7, "--checkpoint", weights, "--out", "other", "--seed", 1, folder=tmp_path)
    assert (tmp_path / "other/generated.png").read_bytes() != (tmp_path / "grid/generated.png").read_bytes()
    (tmp_path / "other/generated.png").unlink()
    succeed("--generate", 7, "--checkpoint", weights, "--out", "single", "--single-files", folder=tmp_path)
    assert files(tmp_path) == ["grid/generated.png", *(f"single/generated_00000{i}.png" for i in range(1, 8))]
    with (
        Image.open(tmp_path / "single/generated_000004.png") as fourth,
        Image.open(tmp_path / "grid/generated.png") as grid,
    ):
        assert fourth.size == (28, 28)
        top, left = 2 + 1 * 30, 2 + 0 * 30  # 7 images stand in rows of 3
        np.testing.assert_array_equal(np.asarray(grid)[top : top + 28, left : left + 28], np.asarray(fourth))


def test_without_mnist_and_without_network_it_says_what_it_does(tmp_path):
    code, out, err = run("--width", 2, "--dry-run", folder=tmp_path)
    assert code == 0, err
    assert "digits: 256 images of 28 x 28" in out
    (line,) = [line for line in err.splitlines() if "No MNIST here" in line]
    assert "built-in digits" in line
    assert "mnist could not be downloaded: https" in line
    options = json.loads((tmp_path / "runs/mnist_dcgan/options.json").read_text())
    assert options["data"] == "digits", "a resumed run must not take what was found since"
    assert "--data-dir" in line


def test_options_reach_the_training(tmp_path, small_set):
    """--drop-last and --sample-every count; --beta1 and --lr change the result; --out . is a folder like any other."""
    common = (*small_set, "--epochs", 1, "--batch-size", 250)
    results = []
    for name, *options in (
        ("plain",),
        ("every", "--sample-every", 1, "--drop-last"),
        ("beta1", "--beta1", 0.9),
        ("lr", "--lr", 1e-3),
    ):
        (tmp_path / name).mkdir()
        succeed(*common, *options, "--out", ".", folder=tmp_path / name)
        results.append((tmp_path / name / "generator.safetensors").read_bytes())
    assert len(set(results)) == 4
    assert len(list((tmp_path / "plain/samples").iterdir())) == 1
    assert len(list((tmp_path / "every/samples").iterdir())) == 2  # 600 images: two whole batches and a rest
    assert len((tmp_path / "plain/log.csv").read_text().splitlines()) == 1 + 3
    assert len((tmp_path / "every/log.csv").read_text().splitlines()) == 1 + 2


def test_a_folder_of_idx_files_is_data_as_in_other_examples(tmp_path):
    """--data FOLDER and --data-dir FOLDER are one door."""
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    write_idx(tmp_path / "MNIST/raw", 40)
    results = []
    for flag, folder in (("--data", "MNIST"), ("--data-dir", "MNIST/raw"), ("--data", ".")):
        out = succeed(flag, folder, *TINY[2:], "--epochs", 1, "--out", "run", folder=tmp_path)
        assert f"idx files in {folder}: 40 images" in out
        results.append((tmp_path / "run/generator.safetensors").read_bytes())
    assert results[0] == results[1] == results[2]


def test_other_sizes_are_resized_to(tmp_path):
    out = succeed(*TINY, "--image-size", 32, "--dry-run", "--out", "run", folder=tmp_path)
    assert "images of 32 x 32" in out
    with Image.open(tmp_path / "run/real.png") as image:
        assert image.size == (2 + 4 * 34, 2 + 4 * 34)  # a batch of 16


def test_ctrl_c_finishes_the_step_and_saves(tmp_path, small_set):
    process = start(*small_set, "--epochs", 1000, "--log-every", 1, "--out", "run", folder=tmp_path)
    try:
        for line in process.stdout:
            if line.startswith("[1/1000][5/"):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "stopped" in out
    assert "finishing this step and saving" in err
    with open(tmp_path / "run/log.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]["step"]
    assert (tmp_path / f"run/samples/epoch_001_step_{int(last):06d}.png").exists()
    assert safetensors.numpy.load_file(tmp_path / "run/generator.safetensors")
    assert (tmp_path / "run/training.gif").exists()


def rows(folder):
    with open(folder / "log.csv", newline="") as file:
        return [row[:-1] for row in csv.reader(file)]  # without the seconds


def stop(process, line_start, number):
    """Send a signal once a line is printed; return status, output and errors."""
    try:
        for line in process.stdout:
            if line.startswith(line_start):
                process.send_signal(number)
                break
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_set):
    """Two epochs in one go; the flags of it."""
    folder = tmp_path_factory.mktemp("whole")
    flags = (*small_set, "--epochs", 2, "--log-every", 1, "--sample-every", 10)
    succeed(*flags, "--out", "run", folder=folder)
    return folder / "run", flags


@pytest.mark.skipif(os.name == "nt", reason="Windows has no kill -9")
def test_a_killed_run_is_resumed_to_the_bit(tmp_path, whole):
    expected, flags = whole
    process = start(*flags, "--checkpoint-every", 0, "--out", "run", folder=tmp_path)
    code, _, _ = stop(process, "[1/2][17/", signal.SIGKILL)
    assert code == -signal.SIGKILL
    process = start("--resume", "--out", "run", folder=tmp_path)
    code, out, _ = stop(process, "[2/2][9/", signal.SIGKILL)
    assert code == -signal.SIGKILL
    out = succeed("--resume", "run", folder=tmp_path)
    assert "resumed at step" in out
    for name in ("generator.safetensors", "discriminator.safetensors", "training.gif", "losses.png", "real.png"):
        assert (tmp_path / "run" / name).read_bytes() == (expected / name).read_bytes(), name
    assert rows(tmp_path / "run") == rows(expected)
    assert files(tmp_path / "run") == files(expected)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no kill -9")
def test_a_killed_run_with_every_option_is_resumed_to_the_bit_and_draws(tmp_path, small_set):
    flags = (
        *small_set, "--epochs", 2, "--log-every", 1, "--sample-every", 10, "--loss", "lsgan", "--label-smoothing", 0.1,
        "--instance-noise", 0.2, "--d-steps", 2, "--ema", 0.9, "--lr-decay", "linear", "--upsample", "resize",
        "--z", "uniform",
    )  # fmt: skip
    succeed(*flags, "--out", "whole", folder=tmp_path)
    process = start(*flags, "--checkpoint-every", 0, "--out", "run", folder=tmp_path)
    code, _, _ = stop(process, "[1/2][7/", signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert "resumed at step" in succeed("--resume", "run", folder=tmp_path)
    for name in ("generator.safetensors", "discriminator.safetensors", "training.gif", "losses.png", "real.png"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert len(rows(tmp_path / "run")) == 1 + 2 * 19, "600 images in batches of 16 are 38, two for each step"
    for name in ("generator", "checkpoints/last"):
        weights = tmp_path / f"run/{name}.safetensors"
        succeed("--generate", 4, "--z", "uniform", "--checkpoint", weights, "--out", name, folder=tmp_path)
    drawn = [(tmp_path / name / "generated.png").read_bytes() for name in ("generator", "checkpoints/last")]
    assert drawn[0] == drawn[1], "the average draws in both"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no kill -9")
def test_a_second_run_in_a_folder_is_refused_while_the_first_lives(tmp_path, small_set):
    """At the door: before data are read. The first goes on as if nothing had been; killed, it keeps nobody out."""
    flags = (*small_set, "--epochs", 1000, "--log-every", 1, "--checkpoint-every", 0, "--out", "run")
    first = start(*flags, folder=tmp_path)
    try:
        for line in first.stdout:
            if line.startswith("[1/1000][3/"):
                break
        for arguments in ((*TINY, "--seed", 1), ("--resume",), (*TINY, "--dry-run")):
            code, out, err = run(*arguments, "--out", "run", folder=tmp_path)
            assert code == 2
            assert f"run is being written by process {first.pid} on " in err
            assert "wait until it ends, stop it, or choose another folder with --out" in err
            assert out == "", "no data were read"
            assert "Traceback" not in err
        for line in first.stdout:
            if line.startswith("[1/1000][9/"):
                first.send_signal(signal.SIGKILL)
                break
        first.communicate(timeout=60)
    finally:
        first.kill()
    assert not (tmp_path / "run/previous").exists()
    steps = [int(row[1]) for row in rows(tmp_path / "run")[1:]]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 9
    out = succeed("--resume", "--epochs", 1, "--out", "run", folder=tmp_path)
    assert "resumed at step" in out
    assert ".lock" not in files(tmp_path / "run")


def test_the_command_that_is_printed_resumes(tmp_path, whole):
    """Also in a folder whose name the shell would tear apart, and with the options of the first start."""
    expected, flags = whole
    process = start(*flags, "--out", "my run $HOME", folder=tmp_path)
    code, out, err = stop(process, "[1/2][5/", signal.SIGTERM)
    assert code == 130, err
    (command,) = [line.removeprefix("to go on: ") for line in out.splitlines() if line.startswith("to go on: ")]
    assert command.endswith("--resume 'my run $HOME/checkpoints/last.safetensors'")
    result = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    run_folder = tmp_path / "my run $HOME"
    assert (run_folder / "generator.safetensors").read_bytes() == (expected / "generator.safetensors").read_bytes()
    assert rows(run_folder) == rows(expected)

    _, script, *arguments = shlex.split(command)
    assert script == str(SCRIPT)
    again = succeed(*arguments, folder=tmp_path)
    assert "nothing was left to do" in again
    (longer,) = [line.removeprefix("to train longer: ") for line in again.splitlines() if " longer: " in line]
    assert longer.endswith("--epochs 4")


def test_a_finished_run_goes_on_with_another_learning_rate_elsewhere(tmp_path, whole):
    expected, _ = whole
    last = expected / "checkpoints/last.safetensors"
    before = last.read_bytes()
    results = []
    for lr in ("5e-4", "1e-3"):
        succeed("--resume", last, "--epochs", 3, "--lr", lr, "--keep", 0, "--out", lr, folder=tmp_path)
        options = json.loads((tmp_path / lr / "options.json").read_text())
        assert (options["epochs"], options["lr"], options["width"], options["keep"]) == (3, float(lr), 4, 0)
        results.append((tmp_path / lr / "generator.safetensors").read_bytes())
        assert rows(tmp_path / lr)[: len(rows(expected))] == rows(expected)
        # the next time, they are the checkpoint's
        succeed("--resume", lr, "--epochs", 4, folder=tmp_path)
        options = json.loads((tmp_path / lr / "options.json").read_text())
        assert (options["epochs"], options["lr"], options["keep"]) == (4, float(lr), 0)
    assert results[0] != results[1]
    assert last.read_bytes() == before


def test_nothing_left_to_do_is_said_at_once(tmp_path):
    """Without reading data, which may be gone, or training a judge; what was not drawn before a kill is drawn."""
    (tmp_path / "set").mkdir()
    write_idx(tmp_path / "set", 40)
    succeed("--data-dir", "set", *TINY[2:], "--epochs", 2, "--out", "run", folder=tmp_path)
    drawn = {name: (tmp_path / "run" / name).read_bytes() for name in ("losses.png", "training.gif")}
    for name in drawn:
        (tmp_path / "run" / name).unlink()
    shutil.rmtree(tmp_path / "set")
    for arguments in ((), ("--epochs", 1)):
        out = succeed("--resume", "--out", "run", *arguments, folder=tmp_path)
        first, second, third = out.splitlines()
        ends = "--epochs 1 ends at step 3" if arguments else "--epochs 2 ends at step 6"
        assert first == f"nothing was left to do: run/checkpoints/last.safetensors is of step 6, and {ends}"
        assert second.startswith("done: run holds report.html")
        assert third.endswith("--resume run/checkpoints/last.safetensors --epochs 4")
    assert {name: (tmp_path / "run" / name).read_bytes() for name in drawn} == drawn
    out = succeed("--resume", "run", "--out", "elsewhere", folder=tmp_path)
    assert "done" not in out, "there is nothing in elsewhere"
    assert "--resume run/checkpoints/last.safetensors --epochs 4" in out
    assert not (tmp_path / "elsewhere").exists()


def test_a_checkpoint_draws(tmp_path, whole):
    for name in ("generator", "checkpoints/last"):
        weights = whole[0] / f"{name}.safetensors"
        succeed("--generate", 4, "--checkpoint", weights, "--out", name, folder=tmp_path)
    assert (tmp_path / "generator/generated.png").read_bytes() == (
        tmp_path / "checkpoints/last/generated.png"
    ).read_bytes()


def test_resuming_what_cannot_be_resumed_gets_one_sentence(tmp_path, whole, small_set):
    expected, _ = whole
    copied = tmp_path / "run"
    shutil.copytree(expected, copied)
    before = {name: (copied / name).read_bytes() for name in files(copied)}
    last = copied / "checkpoints/last.safetensors"
    (tmp_path / "bare.safetensors").write_bytes((copied / "generator.safetensors").read_bytes())
    (tmp_path / "cut.safetensors").write_bytes(last.read_bytes()[:-100])
    (tmp_path / "netG.pth").write_bytes(pickle.dumps([1, 2]))
    flipped = bytearray(last.read_bytes())
    flipped[-100] ^= 4
    (tmp_path / "flipped.safetensors").write_bytes(flipped)
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    write_idx(fewer, 590)
    for arguments, message in [
        (
            ("--out", "nothing"),
            "there is no checkpoint nothing/checkpoints/last.safetensors to resume: leave --resume out",
        ),
        (("nothing",), "there is no checkpoint nothing to resume"),
        (("bare.safetensors",), "holds no training that could be resumed"),
        (("cut.safetensors",), "not a whole safetensors file"),
        (("flipped.safetensors",), "its checksum is wrong"),
        (("netG.pth",), "is resumed from nanogan's checkpoints alone"),
        (("run", "--width", 8), "--width=8 contradicts run/checkpoints/last.safetensors, whose run has --width=4"),
        (("run", "--image-size", 32), "--image-size=32 contradicts"),
        (("run", "--seed", 1), "whose run has --seed=0"),
        (("run", "--batch-size", 32), "--batch-size=32 contradicts"),
        (("run", "--drop-last"), "--drop-last contradicts"),
        (("run", "--loss", "lsgan"), "--loss=lsgan contradicts"),
        (("run", "--label-smoothing", 0.1), "--label-smoothing=0.1 contradicts"),
        (("run", "--instance-noise", 0.1), "--instance-noise=0.1 contradicts"),
        (("run", "--d-steps", 2), "--d-steps=2 contradicts"),
        (("run", "--ema", 0.9), "--ema=0.9 contradicts run/checkpoints/last.safetensors, whose run has none"),
        (("run", "--lr-decay", "linear"), "--lr-decay=linear contradicts"),
        (("run", "--upsample", "resize"), "--upsample=resize contradicts"),
        (("run", "--z", "uniform"), "--z=uniform contradicts"),
        (("run", "--dry-run"), "--dry-run contradicts"),
        (("run", "--data", "fashion-mnist"), "--data=fashion-mnist contradicts"),
        (("run", "--data-dir", "fewer", "--epochs", 3), "was trained on 600 images, mnist has 590 now"),
        (("run", "--generate", 4), "leave one of them out"),
        (("run", "--epochs", 3, "--out", "netG.pth"), "cannot write to the output folder netG.pth"),
    ]:
        code, _, err = run("--resume", *arguments, folder=tmp_path)
        assert code == 2, (arguments, err)
        assert message in err
        assert "Traceback" not in err
        assert len([line for line in err.splitlines() if "error: " in line]) == 1
        assert {name: (copied / name).read_bytes() for name in files(copied)} == before
    last.write_bytes(flipped)
    code, _, err = run("--resume", "run", folder=tmp_path)
    assert code == 2
    assert "run/checkpoints/epoch_002.safetensors may be whole" in err


def test_other_pictures_are_told(tmp_path):
    """In their old place; under a new name they are refused."""
    (tmp_path / "set").mkdir()
    (tmp_path / "others").mkdir()
    write_idx(tmp_path / "set", 40)
    succeed("--data-dir", "set", *TINY[2:], "--epochs", 1, "--out", "run", folder=tmp_path)
    for folder in ("set", "others"):
        write_idx(tmp_path / folder, 40, seed=1)
    code, _, err = run("--resume", "run", "--data-dir", "others", "--epochs", 2, folder=tmp_path)
    assert code == 2
    told = "the images of idx files in {} are not those that run/checkpoints/last.safetensors was trained on: "
    assert told.format("others") + "give it the same ones" in err
    code, _, err = run("--resume", "run", "--epochs", 2, folder=tmp_path)
    assert code == 0, err
    assert told.format("set") + "going on" in err


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("width", 10**6, "contradicts itself: its width is 1000000, its arrays' 4"),
        ("width", "4; rm", "options that no run has: argument --width: expected a whole number"),
        ("width", True, "options that no run has: argument --width"),
        ("lr", "nan", "options that no run has: argument --lr"),
        ("lr", [1], "options that no run has: argument --lr"),
        ("data", {"a": 1}, "options that no run has: argument --data: invalid choice"),
        ("drop_last", "yes", "options that no run has: argument --drop-last"),
        ("loss", "wgan", "options that no run has: argument --loss: invalid choice"),
        ("label_smoothing", 7, "options that no run has: argument --label-smoothing"),
        ("ema", 0.9, "ema.average.main.0.weight is missing"),
        ("upsample", "resize", "contradicts itself: its upsample is resize, its arrays' deconv"),
        ("d_steps", 2, "cannot be resumed with these batches"),
        ("loss", ["hinge"], "options that no run has: argument --loss"),
        ("generate", 5, None),
        ("out", "/", None),
        ("folder", "x", "a run of another script: this one has no option --folder"),
        ("pictures", "600", "was trained on '600' images"),
        ("device", "tpu", "unknown device 'tpu'"),
        ("device", "a\nb", "unknown device"),
    ],
)
def test_options_in_a_checkpoint_are_not_trusted(tmp_path, whole, name, value, message):
    path = tmp_path / "run/checkpoints/last.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes((whole[0] / "checkpoints/last.safetensors").read_bytes())
    with safetensors.safe_open(path, framework="numpy") as file:
        fields = json.loads(file.metadata()["nanogan_training"])
    arrays = safetensors.numpy.load_file(path)
    del fields["checksum"]
    fields["options"] |= {name: value, "epochs": 3}
    fields["checksum"] = checkpoint.runs._checksum(fields, arrays)
    safetensors.numpy.save_file(arrays, path, {"nanogan_training": json.dumps(fields)})
    code, _, err = run("--resume", path, folder=tmp_path)
    assert "Traceback" not in err
    if message is None:
        assert code == 0, err
        assert (tmp_path / "run/checkpoints/epoch_003.safetensors").exists()
    else:
        assert code == 2, err
        assert message in err
        assert len([line for line in err.splitlines() if "error: " in line]) == 1


def test_a_log_in_a_file_can_be_followed(tmp_path, small_set):
    process = start(*small_set, "--epochs", 1000, "--out", "run", folder=tmp_path)
    try:
        assert process.stdout.readline().startswith("mnist: 600 images")  # long before a buffer of 8 KB is full
        process.stdout.readline()
        line = process.stdout.readline()
        line = process.stdout.readline() if line.startswith("computed by") else line
        assert line.startswith("[1/1000][1/")
        process.terminate()
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert (tmp_path / "run/generator.safetensors").exists(), "told to end, it saves as after Ctrl-C"


def test_a_diverged_training_stops_and_keeps_the_last_good_checkpoint(tmp_path, small_set):
    arguments = (*small_set, "--lr", "1e30", "--sample-every", 1, "--epochs", 1, "--out", "run")
    code, out, err = run(*arguments, folder=tmp_path)
    assert code == 1
    assert "Traceback" not in err
    message = [line for line in err.splitlines() if "error" in line]
    assert len(message) == 1
    assert "training stopped" in message[0]
    assert "step" in message[0]
    assert "learning rate" in message[0]
    for path in (tmp_path / "run").glob("*.safetensors"):
        assert all(np.isfinite(array).all() for array in safetensors.numpy.load_file(path).values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--data", "imagenet"), "invalid choice: 'imagenet'"),
        (("--image-size", "30"), "cannot draw pictures of 30 pixels"),
        (("--image-size", "big"), "expected a whole number of at least 1 and at most 1000000, got 'big'"),
        (("--epochs", "0"), "expected a whole number of at least 1 and at most 1000000, got '0'"),
        (("--batch-size", "-4"), "expected a whole number of at least 1 and at most 1000000, got '-4'"),
        (("--lr", "0"), "expected a number above 0, got '0'"),
        (("--lr", "nan"), "expected a number above 0, got 'nan'"),
        (("--lr", "inf"), "expected a number above 0, got 'inf'"),
        (("--beta1", "1"), "at most 0.999, got '1'"),
        (("--data-dir", "nowhere"), "there is no folder nowhere"),
        (("--data-dir", "."), "holds no train-images-idx3-ubyte"),
        (("--data", "mnist"), "mnist could not be downloaded"),
        (("--data-dir", "set", "--batch-size", "21"), "a batch of 21 was asked for, but there are 20 pictures"),
        (("--out", "file"), "cannot write to the output folder file"),
        (("--generate", "4", "--checkpoint", "nothing"), "there is no checkpoint nothing"),
        (("--generate", "4", "--checkpoint", "file"), "not a whole safetensors file"),
        (("--generate", "0"), "of at least 1 and at most 1000000, got '0'"),
        (("--single-files",), "add --generate N"),
        (("--checkpoint", "file"), "add --generate N"),
        (("--data", "digits", "--data-dir", "."), "leave --data-dir out"),
        (("--generate", "1" + 20 * "0"), "at most 1000000"),
        (("--epoch", "3"), "unrecognized arguments: --epoch"),
        (("--loss", "wgan"), "invalid choice: 'wgan'"),
        (("--loss", "hinge", "--label-smoothing", "0.1"), "the hinge loss has none: leave it out"),
        (("--label-smoothing", "0.9"), "expected a number of at least 0 and at most 0.5, got '0.9'"),
        (("--instance-noise", "-1"), "expected a number of at least 0 and at most 100, got '-1'"),
        (("--d-steps", "0"), "expected a whole number of at least 1 and at most 1000, got '0'"),
        (("--ema", "1"), "expected a number of at least 0 and at most 0.999999, got '1'"),
        (("--lr-decay", "cosine"), "invalid choice: 'cosine'"),
        (("--upsample", "nearest"), "invalid choice: 'nearest'"),
        (("--z", "cauchy"), "invalid choice: 'cauchy'"),
    ],
)
def test_a_users_mistake_gets_one_sentence_and_status_2(tmp_path, arguments, message):
    (tmp_path / "file").write_text("this is no checkpoint and no folder")
    (tmp_path / "set").mkdir()
    write_idx(tmp_path / "set", 20)
    before = files(tmp_path)
    code, _, err = run(*arguments, folder=tmp_path)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if "error: " in line]) == 1
    assert files(tmp_path) == before


def test_gpu_that_is_not_there(tmp_path):
    from tests.conftest import GPU_PROBLEM

    if not GPU_PROBLEM:
        pytest.skip("there is a GPU")
    code, _, err = run("--device", "gpu", "--dry-run", folder=tmp_path)
    assert code == 2
    assert "error: device gpu" in err
    assert "Traceback" not in err


def test_help_tells_every_option(tmp_path):
    out = succeed("--help", folder=tmp_path)
    for flag in [
        "--device",
        "--seed",
        "--out",
        "--dry-run",
        "--epochs",
        "--batch-size",
        "--image-size",
        "--latent",
        "--width",
        "--lr",
        "--beta1",
        "--data",
        "--data-dir",
        "--generate",
        "--checkpoint",
        "--single-files",
        "--log-every",
        "--sample-every",
        "--drop-last",
        "--resume",
        "--checkpoint-every",
        "--keep",
        "--on-disk-full",
        "--loss",
        "--label-smoothing",
        "--instance-noise",
        "--d-steps",
        "--ema",
        "--lr-decay",
        "--upsample",
        "--z ",
    ]:
        assert flag in out


def test_real_mnist_trains(tmp_path, real_data):
    out = succeed("--width", 4, "--dry-run", "--data-dir", real_data, "--out", "run", folder=tmp_path)
    assert f"idx files in {real_data}: 256 images" in out


def test_a_preset_is_other_defaults_and_a_flag_comes_before_it(tmp_path, small_set):
    tiny = ("--preset", "notes", *small_set[:4], "--dry-run", "--image-size", 8, "--width", 4, "--batch-size", 16)
    out = succeed(*tiny, "--d-width", 6, folder=tmp_path)
    options = json.loads((tmp_path / "runs/mnist_dcgan/options.json").read_text())
    given = {"image_size": 8, "width": 4, "batch_size": 16, "d_width": 6}
    preset = {"gain": 0.0, "d_weight": 0.5, "last_bias": True, "lr": 2e-4, "preset": "notes"}
    assert options | given | preset == options
    assert "discriminator: " in out
    folder = tmp_path / "runs/mnist_dcgan"
    with safetensors.safe_open(folder / "generator.safetensors", framework="numpy") as file:
        assert "main.3.bias" in file.keys()  # noqa: SIM118
    out = succeed("--generate", 4, folder=tmp_path)
    assert "4 images" in out
    code, _, err = run("--resume", "--d-width", 5, *small_set[:4], "--dry-run", folder=tmp_path)
    assert code == 2
    assert "--d-width=5 contradicts" in err
    assert "d-width=6" in err
