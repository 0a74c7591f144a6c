"""The contract of every layer: no state between calls, gradients add up, nothing is changed that should not be."""

import types

import numpy as np
import pytest
import torch

from nanogan import layers
from nanogan.backend import to_device, to_numpy
from nanogan.errors import UserError
from nanogan.folders import modules_in
from nanogan.gradcheck.cases import LAYERS, NETWORKS
from nanogan.layers import (
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Embedding,
    Layer,
    LeakyReLU,
    Linear,
    ReLU,
    Sequential,
)
from nanogan.layers.layer import Plain
from tests.helpers import channels_last, directional_error, relative_error


def make_rng():
    return np.random.default_rng(11)


every_layer = pytest.mark.parametrize("name", LAYERS)


def build(name, device="cpu", dtype=np.float64):
    return LAYERS[name][0]().astype(dtype).to(device)


def draw(name, rng, device="cpu", dtype=np.float64):
    x = LAYERS[name][1](rng)
    x = x.astype(dtype) if x.dtype.kind == "f" else x
    return to_device(channels_last(x), device)


def draw_like(y, rng, device="cpu"):
    return to_device(channels_last(rng.standard_normal(y.shape).astype(y.dtype)), device)


def gradients(layer):
    return {name: to_numpy(gradient).copy() for name, _, gradient in layer.named_parameters()}


def defined_in(modules):
    """{name: class} of all layers that files define, but for those that other layers are made from."""
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Layer) and value.__module__ == module.__name__
        if value not in (Layer, Plain) and name[0] != "_"
    }


def test_every_layer_of_the_folder_has_an_example_and_is_offered():
    defined = defined_in(modules_in("nanogan.layers"))
    assert set(defined) == set(LAYERS)
    assert set(defined) == set(layers.__all__) - {"Layer"}
    assert all(getattr(layers, name) is defined[name] for name in defined)
    assert all(type(make()) is defined[name] for name, (make, _) in LAYERS.items())


def test_a_layer_in_a_new_file_would_be_missed_above():
    """What a file of its own defines is found; what it imports is another file's."""
    file = types.ModuleType("swish")
    file.Swish, file.ReLU, file._Base = type("Swish", (Layer,), {"__module__": "swish"}), ReLU, layers.Linear
    assert set(defined_in([file])) == {"Swish"}


def test_no_two_examples_share_a_name():
    """The later one would hide the other."""
    files = [*modules_in("nanogan.layers"), *modules_in("nanogan.models")]
    assert sum(len(getattr(file, "EXAMPLES", ())) for file in files) == len(LAYERS | NETWORKS)


@every_layer
def test_two_forwards_then_their_backwards_in_either_order(name, device, rng):
    """A GAN's discriminator holds a real and a fake batch at once. The second must not disturb the first."""
    one, two = draw(name, rng, device), draw(name, rng, device)
    layer = build(name, device)
    if name == "Dropout":
        state = layer.rng.bit_generator.state
    y1, cache1 = layer.forward(one)
    y2, cache2 = layer.forward(two)
    dy1, dy2 = draw_like(y1, rng, device), draw_like(y2, rng, device)
    layer.zero_grad()
    dx1, dx2 = layer.backward(dy1, cache1), layer.backward(dy2, cache2)
    in_order = gradients(layer)
    layer.zero_grad()
    dx2_again, dx1_again = layer.backward(dy2, cache2), layer.backward(dy1, cache1)
    reversed_order = gradients(layer)

    alone = build(name, device)  # each batch by itself, on a fresh layer
    if name == "Dropout":
        alone.rng.bit_generator.state = state
    alone.zero_grad()
    y1_alone, cache = alone.forward(one)
    dx1_alone = alone.backward(dy1, cache)
    y2_alone, cache = alone.forward(two)
    dx2_alone = alone.backward(dy2, cache)
    pairs = [(y1, y1_alone), (y2, y2_alone), (dx1, dx1_again), (dx2, dx2_again), (dx1, dx1_alone), (dx2, dx2_alone)]
    for got, expected in pairs:
        if expected is not None:  # an Embedding's dx
            np.testing.assert_array_equal(to_numpy(got), to_numpy(expected))
    for key, expected in gradients(alone).items():
        assert relative_error(in_order[key], expected) < 1e-14
        assert relative_error(reversed_order[key], expected) < 1e-14


@every_layer
def test_gradients_add_up_until_zero_grad(name, device, rng):
    layer = build(name, device)
    y, cache = layer.forward(draw(name, rng, device))
    dy = draw_like(y, rng, device)
    layer.backward(dy, cache)
    once = gradients(layer)
    assert all(np.abs(gradient).max() > 0 for gradient in once.values())
    layer.backward(dy, cache)
    for key, gradient in gradients(layer).items():
        np.testing.assert_allclose(gradient, 2 * once[key], rtol=1e-14)
    layer.zero_grad()
    assert all((gradient == 0).all() for gradient in gradients(layer).values())


