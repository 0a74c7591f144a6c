"""Starting an example as a user does, in a folder of the test's own."""

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script, *arguments, folder):
    """Return the exit status of ``script`` with ``arguments``, what it printed, and its errors."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, arguments)],
        cwd=folder,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def succeed(script, *arguments, folder):
    """Return what ``script`` printed; it has to succeed without a word on standard error."""
    code, out, err = run(script, *arguments, folder=folder)
    assert (code, err) == (0, "")
    return out


def size_of(path):
    """The width and height of a picture."""
    with Image.open(path) as picture:
        return picture.size
