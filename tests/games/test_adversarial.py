"""The adversarial step: the generator's gradient through the discriminator, and torch's losses step after step."""

import functools

import numpy as np
import pytest
import torch

from benchmarks import torch_dcgan
from nanogan.backend import to_device, to_numpy
from nanogan.models import dcgan
from nanogan.ops import bce_with_logits_backward, bce_with_logits_forward
from nanogan.optim import SGD, Adam
from nanogan.training import adversarial_step, discriminator_step, sample
from tests.helpers import channels_last, directional_error, elementwise_gradient, relative_error

SIZE, CHANNELS, LATENT, WIDTH, BATCH = 16, 2, 6, 4, 8


def networks(dtype=np.float64):
    rng = np.random.default_rng(5)
    g = dcgan.generator(image_size=SIZE, channels=CHANNELS, latent=LATENT, width=WIDTH, rng=rng, dtype=dtype)
    d = dcgan.discriminator(image_size=SIZE, channels=CHANNELS, width=WIDTH, rng=rng, dtype=dtype)
    return g, d


def batches(count, dtype):
    rng = np.random.default_rng(6)
    for _ in range(count):
        real = np.tanh(rng.standard_normal((BATCH, CHANNELS, SIZE, SIZE)) + 1)
        yield channels_last(real.astype(dtype)), rng.standard_normal((BATCH, LATENT)).astype(dtype)


def generator_gradients(g, d, z):
    """The generator's half of the step: dz, and gradients in g.grads."""
    fake, g_cache = g.forward(z)
    logits, cache = d.forward(fake)
    _, loss_cache = bce_with_logits_forward(logits, 1.0)
    dfake = d.backward(bce_with_logits_backward(1.0, loss_cache), cache, need_dw=False)
    return g.backward(dfake, g_cache)


def test_the_generators_gradient_goes_through_the_discriminator(rng):
    """Against finite differences, and not zero: the bug of from-scratch GANs that keep one activation per layer."""
    g, d = networks()
    # at the paper's initial 0.02 the gradients are so small that differences of the loss drown in its rounding
    for network in (g, d):
        for _, parameter, _ in network.named_parameters():
            parameter += 0.2 * rng.standard_normal(parameter.shape)
    z = rng.standard_normal((BATCH, LATENT))

    def loss():
        return bce_with_logits_forward(d.forward(g.forward(z)[0])[0], 1.0)[0]

    g.zero_grad()
    dz = generator_gradients(g, d, z)
    for name, _, gradient in g.named_parameters():
        assert np.abs(gradient).max() > 1e-6, f"{name} gets no gradient"
    parameters, gradients = zip(*((p, grad) for _, p, grad in g.named_parameters()), strict=True)
    for _ in range(3):
        # eps so small that no ReLU changes sides on the way; rounding then allows 1e-16 / 1e-7
        assert directional_error(loss, [*parameters, z], [*gradients, dz], rng, eps=1e-7) < 1e-6
    assert relative_error(dz, elementwise_gradient(loss, z, eps=1e-7)) < 1e-5
    assert all((gradient == 0).all() for _, _, gradient in d.named_parameters()), "need_dw=False must not add to d"


def test_discriminator_gradients_are_the_sum_of_both_batches():
    """One step with SGD and lr 1 moves d by the gradient: compare with torch's of loss_real + loss_fake."""
    g, d = networks()
    tg, td = torch_dcgan.copy_of(g), torch_dcgan.copy_of(d)
    ((real, z),) = batches(1, np.float64)
    before = {name: p.copy() for name, p, _ in d.named_parameters()}
    adversarial_step(g, d, SGD(g, lr=1.0), SGD(d, lr=1.0), real, z)
    real_logits = td(torch.tensor(real))
    fake_logits = td(tg(torch.tensor(z).reshape(BATCH, LATENT, 1, 1)).detach())
    (torch.nn.functional.softplus(-real_logits).mean() + torch.nn.functional.softplus(fake_logits).mean()).backward()
    expected = dict(td.named_parameters())
    for name, p, _ in d.named_parameters():
        assert relative_error(before[name] - p, expected[name].grad.numpy()) < 1e-9, name


def test_gs_half_of_a_step_leaves_ds_gradients_alone():
    """They are what D's own half left: need_dw=False when the generator's loss goes through it."""

    class Remembering(SGD):
        def step(self):
            self.seen = [gradient.copy() for _, _, gradient in self.network.named_parameters()]
            super().step()

    g, d = networks()
    ((real, z),) = batches(1, np.float64)
    opt_d = Remembering(d, lr=0.1)
    adversarial_step(g, d, SGD(g, lr=0.1), opt_d, real, z)
    for (name, _, gradient), seen in zip(d.named_parameters(), opt_d.seen, strict=True):
        np.testing.assert_array_equal(gradient, seen, err_msg=name)


def test_gradients_left_from_before_do_not_count():
    for step in (adversarial_step, discriminator_step):
        after = []
        for left in (0.0, 3.0):
            g, d = networks()
            for _, _, gradient in (*g.named_parameters(), *d.named_parameters()):
                gradient += left
            ((real, z),) = batches(1, np.float64)
            optimizers = (SGD(g, lr=1.0), SGD(d, lr=1.0)) if step is adversarial_step else (SGD(d, lr=1.0),)
            step(g, d, *optimizers, real, z)
            after.append(g.state_dict() | {f"d.{name}": array for name, array in d.state_dict().items()})
        for name, array in after[0].items():
            np.testing.assert_array_equal(array, after[1][name], err_msg=f"{step.__name__}: {name}")


