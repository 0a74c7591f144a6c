"""StackGAN's steps beside torch's autograd, and what is drawn for them."""

import dataclasses

import numpy as np
import pytest
import torch

from nanogan.backend import to_device, to_numpy
from nanogan.errors import UserError
from nanogan.games.game import At
from nanogan.games.stackgan import StackOptions, StageOne, StageTwo, images_of
from nanogan.models import stackgan
from tests.games import stackgan_of_torch as theirs

N, C, SIZE, LATENT, CONDITION, TEXT, WIDTH, D_WIDTH = 6, 2, 16, 3, 2, 3, 2, 3
WORDS = ("", "a", "red", "cat", "on")
TINY = {
    "image_size": SIZE,
    "latent": LATENT,
    "condition": CONDITION,
    "text_size": TEXT,
    "width": WIDTH,
    "d_width": D_WIDTH,
}
CAPTIONS = {"words": WORDS, "shown": [[1, 2, 3], [3, 0, 0]]}
F = torch.nn.functional


def made(game_class, dtype=np.float64, device="cpu", **options):
    options = StackOptions(**TINY | options)
    size = game_class.size_of(options)
    return game_class(options, {"images": (C, size, size), "captions": CAPTIONS}, device, seed=1, dtype=dtype)


def batch_of(game, rng, captions=None):
    size = game.size_of(game.options)
    if captions is None:
        captions = rng.integers(1, 5, (N, 3))
        captions[::2, 2] = 0  # some are shorter
    captions = np.array(captions)
    return {"images": rng.uniform(-1, 1, (len(captions), C, size, size)).astype(game.dtype), "captions": captions}


def played(game, steps):
    """What the game's steps were given and returned, after the weights were made larger: gradients to be seen."""
    rng = np.random.default_rng(3)
    for network in game.networks().values():
        for _, parameter, _ in network.named_parameters():
            parameter += 0.3 * rng.standard_normal(parameter.shape)
    start = {name: {k: a.copy() for k, a in net.state_dict().items()} for name, net in game.networks().items()}
    inputs, seen = [], []
    for i in range(1, steps + 1):
        inputs.append(game.draw([batch_of(game, rng)], rng, At(i, 1, steps, steps)) | {"lr": 1e-2})
        seen.append([float(value) for value in game.step(**inputs[-1])])
    return start, inputs, seen


def loaded(module, state):
    module.double().load_state_dict({k: torch.tensor(a) for k, a in state.items() if k not in ("words", "shown")})
    return module


@pytest.mark.parametrize(
    ("game_class", "text", "compare"),
    [(StageOne, "gru", "projection"), (StageOne, "mean", "concat"), (StageTwo, "mean", "projection")],
)
def test_steps_are_torchs(game_class, text, compare):
    game = made(game_class, text=text, compare=compare, kl=0.7)
    start, inputs, seen = played(game, 3)
    sizes = text, len(WORDS), TEXT
    d = loaded(theirs.D(game_class.size_of(game.options), C, D_WIDTH, *sizes, compare), start["d"])
    first = theirs.First(SIZE // 2, C, LATENT, WIDTH, *sizes, CONDITION)
    if game_class is StageOne:
        g = loaded(first, start["g"])
    else:
        g, g1 = loaded(theirs.Second(C, WIDTH, *sizes, CONDITION), start["g"]), loaded(first, start["g1"]).eval()
    opt_g, opt_d = (torch.optim.Adam(network.parameters(), lr=1e-2, betas=(0.5, 0.999)) for network in (g, d))

    for step, numbers in zip(inputs, seen, strict=True):
        step = {name: torch.tensor(value) for name, value in step.items()}
        captions = step["captions"]
        one = game_class is StageOne
        source = step["source"] if one else g1(step["z"], captions, step["first_noise"])[0].detach()
        opt_d.zero_grad()
        maps = d.look(step["real"])  # once: its BatchNorms note each batch once
        on_real, on_wrong = d.match(maps, captions), d.match(maps, step["wrong"])
        fake, kl = g(source, captions, step["noise"])
        on_fake = d(fake.detach(), captions)
        loss_d = F.softplus(-on_real).mean() + (F.softplus(on_wrong).mean() + F.softplus(on_fake).mean()) / 2
        loss_d.backward()
        opt_d.step()
        opt_g.zero_grad()
        on_new = d(fake, captions)
        loss_g = F.softplus(-on_new).mean() + 0.7 * kl
        loss_g.backward()
        opt_g.step()
        means = [torch.sigmoid(logits).mean() for logits in (on_real, on_wrong, on_fake, on_new)]
        np.testing.assert_allclose(numbers, [value.item() for value in (loss_d, loss_g, kl, *means)], rtol=1e-9)
    for ours, network in ((game.g, g), (game.d, d)):
        for name, tensor in network.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[name], tensor.numpy(), rtol=1e-6, atol=1e-9, err_msg=name)


