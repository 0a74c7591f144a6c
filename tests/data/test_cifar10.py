"""CIFAR-10 from archives and folders of both versions; damaged and malicious ones are refused."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from nanogan.data import cifar10, load_cifar10
from nanogan.data.download import cache_dir
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


def python3_batch(split, batch):
    """Protocol 2, as Python 3 writes it."""
    data = np.frombuffer(b"".join(planes for _, planes in rows(split, batch)), np.uint8).reshape(COUNT, 3072)
    labels = [label for label, _ in rows(split, batch)]
    contents = {b"batch_label": b"a batch", b"labels": labels, b"data": data, b"filenames": [b"a.png"] * COUNT}
    return pickle.dumps(contents, protocol=2)


def python2_batch(split, batch):
    """The original's own bytes: strings of Python 2, which Python 3 cannot write. After the listing of data_batch_1."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    labels = b"".join(b"K" + bytes([label]) for label, _ in rows(split, batch))
    pixels = b"".join(planes for _, planes in rows(split, batch))
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85" + text(b"b") + b"\x87Rq\x09"
    dtype = b"cnumpy\ndtype\nq\x0a" + text(b"u1") + b"K\x00K\x01\x87Rq\x0b(K\x03" + text(b"|") + b"NNN"
    dtype += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01K" + bytes([COUNT]) + b"M\x00\x0c\x86" + dtype + b"\x89T" + struct.pack("<I", len(pixels))
    array += state + pixels + b"tb"
    names = b"]q\x0d(" + b"".join(text(b"leptodactylus_pentadactylus_s_000004.png") for _ in range(COUNT)) + b"e"
    contents = text(b"batch_label") + b"q\x02" + text(b"training batch 1 of 5") + b"q\x03"
    contents += text(b"labels") + b"q\x04]q\x05(" + labels + b"e"
    contents += text(b"data") + b"q\x06" + array + text(b"filenames") + b"q\x0c" + names
    return b"\x80\x02}q\x01(" + contents + b"u."


VERSIONS = {
    "binary": (binary_batch, cifar10.BINARY),
    "python 2": (python2_batch, cifar10.PYTHON),
    "python 3": (python3_batch, cifar10.PYTHON),
}


def files_of(kind):
    """{file: its bytes} of a whole data set."""
    make, version = VERSIONS[kind]
    files = {file: make("train", i) for i, file in enumerate(version["train"], start=1)}
    return files | {version["test"][0]: make("test", 0), "readme.html": b"not read"}


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


