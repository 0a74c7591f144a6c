"""Every operation: against torch, against finite differences, and against the contract of DESIGN's operations."""

import inspect

import numpy as np
import pytest
import torch

from nanogan import ops
from nanogan.backend import to_device, to_numpy
from nanogan.dispatch import dispatch
from nanogan.errors import UserError
from nanogan.folders import modules_in
from nanogan.gradcheck.cases import OPERATIONS as CASES
from nanogan.gradcheck.cases import UPDATES
from nanogan.ops.examples import Example, normal
from nanogan.ops.rows import add, join_channels, split_channels
from nanogan.ops.spectral_norm import power_iteration
from tests.helpers import channels_last, directional_error, elementwise_gradient, relative_error

# Rounding of one operation: 2^-53 and 2^-24 times the square root of the longest sum here, with a margin of 10.
TOLERANCE = {np.float64: 1e-13, np.float32: 1e-5}

cases = pytest.mark.parametrize("case", CASES, ids=str)
dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def forward(case, inputs):
    """Run the forward on the arrays, with the same random zeros at every call."""
    positional, named = case.split(inputs)
    return case.pair[0](*positional.values(), **named)


def backward(case, dy, cache, **needs):
    """Run the backward and return {input's name: gradient}."""
    gradients = case.pair[1](dy, cache, **needs)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return {name: g for name, g in zip(case.differentiable, gradients, strict=False) if name is not None}


def draw_dy(rng, y, device):
    """A random gradient of y's shape and dtype, so that no symmetry of ones hides a mistake."""
    if y.ndim == 0:
        return float(rng.uniform(0.5, 2.0))
    return to_device(channels_last(rng.standard_normal(y.shape).astype(y.dtype)), device)


def torch_results(case, inputs, dy):
    tensors = {name: torch.tensor(array) for name, array in inputs.items()}
    for name in case.differentiable:
        if name is not None:
            tensors[name].requires_grad_()
    names = [name for name in case.differentiable if name is not None]
    y = case.expected(torch.nn.functional, tensors)
    y.backward(torch.tensor(dy, dtype=y.dtype))
    return y.detach().numpy(), {name: tensors[name].grad.numpy() for name in names}


def test_every_operation_and_every_update_has_a_case():
    operations = {name.rsplit("_", 1)[0] for name in ops.__all__ if not name.endswith("_update")}
    assert operations == {case.op for case in CASES}
    assert {name for name in ops.__all__ if name.endswith("_update")} == {case.op for case in UPDATES}


def lone_forward(x):
    return x, None


def test_a_forward_without_a_backward_gets_one_sentence():
    with pytest.raises(UserError, match="lone_forward expected lone_backward beside it, in tests.ops.test_cases"):
        _ = Example(lone_forward, x=normal(2)).pair


def test_a_name_is_defined_in_one_file():
    """Of two definitions, ``nanogan.ops`` would offer the one in the later file."""
    defined = [
        name
        for module in modules_in("nanogan.ops")
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and name[0] != "_"
    ]
    operations = sorted(name for name in defined if name.endswith(("_forward", "_backward", "_update")))
    assert operations == ops.__all__
    assert {"conv2d_forward", "flatten_backward", "adam_update"} <= set(operations)


@pytest.mark.parametrize(
    "name", sorted({name.removesuffix("_forward") for name in ops.__all__ if name.endswith("_forward")})
)
def test_every_operation_is_a_documented_pair_with_keyword_options(name):
    forward, backward = getattr(ops, f"{name}_forward"), getattr(ops, f"{name}_backward")
    assert forward.__doc__
    assert backward.__doc__
    assert list(inspect.signature(backward).parameters)[:2] == ["dy", "cache"]
    arrays = {"x", "w", "b", "p", "logits", "target", "labels", "indices"}
    arrays |= {"gamma", "beta", "running_mean", "running_var", "w_ih", "w_hh", "b_ih", "b_hh", "u", "v"}
    for parameter in inspect.signature(forward).parameters.values():
        assert parameter.name in arrays or parameter.kind is inspect.Parameter.KEYWORD_ONLY


