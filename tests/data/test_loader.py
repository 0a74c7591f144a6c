"""The loader: order, columns, batches made ahead."""

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from nanogan.data import Captions, Loader
from nanogan.errors import UserError


def numbered(count):
    """Pictures that can be told apart: picture i is all i."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 3, 1))


def as_numbers(batch):
    return np.rint((batch[:, 0, 0, 0] + 1) * 127.5).astype(int).tolist()


def seen(loader, epoch, **options):
    return [as_numbers(batch["images"]) for batch in loader.epoch(epoch, **options)]


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
    ((name, batch),) = next(Loader(images, batch_size=4, shuffle=False).epoch(1)).items()
    assert name == "images"
    assert batch.dtype == np.float32
    assert batch.shape == (4, 3, 5, 6)
    assert (batch.min(), batch.max()) == (-1, 1)
    assert batch.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_allclose(batch, images.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Loader(numbered(5), batch_size=6), "a batch of 6 was asked for, but there are 5 pictures"),
        (lambda: Loader(numbered(5), batch_size=0), "batch_size expected an integer of at least 1, got 0"),
        (lambda: Loader(numbered(5), batch_size=4.0), "batch_size expected an integer of at least 1, got 4.0"),
        (lambda: Loader(numbered(5), batch_size="4"), "batch_size expected an integer of at least 1, got '4'"),
        (lambda: Loader(numbered(5), batch_size=True), "batch_size expected an integer of at least 1, got True"),
        (lambda: Loader(numbered(5), batch_size=1, seed=1.0), "seed expected an integer of at least 0, got 1.0"),
        (lambda: Loader(numbered(5), batch_size=1, seed=-1), "seed expected an integer of at least 0, got -1"),
        (lambda: Loader(numbered(5), batch_size=1, seed="1"), "seed expected an integer of at least 0, got '1'"),
        (lambda: Loader(numbered(5), batch_size=1, dtype=int), "a floating-point dtype .* got <class 'int'>"),
        (lambda: Loader(numbered(5), batch_size=1, dtype=complex), "a floating-point dtype .* got <class 'complex'>"),
        (lambda: Loader(numbered(5), batch_size=1, dtype="none"), "a floating-point dtype .* got 'none'"),
        (lambda: labelled(np.arange(5.0)), r"integers \(N,\) as labels, got float64 .*use labels.astype\(int\)"),
        (lambda: labelled([True] * 5), r"integers \(N,\) as labels, got bool .*use labels.astype\(int\)"),
        (lambda: labelled(np.arange(5) / 2), r"integers \(N,\) as labels, got float64 of shape \(5,\)$"),
        (lambda: labelled(np.arange(5, dtype=np.uint64) + 2**63), "labels below"),
        (lambda: labelled(np.ma.masked_array(np.arange(5), mask=[0, 1, 0, 0, 0])), "got a masked one"),
        (lambda: labelled(np.arange(5), classes="5"), "classes of labels expected an integer of at least 1, got '5'"),
        (lambda: labelled(np.arange(5), classes=5.5), "classes of labels expected an integer of at least 1, got 5.5"),
        (lambda: Loader(np.ma.masked_array(numbered(5), mask=numbered(5) > 3), batch_size=1), "got a masked one"),
        (lambda: column(np.full((5, 2), 1e39)), "a column v of at most 3.4028e.38, which float32 holds, got 1e.39"),
        (lambda: column(np.full(5, -7e4), dtype=np.float16), "at most 65504, which float16 holds, got -70000.0"),
        (lambda: column(np.ones((5, 2)).view(np.matrix)), "expected a NumPy or CuPy array, got matrix"),
        (lambda: Loader(numbered(5)[..., 0], batch_size=1), r"uint8 images \(N, H, W, C\), got uint8 of shape"),
        (lambda: Loader(numbered(5) / 255, batch_size=1), r"uint8 images \(N, H, W, C\), got float64"),
    ],
)
def test_wrong_input_gets_one_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()


def labelled(labels, **options):
    return Loader(numbered(5), labels=labels, batch_size=1, **options)


def column(values, **options):
    return Loader({"images": numbered(5), "v": values}, batch_size=1, **options)


def test_numpys_integers_are_integers_and_any_memory_order_and_byte_order_is_right():
    images, labels = numbered(8).copy(), np.arange(8) % 3
    (plain,) = Loader(images, labels=labels, batch_size=8, seed=1).epoch(1)
    odd = np.asfortranarray(images)[::-1][::-1]
    odd.flags.writeable = False
    for given in (labels.tolist(), labels.astype(">i2"), labels.astype(np.uint8)):
        loader = Loader(odd, labels=given, batch_size=np.int64(8), seed=np.uint8(1), classes=np.int32(3), dtype=">f4")
        (batch,) = loader.epoch(np.int64(1))
        assert type(loader.batch_size) is type(loader.seed) is type(loader.shapes["labels"]) is int
        assert batch["images"].dtype.isnative
        for name, array in plain.items():
            assert batch[name].dtype == array.dtype
            np.testing.assert_array_equal(batch[name], array)


def test_columns_that_hold_infinity_and_nan_are_passed_on():
    values = np.array([np.inf, -np.inf, np.nan, 1.0, 2.0])
    (batch,) = Loader({"v": values}, batch_size=5, shuffle=False).epoch(1)
    np.testing.assert_array_equal(batch["v"], values)


def test_an_epoch_is_taken_up_after_any_of_its_batches():
    for loader in (Loader(numbered(20), batch_size=6, seed=1), Loader(Slow(numbered(20)), batch_size=6, seed=1)):
        whole = seen(loader, 3)
        for start in range(5):
            assert seen(loader, 3, start=start) == whole[start:]
        for start in (-1, 5):
            with pytest.raises(UserError, match=f"start must be between 0 and 4, the number of batches, got {start}"):
                next(loader.epoch(1, start=start))


# ---------------------------------------------------------------------------------------------------------- columns


def test_columns_stay_together_in_one_order():
    """In batches with and without other columns, images come in the same order."""
    count = np.arange(20)
    columns = {"images": numbered(20), "labels": count.astype(np.uint8), "where": np.stack([count, -count], 1) * 0.5}
    loader = Loader(columns, batch_size=6, seed=1)
    assert loader.shapes == {"images": (1, 2, 3), "labels": 20, "where": (2,)}
    for epoch in (1, 2):
        batches = list(loader.epoch(epoch))
        shown = [as_numbers(batch["images"]) for batch in batches]
        assert shown == seen(Loader(numbered(20), batch_size=6, seed=1), epoch)
        for numbers, batch in zip(shown, batches, strict=True):
            assert list(batch) == ["images", "labels", "where"]
            assert batch["labels"].tolist() == numbers
            assert batch["labels"].dtype == np.int64
            assert batch["where"].dtype == np.float32
            np.testing.assert_array_equal(batch["where"], np.stack([numbers, np.negative(numbers)], 1) * 0.5)


def test_the_order_of_a_seed_is_fixed():
    """Runs that earlier versions began are resumed in the order that they had."""
    assert sum(seen(Loader(numbered(10), batch_size=4, seed=0), 1), []) == [1, 8, 4, 2, 7, 9, 6, 0, 3, 5]
    assert sum(seen(Loader(numbered(10), batch_size=4, seed=5), 3), []) == [8, 9, 2, 7, 6, 3, 0, 5, 4, 1]


def test_columns_are_known_by_what_they_hold(rng):
    a, b = (rng.integers(0, 256, (6, *shape), dtype=np.uint8) for shape in ((4, 4, 1), (8, 4, 3)))
    half = rng.random((6, 2, 5)).astype(np.float16)
    columns = {"a": a, "b": b, "kind": [3, 0, 1, 0, 0, 1], "score": rng.random(6), "half": half}
    loader = Loader(columns, batch_size=3, shuffle=False, dtype=np.float64)
    assert loader.shapes == {"a": (1, 4, 4), "b": (3, 8, 4), "kind": 4, "score": (), "half": (2, 5)}
    first, second = loader.epoch(1)
    assert {name: array.shape for name, array in first.items()} == {
        "a": (3, 1, 4, 4), "b": (3, 3, 8, 4), "kind": (3,), "score": (3,), "half": (3, 2, 5)
    }  # fmt: skip
    assert {name: array.dtype for name, array in first.items()} == {
        "a": np.float64, "b": np.float64, "kind": np.int64, "score": np.float64, "half": np.float64
    }  # fmt: skip
    assert second["kind"].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(second["half"], half[3:])
    np.testing.assert_allclose(second["b"], b[3:].transpose(0, 3, 1, 2) / 127.5 - 1)


def test_captions_stay_with_their_images():
    numbers = np.stack([np.arange(7) % 4, np.arange(7) % 3, np.zeros(7)], axis=1)
    columns = {"images": numbered(7), "captions": Captions(numbers, ("", "a", "cat", "red"))}
    loader = Loader(columns, batch_size=3, dtype=np.float64)
    assert loader.shapes["captions"] == columns["captions"].described()
    for batch in loader.epoch(1):
        assert batch["captions"].dtype == np.int64
        np.testing.assert_array_equal(batch["captions"], numbers[as_numbers(batch["images"])])


def test_the_number_of_classes_may_be_given():
    labels = np.array([0, 2, 1, 2, 0])
    assert Loader(numbered(5), labels=labels, batch_size=5).shapes["labels"] == 3
    assert Loader(numbered(5), labels=labels, batch_size=5, classes=10).shapes["labels"] == 10
    columns = {"images": numbered(5), "labels": labels, "colour": labels}
    loader = Loader(columns, batch_size=5, classes={"colour": 4})
    assert loader.shapes == {"images": (1, 2, 3), "labels": 3, "colour": 4}


def test_labels_of_a_slow_source_belong_to_its_images():
    source = Slow(numbered(23))
    for batch in Loader(source, labels=np.arange(23), batch_size=5, seed=4).epoch(1):
        assert as_numbers(batch["images"]) == batch["labels"].tolist()
    assert threading.current_thread() not in source.threads


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": np.arange(4)}, "columns of one length, got images 5, labels 4"),
        ({"labels": np.array([0, 1, 2, -1, 0])}, "expected labels of at least 0, got -1 to 2"),
        ({"labels": np.array([0, 1, 2, 10, 0]), "classes": 10}, "expected labels from 0 to 9, got 0 to 10"),
        ({"labels": np.array([0, -1, 2, 3, 0]), "classes": 10}, "expected labels from 0 to 9, got -1 to 3"),
        ({"labels": np.arange(5.0)}, r"expected integers \(N,\) as labels, got float64 of shape \(5,\)"),
        ({"labels": np.eye(5, dtype=int)}, r"expected integers \(N,\) as labels, got int64 of shape \(5, 5\)"),
        ({"labels": ["cat"] * 5}, r"expected integers \(N,\) as labels, got <U3 of shape \(5,\)"),
        ({"labels": [None] * 5}, r"expected integers \(N,\) as labels, got object"),
        ({"classes": 10}, "Loader got classes=10, but no column labels"),
        ({"images": {"a": numbered(5)}, "classes": {"a": 3}}, "got classes=3, but the column a holds images"),
        (
            {"images": {"images": numbered(5), "labels": [0] * 5}, "labels": [0] * 5},
            "one column of labels, got labels=",
        ),
        ({"images": {"images": numbered(5) / 255}}, r"expected uint8 images \(N, H, W, C\), got float64"),
        ({"images": {"a": np.eye(5, dtype=int)}}, r"floats \(N, ...\) in the column a, got int64 of shape \(5, 5\)"),
        ({"images": {"a": np.zeros(5, bool)}}, "in the column a, got bool"),
        ({"images": {"a": np.float32(1)}}, r"in the column a, got float32 of shape \(\)"),
        ({"images": {}}, "columns of one length, got none"),
    ],
)
def test_wrong_columns_get_one_sentence(options, message):
    options = {"images": numbered(5)} | options
    with pytest.raises(UserError, match=message):
        Loader(batch_size=2, **options)


# ---------------------------------------------------------------------------------------------------- unpaired columns


def unpaired(a=20, b=7, batch_size=6, **options):
    return Loader({"a": numbered(a), "b": numbered(b)}, batch_size=batch_size, unpaired=("b",), **options)


def test_an_unpaired_column_has_its_own_length_and_order():
    """An epoch is as long as the longest column; of the shorter one each round shows every image once."""
    loader = unpaired(seed=1)
    assert len(loader) == 4
    seen_before = []
    for epoch in (1, 2):
        batches = list(loader.epoch(epoch))
        a, b = (sum((as_numbers(batch[name]) for batch in batches), []) for name in "ab")
        assert [len(batch["a"]) for batch in batches] == [len(batch["b"]) for batch in batches] == [6, 6, 6, 2]
        assert sorted(a) == list(range(20))
        assert a == sum(seen(Loader(numbered(20), batch_size=6, seed=1), epoch), []), "as without the other column"
        rounds = [b[0:7], b[7:14], b[14:20]]
        assert sorted(rounds[0]) == sorted(rounds[1]) == list(range(7))
        assert len(set(rounds[2])) == 6
        seen_before += [*map(tuple, rounds)]
    assert len(set(seen_before)) == 6, "every round has a new order"


def test_columns_of_one_length_are_unpaired_too():
    for batch in Loader({"a": numbered(20), "b": numbered(20)}, batch_size=20, unpaired=("b",)).epoch(1):
        a, b = (as_numbers(batch[name]) for name in "ab")
        assert sorted(a) == sorted(b)
        assert a != b


def test_the_longest_column_may_be_the_unpaired_one():
    loader = unpaired(a=5, b=12, batch_size=5, drop_last=True)
    assert len(loader) == 2
    first, second = ({name: as_numbers(batch[name]) for name in "ab"} for batch in loader.epoch(1))
    assert sorted(first["a"]) == sorted(second["a"]) == list(range(5))
    assert len({*first["b"], *second["b"]}) == 10
    unshuffled = unpaired(a=5, b=12, batch_size=6, shuffle=False)
    assert sum((as_numbers(batch["a"]) for batch in unshuffled.epoch(3)), []) == [*range(5), *range(5), 0, 1]


def test_an_epoch_of_unpaired_columns_is_taken_up_after_any_of_its_batches():
    def shown(loader, **options):
        return [(as_numbers(batch["a"]), as_numbers(batch["b"])) for batch in loader.epoch(3, **options)]

    whole = shown(unpaired(seed=1))
    for start in range(5):
        assert shown(unpaired(seed=1), start=start) == whole[start:]
    slow = Loader({"a": Slow(numbered(20)), "b": Slow(numbered(7))}, batch_size=6, seed=1, unpaired=("b",))
    assert shown(slow, start=1) == whole[1:]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": numbered(5), "b": numbered(0)}, "Loader expected samples in every column, got none in b"),
        ({"a": numbered(0), "b": numbered(5)}, "Loader expected samples in every column, got none in a"),
        ({"a": numbered(5)}, "Loader expected an unpaired column b, got a"),
        ({"a": numbered(5), "b": numbered(9), "labels": [0] * 4}, "columns of one length, got a 5, labels 4"),
        ({"a": numbered(1), "b": numbered(1)}, "a batch of 2 was asked for, but there are 1 pictures"),
    ],
)
def test_wrong_unpaired_columns_get_one_sentence(columns, message):
    with pytest.raises(UserError, match=message):
        Loader(columns, batch_size=2, unpaired=("b",))


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
            assert one["images"].dtype == other["images"].dtype
            assert one["images"].strides == other["images"].strides
            np.testing.assert_array_equal(one["images"], other["images"])
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
    assert [as_numbers(next(batches)["images"]) for _ in range(2)] == [list(range(6)), list(range(6, 12))]
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
