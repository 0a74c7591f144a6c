"""StackGAN: an image from a caption in two stages. H. Zhang et al., arXiv:1612.03242, section 3.

    caption   words (N, T) -> embedding, GRU -> text (N, E) -> linear -> mu and s (N, 2K) -> condition c (N, K)
    stage I   c and z (N, L) -> linear, maps of 4x4 -> doubled until S/2                       -> image (N, C, S/2, S/2)
    stage II  image of stage I -> maps of S/4, c appended to every pixel -> residual blocks -> doubled twice
                                                                                                -> image (N, C, S, S)
    D         image -> halved until 4x4, compared with the text                                 -> logits (N, 1)

The operations between text and condition are derived in :mod:`nanogan.ops.captions`. D knows the text itself, not the
condition that was drawn from it, and is asked whether an image is real *and* what the caption says. Each stage has its
G and D. Maps are doubled by repeating pixels, followed by a 3x3 convolution.

**Who trains the words?** The authors took vectors of sentences from a network that was trained before, on another task.
Here they are learned with the rest, by each network for itself: D's gradient reaches D's embedding, and G's gradient
G's. The two want different things (D to tell captions apart, G to vary what the caption does not fix), and an embedding
that both shared would be moved by D's step under G's feet.
"""

import itertools

import numpy as np

from nanogan.backend import to_numpy
from nanogan.errors import UserError
from nanogan.layers import (
    GRU,
    BatchNorm2d,
    Conv2d,
    Embedding,
    Flatten,
    Layer,
    LeakyReLU,
    Linear,
    ReLU,
    Reshape,
    Residual,
    Sequential,
    Tanh,
    Upsample,
    init,
)
from nanogan.models.dcgan import check_counts, plan
from nanogan.ops import (
    append_maps_backward,
    append_maps_forward,
    gaussian_sample_backward,
    gaussian_sample_forward,
    mean_words_backward,
    mean_words_forward,
    row_dot_backward,
    row_dot_forward,
)
from nanogan.ops.examples import integers
from nanogan.ops.rows import add

BLOCKS = 2  # residual blocks of stage II
TEXTS = ("gru", "mean")  # how words become a text
COMPARISONS = ("projection", "concat")  # how D compares a text with an image


class Text(Layer):
    """Captions (N, T), integers with 0 for no word, as vectors (N, size).

    kind "gru": the last state of a GRU that reads the words one after the other. "mean": the mean of the vectors of all
    words, in which their order is lost: "red on blue" is "blue on red".
    """

    def __init__(self, words, size, kind="gru", *, rng=None, dtype=np.float32):
        super().__init__()
        check_counts(words=words, size=size)
        if kind not in TEXTS:
            raise UserError(f"text expected one of {', '.join(TEXTS)}, got {kind!r}")
        rng = rng or np.random.default_rng()
        self.embedding = Embedding(words, size, rng=rng, dtype=dtype)
        self.gru = GRU(size, size, rng=rng, dtype=dtype) if kind == "gru" else None

    def forward(self, x, train=True):
        if x.ndim != 2:
            raise UserError(f"a text expected captions (N, T), got an array of shape {x.shape}")
        vectors, embedding_cache = self.embedding.forward(x, train=train)  # (N, T, size)
        if self.gru is None:
            y, text_cache = mean_words_forward(vectors, words=x)  # (N, size)
        else:
            y, text_cache = self.gru.forward(vectors, train=train, lengths=(x != 0).sum(axis=1))
        return y, (embedding_cache, text_cache)

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        """Add the words' gradients; return None, since integers have no gradient."""
        embedding_cache, text_cache = cache
        if self.gru is None:
            dvectors = mean_words_backward(dy, text_cache)
        else:
            dvectors = self.gru.backward(dy, text_cache, need_dw=need_dw)
        self.embedding.backward(dvectors, embedding_cache, need_dw=need_dw)


# ------------------------------------------------------------------------------------------------------- generators


