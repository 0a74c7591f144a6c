"""CIFAR-10 from its author's archives, the python version and the binary version, packed or unpacked."""

import gzip
import math
import pickletools
import tarfile
import zlib
from pathlib import Path

import numpy as np

from nanogan.data.download import download_file, usual_folders
from nanogan.errors import DataNotFound, UserError

MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
# What the author publishes: name of the archive, its MD5 sum, its folder, and the files of each split.
BINARY = {
    "archive": "cifar-10-binary.tar.gz",
    "md5": "c32a1d4ab5d03f1284b67883e8d87530",
    "folder": "cifar-10-batches-bin",
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}
PYTHON = {
    "archive": "cifar-10-python.tar.gz",
    "md5": "c58f30108f718f92721af3b95e74349a",
    "folder": "cifar-10-batches-py",
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
PIXELS = 3 * 32 * 32  # bytes of a picture: all its red, row by row, then all its green, then all its blue
MAX_BATCH = 40 << 20  # bytes of a file of 10,000 pictures; the largest has 31 million
MAX_UNPACKED = 256 << 20  # bytes of an archive unpacked; the larger one has 186 million
MAX_INSTRUCTIONS = 1_000_000  # of a pickle; a batch has some 40,000
MAX_DOWNLOAD = 200 << 20  # bytes; the larger archive has 170 million


def load_cifar10(path=None, *, split="train", download=True):
    """Return pictures, uint8 (N, 32, 32, 3), RGB, and labels from 0 to 9, uint8 (N,), of CIFAR-10.

    ``split`` is "train" (N = 50,000) or "test" (10,000). ``path`` is cifar-10-binary.tar.gz, cifar-10-python.tar.gz,
    the folder cifar-10-batches-bin or cifar-10-batches-py that they unpack to, or a folder that holds one of these.
    Archives are read where they are: nothing is unpacked to disk. Without ``path`` they are looked for in the folder
    cifar10 below $NANOGAN_DATA and below the user's cache; if they are in neither, the binary version is downloaded
    into the cache and its checksum verified.

    Raises DataNotFound if there is no CIFAR-10, UserError if it is damaged.
    """
    if split not in ("train", "test"):
        raise UserError(f"unknown split {split!r}: use train or test")
    if path is None:
        path = next((folder for folder in usual_folders("cifar10") if _find(folder, split)), None)
        if path is None and not download:
            raise DataNotFound("cifar10 is not on this machine: allow the download, or give the path of its archive")
        if path is None:
            path = download_file(
                "cifar10", BINARY["archive"], mirrors=MIRRORS, md5=BINARY["md5"], max_bytes=MAX_DOWNLOAD
            )
    path = Path(path)
    if path.is_dir():
        found = _find(path, split)
        if found is None:
            raise DataNotFound(
                f"{path} holds neither {BINARY['archive']} nor {PYTHON['archive']}, and no folder with all the files "
                f"of the split {split} ({BINARY[split][0]} or {PYTHON[split][0]}, ...): check the path"
            )
        version, path = found
    else:
        version = None
    try:
        if path.is_dir():
            files = {file: _read_file(path / file) for file in version[split]}
        else:
            version, files = _read_archive(path, split)
    except FileNotFoundError:
        raise UserError(f"there is no file or folder {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    parse = _parse_binary if version is BINARY else _parse_python
    batches = [parse(files[file], f"{file} in {path}") for file in version[split]]
    planes = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.concatenate([labels for _, labels in batches])


def _find(folder, split):
    """Return (version, path of its folder or archive) of the first that is in ``folder``, or None."""
    for version in (BINARY, PYTHON):
        for place in (folder, folder / version["folder"]):
            if all((place / file).is_file() for file in version[split]):
                return version, place
    for version in (BINARY, PYTHON):
        if (folder / version["archive"]).is_file():
            return version, folder / version["archive"]
    return None


def _damaged(name, reason):
    return UserError(f"{name} is not whole: {reason}; fetch it again from {MIRRORS[0]}cifar.html")


def _read_file(path):
    with open(path, "rb") as file:
        data = file.read(MAX_BATCH + 1)
    if len(data) > MAX_BATCH:
        raise _damaged(path, f"it has more than the {MAX_BATCH} bytes that a batch has at most")
    return data


# ------------------------------------------------------------------------------------------------------- archives


class _Bounded:
    """The unpacked bytes of a gzip file, which refuse to be more than MAX_UNPACKED, whatever they are read for."""

    def __init__(self, file):
        self._file, self._left = file, MAX_UNPACKED

    def read(self, size):
        data = self._file.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.TarError(f"it unpacks to more than the {MAX_UNPACKED} bytes that were expected at most")
        return data


def _read_archive(path, split):
    """Return the archive's version and {file: its bytes} of a split. Files are known by name; nothing else is read."""
    wanted = {f"{version['folder']}/{file}": file for version in (BINARY, PYTHON) for file in version[split]}
    files = {}
    try:
        with gzip.open(path, "rb") as unzipped:
            bounded = _Bounded(unzipped)
            with tarfile.open(fileobj=bounded, mode="r|") as archive:  # "|": from start to end, never back
                for member in archive:
                    file = wanted.get(member.name.removeprefix("./"))
                    if file is None:
                        continue
                    if not member.isreg() or file in files:
                        raise _damaged(path, f"{member.name} was expected once and as a plain file")
                    if member.size > MAX_BATCH:
                        raise _damaged(path, f"{member.name} has {member.size} bytes, a batch {MAX_BATCH} at most")
                    files[file] = archive.extractfile(member).read()
            while bounded.read(1 << 20):  # to the end, where gzip's checksum is
                pass
    except EOFError:
        raise _damaged(path, "its gzip stream ends too early") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"its gzip stream is corrupt: {error}") from None
    except UserError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:  # the last three: odd headers
        raise _damaged(path, f"its tar archive is corrupt: {error}") from None
    version = max((BINARY, PYTHON), key=lambda version: sum(file in files for file in version[split]))
    missing = [file for file in version[split] if file not in files]
    if missing:
        raise _damaged(path, f"there is no {', '.join(missing)} in the folder {version['folder']} of this archive")
    return version, files


# -------------------------------------------------------------------------------------------------------- batches


def _parse_binary(data, name):
    """Records of one byte, the label, and PIXELS bytes. Returns uint8 (N, PIXELS) and uint8 (N,)."""
    if not data or len(data) % (1 + PIXELS):
        raise _damaged(name, f"records of {1 + PIXELS} bytes were expected, it has {len(data)} bytes")
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + PIXELS)
    return records[:, 1:], _checked_labels(records[:, 0], name)


