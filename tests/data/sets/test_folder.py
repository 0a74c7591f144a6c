"""Folders of pictures: what is found, how each kind is decoded, what is left out, the packed cache."""

import fnmatch
import io
import json
import os
import re
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from nanogan import disk, images
from nanogan.data import Loader, PictureFolder
from nanogan.data.formats import image_files
from nanogan.data.sets import folder
from nanogan.disk import mark_results
from nanogan.errors import DataNotFound, UserError
from tests.starting import EXAMPLES


def painted(path, value, *, size=(8, 8), mode="RGB", **options):
    """Write a picture of one colour; a number paints it grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (value,) * len(mode) if isinstance(value, int) and mode in ("RGB", "LA") else value
    Image.new(mode, size, colour).save(path, **options)
    return path


def numbered(path, count, bad=()):
    """A folder of PNGs; picture i is all i, those of ``bad`` are no pictures."""
    for i in range(count):
        painted(path / f"{i:03d}.png", i)
        if i in bad:
            (path / f"{i:03d}.png").write_bytes(b"no picture")
    return path


def values(pictures):
    return pictures[:, 0, 0, 0].tolist()


def decoded(image, size=4, channels=3, *, name="a.png", tmp_path, **options):
    background = options.pop("background", 255)
    image.save(tmp_path / name, **options)
    return folder.decode(tmp_path / name, size, channels, background=background)


# ------------------------------------------------------------------------------------------------------- the listing


def saved(kind, value=0):
    """The bytes of a grey image file."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value,) * 3).save(buffer, kind, **({"quality": 100} if kind == "JPEG" else {}))
    return buffer.getvalue()


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


# --------------------------------------------------------------------------------------------------------- decoding


def test_the_square_in_the_middle_is_taken_and_averaged(tmp_path, rng):
    pixels = rng.integers(0, 256, (8, 14, 3)).astype(np.uint8)
    wide, tall = Image.fromarray(pixels), Image.fromarray(pixels.transpose(1, 0, 2).copy())
    np.testing.assert_array_equal(decoded(wide, 8, tmp_path=tmp_path), pixels[:, 3:11])
    np.testing.assert_array_equal(decoded(tall, 8, tmp_path=tmp_path), pixels[:, 3:11].transpose(1, 0, 2))
    same = images.resize(pixels[None, :, 3:11], 4)[0]  # as the library resizes arrays
    np.testing.assert_array_equal(decoded(wide, 4, tmp_path=tmp_path), same)
    assert decoded(wide, 50, tmp_path=tmp_path).shape == (50, 50, 3)
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 200
    small = decoded(Image.fromarray(stripes), 4, tmp_path=tmp_path)
    assert abs(small[:, 1:3].astype(int) - 100).max() <= 2, "a filter that only samples gives 0 or 200"


def test_grey_from_colour_and_colour_from_grey(tmp_path):
    green = Image.new("RGB", (5, 5), (0, 200, 0))
    assert decoded(green, channels=1, tmp_path=tmp_path).shape == (4, 4, 1)
    assert abs(int(decoded(green, channels=1, tmp_path=tmp_path)[0, 0, 0]) - 0.587 * 200) < 1
    as_jpeg = decoded(green, channels=1, tmp_path=tmp_path, name="a.jpg", quality=95)
    assert abs(int(as_jpeg[0, 0, 0]) - 0.587 * 200) < 3
    assert decoded(Image.new("L", (5, 5), 90), tmp_path=tmp_path)[0, 0].tolist() == [90, 90, 90]
    assert decoded(Image.new("1", (5, 5), 1), tmp_path=tmp_path)[0, 0].tolist() == [255, 255, 255]


