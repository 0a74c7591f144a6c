"""Devices, seeds, and the line that chooses between an operation and its fast path."""

import sys
import types

import numpy as np
import pytest

from nanogan import backend, ops
from nanogan.errors import DeviceError, UserError
from nanogan.layers import ReLU
from tests.helpers import channels_last


@pytest.mark.parametrize("name", ["tpu", "", "gpu:x", "gpu:-1", "cpu:0", "cpu:1", "gpu:0:1"])
def test_an_unknown_device_gets_one_sentence(name):
    with pytest.raises(DeviceError, match="unknown device.*use cpu, gpu, or gpu:N"):
        backend.get_device(name)


def fake_cupy(monkeypatch, **attributes):
    """A module named cupy that has just these attributes; None makes the import fail."""
    monkeypatch.setattr(backend, "_probed", set())
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


def cuda(count, **device):
    runtime = types.SimpleNamespace(getDeviceCount=lambda: count)
    return types.SimpleNamespace(runtime=runtime, Device=lambda index: types.SimpleNamespace(use=lambda: None))


def test_a_gpu_that_is_not_there(monkeypatch):
    fake_cupy(monkeypatch, is_available=lambda: True, cuda=cuda(2))
    with pytest.raises(DeviceError, match="there is no gpu:2: this machine has 2, numbered from 0 to 1"):
        backend.get_device("gpu:2")


def test_missing_cuda_libraries(monkeypatch):
    error = RuntimeError("libnvrtc.so.13: cannot open shared object file\nand more lines")
    fake_cupy(monkeypatch, is_available=lambda: True, cuda=cuda(1), ones=raise_(error))
    with pytest.raises(
        DeviceError, match="cannot use it .libnvrtc.so.13: cannot open shared object file.: reinstall"
    ) as e:
        backend.get_device("gpu")
    assert "\n" not in str(e.value)


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

    path = [(lambda x: False, None, None), (lambda x: len(x) % 2 == 0, forward, backward)]
    backend._load_fast_paths("cpu")
    monkeypatch.setitem(backend._fast_paths, (ops.relu_forward, "cpu"), path)


def test_a_fast_path_serves_what_it_can_and_its_backward_goes_with_it(fast_relu, monkeypatch):
    layer, x = ReLU(), np.ones((2, 3))
    _, cache = layer.forward(x)
    odd_y, odd_cache = layer.forward(np.ones((3, 3)))
    assert (layer.backward(x, cache) == 100).all()
    assert (layer.backward(odd_y, odd_cache) == 1).all(), "a shape that is not served falls back"
    monkeypatch.setattr(backend, "FAST", False)
    assert (layer.backward(x, cache) == 100).all(), "a cache stays with the backward that understands it"
    _, cache = layer.forward(x)
    assert (layer.backward(x, cache) == 1).all()


@pytest.mark.parametrize(("value", "expected"), [("0", "False"), ("1", "True"), (None, "True")])
def test_NANOGAN_FAST_turns_them_off(value, expected):
    import os
    import subprocess

    environment = {name: v for name, v in os.environ.items() if name != "NANOGAN_FAST"}
    environment |= {"NANOGAN_FAST": value} if value else {}
    code = "from nanogan import backend; print(backend.FAST)"
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert printed.stdout.strip() == expected


def test_the_gpu_is_used_where_there_is_one(device):
    if device == "gpu":
        assert type(backend.to_device(np.ones(1), device)).__module__.split(".")[-1] in ("cupy", "strict_cupy")
