"""What benchmarks print and write: rows, files, the reason of a failure, how far they are."""

import sys
import time
from pathlib import Path

from nanogan.disk import replacing
from nanogan.errors import UserError

NO_TIME = "left out, for want of time"
STARTED = time.perf_counter()


def row(cells):
    """Return a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def save(path, title, text):
    """Write a title and ``text``, a string or lines, to ``path``; without a path, do nothing.

    The file is replaced whole: a process that is killed leaves what it wrote before.
    """
    if path:
        text = text if isinstance(text, str) else "\n".join(text) + "\n"
        with replacing(Path(path)) as temporary:
            temporary.write_text(f"# {title}\n\n{text}", encoding="utf-8")


def reason(error):
    """Return one line that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{kind}{(lines or [''])[0]}"[:200].replace("|", "/")


def say(text):
    """Print how far it is; the table goes to the standard output."""
    print(f"[{time.perf_counter() - STARTED:5.0f} s] {text}", file=sys.stderr, flush=True)
