"""The modes of Wasserstein games, as a user starts the example."""

import json

from PIL import Image

from tests.examples.starting import run, succeed


def test_a_dry_run_plays_every_game(tmp_path):
    out = succeed("wgan_modes.py", "--dry-run", folder=tmp_path)
    left = tmp_path / "runs" / "wgan_modes"
    assert sorted(path.name for path in left.glob("[!.]*")) == ["numbers.json", "wgan_modes.png"]
    with Image.open(left / "wgan_modes.png") as image:
        assert image.size == (900, 600), "a row for each mixture, a column for each bound"
    numbers = json.loads((left / "numbers.json").read_text())
    for mixture, modes in (("ring", 8), ("grid", 25)):
        for bound in ("penalty", "clip 0.01", "clip 0.1"):
            assert 0 <= numbers[f"{mixture}, {bound}, seed 0: modes"] <= modes
            assert numbers[f"{mixture}, {bound}, mean: near"] == numbers[f"{mixture}, {bound}, seed 0: near"]
            assert (f"{mixture}, {bound}, seed 0: slope" in numbers) == (bound == "penalty")
            assert f"{mixture}, {bound}, mean: modes: " in out


def test_a_users_mistake_gets_one_sentence(tmp_path):
    code, _, err = run("wgan_modes.py", "--steps", "3", folder=tmp_path)
    assert code == 2
    assert "expected a whole number of at least 10" in err
