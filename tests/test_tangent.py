"""Tangents: how a layer's output moves along a direction, and the gradient penalty that needs them, beside torch's."""

import numpy as np
import pytest
import torch

from benchmarks import torch_dcgan
from nanogan import dispatch
from nanogan.backend import to_device, to_numpy
from nanogan.errors import UserError
from nanogan.games.wgan_gp import gradient_penalty
from nanogan.gradcheck import check_layer, has_tangent
from nanogan.gradcheck.cases import LAYERS
from nanogan.layers import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    Linear,
    ReLU,
    Residual,
    Sequential,
    Tanh,
)
from nanogan.models import wgan
from tests.helpers import channels_last, directional_error, relative_error

WITH = [name for name, (make, _) in LAYERS.items() if has_tangent(make())]
WITHOUT = [name for name in LAYERS if name not in WITH]


def test_layers_that_a_critic_needs_have_a_tangent():
    assert {"Conv2d", "ConvTranspose2d", "Linear", "LeakyReLU", "ReLU", "Dropout"} <= set(WITH)
    assert {"Flatten", "Reshape", "Upsample"} <= set(WITH)
    assert {"BatchNorm2d", "BatchNorm1d", "Tanh", "Sigmoid", "Embedding"} <= set(WITHOUT)
    assert not has_tangent(Sequential(Conv2d(1, 1, 1), Sequential(BatchNorm2d(1)))), "one layer without is enough"


def test_a_block_with_a_way_around_has_one(rng):
    """The example of Residual has BatchNorm in it."""
    options = {"rng": rng, "dtype": np.float64}
    block = Residual(Conv2d(2, 3, 3, padding=1, **options), LeakyReLU(0.2), Conv2d(3, 2, 1, **options))
    report = check_layer(block, rng.standard_normal((3, 2, 4, 4))).raise_if_wrong()
    assert "0.weight of its tangent" in report.worst


def test_a_layer_with_a_backward_of_its_own_inherits_no_tangent():
    """Half of the slope, in a subclass of a layer that has a tangent: it has none until it writes one."""

    class Gentle(ReLU):
        def backward(self, dy, cache, need_dx=True, need_dw=True):
            return 0.5 * super().backward(dy, cache, need_dx=need_dx, need_dw=need_dw)

    assert not has_tangent(Gentle())
    assert has_tangent(type("Same", (ReLU,), {})())
    with pytest.raises(UserError, match="Gentle has no tangent, since it writes its own backward: for a"):
        Gentle().tangent(np.ones(2), None)


@pytest.mark.parametrize("name", WITH)
@pytest.mark.parametrize("train", [True, False])
def test_a_tangent_is_the_slope_along_v(name, train, rng):
    """By central differences of the forward; and check_layer checks its backward."""
    make, draw = LAYERS[name]
    x = channels_last(draw(rng))
    report = check_layer(make(), x, train=train).raise_if_wrong()
    assert {"v of its tangent", "x of its tangent"} <= report.worst.keys()
    layer, v, h = make().astype(np.float64), channels_last(rng.standard_normal(x.shape)), 1e-6
    layer.forward, forward = lambda x: (reseed(layer), forward(x, train=train))[1], layer.forward
    y, cache = layer.forward(x)
    t, _ = layer.tangent(v, cache)
    numeric = (layer.forward(x + h * v)[0] - layer.forward(x - h * v)[0]) / (2 * h)
    assert t.shape == y.shape
    assert relative_error(t, numeric) < 1e-7


def reseed(layer):
    if hasattr(layer, "rng"):
        layer.rng = np.random.default_rng(5)


@pytest.mark.parametrize(
    ("layer", "x", "why"),
    [
        (BatchNorm2d(2), (3, 2, 4, 4), "BatchNorm2d has no tangent, since it mixes the samples of a batch, so that no"),
        (Tanh(), (3, 2), "Tanh has no tangent, since its slope changes with x: for a gradient penalty use layers"),
        (Sequential(Flatten(), Sequential(Linear(8, 2), Tanh())), (3, 2, 2, 2), "Tanh has no tangent"),
    ],
)
def test_a_layer_without_a_tangent_says_why_and_what_to_use(layer, x, why):
    x = np.ones(x, np.float32)
    _, cache = layer.forward(x)
    with pytest.raises(UserError, match=why):
        layer.tangent(x, cache)


