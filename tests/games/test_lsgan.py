"""LSGAN's step beside torch's autograd, written from X. Mao et al., arXiv:1611.04076, equations 8 and 9."""

import numpy as np
import pytest
import torch

from benchmarks import torch_dcgan
from nanogan.errors import UserError
from nanogan.games.game import At
from nanogan.games.lsgan import LSGAN, LSGANOptions
from nanogan.training.health import Health

N, C, SIZE, LATENT, WIDTH = 6, 2, 8, 3, 2


def played(steps, **options):
    """A game in float64, its networks before the first step in torch, the inputs of its steps, what they returned."""
    rng = np.random.default_rng(3)
    options = LSGANOptions(image_size=SIZE, latent=LATENT, width=WIDTH, lr=0.5, beta1=0.7, **options)
    game = LSGAN(options, {"images": (C, SIZE, SIZE)}, seed=1, dtype=np.float64)
    for network in (game.g, game.d):  # the paper's first weights make scores of 1e-4
        for _, parameter, _ in network.named_parameters():
            parameter += rng.normal(0, 0.3, parameter.shape)
    torchs = torch_dcgan.copy_of(game.g), torch_dcgan.copy_of(game.d)
    inputs, seen = [], []
    for i in range(1, steps + 1):
        drawn = game.draw([{"images": rng.uniform(-1, 1, (N, C, SIZE, SIZE))}], rng, At(i, 1, steps, steps))
        assert drawn["lr"] == 0.5
        inputs.append(drawn | {"lr": 1e-2})
        seen.append(game.step(**inputs[-1]))
    return game, torchs, inputs, seen


@pytest.mark.parametrize(("targets", "abc"), [("zero-one", (0, 1, 1)), ("pearson", (-1, 1, 0))])
def test_steps_are_torchs(targets, abc):
    a, b, c = abc
    game, (g, d), inputs, seen = played(4, targets=targets)
    opt_g, opt_d = (torch.optim.Adam(network.parameters(), lr=1e-2, betas=(0.7, 0.999)) for network in (g, d))
    for step, numbers in zip(inputs, seen, strict=True):
        opt_d.zero_grad()
        on_real = d(torch.tensor(step["real"]))
        fake = g(torch.tensor(step["z"])[:, :, None, None])
        on_fake = d(fake.detach())
        loss_d = ((on_real - b) ** 2).mean() / 2 + ((on_fake - a) ** 2).mean() / 2
        loss_d.backward()
        opt_d.step()
        opt_g.zero_grad()
        fake.retain_grad()
        again = d(fake)
        loss_g = ((again - c) ** 2).mean() / 2
        loss_g.backward()
        opt_g.step()
        expected = {
            "loss_d": loss_d,
            "loss_g": loss_g,
            "score_real": on_real.mean(),
            "score_fake_before": on_fake.mean(),
            "score_fake_after": again.mean(),
            "gradient_fake": sum(torch.linalg.norm(N * fake.grad[i]) for i in range(N)) / N,
        }
        for name, value in expected.items():
            assert float(getattr(numbers, name)) == pytest.approx(value.item(), rel=1e-9), name
    for ours, theirs in ((game.g, g), (game.d, d)):
        for name, parameter in theirs.named_parameters():
            np.testing.assert_allclose(ours.state_dict()[name], parameter.detach().numpy(), rtol=0, atol=1e-8)


def test_its_scores_are_not_taken_for_probabilities():
    """The health check reads columns d_real and d_fake_after: scores of 1 and 0 are no discriminator that has won."""
    fields = LSGAN.fields()
    assert not {"d_real", "d_fake_after"} & set(fields)
    rows = [(1, step, 0.0, 0.5, 1.0, 0.0, 0.0, 1.0, 0.1) for step in range(1000, 1400)]
    assert len(rows[0]) == len(("epoch", "step", *fields, "seconds"))
    assert Health(("epoch", "step", *fields, "seconds")).check(rows) == []
    dcgans = ("epoch", "step", "loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after", "other", "seconds")
    assert "discriminator is winning outright" in Health(dcgans).check(rows)[0]


def test_a_generated_image_depends_on_its_own_z_alone():
    game, *_ = played(2)
    z = game.fixed([], np.random.default_rng(0))
    images = game.sample(z)
    assert images.shape == (64, C, SIZE, SIZE)
    np.testing.assert_allclose(game.sample(z[3:4]), images[3:4], atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": "hinge"}, "unknown targets 'hinge': use one of zero-one, pearson"),
        ({"image_size": 30}, "a DCGAN cannot .* of 30 pixels.*use 28 or 32"),
    ],
)
def test_wrong_options_get_one_sentence(options, message):
    with pytest.raises(UserError, match=message):
        LSGANOptions(**options)
