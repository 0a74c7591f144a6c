"""Near-duplicates as a user looks for them: planted ones are listed, nothing is changed, mistakes get a sentence."""

import csv
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanogan.analysis.measures import codes
from nanogan.backend import seeded_rng
from tests.examples.starting import EXAMPLES, run

QUICK = ("--steps", "20")


def listed(out):
    """The groups in duplicates.csv: {number: rows}."""
    groups = {}
    with open(out / "duplicates.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        for row in csv.DictReader(file):
            groups.setdefault(row["group"], []).append(row)
    return list(groups.values())


def state(folder):
    return {path: (path.lstat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


@pytest.fixture
def photos(tmp_path):
    """12 pictures of 32 x 32; 3 copies, one of them with more at its sides; and files that are no pictures."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{i:02d}.png")
    with Image.open(folder / "03.png") as picture:
        wide = np.pad(np.asarray(picture), ((0, 0), (8, 8), (0, 0)), mode="reflect")
        Image.fromarray(wide).save(folder / "below" / "wide\n3.png")
    for copy in ("copy7.png", "below/copy\x1b7.png"):
        (folder / copy).write_bytes((folder / "07.png").read_bytes())
    (folder / "0a.png").write_bytes(b"no picture")  # in whose place stands 10.png
    (folder / "zz.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("7")
    return folder


def test_a_folders_duplicates_are_listed_and_nothing_is_changed(photos, tmp_path):
    (photos / "link.png").symlink_to(photos / "05.png")  # one picture under two names is no duplicate
    before = state(photos)
    code, out, err = run("dedupe.py", "photos", *QUICK, folder=tmp_path)
    assert code == 0, err
    assert "2 cannot be read and were left out, see runs/dedupe/skipped.txt" in err
    left = tmp_path / "runs" / "dedupe"
    groups = listed(left)
    names = sorted(sorted(Path(row["path"]).name for row in rows) for rows in groups)
    assert names == [["03.png", "wide\n3.png"], ["07.png", "copy\x1b7.png", "copy7.png"]]
    assert (
        next(rows for rows in groups if len(rows) == 2)[0].items()
        >= {"path": "photos/below/wide\n3.png", "width": "48", "height": "32"}.items()
    )
    assert [float(rows[-1]["levels"]) for rows in groups] == sorted([float(rows[-1]["levels"]) for rows in groups])[
        ::-1
    ]
    assert [row["bits"] for rows in groups for row in rows] == ["0"] * 5
    as_json = json.loads((left / "duplicates.json").read_text())
    assert [[row["path"] for row in rows] for rows in as_json] == [[row["path"] for row in rows] for rows in groups]
    numbers = json.loads((left / "numbers.json").read_text())
    assert (numbers["pictures"], numbers["skipped"], numbers["groups"], numbers["pictures_in_them"]) == (16, 2, 2, 5)
    assert r"photos/below/copy\x1b7.png" in out
    assert "nothing was deleted" in out
    skipped = (left / "skipped.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in skipped] == ["photos/0a.png", "photos/zz.jpg"]
    with Image.open(left / "duplicates.png") as sheet:
        assert sheet.size == (2 + 2 * 66, 2 + 3 * 66)
    assert state(photos) == before

    code, again, err = run("dedupe.py", "photos", *QUICK, folder=tmp_path)  # from the cache, the same
    assert (code, again) == (0, out)
    assert "2 cannot be read" in err


def test_distance_finds_more(photos, tmp_path):
    with Image.open(photos / "01.png") as picture:
        Image.fromarray((np.asarray(picture) // 2 + 9).astype(np.uint8)).save(photos / "recoloured.jpg", quality=40)
    found = []
    for distance in (0, 30):
        code, _, err = run("dedupe.py", "photos", *QUICK, "--distance", distance, folder=tmp_path)
        assert code == 0, err
        found.append([{Path(row["path"]).name for row in rows} for rows in listed(tmp_path / "runs/dedupe")])
    assert not any("recoloured.jpg" in group for group in found[0])
    assert any({"01.png", "recoloured.jpg"} <= group for group in found[1])


def test_no_duplicates(photos, tmp_path):
    for path in [*photos.glob("copy*"), *photos.glob("below/*")]:
        path.unlink()
    (tmp_path / "runs/dedupe").mkdir(parents=True)
    (tmp_path / "runs/dedupe/duplicates.png").write_bytes(b"of an earlier run")
    code, out, _ = run("dedupe.py", "photos", *QUICK, folder=tmp_path)
    assert code == 0
    assert "no near-duplicates were found; --distance 8 also finds" in out
    assert listed(tmp_path / "runs/dedupe") == []
    assert not (tmp_path / "runs/dedupe/duplicates.png").exists()


def test_the_measurement(tmp_path):
    for _ in range(2):  # the second run replaces what the first planted
        code, out, err = run("dedupe.py", "--dry-run", folder=tmp_path)
        assert code == 0, err
        assert err == ""
    left = tmp_path / "runs" / "dedupe"
    assert len(list((left / "planted").iterdir())) == 100 + 7 * 10 + 1  # and their list
    numbers = json.loads((left / "numbers.json").read_text())
    assert (numbers["data"], numbers["pictures"]) == ("faces", 170)
    assert numbers["recall_copied"] == 1
    with open(left / "methods.csv", newline="") as file:
        methods = {row["method"]: row for row in csv.DictReader(file)}
    assert methods["equal pixels"]["recall_copied"] == "1.0"
    assert methods["equal pixels"]["recall_brightened"] == "0.0"
    assert methods["trained, distance 0"]["recall_copied"] == "1.0"
    assert float(methods["untrained, distance 16"]["recall_resized"]) > 0.5
    assert "untrained, distance 8" in out
    (left / "planted" / "mine.png").write_bytes(b"")
    code, _, err = run("dedupe.py", "--dry-run", folder=tmp_path)
    assert code == 2
    assert "runs/dedupe/planted holds mine.png, which no earlier run made: choose another --out" in err
    assert (left / "planted" / "00000.png").exists()


def test_the_measurement_among_a_folders_pictures(photos, tmp_path):
    before = state(photos)
    code, _, err = run("dedupe.py", "--data", "photos", "--dry-run", folder=tmp_path)
    assert code == 0, err
    assert json.loads((tmp_path / "runs/dedupe/numbers.json").read_text())["pictures"] == 15 + 2 * 7
    assert state(photos) == before


def test_the_untrained_network_is_the_trained_one_before_training():
    """But for the pictures' mean, without which it would be an unfairly bad one to compare with."""
    untrained_twin = runpy.run_path(str(EXAMPLES / "dedupe.py"), run_name="dedupe")["untrained_twin"]
    pictures = np.random.default_rng(0).integers(0, 200, (20, 32, 32, 3), dtype=np.uint8)
    network = codes.Autoencoder(rng=seeded_rng(7, "autoencoder"))
    start = network[0].params["weight"].copy()
    codes.fit(network, pictures, steps=2)
    untrained = untrained_twin(network, seed=7, device="cpu")
    assert abs(network.buffers["mean"]).max() > 0.1
    assert (untrained.buffers["mean"] == network.buffers["mean"]).all()
    assert (untrained[0].params["weight"] == start).all()
    assert (network[0].params["weight"] != start).any()


@pytest.mark.parametrize(
    "data",
    ["x/planted", "x/planted/below", "x/planted/links", "link", "upper", "to_upper", "beside", "lower", "one_by_one"],
)
def test_pictures_in_the_folder_that_is_cleared_are_refused(tmp_path, data):
    """A user's own, of names that planting gives: in OUT/planted, or below or above it, or by way of links."""
    below = tmp_path / "x" / "planted" / "below"
    below.mkdir(parents=True)
    for i in range(12):
        for folder in (below, below.parent):
            Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(folder / f"{i:06d}.png")
    (tmp_path / "link").symlink_to(below.parent)
    if data in ("upper", "to_upper"):  # OUT/planted is a link to a folder below --data
        (tmp_path / "upper").mkdir()
        below.parent.rename(tmp_path / "upper" / "photos")
        (tmp_path / "x" / "planted").symlink_to(tmp_path / "upper" / "photos")
        (tmp_path / "to_upper").symlink_to(tmp_path / "upper")
    elif data == "beside":  # the same, but the pictures lie beside that folder
        below.parent.rename(tmp_path / "beside")
        (tmp_path / "beside" / "empty").mkdir()
        (tmp_path / "x" / "planted").symlink_to(tmp_path / "beside" / "empty")
    elif data == "x/planted/links":  # from there to elsewhere
        below.rename(tmp_path / "elsewhere")
        (below.parent / "links").mkdir()
        for i in range(12):
            (below.parent / "links" / f"{i:06d}.png").symlink_to(tmp_path / "elsewhere" / f"{i:06d}.png")
    elif data == "lower":  # --data holds a link to OUT/planted
        (tmp_path / "lower").mkdir()
        (tmp_path / "lower" / "deep").symlink_to(below.parent)
    elif data == "one_by_one":  # links to the pictures themselves
        (tmp_path / "one_by_one").mkdir()
        for i in range(12):
            (tmp_path / "one_by_one" / f"{i}.png").symlink_to(below.parent / f"{i:06d}.png")
    before = state(tmp_path)
    code, _, err = run("dedupe.py", "--data", data, "--out", "x", "--dry-run", folder=tmp_path)
    assert code == 2
    message = f"x/planted, which is cleared for a new run, lies in {data} or holds pictures of it: choose another --out"
    assert message in err
    assert state(tmp_path) == before


def test_a_users_own_pictures_in_the_place_of_planted_ones_are_kept(tmp_path):
    folder = tmp_path / "x" / "planted"
    folder.mkdir(parents=True)
    for i in range(12):
        (folder / f"{i:06d}.png").write_bytes(b"mine")
    before = state(tmp_path)
    code, _, err = run("dedupe.py", "--out", "x", "--dry-run", folder=tmp_path)
    assert code == 2
    assert "x/planted holds 000000.png, which no earlier run made: choose another --out, or remove it yourself" in err
    assert state(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "expected a folder of images, nowhere does not exist: check the path"),
        (("notes.txt",), "expected a folder of images, notes.txt is a file"),
        (("empty",), "empty holds no image that can be read (such as JPEG or PNG), itself or below"),
        (("one",), "one holds one picture that can be read: near-duplicates expected at least two"),
        (("broken",), "none of the 1 pictures in broken can be read"),
        (("one", "--out", "one"), "the output folder one lies in one, where its pictures would be taken for yours"),
        ((".", "--out", "empty"), "the output folder empty lies in ., where its pictures would be taken for yours"),
        (("--data", "."), "runs/dedupe/planted, which is cleared for a new run, lies in . or holds pictures of it"),
        (("--data", "one"), "planting copies expected at least 7 pictures, one for each kind, got 1"),
        (("one", "--data", "faces"), "give FOLDER or --data, not both"),
        (("one", "--pictures", "2000"), "--pictures and --share are for measuring, without FOLDER: leave them out"),
        (("one", "--share", "0.1"), "--pictures and --share are for measuring, without FOLDER: leave them out"),
        (("one", "--distance", "-1"), "expected a whole number of at least 0 and at most 128, got '-1'"),
    ],
)
def test_a_users_mistake_gets_one_sentence(tmp_path, arguments, message):
    for name in ("empty", "one", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").write_text("no folder")
    Image.new("RGB", (8, 8)).save(tmp_path / "one" / "a.png")
    (tmp_path / "one" / "b.png").write_bytes(b"no picture")
    (tmp_path / "broken" / "b.png").write_bytes(b"no picture")
    before = state(tmp_path / "one")
    code, _, err = run("dedupe.py", *arguments, folder=tmp_path)
    assert code == 2
    assert message in err
    assert state(tmp_path / "one") == before
