"""SVHN's MATLAB files, written by SciPy; others are refused in one sentence."""

import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from nanogan.data import load_svhn
from nanogan.data.sets import svhn
from nanogan.errors import DataNotFound, UserError

io = pytest.importorskip("scipy.io")  # writes the files; nanogan reads them itself


def write(path, *, count=7, compressed=True, **changes):
    """Write a file as SVHN's are; returns its X (32, 32, 3, N) and y (N, 1)."""
    rng = np.random.default_rng(count)
    X = rng.integers(0, 256, (32, 32, 3, count)).astype(np.uint8)
    y = rng.integers(1, 11, (count, 1)).astype(np.uint8)
    y[0] = 10
    contents = changes | {name: changes.get(name, array) for name, array in (("X", X), ("y", y))}
    contents = {name: array for name, array in contents.items() if array is not None}
    io.savemat(path, contents, do_compression=compressed)
    return X, y


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("split", ["train", "test", "extra"])
@pytest.mark.parametrize("place", ["", "svhn"])
def test_a_file_is_read_by_its_name_or_from_its_folder(tmp_path, compressed, split, place):
    (tmp_path / place).mkdir(exist_ok=True)
    path = tmp_path / place / f"{split}_32x32.mat"
    X, y = write(path, compressed=compressed)
    for given in (path, tmp_path):
        images, labels = load_svhn(given, split=split)
        assert images.dtype == labels.dtype == np.uint8
        assert images.flags.c_contiguous
        assert images.shape == (7, 32, 32, 3)
        for i in range(7):
            np.testing.assert_array_equal(images[i], X[:, :, :, i])
            assert labels[i] == (0 if y[i, 0] == 10 else y[i, 0])


