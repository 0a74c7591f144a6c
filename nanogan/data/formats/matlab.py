"""Arrays of numbers in MATLAB 5 files, little-endian, compressed or not; no other contents are read.

SciPy reads these files too, but trusts their sizes: with a byte or two changed, its 1.17 crashes the process.

Source: "MAT-File Format", MathWorks, whose data types and classes are known by number.
"""

import math
import struct
import zlib

import numpy as np

COMPRESSED, MATRIX = 15, 14
TYPES = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"}
CLASSES = {6: "double", 7: "single", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16", 12: "int32", 13: "uint32"}
HEAD = 1024  # bytes of a matrix that surely hold its shape and its name


def read_arrays(file, checks):
    """Return {name: array} of the arrays named in ``checks``, from an open binary file. Others are passed over.

    ``checks[name](shape, matlab_class)`` sees what the file promises of an array before it is read or unpacked, and
    raises ValueError to refuse it: so no more memory is used than the caller allows. ``matlab_class`` is a word such as
    "uint8", or "class 2" for what holds no numbers, and must be refused.

    Raises ValueError, struct.error or zlib.error if the file is not as expected, ends too early or lacks an array.
    """
    header = file.read(128)
    if len(header) < 128 or header[124:] != b"\x00\x01IM":
        raise ValueError("it does not have a little-endian MATLAB 5 header")
    arrays = {}
    while len(arrays) < len(checks):
        tag = file.read(8)
        if not tag:
            raise ValueError(
                f"the arrays {' and '.join(checks)} were expected, it holds {' and '.join(arrays) or 'neither'}"
            )
        kind, size = struct.unpack("<2I", tag)
        end = file.tell() + size
        name, array = _matrix(file, kind, size, checks)
        if array is not None:
            arrays[name] = array
        file.seek(end)
    return arrays


def _matrix(file, kind, size, checks):
    """Return the name and the array of the element at the file's position; None for the array if it is not wanted."""
    if kind == COMPRESSED:
        packed, unzip = file.read(size), zlib.decompressobj()
        if len(packed) < size:
            raise ValueError("it ends too early")
        head = unzip.decompress(packed, HEAD)
        kind, _ = struct.unpack_from("<2I", head)
        head = head[8:]
    else:
        packed, unzip, head = None, None, file.read(min(size, HEAD))
    if kind != MATRIX:
        raise ValueError(f"it holds an element of type {kind}, which is no array")

    # An array is four elements, one after the other: flags, shape, name, numbers.
    flags, after = _element(head, 0)
    shape, after = _element(head, after)
    name, after = _element(head, after)
    name = name.decode("latin-1")
    if name not in checks:
        return name, None
    shape = struct.unpack(f"<{len(shape) // 4}i", shape)
    matlab_class = CLASSES.get(flags[0], f"class {flags[0]}")
    checks[name](shape, matlab_class)
    return name, _numbers(file, name, shape, matlab_class, head, after, unzip)


def _numbers(file, name, shape, matlab_class, head, after, unzip):
    """Read an array's numbers. They start at ``after`` in ``head``; the rest is in ``unzip`` or, if None, in the file.

    MATLAB stores them as any type in which they fit, so a double may be stored as uint8.
    """
    kind, count, start = _tag(head, after)
    stored = np.dtype(TYPES.get(kind, "V1"))
    fits = stored.kind != "V" and np.can_cast(stored, matlab_class)
    if not fits or count != math.prod(shape) * stored.itemsize:
        raise ValueError(f"{name} promises shape {shape}, but {count} bytes of type {kind}")
    data, missing = head[start : start + count], start + count - len(head)
    if unzip is not None:
        if missing > 0:
            data += unzip.decompress(unzip.unconsumed_tail, missing)
        unzip.decompress(unzip.unconsumed_tail, 8)  # what fills up eight bytes; the checksum is read with it
        if not unzip.eof:
            raise ValueError(f"the zlib stream of {name} does not end where it should")
    elif missing > 0:
        data += file.read(missing)
    if len(data) < count:
        raise ValueError("it ends too early")
    return np.frombuffer(data, stored).reshape(shape, order="F")


def _tag(data, at):
    """Return an element's type, the number of its bytes, and where they start. Up to 4 bytes are in the tag itself."""
    kind, count = struct.unpack_from("<2I", data, at)
    if kind >> 16:
        return kind & 0xFFFF, kind >> 16, at + 4
    return kind, count, at + 8


def _element(data, at):
    """Return the bytes of the element at ``at`` and where the next one starts, at a multiple of 8."""
    _, count, start = _tag(data, at)
    if start + count > len(data) or not count:
        raise ValueError("the description of an array is corrupt")
    return data[start : start + count], -(-(start + count) // 8) * 8
