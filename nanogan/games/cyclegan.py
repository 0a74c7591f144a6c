"""CycleGAN: two translators, which bring each other's images back, two discriminators, and two pools of past fakes.

J.-Y. Zhu, T. Park, P. Isola, A. A. Efros, arXiv:1703.10593, sections 3 and 4; the identity loss is section 5.2's. The
networks are in :mod:`nanogan.models.cyclegan`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nanogan.errors import UserError
from nanogan.games.game import option
from nanogan.games.pool import Pool
from nanogan.games.translation import Translation, TranslationOptions
from nanogan.layers.losses import l1_backward, l1_forward, mse_backward, mse_forward
from nanogan.models import cyclegan
from nanogan.optim import linear_decay


class Seen(NamedTuple):
    """Losses of one step, 0-d arrays."""

    loss_d_a: np.ndarray  # mean of D's squared distances to 1 for real and to 0 for fake images
    loss_d_b: np.ndarray
    loss_g: np.ndarray  # all that the translators minimise
    loss_cycle: np.ndarray  # mean |back - source|, both circles added up, without its weight
    loss_identity: np.ndarray  # mean |ab(b) - b| and |ba(a) - a|, without their weight; 0 if it is not computed


@dataclass(frozen=True)
class CycleGANOptions(TranslationOptions):
    """CycleGAN's options, which are its flags."""

    blocks: int = option(2, "residual blocks; the paper's 6 at 128 pixels, 9 at 256", low=1, high=64)
    strides: int = option(2, "halvings in D: 2, patches of 34 pixels; 3, the paper's 70", low=1, high=10)
    cycle: float = option(10.0, "weight of the cycle loss", low=0, high=1e6)
    identity: float = option(
        0.0,
        "weight of the identity loss: ab leaves images of B as they are, ba those of A; keeps colours; the authors' "
        "code has 5",
        low=0,
        high=1e6,
    )
    pool: int = option(
        50, "past fakes of each domain, some of which D sees in place of the newest; 0: none", low=0, high=10_000
    )

    def __post_init__(self):
        super().__post_init__()
        cyclegan.check_size(self.image_size, 2 ** max(2, self.strides), 3 * 2**self.strides)


class CycleGAN(Translation):
    """See :class:`nanogan.games.translation.Translation`; besides: pool_a, pool_b."""

    Options = CycleGANOptions
    adversarial = mse_forward, mse_backward  # LSGAN's loss: squared distance to 1 and 0
    curves = {"losses": ("loss_d_a", "loss_d_b", "loss_g"), "cycle": ("loss_cycle",)}
    labels = {"loss_d_a": "D of A", "loss_d_b": "D of B", "loss_g": "translators", "loss_cycle": "cycle"}

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        super().__init__(options, shapes, device, seed, dtype)
        if options.identity and self.shape_a[0] != self.shape_b[0]:
            raise UserError(
                f"the identity loss expected domains with the same channels, got {self.shape_a[0]} in a and "
                f"{self.shape_b[0]} in b: use --identity 0"
            )
        self.pool_a, self.pool_b = (Pool(options.pool, s, self.device, dtype) for s in (self.shape_a, self.shape_b))

    @staticmethod
    def translator(options, **sizes):
        return cyclegan.generator(width=options.width, blocks=options.blocks, **sizes)

    @staticmethod
    def discriminator(options, **sizes):
        return cyclegan.discriminator(width=options.width, strides=options.strides, **sizes)

    def draw(self, batches, rng, at):
        (batch,) = batches
        return {
            "a": batch["a"],
            "b": batch["b"],
            "pooled_a": self.pool_a.draw(rng, len(batch["b"])),  # fakes of A are made of b
            "pooled_b": self.pool_b.draw(rng, len(batch["a"])),
            "lr": self.options.lr * linear_decay(at, hold=0.5),
        }

    def step(self, a, b, pooled_a, pooled_b, lr) -> Seen:
        ab, ba, cycle, identity = self.ab, self.ba, self.options.cycle, self.options.identity
        self.opt_g.lr = self.opt_d_a.lr = self.opt_d_b.lr = lr
        dloss = self.opt_g.dloss

        # ---- both translators. Each is run twice, in one circle forth and in the other back; what a forward call
        # leaves for its backward is in its own cache, so four of them are kept apart.
        fake_b, fake_b_cache = ab.forward(a)
        fake_a, fake_a_cache = ba.forward(b)

        # a -> fake_b -> back_a: fake_b is to fool D of B, and back_a is to be a. The gradient of the second comes to
        # fake_b through ba, which keeps its own share of it.
        self.opt_g.zero_grad()
        fool_b, dfake_b = self.fool(self.d_b, fake_b)
        back_a, back_a_cache = ba.forward(fake_b)
        back_loss_a, cache = l1_forward(back_a, a)
        dfake_b += ba.backward(l1_backward(cycle * dloss, cache), back_a_cache)
        ab.backward(dfake_b, fake_b_cache, need_dx=False)

        # b -> fake_a -> back_b: the same the other way round
        fool_a, dfake_a = self.fool(self.d_a, fake_a)
        back_b, back_b_cache = ab.forward(fake_a)
        back_loss_b, cache = l1_forward(back_b, b)
        dfake_a += ab.backward(l1_backward(cycle * dloss, cache), back_b_cache)
        ba.backward(dfake_a, fake_a_cache, need_dx=False)

        loss_identity = 0 * back_loss_a
        if identity:
            for translator, x in ((ab, b), (ba, a)):
                same, same_cache = translator.forward(x)
                loss, cache = l1_forward(same, x)
                translator.backward(l1_backward(identity * dloss, cache), same_cache, need_dx=False)
                loss_identity = loss_identity + loss
        self.opt_g.step()  # one step for both

        # ---- both discriminators, on fakes out of the pools
        loss_d_a = self.discriminate(self.d_a, self.opt_d_a, a, self.pool_a.swap(fake_a, pooled_a))
        loss_d_b = self.discriminate(self.d_b, self.opt_d_b, b, self.pool_b.swap(fake_b, pooled_b))

        loss_g = fool_a + fool_b + cycle * (back_loss_a + back_loss_b) + identity * loss_identity
        return Seen(loss_d_a, loss_d_b, loss_g, back_loss_a + back_loss_b, loss_identity)


EXAMPLES = {
    "CycleGAN": (
        CycleGAN,
        {"image_size": 8, "width": 2, "blocks": 1, "strides": 1, "identity": 5.0, "pool": 3},
        {"a": (2, 8, 8), "b": (2, 8, 8)},
    )
}
