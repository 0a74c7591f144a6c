"""The GPU's fast paths against nanogan.ops, and their kernels through the compilers.

In the strict double the kernels' own C++ runs, compiled by g++; a real card runs it where there is one.
"""

import copy
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nanogan
from nanogan import backend, dispatch, layers, ops
from nanogan.folders import modules_in
from nanogan.gradcheck.cases import OPERATIONS
from nanogan.layers import Linear
from nanogan.ops.examples import Example, normal
from nanogan.optim import SGD, Adam
from tests import strict_cupy
from tests.helpers import channels_last, relative_error

# A kernel may fuse multiplication and addition, which NumPy does not: a rounding or two for each operation.
TOLERANCE = {np.float64: 1e-13, np.float32: 3e-6}


@pytest.fixture
def paths(gpu):
    """{forward of ops: its fast (serves, forward, backward)} on CuPy or its double."""
    backend.get_device("gpu")
    dispatch.load("gpu")
    found = {function: found for (kind, function), found in dispatch._paths.items() if kind == "gpu"}
    # the last of several serves what the others leave to it: kernels of measured sizes are in test_gpu_conv4s2.py
    return {function: (path.serves, path.forward, path.backward) for function, (*_, path) in found.items()}


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


@pytest.mark.parametrize("outliers", [[0], [0, 1, 2, 3, 4, 5, 6, 7], [4095]])
def test_a_few_rows_far_from_the_others_cost_no_digits(paths, outliers, rng):
    """The squares are not summed around those rows."""
    arrays = draw_batchnorm(rng, np.float32, (4096, 3))
    arrays[0][outliers] += 1e6 * rng.uniform(1, 2, 3).astype(np.float32)
    exact = [a.astype(np.float64) for a in arrays]
    y, _ = ops.batchnorm_forward(*exact)
    there_now = [there(a) for a in arrays]
    fast_y, _ = paths[ops.batchnorm_forward][1](*there_now)
    np.testing.assert_allclose(backend.to_numpy(there_now[4]), exact[4], rtol=1e-5)
    np.testing.assert_allclose(backend.to_numpy(fast_y), y, rtol=1e-5, atol=1e-5)


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


# ------------------------------------------------------------------------------------- all that has a path and examples


def with_one_target(forward, *shape, **options):
    """An example of a loss whose target is a number."""
    name = next(iter(inspect.signature(forward).parameters))  # x or logits
    return Example(forward, **{name: normal(*shape)}, **options)


LOSSES = (ops.bce_with_logits_forward, ops.saturating_bce_forward, ops.mse_forward, ops.l1_forward, ops.score_forward,
          ops.hinge_forward)  # fmt: skip
ALL = [case for case in OPERATIONS if case.forward not in (ops.spectral_norm_forward,)]
ALL += [
    with_one_target(forward, 7, 5, target=target, reduction=reduction)
    for forward in LOSSES
    for target in (0.0, 1.0, 0.9)
    for reduction in ("mean", "sum")
]
ALL += [with_one_target(forward, *shape, target=0.9) for forward in LOSSES for shape in ((300, 1), (3, 5, 20, 15))]


