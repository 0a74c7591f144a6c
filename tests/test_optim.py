"""Optimisers: torch's numbers, step after step, and state that can be taken up again."""

import copy
import json

import numpy as np
import pytest
import torch

from nanogan.backend import to_numpy
from nanogan.errors import UserError
from nanogan.gradcheck.cases import UPDATES
from nanogan.layers import BatchNorm1d, Linear, Sequential
from nanogan.ops import mse_backward, mse_forward
from nanogan.optim import SGD, Adam, Ema, LinearDecay, RMSprop, clip_grad_norm, clip_grad_value, supervised_step
from tests import strict_cupy

SETTINGS = [
    (Adam, torch.optim.Adam, {"lr": 2e-3, "betas": (0.5, 0.999)}),
    (Adam, torch.optim.Adam, {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-4, "weight_decay": 0.1}),
    (SGD, torch.optim.SGD, {"lr": 0.1}),
    (SGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    (RMSprop, torch.optim.RMSprop, {"lr": 5e-5}),
    (RMSprop, torch.optim.RMSprop, {"lr": 1e-3, "alpha": 0.9, "eps": 1e-4, "momentum": 0.5, "weight_decay": 0.01}),
]


def network(dtype=np.float64):
    return Linear(4, 3, rng=np.random.default_rng(0), dtype=dtype)


def set_gradients(layer, rng):
    """Gradients of very different size, as in a GAN; some exactly 0."""
    for name, gradient in layer.grads.items():
        gradient[...] = rng.standard_normal(gradient.shape) * 10.0 ** rng.integers(-6, 3, gradient.shape)
        gradient[rng.random(gradient.shape) < 0.1] = 0
        assert gradient.dtype == layer.params[name].dtype


def make_critic(device):
    rng = np.random.default_rng(0)
    return Sequential(Linear(4, 3, rng=rng), BatchNorm1d(3), Linear(3, 2, rng=rng)).to(device)


def set_all_gradients(critic, rng):
    """Of size 1, none of them 0."""
    for _, _, gradient in critic.named_parameters():
        values = rng.standard_normal(gradient.shape).astype(np.float32)
        gradient[...] = critic.array_module.asarray(values)


def with_gradients(device):
    """A network with random gradients, on a GPU side by side; and torch's tensors of the same names and gradients."""
    critic, tensors = make_critic(device), {}
    Adam(critic)  # which moves them
    set_all_gradients(critic, np.random.default_rng(1))
    for name, parameter, gradient in critic.named_parameters():
        tensors[name] = torch.tensor(to_numpy(parameter))
        tensors[name].grad = torch.tensor(to_numpy(gradient))
    return critic, tensors


@pytest.mark.parametrize(("ours", "theirs", "options"), SETTINGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_200_steps_are_torchs(ours, theirs, options, dtype, tolerance, rng):
    layer = network(dtype)
    tensors = {name: torch.tensor(array.copy(), requires_grad=True) for name, array in layer.params.items()}
    mine, other = ours(layer, **options), theirs(tensors.values(), **options)
    for _ in range(200):
        set_gradients(layer, rng)
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(layer.grads[name].copy())
        mine.step()
        other.step()
    for name, tensor in tensors.items():
        scale = np.abs(tensor.detach().numpy()).max()
        np.testing.assert_allclose(layer.params[name], tensor.detach().numpy(), rtol=0, atol=tolerance * scale)
        assert layer.params[name].dtype == dtype


@pytest.mark.parametrize(("kind", "_theirs", "options"), SETTINGS)
def test_a_saved_state_continues_to_the_bit(kind, _theirs, options, rng):
    straight, resumed = network(), network()
    whole = kind(straight, **options)
    first = kind(resumed, **options)
    gradients = [np.random.default_rng(i) for i in range(20)], [np.random.default_rng(i) for i in range(20)]
    for i in range(20):
        set_gradients(straight, gradients[0][i])
        whole.step()
    for i in range(10):
        set_gradients(resumed, gradients[1][i])
        first.step()
    second = kind(resumed, **(options | {"lr": 123.0}))  # the saved learning rate wins
    second.load_state_dict(first.state_dict())
    for i in range(10, 20):
        set_gradients(resumed, gradients[1][i])
        second.step()
    for name in straight.params:
        np.testing.assert_array_equal(straight.params[name], resumed.params[name])


@pytest.mark.parametrize("optimizer", [SGD, Adam, RMSprop])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_step_leaves_the_gradients_alone(optimizer, weight_decay, rng):
    layer = network()
    set_gradients(layer, rng)
    before = {name: gradient.copy() for name, gradient in layer.grads.items()}
    optimizer(layer, lr=0.1, weight_decay=weight_decay).step()
    for name, gradient in layer.grads.items():
        np.testing.assert_array_equal(gradient, before[name])


def test_defaults_are_torchs():
    ours, theirs = Adam(network()), torch.optim.Adam([torch.zeros(1)]).defaults
    assert (ours.lr, ours.betas, ours.eps) == (theirs["lr"], theirs["betas"], theirs["eps"])
    assert ours.weight_decay == theirs["weight_decay"]
    ours, theirs = RMSprop(network()), torch.optim.RMSprop([torch.zeros(1)]).defaults
    for name in ("lr", "alpha", "eps", "momentum", "weight_decay"):
        assert getattr(ours, name) == theirs[name]


@pytest.mark.parametrize("kind", [SGD, Adam, RMSprop])
@pytest.mark.parametrize("loss_scaling", [False, True])
def test_weights_are_clipped_after_the_update(kind, loss_scaling, device, rng):
    """All of them, BatchNorm's too; on a GPU they lie side by side in one array."""
    plain, clipped = (make_critic(device) for _ in range(2))
    options = {"lr": 0.02, "loss_scaling": loss_scaling}
    optimizers = kind(plain, **options), kind(clipped, weight_clip=0.3, **options)
    for optimizer in optimizers:
        set_all_gradients(optimizer.network, np.random.default_rng(1))
        optimizer.step()
    outside = 0
    for (name, free, _), (_, held, _) in zip(plain.named_parameters(), clipped.named_parameters(), strict=True):
        np.testing.assert_array_equal(to_numpy(held), np.clip(to_numpy(free), -0.3, 0.3), err_msg=name)
        outside += (abs(to_numpy(free)) > 0.3).sum()
        assert held.dtype == np.float32
    assert 3 < outside < plain.parameter_count(), "some are clipped and some are not"
    assert (clipped._flat is not None) == (device == "gpu")


@pytest.mark.parametrize("max_norm", [0.5, 1e3, float("inf")])
def test_a_clipped_gradients_norm_is_torchs(max_norm, device):
    critic, tensors = with_gradients(device)
    strict_cupy.transfers.clear()
    norm = clip_grad_norm(critic, max_norm)
    assert not strict_cupy.transfers, "nothing waits for the norm"
    expected = torch.nn.utils.clip_grad_norm_(tensors.values(), max_norm)
    assert norm.ndim == 0
    np.testing.assert_allclose(to_numpy(norm), expected.item(), rtol=1e-6)
    for name, _, gradient in critic.named_parameters():
        np.testing.assert_allclose(to_numpy(gradient), tensors[name].grad.numpy(), rtol=2e-6, err_msg=name)
        assert gradient.dtype == np.float32


def test_a_clipped_gradients_elements_are_torchs(device):
    critic, tensors = with_gradients(device)
    clip_grad_value(critic, 0.7)
    torch.nn.utils.clip_grad_value_(tensors.values(), 0.7)
    for name, _, gradient in critic.named_parameters():
        np.testing.assert_array_equal(to_numpy(gradient), tensors[name].grad.numpy())


def test_gradients_are_clipped_in_the_scale_of_their_loss(device):
    """Where losses are scaled, so are gradients: the limit is to be, too; and infinities are left to the optimiser."""
    critic, tensors = with_gradients(device)
    optimizer = SGD(critic, lr=1.0, loss_scaling=True)
    before = {name: to_numpy(parameter).copy() for name, parameter, _ in critic.named_parameters()}
    for _, _, gradient in critic.named_parameters():
        gradient *= optimizer.dloss
    clip_grad_norm(critic, 0.5 * optimizer.dloss)
    optimizer.step()
    torch.nn.utils.clip_grad_norm_(tensors.values(), 0.5)
    for name, parameter, _ in critic.named_parameters():
        change = before[name] - tensors[name].grad.numpy()
        np.testing.assert_allclose(to_numpy(parameter), change, rtol=1e-5, atol=1e-6)
    before = {name: to_numpy(parameter).copy() for name, parameter, _ in critic.named_parameters()}
    critic.layers[0].grads["bias"][...] = np.inf
    clip_grad_norm(critic, 0.5 * optimizer.dloss)
    optimizer.step()
    for name, parameter, _ in critic.named_parameters():
        np.testing.assert_array_equal(to_numpy(parameter), before[name])


def test_zero_grad_reaches_the_network(rng):
    layer = network()
    set_gradients(layer, rng)
    Adam(layer).zero_grad()
    assert all((gradient == 0).all() for gradient in layer.grads.values())


def test_a_loaded_state_is_a_copy(rng):
    layer = network()
    first, second = Adam(layer), Adam(layer)
    set_gradients(layer, rng)
    first.step()
    second.load_state_dict(first.state_dict())
    before = {name: array.copy() for name, array in first.state.items()}
    second.step()
    for name, array in first.state.items():
        np.testing.assert_array_equal(array, before[name])


def test_a_layer_in_two_places_is_stepped_once_as_in_torch(rng):
    layer = network()
    twice = Sequential(layer, Linear(3, 4, dtype=np.float64), layer)
    names = [name for name, _, _ in twice.named_parameters()]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias"]
    set_gradients(layer, rng)
    before = layer.params["weight"].copy()
    SGD(twice, lr=0.1).step()
    np.testing.assert_allclose(layer.params["weight"], before - 0.1 * layer.grads["weight"], rtol=1e-14)


def test_linear_decay_holds_and_then_falls_to_zero():
    optimizer = SGD(network(), lr=0.8)
    schedule = LinearDecay(optimizer, total=10, hold=6)
    rates = []
    for _ in range(12):
        rates.append(optimizer.lr)
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, [0.8] * 7 + [0.6, 0.4, 0.2, 0.0, 0.0], atol=1e-15)


def test_linear_decay_goes_on_after_a_resume():
    optimizer = SGD(network(), lr=0.8)
    schedule = LinearDecay(optimizer, total=10)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    resumed = SGD(network(), lr=0.1)
    resumed.load_state_dict(optimizer.state_dict())
    schedule = LinearDecay(resumed, total=10)
    resumed.step()
    schedule.step()
    assert resumed.lr == pytest.approx(0.8 * 4 / 10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Adam(network(), lr=-1), "lr >= 0, got -1"),
        (lambda: Adam(network(), lr=float("nan")), "lr >= 0, got nan"),
        (lambda: Adam(network(), lr=1, betas=(0.5, 1.0)), "0 <= beta < 1"),
        (lambda: Adam(network(), lr=1, eps=0), "eps > 0"),
        (lambda: SGD(network(), lr=1, momentum=1.0), "0 <= momentum < 1"),
        (lambda: SGD(network(), lr=1, weight_decay=-1), "weight_decay >= 0"),
        (lambda: RMSprop(network(), alpha=1.0), "0 <= alpha < 1, got 1.0"),
        (lambda: RMSprop(network(), momentum=-1), "RMSprop expected 0 <= momentum < 1, got -1"),
        (lambda: RMSprop(network(), eps=0), "eps > 0, got 0"),
        (lambda: Adam(network(), weight_clip=0), "Adam expected a weight_clip above 0, or None, got 0"),
        (lambda: clip_grad_norm(network(), 0.0), "clip_grad_norm expected a max_norm above 0, got 0.0"),
        (lambda: clip_grad_value(network(), float("nan")), "clip_grad_value expected a clip_value above 0, got nan"),
        (lambda: LinearDecay(SGD(network(), lr=1), total=3, hold=3), "0 <= hold < total"),
        (lambda: Adam(network()).load_state_dict({"steps": 1, "lr": 1, "state": {}}), "another Adam"),
    ],
)
def test_wrong_settings_get_one_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()