@pytest.mark.parametrize("place", ["", "SVHN"])
def test_names_in_capital_letters(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    write(tmp_path / place / "TRAIN_32x32.MAT", count=3)
    assert len(load_svhn(tmp_path)[0]) == 3
    with pytest.raises(DataNotFound, match="holds no test_32x32.mat, only TRAIN_32x32.MAT"):
        load_svhn(tmp_path, split="test")


def test_labels_may_be_floating_point_numbers_as_MATLABs_own_are(tmp_path):
    write(tmp_path / "file", y=np.array([[10.0], [3.0]]), count=2)
    assert load_svhn(tmp_path / "file")[1].tolist() == [0, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": None}, "the arrays X and y were expected, it holds y"),
        ({"y": None}, "the arrays X and y were expected, it holds X"),
        ({"X": None, "y": None, "Z": np.ones(3)}, "the arrays X and y were expected, it holds neither"),
        (
            {"X": np.zeros((7, 32, 32, 3), np.uint8)},
            r"X, uint8 \(32, 32, 3, N\), was expected, got uint8 .7, 32, 32, 3.",
        ),
        ({"X": np.zeros((32, 32, 3, 7))}, "got double .32, 32, 3, 7."),
        ({"X": np.zeros((32, 32, 3, 7), object)}, "got class 1 .32, 32, 3, 7."),
        ({"X": {"field": 1}}, "got class 2 .1, 1."),
        ({"y": np.ones((6, 1), np.uint8)}, r"y of shape \(7, 1\), were expected, got .6, 1."),
        ({"y": np.ones((1, 7), np.uint8)}, "was expected, got uint8 .1, 7."),
        ({"y": "1234567"}, "was expected, got class 4"),
        ({"y": np.zeros((7, 1), np.uint8)}, "labels from 1 to 10 were expected, got 0 to 0"),
        ({"y": np.full((7, 1), 11, np.uint8)}, "labels from 1 to 10 were expected, got 11 to 11"),
        ({"y": np.full((7, 1), 1.5)}, "labels from 1 to 10 were expected, got 1.5"),
    ],
)
def test_other_contents_get_one_sentence(tmp_path, changes, message):
    write(tmp_path / "file.mat", **changes)
    with pytest.raises(UserError, match=message) as caught:
        load_svhn(tmp_path / "file.mat")
    assert str(tmp_path / "file.mat") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_such_file_gets_one_sentence(tmp_path):
    path = tmp_path / "file.mat"
    write(path)
    whole = path.read_bytes()
    later = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" + bytes(100)
    for data in (b"", b"text", b"\0" * 200, whole[:100], whole[:200], whole[: len(whole) // 2], whole[:-9], later):
        path.write_bytes(data)
        with pytest.raises(UserError, match="is no whole file of SVHN") as caught:
            load_svhn(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there is no file .*nothing.mat"):
        load_svhn(tmp_path / "nothing.mat")
    with pytest.raises(DataNotFound, match="holds no test_32x32.mat"):
        load_svhn(tmp_path, split="test")
    with pytest.raises(UserError, match="unknown split 'all'"):
        load_svhn(tmp_path, split="all")


def test_too_large_a_file_is_not_read(tmp_path, monkeypatch):
    write(tmp_path / "file")
    monkeypatch.setattr(svhn, "MAX_PICTURES", 6)
    with pytest.raises(UserError, match="X promises 7 images, 1 to 6 were expected"):
        load_svhn(tmp_path / "file")
    monkeypatch.setattr(svhn, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match="it has more than the 1000 bytes"):
        load_svhn(tmp_path / "file")


@pytest.mark.parametrize("compressed", [True, False])
def test_other_arrays_are_passed_over(tmp_path, compressed):
    X, _ = write(tmp_path / "file", compressed=compressed, A=np.arange(1000.0), Z={"field": "text"})
    np.testing.assert_array_equal(load_svhn(tmp_path / "file")[0], X.transpose(3, 0, 1, 2))


def test_a_zlib_bomb_is_not_unpacked(tmp_path):
    """The shape promises one picture; 64 MiB of zeros follow, of which a few bytes too many are read."""
    write(tmp_path / "file", count=1, X=np.zeros((32, 32, 3, 1), np.uint8))
    data = (tmp_path / "file").read_bytes()
    (size,) = struct.unpack_from("<I", data, 132)
    packed = zlib.compress(zlib.decompress(data[136 : 136 + size]) + bytes(64 << 20))
    (tmp_path / "bomb").write_bytes(data[:132] + struct.pack("<I", len(packed)) + packed + data[136 + size :])
    tracemalloc.start()
    with pytest.raises(UserError, match="the zlib stream of X does not end where it should"):
        load_svhn(tmp_path / "bomb")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("at", "number", "message"),
    [
        (128, 9, "an element of type 9, which is no array"),
        (140, 0, "the description of an array is corrupt"),
        (156, 5000, "the description of an array is corrupt"),
        (184, 1, r"X promises shape \(32, 32, 3, 1\), but 3072 bytes of type 1"),
        (184, 77, "but 3072 bytes of type 77"),
        (188, 3071, "but 3071 bytes of type 2"),
        (188, 2**32 - 1, "but 4294967295 bytes of type 2"),
        (172, 2**31 - 1, "X promises 2147483647 images"),
        (172, 2**32 - 1, "X promises -1 images"),
        (172, 0, "X promises 0 images"),
        (None, 200, "it ends too early"),
        (None, 3000, "it ends too early"),
    ],
)
def test_each_number_in_a_header_is_checked(tmp_path, at, number, message):
    """The file is not compressed; X is its first array. Without ``at``, it is cut to that many bytes."""
    write(tmp_path / "file", count=1, compressed=False)
    data = bytearray((tmp_path / "file").read_bytes())
    if at is None:
        del data[number:]
    else:
        struct.pack_into("<I", data, at, number)
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(UserError, match=message):
        load_svhn(tmp_path / "file")


def test_files_with_any_byte_changed_are_read_or_refused(tmp_path, rng):
    """Nothing but UserError is raised, and what is returned has the right shapes."""
    path = tmp_path / "file"
    for compressed in (True, False):
        write(path, count=1, compressed=compressed)
        good = path.read_bytes()
        interesting = [i for i in range(len(good)) if 100 < i < 240 or i > len(good) - 60]
        for _ in range(500):
            data = bytearray(good)
            for at in rng.choice(interesting, rng.integers(1, 4)):
                data[at] = rng.integers(256)
            path.write_bytes(data)
            try:
                images, labels = load_svhn(path)
            except UserError:
                continue
            assert images.shape == (1, 32, 32, 3)
            assert labels.shape == (1,)


def test_real_pictures_survive_the_format(real_data, tmp_path):
    with np.load(os.path.join(real_data, "svhn", "svhn_train_first55.npz")) as file:
        pictures = file["x_train"]
    X = np.ascontiguousarray(pictures.transpose(1, 2, 3, 0))
    write(tmp_path / "train_32x32.mat", X=X, y=np.full((55, 1), 4, np.uint8))
    np.testing.assert_array_equal(load_svhn(tmp_path)[0], pictures)
