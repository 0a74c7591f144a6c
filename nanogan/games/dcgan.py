"""One step of the game: the discriminator learns to tell real from fake, then the generator learns to fool it."""

from typing import NamedTuple

import numpy as np

from nanogan import ops
from nanogan.errors import UserError
from nanogan.games.drawing import with_noise
from nanogan.ops.activations import stable_sigmoid
from nanogan.ops.losses import FAKE, REAL

# Name: D's loss, then G's, each a pair of nanogan.ops that takes logits and a label. D is given REAL for real pictures
# and FAKE for drawn ones; G gives its own the label REAL.
LOSSES = {
    # D: -log p(real) - log(1 - p(fake)), p = sigmoid(logits)      G: -log p(fake)       Goodfellow 2014, section 3
    "bce": (
        (ops.bce_with_logits_forward, ops.bce_with_logits_backward),
        (ops.bce_with_logits_forward, ops.bce_with_logits_backward),
    ),
    # D: the same                                                  G: log(1 - p(fake))   Goodfellow 2014, equation 1
    "saturating": (
        (ops.bce_with_logits_forward, ops.bce_with_logits_backward),
        (ops.saturating_bce_forward, ops.saturating_bce_backward),
    ),
    # D: (D(real) - 1)^2 + D(fake)^2       G: (D(fake) - 1)^2       X. Mao et al., arXiv:1611.04076, equation 9, times 2
    "lsgan": ((ops.mse_forward, ops.mse_backward), (ops.mse_forward, ops.mse_backward)),
    # D: max(0, 1 - D(real)) + max(0, 1 + D(fake))       G: -D(fake)       Lim and Ye 2017, arXiv:1705.02894
    "hinge": ((ops.hinge_forward, ops.hinge_backward), (ops.score_forward, ops.score_backward)),
}


class StepResult(NamedTuple):
    """What a step saw, each a number on the networks' device; D(.) are means of probabilities.

    loss_d is the sum of D's losses on the real and on the fake batch, as in pytorch/examples. With the losses "lsgan"
    and "hinge", whose D gives scores, D(.) are still sigmoids: 0.5 for a score of 0, 0.73 for 1, 0.27 for -1.
    """

    loss_d: np.ndarray
    loss_g: np.ndarray
    d_real: np.ndarray  # D(x)
    d_fake_before: np.ndarray  # D(G(z)) before D's update
    d_fake_after: np.ndarray  # D(G(z)) after it


def adversarial_step(g, d, opt_g, opt_d, real, z, *, loss="bce", label_smoothing=0.0, noise=(None, None)):
    """Update discriminator ``d`` and generator ``g`` once; the non-saturating loss of the original GAN.

    real (N, C, H, W) from -1 to 1; z (N, latent), drawn anew for every step. ``d`` gives logits. Returns StepResult.
    A backward starts from the gradient of the loss, ``dloss``: 1, or larger where the optimiser scales losses.

        D minimises  -log D(real) - log(1 - D(G(z)))
        G minimises  -log D(G(z))       not log(1 - D(G(z))), whose slope vanishes while D is winning

    Source: I. Goodfellow et al., arXiv:1406.2661, algorithm 1 and section 3; order as in pytorch/examples.

    loss: another of LOSSES. label_smoothing: D's label for real pictures is 1 - label_smoothing, those of drawn ones
    and G's stay (one-sided; T. Salimans et al., arXiv:1606.03498, section 3.4). noise: two arrays of the shapes of real
    and drawn pictures, added to them before D sees them (C. Sonderby et al., arXiv:1610.04490).
    """
    (d_loss_forward, d_loss_backward), (g_loss_forward, g_loss_backward) = losses_of(loss, label_smoothing)
    noise_real, noise_fake = noise

    # ---- D: real -> D -> loss -> D's gradients
    d.zero_grad()
    real_logits, cache = d.forward(with_noise(real, noise_real), train=True)
    loss_real, loss_cache = d_loss_forward(real_logits, REAL - label_smoothing)
    d.backward(d_loss_backward(opt_d.dloss, loss_cache), cache, need_dx=False)

    # z -> G -> fake; fake -> D -> loss -> D's gradients, added to those of the real batch
    fake, g_cache = g.forward(z, train=True)
    seen = with_noise(fake, noise_fake)
    fake_logits, cache = d.forward(seen, train=True)
    loss_fake, loss_cache = d_loss_forward(fake_logits, FAKE)
    d.backward(d_loss_backward(opt_d.dloss, loss_cache), cache, need_dx=False)
    opt_d.step()

    # ---- G: fake -> D -> loss, as if it were real. G has not changed, so ``fake`` and its cache still hold; D has, so
    # the old logits do not. D passes the gradient on to the picture and keeps none for itself. Noise was added to the
    # picture, so its slope is 1: the gradient of what D saw is the picture's.
    g.zero_grad()
    new_logits, cache = d.forward(seen, train=True)
    loss_g, loss_cache = g_loss_forward(new_logits, REAL)
    dfake = d.backward(g_loss_backward(opt_g.dloss, loss_cache), cache, need_dw=False)
    g.backward(dfake, g_cache, need_dx=False)
    opt_g.step()

    return StepResult(
        loss_d=loss_real + loss_fake,
        loss_g=loss_g,
        d_real=stable_sigmoid(real_logits).mean(),
        d_fake_before=stable_sigmoid(fake_logits).mean(),
        d_fake_after=stable_sigmoid(new_logits).mean(),
    )


def discriminator_step(g, d, opt_d, real, z, *, loss="bce", label_smoothing=0.0, noise=(None, None)):
    """Update ``d`` alone: the first half of :func:`adversarial_step`, for games in which D learns more often than G.

    As algorithm 1 of the original GAN has it, with a real batch and a z of its own. G's BatchNorm notes the batch too.
    """
    (d_loss_forward, d_loss_backward), _ = losses_of(loss, label_smoothing)
    d.zero_grad()
    fake, _ = g.forward(z, train=True)
    for pictures, added, label in ((real, noise[0], REAL - label_smoothing), (fake, noise[1], FAKE)):
        logits, cache = d.forward(with_noise(pictures, added), train=True)
        _, loss_cache = d_loss_forward(logits, label)
        d.backward(d_loss_backward(opt_d.dloss, loss_cache), cache, need_dx=False)
    opt_d.step()


def losses_of(name, label_smoothing=0.0):
    """Return D's pair and G's pair of :data:`LOSSES`. Raises UserError for other names and values."""
    if name not in LOSSES:
        raise UserError(f"unknown loss {name!r}: use one of {', '.join(LOSSES)}")
    if not 0 <= label_smoothing <= 0.5:
        raise UserError(f"label_smoothing expected a number from 0 to 0.5, got {label_smoothing!r}")
    if name == "hinge" and label_smoothing:
        raise UserError("label_smoothing moves a label, and the hinge loss has none: leave it out, or use another loss")
    return LOSSES[name]