@pytest.mark.parametrize("case", ALL, ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("order", ["channels-last", "channels-first"])
def test_every_example_that_a_path_serves_is_the_readable_ones(paths, case, dtype, order, rng):
    """Forward, backward, what is not needed, and gradients added to arrays that are given."""
    inputs = {name: arranged(a, order) for name, a in case.draw(rng, dtype).items()}
    on_gpu = {name: there(a) for name, a in inputs.items()}
    arguments, named = case.split(on_gpu)
    arguments = list(arguments.values())
    if case.forward not in paths or not paths[case.forward][0](*arguments, **named):
        return  # the operation itself computes; tests/ops tries that on every device
    _, forward, backward = paths[case.forward]
    book_arguments, book_named = case.split(inputs)
    y, cache = case.forward(*book_arguments.values(), **book_named)
    fast_y, fast_cache = forward(*arguments, **named)
    assert fast_y.dtype == dtype
    assert relative_error(backend.to_numpy(fast_y), y) < 3 * TOLERANCE[dtype]
    dy = 0.7 if y.ndim == 0 else arranged(rng.standard_normal(y.shape).astype(dtype), order)
    dy_there = dy if y.ndim == 0 else there(dy)
    gradients = backward(dy_there, fast_cache)
    expected = case.pair[1](dy, cache)
    for fast, readable in zip(as_tuple(gradients), as_tuple(expected), strict=True):
        assert (fast is None) == (readable is None)
        if fast is not None:
            assert fast.shape == readable.shape
            assert relative_error(backend.to_numpy(fast), readable) < 10 * TOLERANCE[dtype]
    if y.ndim == 0:
        on_device = backward(there(np.full((), dy, dtype)), fast_cache)
        assert relative_error(backend.to_numpy(on_device), backend.to_numpy(gradients)) < TOLERANCE[dtype]
    if getattr(backward, "adds_gradients", False):
        dx, *parameters = gradients
        into = [None if gradient is None else channels_last_there(rng, gradient) for gradient in parameters]
        before = [None if array is None else backend.to_numpy(array).copy() for array in into]
        added_dx, *rest = backward(dy_there, fast_cache, into=into)
        np.testing.assert_array_equal(backend.to_numpy(added_dx), backend.to_numpy(dx))
        assert any(gradient is None for gradient in rest), "something is added by the path itself"
        for array, was, gradient, left in zip(into, before, parameters, rest, strict=True):
            if array is not None:
                total = backend.to_numpy(array) + (0 if left is None else backend.to_numpy(left))
                assert relative_error(total, was + backend.to_numpy(gradient)) < TOLERANCE[dtype]
        assert backward(dy_there, fast_cache, need_dx=False)[0] is None
        assert all(gradient is None for gradient in backward(dy_there, fast_cache, need_dw=False)[1:])


def as_tuple(gradients):
    return gradients if isinstance(gradients, tuple) else (gradients,)


def channels_last_there(rng, like):
    """A random array as a layer's gradient lies in memory."""
    return there(channels_last(rng.standard_normal(like.shape).astype(like.dtype)))


def test_every_path_has_an_example(paths):
    """Activations have tests of their own above, too; optimisers' updates and pairs of operations below."""
    tried = {case.forward for case in ALL}
    operations = {
        function for function in paths if not isinstance(function, tuple) and function.__name__.endswith("_forward")
    }
    assert operations <= tried


@pytest.mark.parametrize("forward", LOSSES)
@pytest.mark.parametrize("x", [np.inf, -np.inf, np.nan, 1000.0])
@pytest.mark.parametrize("target", [0.0, 1.0, 0.9])
def test_a_loss_of_what_is_not_finite_is_the_readable_one(paths, forward, x, target):
    x = np.array([[x], [0.5]])
    with np.errstate(all="ignore"):
        expected, cache = forward(x, target)
        slope = getattr(ops, forward.__name__.replace("forward", "backward"))(1.0, cache)
    loss, cache = paths[forward][1](there(x), target)
    np.testing.assert_allclose(backend.to_numpy(loss), expected)
    np.testing.assert_allclose(backend.to_numpy(paths[forward][2](1.0, cache)), slope)


@pytest.mark.parametrize("slope", [None, 0.2, 0.0])
@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (3, 64, 4, 4), (7, 5), (300, 40)])
def test_batchnorm_with_the_activation_behind_it(paths, slope, shape, rng):
    """In a Sequential, against the two layers one after the other on the CPU."""
    after = layers.ReLU() if slope is None else layers.LeakyReLU(slope)
    network = layers.Sequential((layers.BatchNorm1d if len(shape) == 2 else layers.BatchNorm2d)(shape[1]), after)
    for name, array in network.state_dict().items():
        if not name.endswith("tracked"):
            array[...] = rng.uniform(0.5 if name.endswith("var") else -1.5, 1.5, array.shape)
    x, dy = (channels_last(rng.standard_normal(shape).astype(np.float32)) for _ in range(2))
    other = copy.deepcopy(network).to("gpu")
    for _ in range(2):  # gradients add up
        y, cache = network.forward(x)
        dx = network.backward(dy, cache)
        with dispatch.watch() as ran:
            fast_y, fast_cache = other.forward(there(x))
        fast_dx = other.backward(there(dy), fast_cache)
    assert ran == [f"nanogan.fast.gpu.batchnorm.{'leaky_' if slope is not None else ''}relu_forward"]
    assert relative_error(backend.to_numpy(fast_y), y) < TOLERANCE[np.float32]
    assert relative_error(backend.to_numpy(fast_dx), dx) < 5 * TOLERANCE[np.float32]
    assert other.backward(there(dy), fast_cache, need_dx=False) is None
    network.backward(dy, cache, need_dx=False)
    for name, array in (network.state_dict() | network[0].grads).items():
        found = other[0].grads[name] if name in network[0].grads else other.state_dict()[name]
        assert relative_error(backend.to_numpy(found), array) < 10 * TOLERANCE[np.float32], name
    np.testing.assert_allclose(
        backend.to_numpy(other.forward(there(x), train=False)[0]), network.forward(x, train=False)[0], atol=1e-5
    )