def test_all_backwards_start_from_their_optimisers_dloss(rng):
    """Which is not 1 where losses are scaled: gradients are as many times as large."""
    game, found = made(StageOne), []
    for _, parameter, _ in [*game.g.named_parameters(), *game.d.named_parameters()]:
        parameter += 0.3 * rng.standard_normal(parameter.shape)
    inputs = game.draw([batch_of(game, rng)], rng, At(1, 1, 1))
    for optimizer in (game.opt_d, game.opt_g):
        optimizer.step = lambda: None
    for scales in ((1.0, 1.0), (2.0, 8.0)):
        game.opt_d.dloss, game.opt_g.dloss = scales
        game.step(**inputs)
        networks = ((game.d, scales[0]), (game.g, scales[1]))
        found.append([gradient / scale for net, scale in networks for _, _, gradient in net.named_parameters()])
    for one, scaled in zip(*found, strict=True):
        np.testing.assert_allclose(scaled, one, rtol=1e-9, atol=1e-12)


def test_stage_one_is_frozen_in_stage_two():
    """Its weights, and the statistics of its BatchNorms: in train mode they would move, and images would depend on
    their batch."""
    game = made(StageTwo)
    start, inputs, _ = played(game, 2)
    for name, array in game.g1.state_dict().items():
        np.testing.assert_array_equal(array, start["g1"][name])
    assert "opt_g1" not in game.optimizers()
    assert {id(optimizer.network) for optimizer in game.optimizers().values()} == {id(game.g), id(game.d)}
    assert any(name.endswith("running_mean") for name in start["g1"])


# ------------------------------------------------------------------------------------------------------- what is drawn


def test_wrong_captions_are_those_of_others_and_differ(rng):
    game = made(StageOne)
    captions = [[1, 2, 0]] * 3 + [[1, 2, 3]] * 2 + [[4, 0, 0]]
    met = set()
    for i in range(60):
        drawn = game.draw([batch_of(game, rng, captions)], rng, At(1, 1, 1))
        wrong = drawn["wrong"].tolist()
        assert all(a != b and b in captions for a, b in zip(captions, wrong, strict=True))
        assert drawn["is_wrong"].tolist() == [[1.0]] * 6
        met |= {(i, tuple(caption)) for i, caption in enumerate(wrong)}
    assert len(met) == 12, "each other caption is met, by each image"


def test_near_captions_share_as_many_words_as_possible(rng):
    captions = [[1, 2, 3], [1, 2, 4], [1, 4, 4], [4, 4, 2]]
    nearest = [[[1, 2, 4]], [[1, 2, 3], [1, 4, 4]], [[1, 2, 4]], [[1, 4, 4]]]
    counts = {}
    for near in (0.0, 0.5, 1.0):
        game, hits = made(StageOne, near=near), 0
        for _ in range(200):
            wrong = game.draw([batch_of(game, rng, captions)], rng, At(1, 1, 1))["wrong"].tolist()
            hits += sum(caption in best for caption, best in zip(wrong, nearest, strict=True))
        counts[near] = hits / 800
    by_chance = (1 + 2 + 1 + 1) / 3 / 4
    assert counts == pytest.approx({0.0: by_chance, 0.5: (1 + by_chance) / 2, 1.0: 1.0}, abs=0.07)  # 4 deviations


def test_what_fills_a_short_caption_up_is_no_word_in_common(rng):
    game = made(StageOne, near=1.0)
    captions = [[1, 0, 0], [2, 0, 0], [1, 3, 4]]  # the first shares a word with the last, and none with the second
    for _ in range(20):
        assert game.draw([batch_of(game, rng, captions)], rng, At(1, 1, 1))["wrong"][0].tolist() == [1, 3, 4]


