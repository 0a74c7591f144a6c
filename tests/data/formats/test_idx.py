"""idx files good and bad."""

import gzip
import struct

import numpy as np
import pytest

from nanogan.data import read_idx
from nanogan.errors import UserError


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("shape", [(4,), (3, 5, 2), (0, 28, 28)])
def test_idx_files_are_read(tmp_path, shape, zipped):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    data = idx_bytes(array)
    (tmp_path / "file").write_bytes(gzip.compress(data) if zipped else data)
    np.testing.assert_array_equal(read_idx(tmp_path / "file"), array)


GOOD = idx_bytes(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not start with an idx header"),
        (b"\x00\x00", "does not start with an idx header"),
        (b"PNG is not idx", "does not start with an idx header"),
        (b"\x00\x00\x0d\x03" + GOOD[4:], "the header says type 13"),
        (b"\x00\x00\x08\x02" + GOOD[4:], "the header says type 8, 2"),
        (GOOD[:10], "ends within its header"),
        (GOOD[:-1], "promises 60 bytes, shape .3, 4, 5., but it holds 59"),
        (GOOD + b"!", "promises 60 bytes.*holds more"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "more than any idx data set has"),
        (gzip.compress(GOOD)[:-12], "ends too early"),
        (gzip.compress(GOOD)[:-3], "ends too early"),
        (flip(gzip.compress(GOOD), -6), "gzip stream is corrupt|CRC"),
        (flip(gzip.compress(GOOD), 2), "corrupt"),
    ],
)
def test_a_damaged_idx_file_gets_one_sentence(tmp_path, data, message):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    """The header promises 60 bytes; a gigabyte of zeros follows. Only one byte too many is read."""
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(GOOD)
        for _ in range(64):
            file.write(bytes(1 << 20))
    with pytest.raises(UserError, match="holds more"):
        read_idx(path)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(UserError, match="cannot be read"):
        read_idx(tmp_path)