def test_the_batch_of_python_2_is_what_pickle_reads():
    """The bytes written here by hand, seen by pickle itself; nothing of nanogan's."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core has another name today
        contents = pickle.loads(python2_batch("train", 2), encoding="bytes")
    assert contents[b"labels"] == [label for label, _ in rows("train", 2)]
    assert contents[b"data"].tobytes() == b"".join(planes for _, planes in rows("train", 2))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", VERSIONS)
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("above", [True, False])
def test_both_versions_are_read_packed_and_unpacked(tmp_path, kind, split, packed, above):
    """``above``: the path is that of a folder that holds the archive or folder."""
    version = VERSIONS[kind][1]
    if packed:
        path = write_archive(tmp_path / version["archive"], version["folder"], files_of(kind))
    else:
        path = tmp_path / version["folder"]
        write_folder(path, files_of(kind))
    images, labels = load_cifar10(tmp_path if above else path, split=split)
    assert images.dtype == labels.dtype == np.uint8
    assert images.flags.c_contiguous
    np.testing.assert_array_equal(images, expected(split)[0])
    np.testing.assert_array_equal(labels, expected(split)[1])


def test_a_folder_that_is_not_whole_is_passed_over_for_an_archive(tmp_path):
    files = files_of("binary")
    write_archive(tmp_path / cifar10.BINARY["archive"], cifar10.BINARY["folder"], files)
    del files["data_batch_4.bin"]
    write_folder(tmp_path / cifar10.BINARY["folder"], files)
    np.testing.assert_array_equal(load_cifar10(tmp_path)[0], expected("train")[0])


# ----------------------------------------------------------------------------------------- what is not there, or whole


def refused(path, message, error=UserError, **options):
    with pytest.raises(error, match=message) as caught:
        load_cifar10(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_is_not_there_gets_one_sentence(tmp_path):
    refused(tmp_path, "holds neither cifar-10-binary.tar.gz nor", DataNotFound)
    refused(tmp_path / "no.tar.gz", "there is no file or folder")
    with pytest.raises(UserError, match="unknown split 'valid'"):
        load_cifar10(tmp_path, split="valid")
    files = files_of("python 3")
    del files["data_batch_2"]
    path = write_archive(tmp_path / "half.tar.gz", cifar10.PYTHON["folder"], files)
    refused(path, "there is no data_batch_2 in the folder cifar-10-batches-py of this archive")
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
    files = files_of("binary")
    files["data_batch_3.bin"] = change(files["data_batch_3.bin"])
    path = tmp_path / "cifar"
    if packed:
        write_archive(path, cifar10.BINARY["folder"], files)
    else:
        write_folder(path, files)
    refused(path, f"data_batch_3.bin in .*{message}")


def test_archives_cut_or_changed(tmp_path):
    whole = write_archive(tmp_path / "whole", cifar10.BINARY["folder"], files_of("binary")).read_bytes()
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
        refused(path, message)


def test_no_bomb_is_unpacked(tmp_path, monkeypatch):
    """Members too large are refused by their headers; anything else ends when too much was unpacked."""
    monkeypatch.setattr(cifar10, "MAX_BATCH", 100_000)
    monkeypatch.setattr(cifar10, "MAX_UNPACKED", 1_000_000)
    folder, files = cifar10.BINARY["folder"], files_of("binary")
    large = write_archive(tmp_path / "large", folder, {"data_batch_1.bin": bytes(200_000)})
    refused(large, "data_batch_1.bin has 200000 bytes, a batch 100000 at most")
    refused(write_archive(tmp_path / "bomb", folder, {"other": bytes(2_000_000)} | files), "more than the 1000000")
    write_folder(tmp_path / "folder", files | {"data_batch_1.bin": bytes(200_000)})
    with pytest.raises(UserError, match="more than the 100000 bytes"):
        load_cifar10(tmp_path / "folder")
    name = tarfile.TarInfo("x" * 200_000_000)  # a name of that length is a header that tarfile reads into memory
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as file:
        file.write(name.tobuf(tarfile.GNU_FORMAT)[:3_000_000])
    (tmp_path / "name").write_bytes(buffer.getvalue())
    refused(tmp_path / "name", "more than the 1000000")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    def change(member):
        if member.name.endswith("data_batch_2.bin"):
            member.type, member.linkname, member.size = kind, "/etc/passwd", 0

    path = write_archive(tmp_path / "odd", cifar10.BINARY["folder"], files_of("binary"), change)
    refused(path, "data_batch_2.bin was expected once and as a plain file")


def test_names_in_an_archive_are_never_paths(tmp_path):
    def change(member):
        member.name = member.name.replace("cifar-10-batches-bin/", "../")

    (tmp_path / "in").mkdir()
    path = write_archive(tmp_path / "in" / "outside", cifar10.BINARY["folder"], files_of("binary"), change)
    before = sorted(tmp_path.rglob("*"))
    refused(path, "there is no data_batch_1.bin, ")
    assert sorted(tmp_path.rglob("*")) == before


# ------------------------------------------------------------------------------------------------------- the pickles


class Call:
    """Pickled as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def with_data(**changes):
    data = np.zeros((COUNT, 3072), np.uint8)
    contents = {b"labels": [1] * COUNT, b"data": data}
    contents.update({key.encode(): value for key, value in changes.items()})
    return pickle.dumps({key: value for key, value in contents.items() if value is not None}, protocol=2)


def nested(depth):
    """A key whose hash would take 2**depth steps."""
    return b"\x80\x02}(K\x01" + b"2\x86" * depth + b"K\x01u."


def test_no_pickle_is_executed(tmp_path):
    files = files_of("python 3")
    marker = tmp_path / "executed"
    path = tmp_path / "batches"
    write_folder(path, files)
    calls = [Call(os.mkdir, str(marker)), Call(eval, f"__import__('os').mkdir({str(marker)!r})")]
    calls += [Call(np.dtype, Call(os.mkdir, str(marker))), [Call(os.mkdir, str(marker))]]
    for call in calls:
        (path / "data_batch_1").write_bytes(with_data(data=call))
        refused(path, "wants to call '.* (mkdir|eval)', which no batch of CIFAR-10 does")
    assert not marker.exists()
    (path / "data_batch_1").write_bytes(pickle.dumps(Call(os.mkdir, str(marker)), protocol=0))
    refused(path, "its pickle holds PUT, which no batch of CIFAR-10 does")
    assert not marker.exists()
    pickle.loads((path / "data_batch_1").read_bytes())
    assert marker.exists(), "the pickles of this test do execute something where they are trusted"


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
DTYPE = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
HEADER = b"\x80\x02}(U\x06labels](K\x01eU\x04data" + ARRAY


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "pickle exhausted before seeing STOP"),
        (b"\x80\x02}", "pickle exhausted before seeing STOP"),
        (b"\x80\x02.", "takes more from its stack"),
        (b"\x80\x02u.", "takes more from its stack"),
        (b"\x80\x02h\x05.", "takes more from its stack"),
        (b"\x80\x02K\x01.", "is corrupt"),
        (b"\x80\x02}K\x01a.", "is corrupt"),
        (b"\x80\x02}K\x01K\x02s.", "is corrupt"),
        (b"\x80\x02}(U\x01au.", "is corrupt|shorter"),
        (b"\x80\x02K\x01K\x02b.", "is corrupt"),
        (b"\x80\x02K\x01)R.", "is corrupt"),
        (b"\x80\x04}.", "there is no b'data'"),
        (b"\x80\x02}(U\x06labels]u.", "there is no b'data'"),
        (nested(60), "DUP, which no batch"),
        (b"\x80\x02}(K\x01q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"K\x01u.", "is corrupt"),
        (b"\x80\x02" + b"}" * 1_100_000 + b".", "more than 1000000 instructions"),
        (with_data(data=None), "there is no b'data'"),
        (with_data(labels=None), "there is no b'labels'"),
        (with_data(data=b"bytes"), "its data is no NumPy array"),
        (with_data(data=np.zeros((COUNT, 3072), np.int8)), "no array of bytes"),
        (with_data(data=np.zeros((COUNT, 3072), object)), "its data|its pickle|no array"),
        (with_data(data=np.zeros((COUNT, 3071), np.uint8)), "N pictures of 3072 bytes"),
        (with_data(data=np.asfortranarray(np.zeros((COUNT, 3072), np.uint8))), "promises shape"),
        (with_data(labels=[1, 2]), "N pictures of 3072 bytes and N labels"),
        (with_data(labels=[1, 2, 10]), "labels from 0 to 9 were expected, got 10"),
        (with_data(labels=[1, 2, 300]), "no list of numbers from 0 to 9"),
        (with_data(labels=[1, 2, True]), "no list of numbers from 0 to 9"),
        (with_data(labels=(1, 2, 3)), "no list of numbers from 0 to 9"),
        (HEADER + b"u.", "its data is no NumPy array"),
        (HEADER + b"(K\x01J\xff\xff\xff\x7fM\x00\x0c\x86" + DTYPE + b"\x89U\x01btbu.", "promises shape .2147483647, 3"),
        (HEADER + b"(K\x01J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86" + DTYPE + b"\x89U\x01btbu.", "no whole NumPy array"),
        (HEADER + b"(K\x01K\x01K\x01\x86K\x01\x89U\x01btbu.", "no array of bytes"),
    ],
)
def test_a_damaged_pickle_gets_one_sentence(tmp_path, data, message):
    write_folder(tmp_path / "batches", files_of("python 3") | {"data_batch_1": data})
    refused(tmp_path / "batches", f"data_batch_1 in .*({message})")