@every_layer
def test_need_dw_false_gives_the_same_dx_and_leaves_gradients_alone(name, device, rng):
    layer = build(name, device)
    y, cache = layer.forward(draw(name, rng, device))
    dy = draw_like(y, rng, device)
    dx = layer.backward(dy, cache)
    before = gradients(layer)
    dx_only = layer.backward(dy, cache, need_dw=False)
    if dx is not None:
        np.testing.assert_array_equal(to_numpy(dx_only), to_numpy(dx))
    for key, gradient in gradients(layer).items():
        np.testing.assert_array_equal(gradient, before[key])


@every_layer
def test_need_dx_false_gives_none_and_the_same_gradients(name, device, rng):
    layer = build(name, device)
    y, cache = layer.forward(draw(name, rng, device))
    dy = draw_like(y, rng, device)
    layer.backward(dy, cache)
    expected = gradients(layer)
    layer.zero_grad()
    assert layer.backward(dy, cache, need_dx=False) is None
    for key, gradient in gradients(layer).items():
        np.testing.assert_array_equal(gradient, expected[key])


@every_layer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_in_is_dtype_out(name, dtype, device, rng):
    layer = build(name, device, dtype)
    x = draw(name, rng, device, dtype)
    for train in (True, False):
        y, cache = layer.forward(x, train=train)
        dx = layer.backward(draw_like(y, rng, device), cache)
        assert y.dtype == dtype
        assert dx is None or dx.dtype == dtype
    for key, array in layer.state_dict().items():
        assert array.dtype == (np.int64 if key.endswith("num_batches_tracked") else dtype)
    assert all(gradient.dtype == dtype for _, _, gradient in layer.named_parameters())


@every_layer
def test_parameter_gradients_are_slopes(name, rng):
    layer = build(name)
    parameters = [parameter for _, parameter, _ in layer.named_parameters()]
    if not parameters:
        pytest.skip("no parameters; the operations' own tests check dx")
    x = draw(name, rng)
    y, cache = layer.forward(x)
    dy = draw_like(y, rng)
    layer.backward(dy, cache)
    error = directional_error(
        lambda: np.vdot(dy, layer.forward(x)[0]), parameters, [g for _, _, g in layer.named_parameters()], rng
    )
    assert error < 1e-7  # see tests/ops/test_cases.py; a kink crossed by eps = 1e-6 is not met with this seed


@every_layer
def test_eval_mode_changes_nothing_and_a_picture_does_not_depend_on_its_batch(name, rng):
    layer = build(name)
    layer.forward(draw(name, rng), train=True)
    before = {key: array.copy() for key, array in layer.state_dict().items()}
    x = draw(name, rng)
    y, _ = layer.forward(x, train=False)
    alone, _ = layer.forward(x[:1], train=False)
    np.testing.assert_allclose(y[:1], alone, rtol=1e-12)
    for key, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[key])


def test_names_shapes_and_defaults_are_torchs():
    pairs = [
        (Conv2d(3, 4, kernel_size=(2, 3)), torch.nn.Conv2d(3, 4, (2, 3))),
        (ConvTranspose2d(3, 4, kernel_size=2), torch.nn.ConvTranspose2d(3, 4, 2)),
        (Linear(3, 4), torch.nn.Linear(3, 4)),
        (BatchNorm2d(3), torch.nn.BatchNorm2d(3)),
        (layers.InstanceNorm2d(3), torch.nn.InstanceNorm2d(3)),
        (layers.InstanceNorm2d(3, affine=True), torch.nn.InstanceNorm2d(3, affine=True)),
        (layers.LayerNorm((3, 4)), torch.nn.LayerNorm((3, 4))),
        (layers.LayerNorm(3, elementwise_affine=False), torch.nn.LayerNorm(3, elementwise_affine=False)),
        (Embedding(4, 3), torch.nn.Embedding(4, 3)),
    ]
    for ours, theirs in pairs:
        expected = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
        assert {name: array.shape for name, array in ours.state_dict().items()} == expected
    assert (BatchNorm2d(1).eps, BatchNorm2d(1).momentum) == (1e-5, 0.1)
    assert LeakyReLU().options == {"negative_slope": torch.nn.LeakyReLU().negative_slope}


