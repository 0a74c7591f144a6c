"""MNIST and Fashion-MNIST: found on this machine, or downloaded once."""

import os
import re
from pathlib import Path

from nanogan.data.formats.idx import read_idx
from nanogan.data.formats.npz import load_npz
from nanogan.data.sets.download import cache_dir as cache_dir  # its callers know it from here
from nanogan.data.sets.download import data_dir as shared_dir
from nanogan.data.sets.download import download_file, folders_named, usual_folders
from nanogan.errors import DataNotFound, UserError

# Mirrors are tried in turn. The MD5 sums are those that the data sets' authors publish.
SOURCES = {
    "mnist": {
        "mirrors": (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        "md5": {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    },
    "fashion-mnist": {
        "mirrors": (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        "md5": {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    },
}
MAX_DOWNLOAD = 1 << 26  # 64 MiB; the largest file has 26


def load_mnist(name="mnist", *, split="train", data_dir=None, download=True):
    """Return pictures, uint8 (N, 28, 28, 1), and labels, uint8 (N,), of "mnist" or "fashion-mnist".

    ``split`` is "train" or "test". The files are looked for in ``data_dir`` (itself, or a folder ``name`` in it); if
    that is not given, in the folder ``name`` below $NANOGAN_DATA (or in that itself, if it has the name) and below the
    user's cache; if they are in neither, they are downloaded into the cache and their checksums verified. As others
    unpack them they serve too: in a folder raw (torchvision), as train-images.idx3-ubyte, also in a folder of that
    name (Kaggle), or as <name>.npz (Keras).

    Raises DataNotFound if they are not on this machine and cannot be downloaded, UserError if they are damaged or do
    not belong together.
    """
    if name not in SOURCES:
        raise UserError(f"unknown data set {name!r}: use one of {', '.join(SOURCES)}")
    if split not in ("train", "test"):
        raise UserError(f"unknown split {split!r}: use train or test")
    found = _find(name, split, data_dir)
    if found is None and data_dir is not None:
        raise DataNotFound(
            f"{data_dir} holds no {_names(split)[0]} with its labels (.gz or not): check --data-dir; "
            "a folder of images is what examples/folder_dcgan.py takes"
        )
    if found is None and not download:
        raise DataNotFound(f"{name} is not on this machine: allow the download, or name the folder that holds it")
    if found is None:
        found = [_download(name, f"{file}.gz") for file in _names(split)]
    if len(found) == 1:
        return load_npz(found[0], split=split)
    images_path, labels_path = found
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or 0 in images.shape:
        raise UserError(
            f"{images_path} and {labels_path} do not belong together: N pictures and N labels were expected, got "
            f"arrays of shapes {images.shape} and {labels.shape}"
        )
    return images[..., None], labels


def _names(split):
    part = {"train": "train", "test": "t10k"}[split]
    return f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"


def folder_of_idx(path):
    """Return the folder of MNIST's train images, if ``path`` is their file; else ``path``."""
    path = Path(path)
    return path.parent if os.path.isfile(path) and _file(path.parent, "train", "images") == path else path


def holds_idx(folder):
    """Whether a folder, or torchvision's folder raw in it, holds images in idx files."""
    return any(_file(each, part, "images") for each in _with_raw([Path(folder)]) for part in ("train", "t10k"))


def _find(name, split, data_dir):
    """Return the paths of images and labels, or that of the one file with both, or None."""
    if data_dir is not None:
        if not Path(data_dir).is_dir():
            raise UserError(f"there is no folder {data_dir}: check --data-dir")
        folders = [Path(data_dir), *folders_named(data_dir, name)]
    else:
        folders = usual_folders(name)
    part = _names(split)[0].split("-")[0]
    for folder in _with_raw(folders):
        found = [_file(folder, part, what) for what in ("images", "labels")]
        if None not in found:
            return found
        if (folder / f"{name}.npz").is_file():
            return [folder / f"{name}.npz"]
    shared = None if data_dir is not None else shared_dir()
    return [shared / f"{name}.npz"] if shared is not None and (shared / f"{name}.npz").is_file() else None


def _with_raw(folders):
    return [each for folder in folders for each in (folder, folder / "raw")]


def _file(folder, part, what):
    """Return the path of a file, or None. A part may be named: train-first3615-images-idx3-ubyte.gz.

    Kaggle's archives hold train-images.idx3-ubyte, and train-images-idx3-ubyte in a folder of the same name.
    """
    pattern = rf"{part}-(.+-)?{what}[-.]idx\d-ubyte(\.gz)?"
    try:
        names = [name for name in os.listdir(folder) if re.fullmatch(pattern, name)]
    except OSError:
        return None  # no folder, or none that can be read
    paths = [folder / name for name in sorted(names, key=lambda name: (name[len(part) + 1 :].index(what), name))]
    inside = [_file(path, part, what) for path in paths if path.is_dir()]
    return next((path for path in [*paths, *inside] if path is not None and path.is_file()), None)


def _download(name, file):
    """Return the path of ``file`` in the cache, fetched from the first mirror that delivers it whole."""
    source = SOURCES[name]
    return download_file(name, file, mirrors=source["mirrors"], md5=source["md5"][file], max_bytes=MAX_DOWNLOAD)
