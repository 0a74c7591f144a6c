"""The numbers of a run: a line for people now and then, a CSV row for every step."""

import csv
from pathlib import Path

import numpy as np

from nanogan.backend import array_module, to_numpy
from nanogan.errors import TrainingDiverged

COLUMNS = ("epoch", "step", "loss_d", "loss_g", "d_x", "d_g_z_before", "d_g_z_after", "seconds")


class Log:
    """Collects what steps saw and writes it to ``path``; refuses losses that are not finite.

    A step's numbers stay on the device until :meth:`flush`, so that a GPU is not waited for at every step.
    """

    def __init__(self, path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)
        self.rows = []
        self._pending = []

    def add(self, epoch, step, result, seconds):
        """Note a step's StepResult; ``step`` counts from 1 over the whole run, ``seconds`` since its start."""
        self._pending.append((epoch, step, result, seconds))

    def flush(self):
        """Fetch the numbers noted so far, write them, and return the last row as a dictionary (None if none).

        Raises TrainingDiverged, after writing, at the first step whose loss is NaN or infinite.
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
            self._writer.writerows(rows)
            self._file.flush()
            self.rows += rows
            bad = np.flatnonzero(~np.isfinite(values[:, :2]).all(axis=1))
            if len(bad):
                row = dict(zip(COLUMNS, rows[bad[0]], strict=True))
                raise TrainingDiverged(
                    f"at step {row['step']} (epoch {row['epoch']}) Loss_D became {row['loss_d']} and Loss_G "
                    f"{row['loss_g']}; a lower learning rate usually helps"
                )
        return dict(zip(COLUMNS, self.rows[-1], strict=True)) if self.rows else None

    def columns(self):
        """Return {name: list} of all rows."""
        return dict(zip(COLUMNS, zip(*self.rows, strict=True), strict=True)) if self.rows else {}

    def close(self):
        """Close the file."""
        self._file.close()


def log_line(row, epochs, steps_per_epoch):
    """Return pytorch/examples' line for a row of the log, with "before" and "after" spelt out."""
    step_in_epoch = row["step"] - (row["epoch"] - 1) * steps_per_epoch
    return (
        f"[{row['epoch']}/{epochs}][{step_in_epoch}/{steps_per_epoch}]  "
        f"Loss_D: {row['loss_d']:.4f}  Loss_G: {row['loss_g']:.4f}  D(x): {row['d_x']:.4f}  "
        f"D(G(z)): {row['d_g_z_before']:.4f} before D's step, {row['d_g_z_after']:.4f} after"
    )
