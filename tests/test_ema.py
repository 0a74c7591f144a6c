"""The moving average of a network: its formula, its buffers, its file, on every device."""

import numpy as np
import pytest

from nanogan.backend import to_device, to_numpy
from nanogan.errors import UserError
from nanogan.optim import Adam
from nanogan.optim.ema import Ema
from nanogan.training import adversarial_step, sample
from tests import strict_cupy
from tests.games.test_adversarial import LATENT, batches, networks


def state(network):
    return {name: np.array(to_numpy(array), copy=True) for name, array in network.state_dict().items()}


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("optimised", [True, False], ids=["side by side", "as they are"])
def test_it_is_the_formula(device, beta, optimised):
    """Written out in float64; beta counts only once (1 + t) / (10 + t) has reached it, at t = 8 for 0.5."""
    g, d = (network.to(device) for network in networks(np.float32))
    opt_d = Adam(d, lr=1e-2)
    early = None if optimised else Ema(g, beta=beta)  # made before the optimiser moves g's arrays on a GPU
    opt_g = Adam(g, lr=1e-2)
    ema = early or Ema(g, beta=beta)
    expected = {name: array.astype(float) for name, array in state(g).items()}
    for t, (real, z) in enumerate(batches(12, np.float32)):
        adversarial_step(g, d, opt_g, opt_d, to_device(real, device), to_device(z, device))
        ema.update()
        now = min(beta, (t + 1) / (t + 10))
        for name, array in state(g).items():
            expected[name] = now * expected[name] + (1 - now) * array
            if name.endswith("num_batches_tracked"):
                expected[name] = array
    assert ema.steps == 12
    newest = state(g)
    for name, array in state(ema.average).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
        assert array.dtype == newest[name].dtype
        if beta and not name.endswith("num_batches_tracked"):
            assert np.abs(array - newest[name]).max() > 1e-4, f"{name} must have moved for this to prove anything"


def test_the_network_is_left_alone_and_the_average_is_its_own(device):
    g, _ = networks(np.float32)
    g.to(device)
    Adam(g)
    ema = Ema(g, beta=0.9)
    before = state(g)
    for array in g.state_dict().values():
        array[...] += 1
    ema.update()
    for name, array in state(g).items():
        np.testing.assert_array_equal(array, before[name] + 1)
    for name, array in state(ema.average).items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, before[name] + 0.9, rtol=1e-6)  # beta_0 is 0.1


def test_its_generator_draws(device, rng):
    g, _ = networks(np.float32)
    g.to(device)
    Adam(g)
    ema = Ema(g, beta=0.5)
    z = to_device(rng.standard_normal((3, LATENT), dtype=np.float32), device)
    np.testing.assert_array_equal(to_numpy(sample(ema.average, z)), to_numpy(sample(g, z)))


def test_an_update_moves_nothing_between_devices_and_changes_parameters_in_one_go(double, monkeypatch):
    g, d = (network.to("gpu") for network in networks(np.float32))
    opt_g = Adam(g)
    ema = Ema(g, beta=0.9)
    ((real, z),) = batches(1, np.float32)
    adversarial_step(g, d, opt_g, Adam(d), to_device(real, "gpu"), to_device(z, "gpu"))
    strict_cupy.transfers.clear()
    ema.update()
    assert strict_cupy.transfers == []
    _, groups = ema._groups()
    buffers = sum(name.endswith(("running_mean", "running_var")) for name in g.state_dict())
    assert len(groups) == 1 + buffers
    size = sum(-(-parameter.size // 64) * 64 for _, parameter, _ in g.named_parameters())  # aligned
    assert groups[0][0].shape == groups[0][1].shape == (size,)


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan"), 2, "0.9", 0.5j, True, None])
def test_a_beta_that_is_none_gets_one_sentence(beta):
    with pytest.raises(UserError, match="Ema expected a beta with 0 <= beta < 1, got"):
        Ema(networks()[0], beta=beta)


def test_numpys_beta_becomes_a_float_and_stays_checked():
    ema = Ema(networks()[0], beta=np.float32(0.75))
    ema.beta = np.array(0.5)
    ema.steps = np.int64(3)
    assert (type(ema.beta), ema.beta) == (float, 0.5)
    assert type(ema.state_dict()["steps"]) is int
    with pytest.raises(UserError, match="0 <= beta < 1, got 1.5"):
        ema.beta = 1.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("steps"), "expected what its state_dict"),
        (lambda s: s.update(steps=float("nan")), "steps as an integer of at least 0, got nan"),
        (lambda s: s.update(average={}), "is missing"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_whole(change, message):
    ema = Ema(networks()[0], beta=0.5)
    saved = {"steps": 7, "average": {name: array + 1 for name, array in state(ema.average).items()}}
    change(saved)
    before = {name: array.copy() for name, array in ema.average.state_dict().items()}
    with pytest.raises(UserError, match=message):
        ema.load_state_dict(saved)
    assert ema.steps == 0
    for name, array in ema.average.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
