"""Labelled pictures in an .npz file, as Keras names them: x_train, y_train, x_test, y_test."""

import lzma
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from nanogan.errors import UserError

MAX_BYTES = 4 << 30  # of an array; ImageNet's pictures at 32 x 32 have 3.9 GB


def load_npz(path, *, split="train"):
    """Return pictures, uint8 (N, H, W, 1 or 3), and labels, uint8 (N,), of the file ``path``; ``split``: train or test.

    Pictures are the array x_<split>, uint8 (N, H, W) or (N, H, W, C); labels y_<split>, whole numbers from 0 to 255,
    (N,) or (N, 1). Write one with ``numpy.savez_compressed(path, x_train=..., y_train=..., x_test=..., y_test=...)``.
    No more of the file is read than these two arrays, no pickle, and no more bytes than the file says to hold.

    Raises UserError if there is no such file, or if it is damaged or holds something else.
    """
    if split not in ("train", "test"):
        raise UserError(f"unknown split {split!r}: use train or test")
    expected = f"x_{split}, uint8 (N, H, W) or (N, H, W, 1 or 3), and y_{split}, whole numbers from 0 to 255"
    try:
        with zipfile.ZipFile(path) as archive:
            pictures, labels = (_array(archive, f"{name}_{split}") for name in "xy")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        # the last one: encrypted files and, a subclass, ways of packing that zipfile does not know
        raise UserError(f"{path} is no data set ({error}): expected {expected}") from None

    pictures = pictures[..., None] if pictures.ndim == 3 else pictures
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    right = pictures.ndim == 4 and pictures.dtype == np.uint8 and pictures.shape[3] in (1, 3) and pictures.size > 0
    if not right or labels.dtype.kind not in "iu" or labels.shape != pictures.shape[:1]:
        raise UserError(
            f"{path} holds pictures {pictures.dtype} {pictures.shape} and labels {labels.dtype} {labels.shape}: "
            f"expected {expected}"
        )
    if labels.min() < 0 or labels.max() > 255:
        raise UserError(f"{path} has labels from {labels.min()} to {labels.max()}: expected {expected}")
    return pictures, labels.astype(np.uint8)


def _array(archive, name):
    """Read the array ``name``. Raises ValueError if there is none, or if its header and its bytes do not agree."""
    try:
        entry = archive.getinfo(f"{name}.npy")
    except KeyError:
        found = sorted(Path(each).stem[:40] for each in archive.namelist()[:8])
        raise ValueError(f"it has no array {name}, but {', '.join(found) or 'nothing'}") from None
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name} is of a format {version} that is not known")
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            shape, fortran, dtype = header(file)
            count = math.prod(shape) * dtype.itemsize
        except Exception as error:  # NumPy has Python parse a header's text, which fails in many ways
            raise ValueError(f"the header of {name} is corrupt ({type(error).__name__})") from None
        if dtype.kind not in "iu":
            raise ValueError(f"{name} holds {dtype}, whole numbers were expected")
        if not 0 <= count <= MAX_BYTES or count > entry.file_size:
            raise ValueError(f"{name} promises shape {shape}, but has {entry.file_size} bytes")
        data = file.read(count)
        if len(data) < count or file.read(1):  # reading to the end compares the checksum
            raise ValueError(f"{name} promises shape {shape}, but has another number of bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
