"""The vanilla GAN: two fully connected networks, and the losses of the first paper.

    D minimises  -log D(x) - log(1 - D(G(z)))
    G minimises  -log D(G(z))               non-saturating, section 3
            or   log(1 - D(G(z)))           saturating, the minimax game of equation 1

Source: I. Goodfellow et al., arXiv:1406.2661. Their D ends in a sigmoid, and their losses are binary cross entropies of
probabilities. Here D gives logits l, and the sigmoid is inside the loss: -log sigmoid(l) = log(1 + e^-l) is exact where
sigmoid(l) has already been rounded to 1.

The slope of G's loss along a logit is -(1 - D) if it does not saturate, and -D if it does. While D wins, D(G(z)) is
next to 0: the first slope is then 1, and the second one is gone. The column ``gradient_fake`` shows what is left of
either once it has gone through D, down to the image; examples/vanishing_gradients.py draws it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nanogan.backend import array_module, get_device, matmul_precision, seeded_rng
from nanogan.games.dcgan import contradicting
from nanogan.games.from_z import FromZ
from nanogan.games.game import Options, lr_decay_option, lr_factor, option
from nanogan.layers.losses import (
    FAKE,
    REAL,
    bce_backward,
    bce_forward,
    mean_probability,
    saturating_bce_backward,
    saturating_bce_forward,
)
from nanogan.models import vanilla
from nanogan.optim import Adam

LOSSES = {  # of G
    "non-saturating": (bce_forward, bce_backward),
    "saturating": (saturating_bce_forward, saturating_bce_backward),
}


class Seen(NamedTuple):
    """What a step saw; D(.) are means of probabilities."""

    loss_d: np.ndarray
    loss_g: np.ndarray
    d_real: np.ndarray  # D(x)
    d_fake_before: np.ndarray  # D(G(z)) before D's update
    d_fake_after: np.ndarray  # D(G(z)) after it
    gradient_fake: np.ndarray  # length of a fake image's gradient of G's loss, the mean over the batch


@dataclass(frozen=True)
class VanillaOptions(Options):
    """The vanilla GAN's options, which are its flags."""

    image_size: int = option(28, "pixels", low=1, high=4096)
    latent: int = option(64, "elements of z", low=1, high=1_000_000)
    hidden: int = option(256, "outputs of each hidden layer", low=1, high=1_000_000)
    lr: float = option(2e-4, "Adam's learning rate", above=0, may_change=True)
    beta1: float = option(0.5, "Adam's first beta", low=0, high=0.999)
    lr_decay: str = lr_decay_option()
    loss: str = option(
        "non-saturating",
        "what G minimises: non-saturating, -log D(G(z)), section 3; saturating, log(1 - D(G(z))), equation 1, whose "
        "gradient vanishes while D wins",
        choices=tuple(LOSSES),
    )


class VanillaGAN(FromZ):
    """shapes: {"images": (C, H, H), ...}. Attributes: g, d, opt_g, opt_d."""

    Options = VanillaOptions
    exports = {"generator.safetensors": "g", "discriminator.safetensors": "d"}
    curves = {
        "losses": ("loss_d", "loss_g"),
        "how real D finds images (1: real, 0: fake)": ("d_real", "d_fake_before"),
        "gradient that reaches a fake image": ("gradient_fake",),
    }
    labels = {"loss_d": "Loss_D", "loss_g": "Loss_G", "d_real": "D(x)", "d_fake_before": "D(G(z)) before D's step"}
    labels |= {"d_fake_after": "after", "gradient_fake": "gradient at G(z)"}

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        self.options, self.device, self.dtype = options, get_device(device), dtype
        C, size, _ = shapes["images"]
        common = {"image_size": size, "channels": C, "hidden": options.hidden}
        common |= {"rng": seeded_rng(seed, "weights"), "dtype": dtype}
        self.g = vanilla.generator(latent=options.latent, **common).to(self.device)
        self.d = vanilla.discriminator(**common).to(self.device)
        settings = {"lr": options.lr, "betas": (options.beta1, 0.999), "loss_scaling": matmul_precision() == "fp16"}
        self.opt_g, self.opt_d = Adam(self.g, **settings), Adam(self.d, **settings)

    def draw(self, batches, rng, at):
        (batch,) = batches
        real = batch["images"]
        lr = self.options.lr * lr_factor(self.options, at)
        return {"real": real, "z": self.draw_z(rng, len(real)), "lr": lr}

    def step(self, real, z, lr) -> Seen:
        self.opt_g.lr = self.opt_d.lr = lr
        g_loss_forward, g_loss_backward = LOSSES[self.options.loss]

        # ---- D: -log D(x) ...
        self.d.zero_grad()
        real_logits, cache = self.d.forward(real)  # (N, 1)
        loss_real, loss_cache = bce_forward(real_logits, REAL)
        self.d.backward(bce_backward(self.opt_d.dloss, loss_cache), cache, need_dx=False)

        # ... - log(1 - D(G(z)))
        fake, g_cache = self.g.forward(z)  # (N, C, H, W)
        fake_logits, cache = self.d.forward(fake)
        loss_fake, loss_cache = bce_forward(fake_logits, FAKE)
        self.d.backward(bce_backward(self.opt_d.dloss, loss_cache), cache, need_dx=False)
        self.opt_d.step()

        # ---- G: -log D(G(z)), or log(1 - D(G(z))), by the updated D
        self.g.zero_grad()
        new_logits, cache = self.d.forward(fake)
        loss_g, loss_cache = g_loss_forward(new_logits, REAL)
        dfake = self.d.backward(g_loss_backward(self.opt_g.dloss, loss_cache), cache, need_dw=False)  # (N, C, H, W)
        self.g.backward(dfake, g_cache, need_dx=False)
        self.opt_g.step()

        return Seen(
            loss_d=loss_real + loss_fake,
            loss_g=loss_g,
            d_real=mean_probability(real_logits),
            d_fake_before=mean_probability(fake_logits),
            d_fake_after=mean_probability(new_logits),
            gradient_fake=mean_length(dfake) / self.opt_g.dloss,
        )

    def objectives(self, seen):
        return {"opt_d": seen.loss_d, "opt_g": seen.loss_g}

    @classmethod
    def contradiction(cls, options, arrays):
        return contradicting(vanilla.options_of, vars(options), arrays, ("image_size", "latent", "hidden"))


def mean_length(dfake):
    """Return the mean over the batch of the Euclidean length of d loss_i / d image_i, a 0-d array.

    dfake (N, C, H, W) is the gradient of the mean of N losses, so each image's is 1 / N of that of its loss.
    """
    xp, N = array_module(dfake), len(dfake)
    return N * xp.sqrt((dfake * dfake).sum(axis=(1, 2, 3))).mean()


_TINY = {"latent": 3, "hidden": 4}
EXAMPLES = {
    "vanilla GAN": (VanillaGAN, _TINY, {"images": (1, 3, 3)}),
    "vanilla GAN, saturating": (VanillaGAN, _TINY | {"loss": "saturating"}, {"images": (2, 3, 3)}),
}
