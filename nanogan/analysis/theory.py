"""The theory of GANs where everything is known: densities in one and two dimensions, played for by small networks.

With the generator G fixed, whose pictures have density q, the discriminator that minimises its loss on data of density
p is D* = p / (p + q); its loss is then 2 log 2 - 2 JSD(p, q). So G's best is q = p, where D* is 1/2 everywhere.
Source: I. Goodfellow et al., arXiv:1406.2661, section 4.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nanogan.backend import seeded_rng, to_device, to_numpy
from nanogan.errors import UserError
from nanogan.images.plots import COLOURS, FAINT, INK, PAPER
from nanogan.layers import LeakyReLU, Linear, Sequential
from nanogan.ops import bce_with_logits_backward, bce_with_logits_forward
from nanogan.ops.activations import stable_sigmoid
from nanogan.ops.losses import FAKE, REAL
from nanogan.optim import Adam


@dataclass(frozen=True)
class Mixture:
    """Gaussians of equal width in all directions. means (K, dimensions), stds (K,), shares (K,) that sum to 1."""

    means: np.ndarray
    stds: np.ndarray
    shares: np.ndarray

    def density(self, x):
        """Return the density (N,) at points x (N, dimensions)."""
        squares = ((x[:, None, :] - self.means) ** 2).sum(axis=2)  # (N, K)
        heights = self.shares / (2 * np.pi * self.stds**2) ** (self.means.shape[1] / 2)
        return (heights * np.exp(-squares / (2 * self.stds**2))).sum(axis=1)

    def sample(self, rng, count):
        """Draw ``count`` points, float32 (count, dimensions)."""
        which = rng.choice(len(self.shares), count, p=self.shares)
        noise = rng.standard_normal((count, self.means.shape[1]))
        return (self.means[which] + self.stds[which, None] * noise).astype(np.float32)


def ring(modes=8, *, radius=2.0, std=0.05):
    """Return a Mixture of ``modes`` equal Gaussians on a circle in the plane, as L. Metz et al., arXiv:1611.02163."""
    angles = 2 * np.pi * np.arange(modes) / modes
    means = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Mixture(means, np.full(modes, std), np.full(modes, 1 / modes))


def optimal_discriminator(p, q):
    """Return D* = p / (p + q) for densities at the same points; 1/2 where both are 0, where D is never asked."""
    total = np.asarray(p, float) + q
    return np.where(total > 0, p / np.where(total > 0, total, 1), 0.5)


def jensen_shannon(p, q):
    """Return JSD(p, q) in nats, 0 (equal) to log 2 (nowhere both), of probabilities (K,) that each sum to 1.

    JSD(p, q) = KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2
    """
    p, q = np.asarray(p, float), np.asarray(q, float)
    for each in (p, q):
        if each.shape != p.shape or (each < 0).any() or not np.isclose(each.sum(), 1, atol=1e-3):
            raise UserError("jensen_shannon expected two equally long lists of probabilities that each sum to 1")
    m = (p + q) / 2
    halves = [(a[a > 0] * np.log(a[a > 0] / m[a > 0])).sum() for a in (p, q)]
    return float(sum(halves) / 2)


def histogram(points, edges):
    """Return the share of ``points`` (N, 1) in each bin between ``edges`` (K + 1,); the end bins take those outside."""
    inside = np.clip(points[:, 0], edges[0], edges[-1])
    return np.histogram(inside, edges)[0] / len(points)


def modes_found(points, mixture, *, within=3.0, least=0.25):
    """Return how many of ``mixture``'s modes are drawn, and the share of ``points`` (N, dimensions) near any mode.

    Near is within ``within`` standard deviations. A mode is drawn if it has at least ``least`` of its share of points:
    one that gets only strays has been lost.
    """
    distances = np.sqrt(((points[:, None, :] - mixture.means) ** 2).sum(axis=2)) / mixture.stds  # (N, K)
    near = distances.min(axis=1) <= within
    counts = np.bincount(distances.argmin(axis=1)[near], minlength=len(mixture.means))
    return int((counts >= least * mixture.shares * len(points)).sum()), float(near.mean())


def perceptron(*sizes, rng):
    """Return linear layers from ``sizes``[0] to ``sizes``[-1] numbers with LeakyReLU 0.2 between them."""
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [Linear(inputs, outputs, rng=rng), LeakyReLU(negative_slope=0.2)]
    return Sequential(*layers[:-1])


# ------------------------------------------------------------------------------------------------- the game itself


def discriminator_step(d, optimizer, real, fake):
    """Update D once against points ``real`` and ``fake`` (N, dimensions); return its loss, the sum of both halves."""
    d.zero_grad()
    loss = 0.0
    for points, target in ((real, REAL), (fake, FAKE)):
        logits, cache = d.forward(points)
        part, loss_cache = bce_with_logits_forward(logits, target)
        d.backward(bce_with_logits_backward(1.0, loss_cache), cache, need_dx=False)
        loss = loss + part
    optimizer.step()
    return loss


def generator_backward(g, d, z, *, saturating=False):
    """Set G's gradients to those of its loss on z (N, latent), D as it is; return D's logits (N, 1).

        non-saturating   -log D(G(z))        slope along D's logit:  D - 1   about -1 while D is winning
        saturating       log(1 - D(G(z)))                            -D      about 0 then: G learns nothing

    The second is the game's own loss, the first what is used. Source: arXiv:1406.2661, section 3.
    """
    g.zero_grad()
    fake, g_cache = g.forward(z)
    logits, cache = d.forward(fake)
    # log(1 - D) is minus D's own loss on what is fake
    _, loss_cache = bce_with_logits_forward(logits, FAKE if saturating else REAL)
    dlogits = bce_with_logits_backward(-1.0 if saturating else 1.0, loss_cache)
    g.backward(d.backward(dlogits, cache, need_dw=False), g_cache, need_dx=False)
    return logits


def gradient_norm(network):
    """Return the length of all of a network's gradients as one vector."""
    return float(sum(float((gradient * gradient).sum()) for _, _, gradient in network.named_parameters())) ** 0.5


