"""The loader: order, columns, batches made ahead."""

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from nanogan.data import Loader
from nanogan.errors import UserError


def numbered(count):
    """Pictures that can be told apart: picture i is all i."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 3, 1))


def as_numbers(batch):
    return np.rint((batch[:, 0, 0, 0] + 1) * 127.5).astype(int).tolist()


def seen(loader, epoch):
    return [as_numbers(batch) for batch in loader.epoch(epoch)]


def test_an_epoch_shows_every_picture_once_in_an_order_of_its_own():
    loader = Loader(numbered(20), batch_size=6, seed=1)
    first, second = seen(loader, 1), seen(loader, 2)
    assert [len(batch) for batch in first] == [6, 6, 6, 2]
    assert len(loader) == 4
    for batches in (first, second):
        assert sorted(sum(batches, [])) == list(range(20))
    assert first != second
    assert first != seen(Loader(numbered(20), batch_size=6, seed=2), 1)
    assert seen(Loader(numbered(20), batch_size=6, seed=1), 2) == second, "an epoch can be taken up by its number"
    assert sum(seen(Loader(numbered(20), batch_size=6, shuffle=False), 1), []) == list(range(20))


def test_the_last_batch_is_kept_or_dropped():
    assert [len(b) for b in seen(Loader(numbered(20), batch_size=6, drop_last=True), 1)] == [6, 6, 6]
    assert len(Loader(numbered(20), batch_size=6, drop_last=True)) == 3
    assert len(Loader(numbered(18), batch_size=6)) == 3


def test_batches_run_from_minus_one_to_one_with_channels_last(rng):
    images = rng.integers(0, 256, (4, 5, 6, 3)).astype(np.uint8)
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 0, 255
    (batch,) = Loader(images, batch_size=4, shuffle=False).epoch(1)
    assert batch.dtype == np.float32
    assert batch.shape == (4, 3, 5, 6)
    assert (batch.min(), batch.max()) == (-1, 1)
    assert batch.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_allclose(batch, images.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Loader(numbered(5), batch_size=6), "a batch of 6 was asked for, but there are 5 pictures"),
        (lambda: Loader(numbered(5), batch_size=0), "batch size of at least 1"),
        (lambda: Loader(numbered(5)[..., 0], batch_size=1), r"uint8 pictures \(N, H, W, C\), got uint8 of shape"),
        (lambda: Loader(numbered(5) / 255, batch_size=1), r"uint8 pictures \(N, H, W, C\), got float64"),
    ],
)
def test_wrong_input_gets_one_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_an_epoch_is_taken_up_after_any_of_its_batches():
    for loader in (Loader(numbered(20), batch_size=6, seed=1), Loader(Slow(numbered(20)), batch_size=6, seed=1)):
        whole = seen(loader, 3)
        for start in range(5):
            assert list(map(as_numbers, loader.epoch(3, start=start))) == whole[start:]
        for start in (-1, 5):
            with pytest.raises(UserError, match=f"an epoch of 4 batches was to start after {start} of them"):
                next(loader.epoch(1, start=start))


# ------------------------------------------------------------------------------------- the loader and slow sources


class Slow:
    """Pictures that are no array: counts what is asked for, and by which thread; picture ``bad`` cannot be had."""

    def __init__(self, pictures, bad=None):
        self.pictures, self.bad, self.asked, self.threads = pictures, bad, [], set()
        self.shape, self.ndim, self.dtype = pictures.shape, pictures.ndim, pictures.dtype

    def __len__(self):
        return len(self.pictures)

    def hold_up(self):
        pass

    def __getitem__(self, indices):
        self.hold_up()
        self.threads.add(threading.current_thread())
        self.asked.append(indices.tolist())
        if self.bad in indices:
            raise UserError(f"picture {self.bad} cannot be had")
        return self.pictures[indices]


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("nanogan-loader")]


@pytest.mark.parametrize("options", [{}, {"drop_last": True}, {"shuffle": False}, {"dtype": np.float64}])
def test_batches_of_a_slow_source_are_those_of_an_array(rng, options):
    images = rng.integers(0, 256, (23, 4, 4, 3)).astype(np.uint8)
    source = Slow(images)
    for epoch in (1, 2):
        ahead = list(Loader(source, batch_size=5, seed=4, **options).epoch(epoch))
        direct = list(Loader(images, batch_size=5, seed=4, **options).epoch(epoch))
        assert len(ahead) == len(direct)
        for one, other in zip(ahead, direct, strict=True):
            assert one.dtype == other.dtype
            assert one.strides == other.strides
            np.testing.assert_array_equal(one, other)
    assert threading.current_thread() not in source.threads
    assert not loader_threads()


def test_an_array_needs_no_thread():
    batches = Loader(numbered(20), batch_size=6).epoch(1)
    next(batches)
    assert not loader_threads()


def test_a_few_batches_are_made_ahead_and_no_more():
    source = Slow(numbered(100))
    batches = Loader(source, batch_size=5, shuffle=False).epoch(1)
    assert source.asked == [], "nothing is made before the first batch is asked for"
    for taken in range(1, 6):
        next(batches)
        (thread,) = loader_threads()
        assert thread is not threading.current_thread()
        deadline = time.monotonic() + 30
        while len(source.asked) < taken + 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert source.asked == [list(range(5 * i, 5 * i + 5)) for i in range(taken + 3)]
    batches.close()


def test_batches_before_the_start_are_not_decoded():
    source = Slow(numbered(20))
    list(Loader(source, batch_size=6, shuffle=False).epoch(1, start=2))
    assert source.asked == [[12, 13, 14, 15, 16, 17], [18, 19]]


def test_what_a_slow_source_raises_is_raised_in_its_turn():
    source = Slow(numbered(20), bad=13)
    batches = Loader(source, batch_size=6, shuffle=False).epoch(1)
    assert [as_numbers(next(batches)) for _ in range(2)] == [list(range(6)), list(range(6, 12))]
    with pytest.raises(UserError, match="picture 13 cannot be had"):
        next(batches)
    assert not loader_threads()


def test_an_epoch_that_is_left_takes_back_what_it_asked_for(monkeypatch):
    """The second batch is held up until all that wait were cancelled, so those behind it are not made."""
    source, cancelled, all_cancelled, original = Slow(numbered(100)), [], threading.Event(), Future.cancel

    def cancel(future):
        cancelled.append(original(future))
        if len(cancelled) == 3:
            all_cancelled.set()

    monkeypatch.setattr(Future, "cancel", cancel)
    source.hold_up = lambda: all_cancelled.wait(5) if source.asked else None
    batches = Loader(source, batch_size=5).epoch(1)
    next(batches)
    batches.close()
    assert len(source.asked) <= 2


def test_an_epoch_that_is_left_early_leaves_no_thread_and_makes_no_more():
    source = Slow(numbered(100))
    batches = Loader(source, batch_size=5).epoch(1)
    next(batches)
    batches.close()
    assert not loader_threads()
    asked = len(source.asked)
    assert asked <= 4
    for _ in Loader(source, batch_size=5).epoch(1):
        break
    assert not loader_threads()
    assert len(source.asked) <= asked + 4
