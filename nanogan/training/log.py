"""The numbers of a run: a line for people now and then, a CSV row for every step."""

import csv
import io
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from nanogan.backend import array_module, to_numpy
from nanogan.disk import replacing
from nanogan.errors import TrainingDiverged

COLUMNS = ("epoch", "step", "loss_d", "loss_g", "d_x", "d_g_z_before", "d_g_z_after", "seconds")


class Log:
    """Collects what steps saw and appends it to ``path``; refuses losses that are not finite.

    A step's numbers stay on the device until :meth:`fetch`, so that a GPU is not waited for at every step, and reach
    the file with :meth:`save`. ``rows`` are those of earlier steps, with which the file starts: see :func:`read_rows`.
    """

    def __init__(self, path, rows=()):
        self.path, self.rows = Path(path), list(rows)
        self._pending = []
        self._start_file()

    def add(self, epoch, step, result, seconds):
        """Note a step's StepResult; ``step`` counts from 1 over the whole run, ``seconds`` since its start."""
        self._pending.append((epoch, step, result, seconds))

    def fetch(self):
        """Fetch the numbers noted so far into ``rows`` and return the last one as a dictionary (None if none).

        Raises TrainingDiverged at the first step whose loss is NaN or infinite.
        """
        if self._pending:
            xp = array_module(self._pending[0][2].loss_d)
            flat = xp.stack([value for _, _, result, _ in self._pending for value in result])
            values = to_numpy(flat).reshape(len(self._pending), -1).astype(float)
            rows = [
                (epoch, step, *(round(value, 6) for value in numbers.tolist()), round(seconds, 3))
                for (epoch, step, _, seconds), numbers in zip(self._pending, values, strict=True)
            ]
            self._pending = []
            self.rows += rows
            bad = np.flatnonzero(~np.isfinite(values[:, :2]).all(axis=1))
            if len(bad):
                row = dict(zip(COLUMNS, rows[bad[0]], strict=True))
                raise TrainingDiverged(
                    f"at step {row['step']} (epoch {row['epoch']}) Loss_D became {row['loss_d']} and Loss_G "
                    f"{row['loss_g']}; a lower learning rate usually helps"
                )
        return dict(zip(COLUMNS, self.rows[-1], strict=True)) if self.rows else None

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
            temporary.write_bytes(_csv([COLUMNS, *self.rows]))
        self._file = open(self.path, "ab", buffering=0)  # a buffer would write what truncate took back
        self._saved = len(self.rows)

    def _is_in_place(self):
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except OSError:
            return False


def columns(rows):
    """Return {name: tuple} of a log's rows."""
    return dict(zip(COLUMNS, zip(*rows, strict=True), strict=True)) if rows else {}


def read_rows(path, steps):
    """Return the rows of the first ``steps`` steps in a log.csv; fewer if it is not there, shorter or damaged."""
    rows = []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            if tuple(next(lines, ())) != COLUMNS:
                return []
            for epoch, step, *numbers in lines:
                row = (int(epoch), int(step), *map(float, numbers))
                if not (rows[-1][1] if rows else 0) < row[1] <= steps or len(row) != len(COLUMNS):
                    break
                rows.append(row)
    except (OSError, ValueError, csv.Error):  # UnicodeDecodeError is a ValueError
        pass
    return rows


def _csv(rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def log_line(row, epochs, steps_per_epoch):
    """Return pytorch/examples' line for a row of the log, with "before" and "after" spelt out."""
    step_in_epoch = row["step"] - (row["epoch"] - 1) * steps_per_epoch
    return (
        f"[{row['epoch']}/{epochs}][{step_in_epoch}/{steps_per_epoch}]  "
        f"Loss_D: {row['loss_d']:.4f}  Loss_G: {row['loss_g']:.4f}  D(x): {row['d_x']:.4f}  "
        f"D(G(z)): {row['d_g_z_before']:.4f} before D's step, {row['d_g_z_after']:.4f} after"
    )
