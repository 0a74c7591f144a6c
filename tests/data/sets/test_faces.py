"""The built-in faces: seeded, alike at both sizes, and their attributes are to be seen where they should be."""

import numpy as np
import pytest

from nanogan.data.sets.faces import ATTRIBUTES, builtin_faces
from nanogan.errors import UserError


@pytest.fixture(scope="module")
def faces():
    pictures, attributes = builtin_faces(600, seed=3)
    return pictures.astype(np.float64), {name: values == 1 for name, values in attributes.items()}


def test_they_are_seeded_labelled_and_all_different():
    pictures, attributes = builtin_faces(300, seed=3)
    again, same = builtin_faces(300, seed=3)
    other, _ = builtin_faces(300, seed=4)
    np.testing.assert_array_equal(pictures, again)
    assert (pictures != other).any()
    assert pictures.shape == (300, 32, 32, 3)
    assert pictures.dtype == np.uint8
    assert tuple(attributes) == ATTRIBUTES
    for name, values in attributes.items():
        np.testing.assert_array_equal(values, same[name])
        assert values.dtype == np.uint8
        assert values.shape == (300,)
        assert set(values) == {0, 1}
    assert len({picture.tobytes() for picture in pictures}) == 300


def test_attributes_are_even_and_independent():
    _, attributes = builtin_faces(600, seed=3)
    together = np.corrcoef(np.stack(list(attributes.values())))
    assert np.abs(together - np.eye(5)).max() < 0.15  # 0.04 is one standard deviation
    for values in attributes.values():
        assert abs(values.mean() - 0.5) < 0.1


def test_both_sizes_are_the_same_faces():
    small, attributes = builtin_faces(20, size=32, seed=5)
    large, others = builtin_faces(20, size=64, seed=5)
    assert large.shape == (20, 64, 64, 3)
    for name in ATTRIBUTES:
        np.testing.assert_array_equal(attributes[name], others[name])
    halved = large.reshape(20, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    differences = np.abs(halved[:, None] - small[None].astype(np.float64)).mean(axis=(2, 3, 4))
    np.testing.assert_array_equal(differences.argmin(axis=1), np.arange(20))
    assert np.diag(differences).max() < 6  # lines are whole pixels of the drawing wide: a little differs


# Where an attribute changes the picture: rows and columns of 32, and whether it makes them darker or lighter.
@pytest.mark.parametrize(
    ("name", "rows", "columns", "lighter"),
    [
        ("smile", (20, 23), (13, 19), True),  # teeth
        ("glasses", (14, 17), (7, 25), False),
        ("long_hair", (22, 26), (4, 7), False),  # over the wall, which is light
    ],
)
def test_an_attribute_is_seen_in_its_place(faces, name, rows, columns, lighter):
    pictures, attributes = faces
    place = pictures[:, slice(*rows), slice(*columns)].mean(axis=(1, 2, 3))
    with_it, without = place[attributes[name]], place[~attributes[name]]
    difference = (with_it.mean() - without.mean()) * (1 if lighter else -1)
    error = np.sqrt(with_it.var() / len(with_it) + without.var() / len(without))
    assert difference > 5 * error


def test_those_who_look_right_have_their_features_farther_right(faces):
    pictures, attributes = faces
    white = (pictures[:, 12:18, 6:26].min(axis=3) > 210).sum(axis=1)  # of the eyes: (N, columns)
    middle = (white * np.arange(20)).sum(axis=1) / np.maximum(white.sum(axis=1), 1)
    plain = ~attributes["glasses"] & (white.sum(axis=1) > 0)
    right, left = (middle[plain & side] for side in (attributes["looks_right"], ~attributes["looks_right"]))
    assert len(right) > 50
    assert len(left) > 50
    assert right.mean() - left.mean() > 1  # pixels


def test_round_faces_are_wider_and_less_high(faces):
    pictures, attributes = faces
    wall = pictures[:, 0, 0][:, None, None]
    filled = np.abs(pictures - wall).sum(axis=3) > 60
    short_haired = ~attributes["long_hair"]
    width = filled[:, 17].sum(axis=1)
    assert width[short_haired & attributes["round"]].mean() > width[short_haired & ~attributes["round"]].mean() + 2
    top = filled[:, :, 16].argmax(axis=1)
    assert top[attributes["round"]].mean() > top[~attributes["round"]].mean() + 1


def test_progress_sees_every_face():
    seen = []
    builtin_faces(7, progress=lambda items: (seen.append(i) or i for i in items))
    assert seen == list(range(7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "a count of at least 1, got 0"),
        ({"count": 3, "size": 28}, "a size of 32 or 64 pixels, got 28"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(UserError, match=message):
        builtin_faces(**options)
