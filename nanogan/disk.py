"""Files that are either the old one or the new one, never half of one, and folders that one run at a time writes."""

import contextlib
import errno
import fnmatch
import os
import re
import socket
import tempfile
import time
from pathlib import Path

from nanogan.errors import UserError

WINDOWS = os.name == "nt"
if WINDOWS:
    import msvcrt
else:
    import fcntl

MARK = ".nanogan-results"  # a file that says which files beside it are results, not data
OF_RUNS = ("real.png", "losses.png", "training.gif", "samples", "checkpoints", "previous", "translated")
OF_EXPERIMENTS = (
    *("walk_*.png", "walk_*.gif", "plane_*.png", "turn.png", "arithmetic.png", "inversion.png", "nearest.png"),
    *("samples.png", "spectra.png", "curves.png", "gradient*.png", "guided.png", "features.png", "forgetting.png"),
    *("noisy.png", "mistakes.png", "duplicates.png", "scores*.png", "dcgan.png", "mlp.png", "wgan_modes.png"),
    *("theory.png", "theory.gif"),
)
RESULTS = (
    *OF_RUNS,
    "generated*.png",
    *OF_EXPERIMENTS,
)  # images that scripts write, and folders in which there are more
RUN = {b"log.csv", b"samples", b"checkpoints"}  # what the folder of a run holds
MAX_MARK = 1 << 12  # characters
LOCK_FILE = ".lock"
LOCKED_BYTE = 1 << 20  # on Windows, where a locked byte cannot be read: one behind the text
IS_LOCKED = (errno.EACCES, errno.EAGAIN, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK))
_HELD = set()  # of this process

# numbers of OSErrors
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)
OTHERS = (errno.EIO, errno.EFBIG, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY, errno.EINVAL)


class NotWritten(OSError):
    """A file that could not be written: the text names it, the reason, and what to do."""

    def __init__(self, path, error):
        super().__init__(error.errno, error.strerror or str(error))
        self.path = path

    def __str__(self):
        return f"{self.path} could not be written ({self.strerror}): {remedy(self)}"


def remedy(error):
    """What to do about an OSError when a file is written."""
    if error.errno in FULL:
        return "make room on the disk, or choose another place"
    if error.errno in FORBIDDEN:
        return "choose a place that can be written to"
    if error.errno in IN_THE_WAY:
        return "move away what has its name or that of its folder, or choose another place"
    return "check the path and the disk, or choose another place"


