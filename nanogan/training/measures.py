"""What is measured after each epoch: measures.csv, a row for each time."""

import csv
from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from nanogan.disk import replacing
from nanogan.errors import UserError
from nanogan.progress import say
from nanogan.report.what_a_run_left import read_log

WHERE = "epoch", "step", "seconds"  # the first columns


def as_number(value, name):
    """Return ``value``, a number or an array of one element, as a float; raises UserError for others."""
    if not isinstance(value, (str, bytes)):
        with suppress(TypeError, ValueError, OverflowError):
            return float(value.item() if getattr(value, "size", None) == 1 else value)
    raise UserError(f"{name} expected a number, got {value!r:.80}: return one, NaN if there is none")


class Measures:
    """Calls ``measure(game)``, {name: number}, prints the result and writes the rows so far to ``path``.

    ``source`` is the measures.csv of the run that is resumed, if any; its rows up to ``step`` are kept.
    """

    def __init__(self, path, measure, source=None, step=0):
        self.path, self.measure = path, measure
        self.rows = [] if source is None else _rows(source, step)

    def take(self, game, progress):
        """Measure ``game`` after the step of ``progress``, and print the numbers."""
        numbers = self.measure(game)
        if not isinstance(numbers, Mapping) or not all(isinstance(name, str) and name not in WHERE for name in numbers):
            raise UserError(
                f"measure expected to return a dictionary of numbers by name, other than {', '.join(WHERE)}, got "
                f"{numbers!r:.80}"
            )
        numbers = {name: as_number(value, f"measure's {name}") for name, value in numbers.items()}
        told = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        say(f"measured after epoch {progress.epoch}: {told}")
        where = {"epoch": progress.epoch, "step": progress.step, "seconds": round(progress.seconds, 3)}
        self.rows.append(where | numbers)

    def save(self):
        """Write all rows."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with replacing(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="nan", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def _rows(path, step):
    """The rows of a measures.csv up to ``step``, dictionaries."""
    log, _ = read_log(path)
    columns = [log[name].tolist() for name in log]
    rows = [dict(zip(log, values, strict=True)) for values in zip(*columns, strict=True)]
    kept = [row for row in rows if row["step"] <= step and np.isfinite(row["epoch"])]
    return [row | {"epoch": int(row["epoch"]), "step": int(row["step"])} for row in kept]
