"""CuPy's RawModule on the CPU: the kernels of a .cu source, compiled with g++ against cuda.h, called as on a GPU."""

import ctypes
import math
import re
from pathlib import Path

import numpy as np

from tests.strict_cupy.kernels import compile_cpp, library

HEADER = (Path(__file__).parent / "cuda.h").read_text(encoding="utf-8")
# Hidden, so that libraries do not share variables by name; threads switch stacks, which a fortified longjmp refuses.
FLAGS = ("-fvisibility=hidden", "-U_FORTIFY_SOURCE", "-fsanitize=alignment,bounds", "-Wl,--as-needed")
BOUNDS = r"(?:__launch_bounds__\s*(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))\s*)?"
KERNEL = re.compile(rf'extern\s+"C"\s+__global__\s+{BOUNDS}void\s+{BOUNDS}(\w+)\s*\(')
DYNAMIC = re.compile(r"extern\s+__shared__\s+([\w\s]+?)\s*(\w+)\s*\[\s*\]")
STATIC = re.compile(r"__shared__\s+([^;(){}=]+);")

MOST_SHARED, WITHOUT_ASKING = 227 << 10, 48 << 10  # bytes of dynamic shared memory
MOST_BLOCKS, MOST_THREADS = (2**31 - 1, 65535, 65535), (1024, 1024, 64)
DTYPES = {
    "float": "float32",
    "double": "float64",
    "bool": "bool",
    "char": "int8",
    "signed char": "int8",
    "unsigned char": "uint8",
    "uchar": "uint8",
    "short": "int16",
    "int": "int32",
    "unsigned int": "uint32",
    "long": "int64",
    "unsigned long": "uint64",
    "long long": "int64",
    "unsigned long long": "uint64",
}
OF_ANY_DTYPE = {"unsigned short": 2, "ushort": 2, "unsigned char": 1, "uchar": 1}  # bytes that are only moved


class RawModule:
    """``RawModule(code=..., options=("-DT=float",)).get_function(name)``, as CuPy documents it."""

    def __init__(self, *, code=None, options=(), **others):
        if not isinstance(code, str) or not isinstance(options, tuple) or others:
            raise TypeError("the double's RawModule takes code, a text, and options, a tuple of texts")
        self.code, self.options = code, options
        self._library = None

    def get_function(self, name):
        if self._library is None:
            self._library = _library(self.code, self.options)
        return RawKernel(self._library, name)


class RawKernel:
    """A kernel; called with ``(grid, block, args, shared_mem=bytes)``."""

    def __init__(self, compiled, name):
        if not hasattr(compiled, f"run_{name}"):
            raise RuntimeError(f'CUDA_ERROR_NOT_FOUND: the source has no extern "C" __global__ void {name}')
        self.name = name
        self.max_dynamic_shared_size_bytes = WITHOUT_ASKING
        self._run, types = getattr(compiled, f"run_{name}"), getattr(compiled, f"types_{name}")
        self._run.restype = types.restype = ctypes.c_char_p
        bound, *self.types = types().decode().split("\t")
        self.most_threads = int(bound)

    def __call__(self, grid, block, args, *, shared_mem=0, stream=None):
        from tests.strict_cupy import streams

        grid, block = self._size(grid, MOST_BLOCKS), self._size(block, MOST_THREADS)
        if math.prod(block) > self.most_threads:
            raise ValueError(f"{self.name}: a block of {block} threads, of {self.most_threads} at most")
        most = min(self.max_dynamic_shared_size_bytes, MOST_SHARED)
        if not 0 <= shared_mem <= most:
            raise ValueError(f"{self.name}: {shared_mem} bytes of shared memory, of {most} at most")
        if len(args) != len(self.types):
            raise TypeError(f"{self.name} takes {len(self.types)} arguments, got {len(args)}")
        values = [self._value(i, kind, arg) for i, (kind, arg) in enumerate(zip(self.types, args, strict=True))]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        arrays = [getattr(arg, "_host", None) for arg in args]  # kept as long as a graph may use them

        def compute(_kept=(values, arrays)):
            problem = self._run((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), int(shared_mem), pointers)
            if problem:
                raise RuntimeError(f"{self.name}: {problem.decode()}")

        (stream or streams.current_stream())._launch(self.name, compute)

    def _size(self, size, most):
        if not isinstance(size, tuple):
            raise TypeError(f"{self.name}: the sizes of grid and block are tuples, got {size!r}")
        size = tuple(max(1, int(n)) for n in (*size, 1, 1)[:3])  # CuPy makes 1 of 0
        if any(n > limit for n, limit in zip(size, most, strict=True)):
            raise ValueError(f"{self.name}: a grid or block of {size}, of {most} at most")
        return size

    def _value(self, i, kind, arg):
        """An argument in memory, as a parameter of type ``kind`` is passed."""
        from tests.strict_cupy import arrays

        said = f"{self.name}: argument {i} is {kind}"
        if not kind.endswith("*"):
            if not isinstance(arg, np.generic) or arg.dtype != DTYPES[kind]:
                raise TypeError(f"{said}, got {type(arg).__name__}: pass numpy.{DTYPES[kind]}(...)")
            return np.array(arg)
        if arg is None:
            return np.array(0, np.uint64)
        if not isinstance(arg, arrays.ndarray):
            raise TypeError(f"{said}, got {type(arg).__name__}: pass an array on the device")
        host = arrays._host_of(arg)
        element = kind[:-1]
        width = int(element[-1]) if element[-1] in "24" else 1
        element = element.rstrip("24")
        if element.endswith("*"):
            right = host.dtype in (np.uint64, np.int64)
        elif element in OF_ANY_DTYPE:
            right = host.dtype.itemsize == OF_ANY_DTYPE[element]
        else:
            right = element in ("void", "uint") or host.dtype == DTYPES[element]
        if not right:
            raise TypeError(f"{said}, got an array of {host.dtype}")
        if host.ctypes.data % (host.dtype.itemsize * width):
            raise ValueError(f"{said}, got an address that is no multiple of {host.dtype.itemsize * width}")
        return np.array(host.ctypes.data, np.uint64)


def _library(code, options):
    """The kernels of a source, each exported as ``run_NAME`` and ``types_NAME``."""
    source = compile_cpp(code, ["-E", "-DEMULATE", *options])  # without comments, conditions and macros of its own
    kernels = {match[3]: match[1] or match[2] or "(1024)" for match in KERNEL.finditer(source)}
    source = DYNAMIC.sub(r"\1* \2 = (\1*)emulation::dynamic_shared", source)
    source = STATIC.sub(_filled, source)
    exports = "".join(f"EXPORT_KERNEL({name}, {bounds})\n" for name, bounds in kernels.items())
    others = [option for option in options if not option.startswith("-D")]
    return library(f"{HEADER}\n{source}\n{exports}", (*FLAGS, *others))


def _filled(declaration):
    """A declaration of static shared memory, and a call that fills it with NaN at the start of each block."""
    names = [re.sub(r"\[.*", "", part, flags=re.S).split()[-1] for part in declaration[1].split(",")]
    return declaration[0] + "".join(f" emulation::fresh_in_block({name});" for name in names)
