"""Maps found by regression against scipy's optimum, and left out where values are known by hand."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize

from nanogan.analysis.inside import forgetting
from nanogan.backend import array_module, to_device, to_numpy
from nanogan.data.sets.faces import builtin_faces
from nanogan.errors import UserError
from nanogan.layers import BatchNorm2d, Conv2d, ConvTranspose2d, Flatten, ReLU, Sequential, Tanh
from nanogan.models import dcgan


def tiny_generator():
    """z (N, 2) -> maps relu(z0, -z1, z0 + z1) at one position -> 10 z0' + 100 z1' + 1000 z2'."""
    g = dcgan.Generator(
        ConvTranspose2d(2, 3, kernel_size=1, bias=False),
        ReLU(),
        Conv2d(3, 1, kernel_size=1, bias=False),
        image_size=1,
        channels=1,
        latent=2,
        width=3,
    )
    g[0].params["weight"][...] = np.array([[1, 0, 1], [0, -1, 1]], np.float32).reshape(2, 3, 1, 1)
    g[2].params["weight"][...] = np.array([10, 100, 1000], np.float32).reshape(1, 3, 1, 1)
    return g


def test_the_hidden_layers_of_generators():
    assert forgetting.hidden_layers(dcgan.generator(image_size=32, width=2)) == [2, 5, 8]
    assert forgetting.second_highest(dcgan.generator(image_size=32, width=2)) == 5
    resized = dcgan.generator(image_size=16, width=2, upsample="resize")  # deconv, norm, relu, twice, conv, ...
    assert forgetting.hidden_layers(resized) == [2, 6]
    assert forgetting.second_highest(resized) == 2
    assert forgetting.second_highest(dcgan.generator(image_size=8, width=2)) == 2
    paper = dcgan.generator(image_size=64, width=4)  # the paper's has 128 there, and 256 maps that are looked at
    assert paper[forgetting.second_highest(paper) - 1].params["weight"].shape == (8,)
    for network in (
        Sequential(Conv2d(1, 1, kernel_size=1), Tanh(), Conv2d(1, 1, kernel_size=1)),
        Sequential(Flatten()),
    ):
        with pytest.raises(UserError, match="a generator of two convolutions or more, with a ReLU between"):
            forgetting.hidden_layers(network)


def test_maps_are_left_out_at_all_positions_by_hand(device):
    g = tiny_generator().to(device)
    z = to_device(np.array([[2, -3], [2, 5], [-1, 1]], np.float32), device)
    # maps: (2, 3, 0), (2, 0, 7), (0, 0, 0)
    for maps, expected in {
        (): [320, 7020, 0],
        (0,): [300, 7000, 0],
        (1,): [20, 7020, 0],
        (2, 0): [300, 0, 0],
        (0, 1, 2): [0, 0, 0],
    }.items():
        np.testing.assert_array_equal(to_numpy(forgetting.forget(g, z, maps)).ravel(), expected)
    y = forgetting.activations(g, z, 1)
    np.testing.assert_array_equal(to_numpy(y)[:, :, 0, 0], [[2, 3, 0], [2, 0, 7], [0, 0, 0]])
    forgetting.draw(g, y, 1, without=[0, 1])
    assert to_numpy(y)[0, 1, 0, 0] == 3  # what was asked for again is still there


def test_nothing_left_out_is_what_the_generator_draws_in_eval_mode(device, rng):
    g = dcgan.generator(image_size=16, channels=3, latent=5, width=4, rng=rng)
    for layer in g.layers:
        if isinstance(layer, BatchNorm2d):
            layer.buffers["running_mean"][...] = rng.normal(0, 0.05, layer.buffers["running_mean"].shape)
            layer.buffers["running_var"][...] = rng.uniform(1e-3, 1e-2, layer.buffers["running_var"].shape)
    g = g.to(device)
    z = to_device(rng.standard_normal((7, 5)).astype(np.float32), device)
    expected = to_numpy(g.forward(z, train=False)[0])
    for layer in (2, 5):
        np.testing.assert_allclose(to_numpy(forgetting.forget(g, z, [], layer=layer)), expected, atol=1e-6)
        parts = forgetting.draw(g, forgetting.activations(g, z, layer, batch_size=3), layer, batch_size=2)
        np.testing.assert_allclose(to_numpy(parts), expected, atol=1e-6)
    assert np.abs(to_numpy(forgetting.forget(g, z, [0, 3])) - expected).max() > 0.01


