"""Devices, seeds, and the line that chooses between an operation and its fast path."""

import importlib.metadata
import runpy
import sys
import types

import numpy as np
import pytest

from nanogan import backend, dispatch, ops
from nanogan.errors import DeviceError, UserError
from nanogan.layers import ReLU
from tests.helpers import channels_last


@pytest.mark.parametrize("name", ["tpu", "", "gpu:x", "gpu:-1", "cpu:0", "cpu:1", "gpu:0:1"])
def test_an_unknown_device_gets_one_sentence(name):
    with pytest.raises(DeviceError, match="unknown device.*use cpu, gpu, or gpu:N"):
        backend.get_device(name)


def fake_cupy(monkeypatch, **attributes):
    """A module named cupy that has just these attributes; None makes the import fail."""
    monkeypatch.setattr(backend.devices, "_probed", set())
    linalg = types.SimpleNamespace(COMPUTE_TYPE_FP32=4, set_compute_type=lambda dtype, kind: None)
    core = types.SimpleNamespace(_routines_linalg=linalg)
    module = types.SimpleNamespace(ndarray=type("ndarray", (), {}), _core=core, **attributes) if attributes else None
    monkeypatch.setitem(sys.modules, "cupy", module)


def raise_(error):
    def function(*args, **kwargs):
        raise error

    return function


def test_without_cupy_the_remedy_is_named(monkeypatch):
    fake_cupy(monkeypatch)
    with pytest.raises(DeviceError, match=r"needs CuPy.*pip install .cupy-cuda13x\[ctk\].*cupy-cuda12x"):
        backend.get_device("gpu")


def test_without_a_driver(monkeypatch):
    fake_cupy(monkeypatch, is_available=lambda: False)
    with pytest.raises(DeviceError, match="finds no NVIDIA driver or no GPU.*nvidia-smi"):
        backend.get_device("cuda")


def cuda(count, driver=13000, runtime=13020):
    """What stands in cupy.cuda: ``count`` GPUs, or the error that counting them raises."""
    counted = raise_(count) if isinstance(count, Exception) else lambda: count
    functions = types.SimpleNamespace(
        getDeviceCount=counted, driverGetVersion=lambda: driver, runtimeGetVersion=lambda: runtime
    )
    device = types.SimpleNamespace(use=lambda: None, compute_capability="70")
    return types.SimpleNamespace(runtime=functions, Device=lambda index: device)


def sentence(monkeypatch, device="gpu", **attributes):
    """What the user is told: one line."""
    fake_cupy(monkeypatch, **attributes)
    with pytest.raises(DeviceError) as caught:
        backend.get_device(device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def cupys(monkeypatch, *names):
    """Make these the packages of CuPy that are installed."""

    def distribution(name):
        if name not in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return types.SimpleNamespace(metadata={"Name": name})

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


def broken_cupy(monkeypatch, tmp_path, source):
    """A package cupy whose import runs ``source``."""
    monkeypatch.setattr(backend.devices, "_probed", set())
    (tmp_path / "cupy.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(DeviceError) as caught:
        backend.get_device("gpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise OSError('libcudart.so.13: cannot open')", "libcudart.so.13: cannot open"),
        ("import cupy_core_that_is_not_there", "No module named 'cupy_core_that_is_not_there'"),
        ("raise ImportError('\\n=====\\nFailed to import CuPy.') from ImportError('ABI 7')", "ABI 7"),
    ],
)
def test_a_broken_cupy(monkeypatch, tmp_path, source, reason):
    cupys(monkeypatch, "cupy-cuda13x")
    told = broken_cupy(monkeypatch, tmp_path, source)
    assert f"cannot be imported ({reason})" in told
    assert "reinstall it, pip install" in told


def test_two_cupys_are_named(monkeypatch, tmp_path):
    cupys(monkeypatch, "cupy-cuda12x", "cupy-cuda13x")
    told = broken_cupy(monkeypatch, tmp_path, "raise ImportError('undefined symbol')")
    assert "needs one CuPy, but cupy-cuda12x and cupy-cuda13x are installed over each other" in told
    assert "pip uninstall cupy-cuda12x cupy-cuda13x, then pip install" in told
    error = RuntimeError("nothing that is known")
    assert "over each other" in sentence(monkeypatch, is_available=lambda: True, cuda=cuda(1), ones=raise_(error))


INSUFFICIENT = RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")
NO_DEVICE = RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")


def test_cupy_without_a_driver(monkeypatch):
    told = sentence(monkeypatch, is_available=lambda: False, cuda=cuda(INSUFFICIENT, driver=0))
    assert "finds no NVIDIA driver: install one" in told


