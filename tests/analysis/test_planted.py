"""Each alteration by hand on a few pixels; a planted folder holds what is said of it."""

import collections

import numpy as np
import pytest
from PIL import Image

from nanogan.analysis import planted
from nanogan.errors import UserError


def grey(rows):
    return Image.fromarray(np.array(rows, np.uint8))


def pixels(image):
    return np.asarray(image).tolist()


def test_each_alteration_on_a_few_pixels():
    image = grey([[10, 20, 200, 240], [1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 100]])
    assert pixels(planted.altered(image, "copied")) == pixels(image)
    assert pixels(planted.altered(image, "flipped"))[:2] == [[240, 200, 20, 10], [4, 3, 2, 1]]
    assert pixels(planted.altered(image, "shifted"))[:2] == [[10, 10, 20, 200], [1, 1, 2, 3]]
    assert pixels(planted.altered(image, "cropped")) == [[2, 3], [6, 7]]
    brighter = np.array(pixels(planted.altered(image, "brightened")))
    np.testing.assert_allclose(brighter[0], [11.5, 23, 230, 255], atol=0.5)
    assert planted.altered(image, "resized").size == (3, 3)


def test_alterations_grow_with_the_picture(rng):
    large = Image.fromarray(rng.integers(0, 256, (100, 200, 3), dtype=np.uint8))
    shifted = np.asarray(planted.altered(large, "shifted"))
    assert (shifted[:, 3:] == np.asarray(large)[:, :-3]).all()  # 100 / 32 pixels
    assert (shifted[:, :3] == np.asarray(large)[:, :1]).all()
    assert planted.altered(large, "cropped").size == (192, 92)
    assert planted.altered(large, "resized").size == (150, 75)
    saved = np.asarray(planted.altered(large, "recompressed")).astype(int)
    assert saved.shape == (100, 200, 3)
    assert 5 < np.sqrt(((saved - np.asarray(large)) ** 2).mean()) < 80  # noise is what JPEG keeps least of


def test_a_planted_folder(rng, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for i in range(40):
        noise = Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
        noise.convert("L" if i % 2 else "RGB").save(source / f"p{i:02d}.{'jpg' if i % 3 else 'webp'}")
    files = sorted(source.iterdir())
    kept = {file: file.read_bytes() for file in files}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        counts = planted.plant(files, tmp_path / name, share=0.1, rng=np.random.default_rng(3))
        assert counts == dict.fromkeys(planted.KINDS, 4)
    assert {file: file.read_bytes() for file in files} == kept
    made = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert made == sorted(path.name for path in (tmp_path / "b").iterdir())
    kinds = collections.Counter(planted.origin(name)[1] for name in made)
    assert kinds == {"original": 40} | counts
    assert len({planted.origin(name)[0] for name in made if "-" in name}) == 28  # none for two kinds
    assert all(planted.is_planted(name) for name in made)
    assert not any(
        planted.is_planted(name) for name in ("a.png", "0001.png", "00001-odd.png", "00001", "00001.png.txt")
    )
    for name in made:
        number, kind = planted.origin(name)
        original = tmp_path / "a" / f"{number:05d}{files[number].suffix}"
        assert original.read_bytes() == kept[files[number]]
        if kind == "copied":
            assert (tmp_path / "a" / name).read_bytes() == kept[files[number]]
        if kind == "flipped":
            with Image.open(original) as one, Image.open(tmp_path / "a" / name) as other:
                assert (np.asarray(other) == np.asarray(one)[:, ::-1]).all()
        if kind == "recompressed":
            assert name.endswith(".jpg")


def test_a_picture_is_turned_and_laid_on_white_before_it_is_altered(rng, tmp_path):
    """As the original is, when it is read: else their copies would be other pictures."""
    exif = Image.Exif()
    exif[0x0112] = 6
    tilted = Image.fromarray(rng.integers(0, 256, (10, 20, 3), dtype=np.uint8))
    clear = Image.fromarray(np.zeros((10, 10, 4), np.uint8))
    files = [tmp_path / f"{i}.png" for i in range(14)]
    for i, file in enumerate(files):
        tilted.save(file, exif=exif) if i % 2 else clear.save(file)
    out = tmp_path / "out"
    out.mkdir()
    planted.plant(files, out, share=1.0, rng=rng)
    for path in out.glob("*-flipped.png"):
        number, _ = planted.origin(path)
        with Image.open(path) as copy:
            got = np.asarray(copy)
        expected = np.rot90(np.asarray(tilted), -1) if number % 2 else np.full((10, 10, 3), 255)
        assert (got == expected[:, ::-1]).all()


def test_a_mistake_gets_one_sentence(rng, tmp_path):
    with pytest.raises(UserError, match="at least 7 pictures, one for each kind, got 6"):
        planted.plant([grey([[1]])] * 6, tmp_path, rng=rng)
    with pytest.raises(UserError, match="an alteration is one of copied, .*, got 'odd'"):
        planted.altered(grey([[1]]), "odd")
