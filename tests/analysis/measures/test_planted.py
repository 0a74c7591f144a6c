"""Each alteration by hand on a few pixels; a planted folder holds what is said of it."""

import collections

import numpy as np
import pytest
from PIL import Image

from nanogan.analysis.measures import planted
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
    made.remove("planted.txt")
    assert sorted((tmp_path / "a" / "planted.txt").read_text().splitlines()[1:]) == made
    kinds = collections.Counter(planted.origin(name)[1] for name in made)
    assert kinds == {"original": 40} | counts
    assert len({planted.origin(name)[0] for name in made if "-" in name}) == 28  # none for two kinds
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


# ------------------------------------------------------------------------------------------------ planting once more


def plant_some(folder, files=7):
    folder.mkdir(exist_ok=True)
    planted.plant([grey(np.full((4, 4), i)) for i in range(files)], folder, share=1.0, rng=np.random.default_rng(0))


def test_what_was_planted_is_removed(tmp_path):
    plant_some(tmp_path / "a")
    assert len(list((tmp_path / "a").iterdir())) == 7 + 7 + 1
    planted.clear(tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []
    planted.clear(tmp_path / "a")  # an empty folder is as it should be
    plant_some(tmp_path / "a")


def test_what_was_planted_before_an_interruption_is_removed(tmp_path):
    files = [grey(np.ones((4, 4)))] * 7

    def interrupted(files):
        yield from files[:3]
        made = {path.name for path in tmp_path.iterdir()} - {"planted.txt"}
        assert made == set((tmp_path / "planted.txt").read_text().splitlines()[1:])  # a killed process writes no more
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planted.plant(files, tmp_path, share=1.0, rng=np.random.default_rng(0), progress=interrupted)
    assert len(list(tmp_path.iterdir())) == 3 + 3 + 1
    next(tmp_path.glob("*-*")).unlink()  # as if it had been stopped between its line in the list and the file
    planted.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["000012.png", "00099.png", "00001-shifted.webp", "notes.txt", ".hidden", "00001.png/"]
)
def test_what_was_not_planted_is_kept(tmp_path, name):
    """Names like those that planting gives, too: CelebA's pictures are 000001.jpg and so on."""
    folder = tmp_path / "a"
    plant_some(folder)
    if name.endswith("/"):  # a folder of a listed name
        (folder / name[:-1]).unlink()
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(b"mine")
    before = sorted(folder.iterdir())
    with pytest.raises(UserError, match=rf"a holds {name.strip('/')}, which no earlier run made: choose another --out"):
        planted.clear(folder)
    assert sorted(folder.iterdir()) == before


def test_a_users_own_pictures_and_list_are_kept(tmp_path):
    for i in range(20):
        (tmp_path / f"{i:06d}.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds 000000.png, which no earlier run made"):
        planted.clear(tmp_path)
    (tmp_path / "planted.txt").write_text("my roses\n" + "".join(f"{i:06d}.png\n" for i in range(20)))
    with pytest.raises(UserError, match="holds 000000.png, which no earlier run made"):
        planted.clear(tmp_path)
    assert len(list(tmp_path.iterdir())) == 21


def test_no_path_in_the_list_is_trusted(tmp_path):
    folder = tmp_path / "a"
    plant_some(folder)
    (tmp_path / "00001.png").write_bytes(b"mine")
    with open(folder / "planted.txt", "ab") as file:
        file.write(f"../00001.png\n{tmp_path}/00001.png\n..\n.\n\n\xff\n00".encode("latin-1"))
    planted.clear(folder)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "00001.png", folder]
    assert list(folder.iterdir()) == []


def test_a_link_in_place_of_a_planted_file_leads_to_no_loss(tmp_path):
    plant_some(tmp_path / "a")
    (tmp_path / "mine.png").write_bytes(b"mine")
    (tmp_path / "a" / "00003.png").unlink()
    (tmp_path / "a" / "00003.png").symlink_to(tmp_path / "mine.png")
    planted.clear(tmp_path / "a")
    assert list(tmp_path.rglob("*.png")) == [tmp_path / "mine.png"]


def test_planting_among_other_files_is_refused(tmp_path):
    (tmp_path / "00003.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="an empty folder, .* holds 00003.png"):
        plant_some(tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_a_mistake_gets_one_sentence(rng, tmp_path):
    with pytest.raises(UserError, match="at least 7 pictures, one for each kind, got 6"):
        planted.plant([grey([[1]])] * 6, tmp_path, rng=rng)
    with pytest.raises(UserError, match="an alteration is one of copied, .*, got 'odd'"):
        planted.altered(grey([[1]]), "odd")