@pytest.mark.parametrize(
    ("driver", "remedy"), [(12040, 'pip install "cupy-cuda12x[ctk]" instead of cupy-cuda13x'), (11080, "")]
)
def test_a_driver_that_is_too_old(monkeypatch, driver, remedy):
    told = sentence(monkeypatch, is_available=lambda: False, cuda=cuda(INSUFFICIENT, driver=driver))
    assert f"is made for CUDA {driver // 1000}.{driver % 1000 // 10} and CuPy for 13.2: {remedy}" in told
    assert ("cupy-cuda12x" in told) == bool(remedy), "a driver of CUDA 11 serves neither"
    assert "newer driver" in told


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("", "CUDA_VISIBLE_DEVICES='' hides every GPU: unset it"), (None, "(CUDA 13.0) sees no GPU")],
)
def test_a_driver_that_sees_no_gpu(monkeypatch, visible, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert expected in sentence(monkeypatch, is_available=lambda: False, cuda=cuda(NO_DEVICE))


def test_a_driver_that_does_not_answer_is_quoted(monkeypatch):
    error = RuntimeError("cudaErrorSystemDriverMismatch: system has unsupported display driver")
    assert f"no GPU ({error}); check" in sentence(monkeypatch, is_available=lambda: False, cuda=cuda(error))


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    told = sentence(monkeypatch, "gpu:2", is_available=lambda: True, cuda=cuda(2))
    assert "there is no gpu:2: this machine has 2, numbered from 0 to 1 (CUDA_VISIBLE_DEVICES='0,3' may hide" in told


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            RuntimeError('Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file\nand more lines'),
            "does not find NVRTC, which compiles",
        ),
        (ImportError('Failure finding "libcublasLt.so.13": No such file: libcublasLt.so.13'), "does not find cuBLAS"),
        (
            ValueError('/cupy/float16.cuh(19): catastrophic error: cannot open source file "cuda_fp16.h"\n\n1 error'),
            "does not find CUDA's headers",
        ),
        (OutOfMemoryError("Out of memory allocating 512 bytes"), "has no memory left (Out of memory allocating 512"),
        (RuntimeError("cudaErrorMemoryAllocation: out of memory"), "has no memory left"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), "has no memory left"),
        (
            ValueError("nvrtc: error: invalid value for --gpu-architecture (-arch)"),
            "of compute capability 7.0, is not served by cupy-cuda13x",
        ),
        (RuntimeError("something new"), "cannot use it (something new): reinstall CuPy with its CUDA libraries"),
    ],
)  # fmt: skip
def test_a_gpu_that_cannot_be_used(monkeypatch, error, expected):
    cupys(monkeypatch, "cupy-cuda13x")
    told = sentence(monkeypatch, is_available=lambda: True, cuda=cuda(1), ones=raise_(error))
    assert f"gpu:0{'' if 'capability' not in expected else ', of compute capability 7.0, is not served'}" in told
    assert expected in told
    assert any(remedy in told for remedy in ("[ctk]", "nvidia-smi lists")), "and what to do"


def test_a_gpu_that_computes_wrongly_is_refused(monkeypatch):
    fake_cupy(monkeypatch, is_available=lambda: True, cuda=cuda(1), ones=lambda *a: np.zeros((2, 2)))
    with pytest.raises(DeviceError, match="computes wrongly"):
        backend.get_device("gpu")


def test_a_gpu_that_works_is_probed_once(monkeypatch):
    fake_cupy(monkeypatch, is_available=lambda: True, cuda=cuda(1), ones=np.ones)
    assert str(backend.get_device("gpu")) == "gpu:0"
    sys.modules["cupy"].ones = raise_(AssertionError("probed again"))
    assert backend.get_device("cuda:0") == backend.Device("gpu", 0)


