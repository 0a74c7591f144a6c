"""Data sets and the loader that feeds them to a training step."""

from nanogan.data.cifar10 import load_cifar10
from nanogan.data.digits import builtin_digits
from nanogan.data.faces import builtin_faces
from nanogan.data.folder import PictureFolder
from nanogan.data.idx import read_idx
from nanogan.data.loader import Loader
from nanogan.data.mnist import load_mnist
from nanogan.data.npz import load_npz
from nanogan.data.svhn import load_svhn

__all__ = [
    "Loader",
    "PictureFolder",
    "builtin_digits",
    "builtin_faces",
    "load_cifar10",
    "load_mnist",
    "load_npz",
    "load_svhn",
    "read_idx",
]