class _Conditioned(Layer):
    """What the generators of both stages share: the caption, from its words to the condition.

    The words themselves, and some captions to show, are buffers, so that a file of weights can be asked in words.
    """

    def __init__(self, *, words, shown, text, text_size, condition, rng, dtype):
        super().__init__()
        check_counts(condition=condition)
        self.text = Text(len(words), text_size, text, rng=rng, dtype=dtype)
        self.moments = Linear(text_size, 2 * condition, rng=rng, dtype=dtype)
        self.buffers["words"] = np.frombuffer("\n".join(words).encode(), np.uint8).copy()
        self.buffers["shown"] = np.array(shown, np.int64).reshape(len(shown), -1)  # (captions, T)
        self.condition = condition

    @property
    def words(self):
        """The vocabulary, a tuple: captions are places in it."""
        return words_in(self.state_dict())

    def read(self, captions, noise, train):
        """Return the condition (N, K), its moments mu and s side by side (N, 2K), and the cache."""
        text, text_cache = self.text.forward(captions, train=train)  # (N, E)
        moments, linear_cache = self.moments.forward(text, train=train)  # (N, 2K): no activation
        c, sample_cache = gaussian_sample_forward(moments, noise=noise)  # (N, K)
        return c, moments, (text_cache, linear_cache, sample_cache)

    def read_backward(self, dc, dmoments, cache):
        """Add the gradients of the words and of the linear layer; ``dmoments`` is what the KL loss adds to dc's."""
        text_cache, linear_cache, sample_cache = cache
        dmoments = dmoments + gaussian_sample_backward(dc, sample_cache)
        dtext = self.moments.backward(dmoments, linear_cache)
        self.text.backward(dtext, text_cache)

    def load_state_dict(self, state):
        """As a layer's; raises UserError too if the weights were trained with other words."""
        words = state.get("words")
        if words is not None and words_in(state) != self.words:
            differing = sorted({*words_in(state)} ^ {*self.words})
            example = f" ({differing[0]!r:.40} is new or missing)" if differing else ", or in another order"
            raise UserError(
                f"these weights were trained with other words than the captions have now{example}: use the captions of "
                "their training"
            )
        super().load_state_dict(state)


class FirstStage(_Conditioned):
    """Images (N, channels, size, size), -1 to 1, from z (N, latent) and captions (N, T).

    Attributes: size, channels, latent, width, condition.
    """

    def __init__(self, *, size, channels, latent, width, rng=None, dtype=np.float32, **of_captions):
        rng = rng or np.random.default_rng()
        super().__init__(rng=rng, dtype=dtype, **of_captions)
        check_counts(channels=channels, latent=latent, width=width)
        self.size, self.channels, self.latent, self.width = size, channels, latent, width
        start, doublings = plan(size)
        widest = width * 2**doublings
        options = {"bias": False, "rng": rng, "dtype": dtype}
        self.paint = Sequential(
            Linear(self.condition + latent, widest * start * start, **options),
            Reshape(widest, start, start),
            BatchNorm2d(widest, dtype=dtype),
            ReLU(),
            *(layer for i in range(doublings) for layer in doubled(widest >> i, widest >> (i + 1), options)),
            *to_image(width, channels, options),
        )
        init.dcgan_(self.paint, rng)

    def forward(self, z, captions, noise, train=True):
        """Return (images, moments), which the KL loss takes, and the cache. noise (N, K) draws the condition."""
        c, moments, read_cache = self.read(captions, noise, train)
        joined = self.array_module.concatenate([c, z], axis=1)  # (N, K + L)
        images, paint_cache = self.paint.forward(joined, train=train)
        return (images, moments), (read_cache, paint_cache)

    def backward(self, dy, cache):
        """Add all gradients. dy: those of the images and of the moments."""
        dimages, dmoments = dy
        read_cache, paint_cache = cache
        djoined = self.paint.backward(dimages, paint_cache)
        self.read_backward(djoined[:, : self.condition], dmoments, read_cache)


