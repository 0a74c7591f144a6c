"""MNIST: where it is looked for, downloads."""

import gzip
import hashlib
import os

import numpy as np
import pytest

from nanogan.data import load_mnist
from nanogan.data.sets import mnist
from nanogan.errors import DataNotFound, UserError
from tests.data.formats.test_idx import idx_bytes


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


def test_real_mnist_is_whole(real_data):
    images, labels = load_mnist(data_dir=real_data)
    assert images.shape == (60000, 28, 28, 1)
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