def test_each_networks_gradient_starts_from_its_own_optimisers_dloss():
    """A loss 8 times as large and a learning rate of an eighth are the same SGD; G's factor is another one."""
    after = []
    for scale_g, scale_d in ((1.0, 1.0), (4.0, 8.0)):
        g, d = networks()
        opt_g, opt_d = SGD(g, lr=0.5 / scale_g), SGD(d, lr=0.5 / scale_d)
        opt_g.dloss, opt_d.dloss = scale_g, scale_d
        for real, z in batches(2, np.float64):
            adversarial_step(g, d, opt_g, opt_d, real, z)
            discriminator_step(g, d, opt_d, real, z)
        after.append(g.state_dict() | {f"d.{name}": array for name, array in d.state_dict().items()})
    for name, array in after[0].items():
        assert relative_error(after[1][name], array) < 1e-10, name


def run_ours(steps, dtype, device="cpu"):
    g, d = (network.to(device) for network in networks(dtype))
    opt_g, opt_d = Adam(g, lr=2e-4, betas=(0.5, 0.999)), Adam(d, lr=2e-4, betas=(0.5, 0.999))
    results = []
    for real, z in batches(steps, dtype):
        result = adversarial_step(g, d, opt_g, opt_d, to_device(real, device), to_device(z, device))
        assert all(value.dtype == dtype for value in result)
        results.append([float(to_numpy(value)) for value in result])
    return np.array(results), g, d


@functools.cache
def run_torchs(steps, dtype, memory_format=torch.contiguous_format):
    """Cached: nothing here changes what it returns."""
    g, d = (torch_dcgan.copy_of(network).to(memory_format=memory_format) for network in networks(dtype))
    opt_g, opt_d = (torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n in (g, d))
    rows = [
        torch_dcgan.step(
            g, d, opt_g, opt_d, torch.tensor(real).contiguous(memory_format=memory_format), torch.tensor(z)
        )
        for real, z in batches(steps, dtype)
    ]
    return np.array(rows), g, d


MEMORY_FORMATS = torch.contiguous_format, torch.channels_last


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS, ids=str)
def test_200_steps_are_torchs_in_float64(memory_format):
    """Every loss, and at the end every parameter and every buffer of BatchNorm."""
    assert_training_is_torchs(200, memory_format)


def assert_training_is_torchs(steps, memory_format, moved=0.3):
    """Train ours and torch's alike, in float64; the losses must have ``moved`` for this to prove anything."""
    ours, g, d = run_ours(steps, np.float64)
    theirs, tg, td = run_torchs(steps, np.float64, memory_format)
    # Adam's steps are as large as the learning rate, so rounding hardly grows: 1e-15 was measured after 200.
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    for network, other in ((g, tg), (d, td)):
        state = {name: tensor.numpy() for name, tensor in other.state_dict().items()}
        assert state.keys() == network.state_dict().keys()
        for name, array in network.state_dict().items():
            assert relative_error(array, state[name]) < 1e-11, name
    assert np.ptp(ours[:, 0]) > moved


def test_200_steps_are_torchs_in_float32_within_rounding(device):
    """Ours may be off by at most 4 times what torch's is, both measured against the same steps in float64.

    A factor above 1, because each error is one random sample.
    """
    exact, eg, ed = run_torchs(200, np.float64)
    ours, g, d = run_ours(200, np.float32, device)
    for memory_format in MEMORY_FORMATS:
        theirs, tg, td = run_torchs(200, np.float32, memory_format)
        our_error, their_error = np.abs(ours - exact).max(), np.abs(theirs - exact).max()
        assert our_error < 4 * their_error
        assert our_error < 1e-5
        for network, torchs, precise in ((g, tg, eg), (d, td, ed)):
            exact_state = {name: tensor.numpy() for name, tensor in precise.state_dict().items()}
            torch_state = {name: tensor.numpy() for name, tensor in torchs.state_dict().items()}
            for name, array in network.state_dict().items():
                # One parameter in thousands may take a step the other way, where its gradient is all rounding error.
                error, allowed = relative_error(to_numpy(array), exact_state[name]), 1e-3
                assert error < max(4 * relative_error(torch_state[name], exact_state[name]), allowed), name


def test_samples_do_not_depend_on_their_batch(rng):
    g, d = networks(np.float32)
    for real, z in batches(3, np.float32):
        adversarial_step(g, d, Adam(g, lr=1e-3), Adam(d, lr=1e-3), real, z)
    z = rng.standard_normal((10, LATENT), dtype=np.float32)
    together = sample(g, z)
    one_by_one = np.concatenate([sample(g, z[i : i + 1]) for i in range(10)])
    small_batches = sample(g, z, batch_size=3)
    assert together.shape == (10, CHANNELS, SIZE, SIZE)
    np.testing.assert_allclose(one_by_one, together, atol=1e-6)
    np.testing.assert_allclose(small_batches, together, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-4, "different z give different pictures"


def test_sampling_leaves_the_generator_as_it_was(rng):
    g, _ = networks(np.float32)
    before = {name: array.copy() for name, array in g.state_dict().items()}
    sample(g, rng.standard_normal((4, LATENT), dtype=np.float32))
    for name, array in g.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("dtype", [np.float32])
def test_the_same_run_twice_gives_the_same_bits(dtype):
    first, g1, d1 = run_ours(5, dtype)
    second, g2, d2 = run_ours(5, dtype)
    np.testing.assert_array_equal(first, second)
    for one, two in ((g1, g2), (d1, d2)):
        for name, array in one.state_dict().items():
            np.testing.assert_array_equal(array, two.state_dict()[name])