@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d", "Linear"])
def test_initial_parameters_are_distributed_as_torchs(kind):
    """Same bound: the largest of many uniform numbers is within 2% of it."""
    options = {"Conv2d": (20, 30, 5), "ConvTranspose2d": (20, 30, 5), "Linear": (300, 400)}[kind]
    ours = getattr(layers, kind)(*options[:2], **({"kernel_size": 5} if kind != "Linear" else {}), rng=make_rng())
    theirs = getattr(torch.nn, kind)(*options)
    for name in ("weight", "bias"):
        expected = theirs.state_dict()[name].abs().max().item()
        # a bias has few numbers: its largest falls short of the bound by about bound / count
        assert np.abs(ours.params[name]).max() == pytest.approx(expected, rel=0.02 if name == "weight" else 0.2)


def test_a_sequential_is_torchs_with_the_same_weights(rng):
    ours = build("Sequential")
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)),
    ).double()
    theirs.load_state_dict({name: torch.tensor(np.array(array)) for name, array in ours.state_dict().items()})
    x = draw("Sequential", rng)
    y, cache = ours.forward(x)
    dy = draw_like(y, rng)
    dx = ours.backward(dy, cache)
    t = torch.tensor(x, requires_grad=True)
    expected = theirs(t)
    expected.backward(torch.tensor(dy))
    assert relative_error(y, expected.detach().numpy()) < 1e-13
    assert relative_error(dx, t.grad.numpy()) < 1e-12
    expected_gradients = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    for name, gradient in gradients(ours).items():
        # the bias before a BatchNorm has gradient 0, up to rounding
        assert np.abs(gradient - expected_gradients[name]).max() < 1e-12, name
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], tensor.numpy(), rtol=1e-12, atol=1e-15)


def torchs_ways(kind):
    """The examples of Residual and Concat in torch: a module whose arrays have the same names, and what it computes."""
    nn = torch.nn
    if kind == "Residual":
        f = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)).double()
        return f, lambda x: x + f(x)
    f = nn.ModuleList([nn.Conv2d(3, 2, 3, padding=1), nn.Identity(), nn.Conv2d(3, 4, 1)]).double()
    return f, lambda x: torch.cat([layer(x) for layer in f], dim=1)


@pytest.mark.parametrize("kind", ["Residual", "Concat"])
def test_where_x_goes_several_ways_values_and_gradients_are_torchs(kind, device, rng):
    ours, (theirs, call) = build(kind, device), torchs_ways(kind)
    theirs.load_state_dict({name: torch.tensor(to_numpy(array)) for name, array in ours.state_dict().items()})
    x = draw(kind, rng, device)
    y, cache = ours.forward(x)
    dy = draw_like(y, rng, device)
    dx = ours.backward(dy, cache)
    t = torch.tensor(to_numpy(x), requires_grad=True)
    expected = call(t)
    expected.backward(torch.tensor(to_numpy(dy)))
    assert relative_error(to_numpy(y), expected.detach().numpy()) < 1e-13
    assert relative_error(to_numpy(dx), t.grad.numpy()) < 1e-13
    expected_gradients = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    for name, gradient in gradients(ours).items():
        assert np.abs(gradient - expected_gradients[name]).max() < 1e-12, name
    assert all(array.transpose(0, 2, 3, 1).flags.c_contiguous for array in (y, dx))


def test_residual_and_concat_are_cut_and_named_like_sequentials(rng):
    block = layers.Residual(Linear(3, 3, rng=make_rng()), ReLU(), prefix="conv_block")
    assert list(block.state_dict()) == ["conv_block.0.weight", "conv_block.0.bias"]
    x = rng.standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(block[:1].forward(x)[0] + x, layers.Residual(*block[:1].layers).forward(x)[0])
    ways = layers.Concat(Linear(3, 1), Sequential(), Sequential())
    assert (type(ways[:2]), len(ways[:2]), ways[1:].forward(x)[0].shape) == (layers.Concat, 2, (2, 6))


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("lengths", [None, [3, 5, 1]])
def test_a_gru_is_torchs_with_the_same_weights(return_sequences, lengths, device, rng):
    theirs = torch.nn.GRU(2, 4, batch_first=True).double()
    ours = layers.GRU(2, 4, return_sequences=return_sequences, dtype=np.float64).to(device)
    ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    x = rng.standard_normal((3, 5, 2))
    options = {} if lengths is None else {"lengths": to_device(np.array(lengths), device)}
    y, cache = ours.forward(to_device(x, device), **options)
    dy = draw_like(y, rng)
    t = torch.tensor(x, requires_grad=True)
    if lengths is None:
        states, last = theirs(t)
    else:
        pack = torch.nn.utils.rnn.pack_padded_sequence(t, lengths, batch_first=True, enforce_sorted=False)
        states, last = theirs(pack)
        states, _ = torch.nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
        if return_sequences:  # there ours repeats the last state, which is compared without return_sequences
            padding = np.arange(5) >= np.array(lengths)[:, None]
            assert (abs(to_numpy(y))[padding] > 0).all()
            y, dy = y * to_device(1.0 - padding[:, :, None], device), dy * ~padding[:, :, None]
    dx = to_numpy(ours.backward(to_device(dy, device), cache))
    expected = states if return_sequences else last[0]
    expected.backward(torch.tensor(dy))
    assert relative_error(to_numpy(y), expected.detach().numpy()) < 1e-13
    assert relative_error(dx, t.grad.numpy()) < 1e-13
    for name, parameter in theirs.named_parameters():
        assert relative_error(to_numpy(ours.grads[name]), parameter.grad.numpy()) < 1e-13, name