def test_cupy_is_not_imported_for_the_cpu():
    """In a new process, because this one may have imported it to see whether there is a GPU."""
    import subprocess

    code = """
import sys, numpy as np, nanogan
from nanogan.models import dcgan
dcgan.generator(image_size=8, width=1).to("cpu").forward(np.zeros((2, 100), np.float32))
assert "cupy" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_arrays_move_and_come_back(device, rng):
    for x in (rng.standard_normal((2, 3, 4, 5)), channels_last(rng.standard_normal((2, 3, 4, 5))), np.arange(3)):
        there = backend.to_device(x, device)
        assert there.dtype == x.dtype
        np.testing.assert_array_equal(backend.to_numpy(there), x)
        assert backend.to_device(there, device) is there


def test_what_is_no_array_gets_one_sentence():
    with pytest.raises(UserError, match="expected a NumPy or CuPy array, got list"):
        backend.array_module([1.0])


def test_streams_of_random_numbers_are_independent_and_repeatable():
    def draw(seed, purpose):
        return backend.seeded_rng(seed, purpose).standard_normal(3).tolist()

    assert draw(1, "noise") == draw(1, "noise")
    assert len({tuple(draw(seed, purpose)) for seed in (0, 1) for purpose in ("noise", "weights")}) == 4


# ------------------------------------------------------------------------------------------------------ fast paths


@pytest.fixture
def fast_relu(monkeypatch):
    """A fast path for ReLU that serves even batch sizes, and marks what went through it."""

    def forward(x):
        return np.maximum(x, 0), ("fast", x)

    def backward(dy, cache):
        mark, x = cache
        assert mark == "fast"
        return 100 * dy * (x > 0)

    dispatch.load("cpu")
    monkeypatch.setattr(dispatch, "_paths", {})
    dispatch.register("cpu", ops.relu_forward, None, serves=lambda x: False, priority=2)
    dispatch.register("cpu", ops.relu_forward, forward, backward, serves=lambda x: len(x) % 2 == 0)


def test_a_fast_path_serves_what_it_can_and_its_backward_goes_with_it(fast_relu, monkeypatch):
    layer, x = ReLU(), np.ones((2, 3))
    _, cache = layer.forward(x)
    odd_y, odd_cache = layer.forward(np.ones((3, 3)))
    assert (layer.backward(x, cache) == 100).all()
    assert (layer.backward(odd_y, odd_cache) == 1).all(), "a shape that is not served falls back"
    monkeypatch.setattr(dispatch, "FAST", False)
    assert (layer.backward(x, cache) == 100).all(), "a cache stays with the backward that understands it"
    _, cache = layer.forward(x)
    assert (layer.backward(x, cache) == 1).all()


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True), (None, True)])
def test_NANOGAN_FAST_turns_them_off(value, expected, monkeypatch):
    """At the import: the module runs once more, beside the one that is in use."""
    monkeypatch.delenv("NANOGAN_FAST", raising=False)
    if value:
        monkeypatch.setenv("NANOGAN_FAST", value)
    assert runpy.run_path(dispatch.__file__)["FAST"] is expected


def test_the_gpu_is_used_where_there_is_one(device):
    if device == "gpu":
        assert isinstance(backend.to_device(np.ones(1), device), sys.modules["cupy"].ndarray)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ma.masked_array([1.0, 2.0], mask=[0, 1]), r"got a masked one: fill its gaps with x.filled\(value\)"),
        (np.eye(2).view(np.matrix), "got matrix: convert it with numpy.asarray"),
        ([1.0], "got list: convert it with numpy.asarray"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_plain_array_is_refused(x, message):
    with pytest.raises(UserError, match=message):
        backend.array_module(x)


def test_arrays_scalars_and_arrays_in_files_are_numpys(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    for x in (np.zeros(3), np.float32(1), np.array(1), np.load(tmp_path / "x.npy", mmap_mode="r")):
        assert backend.array_module(x) is np


@pytest.mark.parametrize("seed", [1.0, np.float64(1), "1", -1, None, [1], 1j])
def test_a_seed_that_is_no_integer_of_at_least_0_is_refused(seed):
    with pytest.raises(UserError, match="seed expected an integer of at least 0, got"):
        backend.seeded_rng(seed, "weights")


@pytest.mark.parametrize("seed", [np.int64(7), np.uint8(7)])
def test_numpys_seeds_draw_as_pythons(seed):
    assert backend.seeded_rng(seed, "weights").random() == backend.seeded_rng(7, "weights").random()


def test_many_arrays_come_over_together(device, rng):
    """Of any memory order and dtype, and those that are on the host already."""
    here = {"images": rng.standard_normal((2, 3, 4, 5)), "labels": rng.integers(0, 9, 6)}
    here["number"] = np.full((), 2.5, np.float32)
    there = {name: backend.to_device(array, device) for name, array in here.items()}
    there |= {"every other": there["labels"][::2], "count": np.array(7)}
    came = backend.all_to_numpy(there)
    assert list(came) == list(there)
    for name, expected in (here | {"every other": here["labels"][::2], "count": np.array(7)}).items():
        assert type(came[name]) is np.ndarray
        assert came[name].dtype == expected.dtype
        assert came[name].shape == expected.shape
        np.testing.assert_array_equal(came[name], expected)
