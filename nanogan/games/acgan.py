"""The ACGAN: D names the class of an image that it sees, and G is asked for images whose class D names right.

A. Odena, C. Olah, J. Shlens, arXiv:1610.09585, section 3; settings from appendix A. The networks are in
:mod:`nanogan.models.acgan`. Beside the conditional DCGAN: there D is given the label, here it has to find it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nanogan.backend import array_module, channels_last, get_device, matmul_precision, seeded_rng, to_device
from nanogan.games.conditional import ConditionalDCGAN, check_labels
from nanogan.games.dcgan import DCGAN, contradicting
from nanogan.games.drawing import draw_z, sample
from nanogan.games.game import Game, Options, lr_decay_option, lr_factor, option
from nanogan.layers.losses import FAKE, REAL, bce_backward, bce_forward, mean_probability
from nanogan.models import acgan, conditional, dcgan
from nanogan.models.conditional import join, one_hot
from nanogan.ops import cross_entropy_backward, cross_entropy_forward
from nanogan.optim import Adam

ROWS, MAX_COLUMNS = 8, 16  # of a grid: z, and classes


@dataclass(frozen=True)
class ACGANOptions(Options):
    """The ACGAN's options, which are its flags."""

    image_size: int = option(28, "pixels: 28, 32, 64, 128, ...", low=1, high=1_000_000)
    latent: int = option(100, "elements of z, besides the label", low=1, high=1_000_000)
    width: int = option(32, "channels of the largest map", low=1, high=1_000_000)
    dropout: float = option(0.5, "probability with which D's trunk zeroes an element", low=0, high=0.99)
    lr: float = option(2e-4, "Adam's learning rate", above=0, may_change=True)
    beta1: float = option(0.5, "Adam's first beta", low=0, high=0.999)
    lr_decay: str = lr_decay_option()
    z: str = option("normal", "what z is drawn from: N(0, 1), or -1 to 1", choices=("normal", "uniform"))

    def __post_init__(self):
        super().__post_init__()
        dcgan.plan(self.image_size)


class Seen(NamedTuple):
    """What a step saw. loss_d and loss_g contain the class losses of the images that D or G is trained on."""

    loss_d: np.ndarray
    loss_g: np.ndarray
    loss_class_real: np.ndarray  # cross entropy of the class head: real images and their labels
    loss_class_fake: np.ndarray  # fake images and the classes asked for, before D's update
    d_real: np.ndarray  # mean probabilities of "real"
    d_fake_before: np.ndarray  # before D's update
    d_fake_after: np.ndarray  # after it


