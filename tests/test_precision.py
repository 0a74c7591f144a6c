"""Products of TF32 and of 16-bit numbers, and the loss scaling that 16-bit floating point needs."""

import sys

import numpy as np
import pytest
import torch

from nanogan import backend, layers, ops
from nanogan.errors import UserError
from nanogan.optim import SGD, Adam
from nanogan.training import adversarial_step
from tests import strict_cupy
from tests.conftest import GPU_PROBLEM
from tests.games.test_adversarial import batches, networks
from tests.helpers import relative_error

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture(autouse=True)
def precision_as_it_was():
    yield
    backend.set_matmul_precision("float32")


def choose(precision, device):
    if precision == "bf16" and device == "gpu":
        pytest.importorskip("ml_dtypes", reason="CuPy's bfloat16 is the package ml_dtypes'")
    backend.get_device(device)
    backend.set_matmul_precision(precision)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_product_is_that_of_torchs_16_bit_numbers(precision, device, rng):
    """Read in 16 bits, added up in float32, and not rounded again; the order of additions is each library's own."""
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 300), (300, 4)))
    choose(precision, device)
    y = backend.to_numpy(backend.product(backend.to_device(a, device), backend.to_device(b, device)))
    rounded = [torch.tensor(x).to(HALF[precision]).to(torch.float32) for x in (a, b)]
    exact = (rounded[0].double() @ rounded[1].double()).numpy()
    assert y.dtype == np.float32
    assert relative_error(y, exact) < 1e-6
    plain = a @ b
    assert relative_error(exact, plain) > 1e-4, "the rounding must show for this to prove anything"


def test_bfloat16_is_rounded_as_torch_rounds_it(rng):
    x = np.concatenate(
        [rng.standard_normal(1000) * 10.0 ** rng.integers(-38, 38, 1000), [0, -0.0, np.inf, np.nan, 1.00390625]]
    )
    x = x.astype(np.float32)
    backend.set_matmul_precision("bf16")
    expected = torch.tensor(x).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(backend.precision._rounded(x), expected)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_read_16_bits_in_all_three_directions(precision, transposed, device, rng):
    """Against the same operation in float32 on rounded inputs: nothing else is rounded."""
    forward, backward = (
        (ops.conv_transpose2d_forward, ops.conv_transpose2d_backward) if transposed
        else (ops.conv2d_forward, ops.conv2d_backward)
    )  # fmt: skip

    def results(x, w, dy):
        y, cache = forward(x, w, stride=2, padding=1)
        return [backend.to_numpy(array) for array in (y, *backward(dy, cache)[:2])]

    size = 12 if transposed else 3
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((2, 3, 6, 6), (3, 3, 4, 4), (2, 3, size, size))]
    plain, expected = (
        results(*inputs) for inputs in (arrays, [torch.tensor(a).to(HALF[precision]).float().numpy() for a in arrays])
    )
    choose(precision, device)
    for got, exact, unrounded in zip(
        results(*(backend.to_device(a, device) for a in arrays)), expected, plain, strict=True
    ):
        assert got.dtype == np.float32
        assert relative_error(got, exact) < 1e-6
        assert relative_error(got, unrounded) > 1e-4


def test_float64_is_left_alone(rng):
    a, b = rng.standard_normal((3, 4)), rng.standard_normal((4, 5))
    backend.set_matmul_precision("fp16")
    np.testing.assert_array_equal(backend.product(a, b), a @ b)


def test_the_fast_cpu_paths_do_not_pass_16_bits_by(rng):
    """At a size that Winograd's convolution serves."""
    x = rng.standard_normal((32, 64, 32, 32)).astype(np.float32)
    conv = layers.Conv2d(64, 128, kernel_size=4, stride=2, padding=1, bias=False, rng=rng)
    rounded = [torch.tensor(a).to(torch.bfloat16).float().numpy() for a in (x, conv.params["weight"])]
    exact, _ = ops.conv2d_forward(*rounded, stride=2, padding=1)
    backend.set_matmul_precision("bf16")
    y, _ = conv.forward(x)
    assert relative_error(y, exact) < 1e-6


@pytest.mark.parametrize(("precision", "kind"), [("tf32", 7), ("float32", 4), ("fp16", 4)])
def test_cublas_is_told(double, precision, kind, monkeypatch):
    """float32 products are float32 unless TF32 is asked for, whatever CUPY_TF32 in the environment says."""
    strict_cupy.compute_types.clear()
    backend.get_device("gpu")
    assert strict_cupy.compute_types == {np.float32: 4}
    backend.set_matmul_precision(precision)
    assert strict_cupy.compute_types == {np.float32: kind}


@pytest.mark.gpu
def test_tf32_rounds_and_float32_does_not(rng):
    if GPU_PROBLEM:
        pytest.skip(GPU_PROBLEM)
    a, b = (rng.standard_normal((256, 256)).astype(np.float32) for _ in range(2))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    errors = {}
    for precision in ("float32", "tf32"):
        try:
            choose(precision, "gpu")
        except UserError as error:  # before Ampere
            pytest.skip(str(error))
        y = backend.product(backend.to_device(a, "gpu"), backend.to_device(b, "gpu"))
        errors[precision] = relative_error(backend.to_numpy(y), exact)
    assert errors["float32"] < 1e-5
    assert 1e-5 < errors["tf32"] < 1e-2


