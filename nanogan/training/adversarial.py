"""One step of the game: the discriminator learns to tell real from fake, then the generator learns to fool it."""

from typing import NamedTuple

import numpy as np

from nanogan.backend import array_module
from nanogan.ops import bce_with_logits_backward, bce_with_logits_forward
from nanogan.ops.activations import stable_sigmoid

REAL, FAKE = 1.0, 0.0


class StepResult(NamedTuple):
    """What a step saw, each a number on the networks' device; D(.) are means of probabilities.

    loss_d is the sum of D's losses on the real and on the fake batch, as in pytorch/examples.
    """

    loss_d: np.ndarray
    loss_g: np.ndarray
    d_real: np.ndarray  # D(x)
    d_fake_before: np.ndarray  # D(G(z)) before D's update
    d_fake_after: np.ndarray  # D(G(z)) after it


def adversarial_step(g, d, opt_g, opt_d, real, z):
    """Update discriminator ``d`` and generator ``g`` once; the non-saturating loss of the original GAN.

    real (N, C, H, W) from -1 to 1; z (N, latent), drawn anew for every step. ``d`` gives logits. Returns StepResult.
    A backward starts from the gradient of the loss, ``dloss``: 1, or larger where the optimiser scales losses.

        D minimises  -log D(real) - log(1 - D(G(z)))
        G minimises  -log D(G(z))       not log(1 - D(G(z))), whose slope vanishes while D is winning

    Source: I. Goodfellow et al., arXiv:1406.2661, algorithm 1 and section 3; order as in pytorch/examples.
    """
    # ---- D: real -> D -> loss -> D's gradients
    d.zero_grad()
    real_logits, cache = d.forward(real, train=True)
    loss_real, loss_cache = bce_with_logits_forward(real_logits, REAL)
    d.backward(bce_with_logits_backward(opt_d.dloss, loss_cache), cache, need_dx=False)

    # z -> G -> fake; fake -> D -> loss -> D's gradients, added to those of the real batch
    fake, g_cache = g.forward(z, train=True)
    fake_logits, cache = d.forward(fake, train=True)
    loss_fake, loss_cache = bce_with_logits_forward(fake_logits, FAKE)
    d.backward(bce_with_logits_backward(opt_d.dloss, loss_cache), cache, need_dx=False)
    opt_d.step()

    # ---- G: fake -> D -> loss, as if it were real. G has not changed, so ``fake`` and its cache still hold; D has, so
    # the old logits do not. D passes the gradient on to the picture and keeps none for itself.
    g.zero_grad()
    new_logits, cache = d.forward(fake, train=True)
    loss_g, loss_cache = bce_with_logits_forward(new_logits, REAL)
    dfake = d.backward(bce_with_logits_backward(opt_g.dloss, loss_cache), cache, need_dw=False)
    g.backward(dfake, g_cache, need_dx=False)
    opt_g.step()

    return StepResult(
        loss_d=loss_real + loss_fake,
        loss_g=loss_g,
        d_real=stable_sigmoid(real_logits).mean(),
        d_fake_before=stable_sigmoid(fake_logits).mean(),
        d_fake_after=stable_sigmoid(new_logits).mean(),
    )


def sample(g, z, *, batch_size=64):
    """Draw pictures (N, C, H, W), -1 to 1, for z (N, latent), on z's device.

    In eval mode: BatchNorm uses its running statistics, so that a picture depends on its own z alone and not on the
    others of its batch. ``batch_size`` bounds the memory.
    """
    pictures = [g.forward(z[i : i + batch_size], train=False)[0] for i in range(0, len(z), batch_size)]
    return array_module(z).concatenate(pictures)
