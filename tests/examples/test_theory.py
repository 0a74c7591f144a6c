"""The theory's example as a user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "theory.py"


def run(*arguments, folder):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=folder,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_dry_run_goes_the_whole_way(tmp_path):
    done = run("--dry-run", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    out = tmp_path / "runs" / "theory"
    assert sorted(path.name for path in out.iterdir()) == ["numbers.json", "theory.gif", "theory.png"]
    with Image.open(out / "theory.gif") as animation:
        assert animation.n_frames > 10
        assert animation.size == (900, 300)
    numbers = json.loads((out / "numbers.json").read_text())
    assert numbers["line_jsd_end"] < numbers["line_jsd_start"]
    assert numbers["line_jsd_of_data_itself"] < 0.01


def test_a_users_mistake_gets_one_sentence(tmp_path):
    done = run("--steps", "3", folder=tmp_path)
    assert done.returncode == 2
    assert "expected a whole number of at least 20" in done.stderr
