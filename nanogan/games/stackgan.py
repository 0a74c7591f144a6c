"""StackGAN: a caption to an image in two stages, each a game of its own. H. Zhang et al., arXiv:1612.03242, section 3.

Both stages take the same step. What G starts from differs: z in stage I; in stage II an image of stage I, whose
generator is frozen, its BatchNorm's statistics too. D learns what belongs together: a real image with its own caption
is real; a real image with the caption of another one is *wrong*; so is a fake one. Without the wrong pairs D could
ignore the caption, and G then would.

    D minimises  -log D(x, t) - 1/2 log(1 - D(x, t')) - 1/2 log(1 - D(G, t))          t' a caption unlike t
    G minimises  -log D(G, t) + kl * mean_k KL(N(mu_k, exp(s_k)^2) || N(0, 1))

The networks, and who learns the words, are in :mod:`nanogan.models.stackgan`; the KL divergence is derived in
:mod:`nanogan.ops.captions`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nanogan.backend import array_module, get_device, matmul_precision, seeded_rng, to_device
from nanogan.errors import UserError
from nanogan.games.drawing import draw_z
from nanogan.games.game import Game, Options, lr_decay_option, lr_factor, option
from nanogan.layers.losses import FAKE, REAL, bce_backward, bce_forward, mean_probability
from nanogan.models import stackgan
from nanogan.models.dcgan import plan
from nanogan.ops import gaussian_kl_backward, gaussian_kl_forward
from nanogan.optim import Adam

PER_CAPTION = 8  # samples of each caption in a grid


@dataclass(frozen=True)
class StackOptions(Options):
    """The options of both stages, which are their flags."""

    image_size: int = option(32, "pixels of stage II's images; stage I's have half of them", low=16, high=8192)
    latent: int = option(32, "elements of z, which stage I alone is given", low=1, high=1_000_000)
    condition: int = option(64, "elements of the condition that is drawn for a caption", low=1, high=1_000_000)
    text: str = option(
        "gru",
        "how words become a text: gru, which reads one after the other; mean, of the words' vectors, in which their "
        "order is lost",
        choices=stackgan.TEXTS,
    )
    text_size: int = option(32, "elements of a word's vector, and of a text's", low=1, high=1_000_000)
    width: int = option(16, "channels of G's largest map", low=1, high=1_000_000)
    d_width: int = option(32, "channels of D's largest map", low=1, high=1_000_000)
    compare: str = option(
        "projection",
        "how D compares an image with a text: projection, their inner product; concat, the paper's, which needs longer "
        "runs",
        choices=stackgan.COMPARISONS,
    )
    near: float = option(
        0.5,
        "share of the wrong captions that have as many words as possible in common with the right one; of the others "
        "any is taken",
        low=0,
        high=1,
    )
    kl: float = option(2.0, "weight of the KL divergence in G's loss", low=0, high=1000)
    lr: float = option(2e-3, "Adam's learning rate; the paper's 2e-4 suits wide networks", above=0, may_change=True)
    beta1: float = option(0.5, "Adam's first beta", low=0, high=0.999)
    lr_decay: str = lr_decay_option("linear")

    def __post_init__(self):
        super().__post_init__()
        if self.image_size % 2:
            raise UserError(f"image_size expected an even number, of which stage I has half, got {self.image_size}")
        plan(self.image_size // 2, scale=2)


class Seen(NamedTuple):
    """What a step saw, each a number on the networks' device; d_* are means of D's probabilities."""

    loss_d: np.ndarray
    loss_g: np.ndarray  # with the KL term
    loss_kl: np.ndarray  # before its weight
    d_real: np.ndarray  # D(x, t)
    d_wrong: np.ndarray  # D(x, t')
    d_fake_before: np.ndarray  # D(G, t) before D's update
    d_fake_after: np.ndarray  # D(G, t) after it


class StageOne(Game):
    """Small images from captions and z.

    shapes: {"images": (C, S, S), "captions": {"words": ..., "shown": ...}}, S half of image_size. Attributes: g, d,
    opt_g, opt_d.
    """

    Options = StackOptions
    exports = {"generator.safetensors": "g"}
    curves = {
        "losses": ("loss_d", "loss_g", "loss_kl"),
        "how real D finds images (1: real, 0: fake)": ("d_real", "d_wrong", "d_fake_before"),
    }
    labels = {
        "loss_d": "Loss_D", "loss_g": "Loss_G", "loss_kl": "KL", "d_real": "D(x, t)", "d_wrong": "D(x, wrong)",
        "d_fake_before": "D(G, t)", "d_fake_after": "D(G, t) after D's step",
    }  # fmt: skip
    images_per_row = PER_CAPTION

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        if "captions" not in shapes:
            raise UserError(
                "StackGAN expected images with captions, got images alone: use the captioned digits, or a folder with "
                "a captions.csv"
            )
        (C, size, _), self.captions = shapes["images"], shapes["captions"]
        if size != self.size_of(options):
            raise UserError(f"this stage of image_size {options.image_size} expected images of "
                            f"{self.size_of(options)} pixels, got {size}")  # fmt: skip
        self.options, self.device, self.dtype = options, get_device(device), dtype
        common = {"channels": C, "text": options.text, "text_size": options.text_size}
        common |= {"rng": seeded_rng(seed, "weights"), "dtype": dtype}
        self._make_generators(common | self.captions | {"width": options.width, "condition": options.condition})
        sizes = {"size": size, "width": options.d_width, "words": len(self.captions["words"])}
        sizes["compare"] = options.compare
        self.d = stackgan.Discriminator(**common | sizes).to(self.device)
        settings = {"lr": options.lr, "betas": (options.beta1, 0.999), "loss_scaling": matmul_precision() == "fp16"}
        self.opt_g, self.opt_d = Adam(self.g, **settings), Adam(self.d, **settings)

    def _make_generators(self, sizes):
        first = self.options.image_size // 2
        self.g = stackgan.FirstStage(size=first, latent=self.options.latent, **sizes).to(self.device)

    @classmethod
    def size_of(cls, options):
        """The size of this stage's images."""
        return options.image_size // 2

    @property
    def generator(self):
        """What makes images of captions: of this stage, and of those before it."""
        return self.g

    def draw(self, batches, rng, at):
        """For each caption a wrong one, of another image of the batch, which differs in at least one word."""
        (batch,) = batches
        captions, N = batch["captions"], len(batch["captions"])
        xp = array_module(captions)
        differs = (captions[:, None] != captions[None]).any(axis=2)  # (N, N)
        same = (captions[:, None] == captions[None]) & (captions[:, None] != 0)  # (N, N, T); 0 fills a short caption up
        shared = same.sum(axis=2)  # (N, N), words in the same places
        keys = to_device(1 + rng.random((N, N), dtype=np.float32), self.device)
        is_near = to_device(rng.random((N, 1)) < self.options.near, self.device)
        others = ((keys + 2 * is_near * shared) * differs).argmax(axis=1)  # (N,): the largest key of those that differ
        return {
            "real": batch["images"],
            "captions": captions,
            "wrong": captions[others],
            "is_wrong": xp.any(differs, axis=1, keepdims=True).astype(self.dtype),  # 0 where no caption differs
            "source": draw_z(rng, N, self.options.latent, "normal", self.device, self.dtype),
            "noise": self._draw_noise(rng, N),
            "lr": self.options.lr * lr_factor(self.options, at),
        }

    def _draw_noise(self, rng, count):
        return draw_z(rng, count, self.options.condition, "normal", self.device, self.dtype)

    def step(self, real, captions, wrong, is_wrong, source, noise, lr) -> Seen:
        self.opt_g.lr = self.opt_d.lr = lr

        # ---- D: a real image with its caption is real, with another one's caption it is not. Both pairs are of the
        # same images, so D looks at them once, and the gradients of both pairs add up at the maps that it saw.
        self.d.zero_grad()
        maps, look_cache = self.d.look.forward(real)
        real_logits, cache = self.d.match(maps, captions)
        loss_real, loss_cache = bce_forward(real_logits, REAL)
        dmaps = self.d.match_backward(bce_backward(self.opt_d.dloss, loss_cache), cache)
        wrong_logits, cache = self.d.match(maps, wrong)
        loss_wrong, loss_cache = bce_forward(wrong_logits, FAKE, weight=is_wrong)
        dmaps += self.d.match_backward(bce_backward(0.5 * self.opt_d.dloss, loss_cache), cache)
        self.d.look.backward(dmaps, look_cache, need_dx=False)

        # ... and a fake image is not, though it was made for its caption. In stage II ``source`` is an image of stage
        # I, in stage I it is z.
        (fake, moments), g_cache = self.g.forward(source, captions, noise)
        fake_logits, cache = self.d.forward(fake, captions)
        loss_fake, loss_cache = bce_forward(fake_logits, FAKE)
        self.d.backward(bce_backward(0.5 * self.opt_d.dloss, loss_cache), cache, need_dx=False)
        self.opt_d.step()

        # ---- G: its images are to look real and as their captions say. The KL loss has a gradient of its own, which
        # enters G at the moments mu and s, and adds to what comes back from the image.
        self.g.zero_grad()
        new_logits, cache = self.d.forward(fake, captions)
        loss_image, loss_cache = bce_forward(new_logits, REAL)
        loss_kl, kl_cache = gaussian_kl_forward(moments)
        dfake = self.d.backward(bce_backward(self.opt_g.dloss, loss_cache), cache, need_dw=False)
        dmoments = gaussian_kl_backward(self.options.kl * self.opt_g.dloss, kl_cache)
        self.g.backward((dfake, dmoments), g_cache)
        self.opt_g.step()

        return Seen(
            loss_d=loss_real + 0.5 * (loss_wrong + loss_fake),
            loss_g=loss_image + self.options.kl * loss_kl,
            loss_kl=loss_kl,
            d_real=mean_probability(real_logits),
            d_wrong=mean_probability(wrong_logits),
            d_fake_before=mean_probability(fake_logits),
            d_fake_after=mean_probability(new_logits),
        )

    def objectives(self, seen):
        return {"opt_d": seen.loss_d, "opt_g": seen.loss_g}

    def fixed(self, batches, rng):
        """A row of samples for each caption that is shown, the same z and noise in each row."""
        shown = to_device(np.array(self.captions["shown"], np.int64), self.device)
        xp, rows = array_module(shown), len(shown)
        z, noise = _random_inputs(self.generator, PER_CAPTION, rng, self.device, self.dtype)
        return xp.repeat(shown, PER_CAPTION, axis=0), xp.tile(z, (rows, 1)), [xp.tile(e, (rows, 1)) for e in noise]

    def sample(self, fixed):
        return stackgan.sample(self.generator, *fixed)

    @classmethod
    def generate(cls, network, count, options, rng, device):
        """Images of the captions in the network's ``shown``, one after the other, again and again."""
        shown = stackgan.stages_of(network)[0].buffers["shown"]
        return images_of(network, shown[array_module(shown).arange(count) % len(shown)], rng, device)

    @classmethod
    def contradiction(cls, options, arrays):
        return _contradiction(options, arrays, "g.")


