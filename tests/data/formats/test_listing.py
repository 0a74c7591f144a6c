"""What is found in a folder: images by their first bytes, whatever they are called, and none of nanogan's results."""

import fnmatch
import os
import re

import numpy as np
import pytest
from PIL import Image

from nanogan import disk
from nanogan.data import Loader, PictureFolder
from nanogan.data.formats import image_files
from nanogan.disk import mark_results
from nanogan.errors import DataNotFound, UserError
from tests.data.on_disk import numbered, painted, saved, values
from tests.starting import EXAMPLES


def test_all_pictures_at_any_depth_in_any_letter_case_sorted_by_path(tmp_path):
    names = ["b.png", "a/z.PNG", "a/y/x.jpg", "a.jpeg", "a-b/c.Webp", "a/k.bmp", "c/d.gif", "C/e.JPG", "zä/ß.png"]
    for i, name in enumerate(names):
        painted(tmp_path / name, 10 * i)
    for name in ("notes.txt", "png", ".hidden.png", ".git/a.png", "d/.thumbs/b.png", "x.png.part", "movie.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no picture")
    (tmp_path / "folder.png").mkdir()
    listed = []
    pictures = PictureFolder(tmp_path, size=8, progress=lambda items: (listed.append(item) or item for item in items))
    assert pictures.shape == (9, 8, 8, 3)
    assert (len(pictures), pictures.ndim, pictures.dtype) == (9, 4, np.uint8)
    expected = [10 * names.index(name) for name in sorted(names)]
    np.testing.assert_allclose(values(pictures[:]), expected, atol=2)  # JPEG
    assert len(listed) == 9
    assert pictures.skipped == {}


def test_it_is_indexed_like_an_array(tmp_path):
    pictures = PictureFolder(numbered(tmp_path, 7), size=2)
    assert values(pictures[np.array([3, 1, 3, -1])]) == [3, 1, 3, 6]
    assert values(pictures[np.array([6, 0], np.uint8)]) == [6, 0]
    assert values(pictures[2:6:3]) == [2, 5]
    assert pictures[[]].shape == (0, 2, 2, 3)
    assert pictures[5].shape == (2, 2, 3)
    assert pictures[5][0, 0, 0] == 5
    for index in (7, -8, np.array([0, 7])):
        with pytest.raises(IndexError, match="out of range for 7 pictures"):
            pictures[index]
    for index in (np.array([0.5]), np.array([[1]]), "a"):
        with pytest.raises(UserError, match="a number, a slice or a 1-D array"):
            pictures[index]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_are_followed_but_no_folder_is_entered_twice(tmp_path):
    numbered(tmp_path / "a" / "b", 2)
    painted(tmp_path / "elsewhere" / "x.png", 77)
    root = tmp_path / "a"
    (root / "b" / "up").symlink_to(root)
    (root / "again").symlink_to(root / "b")
    (root / "self").symlink_to(root / "self")
    (root / "self.png").symlink_to(root / "self.png")
    (root / "gone.png").symlink_to(root / "nothing.png")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "z.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    os.mkfifo(root / "pipe.png")
    pictures = PictureFolder(root, size=2)
    assert values(pictures[:]) == [0, 1, 77, 77]
    assert [os.path.basename(path) for path in pictures.skipped] == ["gone.png", "self", "self.png"]


def test_what_is_no_folder_of_pictures_gets_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for path, error, message in (
        (tmp_path / "none", UserError, "expected a folder of images, .*none does not exist"),
        (tmp_path / "file", UserError, "expected a folder of images, .*file is a file"),
        (tmp_path, DataNotFound, r"holds no image that can be read .*; it holds 1 other file"),
    ):
        with pytest.raises(error, match=message):
            PictureFolder(path, size=8)
    numbered(tmp_path, 3)
    with pytest.raises(UserError, match="a batch of 4 was asked for, but there are 3 pictures"):
        Loader(PictureFolder(tmp_path, size=8), batch_size=4)
    for options in ({"size": 0}, {"size": 8, "channels": 4}, {"size": 8, "background": 256}, {"size": 8, "workers": 0}):
        with pytest.raises(UserError, match="expected"):
            PictureFolder(tmp_path, **options)


@pytest.mark.skipif(os.name == "nt" or getattr(os, "geteuid", lambda: 0)() == 0, reason="may read everything")
def test_a_folder_that_may_not_be_read_is_told(tmp_path):
    numbered(tmp_path, 2)
    (tmp_path / "locked").mkdir(mode=0)
    assert "cannot be read" in PictureFolder(tmp_path, size=8).skipped[str(tmp_path / "locked")]