@cases
@dtypes
@pytest.mark.parametrize("order", ["channels-last", "channels-first"])
def test_values_and_gradients_are_torchs(case, dtype, order, device, rng):
    inputs = case.draw(rng, dtype)
    arrange = channels_last if order == "channels-last" else np.ascontiguousarray
    y, cache = forward(case, {name: to_device(arrange(a), device) for name, a in inputs.items()})
    dy = draw_dy(rng, y, device)
    gradients = backward(case, dy, cache)

    expected_y, expected = torch_results(case, inputs, dy if y.ndim == 0 else to_numpy(dy))
    assert y.dtype == dtype
    assert relative_error(to_numpy(y), expected_y) < TOLERANCE[dtype]
    for name, gradient in expected.items():
        assert gradients[name].dtype == dtype, name
        assert relative_error(to_numpy(gradients[name]), gradient) < TOLERANCE[dtype], name


@cases
def test_gradients_are_the_slopes_of_the_forward(case, rng):
    """Along a random direction, and element by element: a mistake in one element shows in the second."""
    inputs = case.draw(rng, np.float64)
    y, cache = forward(case, {name: array.copy() for name, array in inputs.items()})
    dy = draw_dy(rng, y, "cpu")
    gradients = backward(case, dy, cache)

    def loss():  # running statistics are inputs too, and change: each run gets its own copies
        return np.sum(dy * forward(case, {name: array.copy() for name, array in inputs.items()})[0])

    arrays = [inputs[name] for name in gradients]
    # float64 differences at eps = 1e-6 are good to about 1e-10 / 1e-6 * 2^-53 ~ 1e-9 of the loss
    assert directional_error(loss, arrays, list(gradients.values()), rng) < 1e-7
    for name, gradient in gradients.items():
        assert relative_error(gradient, elementwise_gradient(loss, inputs[name])) < 1e-7, name


@pytest.mark.parametrize("case", [c for c in CASES if c.op not in ("flatten", "reshape", "embedding")], ids=str)
def test_channels_last_in_is_channels_last_out(case, rng):
    """Copies of another order would be correct and slow."""
    inputs = {name: channels_last(array) for name, array in case.draw(rng, np.float32).items()}
    if next(iter(inputs.values())).ndim != 4:
        pytest.skip("no pictures")
    y, cache = forward(case, inputs)
    gradients = backward(case, draw_dy(rng, y, "cpu"), cache)
    for array in (y, *gradients.values()):
        assert array.ndim != 4 or array.strides[1] == array.itemsize or array.shape[1] == 1


@cases
def test_backward_changes_neither_dy_nor_cache_and_can_run_twice(case, device, rng):
    inputs = {name: to_device(channels_last(a), device) for name, a in case.draw(rng, np.float32).items()}
    y, cache = forward(case, inputs)
    dy = draw_dy(rng, y, device)
    dy_before = dy if y.ndim == 0 else to_numpy(dy).copy()
    inputs_before = {name: to_numpy(array).copy() for name, array in inputs.items()}
    first = backward(case, dy, cache)
    kept = {name: to_numpy(gradient).copy() for name, gradient in first.items()}
    second = backward(case, dy, cache)
    for name in first:
        np.testing.assert_array_equal(to_numpy(second[name]), kept[name])
    np.testing.assert_array_equal(to_numpy(dy) if y.ndim else dy, dy_before)
    for name, array in inputs.items():
        np.testing.assert_array_equal(to_numpy(array), inputs_before[name])


@cases
def test_another_forward_does_not_disturb_the_first_ones_backward(case, device, rng):
    """What a backward needs is in the cache that it is given, and nowhere else."""
    inputs, others = (
        {name: to_device(channels_last(a), device) for name, a in case.draw(rng, np.float32).items()} for _ in range(2)
    )
    alone = {name: array.copy() for name, array in inputs.items()}
    y, cache = forward(case, alone)
    dy = draw_dy(rng, y, device)
    expected = {name: to_numpy(gradient).copy() for name, gradient in backward(case, dy, cache).items()}
    _, cache = forward(case, inputs)
    other_y, other_cache = forward(case, others)
    backward(case, draw_dy(rng, other_y, device), other_cache)
    for name, gradient in backward(case, dy, cache).items():
        np.testing.assert_array_equal(to_numpy(gradient), expected[name])