@contextlib.contextmanager
def replacing(path, *, durable=False):
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds, remove it if it does not.

    ``durable``: written through to the disk before and after the rename, so that a power cut too leaves the old file or
    the new one. What a killed process leaves behind, :func:`clear_temporaries` removes.

    Raises NotWritten, an OSError, for what the system says of the file; what else the block raises stays as it is.
    """
    try:
        with _replacing(Path(path), durable) as temporary:
            yield temporary
    except OSError as error:
        if isinstance(error, NotWritten) or not _is_about(error, Path(path)):
            raise
        raise NotWritten(path, error) from error


def _is_about(error, path):
    """Whether an OSError is of a file system, not of a network, and about ``path``, its folder or a file beside it."""
    if type(error).__module__ != "builtins" or error.errno not in (*FULL, *FORBIDDEN, *IN_THE_WAY, *OTHERS):
        return False
    if not isinstance(error.filename, (str, os.PathLike)):  # a write to an open file names none
        return True
    path, named = (Path(os.path.abspath(each)) for each in (path, error.filename))
    return named.parent == path.parent or named in path.parents


@contextlib.contextmanager
def _replacing(path, durable):
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


def try_folder(path):
    """Make the folder ``path`` if need be and write into it. Raises OSError if that is not possible."""
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass


def writable_folder(path, *, results=True):
    """Make the folder ``path`` if need be and return it as a Path. Raises UserError if it cannot be written to.

    ``results``: whether it is marked as a folder of results at once (see :func:`mark_results`).
    """
    path = Path(path)
    try:
        try_folder(path)
        if results:
            mark_results(path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write to the output folder {path} ({reason}): choose another with --out") from None
    return path


@contextlib.contextmanager
def provisional_folder(path):
    """Yield a :func:`writable_folder`; if the block raises, what was made for it is removed again, if it is empty."""
    path = Path(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield writable_folder(path, results=False)
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


class Lock:
    """Keeps a folder for one writer: ``with Lock(folder): ...``, or until :meth:`release`.

    The operating system's lock on the file .lock in the folder, which ends with its process, however that ends: what a
    killed one leaves behind keeps nobody out. A forked child does not hold it. Where the file system has no locks (some
    NFS), there is none, and work goes on.

    Raises UserError, naming process, host and time, if another writer, in this process or not, has the folder. The
    folder must exist.
    """

    def __init__(self, folder):
        self.path = Path(folder) / LOCK_FILE
        self._handle = None
        with contextlib.suppress(OSError):  # no locks here, or no file: the folder is used as it always was
            self._handle = self._locked()
        if self._handle is not None:
            _HELD.add(self)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.release()

    def release(self):
        """Let others write; the second time nothing happens."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        _HELD.discard(self)
        if WINDOWS:  # which removes no open file, so that what is removed is not the next one's
            os.close(handle)
        with contextlib.suppress(OSError):
            if WINDOWS or _is_at(handle, self.path):
                self.path.unlink()
        if not WINDOWS:
            os.close(handle)

    def forget(self):
        """Close a forked child's copy of the file; the lock stays the parent's."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _locked(self):
        """Return the locked file. Raises UserError if another has it, OSError if it cannot be locked at all."""
        for _ in range(100):
            handle = _open(self.path)
            try:
                if not _lock(handle):
                    raise UserError(
                        f"{self.path.parent} is being written by {_writer(handle)}: wait until it ends, stop it, or "
                        "choose another folder with --out"
                    )
                if _is_at(handle, self.path):  # not one that its last holder removed after it was opened here
                    text = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M')}"
                    with contextlib.suppress(OSError):  # on a full disk nobody is named
                        os.ftruncate(handle, 0)
                        os.write(handle, text.encode())
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)
        raise OSError(errno.ENOLCK, "the file is another each time")  # of a file system without lasting numbers


def _open(path):
    options = os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, os.O_RDWR | options, 0o666)
    except PermissionError:  # another user's file can be locked too
        return os.open(path, os.O_RDONLY | options, 0o666)


def _lock(handle):
    """Lock an open file and return True; False if another has it locked. Raises OSError where there are no locks."""
    try:
        if WINDOWS:
            os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in IS_LOCKED:
            return False
        raise
    return True


def _writer(handle):
    """What a lock file says of the process that has it."""
    os.lseek(handle, 0, os.SEEK_SET)
    text = os.read(handle, 200).decode(errors="replace")
    return text if re.fullmatch(r"process \d+ on [\w.-]+ since [\d :-]+", text) else "another process"


def _is_at(handle, path):
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _forget_locks():
    for lock in list(_HELD):
        lock.forget()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def mark_results(folder):
    """Note in ``folder`` that results are in it, so that they are not taken for images to train on.

    In an empty folder that is all that will be in it; in one with files of the user's own, what is called as one of
    RESULTS, but for those that are there already.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / MARK).exists():
        return
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    is_whole = not names or results_in(folder, set(map(os.fsencode, names))) is None  # a run of an earlier version
    patterns = ["*"] if is_whole else [pattern for pattern in RESULTS if not fnmatch.filter(names, pattern)]
    lines = ["# Written by nanogan. What matches a line below is not read as an image of this folder or one above it."]
    with replacing(folder / MARK) as temporary:
        temporary.write_text("\n".join([*lines, *patterns]) + "\n", encoding="utf-8")


def results_in(folder, names):
    """Return what is a result in ``folder``, which holds ``names`` (bytes): patterns of names, or None for all of it.

    Where :func:`mark_results` left no note, a run of an earlier version is known by what it left.
    """
    if MARK.encode() not in names or not os.path.isfile(os.path.join(os.fsencode(folder), MARK.encode())):
        return None if RUN <= names else ()
    with open(os.path.join(os.fsencode(folder), MARK.encode()), encoding="utf-8", errors="replace") as file:
        text = file.read(MAX_MARK + 1)
    whole = text if len(text) <= MAX_MARK else text.rpartition("\n")[0]  # without a line that is cut
    lines = [line for line in whole.splitlines() if line and not line.startswith("#")]
    return None if "*" in lines else tuple(lines)


def is_ours(folder):
    """Whether nanogan made ``folder``, so that all of it are results."""
    return results_in(folder, {MARK.encode()}) is None


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