def box(*brands):
    """How a file of the ISO family begins: a HEIC, an AVIF, a film."""
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands)
    return (len(body) + 4).to_bytes(4, "big") + body + bytes(40)


def test_what_is_an_image_by_content_is_read_and_the_rest_is_counted_and_named(tmp_path):
    files = {
        "1.jpg": saved("JPEG", 10),
        "2.jfif": saved("JPEG", 20),
        "3": saved("JPEG", 30),
        "4.tif": saved("TIFF", 40),
        "5.dat": saved("PNG", 50),
        "6.bak": saved("BMP", 60),
        "7.jpg~": saved("WEBP", 70),
        "8.image": saved("GIF", 80),
        "9.pgm": saved("PPM", 90),
        "A": saved("PPM", 100),
        "B.heic": saved("JPEG", 110),
        "b.heic": box(b"heic", b"mif1"),
        "a.HEIC": box(b"mif1", b"heic"),
        "c.psd": b"8BPS" + bytes(60),
        "d.jxl": b"\xff\x0a" + bytes(60),
        "e.nef": b"II*\0" + bytes(60),
        "f.svg": b"<svg xmlns='x'/>",
        "g.mov": box(b"qt  "),
        "h": box(b"isom", b"mp42"),
        "i.txt": b"BM and more of a text that is long enough to be taken for something else",
        "j.me": b"BM and more of a text that is long enough to be taken for something else",
        "k.csv": b"a,b",
        "l": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    pictures = PictureFolder(tmp_path, size=2)
    np.testing.assert_allclose(values(pictures[:]), range(10, 111, 10), atol=3)
    assert pictures.skipped == {}
    assert pictures.left_out == [
        "2 HEIC files, which cannot be read (a.HEIC, ...): convert to JPEG or PNG",
        "1 JPEG XL file, which cannot be read (d.jxl): convert to JPEG or PNG",
        "1 Photoshop file, which cannot be read (c.psd): convert to JPEG or PNG",
        "1 SVG file, which cannot be read (f.svg): convert to JPEG or PNG",
        "1 raw camera file, which cannot be read (e.nef): convert to JPEG or PNG",
        "6 other files (.csv, .mov, .txt)",
    ]
    (tmp_path / "1.jpg").write_bytes(box(b"heic"))
    pictures = PictureFolder(tmp_path, size=2)
    pictures[:]
    reason = "it is a HEIC file, which cannot be read: convert it to JPEG or PNG"
    assert pictures.skipped == {str(tmp_path / "1.jpg"): reason}


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "TIFF", "PPM"])
def test_more_formats_are_decoded_whatever_their_names_say(tmp_path, kind):
    if kind not in image_files.FORMATS:
        pytest.skip("Pillow reads no AVIF here")
    (tmp_path / "a.jpg").write_bytes(saved(kind, 77))
    (tmp_path / "b").write_bytes(saved(kind, 77))
    np.testing.assert_allclose(values(PictureFolder(tmp_path, size=2)[:]), [77, 77], atol=1)


def test_files_of_other_suffixes_are_not_opened(tmp_path, monkeypatch):
    for name in ("a.png", "b.jpg", "c.txt", "d.JSON", "e.npy", "f.mp4"):
        (tmp_path / name).write_bytes(saved("PNG"))
    monkeypatch.setattr("builtins.open", lambda *a, **k: pytest.fail(f"{a} was opened"))
    pictures = PictureFolder(tmp_path, size=2)
    assert (len(pictures), pictures.left_out) == (2, ["4 other files (.json, .mp4, .npy, .txt)"])


def test_floating_point_values_of_no_known_range_are_left_out(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "a.tif")
    painted(tmp_path / "b.tif", 9)
    pictures = PictureFolder(tmp_path, size=2)
    assert values(pictures[:]) == [9, 9]
    assert "floating-point" in pictures.skipped[str(tmp_path / "a.tif")]


# ------------------------------------------------------------------------------------------- results are never data


def run_folder(path, value=200):
    """What a run leaves, as far as it is images."""
    for name in ("real.png", "losses.png", "training.gif", "samples/epoch_001_step_000001.png", "previous/real.png"):
        painted(path / name, value)
    (path / "checkpoints").mkdir()
    (path / "log.csv").write_text("epoch,step\n")