def after_two_steps(kind, **options):
    """An optimiser with a state of its own, and that state as its own copy."""
    optimizer, rng = kind(network(), **options), np.random.default_rng(5)
    for _ in range(2):
        for gradient in optimizer.network.gradient_arrays():
            gradient[...] = rng.standard_normal(gradient.shape)
        optimizer.step()
    return optimizer, copy.deepcopy(optimizer.state_dict())


@pytest.mark.parametrize("kind", [SGD, RMSprop])
def test_a_buffer_that_a_momentum_of_0_does_not_read_may_be_missing(kind):
    """As in torch's files, which hold it for a momentum above 0 alone."""
    ours, saved = after_two_steps(kind, lr=0.1)
    saved["state"] = {name: array for name, array in saved["state"].items() if not name.endswith("momentum_buffer")}
    resumed = kind(network(), lr=0.5)
    resumed.network.load_state_dict(ours.network.state_dict())
    resumed.load_state_dict(saved)
    for optimizer in (ours, resumed):
        for gradient in optimizer.network.gradient_arrays():
            gradient[...] = np.random.default_rng(6).standard_normal(gradient.shape)
        optimizer.step()
    for name, array in ours.network.state_dict().items():
        np.testing.assert_array_equal(resumed.network.state_dict()[name], array, err_msg=name)
    with pytest.raises(UserError, match="momentum_buffer is missing"):
        kind(network(), lr=0.5, momentum=0.5).load_state_dict(saved)


