"""The losses of :mod:`nanogan.ops` as games use them: by the book or by a fast path, as layers do.

    loss, cache = bce_forward(logits, REAL)            what the operation returns, and a cache for this backward
    dlogits = bce_backward(opt.dloss, cache)           of the shape of the logits
    mean_probability(logits)                           mean of sigmoid(logits), for the log

BCE, MSE and so on are the pairs (forward, backward).
"""

import functools

from nanogan import ops
from nanogan.dispatch import dispatch, run
from nanogan.ops.losses import FAKE, REAL


def _dispatched(forward, backward):
    """Return a forward and a backward that leave to :func:`dispatch` which code computes."""

    @functools.wraps(forward)
    def run_forward(x, *args, **options):
        return dispatch(forward, backward, x, *args, **options)

    @functools.wraps(backward)
    def run_backward(dy, cache):
        chosen, cache = cache
        return chosen(dy, cache)

    return run_forward, run_backward


BCE = bce_forward, bce_backward = _dispatched(ops.bce_with_logits_forward, ops.bce_with_logits_backward)
SATURATING_BCE = saturating_bce_forward, saturating_bce_backward = _dispatched(
    ops.saturating_bce_forward, ops.saturating_bce_backward
)
MSE = mse_forward, mse_backward = _dispatched(ops.mse_forward, ops.mse_backward)
L1 = l1_forward, l1_backward = _dispatched(ops.l1_forward, ops.l1_backward)
SCORE = score_forward, score_backward = _dispatched(ops.score_forward, ops.score_backward)
HINGE = hinge_forward, hinge_backward = _dispatched(ops.hinge_forward, ops.hinge_backward)


def mean_probability(logits):
    """Return the mean of sigmoid(logits): how real a discriminator finds a batch."""
    return dispatch(ops.mean_probability_forward, ops.mean_probability_backward, logits)[0]


def discriminate(real, fake, d, loss, labels, dloss):
    """Add to the gradients of ``d`` those of its loss on real images, and those of its loss on fake ones.

    Each is a batch of its own for BatchNorm, the real one first. real, fake (N, C, H, W). loss: one of the pairs of
    this module; labels: what the loss wants of the two; dloss: the gradient of both losses. Returns the two losses,
    numbers, and the logits of the two batches, (N, 1) as ``d`` gives them.
    """
    return run(discriminate_by_the_book, real, fake, d, loss, labels, dloss)


def discriminate_by_the_book(real, fake, d, loss, labels, dloss):
    """:func:`discriminate`, the lesson; :mod:`nanogan.fast.cpu.discriminator` has both batches in one pass."""
    loss_forward, loss_backward = loss
    losses, logits = [], []
    for images, label in zip((real, fake), labels, strict=True):
        score, cache = d.forward(images, train=True)
        value, loss_cache = loss_forward(score, label)
        d.backward(loss_backward(dloss, loss_cache), cache, need_dx=False)
        losses.append(value)
        logits.append(score)
    return losses, logits


__all__ = [
    "BCE", "FAKE", "HINGE", "L1", "MSE", "REAL", "SATURATING_BCE", "SCORE", "bce_backward", "bce_forward",
    "discriminate", "hinge_backward", "hinge_forward", "l1_backward", "l1_forward", "mean_probability", "mse_backward",
    "mse_forward", "saturating_bce_backward", "saturating_bce_forward", "score_backward", "score_forward",
]  # fmt: skip
