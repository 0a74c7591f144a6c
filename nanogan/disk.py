"""Files that are either the old one or the new one, never half of one."""

import contextlib
import os
import tempfile
from pathlib import Path

from nanogan.errors import UserError


@contextlib.contextmanager
def replacing(path, *, durable=False):
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds, remove it if it does not.

    ``durable``: written through to the disk before and after the rename, so that a power cut too leaves the old file or
    the new one. What a killed process leaves behind, :func:`clear_temporaries` removes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        yield Path(temporary)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's files are readable by their owner only
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def clear_temporaries(path):
    """Remove what killed processes left while they were :func:`replacing` ``path`` (which may hold a *)."""
    path = Path(path)
    for temporary in path.parent.glob(f".{path.stem}-????????{path.suffix}"):
        temporary.unlink(missing_ok=True)


def writable_folder(path):
    """Make the folder ``path`` if need be and return it as a Path. Raises UserError if it cannot be written to."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write to the output folder {path} ({reason}): choose another with --out") from None
    return path


def _sync_folder(path):
    """Write a rename through to the disk, where the system can (Windows opens no folders)."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