def test_what_cannot_be_gets_one_sentence(double, monkeypatch):
    monkeypatch.setattr(backend.devices, "_probed", set())
    with pytest.raises(UserError, match="unknown precision 'half': use one of float32, tf32, fp16, bf16"):
        backend.set_matmul_precision("half")
    with pytest.raises(UserError, match="tf32 expected a GPU in use: choose the device first, or use float32"):
        backend.set_matmul_precision("tf32")
    backend.get_device("gpu")
    monkeypatch.setattr(double.cuda.Device, "compute_capability", "75")
    with pytest.raises(UserError, match="tf32 expected a GPU of compute capability 8.0 .Ampere. or newer: use float32"):
        backend.set_matmul_precision("tf32")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(UserError, match="bf16 on a GPU expected the package ml_dtypes: pip install ml_dtypes"):
        backend.set_matmul_precision("bf16")
    assert backend.matmul_precision() == "float32"


# ----------------------------------------------------------------------------------------------------- loss scaling


def gradients_of_d(loss_scaling, device, mean_of):
    """D's gradients as an optimiser's step sees them, of a loss that is a mean over ``mean_of`` batches."""
    _, d = networks(np.float32)
    opt = SGD(d.to(device), lr=1.0, loss_scaling=loss_scaling)
    ((real, _),) = batches(1, np.float32)
    logits, cache = d.forward(backend.to_device(real, device))
    _, loss_cache = ops.bce_with_logits_forward(logits, 1.0)
    d.backward(ops.bce_with_logits_backward(opt.dloss, loss_cache) / mean_of, cache, need_dx=False)
    opt.step()
    return {name: backend.to_numpy(gradient) for name, _, gradient in d.named_parameters()}, opt


def test_small_gradients_vanish_in_fp16_unless_losses_are_scaled(device):
    exact, _ = gradients_of_d(False, "cpu", mean_of=1 << 24)
    choose("fp16", device)
    lost, _ = gradients_of_d(False, device, mean_of=1 << 24)
    kept, opt = gradients_of_d(True, device, mean_of=1 << 24)
    for name in ("main.0.weight", "main.2.weight"):
        assert (lost[name] == 0).all()
        assert relative_error(kept[name], exact[name]) < 0.05
    assert float(opt.dloss) == 65536
    assert float(opt.state["good_steps"]) == 1


@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_step_with_an_infinite_gradient_changes_nothing_but_the_scale(kind, value, device):
    _, d = networks(np.float32)
    opt = kind(d.to(device), lr=0.1, loss_scaling=True)
    for seed in range(3):
        for i, (_, _, gradient) in enumerate(d.named_parameters()):
            gradient[...] = seed + 1.0
            if seed == 2 and i == 1:
                gradient[..., -1] = value
        before = {name: backend.to_numpy(a).copy() for name, a in (d.state_dict() | opt.state).items()}
        opt.step()
    for name, array in (d.state_dict() | opt.state).items():
        expected = {"loss_scale": 32768, "good_steps": 0}.get(name, before[name])
        np.testing.assert_array_equal(backend.to_numpy(array), expected)
    assert float(opt.dloss) == 32768
    assert opt.steps == 3


def test_the_scale_doubles_after_2000_good_steps(device):
    layer = layers.Linear(1, 1, bias=False, rng=np.random.default_rng(0)).to(device)
    opt = SGD(layer, lr=0.0, loss_scaling=True)
    opt.state["good_steps"][...] = 1998
    seen = []
    for _ in range(3):
        opt.step()
        seen.append((float(opt.dloss), float(opt.state["good_steps"])))
    assert seen == [(65536, 1999), (131072, 0), (131072, 1)]


def test_scaled_steps_are_the_unscaled_ones(device, rng):
    """A power of two scales without rounding."""
    results = []
    for scaling in (False, True):
        layer = layers.Linear(4, 3, rng=np.random.default_rng(0)).to(device)
        opt = Adam(layer, lr=1e-2, loss_scaling=scaling)
        for seed in range(20):
            for gradient in layer.grads.values():
                drawn = np.random.default_rng(seed).standard_normal(gradient.shape).astype(np.float32)
                gradient[...] = backend.to_device(drawn, device) * opt.dloss
            opt.step()
        results.append(backend.to_numpy(layer.params["weight"]))
    np.testing.assert_array_equal(*results)


def test_a_scaled_state_is_saved_and_taken_up(device):
    _, d = networks(np.float32)
    first, second = Adam(d.to(device), loss_scaling=True), Adam(d, loss_scaling=True)
    first.state["loss_scale"][...] = 4.0
    second.load_state_dict(first.state_dict())
    assert float(second.dloss) == 4.0


@pytest.mark.parametrize(("precision", "loss_scaling"), [("fp16", True), ("bf16", False)])
def test_20_steps_in_16_bits_stay_near_those_in_float32(precision, loss_scaling, device):
    def run(device, loss_scaling):
        g, d = (network.to(device) for network in networks(np.float32))
        opt_g, opt_d = (Adam(n, lr=1e-3, betas=(0.5, 0.999), loss_scaling=loss_scaling) for n in (g, d))
        rows = []
        for real, z in batches(20, np.float32):
            real, z = backend.to_device(real, device), backend.to_device(z, device)
            with np.errstate(invalid="ignore", over="ignore"):  # the first scales are too large, as they are to be
                result = adversarial_step(g, d, opt_g, opt_d, real, z)
            rows.append([float(backend.to_numpy(value)) for value in result])
        return np.array(rows)

    exact = run("cpu", False)
    choose(precision, device)
    rows = run(device, loss_scaling)
    assert rows.dtype == float
    assert np.ptp(exact[:, 0]) > 0.2, "the losses must have moved for this to prove anything"
    assert 0 < np.abs(rows - exact).max() < (0.05 if precision == "fp16" else 0.1)
