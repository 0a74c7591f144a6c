"""LSGAN: D's score of an image is pulled to 1 or 0 by its squared distance, where other GANs take a cross entropy.

    D minimises  1/2 mean (D(x) - b)^2 + 1/2 mean (D(G(z)) - a)^2
    G minimises  1/2 mean (D(G(z)) - c)^2

X. Mao et al., arXiv:1611.04076, equation 2; a = 0, b = c = 1 is its equation 9. With b - c = 1 and b - a = 2, as in
equation 8 (a = -1, b = 1, c = 0), G minimises the Pearson chi-square divergence of p + q and 2 q (section 3).

D's score has no sigmoid: it is no probability and may be any number. The slope of G's loss along it is D(G(z)) - c,
which grows with the distance on *both* sides. So G is pulled by a fake that D takes for real beyond doubt, too far on
the right side of the decision boundary, where the slope of -log sigmoid is gone; and by a fake that D rejects beyond
doubt, where the slope of log(1 - sigmoid) is gone. examples/vanishing_gradients.py measures both.

The networks are the DCGAN's (:mod:`nanogan.models.dcgan`), whose D ends in a number without a sigmoid.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nanogan.backend import get_device, matmul_precision, seeded_rng
from nanogan.games.dcgan import contradicting
from nanogan.games.from_z import FromZ
from nanogan.games.game import Options, lr_decay_option, lr_factor, option
from nanogan.games.vanilla import mean_length
from nanogan.layers.losses import mse_backward, mse_forward
from nanogan.models import dcgan
from nanogan.optim import Adam

TARGETS = {  # of D for fake and real images, of G: a, b, c
    "zero-one": (0.0, 1.0, 1.0),  # equation 9
    "pearson": (-1.0, 1.0, 0.0),  # equation 8
}


class Seen(NamedTuple):
    """What a step saw; score_* are means of D's scores, which are no probabilities."""

    loss_d: np.ndarray
    loss_g: np.ndarray
    score_real: np.ndarray  # D(x)
    score_fake_before: np.ndarray  # D(G(z)) before D's update
    score_fake_after: np.ndarray  # D(G(z)) after it
    gradient_fake: np.ndarray  # length of a fake image's gradient of G's loss, the mean over the batch


@dataclass(frozen=True)
class LSGANOptions(Options):
    """LSGAN's options, which are its flags."""

    image_size: int = option(28, "pixels: 28, 32, 64, 128, ...", low=1, high=1_000_000)
    latent: int = option(100, "elements of z", low=1, high=1_000_000)
    width: int = option(32, "channels of the largest map", low=1, high=1_000_000)
    lr: float = option(5e-4, "Adam's learning rate; wide networks want the DCGAN's 2e-4", above=0, may_change=True)
    beta1: float = option(0.5, "Adam's first beta", low=0, high=0.999)
    lr_decay: str = lr_decay_option()
    targets: str = option(
        "zero-one",
        "scores that D is to give fake and real images, and that G wants: zero-one, 0, 1 and 1, equation 9; pearson, "
        "-1, 1 and 0, equation 8",
        choices=tuple(TARGETS),
    )

    def __post_init__(self):
        super().__post_init__()
        dcgan.plan(self.image_size)


class LSGAN(FromZ):
    """shapes: {"images": (C, H, H), ...}. Attributes: g, d, opt_g, opt_d."""

    Options = LSGANOptions
    exports = {"generator.safetensors": "g", "discriminator.safetensors": "d"}
    curves = {
        "losses": ("loss_d", "loss_g"),
        "D's scores": ("score_real", "score_fake_before"),
        "gradient that reaches a fake image": ("gradient_fake",),
    }
    labels = {"loss_d": "Loss_D", "loss_g": "Loss_G", "score_real": "D(x)"}
    labels |= {"score_fake_before": "D(G(z)) before D's step", "score_fake_after": "after"}
    labels |= {"gradient_fake": "gradient at G(z)"}

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        self.options, self.device, self.dtype = options, get_device(device), dtype
        C, size, _ = shapes["images"]
        common = {"image_size": size, "channels": C, "width": options.width}
        common |= {"rng": seeded_rng(seed, "weights"), "dtype": dtype}
        self.g = dcgan.generator(latent=options.latent, **common).to(self.device)
        self.d = dcgan.discriminator(**common).to(self.device)
        settings = {"lr": options.lr, "betas": (options.beta1, 0.999), "loss_scaling": matmul_precision() == "fp16"}
        self.opt_g, self.opt_d = Adam(self.g, **settings), Adam(self.d, **settings)

    def draw(self, batches, rng, at):
        (batch,) = batches
        real = batch["images"]
        lr = self.options.lr * lr_factor(self.options, at)
        return {"real": real, "z": self.draw_z(rng, len(real)), "lr": lr}

    def step(self, real, z, lr) -> Seen:
        self.opt_g.lr = self.opt_d.lr = lr
        a, b, c = TARGETS[self.options.targets]

        # ---- D: 1/2 mean (D(x) - b)^2 ...
        self.d.zero_grad()
        real_scores, cache = self.d.forward(real)  # (N, 1)
        loss_real, loss_cache = mse_forward(real_scores, b)
        self.d.backward(mse_backward(0.5 * self.opt_d.dloss, loss_cache), cache, need_dx=False)

        # ... + 1/2 mean (D(G(z)) - a)^2
        fake, g_cache = self.g.forward(z)  # (N, C, H, W)
        fake_scores, cache = self.d.forward(fake)
        loss_fake, loss_cache = mse_forward(fake_scores, a)
        self.d.backward(mse_backward(0.5 * self.opt_d.dloss, loss_cache), cache, need_dx=False)
        self.opt_d.step()

        # ---- G: 1/2 mean (D(G(z)) - c)^2, by the updated D
        self.g.zero_grad()
        new_scores, cache = self.d.forward(fake)
        loss_g, loss_cache = mse_forward(new_scores, c)
        dfake = self.d.backward(mse_backward(0.5 * self.opt_g.dloss, loss_cache), cache, need_dw=False)  # (N, C, H, W)
        self.g.backward(dfake, g_cache, need_dx=False)
        self.opt_g.step()

        return Seen(
            loss_d=0.5 * (loss_real + loss_fake),
            loss_g=0.5 * loss_g,
            score_real=real_scores.mean(),
            score_fake_before=fake_scores.mean(),
            score_fake_after=new_scores.mean(),
            gradient_fake=mean_length(dfake) / self.opt_g.dloss,
        )

    def objectives(self, seen):
        return {"opt_d": seen.loss_d, "opt_g": seen.loss_g}

    @classmethod
    def contradiction(cls, options, arrays):
        return contradicting(dcgan.options_of, vars(options), arrays, ("image_size", "latent", "width"))


_TINY = {"latent": 3, "width": 2}
EXAMPLES = {
    "LSGAN": (LSGAN, _TINY, {"images": (2, 8, 8)}),
    "LSGAN, pearson": (LSGAN, _TINY | {"targets": "pearson"}, {"images": (1, 8, 8)}),
}
