"""Squared distances against the definition, and the digits that centring keeps."""

import numpy as np
import pytest

from nanogan.backend import squared_distance_blocks, squared_distances, to_device, to_numpy


def by_definition(x, y):
    return np.array([[((a - b) ** 2).sum() for b in y.astype(np.float64)] for a in x.astype(np.float64)])


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_distances_are_those_of_the_definition(device, dtype, tolerance, rng):
    x, y = rng.standard_normal((7, 5)).astype(dtype), rng.standard_normal((4, 5)).astype(dtype)
    distances = squared_distances(to_device(x, device), to_device(y, device))
    assert distances.dtype == dtype
    np.testing.assert_allclose(to_numpy(distances), by_definition(x, y), rtol=tolerance, atol=tolerance)


def test_blocks_are_the_rows_in_order_and_no_larger_than_asked(rng):
    x, y, wrapped = rng.standard_normal((7, 5)), rng.standard_normal((4, 5)), []

    def progress(starts):
        wrapped.append(len(starts))
        return starts

    blocks = list(squared_distance_blocks(x, y, rows=3, progress=progress))
    assert [block.shape for block in blocks] == [(3, 4), (3, 4), (1, 4)]
    assert wrapped == [3]
    np.testing.assert_allclose(np.concatenate(blocks), by_definition(x, y), rtol=1e-12)
    assert squared_distances(x[:0], y).shape == (0, 4)
    assert list(squared_distance_blocks(x[:0], y)) == []


def test_far_from_0_small_distances_keep_their_digits(rng):
    """At 1000 +- 0.01 float32's norms are 3e6 and their last place 0.25: uncentred, the distances would be noise."""
    x, y = (1000 + 0.01 * rng.standard_normal((6, 3)).astype(np.float32) for _ in range(2))
    np.testing.assert_allclose(squared_distances(x, y), by_definition(x, y), rtol=0.02, atol=1e-6)


def test_no_distance_is_negative_and_integers_do_not_overflow(rng):
    x = rng.integers(0, 256, (50, 300), dtype=np.uint8)
    distances = squared_distances(x, x)
    assert distances.dtype == np.float64
    assert distances.min() >= 0
    np.testing.assert_allclose(distances, by_definition(x, x), atol=1e-6)
    x = 100 * rng.standard_normal((200, 30)).astype(np.float32)
    assert squared_distances(x, x).min() >= 0
    assert squared_distances(x, x, dtype=np.float64).dtype == np.float64


def test_float16_is_computed_in_float32_whose_squares_do_not_end_at_65504(device, rng):
    x, y = ((300 + 100 * rng.standard_normal((n, 8))).astype(np.float16) for n in (7, 4))
    distances = to_numpy(squared_distances(to_device(x, device), to_device(y, device)))
    np.testing.assert_allclose(distances, by_definition(x, y), rtol=1e-5)
