"""Labelled pictures in .npz files: what is read, and what is refused in one sentence."""

import io
import zipfile

import numpy as np
import pytest

from nanogan.data import load_npz
from nanogan.data.named import is_set, load_pictures
from nanogan.errors import UserError


@pytest.fixture
def arrays(rng):
    return {
        "x_train": rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8),
        "y_train": np.array([[3], [1], [4], [1], [255]]),
        "x_test": rng.integers(0, 256, (2, 8, 8), dtype=np.uint8),
        "y_test": np.array([9, 2], np.int16),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_both_splits(tmp_path, arrays, save):
    save(tmp_path / "set.npz", **arrays)
    pictures, labels = load_npz(tmp_path / "set.npz")
    np.testing.assert_array_equal(pictures, arrays["x_train"])
    assert labels.tolist() == [3, 1, 4, 1, 255]
    assert pictures.dtype == labels.dtype == np.uint8
    pictures, labels = load_npz(tmp_path / "set.npz", split="test")
    np.testing.assert_array_equal(pictures[..., 0], arrays["x_test"])
    assert pictures.shape == (2, 8, 8, 1)
    assert labels.tolist() == [9, 2]


def test_columns_first(tmp_path, arrays):
    np.savez(tmp_path / "set.npz", x_train=np.asfortranarray(arrays["x_train"]), y_train=arrays["y_train"])
    np.testing.assert_array_equal(load_npz(tmp_path / "set.npz")[0], arrays["x_train"])


def test_by_path_with_sizes_and_channels(tmp_path, arrays):
    path = str(tmp_path / "set.npz")
    np.savez(path, **arrays)
    assert is_set(path)
    assert load_pictures(path, size=4, channels=3, count=3)[0].shape == (3, 4, 4, 3)
    grey, labels = load_pictures(path, size=8, channels=3, split="test")
    assert (grey[..., 0] == grey[..., 2]).all()
    assert labels.tolist() == [9, 2]
    with pytest.raises(UserError, match="have 3 channels, 1 were expected"):
        load_pictures(path, size=8, channels=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": None}, "it has no array x_train, but x_test, y_test, y_train"),
        ({"y_train": None}, "it has no array y_train"),
        ({"x_train": np.zeros((5, 8, 8))}, "x_train holds float64, whole numbers were expected"),
        ({"x_train": np.array([{}] * 5)}, "x_train holds object, whole numbers were expected"),
        ({"x_train": np.zeros((5, 8, 8, 2), np.uint8)}, r"holds pictures uint8 \(5, 8, 8, 2\) and labels int64 \(5,\)"),
        ({"x_train": np.zeros((0, 8, 8, 3), np.uint8), "y_train": np.zeros(0, int)}, r"pictures uint8 \(0, 8, 8, 3\)"),
        ({"y_train": np.arange(4)}, r"labels int64 \(4,\): expected x_train, uint8"),
        ({"y_train": np.array([0, 1, 2, 3, 256])}, "has labels from 0 to 256: expected"),
        ({"y_train": np.array([0, 1, 2, 3, -1])}, "has labels from -1 to 3: expected"),
    ],
)
def test_other_arrays_are_told(tmp_path, arrays, change, message):
    kept = {name: array for name, array in (arrays | change).items() if array is not None}
    np.savez(tmp_path / "set.npz", **kept)
    with pytest.raises(UserError, match=message):
        load_npz(tmp_path / "set.npz")


def archive_of(path, header, data):
    """A file whose x_train has this header, whatever it holds."""
    text = str(header).encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ((1 << 40, 32, 32, 3), 100, "promises shape"),
        ((5, 8, 8, 3), 959, "promises shape"),
        ((5, 8, 8, 3), 961, "but has another number of bytes"),
        ((-5, 8, 8, 3), 960, "promises shape"),
    ],
)
def test_a_header_that_lies(tmp_path, shape, size, message):
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    archive_of(tmp_path / "set.npz", header, bytes(size))
    with pytest.raises(UserError, match=message):
        load_npz(tmp_path / "set.npz")


def test_no_program_in_a_header_runs(tmp_path):
    archive_of(tmp_path / "set.npz", f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()", b"")
    with pytest.raises(UserError, match="is no data set"):
        load_npz(tmp_path / "set.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "header",
    ["{'descr': (", "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 32)}", "{1: 2, 'a': 3}", "{[]: 1}",
     "{'descr': ',,,', 'fortran_order': False, 'shape': (1,)}", " {'descr'", "-" * 110, "[" * 110],
)  # fmt: skip
def test_a_header_that_is_none(tmp_path, header):
    archive_of(tmp_path / "set.npz", header, b"")
    with pytest.raises(UserError, match="is no data set"):
        load_npz(tmp_path / "set.npz")


def test_damage(tmp_path, arrays):
    whole = io.BytesIO()
    np.savez_compressed(whole, **arrays)
    whole = whole.getvalue()
    path = tmp_path / "set.npz"
    rng = np.random.default_rng(0)
    for data in (b"", b"PK", whole[:-30], whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"set\.npz is no data set"):
            load_npz(path)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            pictures, labels = load_npz(path)
        except UserError:
            refused += 1
        else:  # the damage is in a date, say, or in the other split
            np.testing.assert_array_equal(pictures, arrays["x_train"])
            np.testing.assert_array_equal(labels, arrays["y_train"][:, 0])
    assert refused > 150


def test_no_file_and_no_split(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        load_npz(tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        load_npz(tmp_path / "folder.npz")
    with pytest.raises(UserError, match="unknown split 'extra': use train or test"):
        load_npz(tmp_path / "none.npz", split="extra")