def test_positions_inside_boxes():
    # a map of 4 x 4 over 8 x 8 pixels: the cells' middles are at 1, 3, 5 and 7
    assert forgetting.inside([(0, 2, 4, 8)], 8, (4, 4)).astype(int).tolist() == [
        [0, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
    ]
    two = forgetting.inside([(0.9, 0, 1.1, 2), (5, 5, 7, 7.1)], 8, (4, 4))  # 5 is inside, 7 is not from the left
    assert np.argwhere(two).tolist() == [[0, 0], [2, 2], [3, 2]]
    assert np.argwhere(forgetting.inside([(3.5, 7.5, 4.25, 8)], 8, (4, 4))).tolist() == [[3, 1]]  # between middles
    assert forgetting.inside([(0, 0, 8, 8)], 8, (3, 5)).all()
    pixels = forgetting.inside([(1, 2, 3, 4)], 4, (4, 4))  # a map as fine as the picture
    assert np.argwhere(pixels).tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]


def boxes_file(folder, text):
    path = folder / "boxes.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_boxes_are_read(tmp_path):
    path = boxes_file(tmp_path, '{"3": [10, 4, 22.5, 15], "0": [[0, 0, 32, 32], [1, 2, 3, 4]]}')
    assert forgetting.read_boxes(path, samples=4, size=32) == {
        3: [(10, 4, 22.5, 15)],
        0: [(0, 0, 32, 32), (1, 2, 3, 4)],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON file"),
        ("3 10 4 22 15", "is no JSON file"),
        (b'{"3": "\xff"}', "is no JSON file"),
        ("[" * 100_000, "is no JSON file"),
        ('{"3": [' + "1" * 5000 + ", 4, 22, 15]}", "is no JSON file"),
        ("{}", "holds no boxes"),
        ("[[10, 4, 22, 15]]", "holds no boxes"),
        ("null", "holds no boxes"),
        ('{"4": [1, 1, 2, 2]}', "samples are numbered from 0 to 3, got '4'"),
        ('{"-1": [1, 1, 2, 2]}', "samples are numbered from 0 to 3, got '-1'"),
        ('{"²": [1, 1, 2, 2]}', "samples are numbered from 0 to 3"),
        ('{"' + "0" * 5000 + '": [1, 1, 2, 2]}', "samples are numbered from 0 to 3"),
        ('{"3": [1, 1, 2, 2], "03": [1, 1, 2, 2]}', "sample 3 is there twice"),
        ('{"3": [1, 1, 2, 2], "3": [1, 1, 2, 2]}', "sample 3 is there twice"),
        ('{"3": [1, 1, 2]}', "a box of sample 3 expected [left, top, right, bottom]"),
        ('{"3": []}', "a box of sample 3"),
        ('{"3": [[]]}', "a box of sample 3"),
        ('{"3": 7}', "a box of sample 3"),
        ('{"3": {"left": 1}}', "a box of sample 3"),
        ('{"3": [1, 1, "2", 2]}', "a box of sample 3"),
        ('{"3": [true, false, 2, 2]}', "a box of sample 3"),
        ('{"3": [2, 1, 2, 2]}', "a box of sample 3"),
        ('{"3": [1, 2, 2, 1]}', "a box of sample 3"),
        ('{"3": [-1, 1, 2, 2]}', "a box of sample 3"),
        ('{"3": [1, 1, 33, 2]}', "from 0 to 32"),
        ('{"3": [1, 1, Infinity, 2]}', "a box of sample 3"),
        ('{"3": [NaN, 1, 2, 2]}', "a box of sample 3"),
        ('{"3": [[1, 1, 2, 2], [1, 1, 2, 99]]}', "a box of sample 3"),
    ],
)
def test_a_file_of_something_else_gets_one_sentence(tmp_path, text, message):
    with pytest.raises(UserError) as error:
        forgetting.read_boxes(boxes_file(tmp_path, text), samples=4, size=32)
    assert message in str(error.value)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path, monkeypatch):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UserError, match="cannot read the boxes"):
            forgetting.read_boxes(path, samples=4, size=32)
    monkeypatch.setattr(forgetting, "MAX_BOXES_FILE", 20)
    with pytest.raises(UserError, match="too large for a file of boxes"):
        forgetting.read_boxes(boxes_file(tmp_path, json.dumps({"3": [1, 1, 2, 2]}) + " " * 9), samples=4, size=32)