class Doubled(layers.ReLU):
    """Another forward."""

    def forward(self, x, train=True):
        y, cache = super().forward(x, train)
        return 2 * y, cache


class Guided(layers.ReLU):
    """Another backward."""

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        return 3 * super().backward(dy, cache, need_dx, need_dw)


class Frozen(layers.BatchNorm1d):
    """Normalises by its running statistics, always."""

    def forward(self, x, train=True):
        return super().forward(x, train=False)


@pytest.mark.parametrize(
    ("norm", "activation"), [(layers.BatchNorm1d, Doubled), (layers.BatchNorm1d, Guided), (Frozen, layers.ReLU)]
)
def test_layers_with_methods_of_their_own_are_called(paths, norm, activation, rng):
    x, dy = (rng.standard_normal((6, 3)).astype(np.float32) for _ in range(2))
    here = layers.Sequential(norm(3), activation())
    expected, cache = here.forward(x)
    dx = here.backward(dy, cache)
    y, cache = here.to("gpu").forward(there(x))
    np.testing.assert_allclose(backend.to_numpy(y), expected, atol=1e-5)
    np.testing.assert_allclose(backend.to_numpy(here.backward(there(dy), cache)), dx, atol=1e-5)


# --------------------------------------------------------------------------------------------------- the compilers


FOLDER = Path(nanogan.__file__).parent / "fast" / "gpu"
NUMBERS = ("float", "double")
# .cu file: the -D options with which it is compiled
VARIANTS = {
    "windows.cu": [{"NUMBER": number, "WIDTH": width} for number in NUMBERS for width in (1, 4)]
    + [{"NUMBER": "unsigned short", "WIDTH": 8}],
    "batchnorm.cu": [{"NUMBER": number, "WIDTH": width} for number in NUMBERS for width in (1, 4)],
    "losses.cu": [{"NUMBER": number, "LOSS": forward.__name__.removesuffix("_forward")}
                  for number in NUMBERS for forward in (*LOSSES, ops.mean_probability_forward)],
}  # fmt: skip


def elementwise_kernels(monkeypatch):
    """{name: the double's ElementwiseKernel} of all of them in nanogan.fast.gpu."""
    strict_cupy.install(monkeypatch)
    found = {}
    for module in modules_in("nanogan.fast.gpu"):
        for value in [*vars(module).values(), *getattr(module, "KERNELS", {}).values()]:
            if isinstance(value, sys.modules["cupy"].ElementwiseKernel):
                found[value.name] = value
    return found


@pytest.fixture
def compiled(tmp_path):
    """A function that compiles a source for an architecture with nvcc, and returns what the assembler says."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("there is no nvcc on the PATH")

    def compile(source, arch, *options):
        (tmp_path / "kernels.cu").write_text(source, encoding="utf-8")
        command = [nvcc, "-cubin", f"-arch={arch}", "-Xptxas", "-v", *options, "kernels.cu", "-o", "kernels.cubin"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stderr

    return compile


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_elementwise_kernel_compiles_for(arch, monkeypatch, compiled):
    """For float and double, and without spilling registers."""
    found = elementwise_kernels(monkeypatch)
    assert len(found) == 14
    told = compiled("".join(kernel.cuda_source(real) for kernel in found.values() for real in NUMBERS), arch)
    assert_nothing_is_spilled(told, 2 * len(found))


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("file", VARIANTS)
def test_every_cuda_file_compiles_for(arch, file, compiled):
    """In all its variants, and without spilling registers."""
    source = (FOLDER / file).read_text(encoding="utf-8")
    together = "".join(
        f"namespace variant_{i} {{\n" + "".join(f"#define {key} {value}\n" for key, value in defines.items())
        + source.replace('extern "C" ', "")
        + "".join(f"\n#undef {key}" for key in [*defines, *re.findall(r"^#define (\w+)", source, re.M)]) + "\n}\n"
        for i, defines in enumerate(VARIANTS[file])
    )  # fmt: skip
    told = compiled(together, arch, "-std=c++17")
    kernels = source.count("__global__") * len(VARIANTS[file])
    assert_nothing_is_spilled(told, kernels)


def assert_nothing_is_spilled(told, kernels):
    """Of at least so many kernels; functions such as pow are listed too."""
    spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", told)
    assert len(spilled) >= kernels, told
    assert set(spilled) == {("0", "0")}, told


def test_every_cuda_file_is_compiled():
    """conv4s2.cu in tests/fast/test_gpu_conv4s2.py."""
    assert {path.name for path in FOLDER.glob("*.cu")} == {*VARIANTS, "conv4s2.cu"}
