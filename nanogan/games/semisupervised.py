"""The semi-supervised GAN: a classifier that learns from few labels, and from many images without.

D tells K classes apart and "fake" from all of them. It is shown three kinds of images, and each has its loss:

    labelled real images      -log p(class y | real)     the cross entropy of any classifier: what the classes are
    real images, no label     -log p(real)               it is one of the classes, whichever: the boundaries between
                                                         classes move away from where real images are
    generated images          -log p(fake)               where they may move to
    D minimises               L_class + 1/2 (L_real + L_fake)

D has K logits l, log Z = logsumexp(l) is the logit of "real", and "fake" has a logit fixed at 0; why that is a softmax
over K + 1 classes is derived in :mod:`nanogan.ops.semisupervised`. G minimises one of two losses:

    non-saturating   -log p(real) of its images, the usual loss
    features         the mean over features of (mean of h(x) - mean of h(G(z)))^2, h the last hidden layer of D, x real
                     images: feature matching, which T. Salimans et al. use

If G is conditional, it is given a one-hot class beside z, and -log p(class asked | real) is added to either loss. The
better G obeys, the less the images without labels teach D (docs/games/semisupervised.md), so this weight starts at 0
and rises: D learns to classify first, G to obey afterwards.

Sources: T. Salimans et al., arXiv:1606.03498, sections 3.1 and 5; A. Odena, arXiv:1606.01583. The networks are in
:mod:`nanogan.models.semisupervised`, the columns come from :func:`nanogan.data.few_labels`: the labels of all other
images are not among them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nanogan import ops
from nanogan.backend import array_module, get_device, matmul_precision, seeded_rng, to_device
from nanogan.errors import UserError
from nanogan.games.dcgan import contradicting
from nanogan.games.drawing import draw_z, sample
from nanogan.games.game import Game, Options, lr_decay_option, lr_factor, option
from nanogan.layers.losses import FAKE, REAL, bce_backward, bce_forward, mean_probability
from nanogan.models import semisupervised
from nanogan.models.conditional import join, one_hot
from nanogan.optim import Adam, Ema

SHOWN, MAX_SHOWN = 8, 128  # samples of each class in a grid, and in all


@dataclass(frozen=True)
class SemiSupervisedOptions(Options):
    """The semi-supervised GAN's options, which are its flags."""

    image_size: int = option(28, "pixels", low=1, high=4096)
    latent: int = option(100, "elements of z, besides the class", low=1, high=1_000_000)
    width: int = option(500, "outputs of the first hidden layer of D and of all of G's", low=4, high=1_000_000)
    generator: str = option(
        "conditional",
        "conditional: G is asked for a class, which D is to find in the image; unconditional: G is given z alone",
        choices=("conditional", "unconditional"),
    )
    g_loss: str = option(
        "non-saturating",
        "what G minimises: non-saturating, -log p(real), the sum of the classes' probabilities; features, the distance "
        "between the mean features of real and generated images",
        choices=("non-saturating", "features"),
    )
    class_weight: float = option(
        0.2,
        "weight of -log p(class asked) in the loss of a conditional G at the end of the run",
        low=0,
        high=1000,
    )
    class_rise: float = option(
        2.0,
        "that weight is --class-weight times (share of the run done) to this power; 0: the same from the first step",
        low=0,
        high=100,
        metavar="POWER",
    )
    lr: float = option(3e-3, "Adam's learning rate", above=0, may_change=True)
    beta1: float = option(0.5, "Adam's first beta", low=0, high=0.999)
    lr_decay: str = lr_decay_option("linear")
    ema: float = option(
        0.999, "classify with an average of D's weights over about 1 / (1 - BETA) steps", low=0, high=0.999999,
        metavar="BETA",
    )  # fmt: skip


class Seen(NamedTuple):
    """What a step saw. D(.) are means of p(real), the sum of the classes' probabilities."""

    loss_d: np.ndarray  # loss_class + 1/2 (those of real and of generated images)
    loss_g: np.ndarray
    loss_class: np.ndarray  # of the labelled images
    d_real: np.ndarray  # D(x), x without labels
    d_fake_before: np.ndarray  # D(G(z)) before D's update
    d_fake_after: np.ndarray  # D(G(z)) after it


