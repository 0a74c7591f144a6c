"""Files that are either the old one or the new one, never half of one."""

import contextlib
import os
import tempfile
from pathlib import Path

from nanogan.errors import UserError


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds, remove it if it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        yield Path(temporary)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's files are readable by their owner only
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


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


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
