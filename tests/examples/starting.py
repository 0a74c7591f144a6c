"""Starting an example as a user does, in a folder of the test's own."""

from PIL import Image

from tests import starting
from tests.starting import EXAMPLES


def run(script, *arguments, folder):
    """Return the exit status of ``script`` with ``arguments``, what it printed, and its errors."""
    done = starting.run(EXAMPLES / script, *arguments, folder=folder)
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
