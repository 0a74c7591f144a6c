"""CuPy's ElementwiseKernel on the CPU: the kernel's own C++, compiled with g++ and called for every element."""

import ctypes
import functools
import hashlib
import itertools
import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from nanogan.disk import replacing

TYPES = {"float32": "float", "float64": "double", "bool": "bool", "int32": "int", "int64": "long long"}
HEADER = """
#include <algorithm>
#include <cmath>
using std::max; using std::min; using std::exp; using std::tanh; using std::sqrt; using std::log1p; using std::abs;
"""


class ElementwiseKernel:
    """``ElementwiseKernel("T x, T slope", "T y", "y = max(x, slope * x)", "name")``, as CuPy documents it."""

    def __init__(self, in_params, out_params, operation, name="kernel", **options):
        self.inputs, self.outputs = _parameters(in_params), _parameters(out_params)
        self.operation, self.name = operation, name
        assert name.isidentifier(), f"CuPy refuses a kernel called {name!r}"
        names = {name for _, name in self.inputs + self.outputs}
        assert not names & {"i", "n", "_ind"}, f"CuPy's own names in {name}: {names}"

    def __call__(self, *args):
        from tests.strict_cupy import arrays, streams

        count = len(self.inputs)
        assert len(args) in (count, count + len(self.outputs)), f"{self.name} got {len(args)} arguments"
        values = [arrays._host_of(arg) for arg in args]
        shape = np.broadcast_shapes(*(v.shape for v in values if isinstance(v, np.ndarray)))
        types = self._types(values)
        new = [] if values[count:] else [arrays.ndarray(shape, types[kind]) for kind, _ in self.outputs]
        given = values[count:] or [array._host for array in new]
        assert all(out.shape == shape for out in given), f"{self.name}: outputs do not broadcast"
        for out in given if len(args) > count else ():  # CuPy does not copy what overlaps
            for value in values[:count]:
                apart = not isinstance(value, np.ndarray) or not np.shares_memory(out, value)
                assert apart or _place(out) == _place(value), f"{self.name}: an output overlaps an input"
        run = _compiled(self.source(types))

        def compute():
            inputs = [
                np.ascontiguousarray(np.broadcast_to(np.asarray(v, types[kind]), shape))
                for (kind, _), v in zip(self.inputs, values[:count], strict=True)
            ]
            outputs = [np.array(out, order="C") for out in given]
            run(ctypes.c_longlong(math.prod(shape)), *(a.ctypes.data_as(ctypes.c_void_p) for a in inputs + outputs))
            for out, result in zip(given, outputs, strict=True):
                out[...] = result

        if math.prod(shape):
            streams.launch(self.name, compute)
        results = list(args[count:]) or new
        return results[0] if len(results) == 1 else tuple(results)

    def _types(self, values):
        """{"T": dtype, ...}: letters stand for the dtype of the arrays of that type, which must agree."""
        found = {}
        for (kind, name), value in zip(itertools.chain(self.inputs, self.outputs), values, strict=False):
            if len(kind) == 1 and isinstance(value, np.ndarray):
                assert found.setdefault(kind, value.dtype) == value.dtype, f"{self.name}: {name} is {value.dtype}"
            elif isinstance(value, np.ndarray):
                assert value.dtype == kind, f"{self.name}: {name} expected {kind}, got {value.dtype}"
        return found | {kind: np.dtype(kind) for kind, _ in self.inputs + self.outputs if len(kind) > 1}

    def source(self, types):
        """A C++ function that loops over the elements."""
        params = [(f"const {TYPES[str(types[kind])]}", name) for kind, name in self.inputs]
        params += [(TYPES[str(types[kind])], name) for kind, name in self.outputs]
        letters = "".join(f"typedef {TYPES[str(dtype)]} {kind};\n" for kind, dtype in types.items() if len(kind) == 1)
        pointers = ", ".join(f"{kind}* _{name}" for kind, name in params)
        each = "\n".join(f"    {kind}& {name} = _{name}[i];" for kind, name in params)
        loop = f"for (long long i = 0; i < n; ++i) {{\n{each}\n    {self.operation};\n  }}"
        return f'{HEADER}{letters}extern "C" void run(long long n, {pointers}) {{\n  {loop}\n}}\n'

    def cuda_source(self, real):
        """The kernel as CUDA C++, for a compiler that makes machine code of it; ``real`` is float or double."""
        params = [f"const {real}* _{name}" for _, name in self.inputs] + [
            f"{real}* _{name}" for _, name in self.outputs
        ]
        each = "".join(f"  const T& {name} = _{name}[i];\n" for _, name in self.inputs)
        each += "".join(f"  T& {name} = _{name}[i];\n" for _, name in self.outputs)
        head = (
            f'extern "C" __global__ void {self.name}_{real}(long long n, {", ".join(params)}) {{\n  typedef {real} T;\n'
        )
        index = "  const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;\n  if (i >= n) return;\n"
        return f"{head}{index}{each}  {self.operation};\n}}\n"


def _place(array):
    return array.ctypes.data, array.shape, array.strides


def _parameters(text):
    return [tuple(part.split()) for part in text.split(",") if part.strip()]


def _compiled(source):
    """The function ``run`` of a C++ source."""
    return library(source).run


@functools.cache
def library(source, flags=()):
    """A C++ source as a library. What was compiled stays in a folder that the processes of a run share."""
    name = hashlib.sha256("\0".join((source, *flags)).encode()).hexdigest()
    path = Path(os.environ["NANOGAN_TEST_KERNELS"]) / f"{name}.so"
    if not path.exists():
        with replacing(path) as temporary:
            compile_cpp(source, ["-O1", "-ffp-contract=off", "-shared", "-fPIC", *flags, "-o", str(temporary)])
    return ctypes.PyDLL(str(path))  # one thread at a time


def compile_cpp(source, flags):
    """Run g++ on the text of a source; return what it prints. Raises RuntimeError with its errors."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("the double runs a kernel's own C++, and there is no g++ to compile it")
    command = [compiler, "-x", "c++", "-std=c++17", *flags, "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"the kernels do not compile:\n{done.stderr}")
    return done.stdout
