"""What nanogan finds on this machine: versions, processor, GPUs, settings, data sets."""

import contextlib
import importlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import threadpoolctl

from nanogan import backend, dispatch, ranks
from nanogan.backend import cublas, graphs
from nanogan.backend.diagnosis import several_cupys
from nanogan.data.sets.download import cache_dir, data_dir
from nanogan.errors import DeviceError
from nanogan.ranks.cards import what_carries
from nanogan.ranks.ranks import library_of
from nanogan.version import __version__

SETS_SHOWN = 20  # folders
DRIVER = "/proc/driver/nvidia/version"  # a file of the driver that is loaded


def report():
    """Return {section: {label: text or list of texts}}; what cannot be found out says so."""
    return {
        "nanogan": {
            "nanogan": f"{__version__}, in {Path(__file__).parents[1]}",
            "Python": f"{platform.python_version()}, {sys.executable}",
            "system": told(_system),
        },
        "packages": {
            "NumPy": told(lambda: _package("numpy")),
            "its BLAS": told(_blas),
            "Pillow": told(lambda: _package("PIL")),
            "safetensors": told(lambda: _package("safetensors")),
            "tqdm": told(lambda: _package("tqdm")),
            "CuPy": told(_cupy),
            "MPI": told(_mpi),
        },
        "CPU": {"processor": told(_processor), "cores": told(_cores), "memory": told(_memory)},
        "GPU": told_all(_gpus),
        "settings": {
            "fast paths": told(_fast_operations),
            "threads": told(_threads),
            "products on a GPU": told(_products),
            "steps on a GPU": told(_graph),
        },
        "data": told_all(_data),
    }


def machine_of_a_run(device):
    """Return {label: text} of what a run on ``device`` depends on, for its folder."""
    device = backend.get_device(device)
    found = {
        "device": str(device),
        "processor": told(_processor),
        "cores": told(_cores),
        "memory": told(_memory).split(",")[0],  # without what is free just now
        "system": told(_system),
        "nanogan": __version__,
        "Python": platform.python_version(),
        "NumPy": told(lambda: _package("numpy")),
        "its BLAS": told(_blas),
        "fast paths": told(_fast),
    }
    if ranks.current().size > 1:
        together = ranks.current()
        several = together.local_size < together.size
        found["processes"] = f"{together.size}, {together.local_size} of them here" if several else str(together.size)
        found["MPI"] = told(_mpi)
    if device.kind == "gpu":
        found |= {
            "card": told(lambda: _card(device.index)),
            "CuPy": told(_cupy),
            "products": told(_products),
            "steps": told(_graph),
        }
    return {label: text if isinstance(text, str) else "; ".join(text) for label, text in found.items()}


def told(function):
    """Return the function's text, or why there is none: a report must not fail."""
    try:
        return function()
    except Exception as error:
        return f"unknown ({_line(error)})"


def told_all(function):
    """:func:`told` for a whole section."""
    found = told(function)
    return found if isinstance(found, dict) else {"": found}


def _line(error):
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# -------------------------------------------------------------------------------------------------- system, packages


def _system():
    name = f"{platform.system()} {platform.release()} {platform.machine()}"
    with contextlib.suppress(OSError, AttributeError):
        return f"{name}, {platform.freedesktop_os_release()['PRETTY_NAME']}"
    return name


def _package(name):
    try:
        return importlib.import_module(name).__version__
    except ImportError as error:
        return f"cannot be imported ({_line(error)})"


def _blas():
    found = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    if not found:
        return "unknown to threadpoolctl"
    texts = []
    for pool in found:
        kernels = f"{pool['internal_api']} {pool.get('version') or ''} {pool.get('architecture') or ''}"
        texts.append(f"{' '.join(kernels.split())}, {pool['num_threads']} threads")
    preset = os.environ.get("OPENBLAS_CORETYPE")
    if preset:
        texts.append(f"its kernels are preset by OPENBLAS_CORETYPE={preset}: unset it to let it choose")
    return texts


def _cupy():
    try:
        cupy = backend.Device("gpu").array_module
    except ModuleNotFoundError as error:
        return "not installed" if error.name == "cupy" else f"cannot be imported ({_line(error)})"
    except Exception as error:
        return f"cannot be imported ({_line(error.__cause__ or error)})"
    texts = [f"{cupy.__version__}, {Path(cupy.__file__).parent}"]
    with contextlib.suppress(Exception):
        texts.append(f"built for CUDA {_version(cupy.cuda.runtime.runtimeGetVersion())}")
    with contextlib.suppress(Exception):
        texts.append(f"CUDA runtime {_version(cupy.cuda.get_local_runtime_version())}")
    return texts + [text for text in [several_cupys()] if text]


def _version(number):
    """13020 -> "13.2"."""
    return f"{number // 1000}.{number % 1000 // 10}"


# --------------------------------------------------------------------------------------------------------------- CPU


def _processor():
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cores():
    count = os.cpu_count()
    with contextlib.suppress(AttributeError):  # not on macOS and Windows
        usable = len(os.sched_getaffinity(0))
        return f"{count}" if usable == count else f"{count}, of which this process may use {usable}"
    return f"{count}"


