"""Captions as integers, coloured digits that are what their captions say, and a captions.csv that is not trusted."""

import numpy as np
import pytest
from PIL import Image

from nanogan.data.sets import captions
from nanogan.data.sets.captions import (
    COLOURS,
    DIGITS,
    SIZES,
    Captions,
    captioned_digits,
    captions_of,
    encode,
    load_captioned,
    text_of,
)
from nanogan.errors import DataNotFound, UserError


def test_words_become_integers_and_back():
    made = captions_of(["Blonde hair, pink eyes", "red hair", "pink-pink HAIR."])
    assert made.words == ("", "blonde", "eyes", "hair", "pink", "red")
    assert made.numbers.tolist() == [[1, 3, 4, 2], [5, 3, 0, 0], [4, 4, 3, 0]]
    assert (made.numbers.dtype, len(made)) == (np.int64, 3)
    assert [made.text(i) for i in range(3)] == ["blonde hair pink eyes", "red hair", "pink pink hair"]
    assert made[[2, 0]].numbers.tolist() == [[4, 4, 3, 0], [1, 3, 4, 2]]
    assert encode("Eyes: pink", made.words, 4).tolist() == [2, 4, 0, 0]


def test_the_first_different_captions_are_shown():
    numbers = [[1, 2]] * 3 + [[i % 5, 1 + i % 7] for i in range(40)]
    told = Captions(numbers, ["", *"abcdefgh"]).described()
    assert told["words"] == ("", "a", "b", "c", "d", "e", "f", "g", "h")
    assert told["shown"] == [[1, 2], [0, 1], [2, 3], [3, 4], [4, 5], [0, 6], [1, 7], [2, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a violet cat", "unknown word 'violet' in the caption: use a, cat, red$"),
        ("", "a caption expected 1 to 3 words, got 0"),
        ("a red cat red", "a caption expected 1 to 3 words, got 4: 'a red cat red'"),
    ],
)
def test_a_caption_that_cannot_be_asked_for_gets_one_sentence(text, message):
    with pytest.raises(UserError, match=message):
        encode(text, ("", "a", "cat", "red"), 3)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a cat", "..."], "caption 2 expected 1 to 32 words, got 0"),
        (["a cat", "cat " * 33], "caption 2 expected 1 to 32 words, got 33: 'cat cat"),
        (["one", "two three", "four"], "captions expected at most 3 different words, got 4"),
    ],
)
def test_captions_have_bounds(texts, message, monkeypatch):
    monkeypatch.setattr(captions, "MAX_WORDS", 3)
    with pytest.raises(UserError, match=message):
        captions_of(texts)


# ------------------------------------------------------------------------------------------------- coloured digits


@pytest.fixture(scope="module")
def coloured():
    """300 squares in place of digits: where a digit is, and its colour, can be read off."""
    square = np.zeros((300, 28, 28, 1), np.uint8)
    square[:, 4:24, 4:24] = 255
    return captioned_digits(square, np.arange(300) % 10, size=32, seed=3)


def test_a_caption_names_all_attributes(coloured):
    _, told, attributes = coloured
    assert set(attributes) == {"digit", "size", "colour", "background"}
    assert told.numbers.shape == (300, 6)
    names = list(COLOURS)
    for i in range(300):
        digit, size, colour, background = (attributes[name][i] for name in ("digit", "size", "colour", "background"))
        expected = f"a {SIZES[size]} {names[colour]} {DIGITS[digit]} on {names[background]}"
        assert told.text(i) == expected
        assert digit == i % 10


def test_an_image_is_what_its_caption_says(coloured):
    images, _, attributes = coloured
    inks, papers = np.array(list(COLOURS.values()), float).transpose(1, 0, 2)
    assert inks.mean(axis=1).min() > 1.8 * papers.mean(axis=1).max(), "any digit is brighter than any background"
    palette = np.concatenate([inks, papers])
    assert (images.shape, images.dtype) == ((300, 32, 32, 3), np.uint8)
    for image, size, colour, background in zip(
        images.astype(float), *(attributes[name] for name in ("size", "colour", "background")), strict=True
    ):
        nearest = ((image[:, :, None] - palette) ** 2).sum(axis=3).argmin(axis=2)  # (32, 32)
        assert nearest[0, 0] == len(COLOURS) + background
        covered = nearest == colour
        assert covered[16, 16]
        side = covered.sum() ** 0.5
        assert (24 < side < 30) if size else (12 < side < 18)


def test_attributes_are_independent_and_equally_frequent(coloured):
    _, _, attributes = coloured
    assert (attributes["colour"] != attributes["background"]).all()
    for name, values in attributes.items():
        counts = np.bincount(values)
        assert counts.min() > 0.6 * 300 / len(counts), name
    together = np.zeros((5, 5), int)
    np.add.at(together, (attributes["colour"], attributes["background"]), 1)
    assert together[~np.eye(5, dtype=bool)].min() >= 2


