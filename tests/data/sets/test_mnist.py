"""MNIST: where it is looked for, downloads."""

import errno
import gzip
import hashlib
import os
import re
import socket
import ssl
import sys
import urllib.error

import numpy as np
import pytest

from nanogan import disk
from nanogan.data import load_mnist
from nanogan.data.sets import download, mnist
from nanogan.errors import DataNotFound, UserError
from tests.data.formats.test_idx import idx_bytes
from tests.failing_files import fill_the_disk


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


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("given", ["data_dir", "NANOGAN_DATA", "NANOGAN_DATA itself"])
@pytest.mark.parametrize("below", ["", "raw"])
def test_the_folders_of_torchvision(tmp_path, monkeypatch, no_network, name, given, below):
    """MNIST/raw and FashionMNIST/raw below a root, which is what torchvision is given; the other set is there too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    folders = {"mnist": tmp_path / "MNIST" / below, "fashion-mnist": tmp_path / "FashionMNIST" / below}
    images = {each: write_set(folder, value=i) for i, (each, folder) in enumerate(folders.items())}
    if given == "data_dir":
        found, _ = load_mnist(name, data_dir=tmp_path)
    else:
        monkeypatch.setenv("NANOGAN_DATA", str(tmp_path if given == "NANOGAN_DATA" else folders[name]))
        found, _ = load_mnist(name)
    np.testing.assert_array_equal(found[..., 0], images[name])


def test_another_sets_own_folder_is_not_taken_for_it(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    write_set(tmp_path / "MNIST")
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path / "MNIST"))
    with pytest.raises(DataNotFound):
        load_mnist("fashion-mnist", download=False)
    write_set(tmp_path / "elsewhere")
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DataNotFound):
        load_mnist("mnist", download=False)


@pytest.mark.parametrize("in_folders", [False, True])
def test_the_names_in_Kaggles_archive(tmp_path, in_folders):
    """train-images.idx3-ubyte, and train-images-idx3-ubyte/train-images-idx3-ubyte."""
    images = write_set(tmp_path, zipped=False)
    for file in list(tmp_path.iterdir()):
        if in_folders:
            content = file.read_bytes()
            file.unlink()
            file.mkdir()
            (file / file.name).write_bytes(content)
        else:
            file.rename(tmp_path / file.name.replace("-idx", ".idx"))
    np.testing.assert_array_equal(load_mnist(data_dir=tmp_path)[0][..., 0], images)


def test_the_file_of_Keras(tmp_path, monkeypatch, no_network):
    x = np.random.default_rng(0).integers(0, 256, (7, 28, 28)).astype(np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=x[:4], y_train=np.arange(4), x_test=x[4:], y_test=np.arange(3))
    for split, part in (("train", x[:4]), ("test", x[4:])):
        images, labels = load_mnist(data_dir=tmp_path, split=split)
        np.testing.assert_array_equal(images[..., 0], part)
        assert labels.tolist() == list(range(len(part)))
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path))
    np.testing.assert_array_equal(load_mnist(download=False)[0][..., 0], x[:4])
    with pytest.raises(DataNotFound):
        load_mnist("fashion-mnist", download=False)


def test_the_whole_set_comes_before_a_part_of_it(tmp_path):
    write_set(tmp_path, 3, infix="first3-")
    assert len(load_mnist(data_dir=tmp_path)[0]) == 3
    write_set(tmp_path, 6, zipped=False)
    assert len(load_mnist(data_dir=tmp_path)[0]) == 6


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


def forbidden(path, *arguments, **options):
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


def read_only(path, *arguments, **options):
    raise OSError(errno.EROFS, "Read-only file system", str(path))


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda patch, cache: cache.write_text("no folder"), "(Not a directory|File exists|cannot find the path).*"),
        (lambda patch, cache: patch.setattr(download.Path, "mkdir", forbidden), "Permission denied"),
        (lambda patch, cache: patch.setattr(download.Path, "mkdir", read_only), "Read-only file system"),
        (
            lambda patch, cache: patch.setattr(disk.tempfile, "TemporaryFile", lambda dir: forbidden(dir)),
            "Permission denied",
        ),
        (lambda patch, cache: fill_the_disk(patch, download), "No space left on device"),
    ],
)
def test_a_cache_that_cannot_be_written_is_the_reason_and_not_the_network(mirrors, monkeypatch, prepare, reason):
    """And is found before anything is downloaded, but for a full disk."""
    fetched, fetch = [], download._fetch
    monkeypatch.setattr(download, "_fetch", lambda *arguments: fetched.append(arguments) or fetch(*arguments))
    mirrors[:] = mirrors[2:] * 2  # both deliver
    prepare(monkeypatch, mnist.cache_dir().parent)
    with pytest.raises(DataNotFound) as caught:
        load_mnist()
    folder = re.escape(str(mnist.cache_dir() / "mnist"))
    assert re.match(
        rf"mnist was not downloaded, since it cannot be kept in the cache folder {folder} \({reason}\): .*NANOGAN_DATA",
        str(caught.value),
    ), caught.value
    assert "could not be downloaded" not in str(caught.value)
    assert len(fetched) == ("space" in reason)


@pytest.mark.parametrize("place", ["", "mnist"])
def test_a_folder_that_may_not_be_read_is_named_but_for_the_cache(tmp_path, monkeypatch, no_network, place):
    """Of the cache, which may be another user's, nobody said that the data are there."""
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path / "shared"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    closed, access = tmp_path / "shared" / place, os.access
    write_set(tmp_path / "shared/mnist")
    write_set(mnist.cache_dir() / "mnist")
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and access(path, mode))
    with pytest.raises(UserError, match=f"{re.escape(str(closed))}.* may not .*read"):
        load_mnist()
    monkeypatch.delenv("NANOGAN_DATA")
    assert len(load_mnist()[0]) == 5
    closed = mnist.cache_dir() / "mnist"
    with pytest.raises(DataNotFound, match="mnist is not on this machine"):
        load_mnist(download=False)


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="they have other caches")
def test_without_a_home_the_data_may_be_elsewhere(tmp_path, monkeypatch, no_network):
    for name in ("XDG_CACHE_HOME", "NANOGAN_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download.Path, "expanduser", homeless)
    with pytest.raises(DataNotFound, match="no home folder is known, .* ~/.cache/nanogan: set XDG_CACHE_HOME"):
        load_mnist()
    with pytest.raises(DataNotFound, match="mnist is not on this machine"):
        load_mnist(download=False)
    write_set(tmp_path / "mnist")
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path))
    assert len(load_mnist()[0]) == 5


