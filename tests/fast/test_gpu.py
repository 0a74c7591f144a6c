"""The GPU's fast paths against nanogan.ops, and their kernels through the compilers.

In the strict double the kernels' own C++ runs, compiled by g++; a real card runs it where there is one.
"""

import importlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from nanogan import backend, dispatch, ops
from nanogan.layers import Linear
from nanogan.optim import SGD, Adam
from tests import strict_cupy
from tests.conftest import GPU_PROBLEM
from tests.helpers import channels_last, relative_error

MODULES = ("elementwise", "batchnorm")
# A kernel may fuse multiplication and addition, which NumPy does not: a rounding or two for each operation.
TOLERANCE = {np.float64: 1e-13, np.float32: 3e-6}


@pytest.fixture(params=["double", pytest.param("real", marks=pytest.mark.gpu)])
def paths(request, monkeypatch):
    """{forward of ops: its fast (serves, forward, backward)} on CuPy or its double."""
    if request.param == "double":
        strict_cupy.install(monkeypatch)
    elif GPU_PROBLEM:
        pytest.skip(GPU_PROBLEM)
    backend.get_device("gpu")
    dispatch.load("gpu")
    found = {function: found for (kind, function), found in dispatch._paths.items() if kind == "gpu"}
    return {function: (path.serves, path.forward, path.backward) for function, (path,) in found.items()}


def there(x):
    return backend.to_device(x, "gpu")


def arranged(x, order):
    return channels_last(x) if order == "channels-last" else np.ascontiguousarray(x)


ACTIVATIONS = [
    (ops.relu_forward, ops.relu_backward, {}),
    (ops.leaky_relu_forward, ops.leaky_relu_backward, {"negative_slope": 0.2}),
    (ops.leaky_relu_forward, ops.leaky_relu_backward, {"negative_slope": np.float64(0.3)}),
    (ops.tanh_forward, ops.tanh_backward, {}),
    (ops.sigmoid_forward, ops.sigmoid_backward, {}),
]


@pytest.mark.parametrize(("forward", "backward", "options"), ACTIVATIONS, ids=lambda v: getattr(v, "__name__", ""))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("order", ["channels-last", "channels-first", "matrix"])
def test_activations_are_the_readable_ones(paths, forward, backward, options, dtype, order, rng):
    shape = (7, 5) if order == "matrix" else (2, 3, 4, 5)
    x, dy = (arranged(3 * rng.standard_normal(shape).astype(dtype), order) for _ in range(2))
    x.flat[:3] = 0.0, 50.0, -50.0
    serves, fast_forward, fast_backward = paths[forward]
    assert serves(there(x), **options)
    y, cache = forward(x, **options)
    fast_y, fast_cache = fast_forward(there(x), **options)
    fast_dx = fast_backward(there(dy), fast_cache)
    assert fast_y.dtype == fast_dx.dtype == dtype
    assert fast_y.strides == fast_dx.strides == there(x).strides or order == "channels-first"
    assert relative_error(backend.to_numpy(fast_y), y) < TOLERANCE[dtype]
    assert relative_error(backend.to_numpy(fast_dx), backward(dy, cache)) < TOLERANCE[dtype]


@pytest.mark.parametrize("forward", [forward for forward, _, _ in ACTIVATIONS[:2]])
def test_what_is_not_finite_is_the_readable_ones(paths, forward):
    """A diverged run must be seen, and one of which an overflow is clipped must not diverge."""
    x = np.array([[np.nan, -np.inf, np.inf, -1.0]])
    y, _ = paths[forward][1](there(x))
    np.testing.assert_array_equal(backend.to_numpy(y), forward(x)[0])


