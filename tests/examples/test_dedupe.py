"""Near-duplicates as a user looks for them: planted ones are listed, nothing is changed, mistakes get a sentence."""

import csv
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
    assert len(list((left / "planted").iterdir())) == 100 + 7 * 10
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
    assert "runs/dedupe/planted holds mine.png, which is not of an earlier run: choose another --out" in err
    assert (left / "planted" / "00000.png").exists()


def test_the_measurement_among_a_folders_pictures(photos, tmp_path):
    before = state(photos)
    code, _, err = run("dedupe.py", "--data", "photos", "--dry-run", folder=tmp_path)
    assert code == 0, err
    assert json.loads((tmp_path / "runs/dedupe/numbers.json").read_text())["pictures"] == 15 + 2 * 7
    assert state(photos) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "expected a folder of pictures, nowhere is nothing: check the path"),
        (("notes.txt",), "expected a folder of pictures, notes.txt is a file"),
        (("empty",), "empty holds no picture (.jpg, .png, .webp, .bmp or .gif), itself or below"),
        (("one",), "one holds one picture that can be read: near-duplicates expected at least two"),
        (("broken",), "none of the 1 pictures in broken can be read"),
        (("one", "--out", "one"), "the output folder one lies in one, where its pictures would be taken for yours"),
        (
            (".",),
            "the output folder runs/dedupe lies in ., where its pictures would be taken for yours: choose one else",
        ),
        (("--data", "."), "the output folder runs/dedupe lies in ., where"),
        (("--data", "one"), "planting copies expected at least 7 pictures, one for each kind, got 1"),
        (("one", "--data", "faces"), "give FOLDER or --data, not both"),
        (("one", "--distance", "-1"), "expected a whole number of at least 0 and at most 128, got '-1'"),
    ],
)
def test_a_users_mistake_gets_one_sentence(tmp_path, monkeypatch, capsys, arguments, message):
    """In this process: a dozen of their own take ten seconds."""
    for name in ("empty", "one", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").write_text("no folder")
    Image.new("RGB", (8, 8)).save(tmp_path / "one" / "a.png")
    (tmp_path / "one" / "b.png").write_bytes(b"no picture")
    (tmp_path / "broken" / "b.png").write_bytes(b"no picture")
    before = state(tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dedupe.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / "dedupe.py"), run_name="__main__")
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert state(tmp_path / "one") == before
