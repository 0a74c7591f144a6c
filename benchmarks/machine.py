"""What a figure was measured on: without it, it is worth nothing."""

import os
import platform
import resource
import sys
import time

import numpy as np
import PIL
import threadpoolctl
import torch

import nanogan


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


def sgemm_peak(size=4096, rounds=3):
    """Return the GFLOP/s of NumPy's float32 matrix product, the ceiling of every convolution here."""
    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
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