@pytest.mark.parametrize("case", [case for case in CASES if len(case.differentiable) > 1], ids=str)
def test_what_is_not_needed_is_none_and_the_rest_is_the_same(case, device, rng):
    inputs = {name: to_device(channels_last(a), device) for name, a in case.draw(rng, np.float32).items()}
    y, cache = forward(case, inputs)
    dy = draw_dy(rng, y, device)
    everything = backward(case, dy, cache)
    for needs in ({"need_dx": False}, {"need_dw": False}, {"need_dx": False, "need_dw": False}):
        for name, gradient in backward(case, dy, cache, **needs).items():
            needed = needs.get("need_dx", True) if name == "x" else needs.get("need_dw", True)
            if needed:
                np.testing.assert_array_equal(to_numpy(gradient), to_numpy(everything[name]))
            else:
                assert gradient is None, name


@pytest.mark.parametrize("case", [case for case in CASES if case.op in ("relu", "tanh", "conv2d")], ids=str)
def test_inputs_may_be_read_only(case, rng):
    inputs = case.draw(rng, np.float64)
    for array in inputs.values():
        array.setflags(write=False)
    y, cache = forward(case, inputs)
    dy = draw_dy(rng, y, "cpu")
    dy.setflags(write=False)
    assert backward(case, dy, cache)["x"].shape == inputs["x"].shape


@pytest.mark.parametrize("case", UPDATES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)])
def test_an_updates_steps_are_torchs(case, dtype, tolerance, device, rng):
    """Over 20 steps; with gradients of very different size, as in a GAN, some exactly 0."""
    start = rng.standard_normal((5, 4)).astype(dtype)
    gradients = rng.standard_normal((20, 5, 4)) * 10.0 ** rng.integers(-6, 3, (20, 5, 4))
    gradients[rng.random(gradients.shape) < 0.1] = 0
    gradients = gradients.astype(dtype)
    parameter, on_device = to_device(start.copy(), device), to_device(gradients, device)
    case.run(parameter, on_device)

    tensor = torch.tensor(start.astype(np.float64), requires_grad=True)
    optimizer = getattr(torch.optim, case.torch)([tensor], **case.options)
    for gradient in gradients:
        tensor.grad = torch.tensor(gradient.astype(np.float64))
        optimizer.step()
    assert parameter.dtype == dtype
    assert relative_error(to_numpy(parameter), tensor.detach().numpy()) < tolerance
    np.testing.assert_array_equal(to_numpy(on_device), gradients)  # they are still needed: by a log of their size, say


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3)])
def test_channels_are_joined_and_split_in_order(shape, device, rng):
    arrays = [rng.standard_normal((shape[0], C, *shape[2:])) for C in (1, 3, 2)]
    joined = join_channels(*(to_device(array, device) for array in arrays))
    np.testing.assert_array_equal(to_numpy(joined), np.concatenate(arrays, axis=1))
    parts = split_channels(joined, 1, 3, 2)
    for part, array in zip(parts, arrays, strict=True):
        np.testing.assert_array_equal(to_numpy(part), array)
    total = add(parts[1], to_device(arrays[1], device))
    np.testing.assert_array_equal(to_numpy(total), 2 * arrays[1])
    for array in (joined, total):
        assert array.ndim == 2 or array.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("dim", [0, 1])
def test_power_iteration_finds_the_largest_singular_vectors(dim, device, rng):
    w = rng.standard_normal((3, 4, 2, 2))
    rows = np.moveaxis(w, dim, 0).reshape(w.shape[dim], -1)
    u, v = (rng.standard_normal(size) for size in rows.shape)
    on_device = [to_device(array, device) for array in (channels_last(w), u, v)]
    once = power_iteration(*on_device, dim=dim)
    many = power_iteration(*on_device, dim=dim, n_power_iterations=500)
    next_u = rows @ v / np.linalg.norm(rows @ v)
    next_v = rows.T @ next_u / np.linalg.norm(rows.T @ next_u)
    for got, expected in zip(once, (next_u, next_v), strict=True):
        np.testing.assert_allclose(to_numpy(got), expected, rtol=1e-12)
    left, _, right = np.linalg.svd(rows)
    for got, expected in zip(many, (left[:, 0], right[0]), strict=True):
        assert abs(to_numpy(got) @ expected) == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(to_numpy(on_device[1]), u)


