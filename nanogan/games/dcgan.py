"""The DCGAN: one discriminator, which learns to tell real from fake, and one generator, which learns to fool it.

:func:`adversarial_step` is the lesson, line by line; :class:`DCGAN` is what trains with it.
A. Radford, L. Metz, S. Chintala, arXiv:1511.06434; the networks are in :mod:`nanogan.models.dcgan`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nanogan.backend import get_device, matmul_precision, seeded_rng
from nanogan.errors import UserError
from nanogan.games.drawing import draw_noise, with_noise
from nanogan.games.from_z import FromZ
from nanogan.games.game import Options, lr_decay_option, lr_factor, option
from nanogan.layers.losses import BCE, FAKE, HINGE, MSE, REAL, SATURATING_BCE, SCORE, discriminate, mean_probability
from nanogan.models import dcgan
from nanogan.optim import Adam, Ema

# Name: D's loss, then G's, each a forward and a backward that take logits and a label. D is given REAL for real images
# and FAKE for generated ones; G gives its own the label REAL.
LOSSES = {
    # D: -log p(real) - log(1 - p(fake)), p = sigmoid(logits)      G: -log p(fake)       Goodfellow 2014, section 3
    "bce": (BCE, BCE),
    # D: the same                                                  G: log(1 - p(fake))   Goodfellow 2014, equation 1
    "saturating": (BCE, SATURATING_BCE),
    # D: (D(real) - 1)^2 + D(fake)^2       G: (D(fake) - 1)^2       X. Mao et al., arXiv:1611.04076, equation 9, times 2
    "lsgan": (MSE, MSE),
    # D: max(0, 1 - D(real)) + max(0, 1 + D(fake))       G: -D(fake)       Lim and Ye 2017, arXiv:1705.02894
    "hinge": (HINGE, SCORE),
}


class StepResult(NamedTuple):
    """What a step saw, each a number on the networks' device; D(.) are means of probabilities.

    loss_d is the sum of D's losses on the real and on the fake batch, times d_weight. With the losses "lsgan"
    and "hinge", whose D gives scores, D(.) are still sigmoids: 0.5 for a score of 0, 0.73 for 1, 0.27 for -1.
    """

    loss_d: np.ndarray
    loss_g: np.ndarray
    d_real: np.ndarray  # D(x)
    d_fake_before: np.ndarray  # D(G(z)) before D's update
    d_fake_after: np.ndarray  # D(G(z)) after it


def adversarial_step(g, d, opt_g, opt_d, real, z, *, loss="bce", label_smoothing=0.0, d_weight=1.0, noise=(None, None)):
    """Update discriminator ``d`` and generator ``g`` once; the non-saturating loss of the original GAN.

    real (N, C, H, W) from -1 to 1; z (N, latent), drawn anew for every step. ``d`` gives logits. Returns StepResult.
    A backward starts from the gradient of the loss, ``dloss``: 1, or larger where the optimiser scales losses.

        D minimises  -log D(real) - log(1 - D(G(z)))
        G minimises  -log D(G(z))       not log(1 - D(G(z))), whose slope vanishes while D is winning

    Source: I. Goodfellow et al., arXiv:1406.2661, algorithm 1 and section 3; order as in pytorch/examples.

    loss: another of LOSSES. label_smoothing: D's label for real images is 1 - label_smoothing, those of fake ones
    and G's stay (one-sided; T. Salimans et al., arXiv:1606.03498, section 3.4). noise: two arrays of the shapes of real
    and fake images, added to them before D sees them (C. Sonderby et al., arXiv:1610.04490). d_weight: a factor of D's
    loss; 0.5 makes it the mean of its two terms.
    """
    d_loss, (g_loss_forward, g_loss_backward) = losses_of(loss, label_smoothing)
    noise_real, noise_fake = noise

    # z -> G -> fake
    fake, g_cache = g.forward(z, train=True)
    seen = with_noise(fake, noise_fake)

    # ---- D: real -> D -> loss -> D's gradients; fake -> D -> loss -> D's gradients, added to those of the real batch
    d.zero_grad()
    labels = REAL - label_smoothing, FAKE
    (loss_real, loss_fake), (real_logits, fake_logits) = discriminate(
        with_noise(real, noise_real), seen, d, d_loss, labels, d_weight * opt_d.dloss
    )
    opt_d.step()

    # ---- G: fake -> D -> loss, as if it were real. G has not changed, so ``fake`` and its cache still hold; D has, so
    # the old logits do not. D passes the gradient on to the image and keeps none for itself. Noise was added to the
    # image, so its slope is 1: the gradient of what D saw is the image's.
    g.zero_grad()
    new_logits, cache = d.forward(seen, train=True)
    loss_g, loss_cache = g_loss_forward(new_logits, REAL)
    dfake = d.backward(g_loss_backward(opt_g.dloss, loss_cache), cache, need_dw=False)
    del cache  # what D kept is half of the memory that a step needs
    g.backward(dfake, g_cache, need_dx=False)
    opt_g.step()

    return StepResult(
        loss_d=d_weight * (loss_real + loss_fake),
        loss_g=loss_g,
        d_real=mean_probability(real_logits),
        d_fake_before=mean_probability(fake_logits),
        d_fake_after=mean_probability(new_logits),
    )


def discriminator_step(g, d, opt_d, real, z, *, loss="bce", label_smoothing=0.0, d_weight=1.0, noise=(None, None)):
    """Update ``d`` alone: the first half of :func:`adversarial_step`, for games in which D learns more often than G.

    As algorithm 1 of the original GAN has it, with a real batch and a z of its own. G's BatchNorm notes the batch too.
    """
    d_loss, _ = losses_of(loss, label_smoothing)
    noise_real, noise_fake = noise
    real, fake = with_noise(real, noise_real), with_noise(g.forward(z, train=True)[0], noise_fake)
    d.zero_grad()
    discriminate(real, fake, d, d_loss, (REAL - label_smoothing, FAKE), d_weight * opt_d.dloss)
    opt_d.step()


def losses_of(name, label_smoothing=0.0):
    """Return D's pair and G's pair of :data:`LOSSES`. Raises UserError for other names and values."""
    if name not in LOSSES:
        raise UserError(f"unknown loss {name!r}: use one of {', '.join(LOSSES)}")
    if not 0 <= label_smoothing <= 0.5:
        raise UserError(f"label_smoothing expected a number from 0 to 0.5, got {label_smoothing!r}")
    if name == "hinge" and label_smoothing:
        raise UserError("label_smoothing moves a label, and the hinge loss has none: leave it out, or use another loss")
    return LOSSES[name]


# -------------------------------------------------------------------------------------------------------- the game


@dataclass(frozen=True)
class DCGANOptions(Options):
    """The DCGAN's options, which are its flags."""

    image_size: int = option(64, "pixels: 28, 32, 64, 128, ...", low=1, high=1_000_000)
    latent: int = option(100, "elements of z", low=1, high=1_000_000)
    width: int = option(64, "channels of the largest map (torch's ngf, ndf)", low=1, high=1_000_000)
    d_width: int | None = option(None, "those of D, if they differ from G's", low=1, high=1_000_000)
    lr: float = option(2e-4, "Adam's learning rate; the paper's 2e-4 suits wide networks", above=0, may_change=True)
    d_lr: float | None = option(None, "D's learning rate, if it differs from G's", above=0, may_change=True)
    beta1: float = option(0.5, "Adam's first beta", low=0, high=0.999)
    loss: str = option(
        "bce",
        "what D and G minimise: bce, the usual one; saturating, the minimax game of 2014; lsgan, squared distance "
        "to 1 and 0, against vanishing slopes; hinge, a margin, usual in larger networks",
        choices=tuple(LOSSES),
    )
    label_smoothing: float = option(
        0.0, "D's label for real is 1 - A: keeps D from being too sure", low=0, high=0.5, metavar="A"
    )
    instance_noise: float = option(
        0.0,
        "noise on all images that D sees, falling to 0 over the run: keeps D from winning early",
        low=0,
        high=100,
        metavar="SIGMA",
    )
    d_steps: int = option(
        1,
        "updates of D, a batch each, for every one of G, which --log-every and --sample-every count",
        low=1,
        high=1000,
        metavar="N",
    )
    ema: float | None = option(
        None,
        "sample and save with an average of G's weights over about 1 / (1 - BETA) steps: steadier images; 0.999",
        low=0,
        high=0.999999,
        metavar="BETA",
    )
    lr_decay: str = lr_decay_option()
    upsample: str = option(
        "deconv",
        "how G doubles a map: deconv, transposed convolutions; resize, repeated pixels and a 3x3 convolution, "
        "against checkerboards",
        choices=dcgan.UPSAMPLES,
    )
    z: str = option(
        "normal",
        "what z is drawn from: N(0, 1), or -1 to 1 as in the paper; the same with --generate",
        choices=("normal", "uniform"),
    )
    last_bias: bool = option(False, "give G's last layer a bias")
    gain: float = option(1.0, "mean of BatchNorm's first gains, drawn from N(GAIN, 0.02)", low=-100, high=100)
    d_weight: float = option(1.0, "factor of D's loss: 0.5 is the mean of real and fake", above=0, high=1000)

    def __post_init__(self):
        super().__post_init__()
        losses_of(self.loss, self.label_smoothing)
        dcgan.plan(self.image_size)