# --------------------------------------------------------------------------------------------- the check can be failed


class Cubed(Layer):
    """y = x^3, whose slope is no mask: what its tangent forgets is how the slope changes with x."""

    def forward(self, x, train=True):
        return x**3, x

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        return 3 * cache**2 * dy if need_dx else None

    def tangent(self, v, cache):
        return self.backward(v, cache), cache


class WithBias(Linear):
    def tangent(self, v, cache):
        return self.forward(v)


class Half(ReLU):
    def tangent(self, v, cache):
        return 0.5 * self.backward(v, cache), cache


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (Cubed(), "dx of its tangent.*a term is missing"),
        (WithBias(3, 2), r"tangent\(v\) is not how y changes along v"),
        (Half(), r"tangent\(v\) is not how y changes along v"),
    ],
)
def test_a_wrong_tangent_is_noticed(layer, said, rng):
    with pytest.raises(AssertionError, match=said):
        check_layer(layer, rng.standard_normal((4, 3))).raise_if_wrong()


# ---------------------------------------------------------------------------------------------------- the penalty


def torchs_critic(ours):
    """The torch network of a critic's sizes, with its parameters; written from the docstring of nanogan.models.wgan."""
    modules, channels, width, size = [], ours.channels, ours.width, ours.image_size
    while size > 4:
        modules += [torch.nn.Conv2d(channels, width, 4, 2, 1), torch.nn.LeakyReLU(0.2)]
        channels, width, size = width, 2 * width, size // 2
    modules += [torch.nn.Flatten(), torch.nn.Linear(channels * size**2, 1, bias=False)]
    theirs = torch_dcgan.Network(modules).to(getattr(torch, ours.dtype.name))
    theirs.load_state_dict({name: torch.tensor(array.copy()) for name, array in ours.state_dict().items()})
    return theirs


def critic(*, size, width, channels=1, dtype=np.float64):
    """A nanogan critic with larger weights than its first ones."""
    rng = np.random.default_rng(3)
    d = wgan.critic(image_size=size, channels=channels, width=width, rng=rng, dtype=dtype)
    for _, parameter, _ in d.named_parameters():
        parameter *= 2
    return d


def torchs_penalty(d, x, weight):
    """What people write: the gradient with create_graph=True, its norm, and a backward through both."""
    x = torch.tensor(x).requires_grad_()
    (g,) = torch.autograd.grad(d(x).sum(), x, create_graph=True)
    norms = g.flatten(1).norm(dim=1)
    penalty = ((norms - 1) ** 2).mean()
    (weight * penalty).backward()
    return penalty.item(), norms.mean().item(), {name: p.grad for name, p in d.named_parameters()}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance", "N", "size", "width"),
    [(np.float64, 1e-12, 5, 12, 3), (np.float32, 2e-5, 5, 12, 3), (np.float32, 2e-5, 96, 28, 32)],
    ids=["float64", "float32", "large"],
)
def test_its_gradients_are_those_of_torchs_double_backward(dtype, tolerance, N, size, width, fast, monkeypatch, rng):
    monkeypatch.setattr(dispatch, "FAST", fast)
    d = critic(size=size, width=width, dtype=dtype)
    x = channels_last(rng.uniform(-1, 1, (N, 1, size, size)).astype(dtype))
    with dispatch.watch() as ran:
        penalty, slope = gradient_penalty(d, x, weight=7.0)
    served = {name.split(".")[3] for name in ran if name.startswith("nanogan.fast.cpu.")}
    assert bool(served) == fast
    if fast and N > 5:
        assert {"elementwise", "chunked"} < served, f"too small for the fast paths of a real critic: {served}"
    expected, norm, gradients = torchs_penalty(torchs_critic(d), x, 7.0)
    assert penalty == pytest.approx(expected, rel=tolerance)
    assert slope == pytest.approx(norm, rel=tolerance)
    assert penalty.dtype == slope.dtype == dtype
    for name, _, gradient in d.named_parameters():
        if name.endswith("bias"):
            assert not gradient.any(), "the ordinary db would be wrong"
        else:
            assert relative_error(gradient, gradients[name].numpy()) < tolerance, name


