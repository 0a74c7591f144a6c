"""What games of two domains share: images A and B without pairs, a translator each way, a discriminator for each.

        a -> ab -> fake_b -> ba -> back_a, which is to be a again         d_b tells b from fake_b
        b -> ba -> fake_a -> ab -> back_b, which is to be b again         d_a tells a from fake_a

Nobody says which b belongs to an a. D alone would be content with any b; the way back is what ties the translation to
its source. The steps, which differ, are in :mod:`nanogan.games.cyclegan` and :mod:`nanogan.games.discogan`.
"""

from dataclasses import dataclass

import numpy as np

from nanogan.backend import array_module, get_device, matmul_precision, seeded_rng
from nanogan.errors import UserError
from nanogan.games.game import Game, Options, option
from nanogan.layers.losses import FAKE, REAL
from nanogan.models.cyclegan import Translators
from nanogan.optim import Adam

SHOWN = 8  # images of each domain in a grid


@dataclass(frozen=True)
class TranslationOptions(Options):
    """The options that games of two domains share."""

    image_size: int = option(32, "pixels", low=1, high=1_000_000)
    width: int = option(16, "channels of the largest map; the paper's 64", low=1, high=1_000_000)
    lr: float = option(2e-4, "Adam's learning rate", above=0, may_change=True)
    beta1: float = option(0.5, "Adam's first beta", low=0, high=0.999)


class Translation(Game):
    """shapes: {"a": (C_a, H, H), "b": (C_b, H, H)}. Attributes: translators (ab and ba), d_a, d_b and their optimisers.

    Both translators have one optimiser: each is in both circles, so every loss has a gradient for both. A subclass adds
    ``translator(options, **sizes)`` and ``discriminator(options, **sizes)``, which make its networks, ``adversarial``,
    the pair of operations that is D's and G's loss, and its step.
    """

    Options = TranslationOptions
    exports = {"a_to_b.safetensors": "ab", "b_to_a.safetensors": "ba"}
    real, unpaired, images_per_row, generates = "b", ("a",), SHOWN, False
    generated = slice(SHOWN, 2 * SHOWN)  # the second row of a grid

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        self.options, self.device, self.dtype = options, get_device(device), dtype
        (C_a, size, _), (C_b, _, _) = self.shape_a, self.shape_b = _checked(shapes)
        how = {"image_size": size, "rng": seeded_rng(seed, "weights"), "dtype": dtype}
        ab = self.translator(options, in_channels=C_a, out_channels=C_b, **how)
        ba = self.translator(options, in_channels=C_b, out_channels=C_a, **how)
        self.translators = Translators(ab, ba).to(self.device)
        self.d_a = self.discriminator(options, channels=C_a, **how).to(self.device)
        self.d_b = self.discriminator(options, channels=C_b, **how).to(self.device)
        settings = {"lr": options.lr, "betas": (options.beta1, 0.999), "loss_scaling": matmul_precision() == "fp16"}
        self.opt_g = Adam(self.translators, **settings)
        self.opt_d_a, self.opt_d_b = Adam(self.d_a, **settings), Adam(self.d_b, **settings)

    def fool(self, d, fake):
        """Return what the translators lose by D's logits for ``fake``, and its gradient for ``fake``; D keeps none."""
        loss_forward, loss_backward = self.adversarial
        logits, d_cache = d.forward(fake)
        loss, cache = loss_forward(logits, REAL)
        return loss, d.backward(loss_backward(self.opt_g.dloss, cache), d_cache, need_dw=False)

    def discriminate(self, d, opt_d, real, fake):
        """Update ``d`` with a batch of each kind and return its loss, the mean of both."""
        loss_forward, loss_backward = self.adversarial
        d.zero_grad()
        logits, d_cache = d.forward(real)
        loss_real, cache = loss_forward(logits, REAL)
        d.backward(loss_backward(0.5 * opt_d.dloss, cache), d_cache, need_dx=False)
        logits, d_cache = d.forward(fake)
        loss_fake, cache = loss_forward(logits, FAKE)
        d.backward(loss_backward(0.5 * opt_d.dloss, cache), d_cache, need_dx=False)
        opt_d.step()
        return 0.5 * (loss_real + loss_fake)

    @property
    def ab(self):
        """The translator from A to B."""
        return self.translators.ab

    @property
    def ba(self):
        """The translator from B to A."""
        return self.translators.ba

    def objectives(self, seen):
        return {"opt_g": seen.loss_g, "opt_d_a": seen.loss_d_a, "opt_d_b": seen.loss_d_b}

    def fixed(self, batches, rng):
        xp = self.device.array_module
        return tuple(xp.concatenate([batch[name] for batch in batches])[:SHOWN] for name in ("a", "b"))

    def sample(self, fixed):
        """Six rows: images of A, translated, and back again; images of B, translated, and back again."""
        a, b = fixed
        fake_b, _ = self.ab.forward(a, train=False)
        fake_a, _ = self.ba.forward(b, train=False)
        back_a, _ = self.ba.forward(fake_b, train=False)
        back_b, _ = self.ab.forward(fake_a, train=False)
        return array_module(a).concatenate([self._row(images) for images in (a, fake_b, back_a, b, fake_a, back_b)])

    def _row(self, images):
        """SHOWN images, in colour if those of a domain are; black ones where a batch was smaller."""
        xp = array_module(images)
        N, C, H, W = images.shape
        row = xp.full((SHOWN, max(self.shape_a[0], self.shape_b[0]), H, W), -1, dtype=images.dtype)
        row[:N] = images  # grey in three channels is grey
        return row


def _checked(shapes):
    """Return the shapes of A's and B's images. Raises UserError if a domain is missing, or of another size."""
    missing = [name for name in ("a", "b") if len(np.shape(shapes.get(name))) != 1 or len(shapes[name]) != 3]
    if missing:
        raise UserError(
            f"a game of two domains expected images in the columns a and b, got none in {' and '.join(missing)}"
        )
    a, b = shapes["a"], shapes["b"]
    if a[1:] != b[1:] or a[1] != a[2]:
        raise UserError(
            f"a game of two domains expected square images of one size, got {a[2]} x {a[1]} in a and {b[2]} x {b[1]} "
            "in b"
        )
    return a, b