class DCGAN(FromZ):
    """G and D of one size, trained by :func:`adversarial_step`; with ``d_steps``, D is updated alone first.

    shapes: {"images": (C, H, H), ...}. Attributes: g, d, opt_g, opt_d, ema (:class:`nanogan.optim.Ema` or None).
    """

    Options = DCGANOptions
    exports = {"generator.safetensors": "averaged_g", "discriminator.safetensors": "d"}
    curves = {"losses": ("loss_d", "loss_g"), "how real D finds images (1: real, 0: fake)": ("d_real", "d_fake_before")}
    labels = {"loss_d": "Loss_D", "loss_g": "Loss_G", "d_real": "D(x), real", "d_fake_before": "D(G(z)), fake"}

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        C, size, _ = shapes["images"]
        self.options, self.device, self.dtype = options, get_device(device), dtype
        self.batches = self.batches_of(options)
        rng = seeded_rng(seed, "weights")
        shape = {"image_size": size, "channels": C, "gain": options.gain, "rng": rng, "dtype": dtype}
        form = {"latent": options.latent, "upsample": options.upsample, "last_bias": options.last_bias}
        self.g = dcgan.generator(width=options.width, **form, **shape).to(self.device)
        self.d = dcgan.discriminator(width=options.d_width or options.width, **shape).to(self.device)
        settings = {"betas": (options.beta1, 0.999), "loss_scaling": matmul_precision() == "fp16"}
        self.opt_g = Adam(self.g, lr=options.lr, **settings)
        self.opt_d = Adam(self.d, lr=options.d_lr or options.lr, **settings)
        self.ema = None if options.ema is None else Ema(self.g, beta=options.ema)

    @classmethod
    def batches_of(cls, options):
        return options.d_steps

    @property
    def averaged_g(self):
        """The generator whose images are shown and saved: the average of G's weights if there is one."""
        return self.g if self.ema is None else self.ema.average

    shown_g = averaged_g

    def draw(self, batches, rng, at):
        options, there = self.options, {"device": self.device, "dtype": self.dtype, "ranks": self.ranks}
        sigma = options.instance_noise * max(0.0, 1 - at.done)
        decay = lr_factor(options, at)
        reals = [batch["images"] for batch in batches]
        return {
            "reals": reals,
            "zs": [self.draw_z(rng, len(real)) for real in reals],
            "noises": [
                tuple(draw_noise(rng, real.shape, sigma, **there) if sigma else None for _ in ("real", "fake"))
                for real in reals
            ],
            "lr": options.lr * decay,
            "d_lr": (options.d_lr or options.lr) * decay,
        }

    def step(self, reals, zs, noises, lr, d_lr) -> StepResult:
        self.opt_g.lr, self.opt_d.lr = lr, d_lr
        options = self.options
        how = {"loss": options.loss, "label_smoothing": options.label_smoothing, "d_weight": options.d_weight}
        *earlier, last = zip(reals, zs, noises, strict=True)
        for real, z, noise in earlier:
            discriminator_step(self.g, self.d, self.opt_d, real, z, noise=noise, **how)
        real, z, noise = last
        seen = adversarial_step(self.g, self.d, self.opt_g, self.opt_d, real, z, noise=noise, **how)
        if self.ema is not None:
            self.ema.update()
        return seen

    def objectives(self, seen):
        return {"opt_d": seen.loss_d, "opt_g": seen.loss_g}

    @classmethod
    def contradiction(cls, options, arrays):
        names = ("image_size", "latent", "width", "upsample", "last_bias")
        d_options = {"image_size": options.image_size, "width": options.d_width or options.width}
        return contradicting(dcgan.options_of, vars(options), arrays, names) or contradicting(
            dcgan.discriminator_options_of, d_options, arrays, ("image_size", "width"), network="d"
        )

    def line(self, numbers):
        """pytorch/examples' line, with "before" and "after" spelt out."""
        return (
            "Loss_D: {loss_d:.4f}  Loss_G: {loss_g:.4f}  D(x): {d_real:.4f}  "
            "D(G(z)): {d_fake_before:.4f} before D's step, {d_fake_after:.4f} after"
        ).format(**numbers)