def _memory():
    with contextlib.suppress(OSError, KeyError), open("/proc/meminfo", encoding="utf-8") as file:
        found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
        return f"{_gib(found['MemTotal'])}, {_gib(found['MemAvailable'])} free"
    return _gib(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _gib(count):
    return f"{count / 2**30:.1f} GiB"


# --------------------------------------------------------------------------------------------------------------- GPU


def _mpi():
    """Say which MPI processes would talk by; it is not started for that."""
    try:
        import mpi4py
    except ModuleNotFoundError:
        return "not installed; several processes need it: pip install mpi4py mpich"
    if "mpi4py.MPI" not in sys.modules:
        mpi4py.rc.initialize = False
    from mpi4py import MPI

    beside = shutil.which("mpiexec", path=os.path.dirname(sys.executable))
    return [f"{library_of(MPI)}, by mpi4py {mpi4py.__version__}",
            beside or shutil.which("mpiexec") or "no mpiexec was found"]  # fmt: skip


def _gpus():
    """Return the driver, and what can be said of each GPU."""
    result = {"driver": told(driver)}
    try:
        cupy = backend.Device("gpu").array_module

        count = cupy.cuda.runtime.getDeviceCount()
    except Exception:  # get_device knows the reason, and the remedy
        count = 0
    for index in range(count):
        result[f"gpu:{index}"] = [told(lambda index=index: _card(index)), usable(f"gpu:{index}")]
    if count:
        return result | {"between GPUs": told(what_carries)}
    return result | {"gpu": usable("gpu")}


def driver():
    """Return the NVIDIA driver's version and the newest CUDA that it knows, in words."""
    version = driver_version()
    with contextlib.suppress(Exception):
        cupy = backend.Device("gpu").array_module

        number = cupy.cuda.runtime.driverGetVersion()  # 0 where there is none
        return f"{version or 'unknown'}, for CUDA {_version(number)} and older" if number else "none"
    return version or "none found"


def driver_version(limit=20.0):
    """Return the NVIDIA driver's version, or None; nvidia-smi, which hangs with its driver, has ``limit`` seconds."""
    with contextlib.suppress(OSError, StopIteration), open(DRIVER, encoding="utf-8") as file:
        return next(word for word in file.readline().split() if word[0].isdigit() and "." in word)
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with contextlib.suppress(OSError):
        process = subprocess.Popen(command, **options)
        try:
            text, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()  # subprocess.run would now wait for its end, without a limit
            process.stdout.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
            return None
        return next(iter(text.split()), None) if process.returncode == 0 else None
    return None


def _card(index):
    cupy = backend.Device("gpu").array_module

    properties = cupy.cuda.runtime.getDeviceProperties(index)
    name = properties["name"]
    name = name.decode(errors="replace") if isinstance(name, bytes) else name
    capability = f"{name}, compute capability {properties['major']}.{properties['minor']}"
    try:
        free, total = cupy.cuda.Device(index).mem_info
    except Exception as error:
        return f"{capability}, {_gib(properties['totalGlobalMem'])} ({_line(error)})"
    return f"{capability}, {_gib(total)}, {_gib(free)} free"


def usable(name):
    """Say whether nanogan can use the device ``name``: "works", or get_device's sentence."""
    try:
        backend.get_device(name)
    except DeviceError as error:
        return str(error)
    except Exception as error:
        return f"does not work: {_line(error)}"
    return "works"


# ---------------------------------------------------------------------------------------------------- settings, data


def _fast():
    asked = os.environ.get("NANOGAN_FAST")
    if dispatch.FAST:
        return "on"
    return f"off, by NANOGAN_FAST={asked}" if asked else "off, by the program (nanogan.dispatch.FAST)"


def _fast_operations():
    """Say which operations have fast paths, each taken where it serves the shapes."""
    if not dispatch.FAST:
        return _fast()
    kinds = ["cpu"] + (["gpu"] if usable("gpu") == "works" else [])
    lines = [f"{kind}: {', '.join(sorted(set(dispatch.fast_paths(kind).values())))}" for kind in kinds]
    return ["on; NANOGAN_FAST=0 leaves all to nanogan/ops", *lines]


def _threads():
    dispatch.load("cpu")  # whose fast paths are what the threads are for
    asked, count = os.environ.get("NANOGAN_THREADS"), str(dispatch.settings["threads"]())
    return f"{count}, by NANOGAN_THREADS={asked}" if asked else count


def _products():
    """Say in which precision, and by what."""
    precision = backend.matmul_precision()
    if usable("gpu") != "works":
        return precision
    direct = cublas.available(backend.Device("gpu").array_module)
    return f"{precision}, by {'cuBLAS itself' if direct else 'CuPy (cuBLAS is not called directly)'}"


def _graph():
    if graphs.ON and dispatch.FAST:
        return "one CUDA graph, where a game can be recorded; NANOGAN_GRAPH=0 launches every kernel by itself"
    off = "NANOGAN_GRAPH" if dispatch.FAST else "NANOGAN_FAST"
    return f"kernel by kernel, by {off}={os.environ.get(off, 'the program')}"


def _data():
    result = {"NANOGAN_DATA": "not set"}
    if data_dir() is not None:
        result["NANOGAN_DATA"] = told(lambda: _sets(data_dir()))
    result["cache"] = told(lambda: _sets(cache_dir()))
    return result


def _sets(folder):
    """The folder, and the folders in it that hold files: each a data set."""
    if not folder.is_dir():
        return [
            str(folder),
            "no such folder yet" if folder == cache_dir() else "no such folder: correct it or unset it",
        ]
    found = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and any(path.iterdir())]
    more = f", and {len(found) - SETS_SHOWN} more" if len(found) > SETS_SHOWN else ""
    return [str(folder), (", ".join(found[:SETS_SHOWN]) + more) or "empty"]