class ACGAN(Game):
    """shapes: {"images": (C, H, H), "labels": number of classes}. Attributes: g, d, opt_g, opt_d, classes."""

    Options = ACGANOptions
    exports = {"generator.safetensors": "g"}
    curves = DCGAN.curves | {"class losses": ("loss_class_real", "loss_class_fake")}
    labels = DCGAN.labels | {"loss_class_real": "class, real", "loss_class_fake": "class, fake"}
    generate = ConditionalDCGAN.generate  # images of class 0, 1, ..., again and again

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        check_labels(shapes, "an ACGAN")
        self.options, self.device, self.dtype = options, get_device(device), dtype
        self.classes = shapes["labels"]
        self.images_per_row = min(self.classes, MAX_COLUMNS)
        C, size, _ = shapes["images"]
        common = {"classes": self.classes, "image_size": size, "channels": C, "width": options.width}
        common |= {"rng": seeded_rng(seed, "weights"), "dtype": dtype}
        self.g = conditional.generator(latent=options.latent, **common).to(self.device)
        self.d = acgan.discriminator(dropout=options.dropout, **common).to(self.device)
        settings = {"lr": options.lr, "betas": (options.beta1, 0.999), "loss_scaling": matmul_precision() == "fp16"}
        self.opt_g, self.opt_d = Adam(self.g, **settings), Adam(self.d, **settings)

    def draw(self, batches, rng, at):
        """The classes that G is asked for are uniform, and not the batch's labels."""
        (batch,) = batches
        N, options = len(batch["labels"]), self.options
        return {
            "real": batch["images"],
            "labels": batch["labels"],
            "z": draw_z(rng, N, options.latent, options.z, self.device, self.dtype),
            "wanted": to_device(rng.integers(0, self.classes, N), self.device),
            "lr": options.lr * lr_factor(options, at),
        }

    def step(self, real, labels, z, wanted, lr) -> Seen:
        self.opt_g.lr = self.opt_d.lr = lr

        # ---- D: real images are real, and of their class ...
        self.d.zero_grad()
        real_logits, loss_real, class_real, _ = self.through_d(real, REAL, labels, self.opt_d.dloss, need_dx=False)

        # ... fake ones are fake, and yet of the class that was asked for
        fake, g_cache = self.g.forward(join(z, one_hot(wanted, self.classes, dtype=self.dtype)))
        fake_logits, loss_fake, class_fake, _ = self.through_d(fake, FAKE, wanted, self.opt_d.dloss, need_dx=False)
        self.opt_d.step()

        # ---- G: they are to look real, and to be of their class. Both losses of D reach it through the image.
        self.g.zero_grad()
        new_logits, loss_g, class_g, dfake = self.through_d(fake, REAL, wanted, self.opt_g.dloss, need_dw=False)
        self.g.backward(dfake, g_cache, need_dx=False)
        self.opt_g.step()

        return Seen(
            loss_d=loss_real + loss_fake + class_real + class_fake,
            loss_g=loss_g + class_g,
            loss_class_real=class_real,
            loss_class_fake=class_fake,
            d_real=mean_probability(real_logits),
            d_fake_before=mean_probability(fake_logits),
            d_fake_after=mean_probability(new_logits),
        )

    def through_d(self, x, target, labels, dloss, *, need_dx=True, need_dw=True):
        """Images x forward through D's three networks, and the gradient of both losses back.

        Returns the source logits, the source's and the class's loss, and dx, d (sum of the losses) / dx.
        """
        d = self.d
        h, trunk_cache = d.trunk.forward(x)  # (N, F, s, s)
        logits, source_cache = d.source.forward(h)  # (N, 1)
        scores, classes_cache = d.classes.forward(h)  # (N, K)
        loss_source, bce_cache = bce_forward(logits, target)
        loss_class, entropy_cache = cross_entropy_forward(scores, labels)

        # h goes into both heads, so a change of h changes both losses: their gradients add up
        dh_source = d.source.backward(bce_backward(dloss, bce_cache), source_cache, need_dw=need_dw)
        dh_class = d.classes.backward(cross_entropy_backward(dloss, entropy_cache), classes_cache, need_dw=need_dw)
        dh = channels_last(dh_source + dh_class)
        return logits, loss_source, loss_class, d.trunk.backward(dh, trunk_cache, need_dx=need_dx, need_dw=need_dw)

    def objectives(self, seen):
        return {"opt_d": seen.loss_d, "opt_g": seen.loss_g}

    def fixed(self, batches, rng):
        """A column of samples for each class, the same z in each row."""
        columns = self.images_per_row
        z = draw_z(rng, ROWS, self.options.latent, self.options.z, self.device, self.dtype)
        xp = array_module(z)
        hot = one_hot(xp.tile(xp.arange(columns), ROWS), self.classes, dtype=self.dtype)
        return join(xp.repeat(z, columns, axis=0), hot)

    def sample(self, joined):
        return sample(self.g, joined)

    def line(self, numbers):
        return DCGAN.line(self, numbers) + "  class: {loss_class_real:.4f} real, {loss_class_fake:.4f} fake".format(
            **numbers
        )

    @classmethod
    def contradiction(cls, options, arrays):
        return contradicting(conditional.options_of, vars(options), arrays, ("image_size", "latent", "width"))


EXAMPLES = {
    "ACGAN": (ACGAN, {"image_size": 8, "latent": 3, "width": 2}, {"images": (2, 8, 8), "labels": 3}),
    "ACGAN, no dropout": (
        ACGAN,
        {"image_size": 12, "latent": 3, "width": 2, "dropout": 0.0, "z": "uniform", "lr_decay": "linear"},
        {"images": (1, 12, 12), "labels": 2},
    ),
}
