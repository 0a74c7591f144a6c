"""What is left of G's gradient when one network has won: for each of three losses of G, on the same networks.

The gradient of G's loss is its slope along D's output, dl / ds, carried back through D and G. The slope depends on the
output s (a logit, or LSGAN's score) alone:

    saturating        log(1 - sigmoid(s))       -sigmoid(s)       gone where D is sure of a fake, s << 0
    non-saturating    -log sigmoid(s)           -sigmoid(-s)      gone where a fake passes for real beyond doubt, s >> 0
    least squares     (s - 1)^2 / 2             s - 1             gone at s = 1 alone

Sources: I. Goodfellow et al., arXiv:1406.2661, section 3; X. Mao et al., arXiv:1611.04076, section 3 and figure 1. The
experiment with D trained alone beside a fixed G: M. Arjovsky, L. Bottou, arXiv:1701.04862, figures 2 and 3.
"""

import itertools
from typing import NamedTuple

import numpy as np

from nanogan import ops
from nanogan.backend import to_numpy
from nanogan.errors import UserError
from nanogan.games.dcgan import discriminator_step
from nanogan.ops.losses import REAL

LOSSES = {  # of G: a forward, its backward, and the factor of both
    "saturating": (ops.saturating_bce_forward, ops.saturating_bce_backward, 1.0),
    "non-saturating": (ops.bce_with_logits_forward, ops.bce_with_logits_backward, 1.0),
    "least squares": (ops.mse_forward, ops.mse_backward, 0.5),
}


class Moment(NamedTuple):
    step: int
    score: float  # D(G(z)), the mean of D's output: logits, or LSGAN's scores
    gradients: dict  # {name of a loss of G: Euclidean norm of its gradient in G's parameters}


def slopes(scores):
    """Return {name of a loss of G: its slope at each of ``scores`` (K,)}, each the loss of one image."""
    found = {}
    for name, (forward, backward, factor) in LOSSES.items():
        _, cache = forward(scores, REAL, reduction="sum")
        found[name] = backward(factor, cache)
    return found


def look(g, d, z, step=0):
    """Return the :class:`Moment` of G and D at z. Leaves both as they are, but for G's gradients and BatchNorm's notes.

    Both run in train mode, as in a step of a game.
    """
    fake, g_cache = g.forward(z)
    scores, d_cache = d.forward(fake)
    gradients = {}
    for name, (forward, backward, factor) in LOSSES.items():
        _, loss_cache = forward(scores, REAL)
        dfake = d.backward(backward(factor, loss_cache), d_cache, need_dw=False)
        g.zero_grad()
        g.backward(dfake, g_cache, need_dx=False)
        squares = sum((gradient * gradient).sum() for _, _, gradient in g.named_parameters())
        gradients[name] = float(to_numpy(squares)) ** 0.5
    return Moment(step, float(to_numpy(scores.mean())), gradients)


def while_d_learns(g, d, opt_d, batches, z, *, loss="bce", every=10):
    """Train D alone and return the Moments at ``z`` before its first step and after each ``every`` of them.

    batches yields (real, z) for each step. loss: of D, as in :func:`nanogan.games.dcgan.discriminator_step`.
    """
    moments = [look(g, d, z)]
    for step, (real, new_z) in enumerate(batches, start=1):
        discriminator_step(g, d, opt_d, real, new_z, loss=loss)
        if step % every == 0:
            moments.append(look(g, d, z, step))
    return moments


def while_g_learns(g, d, opt_g, zs, z, *, every=10):
    """Train G alone to raise D's output, without a bound, and return the Moments as :func:`while_d_learns`."""
    moments = [look(g, d, z)]
    for step, new_z in enumerate(zs, start=1):
        g.zero_grad()
        fake, g_cache = g.forward(new_z)
        scores, d_cache = d.forward(fake)
        _, loss_cache = ops.score_forward(scores, REAL)  # mean of -s: its slope is the same everywhere
        dfake = d.backward(ops.score_backward(opt_g.dloss, loss_cache), d_cache, need_dw=False)
        g.backward(dfake, g_cache, need_dx=False)
        opt_g.step()
        if step % every == 0:
            moments.append(look(g, d, z, step))
    return moments


def by_score(g, d, z, edges):
    """Return a row for each interval between ``edges`` (K + 1,) of D's outputs of G's images: its share and slopes.

    A row is {"from", "to", "share", name of a loss: mean over the images of the length of its gradient in the image}.
    The interval's losses have no number where no image fell into it. In train mode, one batch.
    """
    if len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise UserError(f"by_score expected at least two edges that rise, got {list(edges)}")
    fake, _ = g.forward(z)
    scores, d_cache = d.forward(fake)
    lengths = {}
    for name, (forward, backward, factor) in LOSSES.items():
        _, loss_cache = forward(scores, REAL, reduction="sum")
        dfake = to_numpy(d.backward(backward(factor, loss_cache), d_cache, need_dw=False))
        lengths[name] = np.sqrt((dfake.reshape(len(dfake), -1) ** 2).sum(axis=1))
    which, rows = np.digitize(to_numpy(scores)[:, 0], edges), []
    for i, (low, high) in enumerate(itertools.pairwise(edges), start=1):
        inside = which == i
        row = {"from": float(low), "to": float(high), "share": float(inside.mean())}
        if inside.any():
            row |= {name: float(each[inside].mean()) for name, each in lengths.items()}
        rows.append(row)
    return rows
