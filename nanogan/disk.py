"""Files that are either the old one or the new one, never half of one."""

import contextlib
import os
import tempfile
from pathlib import Path

from nanogan.errors import UserError

MARK = ".nanogan-results"  # a file that says which files beside it are results, not data
IMAGES = ("real.png", "losses.png", "training.gif", "generated*.png")  # that runs and --generate write
RESULTS = (*IMAGES, "samples", "checkpoints", "previous", "translated")  # and folders in which there are more
RUN = {b"log.csv", b"samples", b"checkpoints"}  # what the folder of a run holds
MAX_MARK = 1 << 12  # characters


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


def writable_folder(path, *, results=True):
    """Make the folder ``path`` if need be and return it as a Path. Raises UserError if it cannot be written to.

    ``results``: whether it is marked as a folder of results at once (see :func:`mark_results`).
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        if results:
            mark_results(path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write to the output folder {path} ({reason}): choose another with --out") from None
    return path


def mark_results(folder):
    """Note in ``folder`` that results are in it, so that they are not taken for images to train on.

    In an empty folder that is all that will be in it; in one with files of the user's own, what is called as RESULTS.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / MARK).exists():
        return
    is_empty = all(path.name.startswith(".") for path in folder.iterdir())
    lines = ["# Written by nanogan. What matches a line below is not read as an image of this folder or one above it."]
    with replacing(folder / MARK) as temporary:
        temporary.write_text("\n".join([*lines, *(["*"] if is_empty else RESULTS)]) + "\n", encoding="utf-8")


def results_in(folder, names):
    """Return what is a result in ``folder``, which holds ``names`` (bytes): patterns of names, or None for all of it.

    Where :func:`mark_results` left no note, a run of an earlier version is known by what it left.
    """
    if MARK.encode() not in names:
        return None if RUN <= names else ()
    with open(os.path.join(os.fsencode(folder), MARK.encode()), encoding="utf-8", errors="replace") as file:
        lines = [line for line in file.read(MAX_MARK).splitlines() if line and not line.startswith("#")]
    return None if "*" in lines else tuple(lines)


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
