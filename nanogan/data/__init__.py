"""Data sets and the loader that feeds them to a training step."""

from nanogan.data.few_labels import few_labels
from nanogan.data.formats.idx import read_idx
from nanogan.data.formats.npz import load_npz
from nanogan.data.loader import Loader
from nanogan.data.sets.captions import Captions, captioned_digits, load_captioned
from nanogan.data.sets.cifar10 import load_cifar10
from nanogan.data.sets.digits import builtin_digits
from nanogan.data.sets.faces import builtin_faces
from nanogan.data.sets.folder import PictureFolder
from nanogan.data.sets.mnist import load_mnist
from nanogan.data.sets.svhn import load_svhn

__all__ = [
    "Captions",
    "Loader",
    "PictureFolder",
    "builtin_digits",
    "builtin_faces",
    "captioned_digits",
    "load_captioned",
    "few_labels",
    "load_cifar10",
    "load_mnist",
    "load_npz",
    "load_svhn",
    "read_idx",
]