def test_a_loss_scale_does_not_matter_to_who_scales_no_losses_but_to_who_does():
    scaled, saved = after_two_steps(Adam, loss_scaling=True)
    plain = Adam(network())
    plain.load_state_dict(saved)
    assert plain.steps == 2
    assert plain.dloss == 1.0
    for name, array in plain.state.items():
        np.testing.assert_array_equal(array, saved["state"][name])
    with pytest.raises(UserError, match="loss_scale is missing; good_steps is missing"):
        scaled.load_state_dict(plain.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("initial_lr"), "initial_lr is missing"),
        (lambda s: s.pop("state"), "expected what its state_dict"),
        (lambda s: s.update(lr="0.1"), "lr >= 0, got '0.1'"),
        (lambda s: s.update(initial_lr=float("nan")), "initial_lr >= 0, got nan"),
        (lambda s: s.update(steps=1.5), "steps as an integer of at least 0, got 1.5"),
        (lambda s: s.update(steps=-1), "steps as an integer of at least 0, got -1"),
        (lambda s: s["state"].pop("weight.exp_avg"), "weight.exp_avg is missing"),
        (lambda s: s["state"].update(more=np.zeros(1)), "more is unknown here"),
        (lambda s: s["state"].update({"weight.exp_avg": np.zeros(1)}), r"weight.exp_avg has shape \(1,\) instead"),
        (lambda s: s["state"].update({"weight.exp_avg": [1.0]}), "weight.exp_avg expected a NumPy"),
    ],
)
def test_a_state_of_another_optimiser_is_refused_whole(change, message):
    optimizer, _ = after_two_steps(Adam)
    _, other = after_two_steps(Adam, lr=0.5)
    other["steps"] = 9
    other["state"] = {name: array + 1 for name, array in other["state"].items()}
    change(other)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(UserError, match=message):
        optimizer.load_state_dict(other)
    after = optimizer.state_dict()
    assert [after[name] for name in ("steps", "lr", "initial_lr")] == [
        before[name] for name in ("steps", "lr", "initial_lr")
    ]
    for name, array in after["state"].items():
        np.testing.assert_array_equal(array, before["state"][name], err_msg=name)