class SecondStage(_Conditioned):
    """Images (N, channels, 2H, 2W), -1 to 1, from those of stage I (N, channels, H, W) and the same captions (N, T).

    Its text and its condition are its own. Attributes: channels, width, condition.
    """

    def __init__(self, *, channels, width, rng=None, dtype=np.float32, **of_captions):
        rng = rng or np.random.default_rng()
        super().__init__(rng=rng, dtype=dtype, **of_captions)
        check_counts(channels=channels, width=width)
        self.channels, self.width = channels, width
        options = {"bias": False, "rng": rng, "dtype": dtype}
        self.look = Sequential(  # H -> H/2
            Conv2d(channels, width, kernel_size=3, padding=1, **options), ReLU(),
            Conv2d(width, 2 * width, kernel_size=4, stride=2, padding=1, **options),
            BatchNorm2d(2 * width, dtype=dtype), ReLU(),
        )  # fmt: skip
        self.paint = Sequential(  # H/2 -> 2H
            Conv2d(2 * width + self.condition, 2 * width, kernel_size=3, padding=1, **options),
            BatchNorm2d(2 * width, dtype=dtype), ReLU(),
            *(layer for _ in range(BLOCKS) for layer in residual(2 * width, options)),
            *doubled(2 * width, width, options),
            *doubled(width, width, options),
            *to_image(width, channels, options),
        )  # fmt: skip
        for part in (self.look, self.paint):
            init.dcgan_(part, rng)

    def forward(self, images, captions, noise, train=True):
        """Return (larger images, moments), and the cache, as :meth:`FirstStage.forward`."""
        c, moments, read_cache = self.read(captions, noise, train)
        maps, look_cache = self.look.forward(images, train=train)  # (N, 2w, H/2, W/2)
        joined, append_cache = append_maps_forward(maps, c)  # (N, 2w + K, H/2, W/2)
        larger, paint_cache = self.paint.forward(joined, train=train)
        return (larger, moments), (read_cache, look_cache, append_cache, paint_cache)

    def backward(self, dy, cache):
        """Add all gradients, as :meth:`FirstStage.backward`; stage I's image, and so stage I, gets none."""
        dlarger, dmoments = dy
        read_cache, look_cache, append_cache, paint_cache = cache
        djoined = self.paint.backward(dlarger, paint_cache)
        dmaps, dc = append_maps_backward(djoined, append_cache)
        self.look.backward(dmaps, look_cache, need_dx=False)
        self.read_backward(dc, dmoments, read_cache)


