"""Pictures by name or path: the data sets that nanogan knows, or a folder."""

import os
from pathlib import Path

import numpy as np

from nanogan import images
from nanogan.data.formats.npz import load_npz
from nanogan.data.sets.cifar10 import holds_cifar10, load_cifar10
from nanogan.data.sets.digits import builtin_digits
from nanogan.data.sets.download import folders_named, plain
from nanogan.data.sets.faces import builtin_faces
from nanogan.data.sets.folder import PictureFolder
from nanogan.data.sets.mnist import folder_of_idx, holds_idx, load_mnist
from nanogan.data.sets.svhn import files_in, load_svhn, split_of
from nanogan.errors import UserError

NAMES = ("mnist", "fashion-mnist", "cifar10", "digits", "faces")
CIFAR10 = ("cifar-10-batches-bin", "cifar-10-batches-py")  # what its archives unpack to; the second is refused


class OtherChannels(UserError):
    """A data set is in colour where grey images were expected."""


def load_pictures(name, *, size, channels, split="train", count=None, seed=0, progress=None):
    """Return images, uint8 (N, size, size, channels), and their labels, integers (N,), or None if they have none.

    ``name`` is one of NAMES, CIFAR-10's archive or folder, SVHN's train_32x32.mat or its folder, a folder with MNIST's
    idx files, an .npz file (see :func:`nanogan.data.load_npz`), or a folder of images, which is returned as a
    PictureFolder, decoded when it is indexed; it has labels if all its images lie in class subfolders. ``count`` takes
    the first ones; ``progress`` wraps what takes long (tqdm). A folder has no "test" split. Of the built-in "faces" the
    label is the sum of attribute i times 2^i; a folder of that name in the working directory comes first.

    Raises UserError if the data set cannot be found, or has other channels.
    """
    load = _set(name, size, count, seed, progress)
    if load is None:
        if split != "train":
            raise UserError(f"{name} is a folder, which has no {split} split: give a folder of its own")
        folder = PictureFolder(name, size=size, channels=channels, progress=progress)
        if count is None:
            return folder, folder.labels
        return folder[:count], None if folder.labels is None else folder.labels[:count]
    pictures, labels = load(split)
    pictures, labels = pictures[:count], labels[:count]
    if pictures.shape[3] == 1 and channels == 3:
        pictures = np.repeat(pictures, 3, axis=3)
    if pictures.shape[3] != channels:
        raise OtherChannels(f"the images of {name} have {pictures.shape[3]} channels, {channels} were expected")
    return images.resize(pictures, size, progress=progress), labels


def is_set(name):
    """Whether ``name`` is a data set's name or its own file, not a folder of pictures."""
    return _set(name, 32, 1, 0, None) is not None


def _set(name, size, count, seed, progress):
    """Return the function of ``split`` that loads a data set; None for a folder of pictures."""
    path = Path(name)
    if os.path.basename(name) == str(name) and not os.path.exists(path):  # MNIST or FashionMNIST, as others write them
        name = next((each for each in NAMES if plain(each) == plain(str(name))), name)
    if name in ("mnist", "fashion-mnist"):
        return lambda split: load_mnist(name, split=split)
    if name == "cifar10":
        return lambda split: load_cifar10(split=split)
    if name == "digits":  # other seeds draw other digits: a test set that was never trained on
        seeds = {"train": seed, "test": seed + 1_000_000}
        return lambda split: builtin_digits(count or 60_000, seed=seeds[split], progress=progress)
    if name == "faces" and not path.is_dir():  # a likely name of a user's own folder
        return lambda split: _faces(count, size, seed if split == "train" else seed + 1_000_000, progress)
    if path.suffix == ".npz":
        return lambda split: load_npz(path, split=split)
    if path.suffix.lower() == ".mat" or files_in(path):
        return lambda split: _svhn(path, split)
    if path.name.endswith((".tar.gz", ".tgz", ".tar")) or path.name in CIFAR10 or _holds_cifar10(path):
        return lambda split: load_cifar10(path, split=split)
    return _idx(path)


def _svhn(path, split):
    """SVHN's file or folder. Another split than the one that a file holds lies beside it."""
    if path.is_dir():
        return load_svhn(path, split=split)
    if split == "train":  # whatever it holds is trained on
        return load_svhn(path)
    if split_of(path) in (None, split):
        raise UserError(f"{path} has no {split} split beside the images that it is taken for: name train_32x32.mat")
    return load_svhn(path.parent, split=split)


def _holds_cifar10(path):
    return path.is_dir() and (holds_cifar10(path) or any((path / folder).is_dir() for folder in CIFAR10))


def _idx(path):
    """The function of ``split`` that loads the idx files in a folder, or in torchvision's MNIST/raw in it, or None."""
    path = folder_of_idx(path)
    if holds_idx(path):
        return lambda split: load_mnist(data_dir=path, split=split)
    names = [name for name in ("mnist", "fashion-mnist") if any(map(holds_idx, folders_named(path, name)))]
    if len(names) > 1:
        raise UserError(f"{path} holds both {' and '.join(names)}: give the folder of one of them")
    return (lambda split: load_mnist(names[0], data_dir=path, split=split)) if names else None


def _faces(count, size, seed, progress):
    """Built-in faces, of the size to be resized from, and one label for all attributes."""
    faces, attributes = builtin_faces(count or 20_000, size=32 if size <= 32 else 64, seed=seed, progress=progress)
    return faces, sum(values << i for i, values in enumerate(attributes.values()))
