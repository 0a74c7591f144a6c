"""The numbers of a run: a line for people now and then, a CSV row for every step.

A row is the epoch, the step, what the step returned, and the seconds since the run's start. What the step returned is
a NamedTuple: its fields are the names of the columns.
"""

import csv
import io
import math
import os
from contextlib import suppress
from pathlib import Path

from nanogan.backend import array_module, to_numpy
from nanogan.disk import replacing
from nanogan.errors import TrainingDiverged
from nanogan.report.what_a_run_left import OLD_COLUMNS


class Log:
    """Collects what steps returned and appends it to ``path``; refuses losses that are not finite.

    names: the fields of what a step returns; those that start with "loss" are the losses. A step's numbers stay on the
    device until :meth:`fetch`, so that a GPU is not waited for at every step, and reach the file with :meth:`save`.
    ``rows`` are those of earlier steps, with which the file starts: see :func:`read_rows`.
    """

    def __init__(self, path, names, rows=()):
        self.path, self.columns, self.rows = Path(path), columns_of(names), list(rows)
        self._pending = []
        self._start_file()

    def add(self, epoch, step, seen, seconds):
        """Note what a step returned, a NamedTuple of 0-d arrays.

        ``step`` counts from 1 over the whole run, ``seconds`` since its start. ``seen.row`` is the same as one array,
        where a graph made it.
        """
        self._pending.append((epoch, step, seen, seconds))

    def fetch(self):
        """Fetch the numbers noted so far into ``rows`` and return the last one as a dictionary (None if none).

        Raises TrainingDiverged at the first step whose loss is NaN or infinite.
        """
        if self._pending:
            xp = array_module(self._pending[0][2][0])
            pieces = [
                piece for _, _, seen, _ in self._pending for piece in ([seen.row] if hasattr(seen, "row") else seen)
            ]
            values = to_numpy(xp.concatenate([piece.reshape(-1) for piece in pieces])).astype(float)
            values = values.reshape(len(self._pending), -1)
            rows = [
                (epoch, step, *(float(f"{value:.7g}") for value in numbers.tolist()), round(seconds, 3))
                for (epoch, step, _, seconds), numbers in zip(self._pending, values, strict=True)
            ]
            self._pending = []
            self.rows += rows
            for row in rows:
                _check_losses(dict(zip(self.columns, row, strict=True)))
        return dict(zip(self.columns, self.rows[-1], strict=True)) if self.rows else None

    def save(self, *, durable=False):
        """Append the rows that the file does not have yet; ``durable``: through to the disk.

        If the disk is full, OSError is raised, the file stays as it was, and the next call writes what is missing. If
        somebody removed the file, it is written anew.
        """
        if not self._is_in_place():
            self.close()
            self._start_file()
        data, size = _csv(self.rows[self._saved :]), self._file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(size)
            raise
        self._saved = len(self.rows)
        if durable:
            os.fsync(self._file.fileno())

    def close(self):
        """Close the file."""
        self._file.close()

    def _start_file(self):
        with replacing(self.path) as temporary:
            temporary.write_bytes(_csv([self.columns, *self.rows]))
        self._file = open(self.path, "ab", buffering=0)  # a buffer would write what truncate took back
        self._saved = len(self.rows)

    def _is_in_place(self):
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except OSError:
            return False


def columns_of(names):
    """Return the columns of a log whose steps return ``names``."""
    return ("epoch", "step", *names, "seconds")


def columns(rows, columns):
    """Return {column: tuple of its values} of a log's rows."""
    return dict(zip(columns, zip(*rows, strict=True), strict=True)) if rows else {}


def read_rows(path, steps, columns):
    """Return the rows of the first ``steps`` steps in a log.csv; fewer if it is not there, shorter or damaged.

    None are returned if the file has other ``columns``; those that earlier versions wrote under other names count.
    """
    rows = []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            if tuple(OLD_COLUMNS.get(name, name) for name in next(lines, ())) != tuple(columns):
                return []
            for epoch, step, *numbers in lines:
                row = (int(epoch), int(step), *map(float, numbers))
                if not (rows[-1][1] if rows else 0) < row[1] <= steps or len(row) != len(columns):
                    break
                rows.append(row)
    except (OSError, ValueError, csv.Error):  # UnicodeDecodeError is a ValueError
        pass
    return rows


def log_line(row, epochs, steps_per_epoch, text):
    """Return ``text``, a game's words for a row of its log, behind where in the run that is, as pytorch/examples do."""
    step_in_epoch = row["step"] - (row["epoch"] - 1) * steps_per_epoch
    return f"[{row['epoch']}/{epochs}][{step_in_epoch}/{steps_per_epoch}]  {text}"


def _check_losses(row):
    """Raise TrainingDiverged if a loss in a row, a dictionary, is NaN or infinite."""
    losses = {name: value for name, value in row.items() if name.startswith("loss")}
    if not all(map(math.isfinite, losses.values())):
        told = ", ".join(f"{name} = {value}" for name, value in losses.items())
        raise TrainingDiverged(
            f"at step {row['step']} (epoch {row['epoch']}) a loss was not finite ({told}); "
            "a lower learning rate usually helps"
        )


def _csv(rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
