"""The report on this machine: it says what is so, and never fails."""

import json
import os
import re
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path

import pytest

from nanogan import backend, dispatch, info
from nanogan.info import machine
from nanogan.info.__main__ import text
from nanogan.ranks import cards
from tests import starting
from tests.test_backend import INSUFFICIENT, raise_


def card(index):
    return {"name": b"NVIDIA H200", "major": 9, "minor": 0, "totalGlobalMem": 140 << 30}


def fake_cupy(monkeypatch, tmp_path, count=2, memory=(100 << 30, 139 << 30), **runtime):
    """A CuPy of ``count`` GPUs, of which the last cannot be used."""
    functions = {
        "getDeviceCount": (lambda: count) if isinstance(count, int) else raise_(count),
        "driverGetVersion": lambda: 13000,
        "runtimeGetVersion": lambda: 13020,
        "getDeviceProperties": card,
    }
    cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(**(functions | runtime)),
        get_local_runtime_version=lambda: 13010,
        Device=lambda index: types.SimpleNamespace(mem_info=memory, use=lambda: None),
    )
    module = types.SimpleNamespace(
        __version__="14.2.0",
        __file__=str(tmp_path / "cupy" / "__init__.py"),
        ndarray=type("ndarray", (), {}),
        cuda=cuda,
    )
    module.is_available = lambda: isinstance(count, int)
    module.ones = raise_(MemoryError("Out of memory allocating 512 bytes"))
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(backend.devices, "_probed", {0} if isinstance(count, int) else set())
    return module


def test_every_gpu_is_told_with_what_keeps_it_from_use(monkeypatch, tmp_path):
    fake_cupy(monkeypatch, tmp_path)
    found = info.report()
    assert found["packages"]["CuPy"][1:3] == ["built for CUDA 13.2", "CUDA runtime 13.1"]
    assert found["GPU"]["driver"].endswith("for CUDA 13.0 and older")
    first, second = found["GPU"]["gpu:0"], found["GPU"]["gpu:1"]
    assert first == ["NVIDIA H200, compute capability 9.0, 139.0 GiB, 100.0 GiB free", "works"]
    assert second[1].startswith("gpu:1 has no memory left (Out of memory allocating 512 bytes)")


def test_what_several_processes_would_use_is_told(monkeypatch, tmp_path):
    pytest.importorskip("mpi4py")
    library, launcher = info.report()["packages"]["MPI"]
    assert re.fullmatch(r"\D+ \d+\.\d+.*, by mpi4py \d+\..*", library)
    assert launcher == "no mpiexec was found" or os.access(launcher, os.X_OK)
    fake_cupy(monkeypatch, tmp_path)
    nccl = types.SimpleNamespace(available=True, get_version=lambda: 23203)
    monkeypatch.setattr(cards, "_nccl", lambda: nccl)
    assert info.report()["GPU"]["between GPUs"] == "NCCL 2.32.3"
    nccl.available = False
    assert info.report()["GPU"]["between GPUs"].startswith("the host's memory, as NCCL is not installed: pip install")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert info.report()["packages"]["MPI"].startswith("not installed; several processes need it: pip install")


def test_no_gpu_is_told_as_get_device_tells_it(monkeypatch, tmp_path):
    fake_cupy(monkeypatch, tmp_path, count=INSUFFICIENT, driverGetVersion=lambda: 0)
    assert set(info.report()["GPU"]) == {"driver", "gpu"}
    assert "finds no NVIDIA driver: install one" in info.report()["GPU"]["gpu"]
    fake_cupy(monkeypatch, tmp_path, count=INSUFFICIENT)
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert info.report()["packages"]["CuPy"] == "not installed"
    assert "needs CuPy, which is not installed: pip install" in info.report()["GPU"]["gpu"]