class Stacked(Layer):
    """Both generators, which :func:`sample` and files take as one. Attributes: first, second; channels, latent."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second
        self.channels, self.latent = first.channels, first.latent


def doubled(wide, narrow, options):
    """Layers (N, wide, H, W) -> (N, narrow, 2H, 2W)."""
    convolution = Conv2d(wide, narrow, kernel_size=3, padding=1, **options)
    return [Upsample(scale_factor=2), convolution, BatchNorm2d(narrow, dtype=options["dtype"]), ReLU()]


def residual(width, options):
    """Layers of one residual block, x + f(x) with a ReLU behind."""
    return [
        Residual(
            Conv2d(width, width, kernel_size=3, padding=1, **options), BatchNorm2d(width, dtype=options["dtype"]),
            ReLU(),
            Conv2d(width, width, kernel_size=3, padding=1, **options), BatchNorm2d(width, dtype=options["dtype"]),
        ),
        ReLU(),
    ]  # fmt: skip


def to_image(width, channels, options):
    """Layers (N, width, H, W) -> (N, channels, H, W), -1 to 1."""
    return [Conv2d(width, channels, kernel_size=3, padding=1, **options), Tanh()]


def sample(network, captions, z, noise, *, batch_size=64):
    """Return images of a FirstStage, or of a Stacked, for captions (N, T), z (N, latent), and noise of each stage.

    noise: [(N, K)] or [(N, K), (N, K)]. In eval mode, as :func:`nanogan.games.drawing.sample`.
    """
    images = []
    for i in range(0, len(captions), batch_size):
        some = slice(i, i + batch_size)
        source = z[some]
        for stage, each in zip(stages_of(network), noise, strict=True):
            (source, _), _ = stage.forward(source, captions[some], each[some], train=False)
        images.append(source)
    return network.array_module.concatenate(images)


def stages_of(network):
    """The generators of a network, in their order: (FirstStage,) or (FirstStage, SecondStage)."""
    return (network.first, network.second) if isinstance(network, Stacked) else (network,)


# ---------------------------------------------------------------------------------------------------- discriminator


class Discriminator(Layer):
    """Logits (N, 1), above 0 for a real image (N, channels, size, size) that is what its caption (N, T) says.

    The image is looked at first, then compared with the caption: maps of one batch may be compared with several
    captions. ``compare`` says how:

        projection   a logit of the maps alone, and <features of the maps, text>, both linear: T. Miyato, M. Koyama,
                     arXiv:1802.05637. What the text changes about the logit is a product of both, from the first step
        concat       the paper's: the text appended to each pixel, a 1x1 convolution, BatchNorm, a logit. Its BatchNorm
                     sees right pairs in one batch and wrong ones in another, and a batch's statistics tell which it
                     is: D is sure of all its pairs without reading a caption. See docs/games/stackgan.md

    Attributes: size, channels, width, compare.
    """

    def __init__(
        self, *, size, channels, width, words, text, text_size, compare="projection", rng=None, dtype=np.float32
    ):
        super().__init__()
        if compare not in COMPARISONS:
            raise UserError(f"compare expected one of {', '.join(COMPARISONS)}, got {compare!r}")
        rng = rng or np.random.default_rng()
        check_counts(channels=channels, width=width)
        self.size, self.channels, self.width, self.compare = size, channels, width, compare
        start, halvings = plan(size)
        widest, own = width * 2 ** (halvings - 1), {"rng": rng, "dtype": dtype}
        options = {"bias": False, **own}
        layers = [Conv2d(channels, width, kernel_size=4, stride=2, padding=1, **options), LeakyReLU(negative_slope=0.2)]
        for narrow, wide in itertools.pairwise(width * 2**i for i in range(halvings)):
            layers += [Conv2d(narrow, wide, kernel_size=4, stride=2, padding=1, **options)]
            layers += [BatchNorm2d(wide, dtype=dtype), LeakyReLU(negative_slope=0.2)]
        self.look = init.dcgan_(Sequential(*layers), rng)
        self.text = Text(words, text_size, text, **own)
        self.project = Sequential(Linear(text_size, text_size, **own), LeakyReLU(negative_slope=0.2))
        if compare == "projection":
            self.features = Sequential(Flatten(), Linear(widest * start * start, text_size, **own))
            self.judge = Sequential(Conv2d(widest, 1, kernel_size=start, **own), Flatten())
            return
        self.judge = Sequential(
            Conv2d(widest + text_size, widest, kernel_size=1, **options), BatchNorm2d(widest, dtype=dtype),
            LeakyReLU(negative_slope=0.2),
            Conv2d(widest, 1, kernel_size=start, **options), Flatten(),
        )  # fmt: skip
        init.dcgan_(self.judge, rng)

    def forward(self, images, captions, train=True):
        maps, look_cache = self.look.forward(images, train=train)
        logits, match_cache = self.match(maps, captions, train=train)
        return logits, (look_cache, match_cache)

    def backward(self, dlogits, cache, need_dx=True, need_dw=True):
        """Return the gradient of the images; captions have none."""
        look_cache, match_cache = cache
        dmaps = self.match_backward(dlogits, match_cache, need_dw=need_dw)
        return self.look.backward(dmaps, look_cache, need_dx=need_dx, need_dw=need_dw)

    def match(self, maps, captions, train=True):
        """Return logits of maps that ``look`` made (N, F, 4, 4), compared with captions, and the cache."""
        text, text_cache = self.text.forward(captions, train=train)  # (N, E)
        text, project_cache = self.project.forward(text, train=train)
        if self.compare == "projection":
            features, features_cache = self.features.forward(maps, train=train)  # (N, E)
            agreement, joined_cache = row_dot_forward(features, text)  # (N, 1)
            logits, judge_cache = self.judge.forward(maps, train=train)
            logits = logits + agreement
        else:
            features_cache = None
            joined, joined_cache = append_maps_forward(maps, text)  # (N, F + E, 4, 4)
            logits, judge_cache = self.judge.forward(joined, train=train)
        return logits, (text_cache, project_cache, features_cache, joined_cache, judge_cache)

    def match_backward(self, dlogits, cache, need_dw=True):
        """Return dmaps (N, F, 4, 4); the gradients of the words and of all that reads them are added."""
        text_cache, project_cache, features_cache, joined_cache, judge_cache = cache
        if self.compare == "projection":
            dfeatures, dtext = row_dot_backward(dlogits, joined_cache, need_dw=need_dw)
            dmaps = add(
                self.judge.backward(dlogits, judge_cache, need_dw=need_dw),
                self.features.backward(dfeatures, features_cache, need_dw=need_dw),
            )
        else:
            djoined = self.judge.backward(dlogits, judge_cache, need_dw=need_dw)
            dmaps, dtext = append_maps_backward(djoined, joined_cache, need_dw=need_dw)
        if need_dw:  # captions have no gradient: their part ends here
            dtext = self.project.backward(dtext, project_cache)
            self.text.backward(dtext, text_cache)
        return dmaps


# ------------------------------------------------------------------------------------------------------------- files


def words_in(state):
    """The vocabulary in a generator's state dict, a tuple of words that starts with ""."""
    return tuple(bytes(to_numpy(state["words"])).decode().split("\n"))


