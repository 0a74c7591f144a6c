"""The README's Python runs, and the files that it shows or names exist."""

import dataclasses
import re
from pathlib import Path

import pytest

from nanogan.games.dcgan import DCGAN

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_in_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(block, names)
    assert "StepResult(loss_d=" in capsys.readouterr().out
    assert names["dx2"].shape == (8, 3, 16, 16)
    assert names["pictures"].shape == (8, 3, 32, 32)


def test_what_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.name)
def test_what_a_page_links_to_exists(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_the_table_of_games_names_every_example_that_trains_one():
    table = (ROOT / "docs/games.md").read_text(encoding="utf-8")
    for path in (ROOT / "examples").glob("*.py"):
        if "return recipes.run" in path.read_text(encoding="utf-8"):
            assert f"`{path.name}`" in table, path.name


def test_the_quoted_lines_stand_in_the_code():
    quoted = re.search(r"as it stands there:\n\n```\n(.*?)```", README, flags=re.DOTALL).group(1)
    source = (ROOT / "nanogan/ops/conv.py").read_text(encoding="utf-8")
    for line in quoted.strip().splitlines():
        assert line in source, line


def test_every_flag_in_the_readme_exists():
    """In the code, or as an option of a game."""
    files = [ROOT / "nanogan/cli.py", *(ROOT / "nanogan").glob("*/__main__.py"), *ROOT.glob("nanogan/recipes/*.py")]
    source = "".join(path.read_text(encoding="utf-8") for path in (*files, *ROOT.glob("examples/*.py")))
    options = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(DCGAN.Options)}
    for flag in set(re.findall(r"(?<= )--[a-z-]+", README)) - {"--help", "--mpi"}:
        assert flag in options or f'"{flag}"' in source, flag


def test_every_install_of_a_clone_is_editable():
    """After ``pip install .`` the copy in site-packages runs, and a change in the clone has no effect."""
    files = [ROOT / "README.md", ROOT / ".ci/run", *(ROOT / "docs").rglob("*.md")]
    files += [path for folder in ("nanogan", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    commands = [line for path in files for line in re.findall(r"pip install .*", path.read_text(encoding="utf-8"))]
    installs = [command for command in commands if re.search(r"""\s["']?\.(\[|["'\s]|$)""", command)]
    assert installs
    for command in installs:
        assert re.search(r"\s-e\s", command), command
