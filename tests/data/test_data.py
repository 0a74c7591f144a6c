"""idx files good and bad, where data sets are looked for, downloads, the built-in digits, the loader."""

import gzip
import hashlib
import os
import struct
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from nanogan.data import Loader, builtin_digits, load_mnist, mnist, read_idx
from nanogan.errors import DataNotFound, UserError


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_set(folder, count=5, *, prefix="train", zipped=True, infix="", value=None):
    """Write pictures and labels as MNIST does and return the pictures."""
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
    if value is not None:
        images[:] = value
    labels = rng.integers(0, 10, count).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((f"{prefix}-{infix}images-idx3-ubyte", images), (f"{prefix}-{infix}labels-idx1-ubyte", labels)):
        data = idx_bytes(array)
        (folder / (name + ".gz" if zipped else name)).write_bytes(gzip.compress(data) if zipped else data)
    return images


@pytest.fixture
def no_network(monkeypatch):
    """Every mirror is a folder that does not exist, so that a forgotten download fails at once."""
    for source in mnist.SOURCES.values():
        monkeypatch.setitem(source, "mirrors", ("file:///nowhere/",))


# ------------------------------------------------------------------------------------------------------- idx files


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("shape", [(4,), (3, 5, 2), (0, 28, 28)])
def test_idx_files_are_read(tmp_path, shape, zipped):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    data = idx_bytes(array)
    (tmp_path / "file").write_bytes(gzip.compress(data) if zipped else data)
    np.testing.assert_array_equal(read_idx(tmp_path / "file"), array)


GOOD = idx_bytes(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not start with an idx header"),
        (b"\x00\x00", "does not start with an idx header"),
        (b"PNG is not idx", "does not start with an idx header"),
        (b"\x00\x00\x0d\x03" + GOOD[4:], "the header says type 13"),
        (b"\x00\x00\x08\x02" + GOOD[4:], "the header says type 8, 2"),
        (GOOD[:10], "ends within its header"),
        (GOOD[:-1], "promises 60 bytes, shape .3, 4, 5., but it holds 59"),
        (GOOD + b"!", "promises 60 bytes.*holds more"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "more than any idx data set has"),
        (gzip.compress(GOOD)[:-12], "ends too early"),
        (gzip.compress(GOOD)[:-3], "ends too early"),
        (flip(gzip.compress(GOOD), -6), "gzip stream is corrupt|CRC"),
        (flip(gzip.compress(GOOD), 2), "corrupt"),
    ],
)
def test_a_damaged_idx_file_gets_one_sentence(tmp_path, data, message):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    """The header promises 60 bytes; a gigabyte of zeros follows. Only one byte too many is read."""
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(GOOD)
        for _ in range(64):
            file.write(bytes(1 << 20))
    with pytest.raises(UserError, match="holds more"):
        read_idx(path)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(UserError, match="cannot be read"):
        read_idx(tmp_path)


# --------------------------------------------------------------------------------------------------- finding them


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("below", ["", "mnist"])
def test_data_dir_holds_the_files_or_a_folder_of_the_sets_name(tmp_path, zipped, below):
    images = write_set(tmp_path / below, zipped=zipped)
    found, labels = load_mnist("mnist", data_dir=tmp_path)
    np.testing.assert_array_equal(found[..., 0], images)
    assert found.shape == (5, 28, 28, 1)
    assert labels.shape == (5,)


def test_data_dir_then_NANOGAN_DATA_then_the_cache(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where macOS keeps its caches
    with pytest.raises(DataNotFound, match="could not be downloaded"):
        load_mnist()
    with pytest.raises(DataNotFound, match="allow the download"):
        load_mnist(download=False)
    write_set(mnist.cache_dir() / "mnist", value=1)
    assert load_mnist()[0][0, 0, 0, 0] == 1
    (tmp_path / "shared").mkdir()
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path / "shared"))
    assert load_mnist()[0][0, 0, 0, 0] == 1, "an empty NANOGAN_DATA does not hide the cache"
    write_set(tmp_path / "shared" / "mnist", value=2)
    assert load_mnist()[0][0, 0, 0, 0] == 2
    write_set(tmp_path / "mine", value=3)
    assert load_mnist(data_dir=tmp_path / "mine")[0][0, 0, 0, 0] == 3


def test_a_wrong_NANOGAN_DATA_is_told(monkeypatch, no_network):
    monkeypatch.setenv("NANOGAN_DATA", "/nowhere")
    with pytest.raises(UserError, match="NANOGAN_DATA names /nowhere, which is no folder"):
        load_mnist()


def test_train_and_test_are_different_files(tmp_path):
    write_set(tmp_path, 5)
    write_set(tmp_path, 3, prefix="t10k")
    assert len(load_mnist(data_dir=tmp_path)[0]) == 5
    assert len(load_mnist(data_dir=tmp_path, split="test")[0]) == 3


def test_a_part_of_the_set_may_be_named(tmp_path):
    write_set(tmp_path, 4, infix="first4-")
    assert len(load_mnist("fashion-mnist", data_dir=tmp_path)[0]) == 4


