"""DiscoGAN: two translators, two discriminators, two reconstruction losses.

T. Kim, M. Cha, H. Kim, J. K. Lee, J. Kim, Learning to Discover Cross-Domain Relations, arXiv:1703.05192, section 3. The
networks are in :mod:`nanogan.models.discogan`.

The authors' code has more than the paper: it matches features of D, starts with nearly no reconstruction loss, and
updates D in one step of three. None of that is here.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nanogan.games.game import option
from nanogan.games.translation import Translation, TranslationOptions
from nanogan.layers.losses import bce_backward, bce_forward, mse_backward, mse_forward
from nanogan.models import dcgan, discogan


class Seen(NamedTuple):
    """Losses of one step, 0-d arrays."""

    loss_d_a: np.ndarray  # mean of D's binary cross entropy for real and for fake images
    loss_d_b: np.ndarray
    loss_g: np.ndarray  # all that the translators minimise
    loss_reconstruction: np.ndarray  # mean (back - source)^2, both circles added up, without its weight


@dataclass(frozen=True)
class DiscoGANOptions(TranslationOptions):
    """DiscoGAN's options, which are its flags."""

    lr: float = option(5e-4, "Adam's learning rate; the authors' 2e-4", above=0, may_change=True)
    reconstruction: float = option(
        30.0, "weight of the reconstruction losses; with 1, the paper's, a translator collapsed (docs)", low=0, high=1e6
    )

    def __post_init__(self):
        super().__post_init__()
        dcgan.plan(self.image_size)


class DiscoGAN(Translation):
    """See :class:`nanogan.games.translation.Translation`."""

    Options = DiscoGANOptions
    adversarial = bce_forward, bce_backward
    curves = {"losses": ("loss_d_a", "loss_d_b", "loss_g"), "reconstruction": ("loss_reconstruction",)}
    labels = {"loss_d_a": "D of A", "loss_d_b": "D of B", "loss_g": "translators"}
    labels |= {"loss_reconstruction": "reconstruction"}

    @staticmethod
    def translator(options, **sizes):
        return discogan.generator(width=options.width, **sizes)

    @staticmethod
    def discriminator(options, **sizes):
        return discogan.discriminator(width=options.width, **sizes)

    def draw(self, batches, rng, at):
        (batch,) = batches
        return {"a": batch["a"], "b": batch["b"], "lr": self.options.lr}

    def step(self, a, b, lr) -> Seen:
        ab, ba, reconstruction = self.ab, self.ba, self.options.reconstruction
        self.opt_g.lr = self.opt_d_a.lr = self.opt_d_b.lr = lr
        dloss = self.opt_g.dloss

        # ---- both discriminators, on the newest fakes. The translators do not change meanwhile: the fakes and their
        # caches serve both turns.
        fake_b, fake_b_cache = ab.forward(a)
        fake_a, fake_a_cache = ba.forward(b)
        loss_d_a = self.discriminate(self.d_a, self.opt_d_a, a, fake_a)
        loss_d_b = self.discriminate(self.d_b, self.opt_d_b, b, fake_b)

        # ---- both translators. a -> fake_b -> back_a: fake_b is to fool the updated D of B, back_a is to be a, and the
        # gradient of that comes to fake_b through ba.
        self.opt_g.zero_grad()
        fool_b, dfake_b = self.fool(self.d_b, fake_b)
        back_a, back_a_cache = ba.forward(fake_b)
        back_loss_a, cache = mse_forward(back_a, a)
        dfake_b += ba.backward(mse_backward(reconstruction * dloss, cache), back_a_cache)
        ab.backward(dfake_b, fake_b_cache, need_dx=False)

        # b -> fake_a -> back_b
        fool_a, dfake_a = self.fool(self.d_a, fake_a)
        back_b, back_b_cache = ab.forward(fake_a)
        back_loss_b, cache = mse_forward(back_b, b)
        dfake_a += ab.backward(mse_backward(reconstruction * dloss, cache), back_b_cache)
        ba.backward(dfake_a, fake_a_cache, need_dx=False)
        self.opt_g.step()  # one step for both

        loss_g = fool_a + fool_b + reconstruction * (back_loss_a + back_loss_b)
        return Seen(loss_d_a, loss_d_b, loss_g, back_loss_a + back_loss_b)


EXAMPLES = {
    "DiscoGAN": (
        DiscoGAN,
        {"image_size": 8, "width": 2, "reconstruction": 3.0},
        {"a": (2, 8, 8), "b": (1, 8, 8)},
    )
}