def test_examples_are_all_positions_inside_and_as_many_elsewhere(device, rng):
    y = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(np.float32)  # every position has its own number
    positive, negative = np.zeros((2, 2, 4, 5), bool)
    positive[0, 1:3, 2] = positive[1, 0, 0] = True
    negative[1, 2:] = True
    x, labels = forgetting.examples(to_device(y, device), positive, negative, rng=rng)
    x, labels = to_numpy(x), to_numpy(labels)
    assert x.dtype == np.float64
    assert labels.tolist() == [1, 1, 1, 0, 0, 0]
    np.testing.assert_array_equal(x[:3], [y[0, :, 1, 2], y[0, :, 2, 2], y[1, :, 0, 0]])
    assert len(set(x[3:, 0])) == 3
    assert set(x[3:, 0]) <= set(y[1, 0, 2:].ravel())
    np.testing.assert_array_equal(x[3:, 1] - x[3:, 0], 20)  # the maps of one position
    x, labels = forgetting.examples(to_device(y, device), negative, positive, rng=rng)
    assert to_numpy(labels).tolist() == [1] * 10 + [0] * 3
    with pytest.raises(UserError, match="got 0 and 10: draw more samples"):
        forgetting.examples(y, positive & negative, negative, rng=rng)


def test_the_positions_elsewhere_are_drawn_at_random_from_all_pictures():
    y = np.arange(20 * 16, dtype=np.float32).reshape(20, 1, 4, 4)  # every position has its own number
    positive, negative = np.zeros((2, 20, 4, 4), bool)
    positive[:, 0, 0] = True
    negative[:, 1:] = True
    drawn = {}
    for seed in (1, 2, 1):
        x, _ = forgetting.examples(y, positive, negative, rng=np.random.default_rng(seed))
        again, drawn[seed] = drawn.get(seed), x[20:, 0].tolist()
        assert again in (None, drawn[seed])
        assert len({int(number) // 16 for number in drawn[seed]}) > 8  # of 20 pictures; the first 20 are of 2
    assert len(set(drawn[1]) & set(drawn[2])) < 10  # expected: 20 * 20 / 240


def test_the_regression_reaches_scipys_optimum(device, rng):
    """Maps of very different scale, correlated, one of them dead; a third of the labels are ones."""
    l2 = 0.03
    x = np.maximum(rng.standard_normal((300, 5)) @ rng.standard_normal((5, 5)) + 0.5, 0) * [1, 100, 0.01, 3, 0]
    labels = (x[:, 1] / 100 - x[:, 0] + rng.standard_normal(300) > 0.8).astype(float)
    assert 0.2 < labels.mean() < 0.4
    scale = np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    standard = (x - x.mean(axis=0)) / scale

    def loss(parameters):
        w, b = parameters[:5], parameters[5]
        s = standard @ w + b
        return np.mean(np.logaddexp(0, s) - labels * s) + l2 / 2 * (w @ w)

    best = minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-9}).x
    fit = forgetting.logistic_regression(to_device(x, device), to_device(labels, device), l2=l2, steps=500)
    np.testing.assert_allclose(fit.weights, best[:5], atol=1e-6)
    assert fit.bias == pytest.approx(best[5], abs=1e-6)
    assert fit.weights[4] == 0
    assert fit.slope < 1e-6
    assert fit.accuracy == np.mean((standard @ best[:5] + best[5] > 0) == labels)
    assert isinstance(fit.weights, np.ndarray)


def test_a_regression_that_stopped_early_says_how_steep_it_still_was(rng):
    x = rng.standard_normal((50, 2))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    labels = (x[:, 0] > 0.5).astype(float)
    fit = forgetting.logistic_regression(x, labels, l2=0.1, steps=2)
    surplus = 1 / (1 + np.exp(-(x @ fit.weights + fit.bias))) - labels
    slopes = [*(x.T @ surplus / 50 + 0.1 * fit.weights), surplus.mean()]
    assert fit.slope == pytest.approx(np.abs(slopes).max())
    assert fit.slope > 0.01


def test_responsible_maps():
    weights = np.array([0.5, -1, 2, 0, 0.1])
    assert forgetting.responsible(weights).tolist() == [2, 0, 4]  # 0 is not above 0
    assert forgetting.responsible(weights, 2).tolist() == [2, 0]
    assert forgetting.responsible(weights, 4).tolist() == [2, 0, 4, 3]
    assert forgetting.responsible(np.array([-1.0, -2])).tolist() == []