def test_results_below_a_folder_are_not_its_images(tmp_path):
    """ "cd photos; folder_dcgan.py ." writes into photos/runs."""
    numbered(tmp_path, 3)
    painted(tmp_path / "cats" / "1.png", 3)
    run_folder(tmp_path / "runs" / "of an earlier version")
    run_folder(tmp_path / "runs" / "of one that goes on")
    mark_results(tmp_path / "runs" / "of one that goes on")
    mark_results(tmp_path / "runs" / "new")
    painted(tmp_path / "runs" / "new" / "generated_000001.png", 200)
    painted(tmp_path / "runs" / "mine" / "real.png", 4)  # not every file of that name
    pictures = PictureFolder(tmp_path, size=2)
    assert values(pictures[:]) == [0, 1, 2, 3, 4]
    assert pictures.left_out == [
        "results of nanogan (runs/new/, runs/of an earlier version/, runs/of one that goes on/); remove "
        ".nanogan-results from a folder that is your own"
    ]


def test_results_among_the_images_of_a_folder_are_not_its_images(tmp_path):
    """ "cd photos; folder_dcgan.py . --out ." """
    numbered(tmp_path, 3)
    mark_results(tmp_path)
    run_folder(tmp_path)
    painted(tmp_path / "generated.png", 200)
    painted(tmp_path / "new" / "epoch_photo.png", 3)  # added later
    pictures = PictureFolder(tmp_path, size=2)
    assert values(pictures[:]) == [0, 1, 2, 3]
    (left_out,) = pictures.left_out[:1]
    assert left_out.startswith("results of nanogan (checkpoints, generated.png, losses.png, ...); remove")
    (tmp_path / disk.MARK).unlink()  # of an earlier version
    (tmp_path / "generated.png").unlink()
    assert values(PictureFolder(tmp_path, size=2)[:]) == [0, 1, 2, 3]


def test_a_folder_of_generated_images_can_be_asked_for(tmp_path):
    mark_results(tmp_path / "out")
    for i in (1, 2):
        painted(tmp_path / "out" / f"generated_{i:06d}.png", i)
    assert values(PictureFolder(tmp_path / "out", size=2)[:]) == [1, 2]
    with pytest.raises(DataNotFound, match=r"it holds results of nanogan \(out/\)"):
        PictureFolder(tmp_path, size=2)


def test_results_in_a_folder_that_began_as_one_are_not_the_images_that_came_later(tmp_path):
    mark_results(tmp_path)
    painted(tmp_path / "generated.png", 200)
    painted(tmp_path / "walk_line.png", 200)
    assert values(PictureFolder(tmp_path, size=2)[:]) == [200, 200], "nothing else is there"
    numbered(tmp_path, 2)
    assert values(PictureFolder(tmp_path, size=2)[:]) == [0, 1]


def test_a_users_own_files_with_names_of_results_stay_images(tmp_path):
    numbered(tmp_path / "samples", 2)
    painted(tmp_path / "real.png", 5)
    mark_results(tmp_path)
    painted(tmp_path / "losses.png", 200)
    assert sorted(values(PictureFolder(tmp_path, size=2)[:])) == [0, 1, 5]


@pytest.mark.parametrize("make", [os.mkdir, lambda path: os.symlink("nowhere", path), lambda path: os.mkfifo(path)])
def test_what_is_no_file_is_no_mark(tmp_path, make):
    numbered(tmp_path, 2)
    make(tmp_path / disk.MARK)
    assert values(PictureFolder(tmp_path, size=2)[:]) == [0, 1]


def test_every_image_that_a_script_writes_is_known_as_a_result():
    """Those that its code names, out / "x.png"; a part in braces may be anything."""
    names = set()
    for script in EXAMPLES.glob("*.py"):
        found = re.findall(r"""out / f?["']([\w*{}]+\.(?:png|gif))["']""", script.read_text(encoding="utf-8"))
        names |= {re.sub(r"\{[^}]*\}", "any", name) for name in found}
    assert {"walk_any.png", "duplicates.png", "gradients.png"} <= names
    unknown = {name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in disk.RESULTS)}
    assert unknown <= {"any.png"}, "guided.png and others of one loop"


def test_a_mark_is_written_once_and_says_who_wrote_it(tmp_path):
    painted(tmp_path / "own.png", 1)
    mark_results(tmp_path)
    text = (tmp_path / disk.MARK).read_text()
    assert text.startswith("# Written by nanogan.")
    (tmp_path / disk.MARK).write_text(text + "mine_*.png\n")  # a user's line
    mark_results(tmp_path)
    painted(tmp_path / "mine_1.png", 2)
    assert values(PictureFolder(tmp_path, size=2)[:]) == [1]
    (tmp_path / disk.MARK).write_text(text + "x" * (4094 - len(text)) + "\n*.png\n")
    assert values(PictureFolder(tmp_path, size=2)[:]) == [2, 1], "a line that is cut is none"
    (tmp_path / disk.MARK).write_bytes(b"\xff" * 9000 + b"\n*.png")  # damaged: what it says is not trusted with memory
    assert values(PictureFolder(tmp_path, size=2)[:]) == [2, 1]