@pytest.mark.parametrize("make", [lambda n: SGD(n, lr=1), Adam, RMSprop, lambda n: Ema(n, beta=0.9)])
def test_weights_of_float16_are_refused_when_the_optimiser_is_made(make):
    """Adam's squares would be 0, its steps infinite; steps below a rounding would be lost by all."""
    with pytest.raises(UserError, match="expected float32 or float64, got float16"):
        make(network(np.float16))


@pytest.mark.parametrize("case", UPDATES, ids=str)
def test_an_update_refuses_float16_whose_steps_would_be_lost(case):
    parameter = np.random.default_rng(0).standard_normal(5).astype(np.float16)
    with pytest.raises(UserError, match="expected float32 or float64, got float16"):
        case.run(parameter, [parameter * 0.01])


def test_a_norm_of_float16_gradients_is_refused_where_it_would_be_infinite():
    with pytest.raises(UserError, match="clip_grad_norm expected float32 or float64, got float16"):
        clip_grad_norm(network(np.float16), 1.0)


OPTIONS = [
    *[(kind, name) for kind in (SGD, Adam, RMSprop) for name in ("lr", "initial_lr", "weight_decay", "weight_clip")],
    *[(SGD, "momentum"), (Adam, "eps"), (RMSprop, "alpha"), (RMSprop, "eps"), (RMSprop, "momentum")],
]
QUARTER = [np.float32(0.25), np.float64(0.25), np.float16(0.25), np.longdouble(0.25), np.array(0.25, np.float32)]


