"""CIFAR-10 from its author's binary archive, packed or unpacked."""

from pathlib import Path

import numpy as np

from nanogan.data.formats import cifar
from nanogan.data.sets.download import data_dir, download_file, usual_folders
from nanogan.errors import DataNotFound, UserError

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
# What the author publishes: the name of the archive, its MD5 sum, its folder, and the files of each split.
ARCHIVE = "cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
FOLDER = "cifar-10-batches-bin"
FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
MAX_DOWNLOAD = 200 << 20  # bytes; the archive has 170 million
# The same images as pickles, which are programs: a file that asks to be executed is not read.
PYTHON_ARCHIVE, PYTHON_FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"


def load_cifar10(path=None, *, split="train", download=True):
    """Return images, uint8 (N, 32, 32, 3), RGB, and labels from 0 to 9, uint8 (N,), of CIFAR-10.

    ``split`` is "train" (N = 50,000) or "test" (10,000). ``path`` is cifar-10-binary.tar.gz, the folder
    cifar-10-batches-bin that it unpacks to, or a folder that holds one of these. The archive is read where it is:
    nothing is unpacked to disk. Without ``path`` it is looked for in the folder cifar10 below $NANOGAN_DATA, in that
    itself, and in the folder cifar10 below the user's cache; if it is in none, it is downloaded into the cache and its
    checksum verified.

    Raises DataNotFound if there is no CIFAR-10, UserError if it is damaged, or is the python archive, whose pickles
    are not read.
    """
    if split not in FILES:
        raise UserError(f"unknown split {split!r}: use train or test")
    path = _usual_path(split, download) if path is None else Path(path)
    if path.name in (PYTHON_ARCHIVE, PYTHON_FOLDER) and path.exists():
        raise _refused(path)
    files = _read(path, split)
    if files is None:
        raise _refused(path)
    try:
        batches = [cifar.parse_batch(files[file], f"{file} in {path}") for file in FILES[split]]
    except cifar.Damaged as error:
        raise UserError(f"{error}; fetch it again from {PAGE}") from None
    planes = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.concatenate([labels for _, labels in batches])


def _usual_path(split, download):
    """Return the first of the usual places that holds CIFAR-10, or the archive, downloaded."""
    folders = usual_folders("cifar10") + ([] if data_dir() is None else [data_dir()])
    path = next((folder for folder in folders if _find(folder, split)), None)
    if path is not None:
        return path
    if download:
        return download_file("cifar10", ARCHIVE, mirrors=MIRRORS, md5=MD5, max_bytes=MAX_DOWNLOAD)
    for folder in folders:
        if _is_python(folder):
            raise _refused(folder)
    raise DataNotFound("cifar10 is not on this machine: allow the download, or give the path of its archive")


def _find(folder, split):
    """Return the path of the folder or the archive of CIFAR-10 that is in ``folder``, or None."""
    for place in (folder, folder / FOLDER):
        if all((place / file).is_file() for file in FILES[split]):
            return place
    archives = (folder / ARCHIVE, folder / ARCHIVE.removesuffix(".gz"))  # some browsers unzip what they download
    return next((archive for archive in archives if archive.is_file()), None)


def holds_cifar10(folder):
    """Whether a folder is CIFAR-10's, or holds it: the binary version, or the python version, which is refused."""
    return any(_find(folder, split) for split in FILES) or _is_python(folder)


def _is_python(folder):
    """Whether a folder holds the python version: its archive, its folder, or the files of that."""
    python = (PYTHON_ARCHIVE, PYTHON_FOLDER, *(name.removesuffix(".bin") for names in FILES.values() for name in names))
    return any((folder / name).exists() for name in python)


def _read(path, split):
    """Return {file: its bytes} of a split, or None for the python version."""
    try:
        if not path.is_dir():
            return cifar.read_archive(path, FOLDER, FILES[split], other=PYTHON_FOLDER)
        place = _find(path, split)
        if place is None and _is_python(path):
            return None
        if place is None:
            raise DataNotFound(
                f"{path} holds neither {ARCHIVE} nor all the files of the split {split} ({FILES[split][0]}, ...): "
                "check the path"
            )
        if place.is_dir():
            return cifar.read_folder(place, FILES[split])
        return cifar.read_archive(place, FOLDER, FILES[split], other=PYTHON_FOLDER)
    except cifar.Damaged as error:
        raise UserError(f"{error}; fetch it again from {PAGE}") from None
    except FileNotFoundError:
        raise UserError(f"there is no file or folder {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None


def _refused(path):
    return UserError(
        f"{path} is CIFAR-10's python version, whose pickles are not read: download {ARCHIVE} from {PAGE} instead"
    )
