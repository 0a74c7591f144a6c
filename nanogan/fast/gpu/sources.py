"""CUDA kernels out of the ``.cu`` files beside this one, compiled when they are first used.

    kernel("windows.cu", "im2col", NUMBER="float", WIDTH=4)((blocks,), (threads,), (x, cols, np.int32(N), ...))

Types and sizes that the compiler has to know are its ``-D`` options, so that a file reads as plain C++. CuPy keeps what
NVRTC compiled in its cache folder.
"""

import functools
from pathlib import Path

import cupy

THREADS = 256  # of a block, where a kernel does not say otherwise
BLOCKS = 132 * 16  # enough to fill the largest GPU; a kernel's loop goes over the rest
NUMBERS = {"float32": "float", "float64": "double"}  # NumPy's name: C++'s
FOLDER = Path(__file__).parent


@functools.cache
def kernel(file, name, **defines):
    """Return the kernel ``name`` of ``file``, called as (grid, block, arguments): arrays and NumPy's numbers."""
    options = ("-std=c++17", *(f"-D{key}={value}" for key, value in defines.items()))
    return cupy.RawModule(code=(FOLDER / file).read_text(encoding="utf-8"), options=options).get_function(name)


def blocks_for(count):
    """The grid for ``count`` elements, one of which a thread takes at a time."""
    return (max(1, min(BLOCKS, -(-count // THREADS))),)


def width_of(*sizes, itemsize):
    """How many neighbouring numbers a thread moves at once: as many as 16 bytes hold, or 1 where a size forbids it."""
    width = max(1, 16 // itemsize)
    return width if all(size % width == 0 for size in sizes) else 1
