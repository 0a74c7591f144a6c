"""What a figure was measured on: without it, it is worth nothing."""

import contextlib
import os
import platform
import resource
import statistics
import sys

import numpy as np
import PIL
import threadpoolctl
import torch

import nanogan
from benchmarks import timing
from nanogan.info.machine import driver_version


def describe():
    """Return lines that name processor, cores, versions, and which kernels and threads BLAS uses."""
    (blas, *_) = [i for i in threadpoolctl.threadpool_info() if i["user_api"] == "blas"] or [{}]
    kernels = f"{blas.get('internal_api', 'no BLAS found')} {blas.get('version', '')} {blas.get('architecture', '')}"
    preset = os.environ.get("OPENBLAS_CORETYPE")
    warning = f" (preset by OPENBLAS_CORETYPE={preset}: not this processor's best)" if preset else ""
    return [
        f"processor: {_processor()}, {os.cpu_count()} cores, {_avx()}",
        f"system: {platform.system()} {platform.machine()}, Python {platform.python_version()}",
        f"nanogan {nanogan.__version__}, NumPy {np.__version__}, Pillow {PIL.__version__}, torch {torch.__version__}",
        f"NumPy's BLAS: {kernels}, {blas.get('num_threads')} threads{warning}",
        f"torch: {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
        f"sgemm of 4096 x 4096 matrices: {sgemm_peak():.0f} GFLOP/s with NumPy",
    ]


def about(target=None, reached=None):
    """Return a benchmark's first lines: the machine, its GPU if ``target`` is one, and what that reached here.

    reached: the target's ceilings, measured here if they are not given.
    """
    lines = describe()
    if target is not None and target.is_gpu:
        lines += describe_gpu(target, ceilings(target) if reached is None else reached)
    return [f"- {line}" for line in lines]


def describe_gpu(target, ceilings):
    """Return lines that name the card, what drives it, and what it reached here; what is not known says so."""
    cupy, index = target.device.array_module, target.device.index
    runtime = cupy.cuda.runtime

    def known(function):
        try:
            return function()
        except Exception as error:  # a library that is missing or too old must not cost the benchmark
            return f"unknown ({type(error).__name__})"

    def card():
        properties = runtime.getDeviceProperties(index)
        name, cores = properties["name"].decode(), properties["multiProcessorCount"]
        memory, cache = properties["totalGlobalMem"] / 2**30, properties["l2CacheSize"] / 2**20
        capability = f"{properties['major']}.{properties['minor']}"
        return (
            f"{name}, compute capability {capability}, {cores} multiprocessors, {memory:.0f} GiB, {cache:.0f} MiB of L2"
        )

    def version(number):
        return f"{number // 1000}.{number % 1000 // 10}"

    torchs = f"torch's CUDA {torch.version.cuda or 'none'}, cuDNN {known(torch.backends.cudnn.version)}"
    driver = driver_version() or "unknown"
    local = known(lambda: version(cupy.cuda.get_local_runtime_version()))
    reached = ", ".join(
        f"{value / 1e9:.0f} GB/s {name}" if name in BANDWIDTHS else f"{value / 1e12:.1f} TFLOP/s {name}"
        for name, value in ceilings.items()
    )
    return [
        f"GPU: {known(card)}",
        f"NVIDIA driver {driver}, made for CUDA {known(lambda: version(runtime.driverGetVersion()))}",
        f"CuPy {cupy.__version__}, CUDA {local}; {torchs}",
        f"measured here: {reached}",
    ]


BANDWIDTHS = ("copied", "to the device")


def ceilings(target):
    """Return {name: the most that this machine does a second}, measured: bytes copied, and operations of products.

    "copied" counts bytes read and bytes written. "float32" is a product of large matrices of random numbers; a GPU has
    "tf32" and "16 bit" as well, and "to the device", from page-locked memory. What cannot be measured is left out.
    """
    if not target.is_gpu:
        source = np.ones(1 << 26, np.float32)  # 256 MB: beyond the caches
        copy = source.copy()
        seconds = min(target.seconds(lambda: np.copyto(copy, source)) for _ in range(3))
        return {"copied": 2 * source.nbytes / seconds, "float32": sgemm_peak() * 1e9}
    result = {}
    for name in (*BANDWIDTHS, "float32", "tf32", "16 bit"):
        with contextlib.suppress(Exception):  # such as memory that others use
            work, function = _at_full_speed(name, target)
            function()
            calls = target.calls(function, 0.05)
            result[name] = work / statistics.median(target.seconds(function, calls) for _ in range(3))
    torch.backends.cuda.matmul.allow_tf32 = False
    target.free()
    return result


def _at_full_speed(name, target):
    """Return how much work, in bytes or operations, and a function that does it and nothing else."""
    cupy = target.device.array_module
    if name == "copied":
        return timing.copying(cupy)
    if name == "to the device":
        there = cupy.empty(1 << 26, np.uint8)
        pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(there.nbytes), np.uint8, there.nbytes)
        return there.nbytes, lambda: there.set(pinned)
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    dtype = torch.bfloat16 if name == "16 bit" else torch.float32
    matrix = torch.randn(8192, 8192, device=target.torch).to(dtype)  # random: zeros are faster
    return 2 * 8192**3, lambda: matrix @ matrix


def sgemm_peak(size=4096, rounds=3):
    """Return the GFLOP/s of NumPy's float32 matrix product, the ceiling of every convolution here."""
    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    times = [timing.seconds(lambda: a @ a) for _ in range(rounds + 1)]
    return 2 * size**3 / min(times[1:]) / 1e9


def peak_memory():
    """Return the largest memory this process has had, in MB."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:  # a new process inherits getrusage's from its parent
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1e3
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _avx():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = file.read()
    except OSError:
        return "instruction sets unknown"
    return "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