def test_what_cannot_be_found_out_is_unknown(monkeypatch, tmp_path):
    fake_cupy(monkeypatch, tmp_path, getDeviceProperties=raise_(RuntimeError("cudaErrorUnknown:\n what?")))
    monkeypatch.setattr(machine, "_processor", raise_(PermissionError("/proc")))
    monkeypatch.setattr(machine, "_data", raise_(OSError()))
    found = info.report()
    assert found["GPU"]["gpu:0"][0] == "unknown (RuntimeError: cudaErrorUnknown: what?)"
    assert found["CPU"]["processor"] == "unknown (PermissionError: /proc)"
    assert found["data"] == {"": "unknown (OSError)"}
    assert "unknown (OSError)" in text(found)


def test_a_broken_cupy_is_quoted(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise OSError('libcudart.so.13: no such file')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert info.report()["packages"]["CuPy"] == "cannot be imported (OSError: libcudart.so.13: no such file)"


def test_settings_and_data_are_told(monkeypatch, tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train").write_bytes(b"")
    (tmp_path / "nothing").mkdir()
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setattr(dispatch, "FAST", False)
    found = info.report()
    assert found["data"]["NANOGAN_DATA"] == [str(tmp_path), "mnist"]
    assert "OPENBLAS_CORETYPE=Haswell" in found["packages"]["its BLAS"][-1]
    assert found["settings"]["fast paths"].startswith("off, by")
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path / "elsewhere"))
    assert "correct it or unset it" in info.report()["data"]["NANOGAN_DATA"][1]


def test_the_columns_are_aligned():
    lines = text({"one": {"a": "1", "longer": ["2", "3"]}, "two": {"b": "4"}}).splitlines()
    assert lines == ["one", "  a       1", "  longer  2", "          3", "", "two", "  b       4"]


@pytest.mark.parametrize(("arguments", "status"), [((), 0), (("--device", "cpu"), 0), (("--device", "tpu"), 2)])
def test_the_exit_status_is_the_device_asked_for(monkeypatch, arguments, status):
    monkeypatch.setattr(dispatch, "FAST", False)
    result = starting.run("nanogan.info", "--json", *arguments, NANOGAN_FAST="0")
    assert result.returncode == status, result.stderr
    assert json.loads(result.stdout)["settings"]["fast paths"] == "off, by NANOGAN_FAST=0"
    assert "Traceback" not in result.stderr
    assert ("unknown device 'tpu'" in result.stderr) == (status == 2)


def test_the_number_of_threads_is_the_fast_paths_own(monkeypatch):
    from nanogan.fast.cpu import threads

    monkeypatch.setitem(dispatch.settings, "threads", lambda: 5)
    monkeypatch.setenv("NANOGAN_THREADS", "5")
    assert info.report()["settings"]["threads"] == "5, by NANOGAN_THREADS=5"
    monkeypatch.undo()
    monkeypatch.delenv("NANOGAN_THREADS", raising=False)
    assert info.report()["settings"]["threads"] == str(threads.count())


def test_the_version_is_one():
    import nanogan
    from nanogan.version import __version__

    assert nanogan.__version__ == __version__ == info.machine_of_a_run("cpu")["nanogan"]
    assert info.report()["nanogan"]["nanogan"] == f"{__version__}, in {Path(nanogan.__file__).parent}"
    pyproject = (Path(nanogan.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'version = { attr = "nanogan.version.__version__" }' in pyproject


@pytest.mark.skipif(os.name == "nt", reason="nvidia-smi is a shell script here")
def test_an_nvidia_smi_that_answers_fails_or_hangs(monkeypatch, tmp_path):
    def script(text):
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (tmp_path / "nvidia-smi").chmod(0o755)

    monkeypatch.setattr(machine, "DRIVER", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    script("echo 580.65.06; echo 580.65.06")
    assert machine.driver_version() == "580.65.06"
    script("echo No devices; exit 6")
    assert machine.driver_version() is None
    script("exec sleep 5")
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: None)  # as one that a driver holds
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it still runs
        assert machine.driver_version(0.2) is None
    assert time.perf_counter() - start < 3
