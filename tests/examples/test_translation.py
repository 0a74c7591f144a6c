"""The scripts of the games of two domains; what all training scripts share is tested in test_every_game.py."""

import shutil

import numpy as np
import pytest
from PIL import Image

from nanogan import checkpoint
from tests.examples import starting
from tests.examples.starting import size_of

SCRIPTS = ("cyclegan.py", "discogan.py")
TINY = ("--image-size", 16, "--width", 2, "--batch-size", 4)
TWO = ("--a", "x", "--b", "y", *TINY)


@pytest.fixture
def folders(tmp_path):
    """Two folders of colour images: 9 in x, 14 in y."""
    rng = np.random.default_rng(0)
    for name, count in (("x", 9), ("y", 14)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(tmp_path / name / f"{i:02}.png")
    return tmp_path


@pytest.mark.parametrize("script", SCRIPTS)
def test_grey_and_coloured_digits(script, tmp_path):
    out = starting.succeed(script, "--data", "digits", "--pair", "coloured", *TINY, "--dry-run", folder=tmp_path)
    name = script.removesuffix(".py")
    assert "digits, and coloured ones: 16 and 16 images of 16 x 16" in out
    assert "measured after epoch 1: kept_ab " in out
    assert size_of(tmp_path / f"runs/{name}/samples/epoch_001_step_000004.png") == (2 + 8 * 18, 2 + 6 * 18)
    ab, ba = (checkpoint.load_translator(tmp_path / f"runs/{name}/{way}.safetensors") for way in ("a_to_b", "b_to_a"))
    assert (ab.in_channels, ab.out_channels, ba.in_channels, ba.out_channels) == (1, 3, 3, 1)


def test_a_refused_translation_leaves_no_folder(folders):
    starting.succeed("discogan.py", *TWO, "--dry-run", "--out", "run", folder=folders)
    (folders / "empty").mkdir()
    (folders / "bad").mkdir()
    (folders / "bad/1.png").write_bytes(b"nothing")
    for folder, message in (("empty", "empty holds no"), ("bad", "can be read"), ("nowhere", "check the path")):
        weights = ("--checkpoint", "run/a_to_b.safetensors")
        code, _, err = starting.run("discogan.py", "--translate", folder, *weights, "--out", "t", folder=folders)
        assert code == 2
        assert message in err
        assert not (folders / "t").exists()


@pytest.mark.parametrize("folder", ["runs/discogan/translated", "runs/discogan", "runs/discogan/translated/deep"])
def test_translations_do_not_replace_what_is_translated(folders, folder):
    """The way back, of what the way there left in the same place."""
    starting.succeed("discogan.py", *TWO, "--dry-run", folder=folders)
    starting.succeed("discogan.py", "--translate", "x", folder=folders)
    (folders / "runs/discogan/translated/deep").mkdir()
    shutil.copy(folders / "runs/discogan/translated/00.png", folders / "runs/discogan/translated/deep/a.png")
    before = {path: path.read_bytes() for path in (folders / "runs").rglob("*.png")}
    back = ("--checkpoint", "runs/discogan/b_to_a.safetensors")
    code, _, err = starting.run("discogan.py", "--translate", folder, *back, folder=folders)
    assert code == 2
    assert f"{folder} would hold its own translations, in {folders / 'runs/discogan/translated'}: choose another" in err
    assert {path: path.read_bytes() for path in (folders / "runs").rglob("*.png")} == before


def test_a_users_own_networks_and_translations_are_not_replaced(folders):
    for name in ("net/a_to_b.safetensors", "own/translated/00.png"):
        (folders / name).parent.mkdir(parents=True)
        (folders / name).write_text("mine")
    code, _, err = starting.run("discogan.py", *TWO, "--dry-run", "--out", "net", folder=folders)
    assert code == 2
    assert "net/a_to_b.safetensors is there, which no run of nanogan left" in err
    starting.succeed("discogan.py", *TWO, "--dry-run", folder=folders)
    code, _, err = starting.run(
        "discogan.py",
        "--translate",
        "x",
        "--checkpoint",
        "runs/discogan/a_to_b.safetensors",
        "--out",
        "own",
        folder=folders,
    )
    assert code == 2
    assert "own/translated holds files that nanogan did not write" in err
    assert {(folders / name).read_text() for name in ("net/a_to_b.safetensors", "own/translated/00.png")} == {"mine"}


def test_one_of_two_folders_that_moved_is_named_anew(folders):
    starting.succeed("discogan.py", *TWO, "--epochs", 1, "--out", "run", folder=folders)
    (folders / "x").rename(folders / "moved")
    code, _, err = starting.run("discogan.py", "--resume", "run", "--epochs", 2, folder=folders)
    assert code == 2
    assert "say where to with --a PATH" in err
    starting.succeed("discogan.py", "--resume", "run", "--epochs", 2, "--a", "moved", folder=folders)


@pytest.mark.parametrize("script", SCRIPTS)
def test_two_folders_and_what_becomes_of_a_third(script, folders):
    """A resumed run is the uninterrupted one, though the folders are of different lengths; then it translates."""
    out = starting.succeed(script, *TWO, "--epochs", 2, "--out", "whole", folder=folders)
    assert "x and y: 9 and 14 images of 16 x 16" in out
    grid = np.asarray(Image.open(sorted((folders / "whole/samples").iterdir())[0]))
    assert grid[-18:, -18:].any(), "eight of each domain, out of batches of four"
    assert size_of(folders / "whole/real.png") == (2 + 3 * 18, 2 + 3 * 18), "as many real images"
    starting.succeed(script, "--resume", "whole/checkpoints/epoch_001.safetensors", "--out", "run", folder=folders)
    for name in ("a_to_b", "b_to_a"):
        whole, resumed = ((folders / each / f"{name}.safetensors").read_bytes() for each in ("whole", "run"))
        assert whole == resumed
    starting.succeed(script, "--translate", "x", "--checkpoint", "run/b_to_a.safetensors", "--out", "t", folder=folders)
    assert sorted(path.name for path in (folders / "t/translated").glob("[!.]*")) == [f"{i:02}.png" for i in range(9)]
    code, _, err = starting.run(
        script, "--translate", "x", "--checkpoint", "run/checkpoints/last.safetensors", folder=folders
    )
    assert code == 2
    assert "it holds a run: take its a_to_b.safetensors or b_to_a.safetensors" in err
    (folders / "y/13.png").rename(folders / "13.png")
    code, _, err = starting.run(script, "--resume", "run", "--epochs", 3, folder=folders)
    assert code == 2
    assert "was trained on 23 images, x and y has 22 now" in err


def test_images_that_cannot_be_read_are_told(folders):
    """Halves of one folder are domains as well; what another image stands in for is listed."""
    (folders / "y/00.png").write_bytes(b"no image")
    more = ("--pair", "inverted", "--image-size", 16, "--width", 2, "--batch-size", 4, "--epochs", 1)
    code, _, err = starting.run("discogan.py", "--data", "y", "--channels", 1, *more, "--out", "half", folder=folders)
    assert code == 0
    assert "y/00.png" in (folders / "half/skipped.txt").read_text()
    assert "1 could not be used, see half/skipped.txt" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--a", "x"), "--a and --b name the folders of two domains: give both"),
        ((*TWO, "--pair", "coloured"), "--pair chooses digits, --a and --b folders: leave one of them out"),
        ((*TWO, "--data", "digits"), "--data chooses digits, --a and --b folders: leave one of them out"),
        (("--a", "x", "--b", "empty"), "empty holds no image that can be read"),
        (("--pair", "coloured", "--channels", 3), "--pair coloured colours grey images: leave --channels 3 out"),
        (("--checkpoint", "x.safetensors"), "names a trained translator: add --translate FOLDER"),
        (("--translate", "x"), "there is no checkpoint runs/cyclegan/a_to_b.safetensors"),
        (("--translate", "x", "--resume"), "--translate translates and --resume trains: leave one of them out"),
        (("--data", "digits", "--best-by", "c.safetensors"), "a CycleGAN generates none: leave it out"),
        ((*TWO, "--batch-size", 15), "a batch of 15 was asked for, but there are 14"),
        (("--image-size", 30), "image_size expected a multiple of 4, at least 12, got 30"),
        (
            ("--data", "digits", "--pair", "coloured", "--identity", 5, "--dry-run"),
            "identity loss expected domains with the same",
        ),
    ],
)
def test_a_users_mistake_gets_one_sentence(arguments, message, folders):
    (folders / "empty").mkdir()
    code, _, err = starting.run("cyclegan.py", *arguments, folder=folders)
    assert code == 2
    assert message in err
    assert len([line for line in err.splitlines() if "error: " in line]) == 1
