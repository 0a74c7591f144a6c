"""A folder of images as an array: what is left out, classes, the packed cache, threads."""

import io
import json
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from nanogan.data import Loader, PictureFolder
from nanogan.data.formats import image_files
from nanogan.data.sets import folder
from nanogan.errors import UserError
from tests.data.on_disk import numbered, painted, values

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