class SemiSupervisedGAN(Game):
    """shapes: {"images": (C, H, H), "labelled": (C, H, H), "labels": K}; ``labels`` are those of ``labelled``.

    Attributes: g, d, opt_g, opt_d, ema_d (:class:`nanogan.optim.Ema` of d), classes.
    """

    Options = SemiSupervisedOptions
    exports = {"generator.safetensors": "g", "discriminator.safetensors": "averaged_d"}
    curves = {
        "losses": ("loss_d", "loss_g"),
        "loss of the labelled images": ("loss_class",),
        "how real D finds images (1: real, 0: fake)": ("d_real", "d_fake_before"),
    }
    labels = {"loss_d": "Loss_D", "loss_g": "Loss_G", "d_real": "D(x)", "d_fake_before": "D(G(z)) before D's step"}
    labels |= {"loss_class": "class", "d_fake_after": "after"}
    images_per_row = SHOWN
    least_batch = 2

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        missing = {"images", "labelled", "labels"} - shapes.keys()
        if missing:
            raise UserError(
                "a semi-supervised GAN expected images, labelled images and their labels, got no "
                f"{' and no '.join(sorted(missing))}: nanogan.data.few_labels makes all three"
            )
        self.options, self.device, self.dtype = options, get_device(device), dtype
        self.classes = shapes["labels"]
        C, size, _ = shapes["images"]
        common = {"image_size": size, "channels": C, "width": options.width, "dtype": dtype}
        common["rng"] = seeded_rng(seed, "weights")
        asked = self.classes if options.generator == "conditional" else 0
        self.g = semisupervised.generator(latent=options.latent, classes=asked, **common).to(self.device)
        self.d = semisupervised.discriminator(classes=self.classes, **common).to(self.device)
        settings = {"lr": options.lr, "betas": (options.beta1, 0.999), "loss_scaling": matmul_precision() == "fp16"}
        self.opt_g, self.opt_d = Adam(self.g, **settings), Adam(self.d, **settings)
        self.ema_d = Ema(self.d, beta=options.ema)

    @property
    def averaged_d(self):
        """The discriminator that classifies: the average of D's weights."""
        return self.ema_d.average

    def draw(self, batches, rng, at):
        """The classes that G is asked for are uniform. There is no label of ``real``."""
        (batch,) = batches
        N, options = len(batch["images"]), self.options
        wanted = rng.integers(0, self.classes, N)
        return {
            "real": batch["images"],
            "labelled": batch["labelled"],
            "labels": batch["labels"],
            "z": draw_z(rng, N, options.latent, device=self.device, dtype=self.dtype),
            "wanted": to_device(wanted, self.device) if options.generator == "conditional" else None,
            "class_weight": options.class_weight * at.done**options.class_rise,
            "lr": options.lr * lr_factor(options, at),
        }

    def step(self, real, labelled, labels, z, wanted, class_weight, lr) -> Seen:
        self.opt_g.lr = self.opt_d.lr = lr
        half = 0.5 * self.opt_d.dloss

        # ---- D: a labelled image is of its class ...
        self.d.zero_grad()
        logits, cache = self.d.forward(labelled)  # (N, K)
        loss_class, loss_cache = ops.cross_entropy_forward(logits, labels)
        self.d.backward(ops.cross_entropy_backward(self.opt_d.dloss, loss_cache), cache, need_dx=False)

        # ... a real one is of one of the classes ...
        logits, cache = self.d.forward(real)
        real_logits, sum_cache = ops.logsumexp_forward(logits)  # (N, 1)
        loss_real, loss_cache = bce_forward(real_logits, REAL)
        self.d.backward(ops.logsumexp_backward(bce_backward(half, loss_cache), sum_cache), cache, need_dx=False)

        # ... a generated one is of none
        fake, g_cache = self.g.forward(self.asked(z, wanted))  # (N, C, H, W)
        logits, cache = self.d.forward(fake)
        fake_logits, sum_cache = ops.logsumexp_forward(logits)
        loss_fake, loss_cache = bce_forward(fake_logits, FAKE)
        self.d.backward(ops.logsumexp_backward(bce_backward(half, loss_cache), sum_cache), cache, need_dx=False)
        self.opt_d.step()
        self.ema_d.update()

        # ---- G: its images have the features of real ones, on average, or look real ...
        self.g.zero_grad()
        features, features_cache = self.d.features.forward(fake)  # (N, F)
        logits, head_cache = self.d.head.forward(features)  # (N, K)
        new_logits, sum_cache = ops.logsumexp_forward(logits)  # (N, 1)
        if self.options.g_loss == "features":
            of_real, _ = self.d.features.forward(real)
            loss_g, loss_cache = ops.feature_matching_forward(features, of_real, ranks=self.ranks)
            dfeatures = ops.feature_matching_backward(self.opt_g.dloss, loss_cache)
        else:
            loss_g, loss_cache = bce_forward(new_logits, REAL)
            dlogits = ops.logsumexp_backward(bce_backward(self.opt_g.dloss, loss_cache), sum_cache)
            dfeatures = self.d.head.backward(dlogits, head_cache, need_dw=False)
        # ... and are of the classes asked for
        if wanted is not None:
            loss_wanted, loss_cache = ops.cross_entropy_forward(logits, wanted)
            dlogits = ops.cross_entropy_backward(class_weight * self.opt_g.dloss, loss_cache)
            dfeatures = dfeatures + self.d.head.backward(dlogits, head_cache, need_dw=False)
            loss_g = loss_g + class_weight * loss_wanted
        self.g.backward(self.d.features.backward(dfeatures, features_cache, need_dw=False), g_cache, need_dx=False)
        self.opt_g.step()

        return Seen(
            loss_d=loss_class + 0.5 * (loss_real + loss_fake),
            loss_g=loss_g,
            loss_class=loss_class,
            d_real=mean_probability(real_logits),
            d_fake_before=mean_probability(fake_logits),
            d_fake_after=mean_probability(new_logits),
        )

    def asked(self, z, wanted):
        """What G is given: z, beside the one-hot classes ``wanted`` if there are any."""
        return z if wanted is None else join(z, one_hot(wanted, self.classes, dtype=self.dtype))

    def objectives(self, seen):
        return {"opt_d": seen.loss_d, "opt_g": seen.loss_g}

    def fixed(self, batches, rng):
        """A row of samples for each class, the same z in each row; rows of any z if G is unconditional."""
        conditional = self.options.generator == "conditional"
        rows = min(self.classes, MAX_SHOWN // SHOWN)
        count = SHOWN if conditional else rows * SHOWN
        z = draw_z(rng, count, self.options.latent, device=self.device, dtype=self.dtype)
        if not conditional:
            return z
        xp = array_module(z)
        return self.asked(xp.tile(z, (rows, 1)), xp.repeat(xp.arange(rows), SHOWN))

    def sample(self, fixed):
        return sample(self.g, fixed)

    @classmethod
    def generate(cls, network, count, options, rng, device):
        """Images of class 0, 1, ..., again and again, if G is conditional."""
        z = draw_z(rng, count, network.latent, device=device)
        if not network.classes:
            return sample(network, z)
        return sample(network, join(z, one_hot(array_module(z).arange(count) % network.classes, network.classes)))

    @classmethod
    def contradiction(cls, options, arrays):
        return contradicting(semisupervised.options_of, vars(options), arrays, ("image_size", "latent", "width"))


_TINY, _SHAPES = {"latent": 3, "width": 8, "class_rise": 0.5}, {"images": (2, 3, 3), "labelled": (2, 3, 3), "labels": 3}
EXAMPLES = {
    "semi-supervised GAN": (SemiSupervisedGAN, _TINY, _SHAPES),
    "semi-supervised GAN, unconditional": (SemiSupervisedGAN, _TINY | {"generator": "unconditional"}, _SHAPES),
    "semi-supervised GAN, features": (SemiSupervisedGAN, _TINY | {"g_loss": "features", "lr_decay": "none"}, _SHAPES),
    "semi-supervised GAN, unconditional, features": (
        SemiSupervisedGAN,
        _TINY | {"generator": "unconditional", "g_loss": "features"},
        _SHAPES,
    ),
}