def test_pickles_with_any_byte_changed_are_read_or_refused(tmp_path, rng):
    """Not one of them raises anything else, or makes anything but pictures and labels."""
    good = python2_batch("train", 1)
    interesting = [i for i in range(len(good)) if i < 260 or i > len(good) - 160]
    for _ in range(600):
        data = bytearray(good)
        for at in rng.choice(interesting, rng.integers(1, 4)):
            data[at] = rng.integers(256)
        try:
            pixels, labels = cifar10._parse_python(bytes(data), "batch")
        except UserError:
            continue
        assert pixels.shape == (len(labels), 3072)
        assert pixels.dtype == labels.dtype == np.uint8


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
    folder, name = cifar10.BINARY["folder"], cifar10.BINARY["archive"]
    archive = write_archive(tmp_path / "mirror" / name, folder, files_of("binary"))
    monkeypatch.setattr(cifar10, "MIRRORS", ((tmp_path / "mirror").as_uri() + "/",))
    with pytest.raises(DataNotFound, match="wrong checksum"):
        load_cifar10()
    monkeypatch.setitem(cifar10.BINARY, "md5", hashlib.md5(archive.read_bytes()).hexdigest())
    np.testing.assert_array_equal(load_cifar10()[0], expected("train")[0])
    assert os.listdir(cache_dir() / "cifar10") == [name]
    archive.unlink()
    np.testing.assert_array_equal(load_cifar10(split="test")[0], expected("test")[0])

    shared = files_of("python 3")
    shared["test_batch"] = python3_batch("train", 1)
    write_folder(tmp_path / "shared" / "cifar10" / cifar10.PYTHON["folder"], shared)
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path / "shared"))
    np.testing.assert_array_equal(load_cifar10(split="test")[0], expected("train")[0][:COUNT])
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="which is no folder"):
        load_cifar10()


def test_the_published_checksums():
    assert cifar10.BINARY["md5"] == "c32a1d4ab5d03f1284b67883e8d87530"
    assert cifar10.PYTHON["md5"] == "c58f30108f718f92721af3b95e74349a"


def test_real_pictures_survive_both_formats(real_data, tmp_path):
    """The first 4,000 of CIFAR-10, as PNGs had them, written in both of the author's formats and read again."""
    with np.load(os.path.join(real_data, "cifar10", "cifar10_train_first4000_exact.npz")) as file:
        pictures, labels = file["x_train"], file["y_train"]
    planes = pictures.transpose(0, 3, 1, 2).reshape(5, 800, 3072)
    binary, python = {}, {}
    for i, (data, numbers) in enumerate(zip(planes, labels.reshape(5, 800), strict=True), start=1):
        binary[f"data_batch_{i}.bin"] = np.concatenate([numbers[:, None], data], axis=1).tobytes()
        python[f"data_batch_{i}"] = pickle.dumps({b"labels": numbers.tolist(), b"data": data}, protocol=2)
    for name, version, files in (("a", cifar10.BINARY, binary), ("b", cifar10.PYTHON, python)):
        found, numbers = load_cifar10(write_archive(tmp_path / name, version["folder"], files))
        np.testing.assert_array_equal(found, pictures)
        np.testing.assert_array_equal(numbers, labels)