def with_floats(inputs, dtype):
    return {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in inputs.items()}


def half_error(got, expected):
    """How far a float16 result is off, in units of the expected one's largest; beyond 65504 infinity is right."""
    with np.errstate(over="ignore"):
        rounded = np.asarray(expected).astype(np.float16)
    assert got.dtype == np.float16
    assert got.shape == rounded.shape
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(rounded))
    finite = np.isfinite(rounded)
    largest = np.abs(np.asarray(expected)[finite]).max(initial=1e-30)
    return np.abs(np.asarray(got)[finite] - np.asarray(expected)[finite]).max(initial=0) / largest


@cases
@pytest.mark.parametrize("scale", [1, 30])
def test_an_operation_is_right_in_float16_or_refuses_it(case, scale):
    """Against float64 on the same rounded inputs, to 20 roundings. float16 ends at 65504, and at 6e-8."""
    inputs = with_floats(case.draw(np.random.default_rng(3)), np.float16)
    if "x" in inputs and case.op not in ("gru", "gaussian_sample", "gaussian_kl"):  # these take exponentials of x
        inputs["x"] = inputs["x"] * np.float16(scale)
    exact = with_floats(inputs, np.float32 if "rng" in case.options else np.float64)  # dropout draws for float32
    try:
        (y, cache), refusal = forward(case, {name: a.copy() for name, a in inputs.items()}), None
    except UserError as error:
        refusal = str(error)
    if refusal is not None:
        assert "expected float32 or float64, got float16" in refusal
        return
    expected, exact_cache = forward(case, exact)
    dy = draw_dy(np.random.default_rng(4), y, "cpu")
    with np.errstate(over="ignore"):
        gradients = backward(case, dy, cache)
    wanted = backward(case, dy if isinstance(dy, float) else dy.astype(expected.dtype), exact_cache)
    assert half_error(y, expected) < 20 * np.finfo(np.float16).eps
    for name, gradient in gradients.items():
        assert half_error(gradient, wanted[name]) < 20 * np.finfo(np.float16).eps, name


def test_bce_in_float16_keeps_its_slope_finite():
    p, target = np.array([0, 1, 0, 1, 0.25], np.float16), np.array([0, 1, 1, 0, 1], np.float16)
    loss, cache = ops.bce_forward(p, target, reduction="sum")
    assert loss == pytest.approx(201.386, rel=1e-3)
    np.testing.assert_allclose(ops.bce_backward(1.0, cache), [0, 0, -32768, 32768, -4], rtol=1e-3)


def test_average_pooling_in_float16_adds_up_no_more_than_it_can_hold():
    """The sum of 256 values of 300 is 76,800, and float16 ends at 65504."""
    y, _ = ops.avg_pool2d_forward(np.full((1, 1, 16, 16), 300, np.float16), kernel_size=16)
    np.testing.assert_array_equal(y, np.full((1, 1, 1, 1), 300, np.float16))