def network_of(state):
    """Return a FirstStage or a Stacked with the weights in ``state``: its state dict, or the arrays of a game.

    Its sizes are inferred from the shapes of the arrays. Raises UserError if they are not of such a network, before
    anything is built that would be larger than ``state``.
    """
    names = ("g1.", "g.") if any(name.startswith("g1.") for name in state) else ("first.", "second.", "g.")
    parts = [{k.removeprefix(part): a for k, a in state.items() if k.startswith(part)} for part in names]
    first, *second = [part for part in parts if part] or [state]
    try:
        stages = [FirstStage(**options_of(first)), *(SecondStage(**second_options_of(part)) for part in second)]
        for stage, arrays in zip(stages, [first, *second], strict=True):
            stage.load_state_dict(arrays)
    except NOT_OF_ONE as error:
        raise UserError(f"a StackGAN's generator was expected ({error})") from None
    return Stacked(*stages) if second else stages[0]


NOT_OF_ONE = (KeyError, ValueError, IndexError, TypeError, ZeroDivisionError)  # a UserError is a ValueError


def options_of(state):
    """Infer :class:`FirstStage`'s options from its state dict; raises KeyError, ValueError or others if it is none."""
    names = [name for name in state if name.startswith("paint.") and state[name].ndim == 4]
    if not names:
        raise KeyError("no convolutions of stage I")
    last = max(names, key=lambda name: int(name.split(".")[1]))
    channels, width = state[last].shape[:2]
    doublings, (rows, inputs) = len(names) - 1, state["paint.0.weight"].shape
    of_captions, count = _of_captions(state)
    widest = width * 2**doublings
    count += inputs * rows + 2 * widest + 9 * width * channels
    count += sum(18 * narrow**2 + 2 * narrow for narrow in (width * 2**i for i in range(doublings)))
    _compare_counts(state, count)
    size = round((rows / widest) ** 0.5) * 2**doublings
    latent = inputs - of_captions["condition"]
    return {"size": size, "channels": channels, "latent": latent, "width": width} | of_captions


def second_options_of(state):
    """Infer :class:`SecondStage`'s options from its state dict, as :func:`options_of`."""
    width, channels = state["look.0.weight"].shape[:2]
    of_captions, count = _of_captions(state)
    count += 9 * channels * width + 32 * width**2 + 4 * width  # look
    count += 18 * (2 * width + of_captions["condition"]) * width + 4 * width
    count += BLOCKS * (72 * width**2 + 8 * width) + 27 * width**2 + 4 * width + 9 * width * channels
    _compare_counts(state, count)
    return {"channels": channels, "width": width} | of_captions


def _of_captions(state):
    """The options that both stages share, and the number of parameters that go with them."""
    words, E = state["text.embedding.weight"].shape
    condition = state["moments.weight"].shape[0] // 2
    text = "gru" if "text.gru.weight_ih_l0" in state else "mean"
    if len(words_in(state)) != words:
        raise ValueError(f"{len(words_in(state))} words where the embedding has {words}")
    known = {"words": words_in(state), "shown": state["shown"], "text": text, "text_size": E, "condition": condition}
    return known, words * E + (E + 1) * 2 * condition + (6 * E * E + 6 * E if text == "gru" else 0)


def _compare_counts(state, expected):
    """Raise ValueError unless ``state`` has as many parameters as the network that would be built."""
    kinds = ".weight", ".bias"
    found = sum(array.size for name, array in state.items() if name.endswith(kinds) or ".gru." in name)
    if found != expected:
        raise ValueError(f"{found} parameters where {expected} were expected")


# ---------------------------------------------------------------------------------- what the gradient checks are given


def _text(kind):
    return lambda: Text(5, 3, kind, rng=np.random.default_rng(11))


EXAMPLES = {
    "StackGAN's text, mean": (_text("mean"), integers(5, 4, 6)),
    "StackGAN's text, gru": (_text("gru"), integers(5, 4, 6)),
}
