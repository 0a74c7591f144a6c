"""Wasserstein games on Gaussians in the plane: which modes are found is known, and so is what should be found.

    for moment in play(theory.ring(8), bound="penalty", steps=2000, every=200): moment.points, moment.slope

The steps are those of :mod:`nanogan.games.wgan` and :mod:`nanogan.games.wgan_gp`, on points (N, 2) in place of images,
with fully connected networks. Source: I. Gulrajani et al., arXiv:1704.00028, section 4.1 and figure 1.
"""

import itertools
from typing import NamedTuple

import numpy as np

from nanogan.analysis.theory import Mixture, perceptron
from nanogan.backend import seeded_rng, to_device, to_numpy
from nanogan.errors import UserError
from nanogan.games import wgan, wgan_gp
from nanogan.optim import Adam, RMSprop

BOUNDS = ("penalty", "clip")


def grid(side=5, *, spacing=1.0, std=0.1):
    """Return a Mixture of side x side equal Gaussians on a square grid round 0; the authors' have 5 x 5."""
    places = (np.arange(side) - (side - 1) / 2) * spacing
    means = np.array(list(itertools.product(places, places)))
    return Mixture(means, np.full(len(means), std), np.full(len(means), 1 / len(means)))


class Moment(NamedTuple):
    """Where a game stands after a step of G; numbers are those of the critic's last update."""

    step: int
    points: np.ndarray  # of G, (count, 2)
    wasserstein: float
    slope: float | None  # between real and generated points; None with clipped weights


def play(
    mixture,
    *,
    bound,
    steps,
    every,
    count=2000,
    latent=2,
    width=64,
    batch_size=128,
    n_critic=5,
    lr=1e-3,
    penalty=0.1,
    clip=0.01,
    seed=0,
    device="cpu",
    progress=None,
):
    """Play a Wasserstein game on ``mixture`` and yield a Moment every ``every`` steps of G, and at the end.

    bound: "penalty", with its weight ``penalty``, the authors' 0.1, and Adam's betas (0.5, 0.9); or "clip", to -clip
    ... clip, with RMSprop. lr falls linearly to 0, so that the points come to rest. G and D have three hidden layers of
    ``width``; z ~ N(0, 1). The same ``seed`` starts from the same networks and draws the same points, whatever the
    other options. ``progress`` wraps the steps (tqdm).
    """
    if bound not in BOUNDS:
        raise UserError(f"bound expected one of {', '.join(BOUNDS)}, got {bound!r}")
    rng = seeded_rng(seed, "weights")
    g = perceptron(latent, *3 * (width,), 2, rng=rng).to(device)
    d = perceptron(2, *3 * (width,), 1, rng=rng).to(device)
    if bound == "penalty":
        opt_g, opt_d = (Adam(network, lr=lr, betas=(0.5, 0.9)) for network in (g, d))
    else:
        opt_g, opt_d = RMSprop(g, lr=lr), RMSprop(d, lr=lr, weight_clip=clip)
    rngs = {name: seeded_rng(seed, name) for name in ("points", "z", "shares", "shown")}

    def z(name, size):
        return to_device(rngs[name].standard_normal((size, latent), dtype=np.float32), device)

    shown = z("shown", count)
    for step in (progress or iter)(range(1, steps + 1)):
        opt_g.lr = opt_d.lr = lr * (1 - (step - 1) / steps)
        for _ in range(n_critic):
            real = to_device(mixture.sample(rngs["points"], batch_size), device)
            fake, g_cache = g.forward(z("z", batch_size))
            if bound == "penalty":
                e = wgan_gp.draw_shares(rngs["shares"], batch_size, device).reshape(batch_size, 1)
                _, distance, _, slope = wgan_gp.critic_step(d, opt_d, real, fake, e, weight=penalty)
            else:
                (_, distance), slope = wgan.critic_step(d, opt_d, real, fake), None
        wgan.generator_step(g, d, opt_g, fake, g_cache)
        if step % every == 0 or step == steps:
            points, _ = g.forward(shown)
            yield Moment(step, to_numpy(points), float(distance), None if slope is None else float(slope))