@pytest.mark.parametrize(("kind", "name"), OPTIONS)
@pytest.mark.parametrize("value", QUARTER, ids=repr)
def test_numpys_numbers_become_floats_which_a_checkpoint_can_hold(kind, name, value):
    optimizer = kind(network(), lr=0.1)
    setattr(optimizer, name, value)
    if name != "initial_lr":
        assert type(getattr(kind(network(), **{"lr": 0.1, name: value}), name)) is float
    assert type(getattr(optimizer, name)) is float
    assert getattr(optimizer, name) == 0.25
    optimizer.steps = np.int64(3)
    numbers = {key: number for key, number in optimizer.state_dict().items() if key != "state"}
    assert json.loads(json.dumps(numbers))["steps"] == 3


@pytest.mark.parametrize(("kind", "name"), OPTIONS)
@pytest.mark.parametrize("value", ["2e-4", float("nan"), -0.25, 0.25j, np.complex64(0.25), np.array([0.25]), True, []])
def test_what_is_no_number_is_refused_when_it_is_set(kind, name, value):
    """Not by json, minutes later, when the first checkpoint is written."""
    optimizer = kind(network(), lr=0.1)
    before = getattr(optimizer, name)
    with pytest.raises(UserError, match=f"{kind.__name__} expected .*{name}"):
        setattr(optimizer, name, value)
    assert getattr(optimizer, name) == before
    if name != "initial_lr":
        with pytest.raises(UserError, match=f"{kind.__name__} expected .*{name}"):
            kind(network(), **{"lr": 0.1, name: value})


@pytest.mark.parametrize("betas", [np.array([0.5, 0.75], np.float32), [np.float64(0.5), np.float16(0.75)], (0.5, 0.75)])
def test_betas_become_two_floats(betas):
    optimizer = Adam(network(), betas=betas)
    assert optimizer.betas == (0.5, 0.75)
    assert [type(beta) for beta in optimizer.betas] == [float, float]


@pytest.mark.parametrize(
    "betas", [0.5, "ab", (0.5,), (0.5, "0.9"), (0.5, 1.0), (0.5, float("nan")), None, np.float32(1)]
)
def test_betas_that_are_no_two_numbers_are_refused(betas):
    optimizer = Adam(network(), betas=(0.25, 0.5))
    with pytest.raises(UserError, match="Adam expected .*0 <= beta < 1"):
        optimizer.betas = betas
    assert optimizer.betas == (0.25, 0.5)


@pytest.mark.parametrize("value", ["1", 1j, True, None, [1.0]])
def test_limits_and_schedules_refuse_what_is_no_number(value):
    calls = [
        lambda: clip_grad_norm(network(), value),
        lambda: clip_grad_value(network(), value),
        lambda: LinearDecay(SGD(network(), lr=1), total=value),
        lambda: LinearDecay(SGD(network(), lr=1), total=5, hold=value),
    ]
    for call in calls:
        with pytest.raises(UserError, match="expected"):
            call()


@pytest.mark.parametrize("loss_scaling", [False, True])
def test_supervised_steps_are_torchs(loss_scaling, rng):
    """Gradients of an earlier step do not stay, and the loss is the one before the step."""
    ours, options = network(), {"lr": 0.1, "momentum": 0.5}
    theirs = torch.nn.Linear(4, 3, dtype=torch.float64)
    theirs.load_state_dict({name: torch.tensor(array) for name, array in ours.params.items()})
    mine, other = SGD(ours, loss_scaling=loss_scaling, **options), torch.optim.SGD(theirs.parameters(), **options)
    for _ in range(3):
        x, target = rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
        loss = supervised_step(ours, mine, x, target, mse_forward, mse_backward)
        other.zero_grad()
        expected = torch.nn.functional.mse_loss(theirs(torch.tensor(x)), torch.tensor(target))
        expected.backward()
        other.step()
        np.testing.assert_allclose(loss, expected.item(), rtol=1e-12)
    for name, tensor in theirs.named_parameters():
        np.testing.assert_allclose(ours.params[name], tensor.detach().numpy(), rtol=1e-12)


def test_a_supervised_step_is_in_train_mode(rng):
    seen = []

    class Watched(Linear):
        def forward(self, x, train=True):
            seen.append(train)
            return super().forward(x)

    layer = Watched(4, 3, dtype=np.float64)
    supervised_step(layer, SGD(layer, lr=0.1), np.ones((2, 4)), np.ones((2, 3)), mse_forward, mse_backward)
    assert seen == [True]