class Moment(NamedTuple):
    """Where a game stands. ``probabilities`` is D at the points that were asked for, NumPy (N,)."""

    step: int
    points: np.ndarray  # drawn by G, (count, dimensions)
    probabilities: np.ndarray
    loss_d: float


def play(
    mixture,
    *,
    steps,
    every,
    look_at,
    count=2000,
    latent=2,
    width=64,
    batch_size=256,
    d_steps=1,
    lr=1e-3,
    betas=(0.5, 0.999),
    saturating=False,
    seed=0,
    device="cpu",
    progress=None,
):
    """Play the game on ``mixture`` and yield a Moment at the start, every ``every`` steps, and at the end.

    G and D are perceptrons with two hidden layers of ``width``; z ~ N(0, 1). D makes ``d_steps`` steps for each one of
    G. ``look_at`` (N, dimensions): where to ask D. ``count`` points are drawn for a Moment, always from the same z. The
    same ``seed`` starts from the same networks whatever the other options. ``progress`` wraps the steps (tqdm).
    """
    dimensions, rng = mixture.means.shape[1], seeded_rng(seed, "weights")
    g = perceptron(latent, width, width, dimensions, rng=rng).to(device)
    d = perceptron(dimensions, width, width, 1, rng=rng).to(device)
    opt_g, opt_d = Adam(g, lr=lr, betas=betas), Adam(d, lr=lr, betas=betas)
    rng, fixed = seeded_rng(seed, "game"), seeded_rng(seed, "fixed noise")

    def noise(rng, size):
        return to_device(rng.standard_normal((size, latent), dtype=np.float32), device)

    fixed_z, asked = noise(fixed, count), to_device(np.asarray(look_at, np.float32), device)

    def moment(step, loss):
        points, _ = g.forward(fixed_z)
        logits, _ = d.forward(asked)
        return Moment(step, to_numpy(points), to_numpy(stable_sigmoid(logits))[:, 0], float(loss))

    yield moment(0, 2 * np.log(2))
    for step in (progress or iter)(range(1, steps + 1)):
        for _ in range(d_steps):
            real = to_device(mixture.sample(rng, batch_size), device)
            fake, _ = g.forward(noise(rng, batch_size))
            loss = discriminator_step(d, opt_d, real, fake)
        generator_backward(g, d, noise(rng, batch_size), saturating=saturating)
        opt_g.step()
        if step % every == 0 or step == steps:
            yield moment(step, loss)


