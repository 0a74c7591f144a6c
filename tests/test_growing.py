"""What is added to nanogan is one new file, and in no list: tried on a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "nanogan"


class Copy:
    """A copy of the package ``nanogan`` in ``folder``, to which files can be added."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(PACKAGE, folder / "nanogan", ignore=shutil.ignore_patterns("__pycache__"))

    def add(self, name, text):
        """Write the file ``name``, "nanogan/ops/square.py", which must be new."""
        path = self.folder / name
        assert not path.exists(), name
        path.write_text(text, encoding="utf-8")

    def edit(self, name, old, new):
        """Replace ``old``, which occurs once in the file ``name``."""
        path = self.folder / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} contains {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def python(self, *arguments):
        """Run Python, which imports nanogan from the copy alone; return the finished process."""
        environment = os.environ | {"PYTHONPATH": str(self.folder), "NANOGAN_FAST": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip


@pytest.fixture
def grown(tmp_path):
    """A :class:`Copy` of nanogan."""
    return Copy(tmp_path)


OPERATION = '''"""The square of each element."""

from nanogan.ops.examples import Example, normal


def square_forward(x, *, scale=1.0):
    """y = scale * x^2."""
    return scale * x * x, (x, scale)


def square_backward(dy, cache):
    """dx = dy * 2 * scale * x."""
    x, scale = cache
    return dy * 2 * scale * x


EXAMPLES = [Example(square_forward, torch=lambda F, x, scale: scale * x.square(), x=normal(3, 4), scale=1.5)]
'''

FAST_PATH = '''"""The square again, for small arrays."""

from nanogan import ops
from nanogan.dispatch import register


def square_forward(x, *, scale=1.0):
    return scale * x**2, (x, scale)


def square_backward(dy, cache):
    return ops.square_backward(dy, cache)


register("cpu", ops.square_forward, square_forward, square_backward, serves=lambda x, **_: x.size < 100)
'''

USE = """
import runpy, sys
import numpy as np
import nanogan
from nanogan import ops
from nanogan.dispatch import dispatch, watch

assert nanogan.__file__.startswith(sys.argv[1]), nanogan.__file__
assert {"square_forward", "square_backward"} <= set(ops.__all__)
from nanogan.ops import square_forward

for size, expected in ((3, "nanogan.fast.cpu.square.square_forward"), (100, "nanogan.ops.square.square_forward")):
    with watch() as ran:
        y, (backward, cache) = dispatch(ops.square_forward, ops.square_backward, np.full(size, 3.0), scale=2.0)
    assert ran == [expected], ran
    assert (y == 18).all() and (backward(np.ones(size), cache) == 12).all()
sys.argv[1:] = ["--op", "square"]
runpy.run_module("nanogan.gradcheck", run_name="__main__")
"""


def test_an_operation_is_one_file_and_a_fast_path_another(grown):
    """Both are found; and the gradient check, which passes, fails once the backward is wrong."""
    grown.add("nanogan/ops/square.py", OPERATION)
    grown.add("nanogan/fast/cpu/square.py", FAST_PATH)
    result = grown.python("-c", USE, grown.folder)
    assert result.returncode == 0, result.stdout + result.stderr
    (row,) = [line.split() for line in result.stdout.splitlines() if line.startswith("square")]
    assert (row[1], row[-1]) == ("2", "ok")
    assert float(row[3]) < 1e-14, "beside torch's"

    grown.edit("nanogan/ops/square.py", "return dy * 2 * scale * x", "return -dy * 2 * scale * x")
    result = grown.python("-m", "nanogan.gradcheck", "--op", "square")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "WRONG: square x(3,4) scale=1.5" in result.stdout
    assert "sign?" in result.stdout