def test_a_batch_of_one_caption_has_no_wrong_pair(rng):
    """Its pairs would be right: they count nothing."""
    game = made(StageOne)
    drawn = game.draw([batch_of(game, rng, [[1, 2, 0]] * 4)], rng, At(1, 1, 1))
    assert drawn["is_wrong"].tolist() == [[0.0]] * 4
    seen = game.step(**drawn)
    expected = -np.log(0.5) + 0.5 * -np.log(0.5)  # at D's first weights all probabilities are near 0.5
    assert seen.loss_d == pytest.approx(expected, rel=0.1)


def test_random_inputs_are_normal_and_of_their_own(rng):
    game = made(StageTwo, latent=200, condition=150)
    drawn = game.draw([batch_of(game, rng)], rng, At(1, 1, 1))
    assert [drawn[name].shape for name in ("z", "noise", "first_noise")] == [(N, 200), (N, 150), (N, 150)]
    assert all(drawn[name].dtype == np.float64 for name in ("z", "noise", "first_noise"))
    together = np.concatenate([drawn[name].ravel() for name in ("z", "noise", "first_noise")])
    assert together.std() == pytest.approx(1, rel=0.05)
    assert len(set(together.tolist())) == together.size
    assert "source" not in drawn


def test_the_learning_rate_falls_unless_it_is_asked_not_to(rng):
    for decay, expected in (("linear", [1.0, 0.5]), ("none", [1.0, 1.0])):
        game = made(StageOne, lr=0.25, lr_decay=decay)
        rates = [game.draw([batch_of(game, rng)], rng, At(step, 1, 4))["lr"] / 0.25 for step in (1, 3)]
        assert rates == expected
    drawn = game.draw([batch_of(game, rng)], rng, At(1, 1, 1)) | {"lr": 0.125}
    game.step(**drawn)
    assert (game.opt_g.lr, game.opt_d.lr) == (0.125, 0.125)


# -------------------------------------------------------------------------------------------------------------- images


def test_a_grid_has_a_row_for_each_caption(rng, device):
    game = made(StageTwo, device=device)
    fixed = game.fixed([batch_of(game, rng)], rng)
    assert to_numpy(game.sample(fixed)).shape == (16, C, SIZE, SIZE)
    captions, z, noise = to_numpy(fixed[0]), to_numpy(fixed[1]), [to_numpy(each) for each in fixed[2]]
    assert captions.tolist() == [[1, 2, 3]] * 8 + [[3, 0, 0]] * 8
    assert (z.shape, [each.shape for each in noise]) == ((16, LATENT), [(16, CONDITION)] * 2)
    for each in (z, *noise):
        np.testing.assert_array_equal(each[:8], each[8:])
        assert len({row.tobytes() for row in each[:8]}) == 8
    assert game.images_per_row == 8


def test_images_are_generated_caption_by_caption(device):
    """By generators whose images depend on the caption alone: what is random has the weight 0."""
    game = made(StageTwo, dtype=np.float32, device=device)
    for _, parameter, _ in game.generator.named_parameters():
        parameter *= 8
    game.g1.paint[0].params["weight"][:, CONDITION:] = 0
    for network in (game.g1, game.g):
        network.moments.params["weight"][CONDITION:] = 0
        network.moments.params["bias"][CONDITION:] = -50  # exp(s) is 0
    images = to_numpy(StageTwo.generate(game.generator, 5, game.options, np.random.default_rng(0), device))
    assert (images.shape, images.dtype) == ((5, C, SIZE, SIZE), np.float32)
    for i, j in ((0, 2), (0, 4), (1, 3)):
        np.testing.assert_allclose(images[i], images[j], atol=1e-5)
    assert abs(images[0] - images[1]).max() > 1e-3
    captions = to_device(np.array([[3, 0, 0], [1, 2, 3]]), device)
    asked = images_of(game.generator, captions, np.random.default_rng(1), device)
    np.testing.assert_allclose(to_numpy(asked), images[[1, 0]], atol=1e-5)