def homeless(path):
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (urllib.error.HTTPError("http://x", 404, "Not Found", {}, None), "HTTP 404, it has no such file"),
        (urllib.error.HTTPError("http://x", 503, "Busy", {}, None), "HTTP 503, Busy"),
        (urllib.error.HTTPError("http://x", 407, "Auth", {}, None), "HTTP 407, the proxy asks for a password"),
        (urllib.error.URLError(socket.gaierror(-2, "Name or service not known")), "its name is not known here"),
        (urllib.error.URLError(ssl.SSLCertVerificationError(1, "self-signed")), r"certificate was .*SSL_CERT_FILE"),
        (urllib.error.URLError(ConnectionRefusedError(111, "refused")), "is the proxy proxy.local:3128 right?"),
        (TimeoutError("timed out"), "timed out: is the proxy proxy.local:3128 right?"),
        (ssl.SSLError(1, "record layer failure"), "record layer failure"),  # 1 is EPERM too
        (ConnectionResetError(104, "reset by peer"), "reset by peer"),
    ],
)
def test_each_failure_of_the_network_has_its_own_reason(mirrors, monkeypatch, error, message):
    def fetch(*arguments):
        raise error

    monkeypatch.setattr(download, "_fetch", fetch)
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy.local:3128")
    with pytest.raises(DataNotFound, match=message) as caught:
        load_mnist()
    assert str(caught.value).startswith(f"mnist could not be downloaded: {mirrors[0]}: ")
    assert str(caught.value).endswith(f"or put train-images-idx3-ubyte.gz into {mnist.cache_dir() / 'mnist'}")
    assert "secret" not in str(caught.value)


def test_real_mnist_is_whole(real_data):
    images, labels = load_mnist(data_dir=real_data)
    assert images.shape == (60000, 28, 28, 1)
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
