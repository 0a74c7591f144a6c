"""StackGAN's script: two stages in one command, each resumed where it stopped, and questions in words."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from nanogan import checkpoint
from nanogan.disk import Lock
from nanogan.models.stackgan import FirstStage, network_of
from tests.examples import starting
from tests.examples.starting import size_of

TINY = (
    "--data",
    "digits",
    "--width",
    2,
    "--d-width",
    2,
    "--latent",
    3,
    "--condition",
    2,
    "--text-size",
    3,
    "--batch-size",
    16,
)
WORDS = "a, on, small, large, red, green, blue, yellow, pink, zero, one, two, three, four, five, six, seven, eight, "


def run(*arguments, folder):
    return starting.run("stackgan.py", *arguments, folder=folder)


def succeed(*arguments, folder):
    return starting.succeed("stackgan.py", *arguments, folder=folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a dry run of both stages, and what it printed."""
    folder = tmp_path_factory.mktemp("stackgan")
    return folder, succeed(*TINY, "--dry-run", folder=folder)


def faces(path):
    """Eight images with captions, and a column of attributes."""
    (path / "images").mkdir(parents=True)
    rows = ["file,hair,caption"]
    for i in range(90):
        Image.new("RGB", (16, 16), (20 + 200 * (i % 2), i, 0)).save(path / f"images/{i}.png")
        rows.append(f"{i}.png,{i % 2},{('dark', 'bright')[i % 2]} hair")
    (path / "captions.csv").write_text("\n".join(rows) + "\n")
    return path


