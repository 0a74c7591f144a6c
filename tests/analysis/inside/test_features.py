"""Features of a discriminator: against torch and by hand; the two protocols, on data whose answer is known."""

import itertools
import sys

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC
from torch import nn

from nanogan import checkpoint
from nanogan.analysis.inside import features as analysis
from nanogan.errors import UserError
from nanogan.layers import BatchNorm2d, Conv2d, LeakyReLU, Sequential, Tanh
from nanogan.models import dcgan, paper
from nanogan.recipes import trained


def some_pictures(rng, count, size=32, channels=3):
    return rng.integers(0, 256, (count, size, size, channels), dtype=np.uint8)


# ------------------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize(("name", "count"), [("cifar10", 28_672), ("svhn", 7_168)])
def test_the_papers_networks_have_the_papers_number_of_features(rng, name, count):
    d = paper.discriminator(name, rng=rng)
    assert analysis.features(d, some_pictures(rng, 1)).shape == (1, count)


def torchs(name, width):
    """The paper's network as its text describes it, in torch, and the numbers of its activations."""
    maps, strides, kernel = {
        "cifar10": ((1, 1, 2, 2, 4, 4), (1, 2, 1, 2, 1, 2), 3),
        "svhn": ((1, 2, 4), (2, 2, 2), 5),
    }[name]
    layers, before = [], 3
    for i, (times, stride) in enumerate(zip(maps, strides, strict=True)):
        layers += [nn.Conv2d(before, times * width, kernel, stride, kernel // 2, bias=False)]
        layers += [nn.BatchNorm2d(times * width)] if i else []
        layers += [nn.LeakyReLU(0.2)]
        before = times * width
    return nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 1, 0, bias=False), nn.Flatten()).double()


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_features_are_torchs(rng, name):
    d = paper.discriminator(name, width=4, rng=rng).astype(np.float64)
    for state in d.state_dict().values():  # BatchNorm's statistics too
        state[...] = np.abs(rng.standard_normal(state.shape)) if state.ndim == 1 else state
    theirs = torchs(name, 4)
    theirs.load_state_dict({key[5:]: torch.tensor(array) for key, array in d.state_dict().items()})
    theirs.eval()
    pictures = some_pictures(rng, 3)
    x, expected = torch.tensor(pictures.transpose(0, 3, 1, 2) / 127.5 - 1), []
    for layer in theirs:
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU):
            expected.append(nn.functional.adaptive_max_pool2d(x, 4).flatten(1))
    expected = torch.cat(expected, 1).detach().numpy()
    got = analysis.features(d, pictures, batch_size=2)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)
    y, _ = d.forward(pictures.transpose(0, 3, 1, 2) / 127.5 - 1, train=False)
    np.testing.assert_allclose(y, x.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("size", [4, 5, 7, 14, 16, 3])
def test_pooling_is_torchs(rng, device, size):
    from nanogan.backend import to_device, to_numpy

    y = rng.standard_normal((2, 3, size, size + 1)).astype(np.float32)
    expected = nn.functional.adaptive_max_pool2d(torch.tensor(y), 4).numpy()
    np.testing.assert_array_equal(to_numpy(analysis.pooled(to_device(y, device))), expected)


def test_features_on_a_device(rng, device):
    d, pictures = paper.discriminator("svhn", width=2, rng=rng), some_pictures(rng, 3)
    expected = analysis.features(d, pictures)
    got = analysis.features(d.to(device), pictures)
    assert type(got) is np.ndarray
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_a_network_without_activations_has_no_features(rng):
    with pytest.raises(UserError, match="expected a network with ReLU or LeakyReLU activations, it has none"):
        analysis.features(Sequential(Conv2d(3, 2, kernel_size=1), Tanh()), some_pictures(rng, 1))


def test_frozen_statistics_are_the_means_over_batches(rng):
    network = Sequential(Conv2d(3, 2, kernel_size=3, rng=rng), BatchNorm2d(2, momentum=0.3), LeakyReLU()).astype(float)
    pictures = some_pictures(rng, 11, size=8)
    frozen = analysis.frozen(network, pictures, batch_size=4)
    x = pictures.transpose(0, 3, 1, 2) / 127.5 - 1
    w, b = (torch.tensor(network[0].params[name]) for name in ("weight", "bias"))
    maps = nn.functional.conv2d(torch.tensor(x), w, b).numpy()
    batches = maps[:4], maps[4:8]  # three pictures are left over
    means = np.mean([batch.mean(axis=(0, 2, 3)) for batch in batches], axis=0)
    variances = np.mean([batch.transpose(1, 0, 2, 3).reshape(2, -1).var(axis=1, ddof=1) for batch in batches], axis=0)
    np.testing.assert_allclose(frozen[1].buffers["running_mean"], means, rtol=1e-12)
    np.testing.assert_allclose(frozen[1].buffers["running_var"], variances, rtol=1e-12)
    assert frozen[1].momentum == 0.3
    assert not network[1].buffers["running_mean"].any(), "the network itself stays as it was"


def test_the_game_is_played_on_all_pictures_and_repeats_itself(rng):
    pictures, ends, steps = some_pictures(rng, 9, size=8), [], []
    for seed in (0, 0, 1):
        d = dcgan.discriminator(image_size=8, channels=3, width=2, rng=np.random.default_rng(5))
        before = d[0].params["weight"].copy()
        options = {"epochs": 2, "batch_size": 4, "latent": 3, "seed": seed}
        g = analysis.train(d, pictures, progress=lambda items: steps.append(items) or items, **options)
        assert (d[0].params["weight"] != before).any()
        ends.append(d[0].params["weight"])
    assert steps == 3 * [range(4)]  # two batches of four an epoch, the ninth picture is left out
    assert (ends[0] == ends[1]).all()
    assert (ends[0] != ends[2]).any()
    assert (g.image_size, g.latent, g.channels) == (8, 3, 3)


# ------------------------------------------------------------------------------------------- the paper's networks


def test_a_file_tells_which_network_it_is(tmp_path, rng):
    for name, channels, width in (("cifar10", 1, 2), ("svhn", 3, 5)):
        d = paper.discriminator(name, channels=channels, width=width, rng=rng)
        assert paper.options_of(d.state_dict()) == {"name": name, "channels": channels, "width": width}
        checkpoint.save(tmp_path / "d.safetensors", d)
        again = trained.any_discriminator(tmp_path / "d.safetensors")
        assert (again[0].params["weight"] == d[0].params["weight"]).all()
    d = dcgan.discriminator(image_size=16, channels=1, width=3, rng=rng)
    checkpoint.save(tmp_path / "d.safetensors", d)
    assert trained.any_discriminator(tmp_path / "d.safetensors").image_size == 16


@pytest.mark.parametrize("change", ["main.2.weight", "main.8.weight", "main.3.weight", "more"])
def test_other_files_are_none(rng, change):
    state = paper.discriminator("svhn", width=2, rng=rng).state_dict()
    if change == "more":
        state["main.11.weight"] = np.zeros((1, 1, 4, 4))
    elif change == "main.3.weight":
        del state["main.2.weight"]
    else:
        state[change] = np.zeros((3, 3, 5, 5))
    with pytest.raises(UserError, match="the convolutions of the paper's discriminator"):
        paper.options_of(state)


def test_a_network_that_the_paper_does_not_have():
    with pytest.raises(UserError, match="unknown discriminator 'lsun': use one of cifar10, svhn"):
        paper.discriminator("lsun")
    with pytest.raises(UserError, match="expected at least 1, got 3 and 0"):
        paper.discriminator("svhn", width=0)


# ------------------------------------------------------------------------------------------------------ baselines


def test_pixels():
    pictures = np.array([0, 255, 51, 102], np.uint8).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(analysis.pixels(pictures), [[-1, 1, -0.6, -0.2]], rtol=1e-6)


def test_k_means_features_by_their_definition(rng):
    pictures = some_pictures(rng, 20, size=7, channels=2)
    encoder = analysis.KMeans(pictures, count=5, size=3, patches=500, seed=1)
    got = encoder.features(pictures[:2])
    assert got.shape == (2, 20)
    for picture, row in zip(pictures[:2], got, strict=True):
        expected = np.zeros((2, 2, 5))
        for i in range(5):
            for j in range(5):
                patch = picture[i : i + 3, j : j + 3].astype(float).ravel()  # a row, a column, then channels
                patch = (patch - patch.mean()) / np.sqrt(patch.var() + 10)
                distances = np.linalg.norm((patch - encoder.mean) @ encoder.whiten - encoder.centres, axis=1)
                expected[int(i >= 2), int(j >= 2)] += np.maximum(distances.mean() - distances, 0)
        np.testing.assert_allclose(row, expected.ravel(), rtol=1e-4, atol=1e-4)


def test_k_means_whitens_patches(rng):
    """Neighbouring pixels that are nearly equal make patches long in few directions; whitening makes them round."""
    small = rng.integers(0, 256, (30, 5, 5, 1)).astype(np.uint8)
    pictures = small.repeat(4, axis=1).repeat(4, axis=2)
    encoder = analysis.KMeans(pictures, count=4, size=4, patches=4000)
    places = itertools.product(range(30), range(17), range(17))
    patches = np.stack([pictures[i, t : t + 4, l : l + 4].ravel() for i, t, l in places])
    patches = patches - patches.mean(axis=1, keepdims=True)
    patches = patches / np.sqrt(patches.var(axis=1, keepdims=True) + 10)
    before = np.linalg.eigvalsh(np.cov(patches, rowvar=False))
    after = np.linalg.eigvalsh(np.cov((patches - encoder.mean) @ encoder.whiten, rowvar=False))
    assert before[-1] > 3  # of 16 numbers of size 1, that vary along few directions
    assert after[-1] < 1.5
    white = (patches - encoder.mean) @ encoder.whiten
    owner = ((white[:, None] - encoder.centres) ** 2).sum(axis=2).argmin(axis=1)
    means = np.stack([white[owner == k].mean(axis=0) for k in range(4)])
    assert np.linalg.norm(means - encoder.centres) < 0.3 * np.linalg.norm(means), "centres of the whitened patches"
    assert after[-4] > 0.6


# ------------------------------------------------------------------------------------------------------ protocols


def test_scaled_features_have_a_root_mean_square_of_one(rng):
    x = (7 * rng.standard_normal((5, 9))).astype(np.float32)
    scaled, other = analysis.scaled(x, np.full((1, 9), 14, np.float32))
    assert np.sqrt((scaled.astype(float) ** 2).mean()) == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(other, 14 / np.sqrt((x.astype(float) ** 2).mean()), rtol=1e-6)
    assert scaled.dtype == np.float32
    assert not analysis.scaled(np.zeros((2, 2)))[0].any()


def test_few_rows_are_classified_as_well_in_their_span(rng):
    train, test = rng.standard_normal((12, 300)), rng.standard_normal((40, 300))
    labels = np.arange(12) % 3
    x, y = analysis.in_their_span(train, test)
    assert x.shape == (12, 12)
    assert y.shape == (40, 12)
    np.testing.assert_allclose(x @ x.T, train @ train.T, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(y @ x.T, test @ train.T, rtol=1e-9, atol=1e-9)
    scores = [
        LinearSVC(C=0.01, dual=True, tol=1e-10, max_iter=100_000, random_state=0).fit(a, labels).decision_function(b)
        for a, b in ((x, y), (train, test))
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6, atol=1e-8)
    wide = rng.standard_normal((12, 20))
    assert analysis.in_their_span(wide)[0] is wide, "where that saves nothing, nothing is turned"


def test_the_svm_is_the_squared_hinge_one(rng):
    """Two points at 1 and -1: of w^2 / 2 + b^2 / 2 + 2 C max(0, 1 - w)^2 the least is at w = 4 C / (1 + 4 C), b = 0."""
    fitted = analysis.svm(np.array([[1.0], [-1.0]]), np.array([1, 0]), 0.3)
    assert fitted.coef_[0, 0] == pytest.approx(1.2 / 2.2, rel=1e-3)
    assert fitted.intercept_[0] == pytest.approx(0, abs=1e-3)


def clusters(rng, count, *, noise, classes=3):
    """Rows about ``classes`` unit vectors of 8 numbers, and the number of each."""
    labels = np.arange(count) % classes
    return (np.eye(8)[labels] + noise * rng.standard_normal((count, 8))).astype(np.float32), labels


def test_all_labels_chooses_c_on_what_it_holds_out(rng, monkeypatch):
    (x, labels), (test, test_labels) = clusters(rng, 60, noise=0.1), clusters(rng, 30, noise=0.1)
    assert analysis.all_labels(x, labels, test, test_labels)["error"] == 0
    assert analysis.all_labels(x, labels, test, (test_labels + 1) % 3)["error"] == 1
    fitted = []
    real = analysis.svm

    def svm(x, labels, C):
        fitted.append((len(x), C))
        return real(x, (labels + (C != 0.3)) % 3, C)  # only one C learns the right labels

    monkeypatch.setattr(analysis, "svm", svm)
    found = analysis.all_labels(x, labels, test, test_labels, grid=(0.1, 0.3, 1.0, 3.0), held_out=0.25)
    assert fitted == [(45, 0.1), (45, 0.3), (45, 1.0), (60, 0.3)]
    assert found == {"C": 0.3, "validation_error": 0, "error": 0}


def test_few_labels_draws_as_many_of_each_class_and_tests_what_did_not_choose(rng, monkeypatch):
    x, labels = clusters(rng, 90, noise=0.1)
    validation, test = clusters(rng, 15, noise=0.1), clusters(rng, 12, noise=0.1)
    sizes, errors = [], iter([0.5, 0.2, 0.3, 0.4, 0.1, 0.2, 0.6])  # two draws choose among two C; three are tested
    real = analysis.svm

    def svm(x, labels, C):
        sizes.append((*np.bincount(labels), C))
        return real(x, labels, C)

    def error(classifier, x, labels):
        assert len(x) == len(labels) == (15 if len(sizes) <= 4 else 12)
        return next(errors)

    monkeypatch.setattr(analysis, "svm", svm)
    monkeypatch.setattr(analysis, "_error", error)
    options = {"per_class": 4, "choosing": 2, "draws": 3, "grid": (1.0, 0.1), "seed": 3}
    found = analysis.few_labels(x, labels, validation, test, **options)
    assert sizes == [(4, 4, 4, C) for C in (1.0, 0.1, 1.0, 0.1, 0.1, 0.1, 0.1)]
    assert found["C"] == 0.1
    assert found["validation_error"] == pytest.approx(0.3)  # the mean of 0.2 and 0.4
    assert found["error"] == pytest.approx(0.3)  # of 0.1, 0.2 and 0.6
    assert found["spread"] == pytest.approx(1.96 * np.sqrt(0.14 / 3))


def test_few_labels_are_learned(rng):
    x, labels = clusters(rng, 90, noise=0.1)
    test = clusters(rng, 30, noise=0.1)
    found = analysis.few_labels(x, labels, test, test, per_class=5, choosing=1, draws=2)
    assert (found["error"], found["spread"]) == (0, 0)
    with pytest.raises(UserError, match="31 labels of each class were asked for, one has 30: use more pictures"):
        analysis.few_labels(x, labels, test, test, per_class=31)


def test_too_few_pictures_get_one_sentence(rng):
    x, labels = clusters(rng, 12, noise=0.1)
    test = x, labels
    with pytest.raises(UserError, match="pictures of 2 classes or more, got 1: use more"):
        analysis.few_labels(x, np.zeros(12, int), test, test, per_class=5)
    with pytest.raises(UserError, match="pictures of 2 classes or more, got 1: use more"):
        analysis.all_labels(x, np.zeros(12, int), *test)
    with pytest.raises(UserError, match="to choose C with and to be tested on, got none"):
        analysis.few_labels(x, labels, (x[:0], labels[:0]), test, per_class=2)
    with pytest.raises(UserError, match="to choose C with and to be tested on, got none"):
        analysis.all_labels(x[:4], labels[:4], *test)


def test_a_discriminator_that_diverged_is_refused(tmp_path, rng):
    d = paper.discriminator("svhn", width=2, rng=rng)
    d[0].params["weight"][0, 0, 0, 0] = np.nan
    checkpoint.save(tmp_path / "d.safetensors", d)
    with pytest.raises(UserError, match="is not a discriminator: its weights are not finite"):
        trained.any_discriminator(tmp_path / "d.safetensors")


def test_draws_differ_and_repeat_themselves(rng):
    (x, labels), test = clusters(rng, 90, noise=1.0), clusters(rng, 60, noise=1.0)
    options = {"per_class": 5, "choosing": 1, "draws": 6}
    found = [analysis.few_labels(x, labels, test, test, seed=seed, **options) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found[0]["spread"] > 0


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(UserError, match=r'scikit-learn is missing, .*pip install -e "\.\[analysis\]"'):
        analysis.sklearn("svm")