def strided(a):
    view = np.zeros([2 * n for n in a.shape], a.dtype)[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def backwards(a):
    turned = tuple(slice(None, None, -1) for _ in a.shape)
    return np.ascontiguousarray(a[turned])[turned]


ARRANGED = {
    "columns first": np.asfortranarray,
    "every second element": strided,
    "negative strides": backwards,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
}


@cases
@pytest.mark.parametrize("arrange", ARRANGED.values(), ids=ARRANGED)
def test_memory_order_and_byte_order_do_not_change_the_numbers(case, arrange):
    """All inputs and dy are arranged; by dispatch, as layers compute, with the fast paths."""
    inputs = case.draw(np.random.default_rng(3), np.float32)
    results = []
    for change in (np.array, arrange):
        positional, named = case.split({name: change(array) for name, array in inputs.items()})
        y, (its_backward, cache) = dispatch(*case.pair, *positional.values(), **named)
        dy = draw_dy(np.random.default_rng(4), y, "cpu")
        gradients = its_backward(dy if isinstance(dy, float) else change(dy), cache)
        results.append([y, *(gradients if isinstance(gradients, tuple) else [gradients])])
    for plain, odd in zip(*results, strict=True):
        if plain is not None:
            np.testing.assert_allclose(odd, plain, rtol=1e-4, atol=1e-5)


@cases
def test_masked_arrays_are_refused_which_leave_elements_out(case):
    inputs = case.draw(np.random.default_rng(3), np.float32)
    first = next(iter(inputs))
    with pytest.raises(UserError, match="got a masked one"):
        forward(case, inputs | {first: np.ma.masked_array(inputs[first], mask=inputs[first] > 0)})


@pytest.mark.parametrize("op", ["mse", "l1", "hinge", "score", "saturating_bce", "bce_with_logits", "sigmoid"])
def test_matrices_are_refused_whose_product_is_another(op, rng):
    x = rng.standard_normal((3, 3))
    target = () if op == "sigmoid" else (1.0,)
    with pytest.raises(UserError, match="got matrix: convert it with numpy.asarray"):
        getattr(ops, f"{op}_forward")(x.view(np.matrix), *target)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.mse_forward(x, x + 1j), "mse expected real numbers as its target, got complex128"),
        (lambda x: ops.bce_with_logits_forward(x, 1.0, weight=x + 1j), "real numbers as its weight, got complex128"),
        (lambda x: ops.bce_with_logits_forward(x, 1.0, pos_weight=x.astype(str)), "real numbers as its weight, got <U"),
        (lambda x: ops.cross_entropy_forward(x, np.arange(3), weight=x[0] + 1j), "real numbers as its weight"),
        (lambda x: ops.feature_matching_forward(x, x + 1j), "real numbers as its target, got complex128"),
        (lambda x: ops.gaussian_sample_forward(np.ones((3, 6)), noise=x + 1j), "real numbers as its noise"),
        (lambda x: ops.embedding_forward(np.arange(3), x + 1j), "Embedding expected floating-point numbers"),
    ],
)
def test_complex_numbers_and_texts_are_refused_whose_parts_would_be_dropped(call, message, rng):
    with pytest.raises(UserError, match=message):
        call(rng.standard_normal((3, 3)))


def test_results_keep_the_inputs_dtype_whatever_targets_and_sizes_are(rng):
    x = rng.standard_normal((2, 4)).astype(np.float32)
    loss, _ = ops.feature_matching_forward(x, rng.standard_normal((3, 4)))
    assert loss.dtype == np.float32
    _, cache = ops.avg_pool2d_forward(x.reshape(1, 1, 2, 4), kernel_size=np.int64(2))
    assert ops.avg_pool2d_backward(np.ones((1, 1, 1, 2), np.float32), cache).dtype == np.float32


OF_THE_BATCH = {"target", "labels", "noise", "words", "lengths"}  # inputs with an element for each sample


@cases
def test_an_empty_batch_gives_an_empty_result_or_a_sentence(case):
    """Nothing to take the mean of, no variance: a sentence; no division by zero, no other shape."""
    inputs = case.draw(np.random.default_rng(3), np.float32)
    first = next(iter(inputs))
    if case.op in ("embedding", "spectral_norm"):  # these have no batch of samples
        return
    same = {name for name, a in inputs.items() if name == "weight" and a.shape == inputs[first].shape}
    same |= {"w"} if case.op in ("append_maps", "row_dot") else set()
    y_before, _ = forward(case, inputs)
    inputs = {name: a[:0] if name in {first} | OF_THE_BATCH | same else a for name, a in inputs.items()}
    try:
        (y, cache), refusal = forward(case, inputs), None
    except UserError as error:
        refusal = str(error)
    if refusal is not None:
        assert "expected at least one" in refusal or "expected more than one" in refusal
        return
    assert y.shape == (y_before.shape if y_before.ndim == 0 else (0, *y_before.shape[1:]))
    assert np.isfinite(y).all()
    dy = 1.5 if y.ndim == 0 else np.zeros(y.shape, y.dtype)
    for name, gradient in backward(case, dy, cache).items():
        assert gradient.shape == inputs[name].shape
        assert not gradient.any()
