"""The classifier of the scores: it learns, reproducibly, and its file tells its size."""

import numpy as np
import pytest
import safetensors.numpy

from nanogan import checkpoint, dispatch, images
from nanogan.analysis.judges.classifier import Classifier, classify, load_classifier, train_classifier
from nanogan.backend import to_device
from nanogan.data import builtin_digits
from nanogan.errors import UserError


def trained(seed=0, count=600, **options):
    network = Classifier(width=8, rng=np.random.default_rng(seed))
    train_classifier(network, *builtin_digits(count, seed=seed), **options)
    return network


def test_it_learns_digits_that_it_has_not_seen_and_the_same_seed_gives_the_same_weights(monkeypatch):
    monkeypatch.setattr(dispatch, "FAST", False)  # whose threads may be running already, or not yet
    network = trained(epochs=4, batch_size=32)
    pictures, labels = builtin_digits(200, seed=99)
    features, probabilities = classify(network, pictures)
    assert (probabilities.argmax(axis=1) == labels).mean() > 0.9
    assert features.shape == (200, 64)
    assert features.dtype == probabilities.dtype == np.float64
    assert features.min() == 0
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(200))
    again = trained(epochs=4, batch_size=32).state_dict()
    assert all(array.tobytes() == again[name].tobytes() for name, array in network.state_dict().items())


def test_features_are_those_of_whole_bytes_whatever_the_batches():
    network = trained(count=65, epochs=1, batch_size=64)  # the 65th is left out
    pictures, _ = builtin_digits(10, seed=3)
    as_numbers = (pictures / 127.5 - 1).astype(np.float32).transpose(0, 3, 1, 2)
    features, probabilities = classify(network, pictures)
    assert (classify(network, as_numbers + np.float32(0.003))[0] == features).all()  # less than half a byte
    assert classify(network, pictures, batch_size=3)[0] == pytest.approx(features, rel=1e-4, abs=1e-5)
    logits, _ = network.forward(as_numbers, train=False)
    exponentials = np.exp(logits.astype(np.float64))
    assert probabilities == pytest.approx(exponentials / exponentials.sum(axis=1, keepdims=True), rel=1e-4)


def test_gradients_of_earlier_are_not_trained_on():
    pictures, labels = builtin_digits(8, seed=3)
    clean, dirty = (Classifier(width=2, rng=np.random.default_rng(0)) for _ in range(2))
    for _, _, gradient in dirty.named_parameters():
        gradient[...] = 9
    for network in (clean, dirty):
        train_classifier(network, pictures, labels, epochs=2, batch_size=4)
    assert all((array == clean.state_dict()[name]).all() for name, array in dirty.state_dict().items())


def test_on_any_device(device):
    pictures, labels = images.resize(builtin_digits(6, seed=3)[0], 8), np.arange(6)
    expected, network = (Classifier(image_size=8, width=2, rng=np.random.default_rng(0)) for _ in range(2))
    network.to(device)
    for each in (expected, network):
        train_classifier(each, pictures, labels, epochs=2, batch_size=3)
    expected = classify(expected, pictures)
    as_numbers = (pictures / 127.5 - 1).astype(np.float32).transpose(0, 3, 1, 2)
    for x in (pictures, to_device(as_numbers, device)):
        for one, other in zip(classify(network, x), expected, strict=True):
            assert isinstance(one, np.ndarray)
            assert one == pytest.approx(other, rel=1e-3, abs=1e-3)


def test_its_file_tells_its_size(tmp_path, rng):
    network = Classifier(image_size=12, channels=3, width=2, classes=7, rng=rng)
    checkpoint.save(tmp_path / "c.safetensors", network)
    loaded = load_classifier(tmp_path / "c.safetensors")
    assert (loaded.image_size, loaded.channels, loaded.width, loaded.classes) == (12, 3, 2, 7)
    x = rng.standard_normal((2, 3, 12, 12)).astype(np.float32)
    assert (loaded.forward(x, train=False)[0] == network.forward(x, train=False)[0]).all()


def damaged(state):
    yield {}
    yield {"main.0.weight": np.zeros((4, 4), np.float32)}
    for name in ("0.weight", "7.weight", "10.weight"):
        yield {key: value for key, value in state.items() if key != name}
        for wrong in (
            np.zeros(()),
            np.zeros((0, 0, 4, 4)),
            np.zeros((64, 1)),
            np.zeros((3, 5, 4, 4)),
            np.zeros((0, 64)),
        ):
            yield state | {name: wrong.astype(np.float32)}
    # arrays of no bytes that ask for networks of terabytes
    yield state | {"0.weight": np.zeros((2, 1 << 40, 0, 4), np.float32)}
    yield state | {"7.weight": np.zeros((0, 1 << 40), np.float32)}
    yield state | {"10.weight": np.zeros((1 << 40, 0), np.float32)}
    yield state | {"10.bias": np.full_like(state["10.bias"], np.nan)}


def test_another_file_is_refused_in_one_sentence(tmp_path):
    state = Classifier(image_size=8, width=2).state_dict()
    for i, wrong in enumerate([state, *damaged(state)]):
        path = tmp_path / f"{i}.safetensors"
        path.write_bytes(safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in wrong.items()}))
        if wrong is state:
            load_classifier(path)
            continue
        with pytest.raises(UserError, match="is not a classifier"):
            load_classifier(path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Classifier(image_size=30), "image_size 30 is no multiple of 4"),
        (lambda: Classifier(width=0), "width expected a whole number of at least 1, got 0"),
        (lambda: classify(Classifier(), np.zeros((2, 32, 32, 1), np.uint8)), "expected pictures (N, 1, 28, 28), got"),
        (lambda: classify(Classifier(), np.zeros((0, 28, 28, 1), np.uint8)), "at least one picture, got none"),
        (
            lambda: train_classifier(Classifier(), np.zeros((2, 28, 28, 1), np.uint8), [0, 10]),
            "from 0 to 9, got 0 to 10",
        ),
        (
            lambda: train_classifier(Classifier(), np.zeros((2, 28, 28, 1), np.uint8), [0]),
            "each with its label, got 2 and 1",
        ),
    ],
)
def test_a_callers_mistake_gets_one_sentence(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
