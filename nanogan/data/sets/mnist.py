"""MNIST and Fashion-MNIST: found on this machine, or downloaded once."""

from pathlib import Path

from nanogan.data.formats.idx import read_idx
from nanogan.data.sets.download import cache_dir as cache_dir  # its callers know it from here
from nanogan.data.sets.download import download_file, usual_folders
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
    that is not given, in the folder ``name`` below $NANOGAN_DATA and below the user's cache; if they are in neither,
    they are downloaded into the cache and their checksums verified.

    Raises DataNotFound if they are not on this machine and cannot be downloaded, UserError if they are damaged or do
    not belong together.
    """
    if name not in SOURCES:
        raise UserError(f"unknown data set {name!r}: use one of {', '.join(SOURCES)}")
    if split not in ("train", "test"):
        raise UserError(f"unknown split {split!r}: use train or test")
    images_path, labels_path = _find(name, split, data_dir) or (None, None)
    if images_path is None:
        if data_dir is not None:
            raise DataNotFound(f"{data_dir} holds no {_names(split)[0]} with its labels (.gz or not): check --data-dir")
        if not download:
            raise DataNotFound(f"{name} is not on this machine: allow the download, or name the folder that holds it")
        images_path, labels_path = (_download(name, f"{file}.gz") for file in _names(split))

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


def _find(name, split, data_dir):
    """Return the paths of pictures and labels, or None. A part may be named: train-first3615-images-idx3-ubyte.gz."""
    if data_dir is not None:
        if not Path(data_dir).is_dir():
            raise UserError(f"there is no folder {data_dir}: check --data-dir")
        folders = [Path(data_dir), Path(data_dir) / name]
    else:
        folders = usual_folders(name)
    for folder in folders:
        found = []
        for file in _names(split):
            part, rest = file.split("-", 1)
            exact = [folder / file, folder / f"{file}.gz"]
            similar = sorted(folder.glob(f"{part}-*{rest}")) + sorted(folder.glob(f"{part}-*{rest}.gz"))
            found += [path for path in exact + similar if path.is_file()][:1]
        if len(found) == 2:
            return found
    return None


def _download(name, file):
    """Return the path of ``file`` in the cache, fetched from the first mirror that delivers it whole."""
    source = SOURCES[name]
    return download_file(name, file, mirrors=source["mirrors"], md5=source["md5"][file], max_bytes=MAX_DOWNLOAD)
