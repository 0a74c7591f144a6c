"""G's gradient under three losses, against their formulas and torch's autograd; each experiment moves one network."""

import numpy as np
import pytest
import torch
from torch import nn

from nanogan.analysis.inside import gradients
from nanogan.errors import UserError
from nanogan.models import vanilla
from nanogan.optim import SGD

SIZES = {"image_size": 3, "hidden": 5, "dtype": np.float64}
FORMULAS = {  # of G: the loss of each image by D's output
    "saturating": lambda s: torch.log(1 - torch.sigmoid(s)),
    "non-saturating": lambda s: -torch.log(torch.sigmoid(s)),
    "least squares": lambda s: (s - 1) ** 2 / 2,
}


@pytest.fixture
def pair(rng):
    g, d = vanilla.generator(latent=2, rng=rng, **SIZES), vanilla.discriminator(rng=rng, **SIZES)
    for network in (g, d):
        for _, parameter, _ in network.named_parameters():
            parameter *= 2
    return g, d


def in_torch(network, *modules):
    result = nn.Sequential(*modules).double()
    state = {name.removeprefix("main."): torch.tensor(array) for name, array in network.state_dict().items()}
    result.load_state_dict(state)
    return result


def torchs(g, d):
    return (
        in_torch(g, nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 9), nn.Tanh()),
        in_torch(d, nn.Identity(), nn.Linear(9, 5), nn.LeakyReLU(0.2), nn.Linear(5, 5), nn.LeakyReLU(0.2),
                 nn.Linear(5, 1)),
    )  # fmt: skip


def copied(network):
    return {name: array.copy() for name, array in network.state_dict().items()}


def changed(network, before):
    return any((array != before[name]).any() for name, array in network.state_dict().items())


def test_slopes_are_those_of_the_formulas():
    scores = torch.linspace(-6, 6, 25, dtype=torch.float64, requires_grad=True)
    found = gradients.slopes(scores.detach().numpy())
    assert list(found) == list(FORMULAS)
    for name, formula in FORMULAS.items():
        (expected,) = torch.autograd.grad(formula(scores).sum(), scores)
        np.testing.assert_allclose(found[name], expected.numpy(), rtol=1e-9, atol=1e-12)


def test_a_look_is_the_norm_of_torchs_gradient_and_moves_nothing(pair, rng):
    g, d = pair
    z = rng.standard_normal((6, 2))
    tg, td = torchs(g, d)
    before = copied(g), copied(d)
    moment = gradients.look(g, d, z, step=4)
    assert moment.step == 4
    assert moment.score == pytest.approx(td(tg(torch.tensor(z))).mean().item())
    for name, formula in FORMULAS.items():
        tg.zero_grad()
        formula(td(tg(torch.tensor(z)))).mean().backward()
        norm = torch.sqrt(sum((parameter.grad**2).sum() for parameter in tg.parameters()))
        assert moment.gradients[name] == pytest.approx(norm.item(), rel=1e-9)
    assert not changed(g, before[0])
    assert not changed(d, before[1])
    assert all((gradient == 0).all() for _, _, gradient in d.named_parameters())


def test_d_learns_alone(pair, rng):
    g, d = pair
    z, before = rng.standard_normal((20, 2)), (copied(g), copied(d))
    real = rng.uniform(0.5, 1, (40, 1, 3, 3))
    batches = ((real, rng.standard_normal((40, 2))) for _ in range(60))
    moments = gradients.while_d_learns(g, d, SGD(d, lr=1.0), batches, z, every=20)
    assert [moment.step for moment in moments] == [0, 20, 40, 60]
    assert moments[-1].score < moments[0].score - 1, "D finds out what is fake"
    ratio = moments[-1].gradients["saturating"] / moments[-1].gradients["non-saturating"]
    assert ratio < 0.5 * moments[0].gradients["saturating"] / moments[0].gradients["non-saturating"]
    assert not changed(g, before[0])
    assert changed(d, before[1])
    assert moments[-1].score == gradients.look(g, d, z).score


def test_ds_own_loss_is_what_it_learns_by(pair, rng):
    g, d = pair
    start, real, z = copied(d), rng.uniform(0.5, 1, (9, 1, 3, 3)), rng.standard_normal((9, 2))
    moved = []
    for loss in ("bce", "lsgan"):
        d.load_state_dict(start)
        gradients.while_d_learns(g, d, SGD(d, lr=0.1), [(real, z)], z, loss=loss)
        moved.append(copied(d))
    assert max(abs(moved[0][name] - moved[1][name]).max() for name in start) > 1e-3


def test_g_learns_alone_and_its_gradient_goes_with_one_loss_and_stays_with_the_other(pair, rng):
    g, d = pair
    z, before = rng.standard_normal((20, 2)), (copied(g), copied(d))
    for _, parameter, _ in d.named_parameters():
        parameter *= 1.5
    before = before[0], copied(d)
    moments = gradients.while_g_learns(g, d, SGD(g, lr=0.3), [rng.standard_normal((20, 2)) for _ in range(60)], z)
    assert [moment.step for moment in moments] == [0, 10, 20, 30, 40, 50, 60]
    assert moments[-1].score > moments[0].score + 2
    first, last = (moment.gradients["non-saturating"] / moment.gradients["least squares"] for moment in moments[::6])
    assert last < 0.3 * first
    assert changed(g, before[0])
    assert not changed(d, before[1])
    assert all((gradient == 0).all() for _, _, gradient in d.named_parameters())


def test_images_are_sorted_by_score_and_each_has_its_own_gradient(pair, rng):
    g, d = pair
    z = rng.standard_normal((50, 2))
    tg, td = torchs(g, d)
    fake = tg(torch.tensor(z)).detach().requires_grad_()
    scores = td(fake)[:, 0]
    middle = float(scores.detach().median()) + 1e-9
    rows = gradients.by_score(g, d, z, (-100, middle, 100, 101))
    assert [row["share"] for row in rows] == [0.5, 0.5, 0]
    assert rows[2] == {"from": 100.0, "to": 101.0, "share": 0.0}
    below = scores.detach().numpy() < middle
    for name, formula in FORMULAS.items():
        (dfake,) = torch.autograd.grad(formula(scores).sum(), fake, retain_graph=True)
        lengths = torch.linalg.norm(dfake, dim=1).numpy()
        for row, inside in ((rows[0], below), (rows[1], ~below)):
            assert row[name] == pytest.approx(lengths[inside].mean(), rel=1e-9)


def test_edges_that_do_not_rise_are_refused(pair, rng):
    with pytest.raises(UserError, match=r"at least two edges that rise, got \[1, 0\]"):
        gradients.by_score(*pair, rng.standard_normal((3, 2)), (1, 0))
