"""Loads the fake CUDA driver, and reads its books. Import it before ``cupy``, in the Python of the folder's venv.

    from tests.fake_cuda import driver
    driver.use()  # for nanogan
    ...
    driver.clear()
    ...
    driver.launches()  # Counter({"nanogan_adam": 2, "cublasSgemm": 31, ...}): what ran since clear()

Raises UserError, when imported, if this Python is not one that build.py made.
"""

import ctypes
import os
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from nanogan.backend import devices
from nanogan.errors import UserError

FOLDER = Path(sys.prefix).parent  # build.py's argument
DEVICES = 2
KINDS = ("kernel", "product", "copy", "fill", "graph", "wait", "allocation", "event")  # driver.cpp has the same order
LAUNCHED = KINDS[:5]  # what a stream executes
DIRECTIONS = ("host to host", "host to device", "device to host", "device to device")  # cudaMemcpyKind


class Record(NamedTuple):
    """One call, as the driver noted it.

    numbers: of a kernel the grid, the block and the shared memory; of a product m, n, k, the types of A, B and C, how
    it is computed, and what is transposed; of a copy the bytes and the direction; of a fill or an allocation the
    bytes; of a graph how many nodes it has.
    """

    kind: str
    name: str
    captured: bool  # it became part of a graph, and did not run; of a wait or an allocation: a capture was under way
    stream: int
    numbers: tuple


class _Record(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char * 128),
        *((name, ctypes.c_longlong) for name in ("kind", "captured", "stream")),
        ("numbers", ctypes.c_longlong * 8),
    ]


def _load():
    """Load the driver and its cuBLAS, before CuPy looks for those of the machine."""
    if not (FOLDER / "lib" / "libcuda.so.1").is_file():
        raise UserError(
            f"expected the Python of a folder that python -m tests.fake_cuda.build made, got {sys.executable}"
        )
    if "cupy" in sys.modules:
        raise UserError("import tests.fake_cuda.driver before cupy, which has loaded the driver of this machine")
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB has a CUDA runtime of its own, which needs a real driver
    os.environ["CUPY_CACHE_DIR"] = str(FOLDER / "kernels")
    for name in ("libcublasLt.so.13", "libcublas.so.13"):
        ctypes.CDLL(str(FOLDER / "lib" / name))
    library = ctypes.CDLL(str(FOLDER / "lib" / "libcuda.so.1"))
    library.fake_records.argtypes = [ctypes.POINTER(ctypes.c_longlong)]
    library.fake_records.restype = ctypes.POINTER(_Record)
    library.fake_bytes.restype = ctypes.c_size_t
    return library


_library = _load()


def use():
    """Let nanogan use the devices as they are: its probe compares a product with 4, and here nothing is computed."""
    import cupy

    devices._probed.update(range(DEVICES))
    for function in devices.when_first_used:
        function(cupy)


def clear():
    """Forget what was noted, and note from now on."""
    _library.fake_clear()
    _library.fake_note(1)


def stop():
    """Note nothing more; what was noted can still be read."""
    _library.fake_note(0)


def fill(on):
    """Whether fills are done. They take the host's time, so leave them out where that is measured."""
    _library.fake_fill(int(on))


def records():
    """Return what was noted since clear(), in order: a list of Record."""
    count = ctypes.c_longlong()
    first = _library.fake_records(ctypes.byref(count))
    return [
        Record(KINDS[r.kind], r.name.decode(), bool(r.captured), r.stream, tuple(r.numbers))
        for r in first[: count.value]
    ]


def launches(captured=False):
    """Count by name what streams executed since clear(); ``captured``: what became part of graphs instead."""
    return Counter(r.name for r in records() if r.kind in LAUNCHED and r.captured == captured)


def device_syncs():
    """Count by name where the host waited for a device."""
    return Counter(r.name for r in records() if r.kind == "wait")


def copies():
    """Count copies by direction, captured ones too."""
    return Counter(DIRECTIONS[r.numbers[1]] for r in records() if r.kind == "copy")


def allocations(captured=False):
    """Count by name cudaMalloc, cudaFree and cudaHostAlloc; ``captured``: those during a capture alone."""
    return Counter(r.name for r in records() if r.kind == "allocation" and r.captured >= captured)


def products():
    """Return the numbers of all matrix products: (m, n, k, type of A, of B, of C, how it is computed, transposed)."""
    return [r.numbers for r in records() if r.kind == "product"]


def bytes_in_use():
    """Return how many bytes of device memory are allocated, and the most that were since clear()."""
    return _library.fake_bytes(0), _library.fake_bytes(1)