# ---------------------------------------------------------------------------------------------- stage II after stage I


def test_stage_two_takes_the_stage_one_that_it_is_given(rng):
    first = made(StageOne)
    for _, parameter, _ in first.g.named_parameters():
        parameter += rng.standard_normal(parameter.shape)
    game = made(StageTwo.after(first.g))
    for name, array in first.g.state_dict().items():
        np.testing.assert_array_equal(game.g1.state_dict()[name], array)
    game.g1.text.embedding.params["weight"] += 1
    assert (first.g.text.embedding.params["weight"] != game.g1.text.embedding.params["weight"]).all()
    assert StageTwo.first is None, "the game itself is as it was"
    assert any((made(StageTwo).g1.state_dict()[name] != array).any() for name, array in first.g.state_dict().items())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"latent": 5}, "expected a stage I with latent 5, got one that was trained with latent 3: give both stages"),
        ({"condition": 4}, "condition 4, got one that was trained with condition 2"),
        ({"text": "mean"}, "text mean, got one that was trained with text gru"),
        ({"text_size": 7}, "text_size 7, got one that was trained with text_size 3"),
        ({"width": 1}, "width 1, got one that was trained with width 2"),
        ({"image_size": 32}, "size 16, got one that was trained with size 8"),
    ],
)
def test_a_stage_one_of_other_options_is_refused(changed, message):
    with pytest.raises(UserError, match=message):
        made(StageTwo.after(made(StageOne).g), **changed)


@pytest.mark.parametrize("game_class", [StageOne, StageTwo])
def test_options_that_contradict_a_checkpoints_arrays_are_told(game_class):
    game = made(game_class)
    arrays = {f"{name}.{key}": a for name, net in game.networks().items() for key, a in net.state_dict().items()}
    assert game_class.contradiction(game.options, arrays) is None
    for name, value in (("width", 3), ("latent", 4), ("image_size", 32), ("text", "mean"), ("condition", 5)):
        told = game_class.contradiction(dataclasses.replace(game.options, **{name: value}), arrays)
        assert told.startswith("it contradicts itself: its ")
    assert game_class.contradiction(game.options, {}).startswith("it is not of such a game: ")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: StackOptions(image_size=31), "image_size expected an even number, of which stage I has half, got 31"),
        (lambda: StackOptions(image_size=36), "a DCGAN cannot draw pictures of 18 pixels"),
        (lambda: StackOptions(image_size=30), "it doubles a map of 4 to 7 pixels; use 28 or 32"),
        (lambda: StackOptions(text="lstm"), "unknown text 'lstm': use one of gru, mean"),
        (lambda: StackOptions(compare="sum"), "unknown compare 'sum': use one of projection, concat"),
        (
            lambda: StageOne(StackOptions(**TINY), {"images": (3, 8, 8), "labels": 4}),
            "StackGAN expected images with captions, got images alone: use the captioned digits, or a folder with",
        ),
        (
            lambda: StageTwo(StackOptions(**TINY), {"images": (3, 8, 8), "captions": CAPTIONS}),
            "this stage of image_size 16 expected images of 16 pixels, got 8",
        ),
    ],
)
def test_a_users_mistake_gets_one_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_a_states_words_are_compared(rng):
    game, other = made(StageOne), made(StageOne)
    state = other.state_dict()
    state["g"]["words"] = np.frombuffer(b"\na\nred\ndog\non", np.uint8)
    with pytest.raises(UserError, match="trained with other words"):
        game.load_state_dict(state)
    assert stackgan.words_in(game.g.state_dict()) == WORDS


def test_a_stage_one_of_other_words_is_refused_by_its_file():
    first = made(StageOne, np.float32).g
    state = first.state_dict() | {"words": np.frombuffer(b"\na\nred\ndog\non", np.uint8)}
    other = stackgan.network_of(state)
    other.path = "runs/dogs/stage1/generator.safetensors"
    options = StackOptions(**TINY)
    shapes = {"images": (C, SIZE, SIZE), "captions": CAPTIONS}
    match = r"cannot start from runs/dogs/stage1/generator\.safetensors: .* \('cat' is new or missing\): use"
    with pytest.raises(UserError, match=match):
        StageTwo.after(other)(options, shapes)
