"""The Wasserstein GAN with gradient penalty: a critic whose slope is held near 1 by its loss.

    D minimises  mean D(G(z)) - mean D(x) + 10 * mean of (||slope of D|| - 1)^2 between x and G(z)
    G minimises  -mean D(G(z))

The game is that of :mod:`nanogan.games.wgan` without the clipping of weights; lay the two side by side, the critic's
step is what differs. :func:`gradient_penalty` is what is new: a second derivative, without autograd.

I. Gulrajani et al., arXiv:1704.00028, algorithm 1; https://github.com/igul222/improved_wgan_training has beta1 = 0.5
where the paper has 0. G's batch is the last of D's, where the authors draw another z.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nanogan.backend import array_module, channels_last, get_device, matmul_precision, seeded_rng, to_device
from nanogan.games.game import Options, lr_decay_option, option
from nanogan.games.wgan import WGAN, generator_step
from nanogan.layers.losses import FAKE, REAL, mse_backward, mse_forward, score_backward, score_forward
from nanogan.models import dcgan, wgan
from nanogan.optim import Adam


class StepResult(NamedTuple):
    """What a step saw, each a number on the networks' device; D's are those of its last update, before it.

    loss_d is all that D minimises, the weighted penalty included.
    """

    loss_d: np.ndarray
    loss_g: np.ndarray
    wasserstein: np.ndarray  # mean D(x) - mean D(G(z))
    penalty: np.ndarray  # without its weight
    gradient_norm: np.ndarray  # mean over the images between real and fake


def gradient_penalty(d, x, *, weight, dloss=1.0):
    """Add to D's gradients those of the gradient penalty at x (N, ...); return the penalty and the mean slope.

        penalty = mean over n of (||g[n]|| - 1)^2,   g[n] = d D(x[n]) / d x[n],   ||.|| over all axes of an image

    The loss has weight * penalty, and ``dloss`` is where its backward starts. Raises UserError if a layer of D has no
    tangent.

    **The problem.** g comes from a backward through D. The penalty's gradient along D's weights w is a derivative of
    that backward, and a framework would differentiate the backward's own graph. By hand, three thoughts make an
    ordinary backward of it:

    1. *The norm.* Let u = g / ||g||, so that ||g|| = <u, g>. When w changes, d||g|| = <du, g> + <u, dg>. The first term
       is 0: u keeps the length 1, so du is at right angles to u, and to g. Hence **u may be held constant**; what is
       needed is the derivative of <u, g> along w.
    2. *The tangent.* <u, g> is how fast D's score rises as x moves along u: t = d/ds D(x + s u) at s = 0. That takes no
       backward. Pushed forward through D's layers, u becomes W v in a convolution or linear layer with weights W, whose
       bias drops out, and mask * v in LeakyReLU, with the mask that x has there. This is ``d.tangent``.
    3. *The backward of the tangent.* So t is the output of a network: D's weights, no biases, x's masks, input u. Its
       ordinary backward, from dt[n] = 2 (t[n] - 1) / N, is the gradient of the penalty. In a layer whose input was v
       and whose output's gradient is dy, dw comes of dy and v, where it usually comes of dy and x. Biases get zero.

    D is walked through four times: forward, backward, tangent, tangent's backward. The masks are held constant, as in
    autograd: where one flips, the penalty jumps, and has no derivative. A curved layer (tanh, a normalisation) would
    add the change of its own slope, which step 2 leaves out: such layers have no tangent here. Where g = 0, ||g|| has
    no derivative; u is 0 then, and so is that image's part of the gradient.
    """
    xp = array_module(x)
    # ---- 1: the scores at x. The cache holds the masks, and serves twice.
    scores, cache = d.forward(x)
    # ---- 2: each score's gradient along its own image. From ones, not from 1/N: a sum of scores that do not depend on
    # each other's images. No dw: this backward is a means, not a gradient of D's loss.
    g = d.backward(xp.ones_like(scores), cache, need_dw=False)  # (N, C, H, W)
    norm = xp.sqrt((g * g).sum(axis=tuple(range(1, g.ndim)), keepdims=True))  # (N, 1, 1, 1)
    u = g / (norm + (norm == 0))  # 0 / 1 where there is no direction
    # ---- 3: the slope of D along u, which is ||g||; now as the output of a network
    slope, tangent_cache = d.tangent(u, cache)  # (N, 1)
    # ---- 4: a loss of this output, and its backward
    penalty, loss_cache = mse_forward(slope, 1.0)
    d.backward(mse_backward(weight * dloss, loss_cache), tangent_cache, need_dx=False)
    return penalty, slope.mean()


def critic_step(d, opt_d, real, fake, e, *, weight):
    """Update the critic ``d`` once; return its loss, the Wasserstein estimate, the penalty and the mean slope.

    e (N, 1, 1, 1) from U(0, 1): one number for each pair of images, not one for each pixel. The best critic has slope 1
    on the lines between the real and generated images that belong together (section 2, proposition 1), and nobody knows
    which do: so slope 1 is asked for on lines between random pairs.
    """
    # ---- D: real images are to score high ...
    d.zero_grad()
    real_scores, cache = d.forward(real)
    loss_real, loss_cache = score_forward(real_scores, REAL)  # -mean D(x)
    d.backward(score_backward(opt_d.dloss, loss_cache), cache, need_dx=False)

    # ... generated ones low ...
    fake_scores, cache = d.forward(fake)
    loss_fake, loss_cache = score_forward(fake_scores, FAKE)  # mean D(G(z))
    d.backward(score_backward(opt_d.dloss, loss_cache), cache, need_dx=False)

    # ... and the way from one to the other is to rise with slope 1
    between = channels_last(e * real + (1 - e) * fake)  # CuPy's sums come in another order
    penalty, slope = gradient_penalty(d, between, weight=weight, dloss=opt_d.dloss)
    opt_d.step()
    return loss_real + loss_fake + weight * penalty, -(loss_real + loss_fake), penalty, slope


@dataclass(frozen=True)
class WGANGPOptions(Options):
    """The options of the WGAN-GP, which are its flags."""

    image_size: int = option(28, "pixels: 28, 32, 64, 128, ...", low=1, high=1_000_000)
    latent: int = option(100, "elements of z", low=1, high=1_000_000)
    width: int = option(64, "channels of the largest map", low=1, high=1_000_000)
    lr: float = option(1e-4, "Adam's learning rate", above=0, may_change=True)
    beta1: float = option(0.5, "Adam's first beta: the authors' code has 0.5, the paper 0", low=0, high=0.999)
    beta2: float = option(0.9, "Adam's second beta", low=0, high=0.99999)
    penalty: float = option(10.0, "weight of the gradient penalty, the paper's lambda", low=0, high=1e6)
    n_critic: int = option(5, "updates of D, a batch each, for every one of G", low=1, high=1000, metavar="N")
    lr_decay: str = lr_decay_option()

    def __post_init__(self):
        super().__post_init__()
        dcgan.plan(self.image_size)


class WGANGP(WGAN):
    """A DCGAN's generator and a critic without normalisation.

    shapes: {"images": (C, H, H), ...}. Attributes: g, d (the critic), opt_g, opt_d.
    """

    Options = WGANGPOptions
    curves = WGAN.curves | {"D's slope between real and fake": ("gradient_norm",)}

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        C, size, _ = shapes["images"]
        self.options, self.device, self.dtype = options, get_device(device), dtype
        self.batches = self.batches_of(options)
        rng = seeded_rng(seed, "weights")
        shape = {"image_size": size, "channels": C, "width": options.width, "rng": rng, "dtype": dtype}
        self.g = dcgan.generator(latent=options.latent, **shape).to(self.device)
        self.d = wgan.critic(**shape).to(self.device)
        settings = {"lr": options.lr, "betas": (options.beta1, options.beta2)}
        settings["loss_scaling"] = matmul_precision() == "fp16"
        self.opt_g, self.opt_d = Adam(self.g, **settings), Adam(self.d, **settings)

    def draw(self, batches, rng, at):
        drawn = super().draw(batches, rng, at)
        return drawn | {"es": [draw_shares(rng, len(z), self.device, self.dtype) for z in drawn["zs"]]}

    def step(self, reals, zs, es, lr) -> StepResult:
        self.opt_g.lr = self.opt_d.lr = lr
        weight = self.options.penalty
        for real, z, e in zip(reals, zs, es, strict=True):
            fake, g_cache = self.g.forward(z)
            loss_d, wasserstein, penalty, slope = critic_step(self.d, self.opt_d, real, fake, e, weight=weight)
        # G has not changed since it made the last batch: its images and their cache serve once more
        loss_g = generator_step(self.g, self.d, self.opt_g, fake, g_cache)
        return StepResult(loss_d, loss_g, wasserstein, penalty, slope)


def draw_shares(rng, count, device="cpu", dtype=np.float32):
    """Return (count, 1, 1, 1) from U(0, 1) on ``device``: the share of the real image in each mixture."""
    return to_device(rng.random((count, 1, 1, 1), dtype=np.float32).astype(dtype, copy=False), device)


_TINY = {"latent": 3, "width": 2}
EXAMPLES = {  # name: (class, options, shapes), what gradcheck plays
    "WGAN-GP": (WGANGP, _TINY | {"n_critic": 1}, {"images": (2, 8, 8)}),
    "WGAN-GP, n_critic": (
        WGANGP,
        _TINY | {"n_critic": 2, "penalty": 3.0, "lr_decay": "linear"},
        {"images": (1, 12, 12)},
    ),
}