def with_palette(**info):
    image = Image.new("P", (5, 5), 1)
    image.putpalette([0, 0, 0, 10, 120, 230])
    return image, info


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (Image.new("RGBA", (5, 5), (0, 100, 200, 0)), {}, [255, 255, 255]),
        (Image.new("RGBA", (5, 5), (0, 100, 200, 0)), {"background": 7}, [7, 7, 7]),
        (Image.new("RGBA", (5, 5), (0, 100, 200, 51)), {"background": 100}, [80, 100, 120]),
        (Image.new("LA", (5, 5), (50, 51)), {"background": 100}, [90, 90, 90]),
        (with_palette()[0], {}, [10, 120, 230]),
        (with_palette()[0], {"transparency": 1}, [255, 255, 255]),
        (with_palette()[0], {"transparency": bytes([0, 51]), "background": 0}, [2, 24, 46]),
        (Image.new("RGB", (5, 5), (1, 2, 3)), {"transparency": (1, 2, 3)}, [255, 255, 255]),
        (Image.new("L", (5, 5), 9), {"transparency": 9}, [255, 255, 255]),
        (
            Image.new("RGBA", (5, 5), (0, 100, 200, 51)),
            {"background": 100, "name": "a.webp", "lossless": True},
            [80, 100, 120],
        ),
        (with_palette()[0], {"name": "a.gif"}, [10, 120, 230]),
        (with_palette()[0], {"name": "a.bmp"}, [10, 120, 230]),
        (with_palette()[0], {"name": "a.gif", "transparency": 1}, [255, 255, 255]),
    ],
)
def test_transparency_and_palettes(tmp_path, image, options, expected):
    got = decoded(image, tmp_path=tmp_path, **options)
    np.testing.assert_allclose(got.reshape(-1, 3), [expected] * 16, atol=1)
    grey = decoded(image, channels=1, tmp_path=tmp_path, **options)
    np.testing.assert_allclose(grey, np.dot(expected, [0.299, 0.587, 0.114]), atol=1.5)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, channels):
    numbers = np.array([[0, 128, 257, 5000], [32768, 40000, 65000, 65535]] * 2, np.uint16)
    got = decoded(Image.fromarray(numbers), channels=channels, tmp_path=tmp_path)
    np.testing.assert_array_equal(got, np.repeat(np.rint(numbers / 257)[..., None], channels, 2))


