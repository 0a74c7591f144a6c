"""CIFAR-10 from its binary archive and folder; damaged and malicious ones are refused, and the python version is."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from nanogan.data import load_cifar10
from nanogan.data.formats import cifar
from nanogan.data.sets import cifar10
from nanogan.data.sets.download import cache_dir
from nanogan.errors import DataNotFound, UserError

COUNT = 3  # pictures in each test's batch


def picture(split, batch, i):
    """Pixels (32, 32, 3) and label of a picture, known by the place where it stands; each pixel is another."""
    rng = np.random.default_rng([split == "test", batch, i])
    return rng.integers(0, 256, (32, 32, 3)).astype(np.uint8), int(rng.integers(10))


def rows(split, batch):
    """What a batch holds: for each picture its label and its 3 planes as 3072 bytes."""
    pictures = [picture(split, batch, i) for i in range(COUNT)]
    return [(label, b"".join(pixels[:, :, c].tobytes() for c in range(3))) for pixels, label in pictures]


def expected(split):
    pictures = [picture(split, b, i) for b in (range(1, 6) if split == "train" else [0]) for i in range(COUNT)]
    return np.stack([pixels for pixels, _ in pictures]), np.array([label for _, label in pictures], np.uint8)


def binary_batch(split, batch):
    return b"".join(bytes([label]) + planes for label, planes in rows(split, batch))


def binary_files():
    """{file: its bytes} of a whole data set."""
    files = {f"data_batch_{i}.bin": binary_batch("train", i) for i in range(1, 6)}
    return files | {"test_batch.bin": binary_batch("test", 0), "readme.html": b"not read"}


def python_files(batch):
    """The files of the python version, each with the contents ``batch``."""
    return dict.fromkeys((*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"), batch)


def write_folder(path, files):
    path.mkdir(parents=True)
    for file, data in files.items():
        (path / file).write_bytes(data)


def write_archive(path, folder, files, change=None):
    """Write a tar.gz as the author's: the folder, then its files. ``change(member)`` may alter a member's header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        directory = tarfile.TarInfo(folder)
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for file, data in files.items():
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(data)
            if change:
                change(member)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("above", [True, False])
def test_it_is_read_packed_and_unpacked(tmp_path, split, packed, above):
    """``above``: the path is that of a folder that holds the archive or folder."""
    if packed:
        path = write_archive(tmp_path / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", binary_files())
    else:
        path = tmp_path / "cifar-10-batches-bin"
        write_folder(path, binary_files())
    images, labels = load_cifar10(tmp_path if above else path, split=split)
    assert images.dtype == labels.dtype == np.uint8
    assert images.flags.c_contiguous
    np.testing.assert_array_equal(images, expected(split)[0])
    np.testing.assert_array_equal(labels, expected(split)[1])


def test_an_archive_that_a_browser_unzipped(tmp_path):
    path = write_archive(tmp_path / "packed.tar.gz", "cifar-10-batches-bin", binary_files())
    (tmp_path / "cifar-10-binary.tar").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    for given in (tmp_path, tmp_path / "cifar-10-binary.tar"):
        np.testing.assert_array_equal(load_cifar10(given)[0], expected("train")[0])
    whole = (tmp_path / "cifar-10-binary.tar").read_bytes()
    (tmp_path / "cifar-10-binary.tar").write_bytes(whole[:5000])
    with pytest.raises(UserError, match="is not whole: its tar archive is corrupt"):
        load_cifar10(tmp_path)


@pytest.mark.parametrize("below", ["cifar-10-batches-bin", "CIFAR10/cifar-10-batches-bin", "cifar10"])
@pytest.mark.parametrize("itself", [False, True])
def test_NANOGAN_DATA_is_the_sets_folder_or_one_above(tmp_path, monkeypatch, below, itself):
    write_folder(tmp_path / below, binary_files())
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path / below if itself else tmp_path))
    np.testing.assert_array_equal(load_cifar10(download=False)[0], expected("train")[0])


def test_a_folder_that_is_not_whole_is_passed_over_for_an_archive(tmp_path):
    files = binary_files()
    write_archive(tmp_path / cifar10.ARCHIVE, cifar10.FOLDER, files)
    del files["data_batch_4.bin"]
    write_folder(tmp_path / cifar10.FOLDER, files)
    np.testing.assert_array_equal(load_cifar10(tmp_path)[0], expected("train")[0])


# ----------------------------------------------------------------------------------------- what is not there, or whole


