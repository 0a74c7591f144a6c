"""The conditional DCGAN: G makes what it is asked for, D tells whether an image is real *and* what its label says.

M. Mirza, S. Osindero, arXiv:1411.1784; how labels reach the networks is in :mod:`nanogan.models.conditional`.
"""

from dataclasses import dataclass

import numpy as np

from nanogan.backend import array_module, get_device, matmul_precision, seeded_rng
from nanogan.errors import UserError
from nanogan.games.dcgan import DCGAN, StepResult, contradicting
from nanogan.games.drawing import draw_z, sample
from nanogan.games.game import Game, Options, lr_decay_option, lr_factor, option
from nanogan.layers.losses import FAKE, REAL, bce_backward, bce_forward, mean_probability
from nanogan.models import conditional, dcgan
from nanogan.models.conditional import join, one_hot, with_maps
from nanogan.optim import Adam

SHOWN = 8  # samples of each class in a grid
MAX_SHOWN = 128  # samples in a grid


@dataclass(frozen=True)
class ConditionalOptions(Options):
    """The conditional DCGAN's options, which are its flags."""

    image_size: int = option(28, "pixels: 28, 32, 64, 128, ...", low=1, high=1_000_000)
    latent: int = option(100, "elements of z, besides the label", low=1, high=1_000_000)
    width: int = option(32, "channels of the largest map", low=1, high=1_000_000)
    networks: str = option(
        "dcgan",
        "dcgan, or mlp: fully connected layers, which know nothing of neighbouring pixels, the DCGAN paper's "
        "baseline (--generate does not open it)",
        choices=("dcgan", "mlp"),
    )
    lr: float = option(5e-4, "Adam's learning rate; the DCGAN's 2e-4 suits wide networks", above=0, may_change=True)
    beta1: float = option(0.5, "Adam's first beta", low=0, high=0.999)
    lr_decay: str = lr_decay_option()
    z: str = option("normal", "what z is drawn from: N(0, 1), or -1 to 1", choices=("normal", "uniform"))

    def __post_init__(self):
        super().__post_init__()
        if self.networks == "dcgan":
            dcgan.plan(self.image_size)


def check_labels(shapes, game):
    """Raise UserError if the images of ``game``, a noun for the sentence, have no labels."""
    if "labels" not in shapes:
        raise UserError(
            f"{game} expected images with labels, got images alone: use a data set with labels, or a folder with a "
            "folder of images for each class"
        )