def test_CMYK_and_the_first_frame_of_an_animation(tmp_path):
    got = decoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), tmp_path=tmp_path, name="a.jpg")
    np.testing.assert_allclose(got[0, 0], [0, 255, 255], atol=3)
    frames = [Image.new("RGB", (5, 5), (value, 0, 0)) for value in (200, 100, 50)]
    for name in ("a.gif", "a.webp", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        got = decoded(frames[0], tmp_path=tmp_path, name=name, save_all=True, append_images=frames[1:], **options)
        assert got[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.avif"])
def test_EXIF_turns_pictures_upright(tmp_path, orientation, name):
    """Corners of four colours, stored as a camera that was held so would have; the crop is made after the turn."""
    if name == "a.avif" and "AVIF" not in image_files.FORMATS:
        pytest.skip("Pillow reads no AVIF here")
    upright = np.zeros((48, 32, 3), np.uint8)
    upright[:24, :16], upright[:24, 16:] = (250, 0, 0), (0, 250, 0)
    upright[24:, :16], upright[24:, 16:] = (0, 0, 250), (250, 250, 250)
    stored = {  # EXIF 2.3, tag 274: where row 0 and column 0 of what is stored belong
        1: upright,
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.transpose(1, 0, 2),  # left, top
        6: upright[:, ::-1].transpose(1, 0, 2),  # right, top: row 0 is the right side
        7: upright[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
        8: upright[::-1].transpose(1, 0, 2),  # left, bottom
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    got = decoded(Image.fromarray(np.ascontiguousarray(stored)), 8, tmp_path=tmp_path, name=name, exif=exif)
    for (i, j), corner in {(0, 0): (0, 0), (0, 7): (0, 31), (7, 0): (47, 0), (7, 7): (47, 31)}.items():
        np.testing.assert_allclose(got[i, j], upright[corner], atol=12)


def test_large_JPEGs_are_decoded_smaller_but_look_the_same(tmp_path, rng):
    smooth = Image.fromarray(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8)).resize((640, 480), 2)
    smooth.save(tmp_path / "a.jpg", quality=95)
    seen = []
    original = Image.Image.resize
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", lambda self, *a, **k: seen.append(self.size) or original(self, *a, **k))
        got = folder.decode(tmp_path / "a.jpg", 32)
    assert seen == [(120, 120)], "a quarter of 640 x 480, cropped: 1/8 would be less than twice what is wanted"
    whole = np.asarray(smooth)[None, :, 80:560]
    np.testing.assert_allclose(got, images.resize(np.ascontiguousarray(whole), 32)[0], atol=8)


# ------------------------------------------------------------------------------------------------------ what is bad


def test_a_bad_picture_is_replaced_by_the_next_good_one_and_named(tmp_path):
    numbered(tmp_path, 8, bad=(0, 3, 4, 7))
    for workers in (1, 2, 5):
        pictures = PictureFolder(tmp_path, size=2, workers=workers)
        assert values(pictures[np.array([5, 6])]) == [5, 6]
        assert pictures.skipped == {}, "what nobody asked for is not looked at"
        assert values(pictures[np.array([7, 3, 0, 4, 1])]) == [1, 5, 1, 5, 1]
        assert list(pictures.skipped) == [str(tmp_path / f"{i:03d}.png") for i in (0, 3, 4, 7)]
        assert set(pictures.skipped.values()) == {"it is no image"}
        assert values(pictures[:]) == [1, 1, 2, 5, 5, 5, 6, 1]


def test_a_picture_known_to_be_bad_is_not_tried_again(tmp_path, monkeypatch):
    pictures, tried, original = PictureFolder(numbered(tmp_path, 4, bad=(1, 2)), size=2, workers=1), [], folder.decode
    monkeypatch.setattr(folder, "decode", lambda path, *a, **k: tried.append(path) or original(path, *a, **k))
    assert values(pictures[np.array([1, 2, 1])]) == [3, 3, 3]
    assert [os.path.basename(path) for path in tried] == ["001.png", "002.png", "003.png", "003.png", "003.png"]


def test_if_none_is_good_it_is_told(tmp_path):
    pictures = PictureFolder(numbered(tmp_path, 3, bad=(0, 1, 2)), size=2)
    with pytest.raises(UserError, match=r"none of the 3 pictures .* can be read \(for one, .*000.png: it is no image"):
        pictures[np.array([1])]
    with pytest.raises(UserError, match="none of the 3 pictures"):
        list(Loader(pictures, batch_size=2).epoch(1))


def test_truncated_and_other_files_are_left_out(tmp_path, rng):
    (tmp_path / "0.jpg").write_bytes(b"\xff\xd8\xff but no more of a JPEG")
    noise = Image.fromarray(rng.integers(0, 256, (40, 40, 3)).astype(np.uint8))
    for name in ("a.jpg", "b.png", "c.webp", "d.bmp", "e.gif"):
        buffer = io.BytesIO()
        noise.save(buffer, {"a.jpg": "JPEG", "b.png": "PNG", "c.webp": "WEBP", "d.bmp": "BMP", "e.gif": "GIF"}[name])
        (tmp_path / name).write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    (tmp_path / "f.png").write_bytes(b"")
    (tmp_path / "g.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    noise.save(tmp_path / "h.gif", "TGA")  # of a format that is not read
    painted(tmp_path / "i.jpg", 5, format="PNG")  # a good one, whatever its name says
    pictures = PictureFolder(tmp_path, size=2)
    assert values(pictures[:]) == [5] * 10
    assert len(pictures.skipped) == 9
    assert pictures.skipped[str(tmp_path / "0.jpg")] == "it is a damaged JPEG file"


def test_pictures_with_any_byte_changed_are_decoded_or_left_out(tmp_path, rng):
    """Whatever is in a file, it is a picture or a reason."""
    smooth = Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)).resize((24, 20), 2)
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "p").mkdir()
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF"):
        buffer = io.BytesIO()
        smooth.save(buffer, kind, **({} if kind in ("BMP", "GIF") else {"exif": exif}))
        for i in range(60):
            data = bytearray(buffer.getvalue())
            for at in rng.integers(0, min(len(data), 300), rng.integers(1, 4)):
                data[at] = rng.integers(256)
            (tmp_path / "p" / f"{i}.{kind.lower()}").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged EXIF data and the like
        pictures = PictureFolder(tmp_path / "p", size=4)
        assert pictures[:].shape == (300, 4, 4, 3)
    assert 20 < len(pictures.skipped) < 280
    assert all("\n" not in reason for reason in pictures.skipped.values())


def test_a_large_JPEG_is_decoded_small(tmp_path, monkeypatch):
    """Phones make 100 million pixels and more; here the limits are a thousandth, the ways the same."""
    monkeypatch.setattr(image_files, "MAX_PIXELS", 67_000)
    monkeypatch.setattr(image_files, "MAX_JPEG", 268_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_000)  # Pillow's own limit: beyond twice that it raises
    for name, size, options in (
        ("a.jpg", (400, 300), {}),  # 12000 x 9000
        ("b.jpg", (516, 387), {}),  # 200 million: Pillow would refuse to open it
        ("c.jpg", (400, 300), {"progressive": True}),  # all of it would be in memory
        ("d.jpg", (600, 450), {}),  # too many however small it is decoded
        ("e.png", (400, 300), {}),
    ):
        image = Image.new("L", size, 40)
        image.paste(200, (size[0] // 4, size[1] // 4, 3 * size[0] // 4, 3 * size[1] // 4))
        image.save(tmp_path / name, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        pictures = PictureFolder(tmp_path, size=8, workers=1)
        seen = pictures[:]
    for shown in seen:
        np.testing.assert_allclose(shown[[0, 0, 7, 7], [0, 7, 0, 7], 0], 40, atol=9)
        np.testing.assert_allclose(shown[3:5, 3:5, 0], 200, atol=9)
    left_out = {os.path.basename(path): reason for path, reason in pictures.skipped.items()}
    assert left_out == dict.fromkeys(["c.jpg", "d.jpg", "e.png"], "it has more than 67000 pixels")
    large = PictureFolder(tmp_path, size=300, workers=1)  # 1/8 or 1/2 would be less than twice what is wanted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(UserError, match="none of the 5"):
            large[:]


def test_a_JPEG_of_several_scans_is_decoded_whole_so_it_counts_whole(tmp_path, monkeypatch):
    """Progressive or not, if its colours come one after the other, all of it must be in memory."""
    Image.new("RGB", (400, 300), (90, 120, 30)).save(tmp_path / "a.jpg", quality=90)
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    at = data.index(b"\xff\xda") + 4
    assert data[at] == 3
    assert image_files._is_one_scan(tmp_path / "a.jpg")
    data[at] = 1
    (tmp_path / "b.jpg").write_bytes(data)
    assert not image_files._is_one_scan(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_bytes(data[:30])
    assert not image_files._is_one_scan(tmp_path / "c.jpg")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    painted(tmp_path / "a.png", 1, size=(100, 101))
    painted(tmp_path / "b.png", 2, size=(100, 100))
    monkeypatch.setattr(image_files, "MAX_PIXELS", 10_000)
    loaded = []
    original = PngImagePlugin.PngImageFile.load
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: loaded.append(self.size) or original(self))
    pictures = PictureFolder(tmp_path, size=2)
    assert values(pictures[:]) == [2, 2]
    assert list(pictures.skipped.values()) == ["it has more than 10000 pixels"]
    assert set(loaded) == {(100, 100)}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)  # Pillow's own limit: beyond twice that it raises itself
    (tmp_path / "b.png").unlink()
    painted(tmp_path / "b.png", 2, size=(50, 50))
    pictures = PictureFolder(tmp_path, size=2)
    assert values(pictures[:]) == [2, 2]
    assert list(pictures.skipped.values()) == ["it has more than 10000 pixels"]
    monkeypatch.setattr(image_files, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="its file has more than 10 bytes"):
        PictureFolder(tmp_path, size=2)[:]


# ---------------------------------------------------------------------------------------------------------- classes


def classed(path, names, bad=()):
    """A folder of the images ``names``; the i-th of the sorted ones is all i, those of ``bad`` are no images."""
    for i, name in enumerate(sorted(names)):
        painted(path / name, i)
        if name in bad:
            (path / name).write_bytes(b"no picture")
    return path


def test_class_subfolders_are_labels_as_in_torchvision(tmp_path):
    """ "a-b/" is listed before "a/", but the class "a" comes before "a-b"; deeper folders belong to the top one."""
    names = ["a/1.png", "a/deep/er/2.png", "a-b/3.png", "zä/4.png", "B/5.png", "B/a/6.png"]
    classed(tmp_path, names)
    (tmp_path / "empty" / "below").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no picture")
    pictures = PictureFolder(tmp_path, size=2)
    assert pictures.classes == ("B", "a", "a-b", "zä")
    assert pictures.labels.dtype == np.int64
    tops = [sorted(names)[value].split("/")[0] for value in values(pictures[:])]
    assert [pictures.classes[label] for label in pictures.labels] == tops
    assert tops == ["B", "B", "a-b", "a", "a", "zä"]
    assert values(pictures[2:4]) == [2, 3]
    assert [pictures.classes[label] for label in pictures.labels[2:4]] == ["a-b", "a"]


@pytest.mark.parametrize(
    "names", [["1.png", "2.png"], ["a/1.png", "b/2.png", "c.png"], ["a.png", "b/2.png", "c/3.png"]]
)
def test_a_folder_with_an_image_outside_of_subfolders_has_no_labels(tmp_path, names):
    pictures = PictureFolder(classed(tmp_path, names), size=2)
    assert pictures.labels is None
    assert pictures.classes == ()
    assert pictures.lost_classes == {}


def test_an_image_of_the_same_class_stands_in_for_a_bad_one(tmp_path):
    names = [f"{top}/{i}.png" for top in "abc" for i in range(3)]
    bad = ("a/2.png", "b/0.png", "b/2.png")
    for workers in (1, 4):
        pictures = PictureFolder(classed(tmp_path, names, bad), size=2, workers=workers)
        assert values(pictures[:]) == [0, 1, 0, 4, 4, 4, 6, 7, 8]
        assert values(pictures[np.array([-7, -4])]) == [0, 4]
        assert pictures.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert list(pictures.skipped) == [str(tmp_path / name) for name in bad]
        assert pictures.lost_classes == {}


def test_a_class_without_a_good_image_is_refused_where_labels_are_used(tmp_path):
    """Without labels the next good image of the folder stands in, as in a folder without classes."""
    names = ["a/0.png", "b/0.png", "b/1.png", "c/0.png"]
    pictures = PictureFolder(classed(tmp_path, names, bad=("b/0.png", "b/1.png")), size=2)
    assert pictures.lost_classes == {}, "nothing was looked at"
    assert values(pictures[:]) == [0, 3, 3, 3]
    assert list(pictures.lost_classes) == ["b"]
    assert pictures.lost_classes["b"].startswith(str(tmp_path / "b"))
    (batch,) = Loader(pictures, batch_size=4, shuffle=False).epoch(1)
    assert set(batch) == {"images"}
    pictures = PictureFolder(tmp_path, size=2)
    with pytest.raises(UserError, match="none of the images of class 'b' can be read .*: it is no image.* remove its"):
        list(Loader(pictures, labels=pictures.labels, batch_size=4).epoch(1))
    last = PictureFolder(classed(tmp_path / "last", ["a/0.png", "b/0.png"], bad=("b/0.png",)), size=2)
    assert values(last[:]) == [0, 0], "after the last comes the first"


def test_a_batch_with_a_bad_image_has_the_right_labels(tmp_path):
    names = [f"{top}/{i}.png" for top in "abc" for i in range(4)]
    pictures = PictureFolder(classed(tmp_path, names, bad=("a/3.png", "c/3.png")), size=2)
    loader = Loader(pictures, labels=pictures.labels, batch_size=5, seed=3)
    assert loader.shapes == {"images": (3, 2, 2), "labels": 3}
    for batch in loader.epoch(1):
        shown = np.rint((batch["images"][:, 0, 0, 0] + 1) * 127.5).astype(int)
        assert (shown // 4).tolist() == batch["labels"].tolist()


def test_a_packed_folder_has_its_labels_and_the_replacements_of_its_classes(tmp_path):
    names = [f"{top}/{i}.png" for top in "ab" for i in range(2)]
    root, cache = classed(tmp_path / "p", names, bad=("a/1.png",)), tmp_path / "p.npy"
    another(root, cache).pack()
    packed = another(root, cache)
    assert packed._packed is not None
    assert values(packed[:]) == [0, 0, 2, 3]
    assert packed.labels.tolist() == [0, 0, 1, 1]
    change_note(cache, within_classes=False)  # packed when the next image of any class stood in
    assert another(root, cache)._packed is None


# -------------------------------------------------------------------------------------------------------- the cache


@pytest.fixture
def no_decoding(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("nothing was to be decoded")

    return lambda: monkeypatch.setattr(folder, "decode", refuse)


def test_a_packed_folder_decodes_nothing(tmp_path, no_decoding, monkeypatch):
    monkeypatch.setattr(folder, "BLOCK", 4)
    root, cache = numbered(tmp_path / "p", 11, bad=(2, 10)), tmp_path / "caches" / "p.npy"
    plain = PictureFolder(root, size=3)
    counted = []
    packed = PictureFolder(root, size=3, cache=cache)
    assert packed.pack(progress=lambda items: (counted.append(i) or i for i in items)) is packed
    assert counted == list(range(11))
    np.testing.assert_array_equal(np.load(cache), plain[:])
    assert sorted(os.listdir(cache.parent)) == ["p.npy", "p.npy.json"]
    no_decoding()
    for pictures in (packed, PictureFolder(root, size=3, cache=cache), packed.pack()):
        np.testing.assert_array_equal(values(pictures[:]), [0, 1, 3, 3, 4, 5, 6, 7, 8, 9, 0])
        assert values(pictures[np.array([10, 2])]) == [0, 3]
        assert pictures.skipped == plain.skipped
        batch = pictures[np.array([1])]
        assert type(batch) is np.ndarray
        batch[:] = 9  # the caller's own
        assert values(pictures[1:2]) == [1]


def another(root, cache):
    return PictureFolder(root, size=3, cache=cache)


@pytest.mark.parametrize(
    "change",
    [
        lambda root, cache: painted(root / "new.png", 1),
        lambda root, cache: (root / "001.png").unlink(),
        lambda root, cache: (root / "001.png").rename(root / "001b.png"),
        lambda root, cache: os.utime(root / "001.png", ns=(1, 1)),
        lambda root, cache: (root / "001.png").write_bytes(b"shorter"),
        lambda root, cache: cache.unlink(),
        lambda root, cache: cache.with_name("p.npy.json").unlink(),
        lambda root, cache: cache.write_bytes(cache.read_bytes()[:-1]),
        lambda root, cache: cache.write_bytes(b""),
        lambda root, cache: np.save(cache, np.zeros((4, 3, 3, 1), np.uint8)),
        lambda root, cache: np.save(cache, np.zeros((5, 3, 3, 3), np.int8)),
        lambda root, cache: np.save(cache, np.zeros((5, 3, 3, 3), np.uint8, order="F")),
        lambda root, cache: np.save(cache, np.full((5, 3, 3, 3), None), allow_pickle=True),
        lambda root, cache: cache.write_bytes(b"PK\3\4" + bytes(200)),
        lambda root, cache: cache.with_name("p.npy.json").write_text('"fingerprint"' + "[" * 100_000),
        lambda root, cache: cache.with_name("p.npy.json").write_text('["fingerprint"]'),
        lambda root, cache: cache.with_name("p.npy.json").write_bytes(b'"fingerprint"\xff'),
        lambda root, cache: change_note(cache, skipped=[1]),
        lambda root, cache: change_note(cache, skipped={"a": "b"}),
        lambda root, cache: change_note(cache, fingerprint=None),
    ],
)
def test_a_cache_that_does_not_fit_is_not_used_and_made_anew(tmp_path, change, monkeypatch):
    root, cache = numbered(tmp_path / "p", 5), tmp_path / "p.npy"
    another(root, cache).pack()
    assert another(root, cache)._packed is not None
    change(root, cache)
    pictures = another(root, cache)
    expected = PictureFolder(root, size=3)[:]
    assert pictures._packed is None
    np.testing.assert_array_equal(pictures[:], expected)
    np.testing.assert_array_equal(pictures.pack()[:], expected)
    assert another(root, cache)._packed is not None


def change_note(cache, **changes):
    note = cache.with_name(cache.name + ".json")
    note.write_text(json.dumps(json.loads(note.read_text()) | changes))


@pytest.mark.parametrize("options", [{"size": 4}, {"channels": 1}, {"background": 0}])
def test_a_cache_of_other_options_is_not_used(tmp_path, options):
    root, cache = numbered(tmp_path / "p", 5), tmp_path / "p.npy"
    another(root, cache).pack()
    assert PictureFolder(root, **({"size": 3, "cache": cache} | options))._packed is None


def test_a_pack_that_is_interrupted_leaves_no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "BLOCK", 2)
    root, cache = numbered(tmp_path / "p", 7), tmp_path / "caches" / "p.npy"

    def interrupted(items):
        for i in items:
            if i == 5:
                raise KeyboardInterrupt
            yield i

    with pytest.raises(KeyboardInterrupt):
        another(root, cache).pack(progress=interrupted)
    assert os.listdir(cache.parent) == []
    another(root, cache).pack()
    before, status = (root / "001.png").read_bytes(), os.stat(root / "001.png")
    painted(root / "001.png", 100)
    pictures = another(root, cache)

    def killed(temporary, path):  # between the two files, as a power cut may
        original(temporary, path)
        raise SystemExit

    original = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(SystemExit):
            pictures.pack()
    (root / "001.png").write_bytes(before)
    os.utime(root / "001.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert another(root, cache)._packed is None, "the old note does not vouch for the new pictures"


@pytest.mark.parametrize("content", [np.arange(10), np.zeros((2, 3, 3, 3)), np.zeros((2, 3, 3), np.uint8), b"junk"])
def test_a_file_of_the_users_is_not_taken_for_a_cache(tmp_path, content):
    root, cache = numbered(tmp_path / "p", 5), tmp_path / "mine.npy"
    cache.write_bytes(content) if isinstance(content, bytes) else np.save(cache, content)
    before = cache.read_bytes()
    with pytest.raises(UserError, match=r"mine.npy exists and holds no packed images: choose another"):
        another(root, cache).pack()
    assert cache.read_bytes() == before


@pytest.mark.parametrize("with_array", [True, False])
def test_a_note_of_the_users_is_not_taken_for_a_caches(tmp_path, with_array):
    root, cache = numbered(tmp_path / "p", 5), tmp_path / "mine.npy"
    if with_array:
        np.save(cache, np.zeros((5, 3, 3, 3), np.uint8))
    note = tmp_path / "mine.npy.json"
    note.write_text('{"mine": 1}')
    with pytest.raises(UserError, match="holds no packed images"):
        another(root, cache).pack()
    assert note.read_text() == '{"mine": 1}'


def test_packing_without_a_place_gets_one_sentence(tmp_path):
    numbered(tmp_path / "p", 2)
    with pytest.raises(UserError, match="has no cache to pack into"):
        PictureFolder(tmp_path / "p", size=3).pack()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the cache .* cannot be written"):
        PictureFolder(tmp_path / "p", size=3, cache=tmp_path / "file" / "p.npy").pack()


# ------------------------------------------------------------------------------------------------- threads and forks


def test_many_threads_give_what_one_gives(tmp_path, rng):
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(tmp_path / f"{i}.jpg")
    for i in (3, 17, 18):
        (tmp_path / f"{i}.jpg").write_bytes(b"bad")
    order = rng.permutation(40)
    one = PictureFolder(tmp_path, size=8, workers=1)[order]
    many = PictureFolder(tmp_path, size=8, workers=7)
    results = [None] * 4

    def use(k):
        results[k] = many[order]

    threads = [threading.Thread(target=use, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, one)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own(tmp_path):
    """Run in a fresh process: a fork in the middle of an epoch goes on with the same batches."""
    numbered(tmp_path, 40)
    program = f"""
import os, numpy as np
from nanogan.data import Loader, PictureFolder
pictures = PictureFolder({str(tmp_path)!r}, size=4, workers=3)
batches = Loader(pictures, batch_size=5).epoch(1)
first = next(batches)
pid = os.fork()
rest = [batch["images"].tobytes() for batch in batches]
whole = [batch["images"].tobytes() for batch in Loader(pictures[:], batch_size=5).epoch(1)]
assert rest == whole[1:], len(rest)
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    print("both")
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("both\n", "")


def test_a_program_that_ends_in_the_middle_of_an_epoch_ends(tmp_path):
    numbered(tmp_path, 40)
    program = f"""
from nanogan.data import Loader, PictureFolder
batches = Loader(PictureFolder({str(tmp_path)!r}, size=4, workers=3), batch_size=5).epoch(1)
print(next(batches)["images"].shape)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "(5, 3, 4, 4)\n", "")


def test_real_pictures(real_data):
    """Photographs of 256 x 256, each beside what Pillow alone makes of the whole of it."""
    pictures = PictureFolder(os.path.join(real_data, "horse2zebra", "trainA"), size=64)
    assert len(pictures) == 300
    names = sorted(os.listdir(pictures.path))
    for i in (0, 150, 299):
        with Image.open(pictures.path / names[i]) as image:
            expected = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR))
        assert np.abs(pictures[i].astype(int) - expected).mean() < 3
    assert pictures.skipped == {}
