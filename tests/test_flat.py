"""On a GPU the parameters of a network lie in one array, and what an optimiser does is one kernel over it."""

import copy

import numpy as np
import pytest

from nanogan import backend, layers
from nanogan.errors import UserError
from nanogan.optim import SGD, Adam
from tests.games.test_adversarial import networks
from tests.helpers import relative_error


def test_parameters_are_views_of_one_array_and_keep_their_values(gpu):
    g, _ = networks(np.float32)
    before = {name: array.copy() for name, array in g.state_dict().items()}
    g.to("gpu")
    opt = Adam(g)
    size = sum(parameter.size for _, parameter, _ in g.named_parameters())
    padded = sum(-(-parameter.size // 64) * 64 for _, parameter, _ in g.named_parameters())
    ((flat, gradients, m, v),) = opt._groups()
    assert flat.shape == gradients.shape == m.shape == v.shape == (padded,)
    for name, array in g.state_dict().items():
        np.testing.assert_array_equal(backend.to_numpy(array), before[name])
    for _, parameter, gradient in g.named_parameters():
        for array in (parameter, gradient):
            assert array.ndim != 4 or array.transpose(0, 2, 3, 1).flags.c_contiguous
        gradient[...] = 1
        parameter[...] = 2
    assert float(gradients.sum()) == size
    assert float(flat.sum()) == 2 * size
    g.zero_grad()
    assert float(abs(gradients).sum()) == 0
    for name, array in opt.state.items():
        array[...] = 3
        assert array.shape == g.state_dict()[name.rsplit(".", 1)[0]].shape
    assert float(m.sum()) == float(v.sum()) == 3 * size


@pytest.mark.parametrize("change", [lambda network: network.astype(np.float64), lambda network: network.to("cpu")])
def test_an_optimiser_of_arrays_that_are_gone_says_so(double, change):
    g, _ = networks(np.float32)
    opt = Adam(g.to("gpu"))
    change(g)
    with pytest.raises(
        UserError, match="Adam expected the network's arrays to stay where they are.*make a new optimiser"
    ):
        opt.step()
    g.zero_grad()
    assert all((gradient == 0).all() for _, _, gradient in g.named_parameters())


def test_each_parameter_is_aligned_and_what_is_between_stays_zero(gpu):
    """cuBLAS reads 16 bytes at a time where it may."""
    network = layers.Sequential(layers.Linear(5, 3), layers.Linear(3, 1)).to("gpu")
    opt = Adam(network, lr=0.1, weight_decay=0.1)
    ((flat, gradients, m, v),) = opt._groups()
    for _, parameter, gradient in network.named_parameters():
        assert parameter.data.ptr % 256 == flat.data.ptr % 256
        gradient[...] = 1
    for _ in range(3):
        opt.step()
    assert int((flat != 0).sum()) == int((gradients != 0).sum()) == int((v != 0).sum()) == network.parameter_count()


def test_two_optimisers_of_one_network_share_its_arrays(double):
    g, _ = networks(np.float32)
    first, second = SGD(g.to("gpu"), lr=1.0), SGD(g, lr=1.0)
    assert first._groups()[0][0] is second._groups()[0][0]


def test_a_copied_network_trains_its_own_arrays(double):
    g, _ = networks(np.float32)
    Adam(g.to("gpu"))
    other = copy.deepcopy(g)
    opt = SGD(other, lr=1.0)
    for _, _, gradient in other.named_parameters():
        gradient[...] = 1
    before = backend.to_numpy(g.state_dict()["main.0.weight"])
    opt.step()
    other.zero_grad()
    np.testing.assert_array_equal(backend.to_numpy(g.state_dict()["main.0.weight"]), before)
    np.testing.assert_allclose(backend.to_numpy(other.state_dict()["main.0.weight"]), before - 1, rtol=1e-6)
    assert all(float(abs(gradient).sum()) == 0 for _, _, gradient in other.named_parameters())


def test_a_copied_network_keeps_its_kernels_channels_last(gpu):
    g = copy.deepcopy(networks(np.float32)[0].to("gpu"))
    for name, array in g.state_dict().items():
        assert array.ndim != 4 or array.transpose(0, 2, 3, 1).flags.c_contiguous, name


def test_a_layer_that_stands_in_two_places_is_stepped_once(double):
    inner = layers.Linear(3, 3, rng=np.random.default_rng(0))
    network = layers.Sequential(inner, layers.ReLU(), inner).to("gpu")
    opt = SGD(network, lr=1.0)
    before = backend.to_numpy(inner.params["weight"])
    inner.grads["weight"][...] = 1
    opt.step()
    np.testing.assert_allclose(backend.to_numpy(inner.params["weight"]), before - 1, rtol=1e-6)


def test_an_optimisers_state_crosses_over(gpu):
    cpu_g, g = networks(np.float32)[0], networks(np.float32)[0].to("gpu")
    here, there = Adam(cpu_g, lr=1e-2), Adam(g, lr=1e-2)
    for seed in range(4):
        if seed == 2:
            saved = here.state_dict()
            there.load_state_dict(saved)
            g.load_state_dict(cpu_g.state_dict())
        for (_, _, a), (_, _, b) in zip(cpu_g.named_parameters(), g.named_parameters(), strict=True):
            a[...] = np.random.default_rng(seed).standard_normal(a.shape)
            b[...] = backend.to_device(a, "gpu")
        here.step()
        if seed >= 2:
            there.step()
    for name, array in cpu_g.state_dict().items():
        assert relative_error(backend.to_numpy(g.state_dict()[name]), array) < 1e-6, name
    here.load_state_dict(there.state_dict())
    assert (
        relative_error(here.state["main.0.weight.exp_avg"], backend.to_numpy(there.state["main.0.weight.exp_avg"])) == 0
    )
