"""StackGAN's networks beside torch's modules of the same names, and files that are not trusted."""

import numpy as np
import pytest
import torch

from nanogan import checkpoint
from nanogan.errors import UserError
from nanogan.games.game import At
from nanogan.games.stackgan import StageOne, StageTwo
from nanogan.gradcheck.games import random_batches
from nanogan.models import stackgan
from nanogan.models.stackgan import Discriminator, FirstStage, SecondStage, Stacked, Text, network_of

WORDS = ("", "a", "cat", "red", "on")
OF_CAPTIONS = {"words": WORDS, "shown": [[1, 2, 0], [3, 2, 0]], "text_size": 3, "condition": 2}


D = {"size": 16, "channels": 2, "width": 2, "words": 5, "text": "gru", "text_size": 3}


def first(text="gru", seed=0, **options):
    sizes = {"size": 8, "channels": 2, "latent": 3, "width": 2, "dtype": np.float64} | OF_CAPTIONS | options
    return FirstStage(text=text, rng=np.random.default_rng(seed), **sizes)


def second(text="mean", **options):
    sizes = {"channels": 2, "width": 2, "dtype": np.float64} | OF_CAPTIONS | options
    return SecondStage(text=text, rng=np.random.default_rng(1), **sizes)


def arrays(count, rng):
    captions = rng.integers(1, 5, (count, 3))
    captions[::2, 2] = 0
    return captions, rng.standard_normal((count, 3)), [rng.standard_normal((count, 2)) for _ in range(2)]


# ----------------------------------------------------------------------------------------------------------- texts


def test_a_mean_of_words_does_not_know_their_order():
    red_on_blue, blue_on_red = np.array([[1, 4, 3]]), np.array([[3, 4, 1]])
    mean, gru = (Text(5, 3, kind, rng=np.random.default_rng(0)) for kind in ("mean", "gru"))
    np.testing.assert_allclose(mean.forward(red_on_blue)[0], mean.forward(blue_on_red)[0], rtol=1e-6)
    assert abs(gru.forward(red_on_blue)[0] - gru.forward(blue_on_red)[0]).max() > 0.01


@pytest.mark.parametrize("kind", ["mean", "gru"])
def test_a_text_is_its_words_alone(kind, rng):
    """Padding counts for nothing."""
    text = Text(5, 3, kind, rng=rng, dtype=np.float64)
    short, _ = text.forward(np.array([[2, 3, 0]]))
    longer, _ = text.forward(np.array([[2, 3, 0, 0, 0]]))
    np.testing.assert_allclose(short, longer)
    vectors = text.embedding.params["weight"]
    if kind == "mean":
        np.testing.assert_allclose(short[0], (vectors[2] + vectors[3]) / 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Text(5, 3, "lstm"), "text expected one of gru, mean, got 'lstm'"),
        (lambda: Text(0, 3), "words expected a whole number of at least 1, got 0"),
        (lambda: Text(5, 3).forward(np.zeros(3, int)), r"expected captions \(N, T\), got an array of shape \(3,\)"),
        (lambda: Discriminator(**D, compare="sum"), "compare expected one of projection, concat, got 'sum'"),
        (lambda: first(condition=0), "condition expected a whole number of at least 1"),
        (lambda: first(size=9), "cannot draw pictures of 9 pixels"),
    ],
)
def test_a_callers_mistake_gets_one_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()


# -------------------------------------------------------------------------------------------------------- networks


def test_a_generators_caption_fixes_all_but_what_is_drawn(rng):
    captions, z, noise = arrays(6, rng)
    network = Stacked(first(), second())
    for _, parameter, _ in network.named_parameters():  # at the initial 0.02 all differences are tiny
        parameter += 0.3 * rng.standard_normal(parameter.shape)
    images = stackgan.sample(network, captions, z, noise)
    assert images.shape == (6, 2, 16, 16)
    np.testing.assert_allclose(stackgan.sample(network, captions, z, noise, batch_size=4), images)
    for changed in ((captions[::-1], z, noise), (captions, -z, noise), *((captions, z, n) for n in flips(noise))):
        assert abs(stackgan.sample(network, *changed) - images).max() > 1e-6
    small = stackgan.sample(network.first, captions, z, noise[:1])
    assert small.shape == (6, 2, 8, 8)


def flips(noise):
    return [-noise[0], noise[1]], [noise[0], -noise[1]]


@pytest.mark.parametrize("compare", ["projection", "concat"])
def test_one_batch_of_maps_may_be_compared_with_several_captions(compare, rng):
    d = Discriminator(**D, compare=compare, rng=rng, dtype=np.float64)
    images, captions = rng.standard_normal((4, 2, 16, 16)), rng.integers(1, 5, (4, 3))
    maps, look_cache = d.look.forward(images)
    logits, cache = d.match(maps, captions)
    whole, whole_cache = d.forward(images, captions)
    np.testing.assert_array_equal(logits, whole)
    dlogits = rng.standard_normal(logits.shape)
    expected = d.backward(dlogits, whole_cache)
    gradients = {name: gradient.copy() for name, _, gradient in d.named_parameters()}
    assert all(abs(gradient).max() > 0 for gradient in gradients.values())
    d.zero_grad()
    np.testing.assert_array_equal(d.look.backward(d.match_backward(dlogits, cache), look_cache), expected)
    for name, _, gradient in d.named_parameters():
        np.testing.assert_array_equal(gradient, gradients[name])
    d.zero_grad()
    np.testing.assert_array_equal(d.backward(dlogits, whole_cache, need_dw=False), expected)
    assert all((gradient == 0).all() for _, _, gradient in d.named_parameters())
    assert d.backward(dlogits, whole_cache, need_dx=False) is None


