"""The classifier of attributes: its input, its mistakes, and what it learns of the built-in faces."""

import numpy as np
import pytest

from nanogan.analysis.judges import attributes
from nanogan.data.sets.faces import builtin_faces
from nanogan.errors import UserError


def test_pictures_become_a_networks_input():
    pixels = np.zeros((1, 2, 3, 1), np.uint8)
    pixels[0, 0, 2] = 255
    np.testing.assert_array_equal(attributes.as_network_input(pixels), [[[[-1, -1, 1], [-1, -1, -1]]]])


def test_the_classifier_learns_the_faces():
    pictures, values = builtin_faces(1100, seed=1)
    labels = np.stack(list(values.values()), axis=1)
    network = attributes.fit(pictures[:900], labels[:900], epochs=4, batch_size=32)
    seen = attributes.has(network, attributes.as_network_input(pictures[900:]))
    assert seen.shape == (200, 5)
    assert (seen == labels[900:]).mean(axis=0).min() > 0.85


def test_its_accuracy_is_measured_on_faces_that_it_did_not_learn_from(monkeypatch):
    """The stand-in knows the order of the faces: right about the first 30, wrong about the others, but for glasses."""
    pictures, values = builtin_faces(50, seed=4)  # seed + 1
    labels = np.stack(list(values.values()), axis=1).astype(bool)
    answers = labels.copy()
    answers[30:, [0, 2, 3, 4]] ^= True
    known = {picture.tobytes(): answer for picture, answer in zip(pictures, answers, strict=True)}
    learned = []

    def fit(faces, truth, **options):
        learned.append((faces, truth, options))
        return "network"

    def has(network, x):
        assert network == "network"
        faces = np.rint((x.transpose(0, 2, 3, 1) + 1) * 127.5).astype(np.uint8)
        return np.stack([known[face.tobytes()] for face in faces])

    monkeypatch.setattr(attributes, "fit", fit)
    monkeypatch.setattr(attributes, "has", has)
    network, accuracy = attributes.fit_to_faces(32, train=30, test=20, seed=3)
    assert network == "network"
    assert accuracy.tolist() == [0, 1, 0, 0, 0]
    ((faces, truth, options),) = learned
    np.testing.assert_array_equal(faces, pictures[:30])
    np.testing.assert_array_equal(truth, labels[:30])
    assert options["seed"] == 3


def test_mistakes_get_one_sentence():
    with pytest.raises(UserError, match="a multiple of 8, got 28"):
        attributes.classifier(image_size=28, channels=1, count=2)
    with pytest.raises(UserError, match="at least 64 of them, got 10 pictures and 10 labels"):
        attributes.fit(np.zeros((10, 8, 8, 1), np.uint8), np.zeros((10, 2)))