def _parse_python(data, name):
    """A pickled dictionary with b"data", an array uint8 (N, PIXELS), and b"labels", a list of N numbers."""
    try:
        batch = _read_pickle(data)
        pixels, labels = _array(batch[b"data"]), batch[b"labels"]
        if type(labels) is not list or not all(type(label) is int and 0 <= label <= 255 for label in labels):
            raise ValueError("its labels are no list of numbers from 0 to 9")
    except KeyError as error:
        raise _damaged(name, f"there is no {error} in its dictionary") from None
    except ValueError as error:
        raise _damaged(name, f"{error}") from None
    if pixels.ndim != 2 or pixels.shape[1] != PIXELS or not labels or len(labels) != len(pixels):
        raise _damaged(
            name, f"N pictures of {PIXELS} bytes and N labels were expected, got {pixels.shape} and {len(labels)}"
        )
    return pixels, _checked_labels(np.array(labels, np.uint8), name)


def _checked_labels(labels, name):
    if labels.max() > 9:
        raise _damaged(name, f"labels from 0 to 9 were expected, got {labels.max()}")
    return labels


# A pickle is a program: it names functions and has them called. This is a machine for the few instructions that these
# batches consist of, in which a name stays a name and a call stays a note of what was to be called with what. Nothing
# of the file is ever looked up, imported or called; what comes out is dictionaries, lists, numbers, bytes and notes.


