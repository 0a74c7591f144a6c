"""The Wasserstein GAN: a critic that scores images, kept from rising too steeply by clipping its weights.

    D minimises  mean D(G(z)) - mean D(x)        then every weight of D is clipped to -c ... c
    G minimises  -mean D(G(z))

D is a critic: there is no sigmoid, and a score is no probability. The largest mean D(x) - mean D(G(z)) that a function
with a slope of at most 1 reaches is the Wasserstein-1 distance of real and generated images. It falls as G improves;
the losses of other GANs say little. Clipped weights bound D's slope by some unknown number in place of 1, so the
estimate is right up to a factor. :mod:`nanogan.games.wgan_gp` bounds it by a penalty: lay the two side by side, the
critic's step is what differs.

M. Arjovsky, S. Chintala, L. Bottou, arXiv:1701.07875, algorithm 1. The authors' code updates D 100 times in each of the
first 25 steps of G and in every 500th; here it is always n_critic.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nanogan.backend import get_device, matmul_precision, seeded_rng
from nanogan.games.dcgan import contradicting
from nanogan.games.from_z import FromZ
from nanogan.games.game import Options, lr_decay_option, lr_factor, option
from nanogan.layers.losses import FAKE, REAL, score_backward, score_forward
from nanogan.models import dcgan, wgan
from nanogan.optim import RMSprop


class StepResult(NamedTuple):
    """What a step saw, each a number on the networks' device; D's are those of its last update, before it."""

    loss_d: np.ndarray
    loss_g: np.ndarray
    wasserstein: np.ndarray  # mean D(x) - mean D(G(z)), the distance times D's largest slope


def critic_step(d, opt_d, real, fake):
    """Update the critic ``d`` once, whose optimiser clips its weights; return its loss and the Wasserstein estimate."""
    # ---- D: real images are to score high ...
    d.zero_grad()
    real_scores, cache = d.forward(real)
    loss_real, loss_cache = score_forward(real_scores, REAL)  # -mean D(x)
    d.backward(score_backward(opt_d.dloss, loss_cache), cache, need_dx=False)

    # ... and generated ones low
    fake_scores, cache = d.forward(fake)
    loss_fake, loss_cache = score_forward(fake_scores, FAKE)  # mean D(G(z))
    d.backward(score_backward(opt_d.dloss, loss_cache), cache, need_dx=False)
    opt_d.step()
    return loss_real + loss_fake, -(loss_real + loss_fake)


def generator_step(g, d, opt_g, fake, g_cache):
    """Update ``g`` once, so that its images ``fake``, of the cache ``g_cache``, score higher; return its loss."""
    # ---- G: fake -> D -> score. D passes the gradient on to the image and keeps none for itself.
    g.zero_grad()
    scores, cache = d.forward(fake)
    loss, loss_cache = score_forward(scores, REAL)  # -mean D(G(z))
    dfake = d.backward(score_backward(opt_g.dloss, loss_cache), cache, need_dw=False)
    g.backward(dfake, g_cache, need_dx=False)
    opt_g.step()
    return loss


@dataclass(frozen=True)
class WGANOptions(Options):
    """The options of the WGAN, which are its flags."""

    image_size: int = option(28, "pixels: 28, 32, 64, 128, ...", low=1, high=1_000_000)
    latent: int = option(100, "elements of z", low=1, high=1_000_000)
    width: int = option(64, "channels of the largest map", low=1, high=1_000_000)
    critic: str = option(
        "dcgan",
        "dcgan: with BatchNorm, as the authors have it; plain: WGAN-GP's, without it",
        choices=("dcgan", "plain"),
    )
    lr: float = option(5e-5, "RMSprop's learning rate", above=0, may_change=True)
    clip: float = option(0.01, "largest weight of D, which is clipped to -C ... C", above=0, high=1e6, metavar="C")
    n_critic: int = option(5, "updates of D, a batch each, for every one of G", low=1, high=1000, metavar="N")
    lr_decay: str = lr_decay_option()

    def __post_init__(self):
        super().__post_init__()
        dcgan.plan(self.image_size)


class WGAN(FromZ):
    """A DCGAN's generator and a critic.

    shapes: {"images": (C, H, H), ...}. Attributes: g, d (the critic), opt_g, opt_d.
    """

    Options = WGANOptions
    exports = {"generator.safetensors": "g", "critic.safetensors": "d"}
    curves = {"Wasserstein estimate, D(x) - D(G(z))": ("wasserstein",)}
    labels = {"loss_d": "Loss_D", "loss_g": "Loss_G"}

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        C, size, _ = shapes["images"]
        self.options, self.device, self.dtype = options, get_device(device), dtype
        self.batches = self.batches_of(options)
        rng = seeded_rng(seed, "weights")
        shape = {"image_size": size, "channels": C, "width": options.width, "rng": rng, "dtype": dtype}
        self.g = dcgan.generator(latent=options.latent, **shape).to(self.device)
        make_critic = wgan.critic if options.critic == "plain" else dcgan.discriminator
        self.d = make_critic(**shape).to(self.device)
        settings = {"lr": options.lr, "loss_scaling": matmul_precision() == "fp16"}
        self.opt_g, self.opt_d = RMSprop(self.g, **settings), RMSprop(self.d, weight_clip=options.clip, **settings)

    @classmethod
    def batches_of(cls, options):
        return options.n_critic

    def draw(self, batches, rng, at):
        reals = [batch["images"] for batch in batches]
        return {
            "reals": reals,
            "zs": [self.draw_z(rng, len(real)) for real in reals],
            "lr": self.options.lr * lr_factor(self.options, at),
        }

    def step(self, reals, zs, lr) -> StepResult:
        self.opt_g.lr = self.opt_d.lr = lr
        for real, z in zip(reals, zs, strict=True):
            fake, g_cache = self.g.forward(z)
            loss_d, wasserstein = critic_step(self.d, self.opt_d, real, fake)
        # G has not changed since it made the last batch: its images and their cache serve once more
        loss_g = generator_step(self.g, self.d, self.opt_g, fake, g_cache)
        return StepResult(loss_d, loss_g, wasserstein)

    def objectives(self, seen):
        return {"opt_d": seen.loss_d, "opt_g": seen.loss_g}

    @classmethod
    def contradiction(cls, options, arrays):
        return contradicting(dcgan.options_of, vars(options), arrays, ("image_size", "latent", "width"))


_TINY = {"latent": 3, "width": 2}
EXAMPLES = {  # name: (class, options, shapes), what gradcheck plays
    "WGAN": (WGAN, _TINY | {"n_critic": 2}, {"images": (1, 12, 12)}),
    "WGAN, plain": (WGAN, _TINY | {"critic": "plain", "n_critic": 1, "lr_decay": "linear"}, {"images": (2, 8, 8)}),
}
