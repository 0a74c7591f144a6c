"""The trained networks that an experiment asks for."""

from pathlib import Path

import numpy as np

from nanogan import checkpoint
from nanogan.errors import UserError
from nanogan.models import paper


def existing(path, kind="checkpoint", *, script="mnist_dcgan.py", flag=None):
    """Return ``path``. Raises UserError if there is no such file, saying which example makes one, and with which flag.

    ``kind`` is what the file should hold, ``script`` the example that writes it, ``flag`` the one that names another.
    """
    if Path(path).is_dir():
        checkpoint.check_is_file(path)  # names files in it
    if not Path(path).is_file():
        another = f"name one with {flag}" if flag else "name a file that training saved"
        raise UserError(f"there is no {kind} {path}: train one first (python examples/{script}), or {another}")
    return path


def generator(path):
    """Return the generator in ``path``, on the CPU. Raises UserError if there is none, saying how to train one."""
    return checkpoint.load_generator(existing(path))


def conditional(path):
    """Return the conditional generator in ``path``, on the CPU. Raises UserError if there is none, as above."""
    return checkpoint.load_conditional(existing(path, script="conditional_dcgan.py"))


def discriminator(path, beside=None):
    """Return the discriminator in ``path``, on the CPU; if ``path`` is None, the one that belongs to ``beside``.

    That is ``discriminator.safetensors`` in the folder of the generator ``beside``; if there is none, ``beside``
    itself, which may be a run's checkpoint. Raises UserError if there is none, saying how to train one.
    """
    if path is None:
        path = Path(beside).with_name("discriminator.safetensors")
        path = path if path.is_file() else Path(beside)
    return checkpoint.load_discriminator(existing(path))


def any_discriminator(path):
    """Return the discriminator in ``path``, on the CPU: a DCGAN's, or one of :mod:`nanogan.models.paper`.

    Raises UserError if there is none, saying how to train one.
    """
    try:
        options = paper.options_of(checkpoint.read(existing(path)))
    except UserError:
        return discriminator(path)
    d = checkpoint.load(path, paper.discriminator(**options))
    if not all(np.isfinite(array).all() for array in d.state_dict().values()):
        raise UserError(f"{path} is not a discriminator: its weights are not finite numbers")
    return d
