"""Pictures by name or path."""

import numpy as np
import pytest
from PIL import Image

from nanogan.data.named import is_set, load_pictures
from nanogan.data.sets.faces import builtin_faces
from nanogan.errors import UserError
from tests.data.sets.test_cifar10 import binary_files, write_folder
from tests.data.sets.test_mnist import write_set


def test_built_in_digits_of_a_size_with_labels_and_a_test_set_of_their_own():
    train, labels = load_pictures("digits", size=16, channels=1, count=20)
    test, _ = load_pictures("digits", size=16, channels=1, count=20, split="test")
    assert train.shape == test.shape == (20, 16, 16, 1)
    assert labels.shape == (20,)
    assert (train != test).any()
    colour, _ = load_pictures("digits", size=28, channels=3, count=4)
    assert colour.shape == (4, 28, 28, 3)
    assert (colour[..., 0] == colour[..., 2]).all()


def test_built_in_faces_unless_a_folder_has_their_name(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    train, labels = load_pictures("faces", size=28, channels=3, count=20)
    test, _ = load_pictures("faces", size=28, channels=3, count=20, split="test")
    _, attributes = builtin_faces(20)
    assert train.shape == (20, 28, 28, 3)
    assert (train != test).any()
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels & 1, attributes["smile"])
    np.testing.assert_array_equal(labels >> 4, attributes["round"])
    large, _ = load_pictures("faces", size=64, channels=3, count=2)
    np.testing.assert_array_equal(large, builtin_faces(2, size=64)[0])
    with pytest.raises(UserError, match="the images of faces have 3 channels, 1 were expected"):
        load_pictures("faces", size=32, channels=1, count=2)
    (tmp_path / "faces").mkdir()
    Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / "faces/mine.png")
    assert len(load_pictures("faces", size=8, channels=3)[0]) == 1
    assert not is_set("faces")


def test_a_folder_is_read_when_it_is_indexed_unless_some_are_asked_for(tmp_path, rng):
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    folder, labels = load_pictures(str(tmp_path), size=8, channels=1)
    assert labels is None
    assert folder.shape == (3, 8, 8, 1)
    assert isinstance(load_pictures(str(tmp_path), size=8, channels=1, count=2)[0], np.ndarray)
    assert not is_set(tmp_path)
    assert is_set("mnist")
    with pytest.raises(UserError, match="is a folder, which has no test split: give a folder of its own"):
        load_pictures(str(tmp_path), size=8, channels=1, split="test")


def test_a_folder_of_class_subfolders_has_labels(tmp_path, rng):
    for name in ("b/0", "a/x/1", "a/2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    folder, labels = load_pictures(str(tmp_path), size=8, channels=3)
    assert labels.tolist() == [0, 0, 1]
    assert folder.classes == ("a", "b")
    some, labels = load_pictures(str(tmp_path), size=8, channels=3, count=2)
    assert len(some) == 2
    assert labels.tolist() == [0, 0]


def test_real_mnist(real_data, monkeypatch):
    monkeypatch.setenv("NANOGAN_DATA", real_data)
    pictures, labels = load_pictures("mnist", size=28, channels=1, split="test", count=3)
    assert labels.tolist() == [7, 2, 1]
    assert pictures.shape == (3, 28, 28, 1)


def test_svhn_by_its_folder_or_its_file_has_a_test_split_beside_it(tmp_path):
    svhn = pytest.importorskip("tests.data.sets.test_svhn", reason="SciPy writes such files")
    for split, count in (("train", 7), ("test", 4)):
        svhn.write(tmp_path / f"{split}_32x32.mat", count=count)
    for given in (tmp_path, tmp_path / "train_32x32.mat"):
        assert is_set(given)
        assert load_pictures(given, size=32, channels=3)[0].shape == (7, 32, 32, 3)
        pictures, labels = load_pictures(given, size=32, channels=3, split="test")
        assert len(pictures) == len(labels) == 4
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(UserError, match="holds no test_32x32.mat"):
        load_pictures(tmp_path, size=32, channels=3, split="test")


def test_a_file_of_svhn_is_not_its_own_test_split(tmp_path):
    """It was: a judge would have been right on images that it was trained on."""
    svhn = pytest.importorskip("tests.data.sets.test_svhn", reason="SciPy writes such files")
    for name, count in (("extra_32x32.mat", 9), ("mine.mat", 5), ("test_32x32.mat", 4)):
        svhn.write(tmp_path / name, count=count)
        assert len(load_pictures(tmp_path / name, size=32, channels=3)[0]) == count
    assert len(load_pictures(tmp_path / "extra_32x32.mat", size=32, channels=3, split="test")[0]) == 4
    for name in ("mine.mat", "test_32x32.mat"):
        with pytest.raises(UserError, match=f"{name} has no test split"):
            load_pictures(tmp_path / name, size=32, channels=3, split="test")


@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw", "FashionMNIST/raw"])
def test_a_folder_of_idx_files(tmp_path, below):
    """What torchvision leaves is found in it and in its folder above."""
    write_set(tmp_path / below, 5)
    write_set(tmp_path / below, 3, prefix="t10k")
    for given in (tmp_path, tmp_path / below):
        assert is_set(str(given))
        for split, count in (("train", 5), ("test", 3)):
            images, labels = load_pictures(str(given), size=28, channels=1, split=split)
            assert images.shape == (count, 28, 28, 1)
            assert labels.shape == (count,)


def test_the_file_of_mnists_images_is_its_folder(tmp_path):
    write_set(tmp_path, 5)
    write_set(tmp_path, 3, infix="first3-")
    assert len(load_pictures(tmp_path / "train-images-idx3-ubyte.gz", size=28, channels=1)[0]) == 5
    for name in ("train-first3-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        assert not is_set(tmp_path / name), "another file would be taken"


def test_a_folder_of_two_sets_is_not_guessed_at(tmp_path):
    write_set(tmp_path / "MNIST")
    write_set(tmp_path / "FashionMNIST")
    with pytest.raises(UserError, match="holds both mnist and fashion-mnist: give the folder of one of them"):
        load_pictures(str(tmp_path), size=28, channels=1)


def test_a_sets_name_as_others_write_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path))
    for i, name in enumerate(("mnist", "fashion-mnist")):
        write_set(tmp_path / name, i + 3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name, count in (("MNIST", 3), ("FashionMNIST", 4), ("fashion_mnist", 4)):
        assert len(load_pictures(name, size=28, channels=1)[0]) == count
    assert not is_set("mnist-like")


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "mine"])
def test_the_folder_of_cifar_10_by_any_name(tmp_path, folder):
    write_folder(tmp_path / folder, binary_files())
    for given in (tmp_path / folder, tmp_path) if folder != "mine" else (tmp_path / folder,):
        assert is_set(given)
        assert len(load_pictures(given, size=32, channels=3)[0]) == 15
    (tmp_path / "python").mkdir()
    (tmp_path / "python/cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match="python version, whose pickles are not read: download cifar-10-binary.tar.gz"):
        load_pictures(tmp_path / "python", size=32, channels=3)


@pytest.mark.parametrize("name", ["./digits", "digits/", "../mnist", "/cifar10", "./faces"])
def test_a_path_that_is_not_there_is_no_data_sets_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="does not exist: check the path"):
        load_pictures(name, size=8, channels=1)