def test_one_command_trains_both_stages(trained):
    folder, out = trained
    left = folder / "runs/stackgan"
    assert "coloured digits (digits): 64 images of 16 x 16" in out
    assert "coloured digits (digits): 64 images of 32 x 32" in out
    assert size_of(left / "stage1/samples/epoch_001_step_000004.png") == (2 + 8 * 18, 2 + 8 * 18)
    assert size_of(left / "samples/epoch_001_step_000004.png") == (2 + 8 * 34, 2 + 8 * 34)
    first, both = (network_of(checkpoint.read(each / "generator.safetensors")) for each in (left / "stage1", left))
    for name, array in first.state_dict().items():
        np.testing.assert_array_equal(both.first.state_dict()[name], array)
    for each, stage in ((left / "stage1", 1), (left, 2)):
        assert json.loads((each / "options.json").read_text())["stage"] == stage
        shown = (each / "captions.txt").read_text().splitlines()
        assert len(shown) == 8
        assert all(caption.split()[0] == "a" and caption.split()[4] == "on" for caption in shown)
        with open(each / "measures.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        for name in ("digit", "size", "colour", "background", "all"):
            assert 0 <= float(row[name]) <= 1
            assert 0 <= float(row[f"{name}, shuffled"]) <= 1


def test_images_are_asked_for_in_words(trained):
    folder, _ = trained
    out = succeed("--generate", 5, "--caption", "A small red seven on blue", "--out", "seven", folder=folder)
    assert "5 images: seven/generated.png" in out
    assert size_of(folder / "seven/generated.png") == (2 + 3 * 34, 2 + 2 * 34)
    out = succeed(
        "--generate", 16, "--checkpoint", "runs/stackgan/stage1/checkpoints/last.safetensors", "--out", "any",
        folder=folder,
    )  # fmt: skip
    assert (folder / "runs/stackgan/captions.txt").read_text().splitlines()[0] in out
    assert size_of(folder / "any/generated.png") == (2 + 8 * 18, 2 + 2 * 18)


def test_a_stopped_run_goes_on_in_the_stage_that_it_was_in(tmp_path):
    short = (*TINY, "--epochs", 1, "--dry-run")
    succeed(*short, "--out", "whole", folder=tmp_path)
    succeed(*short, "--stage", 1, "--out", "run", folder=tmp_path)
    assert not (tmp_path / "run/log.csv").exists()
    out = succeed("--resume", "--out", "run", folder=tmp_path)
    assert "nothing was left to do: run/stage1/checkpoints/last.safetensors" in out
    assert "images of 32 x 32" in out, "stage II follows, with stage I's options"
    whole, run_ = ((tmp_path / each / "generator.safetensors").read_bytes() for each in ("whole", "run"))
    assert whole == run_
    out = succeed("--resume", "--out", "run", folder=tmp_path)
    assert "nothing was left to do: run/checkpoints/last.safetensors" in out
    assert "16 x 16" not in out
    out = succeed("--resume", "run/stage1", folder=tmp_path)
    assert "32 x 32" not in out, "a stage II that is there is not touched"
    out = succeed(*short, "--stage", 2, "--out", "run", folder=tmp_path)
    assert "the earlier run in run is kept in run/previous" in out
    assert (tmp_path / "run/generator.safetensors").read_bytes() == whole


def test_both_stages_folders_are_kept_from_the_beginning(tmp_path):
    """A command for stage II alone in the folder above would be refused only once stage I was trained."""
    start = (*TINY, "--dry-run", "--out", "run")
    for held in (tmp_path / "run", tmp_path / "run/stage1"):
        held.mkdir(exist_ok=True)
        with Lock(held):
            code, out, err = run(*start, folder=tmp_path)
        assert code == 2
        assert f"error: {held.relative_to(tmp_path)} is being written by process " in err
        assert out == "", "no data were read"
    succeed(*start, folder=tmp_path)
    with Lock(tmp_path / "run"):
        succeed(*start, "--stage", 1, folder=tmp_path)
        assert run("--resume", "run", folder=tmp_path)[0] == 2


def test_the_papers_settings_are_a_preset(tmp_path):
    """What stands on the command line comes first, in both stages."""
    succeed("--preset", "paper", *TINY, "--image-size", 16, "--dry-run", folder=tmp_path)
    for name in ("stage1/options.json", "options.json"):
        options = json.loads((tmp_path / "runs/stackgan" / name).read_text())
        assert [options[key] for key in ("compare", "near", "lr", "width", "image_size")] == ["concat", 0, 2e-4, 2, 16]


def test_a_new_run_sets_both_stages_aside(tmp_path):
    """Else --resume would go on with the old stage II. A run that cannot start moves nothing."""
    start = (*TINY, "--dry-run", "--out", "run")
    succeed(*start, folder=tmp_path)
    last = tmp_path / "run/checkpoints/last.safetensors"
    succeed(*start, "--stage", 1, folder=tmp_path)
    assert run(*start, "--data", "nowhere", folder=tmp_path)[0] == 2
    assert run(*start, "--best-by", "nothing.safetensors", "--seed", 1, folder=tmp_path)[0] == 2
    assert last.is_file(), "stage I alone leaves stage II as it is"
    assert not (tmp_path / "run/previous").exists()
    captions = (tmp_path / "run/captions.txt").read_text()
    out = succeed(*start, "--seed", 1, folder=tmp_path)
    assert "the earlier run in run is kept in run/previous" in out
    assert "the earlier run in run/stage1 is kept in run/stage1/previous" in out
    assert (tmp_path / "run/previous/generator.safetensors").is_file()
    assert (tmp_path / "run/previous/captions.txt").read_text() == captions
    assert last.is_file()


def test_a_folder_with_captions(tmp_path):
    faces(tmp_path / "faces")
    out = succeed("--data", "faces", *TINY[2:], "--image-size", 16, "--dry-run", folder=tmp_path)
    assert "faces: 90 images of 16 x 16" in out
    assert (tmp_path / "runs/stackgan/captions.txt").read_text() == "dark hair\nbright hair\n"
    assert "hair, shuffled" in out
    code, _, err = run("--generate", 2, "--caption", "blue hair", folder=tmp_path)
    assert code == 2
    assert "unknown word 'blue' in the caption: use bright, dark, hair" in err
    table = tmp_path / "faces/captions.csv"
    table.write_text(table.read_text().replace("hair,caption", "other,text"))
    code, _, err = run("--data", "faces", "--dry-run", folder=tmp_path)
    assert (code, "expected the columns file and caption, got file, other, text" in err) == (2, True)


def test_captions_without_attributes_are_trained_on_and_not_measured(tmp_path):
    faces(tmp_path / "faces")
    table = tmp_path / "faces/captions.csv"
    lines = [line.split(",") for line in table.read_text().splitlines()]
    table.write_text("\n".join(f"{file},{caption}" for file, _, caption in lines) + "\n")
    out = succeed("--data", "faces", *TINY[2:], "--image-size", 16, "--dry-run", "--stage", 1, folder=tmp_path)
    assert "nothing is measured: captions.csv has no column of attributes" in out
    assert not (tmp_path / "runs/stackgan/stage1/measures.csv").exists()


def test_of_two_images_no_judge_is_made(tmp_path):
    faces(tmp_path / "faces")
    table = tmp_path / "faces/captions.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:3]) + "\n")
    more = ("--image-size", 16, "--dry-run", "--stage", 1, "--batch-size", 2)
    out = succeed("--data", "faces", *TINY[2:], *more, folder=tmp_path)
    assert "nothing is measured: a judge needs at least 3 images, there are 2" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--caption", "a cat"), "--caption asks a trained network for images: add --generate N"),
        (("--generate", 2, "--caption", "a violet seven"), f"unknown word 'violet' in the caption: use {WORDS}"),
        (("--generate", 2, "--caption", "a red red red red red red"), "a caption expected 1 to 6 words, got 7"),
        (("--generate", 2, "--checkpoint", "plain.safetensors"), "plain.safetensors cannot be used: a StackGAN's"),
        (
            ("--generate", 2, "--checkpoint", "plain.safetensors"),
            "generator was expected ('no convolutions",
        ),
        (("--generate", 2, "--checkpoint", "nan.safetensors"), "its weights are not finite numbers"),
        (("--stage", 2, "--out", "elsewhere"), "there is no checkpoint elsewhere/stage1/generator.safetensors"),
        (("--stage", 2, *TINY, "--width", 3), "stage II expected a stage I with width 3, got one that was trained"),
        (("--stage", 1, "--resume", "runs/stackgan"), "--stage 1 contradicts runs/stackgan/checkpoints/last"),
        (("--resume", "--out", "elsewhere"), "there is no checkpoint elsewhere/stage1/checkpoints/last.safetensors"),
        (("--resume", "--data", "mnist"), "--data=mnist contradicts runs/stackgan/checkpoints/last.safetensors"),
        (("--stage1", "some.safetensors"), "--stage1 names what stage II starts from: add --stage 2"),
        (("--image-size", 31), "image_size expected an even number"),
        (("--data", "cifar10"), "there is no cifar10/captions.csv: expected a folder with a captions.csv"),
    ],
)
def test_a_users_mistake_gets_one_sentence(trained, arguments, message):
    folder, _ = trained
    checkpoint.save(folder / "plain.safetensors", FirstStage(
        size=8, channels=1, latent=2, width=2, words=("", "a"), shown=[[1]], text="mean", text_size=2, condition=1
    ).paint)  # fmt: skip
    state = network_of(checkpoint.read(folder / "runs/stackgan/stage1/generator.safetensors"))
    state.moments.params["weight"][0, 0] = np.nan
    checkpoint.save(folder / "nan.safetensors", state)
    before = sorted(folder.rglob("*"))
    code, _, err = run("--dry-run", *arguments, folder=folder)
    assert code == 2
    assert message in err
    assert len([line for line in err.splitlines() if "error: " in line]) == 1
    assert sorted(folder.rglob("*")) == before