@pytest.mark.parametrize(
    ("prepare", "arguments", "error", "message"),
    [
        (lambda folder: None, {}, DataNotFound, "holds no train-images-idx3-ubyte"),
        (lambda folder: write_set(folder), {"split": "test"}, DataNotFound, "holds no t10k-images-idx3-ubyte"),
        (lambda folder: folder.rmdir(), {}, UserError, "there is no folder"),
        (lambda folder: None, {"name": "emnist"}, UserError, "unknown data set 'emnist'"),
        (lambda folder: None, {"split": "all"}, UserError, "unknown split 'all'"),
    ],
)
def test_what_is_not_there_gets_one_sentence(tmp_path, prepare, arguments, error, message):
    folder = tmp_path / "data"
    folder.mkdir()
    prepare(folder)
    with pytest.raises(error, match=message):
        load_mnist(data_dir=folder, **arguments)


def test_pictures_and_labels_must_belong_together(tmp_path):
    write_set(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(4, np.uint8))))
    with pytest.raises(UserError, match="do not belong together"):
        load_mnist(data_dir=tmp_path)


# ------------------------------------------------------------------------------------------------------ downloads


@pytest.fixture
def mirrors(tmp_path, monkeypatch):
    """Three mirrors: one that is gone, one with a changed file, a good one; and checksums of the good one's files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    good, changed = tmp_path / "good", tmp_path / "changed"
    write_set(good, 5)
    write_set(changed, 6)
    sums = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in good.iterdir()}
    urls = [folder.as_uri() + "/" for folder in (tmp_path / "gone", changed, good)]
    monkeypatch.setitem(mnist.SOURCES, "mnist", {"mirrors": urls, "md5": sums})
    return urls


def test_mirrors_are_tried_in_turn_until_the_checksum_fits(mirrors):
    images, labels = load_mnist()
    assert len(images) == len(labels) == 5
    assert sorted(os.listdir(mnist.cache_dir() / "mnist")) == [
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
    ]
    mirrors.clear()
    assert len(load_mnist()[0]) == 5, "the second time it comes from the cache"


def test_a_wrong_checksum_leaves_nothing_behind(mirrors):
    mirrors.pop()
    with pytest.raises(DataNotFound, match="wrong checksum") as caught:
        load_mnist()
    assert "gone" in str(caught.value), "every mirror's failure is told"
    assert "\n" not in str(caught.value)
    assert os.listdir(mnist.cache_dir() / "mnist") == []


@pytest.mark.parametrize(
    "answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nshort"]
)
def test_a_broken_proxy_is_one_more_mirror_that_failed(mirrors, answer):
    """Its answers raise exceptions that are neither OSError nor ValueError."""
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        mirrors.insert(0, f"http://127.0.0.1:{server.getsockname()[1]}/")
        assert len(load_mnist()[0]) == 5


def test_an_endless_download_is_cut_off(mirrors, monkeypatch):
    monkeypatch.setattr(mnist, "MAX_DOWNLOAD", 100)
    with pytest.raises(DataNotFound, match="more than the 100 bytes"):
        load_mnist()


# ------------------------------------------------------------------------------------------------ built-in digits


def test_builtin_digits_are_seeded_labelled_and_all_different():
    images, labels = builtin_digits(200, seed=3)
    again, same_labels = builtin_digits(200, seed=3)
    other, _ = builtin_digits(200, seed=4)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, same_labels)
    assert (images != other).any()
    assert images.shape == (200, 28, 28, 1)
    assert images.dtype == labels.dtype == np.uint8
    assert set(labels) == set(range(10))
    assert len({image.tobytes() for image in images}) == 200


def test_builtin_digits_look_like_mnist_to_a_nearest_neighbour(real_data):
    """A 1-nearest-neighbour classifier that has seen only built-in digits reads MNIST far better than by chance.

    Chance is 10%. Wrong labels, black pictures or inverted ones all give about that.
    """
    images, labels = builtin_digits(3000)
    pictures, truth = load_mnist(data_dir=real_data, split="test")
    mine = images.reshape(len(images), -1).astype(np.float32)
    theirs = pictures[:500].reshape(500, -1).astype(np.float32)
    distances = (mine**2).sum(1) - 2 * theirs @ mine.T
    assert (labels[distances.argmin(1)] == truth[:500]).mean() > 0.35


def test_builtin_digits_fill_their_frame_as_mnists_do():
    images, _ = builtin_digits(300)
    share = (images > 127).mean()
    assert 0.05 < share < 0.25  # MNIST: 0.13 of the pixels are ink
    assert images.max() > 240
    edge = np.concatenate(
        [images[:, 0].ravel(), images[:, -1].ravel(), images[:, :, 0].ravel(), images[:, :, -1].ravel()]
    )
    assert (edge > 127).mean() < 0.01, "digits are not cut off"


def test_builtin_digits_want_a_count():
    with pytest.raises(UserError, match="at least 1, got 0"):
        builtin_digits(0)


# ----------------------------------------------------------------------------------------------------- the loader


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


def test_real_mnist_is_whole(real_data):
    images, labels = load_mnist(data_dir=real_data)
    assert images.shape == (60000, 28, 28, 1)
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
