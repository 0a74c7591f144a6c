"""SVHN, cropped house numbers: images of 32 x 32 in MATLAB 5 files."""

import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from nanogan.data.formats import matlab
from nanogan.data.sets.download import folders_named
from nanogan.errors import DataNotFound, UserError

PAGE = "http://ufldl.stanford.edu/housenumbers/"
MAX_BYTES = 2 << 30  # of a file; the largest, extra_32x32.mat, has 1.33 GB
MAX_PICTURES = 600_000  # extra_32x32.mat has 531,131


def load_svhn(path, *, split="train"):
    """Return images, uint8 (N, 32, 32, 3), RGB, and labels from 0 to 9, uint8 (N,), of SVHN.

    ``path`` is the file train_32x32.mat (or another of the splits), or a folder that holds it, itself or in a folder
    svhn; ``split`` is "train" (N = 73,257), "test" (26,032) or "extra" (531,131), and picks the file in a folder. In
    the file the digit 0 has label 10; here it has 0.

    Raises UserError if the file is no such file or damaged, DataNotFound if a folder does not hold it.
    """
    if split not in ("train", "test", "extra"):
        raise UserError(f"unknown split {split!r}: use train, test or extra")
    path, name = Path(path), f"{split}_32x32.mat"
    if path.is_dir():
        found = files_in(path)
        if split not in found:
            others = f", only {', '.join(each.name for each in found.values())}" if found else ""
            raise DataNotFound(f"{path} holds no {name}{others}: fetch it from {PAGE}")
        path = found[split]
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


def split_of(path):
    """The split that a file's name says: train, test or extra; None if it is not named as SVHN's are."""
    match = re.fullmatch(r"(train|test|extra)_32x32\.mat", Path(path).name.lower())
    return match and match[1]


def files_in(folder):
    """Return {split: path} of SVHN's files in a folder, or in a folder svhn in it."""
    found = {}
    for each in (Path(folder), *folders_named(folder, "svhn")):
        try:
            names = sorted(os.listdir(each))
        except OSError:
            continue
        for name in names:
            if split_of(name) and (each / name).is_file():
                found.setdefault(split_of(name), each / name)
    return found


def _read(file):
    """Return images and labels. Raises ValueError, struct.error or zlib.error if the file is not as expected."""
    arrays = matlab.read_arrays(file, {"X": _check_images, "y": _check_labels})
    X, y = arrays["X"], arrays["y"]
    N = X.shape[3]
    if y.shape != (N, 1):
        raise ValueError(f"{N} labels, y of shape ({N}, 1), were expected, got {y.shape}")
    if not np.isin(y, np.arange(1, 11)).all():
        raise ValueError(f"labels from 1 to 10 were expected, got {y.min()} to {y.max()}")
    return np.ascontiguousarray(X.transpose(3, 0, 1, 2)), (y[:, 0] % 10).astype(np.uint8)


def _check_images(shape, matlab_class):
    if not (len(shape) == 4 and shape[:3] == (32, 32, 3) and matlab_class == "uint8"):
        raise ValueError(f"X, uint8 (32, 32, 3, N), was expected, got {matlab_class} {shape}")
    _check_count("X", shape[3])


def _check_labels(shape, matlab_class):
    if not (len(shape) == 2 and shape[1] == 1 and matlab_class in ("uint8", "double")):
        raise ValueError(f"y, uint8 or double (N, 1), was expected, got {matlab_class} {shape}")
    _check_count("y", shape[0])


def _check_count(name, count):
    if not 0 < count <= MAX_PICTURES:
        raise ValueError(f"{name} promises {count} images, 1 to {MAX_PICTURES} were expected")