class _Note(list):
    """[what was to be called, its arguments, its state or None]."""


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = ("BININT", "BININT1", "BININT2", "BINUNICODE", "BINBYTES", "SHORT_BINBYTES")
_BYTES_OF_PYTHON_2 = ("BINSTRING", "SHORT_BINSTRING")
_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")  # before NumPy 2, since


def _read_pickle(data):
    """Return the dictionary in a pickle of protocol 2. Raises ValueError at anything that no such batch holds."""
    stack, marks, memo = [], [], {}

    def taken(start):
        items = stack[start:]
        del stack[start:]
        return items

    try:
        for done, (opcode, value, _) in enumerate(pickletools.genops(data)):
            name = opcode.name
            if done == MAX_INSTRUCTIONS:
                raise ValueError(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")
            if name in _VALUES:
                stack.append(value)
            elif name in _BYTES_OF_PYTHON_2:
                stack.append(value.encode("latin-1"))  # pickletools gives a text
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name == "PROTO":
                pass
            elif name == "MARK":
                marks.append(len(stack))
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[value] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[value])
            elif name == "EMPTY_LIST":
                stack.append([])
            elif name == "EMPTY_DICT":
                stack.append({})
            elif name == "EMPTY_TUPLE":
                stack.append(())
            elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
                stack.append(tuple(taken(-int(name[-1]))))
            elif name == "TUPLE":
                stack.append(tuple(taken(marks.pop())))
            elif name in ("APPEND", "APPENDS"):
                items = taken(marks.pop() if name == "APPENDS" else -1)
                _expect(stack[-1], list).extend(items)
            elif name in ("SETITEM", "SETITEMS"):
                items = taken(marks.pop() if name == "SETITEMS" else -2)
                if not all(type(key) in (bytes, str) for key in items[::2]):  # of others, hash may never return
                    raise ValueError("its pickle is corrupt")
                _expect(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
            elif name == "GLOBAL":
                stack.append(_Note([value, None, None]))
            elif name == "REDUCE":
                arguments, function = stack.pop(), _expect(stack.pop(), _Note)
                stack.append(_called(function, arguments))
            elif name == "BUILD":
                state = stack.pop()
                _expect(stack[-1], _Note)[2] = state
            elif name == "STOP":
                return _expect(stack.pop(), dict)
            else:
                raise ValueError(f"its pickle holds {name}, which no batch of CIFAR-10 does")
    except (IndexError, KeyError):
        raise ValueError("its pickle takes more from its stack than it put there") from None
    raise ValueError("its pickle ends too early")


def _expect(value, kind):
    if type(value) is not kind:
        raise ValueError("its pickle is corrupt")
    return value


def _called(function, arguments):
    """Return the note of a call; Python 3's way to write bytes in protocol 2 is understood at once."""
    name = function[0]
    if name == "_codecs encode" and function[1] is None:
        if not (type(arguments) is tuple and len(arguments) == 2 and type(arguments[0]) is str):
            raise ValueError("its pickle is corrupt")
        if arguments[1] not in ("latin1", "latin-1"):
            raise ValueError("its pickle is corrupt")
        return arguments[0].encode("latin-1")
    if name == "__builtin__ bytes" and arguments == ():
        return b""
    if name in _RECONSTRUCT or name == "numpy dtype":
        return _Note([name, arguments, None])
    raise ValueError(f"its pickle wants to call {name!r}, which no batch of CIFAR-10 does")


def _array(note):
    """Return the array, uint8, that a note describes. Raises ValueError if it describes anything else."""
    if type(note) is not _Note or note[0] not in _RECONSTRUCT or type(note[2]) is not tuple or len(note[2]) != 5:
        raise ValueError("its data is no NumPy array")
    version, shape, dtype, is_fortran, data = note[2]
    if type(dtype) is not _Note or dtype[0] != "numpy dtype" or _first(dtype[1]) not in ("u1", b"u1"):
        raise ValueError("its data is no array of bytes")
    if type(data) is not bytes or type(shape) is not tuple or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError("its data is no whole NumPy array")
    if is_fortran or math.prod(shape) != len(data):
        raise ValueError(f"its data promises shape {shape}, but holds {len(data)} bytes")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _first(items):
    return items[0] if type(items) is tuple and items else None
