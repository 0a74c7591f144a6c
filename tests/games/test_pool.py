"""The pool of past fakes, beside the rule as one would tell it."""

import numpy as np
import pytest

from nanogan.backend import to_device, to_numpy
from nanogan.errors import UserError
from nanogan.games.pool import Pool
from tests import strict_cupy
from tests.helpers import channels_last

SHAPE = (2, 3, 4)


def fakes_of(numbers):
    """Fake number n is all n."""
    return channels_last(np.broadcast_to(np.float32(numbers)[:, None, None, None], (len(numbers), *SHAPE)).copy())


def numbers_of(images):
    assert images.shape[1:] == SHAPE
    return to_numpy(images)[:, 0, 0, 0].tolist()


def by_the_rule(stored, size, fakes, places, swaps):
    """One fake after the other, with a list."""
    seen = []
    for fake, place, swap in zip(fakes, places, swaps, strict=True):
        if len(stored) < size:
            stored.append(fake)
            seen.append(fake)
        elif swap:
            seen.append(stored[place])
            stored[place] = fake
        else:
            seen.append(fake)
    return seen


def test_it_follows_the_rule(device):
    """Filling up within a batch, and one place hit twice in a batch, included."""
    pool, stored, rng = Pool(5, SHAPE, device), [], np.random.default_rng(1)
    old = 0
    for start in range(0, 120, 8):
        numbers = list(range(start + 1, start + 9))
        drawn = pool.draw(rng, 8)
        assert stored or to_numpy(drawn[1])[:5].any(), "some would swap while it fills up"
        fakes = to_device(fakes_of(numbers), device)
        strict_cupy.transfers.clear()
        seen = pool.swap(fakes, drawn)
        assert not strict_cupy.transfers, "nothing is read back"
        expected = by_the_rule(stored, 5, numbers, *(to_numpy(each).tolist() for each in drawn))
        assert numbers_of(seen) == expected
        assert numbers_of(fakes) == numbers, "the fakes stay as they were"
        assert numbers_of(pool.images)[: len(stored)] == stored
        assert to_numpy(pool.count).tolist() == [len(stored)]
        old += sum(number < start for number in expected)
    assert 30 < old < 60, "about half of them are older than their batch"


def test_half_of_the_fakes_swap_and_every_place_is_drawn():
    places, swaps = Pool(4, SHAPE).draw(np.random.default_rng(0), 1000)
    assert 450 < swaps.sum() < 550
    assert np.bincount(places, minlength=4).min() > 200
    assert places.max() == 3


def test_it_goes_on_from_its_state():
    pool, other, rng = Pool(5, SHAPE), Pool(5, SHAPE), np.random.default_rng(0)
    pool.swap(fakes_of([1, 2, 3]), pool.draw(rng, 3))
    state = pool.state_dict()
    assert {name: array.shape for name, array in state.items()} == {"images": (5, *SHAPE), "count": (1,)}
    other.load_state_dict(state)
    drawn, fakes = pool.draw(rng, 8), fakes_of(range(4, 12))
    assert numbers_of(pool.swap(fakes, drawn)) == numbers_of(other.swap(fakes, drawn))
    assert numbers_of(pool.images) == numbers_of(other.images)
    state["count"][...] = 1000
    other.load_state_dict(state)
    assert other.count.tolist() == [5], "a file may say anything"
    with pytest.raises(UserError, match=r"this pool holds images \(4, 2, 3, 4\), the saved one \(5, 2, 3, 4\)"):
        Pool(4, SHAPE).load_state_dict(state)


def test_without_room_every_fake_passes_by():
    pool, fakes = Pool(0, SHAPE), fakes_of([1, 2])
    assert numbers_of(pool.swap(fakes, pool.draw(np.random.default_rng(0), 2))) == [1, 2]