def images_of(network, captions, rng, device="cpu", dtype=np.float32):
    """Return images of a generator of :mod:`nanogan.models.stackgan` for captions (N, T) on ``device``."""
    return stackgan.sample(network, captions, *_random_inputs(network, len(captions), rng, device, dtype))


def _random_inputs(network, count, rng, device, dtype):
    """z (count, L), and [noise (count, K), ...] for each stage."""
    stages = stackgan.stages_of(network)
    sizes = [stages[0].latent, *(stage.condition for stage in stages)]
    z, *noise = (draw_z(rng, count, size, "normal", device, dtype) for size in sizes)
    return z, noise


def _contradiction(options, arrays, prefix):
    """What arrays named ``prefix`` say against the options of stage I; None if nothing."""
    state = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    try:
        sizes = stackgan.options_of(state)
    except stackgan.NOT_OF_ONE as error:
        return f"it is not of such a game: {error}"
    name = differing(options, sizes)
    asked = asked_of_first(options)
    return name and f"it contradicts itself: its {name} is {asked[name]}, its arrays' {sizes[name]}"


def asked_of_first(options):
    """{name: size} of stage I's generator, as its options ask for them."""
    names = ("latent", "condition", "text", "text_size", "width")
    return {name: getattr(options, name) for name in names} | {"size": options.image_size // 2}


def differing(options, sizes):
    """The name of an option that is not what ``sizes``, those of a FirstStage, say; None if there is none."""
    return next((name for name, value in asked_of_first(options).items() if sizes[name] != value), None)


class StageTwo(StageOne):
    """Images of twice the size, from those of a trained stage I, which stays as it is, and the same captions.

    shapes as for stage I, with images of image_size pixels. Attributes: g1 (stage I's generator), g, d, opt_g, opt_d.
    """

    exports = {"generator.safetensors": "generator"}
    first = None  # a trained FirstStage; without one, stage I's weights are random

    @classmethod
    def after(cls, network):
        """Return this game with ``network``, a trained FirstStage, as its stage I."""
        return type(cls.__name__, (cls,), {"first": network, "__module__": cls.__module__})

    @classmethod
    def size_of(cls, options):
        return options.image_size

    @property
    def generator(self):
        return stackgan.Stacked(self.g1, self.g)

    def _make_generators(self, sizes):
        super()._make_generators(sizes)
        self.g1 = self.g  # it has no optimiser: frozen
        if self.first is not None:
            self._take_first(self.first.state_dict())
        self.g = stackgan.SecondStage(**sizes).to(self.device)

    def _take_first(self, state):
        sizes = stackgan.options_of(state)
        name = differing(self.options, sizes)
        if name is not None:
            asked = asked_of_first(self.options)[name]
            raise UserError(
                f"stage II expected a stage I with {name} {asked}, got one that was trained with {name} {sizes[name]}: "
                "give both stages the same options"
            )
        try:
            self.g1.load_state_dict(state)
        except UserError as error:
            source = getattr(self.first, "path", "this stage I")
            raise UserError(f"stage II cannot start from {source}: {error}") from None

    def draw(self, batches, rng, at):
        drawn = super().draw(batches, rng, at)
        return drawn | {"first_noise": self._draw_noise(rng, len(drawn["noise"])), "z": drawn.pop("source")}

    def step(self, z, first_noise, captions, **inputs) -> Seen:
        # train=False: BatchNorm takes stage I's running statistics, and leaves them as they are
        (image, _), _ = self.g1.forward(z, captions, first_noise, train=False)
        return super().step(source=image, captions=captions, **inputs)

    @classmethod
    def contradiction(cls, options, arrays):
        return _contradiction(options, arrays, "g1.")


_CAPTIONS = {"words": ("", "red", "blue", "on"), "shown": [[1, 3, 2], [2, 0, 0]]}
_TINY = {"image_size": 16, "latent": 2, "condition": 2, "text_size": 3, "width": 2, "d_width": 2}
EXAMPLES = {
    "StackGAN, stage I": (StageOne, _TINY | {"text": "mean"}, {"images": (2, 8, 8), "captions": _CAPTIONS}),
    "StackGAN, stage II": (
        StageTwo,
        _TINY | {"kl": 0.7, "compare": "concat"},
        {"images": (2, 16, 16), "captions": _CAPTIONS},
    ),
}
