"""SVHN, cropped house numbers: pictures of 32 x 32 in a MATLAB 5 file, of which no more than these is read.

SciPy reads such files too, but trusts what stands in them: with a byte or two changed, its 1.17 crashes the process.
"""

import math
import struct
import zlib
from pathlib import Path

import numpy as np

from nanogan.errors import DataNotFound, UserError

PAGE = "http://ufldl.stanford.edu/housenumbers/"
MAX_BYTES = 2 << 30  # of a file; the largest, extra_32x32.mat, has 1.33 GB
MAX_PICTURES = 600_000  # extra_32x32.mat has 531,131

# Of "MAT-File Format", MathWorks: data types and classes by number.
COMPRESSED, MATRIX = 15, 14
TYPES = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"}
CLASSES = {6: "double", 7: "single", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16", 12: "int32", 13: "uint32"}
HEAD = 1024  # bytes of a matrix that surely hold its shape and its name


def load_svhn(path, *, split="train"):
    """Return pictures, uint8 (N, 32, 32, 3), RGB, and labels from 0 to 9, uint8 (N,), of SVHN.

    ``path`` is the file train_32x32.mat (or another of the splits), or a folder that holds it, itself or in a folder
    svhn; ``split`` is "train" (N = 73,257), "test" (26,032) or "extra" (531,131), and picks the file in a folder. In
    the file the digit 0 has label 10; here it has 0.

    Raises UserError if the file is no such file or damaged, DataNotFound if a folder does not hold it.
    """
    if split not in ("train", "test", "extra"):
        raise UserError(f"unknown split {split!r}: use train, test or extra")
    path, name = Path(path), f"{split}_32x32.mat"
    if path.is_dir():
        found = [each for each in (path / name, path / "svhn" / name) if each.is_file()]
        if not found:
            raise DataNotFound(f"{path} holds no {name}: fetch it from {PAGE}")
        path = found[0]
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than the {MAX_BYTES} bytes that such a file has at most")
        with open(path, "rb") as file:
            return _read(file)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    except struct.error:
        raise UserError(f"{path} is no whole file of SVHN: it ends too early; fetch it again from {PAGE}") from None
    except (ValueError, zlib.error) as error:
        raise UserError(f"{path} is no whole file of SVHN: {error}; fetch it again from {PAGE}") from None


def _read(file):
    """Return pictures and labels. Raises ValueError, struct.error or zlib.error if the file is not as expected."""
    header = file.read(128)
    if len(header) < 128 or header[124:] != b"\x00\x01IM":
        raise ValueError("it does not start as a MATLAB 5 file, little-endian, does")
    arrays = {}
    while not ("X" in arrays and "y" in arrays):
        tag = file.read(8)
        if not tag:
            raise ValueError(f"the arrays X and y were expected, it holds {' and '.join(arrays) or 'neither'}")
        kind, size = struct.unpack("<2I", tag)
        end = file.tell() + size
        name, array = _matrix(file, kind, size)
        if array is not None:
            arrays[name] = array
        file.seek(end)

    X, y = arrays["X"], arrays["y"]
    N = X.shape[3]
    if y.shape != (N, 1):
        raise ValueError(f"{N} labels, y of shape ({N}, 1), were expected, got {y.shape}")
    if not np.isin(y, np.arange(1, 11)).all():
        raise ValueError(f"labels from 1 to 10 were expected, got {y.min()} to {y.max()}")
    return np.ascontiguousarray(X.transpose(3, 0, 1, 2)), (y[:, 0] % 10).astype(np.uint8)


def _matrix(file, kind, size):
    """Return the name and the array of the element at the file's position; None for the array if it is not wanted."""
    if kind == COMPRESSED:
        packed, unzip = file.read(size), zlib.decompressobj()
        if len(packed) < size:
            raise ValueError("it ends too early")
        head = unzip.decompress(packed, HEAD)
        kind, _ = struct.unpack_from("<2I", head)
        head = head[8:]
    else:
        packed, unzip, head = None, None, file.read(min(size, HEAD))
    if kind != MATRIX:
        raise ValueError(f"it holds an element of type {kind}, which is no array")

    # An array is four elements, one after the other: flags, shape, name, numbers.
    flags, after = _element(head, 0)
    shape, after = _element(head, after)
    name, after = _element(head, after)
    name = name.decode("latin-1")
    if name not in ("X", "y"):
        return name, None
    shape = struct.unpack(f"<{len(shape) // 4}i", shape)
    matlab_class = CLASSES.get(flags[0], f"class {flags[0]}")
    if name == "X" and not (len(shape) == 4 and shape[:3] == (32, 32, 3) and matlab_class == "uint8"):
        raise ValueError(f"X, uint8 (32, 32, 3, N), was expected, got {matlab_class} {shape}")
    if name == "y" and not (len(shape) == 2 and shape[1] == 1 and matlab_class in ("uint8", "double")):
        raise ValueError(f"y, uint8 or double (N, 1), was expected, got {matlab_class} {shape}")
    if not 0 < shape[-1 if name == "X" else 0] <= MAX_PICTURES:
        raise ValueError(
            f"{name} promises {shape[-1 if name == 'X' else 0]} pictures, 1 to {MAX_PICTURES} were expected"
        )

    kind, count, start = _tag(head, after)
    dtype = np.dtype(TYPES.get(kind, "V1"))
    if dtype.kind == "V" or count != math.prod(shape) * dtype.itemsize or (name == "X" and dtype != np.uint8):
        raise ValueError(f"{name} promises shape {shape}, but {count} bytes of type {kind}")
    data, missing = head[start : start + count], start + count - len(head)
    if unzip is not None:
        if missing > 0:
            data += unzip.decompress(unzip.unconsumed_tail, missing)
        unzip.decompress(unzip.unconsumed_tail, 8)  # what fills up eight bytes; the checksum is read with it
        if not unzip.eof:
            raise ValueError(f"the zlib stream of {name} does not end where it should")
    elif missing > 0:
        data += file.read(missing)
    if len(data) < count:
        raise ValueError("it ends too early")
    return name, np.frombuffer(data, dtype).reshape(shape, order="F")


def _tag(data, at):
    """Return an element's type, the number of its bytes, and where they start. Up to 4 bytes are in the tag itself."""
    kind, count = struct.unpack_from("<2I", data, at)
    if kind >> 16:
        return kind & 0xFFFF, kind >> 16, at + 4
    return kind, count, at + 8


def _element(data, at):
    """Return the bytes of the element at ``at`` and where the next one starts, at a multiple of 8."""
    _, count, start = _tag(data, at)
    if start + count > len(data) or not count:
        raise ValueError("the description of an array is corrupt")
    return data[start : start + count], -(-(start + count) // 8) * 8