def test_what_stands_in_a_sequences_padding_changes_nothing(rng):
    ours, lengths = layers.GRU(2, 4, rng=make_rng(), dtype=np.float64), np.array([2, 0, 4])
    x = rng.standard_normal((3, 4, 2))
    padding = np.arange(4) >= lengths[:, None]
    results = []
    for _ in range(2):
        x[padding] = 10 * rng.standard_normal((padding.sum(), 2))
        y, cache = ours.forward(x, lengths=lengths)
        ours.zero_grad()
        results.append((y, ours.backward(np.ones_like(y), cache), *gradients(ours).values()))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
    y, dx = results[0][:2]
    assert (dx[padding] == 0).all()
    assert (y[1] == 0).all()
    alone, _ = ours.forward(x[:1, :2])
    np.testing.assert_allclose(y[:1], alone, rtol=1e-13)


def test_a_grus_first_parameters_are_distributed_as_torchs():
    ours, theirs = layers.GRU(50, 60, rng=make_rng()), torch.nn.GRU(50, 60)
    for name, tensor in theirs.state_dict().items():
        assert np.abs(ours.params[name]).max() == pytest.approx(tensor.abs().max().item(), rel=0.1)


@pytest.mark.parametrize(
    ("kind", "arguments", "shape"),
    [
        ("Conv2d", (3, 4, 3, 2, 1), (2, 3, 6, 6)),
        ("ConvTranspose2d", (3, 4, 3, 2, 1), (2, 3, 4, 4)),
        ("Linear", (3, 4), (5, 3)),
    ],
)
def test_spectral_norm_is_torchs(kind, arguments, shape, device, rng):
    """u and v far from converged, so that each forward in train mode divides by another number."""
    theirs = torch.nn.utils.parametrizations.spectral_norm(getattr(torch.nn, kind)(*arguments), n_power_iterations=2)
    theirs = theirs.double()
    for vector in (theirs.parametrizations.weight[0]._u, theirs.parametrizations.weight[0]._v):
        vector[...] = torch.nn.functional.normalize(torch.tensor(rng.standard_normal(len(vector))), dim=0)
    inner = getattr(layers, kind)(*arguments, dtype=np.float64)
    ours = layers.SpectralNorm(inner, n_power_iterations=2).to(device)
    ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    modes = [False, True, True, False]
    xs = [rng.standard_normal(shape) for _ in modes]
    ys = [ours.forward(to_device(x, device), train=train) for x, train in zip(xs, modes, strict=True)]
    dys = [rng.standard_normal(y.shape) for y, _ in ys]
    tensors = [torch.tensor(x, requires_grad=True) for x in xs]
    for i, train in enumerate(modes):
        expected = theirs.train(train)(tensors[i])
        assert relative_error(to_numpy(ys[i][0]), expected.detach().numpy()) < 1e-12
        expected.backward(torch.tensor(dys[i]))
    for i in (2, 0, 3, 1):
        dx = ours.backward(to_device(dys[i], device), ys[i][1])
        assert relative_error(to_numpy(dx), tensors[i].grad.numpy()) < 1e-12
    for name, parameter in theirs.named_parameters():
        assert relative_error(gradients(ours)[name], parameter.grad.numpy()) < 1e-12, name
    for name, tensor in theirs.state_dict().items():
        assert relative_error(to_numpy(ours.state_dict()[name]), tensor.numpy()) < 1e-12, name


@pytest.mark.parametrize(("kind", "arguments"), [("Conv2d", (8, 12, 3)), ("ConvTranspose2d", (8, 12, 3))])
def test_spectral_norm_leaves_a_largest_singular_value_of_1(kind, arguments):
    """From the start, to the accuracy of 15 rounds; and exactly, once there were many forwards."""
    layer = layers.SpectralNorm(getattr(layers, kind)(*arguments, rng=make_rng()), rng=make_rng())
    x = np.ones((1, 8, 4, 4), np.float32)
    for rounds, accuracy in ((0, 0.05), (300, 1e-4)):
        for _ in range(rounds):
            layer.forward(x)
        _, ((_, (weight, *_)), _) = layer.forward(x, train=False)
        rows = weight.transpose(1, 0, 2, 3) if kind == "ConvTranspose2d" else weight
        assert np.linalg.norm(rows.reshape(12, -1), 2) == pytest.approx(1, rel=accuracy)