def assert_refused(path, message, error=UserError, **options):
    with pytest.raises(error, match=message) as caught:
        load_cifar10(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_is_not_there_gets_one_sentence(tmp_path):
    assert_refused(tmp_path, "holds neither cifar-10-binary.tar.gz nor all the files of the split train", DataNotFound)
    assert_refused(tmp_path / "no.tar.gz", "there is no file or folder")
    with pytest.raises(UserError, match="unknown split 'valid'"):
        load_cifar10(tmp_path, split="valid")
    files = binary_files()
    del files["data_batch_2.bin"]
    path = write_archive(tmp_path / "half.tar.gz", cifar10.FOLDER, files)
    assert_refused(path, "there is no data_batch_2.bin in the folder cifar-10-batches-bin of this archive")
    assert len(load_cifar10(path, split="test")[0]) == COUNT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "records of 3073 bytes were expected"),
        (lambda data: b"", "records of 3073 bytes were expected"),
        (lambda data: b"\x0a" + data[1:], "labels from 0 to 9 were expected, got 10"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_damaged_binary_batch(tmp_path, change, message, packed):
    files = binary_files()
    files["data_batch_3.bin"] = change(files["data_batch_3.bin"])
    path = tmp_path / "cifar"
    if packed:
        write_archive(path, cifar10.FOLDER, files)
    else:
        write_folder(path, files)
    assert_refused(path, f"data_batch_3.bin in .*{message}")


def test_archives_cut_or_changed(tmp_path):
    whole = write_archive(tmp_path / "whole", cifar10.FOLDER, binary_files()).read_bytes()
    path = tmp_path / "cut"
    for data, message in (
        (whole[: len(whole) // 2], "ends too early"),
        (whole[:-4], "ends too early"),
        (whole[:-8] + b"\0\0\0\0" + whole[-4:], "gzip stream is corrupt"),
        (gzip.compress(b"no archive" * 100), "tar archive is corrupt"),
        (b"no archive", "gzip stream is corrupt"),
        (b"", "tar archive is corrupt"),
    ):
        path.write_bytes(data)
        assert_refused(path, message)


def test_no_bomb_is_unpacked(tmp_path, monkeypatch):
    """Members too large are refused by their headers; anything else ends when too much was unpacked."""
    monkeypatch.setattr(cifar, "MAX_BATCH", 100_000)
    monkeypatch.setattr(cifar, "MAX_UNPACKED", 1_000_000)
    folder, files = cifar10.FOLDER, binary_files()
    large = write_archive(tmp_path / "large", folder, {"data_batch_1.bin": bytes(200_000)})
    assert_refused(large, "data_batch_1.bin has 200000 bytes, a batch 100000 at most")
    assert_refused(
        write_archive(tmp_path / "bomb", folder, {"other": bytes(2_000_000)} | files), "more than the 1000000"
    )
    write_folder(tmp_path / "folder", files | {"data_batch_1.bin": bytes(200_000)})
    with pytest.raises(UserError, match="more than the 100000 bytes"):
        load_cifar10(tmp_path / "folder")
    name = tarfile.TarInfo("x" * 200_000_000)  # a name of that length is a header that tarfile reads into memory
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as file:
        file.write(name.tobuf(tarfile.GNU_FORMAT)[:3_000_000])
    (tmp_path / "name").write_bytes(buffer.getvalue())
    assert_refused(tmp_path / "name", "more than the 1000000")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    def change(member):
        if member.name.endswith("data_batch_2.bin"):
            member.type, member.linkname, member.size = kind, "/etc/passwd", 0

    path = write_archive(tmp_path / "odd", cifar10.FOLDER, binary_files(), change)
    assert_refused(path, "data_batch_2.bin was expected once and as a plain file")


def test_names_in_an_archive_are_never_paths(tmp_path):
    def change(member):
        member.name = member.name.replace("cifar-10-batches-bin/", "../")

    (tmp_path / "in").mkdir()
    path = write_archive(tmp_path / "in" / "outside", cifar10.FOLDER, binary_files(), change)
    before = sorted(tmp_path.rglob("*"))
    assert_refused(path, "there is no data_batch_1.bin, ")
    assert sorted(tmp_path.rglob("*")) == before


# ------------------------------------------------------------------------------------------------ the python version


class Call:
    """Pickled as a call of os.mkdir."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


INSTEAD = "download cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html instead"


def test_the_python_version_is_refused_with_what_to_download_and_not_executed(tmp_path):
    """By the names it is published under, by what a folder holds, and by what an archive of any name contains."""
    marker = tmp_path / "executed"
    batch = pickle.dumps({b"data": Call(marker), b"labels": [1]}, protocol=2)
    named, renamed = tmp_path / "a" / "cifar-10-python.tar.gz", tmp_path / "b" / "cifar.tgz"
    for path in (named, renamed):
        write_archive(path, "cifar-10-batches-py", python_files(batch))
    unpacked = tmp_path / "c" / "cifar-10-batches-py"
    write_folder(unpacked, python_files(batch))
    write_folder(tmp_path / "d", python_files(batch))
    for path in (named, named.parent, renamed, unpacked, unpacked.parent, tmp_path / "d"):
        for split in ("train", "test"):
            assert_refused(path, f"python version, whose pickles are not read: {INSTEAD}", split=split)
    assert not marker.exists()
    pickle.loads(batch)
    assert marker.exists(), "the pickles of this test do execute something where they are trusted"


def test_the_python_version_is_not_opened(tmp_path):
    for path in (tmp_path / "cifar-10-python.tar.gz", tmp_path / "cifar-10-batches-py" / "data_batch_1"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no archive, no pickle")
    for path in (tmp_path / "cifar-10-python.tar.gz", tmp_path / "cifar-10-batches-py", tmp_path):
        assert_refused(path, INSTEAD)
    assert_refused(tmp_path / "other" / "cifar-10-python.tar.gz", "there is no file or folder")


def test_the_binary_version_beside_the_python_one_is_read(tmp_path):
    write_folder(tmp_path / "cifar-10-batches-py", python_files(b"not read"))
    write_folder(tmp_path / "cifar-10-batches-bin", binary_files())
    np.testing.assert_array_equal(load_cifar10(tmp_path)[0], expected("train")[0])
    both = {f"cifar-10-batches-py/{file}": data for file, data in python_files(b"not read").items()}
    both |= {f"cifar-10-batches-bin/{file}": data for file, data in binary_files().items()}
    path = write_archive(tmp_path / "both.tar.gz", ".", both)
    np.testing.assert_array_equal(load_cifar10(path)[0], expected("train")[0])


# ------------------------------------------------------------------------------------------------ finding it, downloads


def test_NANOGAN_DATA_then_the_cache_then_the_download(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where macOS keeps its caches
    monkeypatch.setattr(cifar10, "MIRRORS", ("file:///nowhere/",))
    with pytest.raises(DataNotFound, match="allow the download"):
        load_cifar10(download=False)
    with pytest.raises(DataNotFound, match="cifar10 could not be downloaded: file:///nowhere/"):
        load_cifar10()
    folder, name = cifar10.FOLDER, cifar10.ARCHIVE
    archive = write_archive(tmp_path / "mirror" / name, folder, binary_files())
    monkeypatch.setattr(cifar10, "MIRRORS", ((tmp_path / "mirror").as_uri() + "/",))
    with pytest.raises(DataNotFound, match="wrong checksum"):
        load_cifar10()
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    np.testing.assert_array_equal(load_cifar10()[0], expected("train")[0])
    assert os.listdir(cache_dir() / "cifar10") == [name]
    archive.unlink()
    np.testing.assert_array_equal(load_cifar10(split="test")[0], expected("test")[0])

    shared = binary_files() | {"test_batch.bin": binary_batch("train", 1)}
    write_folder(tmp_path / "shared" / "cifar10" / folder, shared)
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path / "shared"))
    np.testing.assert_array_equal(load_cifar10(split="test")[0], expected("train")[0][:COUNT])
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="which is no folder"):
        load_cifar10()


def test_without_a_download_the_python_version_in_its_place_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_folder(tmp_path / "cifar10" / "cifar-10-batches-py", python_files(b"not read"))
    with pytest.raises(UserError, match=INSTEAD):
        load_cifar10(download=False)


def test_the_published_checksum():
    assert cifar10.MD5 == "c32a1d4ab5d03f1284b67883e8d87530"


def test_real_images_survive_the_format(real_data, tmp_path):
    """The first 4,000 of CIFAR-10, as PNGs had them, written in the author's binary format and read again."""
    with np.load(os.path.join(real_data, "cifar10", "cifar10_train_first4000_exact.npz")) as file:
        pictures, labels = file["x_train"], file["y_train"]
    planes = pictures.transpose(0, 3, 1, 2).reshape(5, 800, 3072)
    binary = {}
    for i, (data, numbers) in enumerate(zip(planes, labels.reshape(5, 800), strict=True), start=1):
        binary[f"data_batch_{i}.bin"] = np.concatenate([numbers[:, None], data], axis=1).tobytes()
    found, numbers = load_cifar10(write_archive(tmp_path / "a", cifar10.FOLDER, binary))
    np.testing.assert_array_equal(found, pictures)
    np.testing.assert_array_equal(numbers, labels)
