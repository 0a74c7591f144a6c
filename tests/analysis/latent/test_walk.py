"""Walks: the ways between z, and numbers that tell gliding from jumping."""

import numpy as np
import pytest

from nanogan import backend
from nanogan.analysis.latent import walk
from nanogan.errors import UserError


def test_a_line_and_a_circle_by_hand(device):
    a, b = (backend.to_device(np.array(z, np.float32), device) for z in ([3, 0], [0, 5]))
    line = backend.to_numpy(walk.between(a, b, [0, 0.25, 1], path="line"))
    np.testing.assert_allclose(line, [[3, 0], [2.25, 1.25], [0, 5]], atol=1e-6)
    circle = backend.to_numpy(walk.between(a, b, [0, 1 / 3, 1], path="circle"))
    middle = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)]) * (3 + 2 / 3)  # a third of a right angle
    np.testing.assert_allclose(circle, [[3, 0], middle, [0, 5]], atol=1e-5)
    assert line.dtype == circle.dtype == np.float32


def test_a_circle_keeps_the_length_and_walks_at_one_pace(rng):
    a, b = rng.standard_normal((2, 6, 100))
    b *= np.linalg.norm(a, axis=1, keepdims=True) / np.linalg.norm(b, axis=1, keepdims=True)
    z = walk.between(a, b, np.linspace(0, 1, 9), path="circle")
    np.testing.assert_allclose(np.linalg.norm(z, axis=2), np.broadcast_to(np.linalg.norm(a, axis=1), (9, 6)))
    paces = np.linalg.norm(np.diff(z, axis=0), axis=2)
    np.testing.assert_allclose(paces, np.broadcast_to(paces[0], paces.shape))


def test_a_circle_between_almost_equal_z_is_a_line():
    a = np.array([[1.0, 2.0, 2.0], [0.0, 3.0, 4.0]])
    b = a + np.array([[1e-6, 0, 0], [0, 0, 0]])
    z = walk.between(a, b, [0.0, 0.5, 1.0], path="circle")
    np.testing.assert_allclose(z, [a, (a + b) / 2, b], atol=1e-9)


def test_legs_and_planes_meet_their_corners(device, rng):
    corners = rng.standard_normal((4, 7))
    there = backend.to_device(corners, device)
    z = backend.to_numpy(walk.legs(there, 5, path="circle"))
    assert z.shape == (4, 6, 7)
    np.testing.assert_allclose(z[:, 0], corners)
    np.testing.assert_allclose(z[:, -1], corners[[1, 2, 3, 0]])
    z = backend.to_numpy(walk.plane(there, 3))
    assert z.shape == (3, 3, 7)
    np.testing.assert_allclose(z[[0, 0, 2, 2], [0, 2, 0, 2]], corners)
    np.testing.assert_allclose(z[1, 1], corners.mean(axis=0))
    np.testing.assert_allclose(z[0, 1], corners[:2].mean(axis=0))


def test_step_sizes_by_hand(device):
    pictures = np.zeros((1, 3, 1, 2, 2), np.float32)
    pictures[0, 1, 0, 0, 0] = 1  # one of four pixels
    pictures[0, 2] = -1
    sizes = walk.step_sizes(pictures if device == "cpu" else backend.get_device(device).array_module.asarray(pictures))
    np.testing.assert_allclose(sizes, [[0.5, np.sqrt((4 + 3) / 4)]])


def test_gliding_halves_its_steps_and_jumping_does_not(rng):
    ends = rng.standard_normal((2, 3, 1, 1, 4, 4))
    shares = np.linspace(0, 1, 21)[:, None, None, None]
    glides = walk.smoothness((1 - shares) * ends[0] + shares * ends[1])
    assert glides["largest_halved"] == pytest.approx(0.5)
    distances = np.sqrt(((ends[1] - ends[0]) ** 2).mean(axis=(1, 2, 3, 4)))
    assert glides["largest_step"] == pytest.approx(distances.max() / 10)
    assert glides["median_step"] == pytest.approx(np.median(distances) / 10)
    assert glides["largest_over_median"] == pytest.approx(distances.max() / np.median(distances))
    jumps = walk.smoothness(np.where(shares < 0.5, ends[0], ends[1]))
    assert jumps["largest_halved"] == 1.0
    assert jumps["largest_step"] == pytest.approx(distances.max())
    assert jumps["median_step"] == 0
    assert jumps["largest_over_median"] is None
    still = walk.smoothness(np.zeros((1, 3, 1, 2, 2)))
    assert still["largest_halved"] is None


def test_by_heart_gives_the_nearest_picture(device, rng):
    known = rng.standard_normal((6, 3, 4, 4))
    known[1] = known[4] / 2  # has the larger part of its product with 4, but stands farther off
    order = np.array([4, 4, 0, 5, 1])
    near = known[order] + 0.01 * rng.standard_normal((5, 3, 4, 4))
    got = walk.by_heart(*(backend.to_device(each, device) for each in (near, known)), batch_size=2)
    np.testing.assert_array_equal(backend.to_numpy(got), known[order])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: walk.between(z[0], z[1], [0.5], path="spiral"), "a path expected line or circle, got 'spiral'"),
        (lambda z: walk.between(z[0], z[0][:2], [0.5]), "expected two z of one shape, got (3,) and (2,)"),
        (lambda z: walk.between(z[0], -z[0], [0.5], path="circle"), "do not point in opposite directions"),
        (lambda z: walk.between(z[0], 0 * z[0], [0.5], path="circle"), "that are not zero"),
        (lambda z: walk.legs(z[:1], 3), "at least 2 corners and 1 step, got 1 and 3"),
        (lambda z: walk.plane(z[:3], 3), "4 corners and a side of at least 2, got 3 and 3"),
        (lambda z: walk.smoothness(np.zeros((1, 4, 1, 2, 2))), "an odd number of frames, 3 or more, got 4"),
    ],
)
def test_mistakes_are_told(call, message, rng):
    with pytest.raises(UserError) as error:
        call(rng.standard_normal((4, 3)))
    assert message in str(error.value)