# ----------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("text", ["mean", "gru"])
@pytest.mark.parametrize("size", [8, 20])
def test_a_file_opens_with_its_words_and_all_sizes(tmp_path, text, size, rng):
    captions, z, noise = arrays(3, rng)
    single = {"dtype": np.float32}
    for network in (
        first(text, size=size, **single),
        Stacked(first(text, size=size, **single), second(text, **single)),
    ):
        checkpoint.save(tmp_path / "g.safetensors", network)
        loaded = network_of(checkpoint.read(tmp_path / "g.safetensors"))
        assert type(loaded) is type(network)
        inputs = (
            captions,
            z.astype(np.float32),
            [n.astype(np.float32) for n in noise][: len(stackgan.stages_of(loaded))],
        )
        np.testing.assert_array_equal(stackgan.sample(loaded, *inputs), stackgan.sample(network, *inputs))
        one = stackgan.stages_of(loaded)[0]
        assert (one.words, one.buffers["shown"].tolist()) == (WORDS, OF_CAPTIONS["shown"])


@pytest.mark.parametrize("game_class", [StageOne, StageTwo])
def test_a_runs_checkpoint_opens_too(tmp_path, game_class):
    options = game_class.Options(image_size=16, latent=3, width=2, d_width=2, condition=2, text_size=3)
    size = game_class.size_of(options)
    shapes = {"images": (2, size, size), "captions": {"words": WORDS, "shown": [[1, 2, 0]]}}
    game = game_class(options, shapes)
    batches = random_batches(shapes, 1, np.random.default_rng(0))
    batches[0]["images"] = batches[0]["images"].astype(np.float32)
    game.step(**game.draw(batches, np.random.default_rng(0), At(1, 1, 2)))
    checkpoint.save_training(tmp_path / "last.safetensors", game, checkpoint.Progress(1, 1, 1, 1, 1.0))
    loaded = network_of(checkpoint.read(tmp_path / "last.safetensors"))
    expected = game.generator.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, array in loaded.state_dict().items():
        np.testing.assert_array_equal(array, expected[name])


def grown(name, *shape):
    return lambda state: state.update({name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.clear(),
        lambda state: state.pop("first.words"),
        lambda state: state.pop("first.moments.weight"),
        lambda state: state.pop("second.look.0.weight"),
        grown("first.paint.0.weight", 10**4, 5),
        grown("first.paint.9.weight", 2, 60, 1, 1),
        grown("second.look.0.weight", 60, 2, 3, 3),
        grown("second.text.embedding.weight", 5, 600),
        grown("first.text.embedding.weight", 5),
        lambda state: state.update({"second.words": np.frombuffer(b"\xff\xfe", np.uint8)}),
        lambda state: state.update({"second.words": np.frombuffer(b"\na\ncat\nred", np.uint8)}),
        lambda state: state.update({"first.words": np.full(10**4, 10, np.uint8)}),
    ],
)
def test_nothing_is_built_that_a_file_does_not_hold(spoil, monkeypatch):
    state = dict(Stacked(first(dtype=np.float32), second(dtype=np.float32)).state_dict())
    spoil(state)
    built = []
    for kind in (FirstStage, SecondStage):
        make = kind.__init__
        monkeypatch.setattr(kind, "__init__", lambda self, make=make, **o: (make(self, **o), built.append(self))[0])
    with pytest.raises(UserError, match="a StackGAN's generator was expected"):
        network_of(state)
    assert all(network.parameter_count() < 3000 for network in built)


def test_weights_of_other_words_are_refused():
    other = first(words=("", "a", "dog", "red", "on"))
    with pytest.raises(UserError, match="these weights were trained with other words than the captions have now"):
        first().load_state_dict(other.state_dict())


def test_the_modules_of_torch_have_the_same_names():
    """tests/games/test_stackgan.py computes with them."""
    from tests.games.stackgan_of_torch import D as TorchsD
    from tests.games.stackgan_of_torch import First, Second

    pairs = [(first(), First(8, 2, 3, 2, "gru", 5, 3, 2)), (second(), Second(2, 2, "mean", 5, 3, 2))]
    pairs += [(Discriminator(**D, compare=c), TorchsD(16, 2, 2, "gru", 5, 3, c)) for c in ("projection", "concat")]
    for ours, theirs in pairs:
        shapes = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
        own = {name: array.shape for name, array in ours.state_dict().items() if name not in ("words", "shown")}
        assert own == shapes
        assert ours.parameter_count() == sum(p.numel() for p in theirs.parameters())
        assert isinstance(theirs, torch.nn.Module)
