"""Progress bars, and lines of text between them: shown where somebody looks on, silent where nobody does."""

import sys

from tqdm import tqdm


def bar(iterable=None, **options):
    """Return tqdm's bar on standard error, with tqdm's ``options``.

    It is shown on a terminal and in a notebook, and not where standard error is a file, a pipe, or closed.
    """
    return tqdm(iterable, file=sys.stderr, disable=not is_watched(sys.stderr), **options)


def is_watched(stream):
    """Whether what ``stream`` shows is looked at while it comes: on a terminal, or in a notebook."""
    if stream is None or getattr(stream, "closed", False):
        return False
    in_a_notebook = type(stream).__module__.partition(".")[0] == "ipykernel"  # it says to be no terminal
    return in_a_notebook or (hasattr(stream, "isatty") and stream.isatty())


def say(text):
    """Print a line above the bars; nothing if there is no standard output."""
    _write(text, sys.stdout)


def warn(text):
    """Print a line above the bars to standard error; nothing if there is none."""
    _write(text, sys.stderr)


def _write(text, stream):
    if stream is not None:  # tqdm.write would take the other stream, or fail
        tqdm.write(text, file=stream)