def test_a_planted_map_is_found_and_forgotten(device, rng):
    """Map 3 of five draws a square in the upper left for some z; the others draw noise everywhere."""
    g = dcgan.Generator(
        ConvTranspose2d(6, 5, kernel_size=4, bias=False),
        ReLU(),
        Conv2d(5, 1, kernel_size=1, bias=False),
        image_size=4,
        channels=1,
        latent=6,
        width=5,
    )
    weight = rng.normal(0, 1, (6, 5, 4, 4)).astype(np.float32)
    weight[0] = weight[:, 3] = 0
    weight[0, 3, :2, :2] = 1  # z0 > 0 draws the square
    g[0].params["weight"][...] = weight
    g[2].params["weight"][...] = 0.1
    g = g.to(device)
    z = rng.standard_normal((200, 6)).astype(np.float32)
    has, box = z[:, 0] > 0.3, forgetting.inside([(0, 0, 2, 2)], 4, (4, 4))
    z = to_device(z, device)
    y = forgetting.activations(g, z, 1)
    for negative in (has[:, None, None] & ~box, ~has[:, None, None] & box):
        x, labels = forgetting.examples(y, has[:, None, None] & box, negative, rng=rng)
        fit = forgetting.logistic_regression(x, labels, steps=150)
        assert forgetting.responsible(fit.weights, 1).tolist() == [3]
        assert fit.weights[3] > 3 * np.abs(np.delete(fit.weights, 3)).max()
    before, after = (to_numpy(forgetting.forget(g, z, maps, layer=1)) for maps in ([], [3]))
    expected = np.zeros((200, 1, 4, 4), np.float32)
    expected[:, :, :2, :2] = 0.1 * np.maximum(to_numpy(z)[:, 0], 0)[:, None, None, None]
    np.testing.assert_allclose(before - after, expected, atol=1e-6)
    masks = box[None].repeat(200, axis=0)
    pair = (to_device(each, device) for each in (before, after))
    changed = forgetting.change(*pair, masks)
    assert changed["outside"] == 0
    assert changed["inside"] == pytest.approx(127.5 * expected[:, 0, 0, 0].mean(), rel=1e-5)


def test_rates_by_hand():
    before = np.array([[1, 0, 0], [1, 0, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, 1]], bool)
    after = np.array([[0, 0, 0], [0, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 1]], bool)
    assert forgetting.rates(before, after, 0) == {
        "after": pytest.approx(3 / 7),
        "lost": 2 / 4,
        "gained": pytest.approx(1 / 3),
        "kept": pytest.approx(2 / 3),
        "kept_with": 2 / 4,
    }
    everybody = forgetting.rates(np.ones((2, 2), bool), np.zeros((2, 2), bool), 1)
    assert everybody == {"after": 0, "lost": 1, "gained": None, "kept": None, "kept_with": 0}


def test_change_is_in_levels_of_255():
    before, after = np.zeros((2, 3, 2, 2)), np.zeros((2, 3, 2, 2))
    after[0, :, 0, 0] = 0.2, -0.4, 0  # mean of absolutes 0.2: 25.5 levels
    after[1, :, 1, 1] = 2
    masks = np.array([[[1, 0], [0, 0]], [[1, 0], [0, 0]]], bool)
    changed = forgetting.change(before, after, masks)
    assert changed == {"inside": pytest.approx(25.5 / 2), "outside": pytest.approx(255 / 6)}
    assert forgetting.change(before, after, np.ones((2, 2, 2), bool))["outside"] is None


def test_random_choices_of_as_many_maps(rng):
    asked = []

    def effect(maps):
        asked.append(sorted(map(int, maps)))
        return {"sum": float(sum(maps)), "none": None}

    result = forgetting.beside_random(effect, [4, 5], 6, trials=30, rng=rng)
    assert asked[0] == [4, 5]
    assert len(asked) == 31
    assert all(0 <= a < b < 6 for a, b in asked)
    sums = [sum(maps) for maps in asked[1:]]
    assert len({tuple(maps) for maps in asked[1:]}) > 8
    assert result == {
        "sum": {"forgetting": 9, "random": pytest.approx(np.mean(sums)), "low": min(sums), "high": max(sums)}
    }


@pytest.mark.parametrize("size", [32, 64])
def test_the_boxes_of_the_faces_are_where_their_attributes_are(size):
    """The mean picture with an attribute less the one without is, by area, several times larger inside the boxes."""
    faces, values = builtin_faces(500, size=size, seed=3)
    for name, least in {"smile": 3.5, "glasses": 7, "long_hair": 5, "looks_right": 3, "round": 3.5}.items():
        has = values[name].astype(bool)
        difference = np.abs(faces[has].mean(axis=0) - faces[~has].mean(axis=0)).mean(axis=2)
        boxes = [tuple(size * share for share in box) for box in forgetting.FACE_BOXES[name]]
        mask = forgetting.inside(boxes, size, (size, size))
        assert difference[mask].mean() > least * difference[~mask].mean(), name


def test_a_mistake_gets_one_sentence(rng):
    g = dcgan.generator(image_size=16, channels=1, latent=4, width=2, rng=rng)
    z = rng.standard_normal((2, 4)).astype(np.float32)
    with pytest.raises(UserError, match="layer 3 ends no hidden convolution: use one of 2, 5"):
        forgetting.forget(g, z, [0], layer=3)
    for maps in ([0, 4], [-1]):
        with pytest.raises(UserError, match=r"has maps 0 to 3, got \["):
            forgetting.forget(g, z, maps)
    assert array_module(forgetting.forget(g, z, [3])) is np