def test_its_gradients_are_the_slopes_of_the_penalty(rng):
    """By differences so small that no mask flips: where one does, the penalty jumps."""
    d = critic(size=12, width=3)
    x = rng.uniform(-1, 1, (5, 1, 12, 12))
    gradient_penalty(d, x, weight=7.0)
    parameters, gradients = zip(*((p, gradient.copy()) for _, p, gradient in d.named_parameters()), strict=True)

    def loss():
        return 7.0 * gradient_penalty(d, x, weight=1.0)[0]

    assert directional_error(loss, parameters, gradients, rng, eps=1e-7) < 1e-7


def test_it_adds_to_the_gradients_and_starts_from_dloss(device, rng):
    d = critic(size=12, width=3)
    d.to(device)
    x = to_device(rng.uniform(-1, 1, (5, 1, 12, 12)), device)
    gradient_penalty(d, x, weight=2.0)
    once = {name: to_numpy(gradient).copy() for name, _, gradient in d.named_parameters()}
    penalty, _ = gradient_penalty(d, x, weight=1.0, dloss=4.0)
    assert penalty.shape == ()
    assert once["main.0.weight"].any()
    for name, _, gradient in d.named_parameters():
        np.testing.assert_allclose(to_numpy(gradient), 3 * once[name], rtol=1e-12, atol=1e-15)


def test_the_tangents_outputs_sum_to_the_product_of_direction_and_gradient(rng):
    """For any direction; along the gradient itself each is a norm."""
    d = critic(size=12, width=3, channels=2)
    x, v = (channels_last(rng.standard_normal((5, 2, 12, 12))) for _ in range(2))
    scores, cache = d.forward(x)
    g = d.backward(np.ones_like(scores), cache, need_dw=False)
    t, _ = d.tangent(v, cache)
    np.testing.assert_allclose(t.sum(), (v * g).sum(), rtol=1e-12)
    norms = np.sqrt((g**2).sum(axis=(1, 2, 3)))
    t, _ = d.tangent(g / norms[:, None, None, None], cache)
    np.testing.assert_allclose(t[:, 0], norms, rtol=1e-12)


def test_dropouts_zeros_are_those_of_the_forward(rng):
    """With others the slope along u would not be the norm, and the penalty another one."""
    options = {"rng": rng, "dtype": np.float64}
    d = Sequential(
        Linear(4, 64, **options), LeakyReLU(0.2), Dropout(0.5, rng=np.random.default_rng(1)), Linear(64, 1, **options)
    )
    x = rng.standard_normal((6, 4))
    _, slope = gradient_penalty(d, x, weight=1.0)
    d.layers[2].rng = np.random.default_rng(1)
    scores, cache = d.forward(x)
    g = d.backward(np.ones_like(scores), cache)
    np.testing.assert_allclose(slope, np.sqrt((g**2).sum(axis=1)).mean(), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_image_without_a_gradient_adds_none_and_no_nan(dtype, device, rng):
    """Where the norm is 0: of one image of three, all ReLUs of which are off."""
    d = Sequential(Linear(2, 8, rng=rng, dtype=dtype), ReLU(), Linear(8, 1, rng=rng, dtype=dtype))
    d.layers[0].params["weight"] = abs(d.layers[0].params["weight"])
    d.layers[0].params["bias"][...] = 0
    d.to(device)
    x = np.array([[1.0, 2.0], [-1.0, -2.0], [3.0, 0.5]], dtype)
    gradients = []
    for images in (x, x[[0, 2]]):
        d.zero_grad()
        penalty, slope = gradient_penalty(d, to_device(images, device), weight=1.0)
        gradients.append([len(images) * to_numpy(gradient) for _, _, gradient in d.named_parameters()])
        assert np.isfinite(float(penalty))
    for with_it, without in zip(*gradients, strict=True):
        np.testing.assert_allclose(with_it, without, rtol=1e-5)
    assert gradients[0][0].any()