def test_the_same_seed_makes_the_same_images():
    digits = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)).astype(np.uint8)
    made = [captioned_digits(digits, np.arange(5), size=16, seed=seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(made[0][0], made[1][0])
    np.testing.assert_array_equal(made[0][1], made[1][1])
    assert (made[0][0] != made[2][0]).any()
    assert len({image.tobytes() for image in made[0][0]}) == 5


@pytest.mark.parametrize(
    ("digits", "labels", "size", "message"),
    [
        (np.zeros((2, 32, 32, 1), np.uint8), [0, 1], 32, r"expected digits \(N, 28, 28, 1\) and N labels, got"),
        (np.zeros((2, 28, 28, 1), np.uint8), [0], 32, "and N labels, got .* and 1"),
        (np.zeros((2, 28, 28, 1), np.uint8), [0, 1], 7, "expected a size of 8 to 1024 pixels, got 7"),
    ],
)
def test_other_digits_are_refused(digits, labels, size, message):
    with pytest.raises(UserError, match=message):
        captioned_digits(digits, labels, size=size)


# --------------------------------------------------------------------------------------------- a folder with captions


def write(folder, table, images=("a.png", "b.png", "c.png"), below="images"):
    (folder / below).mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(images):
        Image.new("RGB", (10, 10), (50 * i, 0, 0)).save(folder / below / name)
    (folder / "captions.csv").write_text(table, encoding="utf-8")
    return folder


@pytest.mark.parametrize("below", ["images", "."])
def test_images_get_their_captions_and_attributes(tmp_path, below):
    table = '\ufefffile,hair,id,caption\nc.png,red,1,"red hair, long"\na.png,blonde,2,blonde hair\nc.png,red,3,hair\n'
    write(tmp_path, table, below=below)
    images, told, attributes, skipped = load_captioned(tmp_path, size=8)
    assert images[:, 0, 0, 0].tolist() == [100, 0, 100]
    assert (images.shape, images.dtype) == ((3, 8, 8, 3), np.uint8)
    assert [told.text(i) for i in range(3)] == ["red hair long", "blonde hair", "hair"]
    assert {name: values.tolist() for name, values in attributes.items()} == {"hair": [1, 0, 1], "id": [0, 1, 2]}
    assert skipped == {}
    images, told, _, _ = load_captioned(tmp_path, size=8, channels=1, count=2)
    assert (images.shape, len(told)) == ((2, 8, 8, 1), 2)


def test_a_column_of_many_values_is_no_attribute(tmp_path):
    rows = "".join(f"a.png,cat,{i},same\n" for i in range(33))
    _, _, attributes, _ = load_captioned(write(tmp_path, "file,caption,id,kind\n" + rows), size=8)
    assert attributes == {}


def test_an_unreadable_image_is_left_out_with_its_caption(tmp_path):
    write(tmp_path, "file,caption\na.png,one\nb.png,two\nc.png,three\n")
    (tmp_path / "images/b.png").write_bytes(b"no image")
    images, told, _, skipped = load_captioned(tmp_path, size=8)
    assert [told.text(i) for i in range(2)] == ["one", "three"]
    assert images[:, 0, 0, 0].tolist() == [0, 100]
    assert list(skipped) == [str(tmp_path / "images/b.png")]
    for name in "ac":
        (tmp_path / f"images/{name}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the images in .* can be read"):
        load_captioned(tmp_path, size=8)


@pytest.mark.parametrize(
    "name", ["../outside.png", "{outside}", "images/a.png", "d.png", "", "sub/../a.png", "~/a.png"]
)
def test_a_name_that_is_no_image_of_the_folder_is_refused(tmp_path, name, monkeypatch):
    """The names are compared, never opened: a file outside the folder stays closed though it is there."""
    outside = tmp_path / "outside.png"
    Image.new("RGB", (10, 10)).save(outside)
    folder = write(tmp_path / "set", f"file,caption\na.png,one\n{name.format(outside=outside)},two\n")
    opened = []
    monkeypatch.setattr(captions, "decode", lambda path, *_: opened.append(path))
    with pytest.raises(UserError, match="does not match its folder: 1 of its 2 files are not among the 3 images in"):
        load_captioned(folder, size=8)
    assert opened == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,text\na.png,cat\n", r"captions.csv expected the columns file and caption, got file, text$"),
        ("", "expected the columns file and caption, got none"),
        ("file,caption\n", "has no rows below its header"),
        ("file,caption\na.png,cat\nb.png\n", "expected 2 values in each row, row 3 has more or fewer"),
        ("file,caption\na.png,cat,dog\n", "expected 2 values in each row, row 2 has more or fewer"),
        ('file,caption\na.png,"cat\n', "is not a table of comma-separated values in UTF-8"),
        ("file,caption\na.png,---\n", "caption 1 expected 1 to 32 words, got 0"),
    ],
)
def test_a_damaged_table_gets_one_sentence(tmp_path, table, message):
    with pytest.raises(UserError, match=message):
        load_captioned(write(tmp_path, table), size=8)


def test_what_is_missing_or_too_large_gets_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"there is no .*captions.csv: expected a folder with a captions.csv"):
        load_captioned(tmp_path, size=8)
    (tmp_path / "captions.csv").write_bytes("file,caption\na.png,Käse\n".encode("latin-1"))
    with pytest.raises(UserError, match="in UTF-8"):
        load_captioned(tmp_path, size=8)
    (tmp_path / "captions.csv").write_text("file,caption\na.png,cat\n")
    with pytest.raises(DataNotFound, match="holds no image that can be read"):
        load_captioned(tmp_path, size=8)
    monkeypatch.setattr(captions, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="has more than 10 bytes"):
        load_captioned(tmp_path, size=8)


def test_text_of_leaves_padding_out():
    assert text_of([2, 1, 0, 0], ("", "cat", "a")) == "a cat"
