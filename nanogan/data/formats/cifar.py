"""CIFAR-10's binary batches, in a folder or in a gzipped tar archive, of which only these files are read."""

import gzip
import tarfile
import zlib

import numpy as np

PIXELS = 3 * 32 * 32  # bytes of an image: all its red, row by row, then all its green, then all its blue
MAX_BATCH = 40 << 20  # bytes of a file of 10,000 images; they have 31 million
MAX_UNPACKED = 256 << 20  # bytes of an archive unpacked; it has 184 million


class Damaged(ValueError):
    """What is wrong with a file, and in which it was found."""

    def __init__(self, where, reason):
        super().__init__(f"{where} is not whole: {reason}")


def parse_batch(data, where):
    """Return the pixels, uint8 (N, PIXELS), and the labels from 0 to 9, uint8 (N,), of a batch's bytes.

    A record is one byte, the label, and PIXELS bytes. ``where`` names the batch. Raises Damaged.
    """
    if not data or len(data) % (1 + PIXELS):
        raise Damaged(where, f"records of {1 + PIXELS} bytes were expected, it has {len(data)} bytes")
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + PIXELS)
    labels = records[:, 0]
    if labels.max() > 9:
        raise Damaged(where, f"labels from 0 to 9 were expected, got {labels.max()}")
    return records[:, 1:], labels


def read_folder(path, files):
    """Return {file: its bytes} of the ``files`` in a folder. Raises Damaged for one too large."""
    return {file: _read_file(path / file) for file in files}


def _read_file(path):
    with open(path, "rb") as file:
        data = file.read(MAX_BATCH + 1)
    if len(data) > MAX_BATCH:
        raise Damaged(path, f"it has more than the {MAX_BATCH} bytes that a batch has at most")
    return data


def read_archive(path, folder, files, *, other=None):
    """Return {file: its bytes} of the ``files`` in the ``folder`` of a .tar.gz archive. Nothing is unpacked to disk.

    Files are known by name; the contents of all others are passed over. ``other`` is the folder of another archive that
    may be mistaken for this one: the result is then None.

    Raises Damaged if the archive is corrupt or lacks a file, OSError if it cannot be read.
    """
    wanted, found, is_other = {f"{folder}/{file}": file for file in files}, {}, False
    try:
        with _unzipped(path) as unzipped:
            bounded = _Bounded(unzipped)
            with tarfile.open(fileobj=bounded, mode="r|") as archive:  # "|": from start to end, never back
                for member in archive:
                    name = member.name.removeprefix("./")
                    is_other = is_other or (other is not None and name.split("/")[0] == other)
                    if name in wanted:
                        found[wanted[name]] = _member(archive, member, path, wanted[name] in found)
            while bounded.read(1 << 20):  # to the end, where gzip's checksum is
                pass
    except EOFError:
        raise Damaged(path, "its gzip stream ends too early") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise Damaged(path, f"its gzip stream is corrupt: {error}") from None
    except Damaged:
        raise
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:  # the last three: odd headers
        raise Damaged(path, f"its tar archive is corrupt: {error}") from None
    if is_other and not found:
        return None
    missing = [file for file in files if file not in found]
    if missing:
        raise Damaged(path, f"there is no {', '.join(missing)} in the folder {folder} of this archive")
    return found


def _unzipped(path):
    """Open an archive, whether it is still gzipped or not."""
    with open(path, "rb") as file:
        is_tar = file.read(257 + 5)[257:] == b"ustar"  # a tar file's mark
    return open(path, "rb") if is_tar else gzip.open(path, "rb")


def _member(archive, member, path, is_second):
    """Return the bytes of a member, which must be a plain file of a batch's size."""
    if not member.isreg() or is_second:
        raise Damaged(path, f"{member.name} was expected once and as a plain file")
    if member.size > MAX_BATCH:
        raise Damaged(path, f"{member.name} has {member.size} bytes, a batch {MAX_BATCH} at most")
    return archive.extractfile(member).read()


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