def test_the_dcgan_papers_start_reaches_a_weight_under_spectral_norm():
    network = Sequential(layers.SpectralNorm(Conv2d(20, 30, 4, rng=make_rng()), rng=make_rng()))
    layers.init.dcgan_(network, make_rng())
    state = network.state_dict()
    assert state["0.parametrizations.weight.original"].std() == pytest.approx(0.02, rel=0.05)
    assert (state["0.bias"] == 0).all()


def test_a_refused_input_leaves_spectral_norms_vectors_alone():
    layer = layers.SpectralNorm(Linear(3, 4, rng=make_rng()), rng=make_rng())
    before = {name: buffer.copy() for name, buffer in layer.buffers.items()}
    with pytest.raises(UserError, match="Linear expected 3 input features"):
        layer.forward(np.zeros((2, 5), np.float32))
    for name, buffer in layer.buffers.items():
        np.testing.assert_array_equal(buffer, before[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.weight"), "0.weight is missing"),
        (lambda s: s.update(extra=np.zeros(1)), "extra is unknown here"),
        (lambda s: s.update({"0.bias": np.zeros(5)}), r"0.bias has shape \(5,\) instead of \(4,\)"),
        (lambda s: s.update({"0.bias": [0.0] * 4}), "0.bias expected a NumPy or CuPy array, got list"),
        (lambda s: s.update({"0.bias": np.zeros(4, complex)}), "0.bias is complex128 instead of float64"),
        (lambda s: s.update({"0.bias": np.array(["1"] * 4)}), "0.bias is <U1 instead of float64"),
        (lambda s: s.update({"0.bias": np.full(4, np.longdouble("1e400"))}), "values that float64 cannot hold"),
        (lambda s: s.update(extra=np.zeros(1)), "nothing else differs: leave that out to load the rest"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_whole(change, message):
    network = build("Sequential")
    state = {name: array + 1 for name, array in network.state_dict().items()}
    change(state)
    before = {name: array.copy() for name, array in network.state_dict().items()}
    with pytest.raises(UserError, match=message):
        network.load_state_dict(state)
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("state", [None, "generator.safetensors", [("weight", np.zeros(1))]])
def test_what_is_no_state_is_refused_in_a_sentence(state):
    with pytest.raises(UserError, match="load_state_dict expected a dictionary {name: array}, got"):
        build("Linear").load_state_dict(state)


COUNTER = "1.num_batches_tracked"


@pytest.mark.parametrize(
    ("counter", "then"),
    [
        (None, 3),  # torch's files from before 0.4.1 have none
        (np.array(7), 7),
        (np.array([7]), 7),
        (np.array(7.0, np.float32), 7),
        (np.array(np.nan), 3),
        (np.array([1, 2]), 3),
        (np.array(7j), 3),
        ("7", 3),
    ],
    ids=repr,
)
def test_a_counter_that_no_formula_reads_does_not_decide_whether_weights_load(counter, then, rng, device):
    """Missing or of another kind it stays as it is, and everything else is loaded."""
    network = Sequential(Linear(3, 4, rng=rng), BatchNorm1d(4)).to(device)
    network.layers[1].buffers["num_batches_tracked"][...] = 3
    state = {name: rng.uniform(1, 2, array.shape) for name, array in network.state_dict().items()}
    if counter is None:
        del state[COUNTER]
    else:
        state[COUNTER] = counter
    network.load_state_dict(state)
    for name, array in network.state_dict().items():
        np.testing.assert_allclose(to_numpy(array), then if name == COUNTER else state[name], rtol=1e-6, err_msg=name)


def test_a_counter_that_is_unknown_here_is_passed_over(rng):
    network = Sequential(Linear(3, 4, rng=rng))
    state = {name: array + 1 for name, array in network.state_dict().items()}
    network.load_state_dict(state | {COUNTER: np.array(7), "n_averaged": np.array(3), "0.total_ops": np.zeros(1)})
    np.testing.assert_array_equal(network.state_dict()["0.weight"], state["0.weight"])


@pytest.mark.parametrize("name", ["1.running_mean", "1.running_var"])
def test_statistics_that_eval_mode_reads_are_still_needed(name, rng):
    network = Sequential(Linear(3, 4, rng=rng), BatchNorm1d(4))
    state = {other: array for other, array in network.state_dict().items() if other != name}
    with pytest.raises(UserError, match=f"another network: {name} is missing$"):
        network.load_state_dict(state)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4", np.int8])
def test_weights_of_other_dtypes_are_loaded_with_their_values(dtype, rng):
    network = Linear(3, 4, rng=rng)
    weight = rng.integers(-9, 9, (4, 3)).astype(dtype)
    network.load_state_dict({"weight": weight, "bias": np.zeros(4, np.float32)})
    assert network.dtype == np.float32
    np.testing.assert_array_equal(network.params["weight"], weight)


@pytest.mark.parametrize("dtype", [int, bool, complex, np.uint8])
def test_weights_of_another_dtype_than_floats_are_refused_which_would_be_0(dtype, rng):
    with pytest.raises(UserError, match="Linear expected a floating-point dtype for its weight, got"):
        Linear(3, 4, rng=rng, dtype=dtype)
    layer = Linear(3, 4, rng=rng)
    before = layer.params["weight"].copy()
    for wrong in (dtype, "none"):
        with pytest.raises(UserError, match="Linear.astype expected a dtype such as 'float32', got"):
            layer.astype(wrong)
    np.testing.assert_array_equal(layer.params["weight"], before)


def test_a_loaded_state_is_a_copy():
    one, two = build("Linear"), build("Linear")
    two.load_state_dict(one.state_dict())
    one.params["weight"] += 1
    np.testing.assert_allclose(one.params["weight"], two.params["weight"] + 1)


def test_a_container_may_own_parameters_itself():
    network = Sequential(ReLU(), prefix="main")
    network.add_param("scale", np.ones(3))
    assert list(network.state_dict()) == ["scale"]


@pytest.mark.parametrize("train", [True, False])
def test_batchnorms_options_are_used(train, rng):
    ours = BatchNorm2d(3, eps=0.5, momentum=0.3, dtype=np.float64)
    theirs = torch.nn.BatchNorm2d(3, eps=0.5, momentum=0.3).double().train(train)
    x = rng.standard_normal((4, 3, 5, 5))
    for _ in range(2):
        y, _ = ours.forward(x, train=train)
        expected = theirs(torch.tensor(x)).detach().numpy()
    assert relative_error(y, expected) < 1e-13
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], tensor.numpy(), rtol=1e-13)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", ["InstanceNorm2d", "LayerNorm"])
def test_the_other_norms_options_are_used(kind, affine, rng):
    options = {"eps": 0.5, "affine" if kind == "InstanceNorm2d" else "elementwise_affine": affine}
    size = 3 if kind == "InstanceNorm2d" else (3, 5, 4)
    ours = getattr(layers, kind)(size, **options).astype(np.float64)
    theirs = getattr(torch.nn, kind)(size, **options).double()
    for name, parameter in ours.params.items():
        parameter[...] = rng.standard_normal(parameter.shape)
        theirs.load_state_dict({name: torch.tensor(parameter)}, strict=False)
    x = rng.standard_normal((2, 3, 5, 4))
    assert relative_error(ours.forward(x)[0], theirs(torch.tensor(x)).detach().numpy()) < 1e-13


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layers.InstanceNorm2d(3, eps=0), "expected eps > 0, got eps=0"),
        (lambda: layers.InstanceNorm2d(3).forward(np.zeros((1, 2, 4, 4))), "expected 3 input channels, got 2"),
        (lambda: layers.InstanceNorm2d(3).forward(np.zeros((4, 3))), "expected an input of 4 dimensions"),
        (lambda: layers.LayerNorm(3, eps=-1), "LayerNorm expected eps > 0, got eps=-1"),
        (lambda: layers.LayerNorm(()), r"one or more integers, got \(\)"),
        (lambda: layers.LayerNorm((3, 4)).forward(np.zeros((2, 3, 4))), "its parameters' dtype, got float64"),
        (lambda: layers.GLU().forward(np.zeros((2, 3))), "even size along dim=-1, got shape"),
    ],
)
def test_bad_options_and_inputs_get_one_sentence(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_dcgans_initialisation_draws_every_gain_around_1():
    network = Sequential(layers.InstanceNorm2d(50, affine=True), layers.LayerNorm(50), BatchNorm2d(50), Linear(50, 50))
    layers.init.dcgan_(network, make_rng())
    means = [layer.params["weight"].mean() for layer in network.layers]
    np.testing.assert_allclose(means, [1, 1, 1, 0], atol=5 * 0.02 / 50**0.5)


@pytest.mark.parametrize("options", [{}, {"stride": 1}, {"stride": 2, "padding": 1}])
def test_max_pools_options_are_used(options, rng):
    x = rng.standard_normal((2, 3, 9, 9))
    y, _ = layers.MaxPool2d(kernel_size=3, **options).forward(x)
    np.testing.assert_array_equal(y, torch.nn.MaxPool2d(3, **options)(torch.tensor(x)).numpy())


def test_defaults_are_torchs():
    assert Dropout().options == {"p": torch.nn.Dropout().p}
    assert layers.Upsample().options["scale_factor"] == 2
    weight = Embedding(200, 200, rng=make_rng()).params["weight"]
    assert weight.std() == pytest.approx(1, rel=0.02)  # five standard errors
    assert weight.mean() == pytest.approx(0, abs=0.03)


class Recorder(ReLU):
    """Remembers which gradients it was asked for."""

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        self.asked = need_dx, need_dw
        return super().backward(dy, cache, need_dx, need_dw)


def test_a_sequential_asks_its_first_layer_for_dx_only_where_it_is_needed(rng):
    network = Sequential(Recorder(), Recorder())
    y, cache = network.forward(rng.standard_normal((2, 3)))
    network.backward(y, cache, need_dx=False)
    assert [layer.asked for layer in network.layers] == [(False, True), (True, True)]
    network.backward(y, cache, need_dw=False)
    assert [layer.asked for layer in network.layers] == [(True, False), (True, False)]


def test_a_slice_of_a_sequential_is_its_layers_in_order():
    network = build("Sequential")
    assert [type(layer) for layer in network[1:3].layers] == [BatchNorm2d, LeakyReLU]
    assert network[:2].layers == network.layers[:2]
    assert network[0] is network.layers[0]
    assert len(network) == 4


class Block(Layer):
    """A layer of one's own that holds others, as attributes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Linear(3, 3, rng=make_rng()), BatchNorm1d(3)
        self.add_param("scale", np.ones(3, np.float32))


def test_layers_that_are_attributes_belong_to_the_layer_as_in_torch():
    block = Block()
    names = {"scale", "first.weight", "first.bias"}
    names |= {f"second.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    assert set(block.state_dict()) == names
    chain = Sequential(ReLU())
    chain.extra = Linear(2, 2)
    assert set(chain.state_dict()) == {"extra.weight", "extra.bias"}
    assert set(Sequential(ReLU(), Block()).state_dict()) == {f"1.{name}" for name in names}
    assert block.astype(np.float64).first.params["weight"].dtype == np.float64
    block.first.grads["bias"] += 1
    block.zero_grad()
    assert (block.first.grads["bias"] == 0).all()


@pytest.mark.parametrize(
    ("kind", "arguments", "size"),
    [
        ("Conv2d", (3, 4, 4), 9),
        ("Conv2d", (3, 4, 4, 2), 9),
        ("Conv2d", (3, 4, 4, 2, 1), 9),
        ("Conv2d", (3, 4, (3, 2), (2, 1), (0, 1)), 9),
        ("ConvTranspose2d", (3, 4, 4), 3),
        ("ConvTranspose2d", (3, 4, 4, 2), 3),
        ("ConvTranspose2d", (3, 4, 5, 3, 2), 3),
        ("ConvTranspose2d", (3, 4, 5, 3, 2, 1), 3),
        ("MaxPool2d", (3,), 9),
        ("MaxPool2d", (3, 2), 9),
        ("MaxPool2d", (3, 2, 1), 9),
        ("InstanceNorm2d", (3,), 4),
        ("LayerNorm", (4,), 4),
        ("LayerNorm", ((3, 4, 4),), 4),
        ("AvgPool2d", (3,), 9),
        ("AvgPool2d", (3, 2), 9),
        ("AvgPool2d", (3, 2, 1), 9),
        ("AdaptiveAvgPool2d", (2,), 5),
        ("AdaptiveAvgPool2d", ((3, 7),), 5),
        ("ELU", (), 4),
        ("ELU", (0.3,), 4),
        ("SELU", (), 4),
        ("GELU", (), 4),
        ("SiLU", (), 4),
        ("GLU", (), 4),
        ("GLU", (2,), 4),
        ("Identity", (), 4),
        ("ReflectionPad2d", (2,), 4),
        ("ReflectionPad2d", ((3, 2, 1, 0),), 4),
        ("ZeroPad2d", (2,), 4),
        ("ZeroPad2d", ((3, 2, 1, 0),), 4),
        ("LeakyReLU", (0.3,), 4),
        ("LeakyReLU", (), 4),
    ],
)
def test_arguments_by_position_mean_what_they_mean_in_torch(kind, arguments, size, rng):
    ours, theirs = getattr(layers, kind)(*arguments), getattr(torch.nn, kind)(*arguments).double()
    ours.astype(np.float64).load_state_dict({name: t.numpy() for name, t in theirs.state_dict().items()})
    x = rng.standard_normal((2, 3, size, size))
    assert relative_error(ours.forward(x)[0], theirs(torch.tensor(x)).detach().numpy()) < 1e-13


def test_dropouts_probability_may_come_by_position_as_in_torch():
    y, _ = Dropout(0.2, rng=make_rng()).forward(np.ones((300, 300)))
    theirs = torch.nn.Dropout(0.2)(torch.ones(300, 300))
    assert (y == 0).mean() == pytest.approx(0.2, abs=0.007)  # five standard deviations
    assert y.max() == pytest.approx(theirs.max().item())


def test_what_is_dangerous_by_position_is_keyword_only():
    """BatchNorm(n, 0.8) once set eps in another library, unnoticed. Others would mean another option than in torch."""
    for call in (
        lambda: BatchNorm2d(3, 0.8),
        lambda: Conv2d(3, 4, 4, 2, 1, 1),  # dilation
        lambda: ConvTranspose2d(3, 4, 4, 2, 1, 0, 1),  # groups
        lambda: layers.MaxPool2d(2, 2, 0, 1),  # dilation
        lambda: LeakyReLU(0.2, True),  # inplace
        lambda: Dropout(0.5, True),  # inplace
        lambda: layers.Upsample(2),  # size
        lambda: Linear(3, 4, False),
    ):
        with pytest.raises(TypeError, match="positional"):
            call()


def gru(shape, lengths=None):
    return layers.GRU(3, 4, rng=make_rng()).forward(np.zeros(shape, np.float32), lengths=lengths)


def test_lengths_belong_beside_their_sequences(double):
    layer = layers.GRU(3, 4).to("gpu")
    with pytest.raises(UserError, match="in a cupy array, as x is, got numpy's: use nanogan.backend.to_device"):
        layer.forward(double.zeros((2, 5, 3), np.float32), lengths=np.array([1, 2]))


def test_a_layer_without_its_methods_says_so():
    with pytest.raises(TypeError, match="Mine expected its own forward"):
        type("Mine", (Layer,), {})().forward(np.zeros(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BatchNorm2d(3, eps=0), "eps > 0"),
        (lambda: BatchNorm2d(3).forward(np.zeros((4, 3), np.float32)), r"BatchNorm2d expected 4 dimensions"),
        (lambda: BatchNorm1d(3).forward(np.zeros((4, 3, 2, 2), np.float32)), r"BatchNorm1d expected 2 dimensions"),
        (lambda: Conv2d(0, 4, kernel_size=1), "at least one input and one output"),
        (
            lambda: layers.Residual(Linear(3, 4)).forward(np.zeros((2, 3), np.float32)),
            r"Residual expected layers that keep the shape \(2, 3\), .* got \(2, 4\): let convolutions pad",
        ),
        (
            lambda: layers.Concat(Conv2d(3, 2, 1), Conv2d(3, 2, 3)).forward(np.zeros((2, 3, 4, 4), np.float32)),
            r"one shape but for these, got \[\(2, 2, 4, 4\), \(2, 2, 2, 2\)\]",
        ),
        (lambda: layers.Concat().forward(np.zeros((2, 3))), "Concat expected at least one layer"),
        (
            lambda: layers.SpectralNorm(ReLU()),
            r"SpectralNorm expected a Conv2d, a ConvTranspose2d or a Linear, got ReLU\(\)",
        ),
        (lambda: layers.SpectralNorm(Linear(3, 4), n_power_iterations=0), "n_power_iterations >= 1 and eps > 0, got 0"),
        (lambda: layers.SpectralNorm(Linear(3, 4), eps=0), "got 1 and 0"),
        (lambda: layers.GRU(0, 4), "GRU expected sizes of at least 1, got 0 and 4"),
        (lambda: gru((2, 3)), r"GRU expected an input of 3 dimensions, \(N, T, 3\), got one of shape \(2, 3\)"),
        (lambda: gru((2, 3, 4)), r"GRU expected 3 input features, got 4 \(x has shape \(2, 3, 4\)\)"),
        (lambda: gru((2, 0, 3)), "GRU expected sequences of at least one step"),
        (lambda: gru((2, 5, 3), np.array([1, 6])), "2 integers from 0 to 5 in a numpy array, got 1 to 6"),
        (lambda: gru((2, 5, 3), np.array([-1, 5])), "got -1 to 5"),
        (lambda: gru((2, 5, 3), np.array([1])), r"got int64 of shape \(1,\)"),
        (lambda: gru((2, 5, 3), np.ones(2)), r"got float64 of shape \(2,\)"),
        (lambda: Conv2d(3, 4, kernel_size=0), "kernel_size expected a whole number of at least 1"),
    ],
)
def test_wrong_input_gets_one_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_a_network_knows_its_library_device_and_dtype(double):
    network = Sequential(ReLU(), Linear(2, 2, dtype=np.float64))
    assert network.array_module is np
    assert (str(network.device), network.dtype) == ("cpu", np.float64)
    network.to("gpu:1").astype(np.float32)
    assert network.array_module is double
    assert (str(network.device), network.dtype) == ("gpu:1", np.float32)
    with pytest.raises(UserError, match="ReLU has no parameters, so it has no device and no dtype"):
        ReLU().device  # noqa: B018
