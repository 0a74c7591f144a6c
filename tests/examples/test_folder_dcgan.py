"""The folder example as a user starts it: pictures of many kinds, damaged ones, a cache, and a run taken up again."""

import shutil

import numpy as np
import pytest
import scipy.io
from PIL import Image

from nanogan import checkpoint
from tests.examples.starting import run

TINY = ("--image-size", "16", "--width", "2", "--batch-size", "8", "--latent", "4")


@pytest.fixture
def photos(tmp_path):
    """30 images: grey, colour and with transparency, of several sizes, in two folders."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "holiday pictures"
    for i in range(30):
        mode, suffix = [("RGB", "jpg"), ("L", "PNG"), ("RGBA", "png")][i % 3]
        channels = {"RGB": (3,), "L": (), "RGBA": (4,)}[mode]
        size = rng.integers(16, 60, 2)
        path = folder / ("beach" if i % 2 else "") / f"{i:02d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, *channels), dtype=np.uint8)).save(path)
    return folder


def succeed(*arguments, folder):
    code, out, err = run("folder_dcgan.py", *arguments, folder=folder)
    assert code == 0, err
    return out, err


def test_a_folder_is_trained_on_and_the_run_goes_on_without_its_name(photos, tmp_path):
    out, err = succeed(photos, *TINY, "--epochs", "1", folder=tmp_path)
    assert "30 images of 16 x 16, on cpu" in out
    assert err == ""
    left = tmp_path / "runs" / "folder_dcgan"
    for name in ("report.html", "real.png", "training.gif", "generator.safetensors"):
        assert (left / name).stat().st_size > 0
    with Image.open(left / "real.png") as grid:
        assert grid.mode == "RGB"
    out, _ = succeed("--resume", "--epochs", "2", folder=tmp_path)
    assert "resumed at step 4, batch 4 of epoch 1" in out
    resumed, *_ = checkpoint.read_training(left / "checkpoints" / "last.safetensors")
    assert resumed.step == 8
    succeed(photos, *TINY, "--epochs", "2", "--out", "whole", folder=tmp_path)
    whole = checkpoint.read(tmp_path / "whole" / "generator.safetensors")
    for name, array in checkpoint.read(left / "generator.safetensors").items():
        assert array.tobytes() == whole[name].tobytes(), name
    out, _ = succeed("--generate", "3", "--out", "drawn", folder=tmp_path)
    with Image.open(tmp_path / "drawn" / "generated.png") as drawn:
        assert drawn.mode == "RGB"


@pytest.mark.parametrize("out", [(), ("--out", ".")])
def test_a_run_among_the_images_it_trains_on_takes_none_of_its_results_for_them(photos, tmp_path, out):
    """The printed command goes on, a second run trains on the same images, and a run on all folders above it too."""
    succeed(".", *TINY, "--epochs", "1", *out, folder=photos)
    told, err = succeed("--resume", "--epochs", "2", *out, folder=photos)
    assert "resumed at step 4" in told
    assert "left out of .: results of nanogan (" in err
    assert "30 images of 16 x 16" in succeed(".", *TINY, "--epochs", "1", *out, folder=photos)[0]
    trained = ("--checkpoint", f"{out[1] if out else 'runs/folder_dcgan'}/generator.safetensors")
    succeed("--generate", "3", "--single-files", *trained, *out, folder=photos)
    assert "30 images of 16 x 16" in succeed(photos.parent, *TINY, "--epochs", "1", "--out", "x", folder=tmp_path)[0]


@pytest.mark.parametrize(
    "name",
    ["report.html", "real.png", "options.json", "log.csv", "samples/1.png", "previous/1.png", "checkpoints/a.txt"],
)
def test_a_users_own_files_with_the_names_of_a_runs_are_not_replaced(photos, tmp_path, name):
    """They were moved to previous/ by the first run, and lost by the second."""
    mine = tmp_path / "mine" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    code, out, err = run("folder_dcgan.py", photos, *TINY, "--epochs", "1", "--out", "mine", folder=tmp_path)
    assert code == 2
    there = f"mine/{name.split('/')[0]}"
    assert f"{there} is there, which no run of nanogan left" in err
    assert out == "", "no data were read"
    assert {path.read_text() for path in (tmp_path / "mine").rglob("*") if path.is_file()} == {"mine"}


def test_a_run_is_resumed_in_the_folder_of_its_checkpoints(photos, tmp_path):
    succeed(photos, *TINY, "--epochs", "1", "--out", "run", folder=tmp_path)
    out, _ = succeed("--resume", "last.safetensors", "--epochs", "2", folder=tmp_path / "run" / "checkpoints")
    assert f"done: {tmp_path / 'run'} holds" in out
    assert not (tmp_path / "run" / "checkpoints" / "runs").exists()


def test_names_with_line_breaks_are_quoted_in_lists_of_names(photos, tmp_path):
    (photos / "two\nlines\x1b[2J.png").write_text("not an image")
    _, err = succeed(photos, *TINY, "--epochs", "1", folder=tmp_path)
    (line,) = (tmp_path / "runs/folder_dcgan/skipped.txt").read_text().splitlines()
    assert line == f"{photos}/two\\nlines\\x1b[2J.png: it is no image"
    assert line.replace(": it is no image", " (it is no image)") in err


def test_what_else_is_in_the_folder_is_told(photos, tmp_path):
    (photos / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (photos / "names.csv").write_text("a,b\n")
    _, err = succeed(photos, *TINY, "--epochs", "1", folder=tmp_path)
    phrases = "1 HEIC file, which cannot be read (IMG_1.HEIC): convert to JPEG or PNG; 1 other file (.csv)"
    assert f"left out of {photos}: {phrases}\n" in err


def test_pictures_that_cannot_be_used_are_named_and_do_not_stop_it(photos, tmp_path):
    (photos / "00.jpg").write_bytes((photos / "00.jpg").read_bytes()[:200])
    (photos / "notes.png").write_text("not a picture")
    _, err = succeed(photos, *TINY, "--epochs", "1", folder=tmp_path)
    assert "2 could not be used, see runs/folder_dcgan/skipped.txt" in err
    listed = (tmp_path / "runs/folder_dcgan/skipped.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in listed] == [str(photos / "00.jpg"), str(photos / "notes.png")]


def test_a_cache_changes_nothing_but_the_time(photos, tmp_path):
    with_cache = (photos, *TINY, "--epochs", "1", "--cache", "photos-16.npy")
    succeed(*with_cache, folder=tmp_path)
    assert np.load(tmp_path / "photos-16.npy", mmap_mode="r").shape == (30, 16, 16, 3)
    first = checkpoint.read(tmp_path / "runs/folder_dcgan/generator.safetensors")
    succeed(*with_cache, "--out", "again", folder=tmp_path)
    succeed(*with_cache[:-2], "--out", "without", folder=tmp_path)
    for other in ("again", "without"):
        for name, array in checkpoint.read(tmp_path / other / "generator.safetensors").items():
            assert array.tobytes() == first[name].tobytes(), (other, name)


def test_the_files_of_cifar_10_and_svhn_serve_as_well(tmp_path):
    rng = np.random.default_rng(0)
    binary = tmp_path / "cifar-10-batches-bin"
    binary.mkdir()
    (binary / "batches.meta.txt").write_text("airplane\n")
    rows = rng.integers(0, 10, (10_000, 3073), dtype=np.uint8)
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        (binary / name).write_bytes(rows.tobytes())
    out, _ = succeed(tmp_path, *TINY, "--dry-run", "--image-size", "32", folder=tmp_path)
    assert "32 images of 32 x 32" in out
    X, y = rng.integers(0, 256, (32, 32, 3, 50), dtype=np.uint8), rng.integers(1, 11, (50, 1), dtype=np.uint8)
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"X": X, "y": y})
    out, _ = succeed("train_32x32.mat", *TINY, "--epochs", "1", folder=tmp_path)
    assert "50 images of 16 x 16" in out
    code, _, err = run("folder_dcgan.py", "train_32x32.mat", *TINY, "--channels", "1", folder=tmp_path)
    assert code == 2
    assert "the images of train_32x32.mat have 3 channels, 1 were expected" in err


def test_grey_pictures_and_a_dry_run(photos, tmp_path):
    out, _ = succeed(photos, *TINY, "--channels", "1", "--dry-run", folder=tmp_path)
    assert "32 images" in out or "30 images" in out
    with Image.open(tmp_path / "runs/folder_dcgan/real.png") as grid:
        assert grid.mode == "L"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name the folder of pictures: folder_dcgan.py PATH"),
        (("nowhere",), "expected a folder of images, nowhere does not exist: check the path"),
        (("empty",), "empty holds no image that can be read (such as JPEG or PNG), itself or below"),
        (("holiday pictures", "--batch-size", "64"), "a batch of 64 was asked for, but there are 30 pictures"),
        (("holiday pictures", "--image-size", "30"), "a DCGAN cannot draw pictures of 30 pixels"),
        (("holiday pictures", "--cache", "photos"), "--cache expected a file that ends in .npy, got photos"),
        (("holiday pictures", "--channels", "4"), "argument --channels: invalid choice: 4"),
        (("--resume",), "there is no checkpoint runs/folder_dcgan/checkpoints/last.safetensors to resume"),
    ],
)
def test_a_users_mistake_gets_one_sentence(photos, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    code, _, err = run("folder_dcgan.py", *arguments, folder=tmp_path)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists(), "a refused command leaves no empty folder"


def test_another_folder_is_not_taken_up(photos, tmp_path):
    succeed(photos, *TINY, "--epochs", "1", folder=tmp_path)
    shutil.rmtree(photos / "beach")
    code, _, err = run("folder_dcgan.py", "--resume", "--epochs", "2", folder=tmp_path)
    assert code == 2
    assert "was trained on 30 images" in err
    code, _, err = run("folder_dcgan.py", photos, "--resume", "--channels", "1", folder=tmp_path)
    assert code == 2
    assert "--channels=1 contradicts" in err