class ConditionalDCGAN(Game):
    """shapes: {"images": (C, H, H), "labels": number of classes}. Attributes: g, d, opt_g, opt_d, classes."""

    Options = ConditionalOptions
    exports = {"generator.safetensors": "g", "discriminator.safetensors": "d"}
    curves, labels, line = DCGAN.curves, DCGAN.labels, DCGAN.line
    images_per_row = SHOWN

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        check_labels(shapes, "a conditional GAN")
        self.options, self.device, self.dtype = options, get_device(device), dtype
        self.shape, self.classes = shapes["images"], shapes["labels"]
        C, size, _ = self.shape
        common = {"classes": self.classes, "rng": seeded_rng(seed, "weights"), "dtype": dtype}
        if options.networks == "mlp":
            self.least_batch = 2
            g, d = conditional.mlp_pair(latent=options.latent, pixels=int(np.prod(self.shape)), **common)
        else:
            common |= {"image_size": size, "channels": C, "width": options.width}
            g, d = conditional.generator(latent=options.latent, **common), conditional.discriminator(**common)
        self.g, self.d = g.to(self.device), d.to(self.device)
        settings = {"lr": options.lr, "betas": (options.beta1, 0.999), "loss_scaling": matmul_precision() == "fp16"}
        self.opt_g, self.opt_d = Adam(self.g, **settings), Adam(self.d, **settings)

    def draw(self, batches, rng, at):
        """The fake images of a step are asked for the labels of its real ones, so that both occur equally often."""
        (batch,) = batches
        return {
            "real": batch["images"],
            "labels": batch["labels"],
            "z": draw_z(rng, len(batch["labels"]), self.options.latent, self.options.z, self.device, self.dtype),
            "lr": self.options.lr * lr_factor(self.options, at),
        }

    def step(self, real, labels, z, lr) -> StepResult:
        self.opt_g.lr = self.opt_d.lr = lr
        hot = one_hot(labels, self.classes, dtype=self.dtype)  # (N, classes)
        if self.options.networks == "mlp":
            real = real.reshape(len(real), -1, 1, 1)  # one pixel of many channels

        # ---- D: real images with their labels are real ...
        self.d.zero_grad()
        real_logits, cache = self.d.forward(with_maps(real, hot))
        loss_real, loss_cache = bce_forward(real_logits, REAL)
        self.d.backward(bce_backward(self.opt_d.dloss, loss_cache), cache, need_dx=False)

        # ... images that were made for these labels are fake
        fake, g_cache = self.g.forward(join(z, hot))
        seen = with_maps(fake, hot)  # (N, C + classes, H, W)
        fake_logits, cache = self.d.forward(seen)
        loss_fake, loss_cache = bce_forward(fake_logits, FAKE)
        self.d.backward(bce_backward(self.opt_d.dloss, loss_cache), cache, need_dx=False)
        self.opt_d.step()

        # ---- G: they are to look real, and as their labels say. The labels are given: only the image's part of D's
        # gradient goes on to G.
        self.g.zero_grad()
        new_logits, cache = self.d.forward(seen)
        loss_g, loss_cache = bce_forward(new_logits, REAL)
        dseen = self.d.backward(bce_backward(self.opt_g.dloss, loss_cache), cache, need_dw=False)
        self.g.backward(dseen[:, : fake.shape[1]], g_cache, need_dx=False)
        self.opt_g.step()

        return StepResult(
            loss_d=loss_real + loss_fake,
            loss_g=loss_g,
            d_real=mean_probability(real_logits),
            d_fake_before=mean_probability(fake_logits),
            d_fake_after=mean_probability(new_logits),
        )

    def objectives(self, seen):
        return {"opt_d": seen.loss_d, "opt_g": seen.loss_g}

    def fixed(self, batches, rng):
        """A row of samples for each class, the same z in each row."""
        rows = min(self.classes, MAX_SHOWN // SHOWN)
        z = draw_z(rng, SHOWN, self.options.latent, self.options.z, self.device, self.dtype)
        xp = array_module(z)
        hot = one_hot(xp.repeat(xp.arange(rows), SHOWN), self.classes, dtype=self.dtype)
        return join(xp.tile(z, (rows, 1)), hot)

    def sample(self, joined):
        return sample(self.g, joined).reshape(-1, *self.shape)

    @classmethod
    def contradiction(cls, options, arrays):
        if options.networks == "mlp":
            first, last = (getattr(arrays.get(f"g.{i}.weight"), "shape", ()) for i in (0, 6))
            if len(first) != 2 or len(last) != 2:
                return "it is not of such a game: a generator of fully connected layers was expected"
            if not options.latent < first[1] or last[0] not in (options.image_size**2, 3 * options.image_size**2):
                return (
                    f"it contradicts itself: latent {options.latent} and image_size {options.image_size} do not fit "
                    f"layers of {first[1]} inputs and {last[0]} outputs"
                )
            return None
        return contradicting(conditional.options_of, vars(options), arrays, ("image_size", "latent", "width"))

    @classmethod
    def generate(cls, network, count, options, rng, device):
        """Images of class 0, 1, ..., again and again."""
        z = draw_z(rng, count, network.latent, options.z, device)
        labels = array_module(z).arange(count) % network.classes
        images = sample(network, join(z, one_hot(labels, network.classes)))
        if images.shape[2] == 1:  # mlp: one pixel of many channels
            return images.reshape(count, -1, options.image_size, options.image_size)
        return images


_SHAPES = {"images": (2, 8, 8), "labels": 3}
EXAMPLES = {
    "conditional DCGAN": (ConditionalDCGAN, {"image_size": 8, "latent": 3, "width": 2}, _SHAPES),
    "conditional GAN, mlp": (
        ConditionalDCGAN,
        {"image_size": 3, "latent": 3, "networks": "mlp", "lr_decay": "linear"},
        {"images": (1, 3, 3), "labels": 2},
    ),
}
