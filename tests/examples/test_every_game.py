"""What every example that trains a game promises: a dry run in seconds, all files, a resume, and a help that helps."""

import json
import re

import pytest

from tests import starting

SCRIPTS = sorted(
    path.name for path in starting.EXAMPLES.glob("*.py") if "return recipes.run" in path.read_text(encoding="utf-8")
)
EVERY_RUN = ("log.csv", "losses.png", "real.png", "report.html", "options.json", "training.gif")


def run(script, *arguments, folder):
    return starting.run(starting.EXAMPLES / script, *arguments, folder=folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images, for the example that asks for one."""
    import numpy as np
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(300):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_leaves_a_whole_run_that_can_be_resumed(script, tmp_path, photos, monkeypatch):
    """With the example's own defaults, but for data that needs no download."""
    monkeypatch.setenv("NANOGAN_DATA", str(tmp_path / "nothing"))
    text = (starting.EXAMPLES / script).read_text(encoding="utf-8")
    data = [str(photos), "--width", "8"] if script == "folder_dcgan.py" else []
    if "add_data(" in text or "run_translation(" in text or '"--data"' in text:
        data = ["--data", "digits"]
    done = run(script, "--dry-run", *data, "--out", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = [path.parent for path in sorted(tmp_path.glob("out/**/log.csv"))]
    assert runs, "a run leaves log.csv"
    for folder in runs:
        names = json.loads((folder / "curves.json").read_text())["exports"]
        for name in (*EVERY_RUN, *names, "checkpoints/last.safetensors"):
            assert (folder / name).stat().st_size > 0, name
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}, "it writes below --out alone"
    done = run(script, "--resume", "--out", str(runs[-1]), "--dry-run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nothing was left to do" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_its_help_names_the_paper_and_its_header_the_commands(script, tmp_path):
    help_text = run(script, "--help", folder=tmp_path).stdout
    assert re.search(r"arXiv:\s*\d{4}\.\d{4,5}", help_text), "the paper"
    assert "section" in help_text
    header = (starting.EXAMPLES / script).read_text(encoding="utf-8").split('"""')[1]
    assert f"python examples/{script}" in header
    assert re.search(r"\b(minutes?|min|seconds?)\b|README", header), "how long it takes"


@pytest.mark.parametrize(("script", "number"), [("mnist_dcgan.py", "frechet"), ("conditional_dcgan.py", "as_asked")])
def test_a_judge_that_is_named_measures_and_without_one_nothing_does(script, number, tmp_path):
    from nanogan import checkpoint
    from nanogan.analysis.judges.classifier import Classifier

    checkpoint.save(tmp_path / "judge.safetensors", Classifier(channels=1, width=2))
    tiny = ("--dry-run", "--data", "digits", "--width", "2")
    assert run(script, *tiny, "--out", "plain", folder=tmp_path).returncode == 0
    assert not (tmp_path / "plain/measures.csv").exists()
    other = run(script, "--resume", "plain", "--judge", "judge.safetensors", "--epochs", "2", folder=tmp_path)
    assert "samples are judged by another classifier from here on" in other.stderr
    done = run(script, *tiny, "--judge", "judge.safetensors", "--out", "judged", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert number in (tmp_path / "judged/measures.csv").read_text().split("\n")[0].split(",")
