"""The theory's example as a user starts it."""

import json

from PIL import Image

from tests.examples.starting import run, succeed


def test_a_dry_run_goes_the_whole_way(tmp_path):
    succeed("theory.py", "--dry-run", folder=tmp_path)
    out = tmp_path / "runs" / "theory"
    assert sorted(path.name for path in out.glob("[!.]*")) == ["numbers.json", "theory.gif", "theory.png"]
    with Image.open(out / "theory.gif") as animation:
        assert animation.n_frames > 10
        assert animation.size == (900, 300)
    numbers = json.loads((out / "numbers.json").read_text())
    assert numbers["line_jsd_end"] < numbers["line_jsd_start"]
    assert numbers["line_jsd_of_data_itself"] < 0.01


def test_a_users_mistake_gets_one_sentence(tmp_path):
    code, _, err = run("theory.py", "--steps", "3", folder=tmp_path)
    assert code == 2
    assert "expected a whole number of at least 20" in err