def fit_discriminator(p, q, *, steps, look_at, width=64, batch_size=1024, lr=3e-3, seed=0, device="cpu", progress=None):
    """Train D between two fixed Mixtures; return its probabilities (N,) at ``look_at`` (N, dimensions) and its loss.

    The loss is the mean of the last tenth of the steps: an estimate of 2 log 2 - 2 JSD(p, q). The learning rate falls
    linearly to 0, so that D comes to rest.
    """
    d = perceptron(p.means.shape[1], width, width, 1, rng=seeded_rng(seed, "weights")).to(device)
    optimizer, rng, losses = Adam(d, lr=lr), seeded_rng(seed, "pairs"), []
    for step in (progress or iter)(range(steps)):
        optimizer.lr = lr * (1 - step / steps)
        real, fake = (to_device(each.sample(rng, batch_size), device) for each in (p, q))
        losses.append(discriminator_step(d, optimizer, real, fake))
    logits, _ = d.forward(to_device(np.asarray(look_at, np.float32), device))
    last = losses[-max(1, steps // 10) :]
    return to_numpy(stable_sigmoid(logits))[:, 0], float(sum(last)) / len(last)


def slopes_while_d_wins(mixture, *, steps, every, width=64, batch_size=256, lr=1e-3, seed=0, device="cpu"):
    """Train D against an untrained G and return how steep G's two losses are meanwhile.

    Three arrays (moments,): D's steps, and the norm of G's gradient of the saturating and the non-saturating loss.
    """
    dimensions, rng = mixture.means.shape[1], seeded_rng(seed, "weights")
    g = perceptron(2, width, width, dimensions, rng=rng).to(device)
    d = perceptron(dimensions, width, width, 1, rng=rng).to(device)
    optimizer, rng, rows = Adam(d, lr=lr, betas=(0.5, 0.999)), seeded_rng(seed, "slopes"), []
    for step in range(steps + 1):
        z = to_device(rng.standard_normal((batch_size, 2), dtype=np.float32), device)
        if step % every == 0:
            norms = []
            for saturating in (True, False):
                generator_backward(g, d, z, saturating=saturating)
                norms.append(gradient_norm(g))
            rows.append((step, *norms))
        fake, _ = g.forward(z)
        discriminator_step(d, optimizer, to_device(mixture.sample(rng, batch_size), device), fake)
    return tuple(np.array(column) for column in zip(*rows, strict=True))


# ------------------------------------------------------------------------------------------------------- pictures

SIDE = 300  # pixels of a panel


def draw_line(moment, mixture, edges):
    """Draw a game on the line: p and G's histogram filled, D* dotted, D as a line. uint8 (SIDE, SIDE, 3).

    ``moment.probabilities`` is D at the middles of the bins between ``edges`` (K + 1,).
    """
    sheet, draw, font = _sheet()
    middles, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    p, q = mixture.density(middles[:, None]), histogram(moment.points, edges) / width
    across = (middles - edges[0]) / (edges[-1] - edges[0]) * SIDE

    def up(values, top):
        return SIDE - 24 - np.clip(values / top, 0, 1) * (SIDE - 70)

    top = 1.6 * p.max()
    for values, colour in ((p, COLOURS[0]), (q, COLOURS[1])):
        line = list(zip(across.tolist(), up(values, top).tolist(), strict=True))
        draw.line([(across[0], SIDE - 24), *line, (across[-1], SIDE - 24)], colour, 2)
    best = up(optimal_discriminator(p, q), 1)
    for x, y in zip(across.tolist(), best.tolist(), strict=True):
        draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), INK)
    draw.line(list(zip(across.tolist(), up(moment.probabilities, 1).tolist(), strict=True)), COLOURS[2], 2)
    draw.line((0, up(0.5, 1), SIDE, up(0.5, 1)), FAINT)
    _legend(draw, font, (("data", COLOURS[0]), ("drawn", COLOURS[1]), ("D*", INK), ("D", COLOURS[2])))
    jsd = jensen_shannon(p / p.sum(), q / q.sum())
    draw.text((6, SIDE - 6), f"step {moment.step}: JSD {jsd:.3f}", INK, font, anchor="ls")
    return np.asarray(sheet)


def draw_plane(moment, mixture, label, *, reach=3.2):
    """Draw a game in the plane, -reach to reach: circles of 3 standard deviations, points; uint8 (SIDE, SIDE, 3)."""
    sheet, draw, font = _sheet()
    place = lambda points: SIDE / 2 + points * [1, -1] * SIDE / (2 * reach)  # noqa: E731
    for (x, y), std in zip(place(mixture.means).tolist(), mixture.stds, strict=True):
        r = 3 * float(std) * SIDE / (2 * reach)
        draw.ellipse((x - r, y - r, x + r, y + r), outline=COLOURS[0])
    for x, y in place(moment.points).tolist():
        draw.ellipse((x - 1, y - 1, x + 1, y + 1), COLOURS[1])
    _legend(draw, font, ((label, COLOURS[1]),))
    found, near = modes_found(moment.points, mixture)
    text = f"step {moment.step}: {found} of {len(mixture.means)} modes, {near:.0%} near one"
    draw.text((6, SIDE - 6), text, INK, font, anchor="ls")
    return np.asarray(sheet)


def _sheet():
    sheet = Image.new("RGB", (SIDE, SIDE), PAPER)
    return sheet, ImageDraw.Draw(sheet), ImageFont.load_default()


def _legend(draw, font, entries):
    across = 6
    for label, colour in entries:
        draw.line((across, 12, across + 14, 12), colour, 3)
        draw.text((across + 18, 12), label, INK, font, anchor="lm")
        across += 32 + draw.textlength(label, font)