def draw_batchnorm(rng, dtype, shape, mean=0.0):
    C = shape[1]
    x = (mean + rng.standard_normal(shape) * rng.uniform(0.5, 2, (1, C) + (1,) * (len(shape) - 2))).astype(dtype)
    gamma, beta, running_mean = (rng.standard_normal(C).astype(dtype) for _ in range(3))
    return x, gamma, beta, running_mean, rng.uniform(0.5, 2, C).astype(dtype)


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (1, 2, 3, 3), (7, 3), (64, 5, 9, 9)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("order", ["channels-last", "channels-first"])
def test_batchnorm_is_the_readable_one(paths, shape, dtype, order, rng):
    arrays = draw_batchnorm(rng, dtype, shape)
    arrays = (arranged(arrays[0], order), *arrays[1:])
    dy = arranged(rng.standard_normal(shape).astype(dtype), order)
    on_gpu = [there(a) for a in arrays]
    serves, forward, backward = paths[ops.batchnorm_forward]
    options = {"momentum": 0.3, "eps": 1e-3}
    assert serves(*on_gpu, **options)
    fast_y, fast_cache = forward(*on_gpu, **options)
    y, cache = ops.batchnorm_forward(*arrays, **options)
    assert relative_error(backend.to_numpy(fast_y), y) < TOLERANCE[dtype]
    for fast, readable in zip(on_gpu[3:], arrays[3:], strict=True):
        assert relative_error(backend.to_numpy(fast), readable) < TOLERANCE[dtype]
    fast_gradients = backward(there(dy), fast_cache)
    for fast, readable in zip(fast_gradients, ops.batchnorm_backward(dy, cache), strict=True):
        assert fast.dtype == dtype
        assert relative_error(backend.to_numpy(fast), readable) < 5 * TOLERANCE[dtype]
    assert backward(there(dy), fast_cache, need_dx=False)[0] is None
    dx, dgamma, dbeta = backward(there(dy), fast_cache, need_dw=False)
    assert dgamma is None
    assert dbeta is None
    np.testing.assert_array_equal(backend.to_numpy(dx), backend.to_numpy(fast_gradients[0]))


def test_a_mean_far_above_the_spread_costs_no_digits(paths, rng):
    """Values of 10,000 +- 1: a float32 mean of them is off by 5e-4."""
    arrays = draw_batchnorm(rng, np.float32, (8, 3, 16, 16), mean=1e4)
    exact, _ = ops.batchnorm_forward(*(a.astype(np.float64) for a in arrays))
    y, _ = paths[ops.batchnorm_forward][1](*(there(a) for a in arrays))
    assert relative_error(backend.to_numpy(y), exact) < 1e-5


def test_what_it_does_not_serve_is_left_to_the_readable_one(paths, rng):
    arrays = [there(a) for a in draw_batchnorm(rng, np.float32, (4, 3, 2, 2))]
    serves = paths[ops.batchnorm_forward][0]
    assert not serves(*arrays, train=False)
    assert not serves(arrays[0][:1, :, :1, :1], *arrays[1:])
    assert not serves(arrays[0], arrays[1].astype(np.float64), *arrays[2:])
    assert not serves(arrays[0][:, :2], *arrays[1:])
    assert not paths[ops.relu_forward][0](there(np.ones(3, np.float16)))
    assert not paths[ops.leaky_relu_forward][0](there(np.ones(3)), negative_slope=1.5)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(Adam, {"betas": (0.5, 0.999)}), (Adam, {"weight_decay": 0.1, "eps": 1e-4}), (SGD, {"momentum": 0.9})],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_100_updates_are_the_cpus(paths, kind, options, dtype, rng):
    here = Linear(5, 4, rng=np.random.default_rng(0), dtype=dtype)
    other = Linear(5, 4, rng=np.random.default_rng(0), dtype=dtype).to("gpu")
    first, second = kind(here, lr=1e-2, **options), kind(other, lr=1e-2, **options)
    for _ in range(100):
        for name, gradient in here.grads.items():
            gradient[...] = rng.standard_normal(gradient.shape) * 10.0 ** rng.integers(-6, 3, gradient.shape)
            other.grads[name][...] = there(gradient)
        first.step()
        second.step()
    for name, parameter in here.params.items():
        assert relative_error(backend.to_numpy(other.params[name]), parameter) < 10 * TOLERANCE[dtype], name


# --------------------------------------------------------------------------------------------------- the compilers


def kernels(monkeypatch):
    """{name: the double's ElementwiseKernel} of all kernels in nanogan.fast.gpu."""
    strict_cupy.install(monkeypatch)
    found = {}
    for module in MODULES:
        for value in vars(importlib.import_module(f"nanogan.fast.gpu.{module}")).values():
            if isinstance(value, sys.modules["cupy"].ElementwiseKernel):
                found[value.name] = value
    return found


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_kernel_compiles_for(arch, monkeypatch, tmp_path):
    """With nvcc, for float and double, and without spilling registers."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("there is no nvcc on the PATH")
    found = kernels(monkeypatch)
    assert len(found) == 10
    source = "".join(kernel.cuda_source(real) for kernel in found.values() for real in ("float", "double"))
    (tmp_path / "kernels.cu").write_text(source, encoding="utf-8")
    command = [nvcc, "-cubin", f"-arch={arch}", "-Xptxas", "-v", "kernels.cu", "-o", "kernels.cubin"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("0 bytes spill stores") == 2 * len(found), done.stderr
