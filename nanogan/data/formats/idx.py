"""The idx format of MNIST: a big-endian header of magic number and sizes, then the bytes. Gzipped or not."""

import gzip
import math
import os
import struct
import zlib

import numpy as np

from nanogan.errors import UserError

MAX_BYTES = 1 << 30  # MNIST's largest file holds 47 MB


def read_idx(path):
    """Return the array in the idx file ``path``: uint8, of 1 dimension (labels) or 3 (pictures, N x H x W).

    The header's sizes are checked against the bytes that are there, and bytes are only read as far as the header
    promises. Raises UserError, naming file and reason, if the file is not idx, truncated, too long or corrupt.
    """
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else open(path, "rb") as file:
            return _parse(file, path)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except EOFError:
        raise _damaged(path, "its gzip stream ends too early") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"its gzip stream is corrupt: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None


def _parse(file, path):
    header = file.read(4)
    if len(header) < 4 or header[:2] != b"\0\0":
        raise _damaged(path, "it does not start with an idx header")
    kind, ndim = header[2], header[3]
    if kind != 8 or ndim not in (1, 3):
        raise _damaged(path, f"unsigned bytes of 1 or 3 dimensions were expected, the header says type {kind}, {ndim}")
    sizes = file.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise _damaged(path, "it ends within its header")
    shape = struct.unpack(f">{ndim}I", sizes)
    count = math.prod(shape)
    if count > MAX_BYTES:
        raise _damaged(path, f"its header promises {count} bytes, more than any idx data set has")
    data = file.read(count + 1)  # one more than promised, to see a longer file; a gzip file's checksum is read with it
    if len(data) != count:
        found = "more" if len(data) > count else f"{len(data)}"
        raise _damaged(path, f"its header promises {count} bytes, shape {shape}, but it holds {found}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _damaged(path, reason):
    return UserError(f"{os.fspath(path)} is not a whole idx file: {reason}; delete it and it is downloaded again")