def contradicting(options_of, options, arrays, names, network="g"):
    """Compare ``options``, a dictionary, with what ``options_of`` infers from the arrays of G, or of ``network``.

    Returns a sentence for the first of ``names`` that differs, None if none does.
    """
    prefix = f"{network}."
    try:
        sizes = options_of({name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)})
    except UserError as error:
        return f"it is not of such a game: {error}"
    for name in names:
        if sizes[name] != options[name]:
            return f"it contradicts itself: its {name} is {options[name]}, its arrays' {sizes[name]}"
    return None


_TINY = {"latent": 3, "width": 2}
EXAMPLES = {  # name: (class, options, shapes), what gradcheck plays
    "DCGAN": (DCGAN, _TINY, {"images": (2, 8, 8)}),
    "DCGAN, lsgan, ema": (DCGAN, _TINY | {"loss": "lsgan", "ema": 0.9, "label_smoothing": 0.1}, {"images": (1, 8, 8)}),
    "DCGAN, hinge, d_steps": (
        DCGAN,
        _TINY | {"loss": "hinge", "d_steps": 2, "instance_noise": 0.3, "upsample": "resize", "z": "uniform"},
        {"images": (1, 12, 12)},
    ),
    "DCGAN, other widths": (
        DCGAN,
        _TINY | {"d_width": 3, "d_lr": 1e-3, "last_bias": True, "gain": 0.5, "d_weight": 0.5},
        {"images": (1, 8, 8)},
    ),
    "DCGAN, saturating": (DCGAN, _TINY | {"loss": "saturating", "lr_decay": "linear"}, {"images": (1, 8, 8)}),
}
