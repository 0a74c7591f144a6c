"""A run's files: when a checkpoint is due, and what happens when something cannot be written."""

import time

from nanogan import checkpoint
from nanogan.disk import FULL, remedy
from nanogan.progress import warn
from nanogan.training.earlier import LAST, copy, epochs_in

SAVING_SHARE = 0.02  # of the time may go into checkpoints


class Writer:
    """Writes files; a full disk ends the run, or is told once for each kind of file and training goes on."""

    def __init__(self, out, progress, on_disk_full):
        self.out, self.progress, self.on_disk_full = out, progress, on_disk_full
        self.last_chance = False  # what cannot be written now never will be
        self.saved_at = progress.step or None  # the step of the last checkpoint
        self._failing = set()  # kinds of files that the disk had no room for

    def write(self, path, function, *arguments, **options):
        """Call a function that writes ``path``, and return whether it could; raise OSError if that ends the run."""
        kind = path if path.parent == self.out else path.parent
        try:
            function(*arguments, **options)
        except OSError as error:
            reason = error.strerror or error
            if error.errno not in FULL or self.on_disk_full == "stop" or self.last_chance:
                raise OSError(
                    f"{path} could not be written ({reason}): training stopped at step {self.progress.step}; "
                    f"{self.kept()}; {remedy(error)}"
                ) from error
            if kind not in self._failing:
                warn(f"{path} could not be written ({reason}): training goes on; make room on the disk")
            self._failing.add(kind)
            return False
        self._failing.discard(kind)
        return True

    def kept(self):
        """Say which checkpoint is there."""
        if not self.saved_at:
            return "no checkpoint was saved yet"
        return f"the checkpoint of step {self.saved_at}, {self.out / LAST}, is whole"


class Checkpoints:
    """Decides when a checkpoint of a game is due, and writes it. ``minutes`` between them, ``keep`` those of epochs."""

    def __init__(self, writer, game, log, minutes, keep):
        self.writer, self.game, self.log, self.minutes, self.keep = writer, game, log, minutes, keep
        self.due, self.not_before = time.perf_counter() + 60 * minutes, 0.0

    def are_due(self, epoch_ends=False):
        """Whether one is to be written after this step."""
        now = time.perf_counter()
        return now >= self.due or (epoch_ends and now >= self.not_before)

    def save(self, names):
        """Write a checkpoint under the first of ``names``; the others are copies."""
        writer, began = self.writer, time.perf_counter()
        folder = writer.out / LAST.parent
        path = folder / names[0]
        if (
            writer.write(self.log.path, self.log.save, durable=True)  # the log is never behind the checkpoint
            and writer.write(path, checkpoint.save_training, path, self.game, writer.progress)
        ):
            writer.saved_at = writer.progress.step
            writer.write(folder, _copy_as, path, names[1:])
            _prune(folder, self.keep)
        now = time.perf_counter()
        self.not_before = now + (now - began) / SAVING_SHARE if self.minutes else now
        self.due = max(now + 60 * self.minutes, self.not_before)


def _copy_as(path, names):
    """Give a checkpoint other names too, the last of which is LAST's; if there is no room, that one alone."""
    try:
        for name in names:
            copy(path, path.with_name(name))
    except OSError:
        path.replace(path.with_name(LAST.name))
        raise


def _prune(folder, keep):
    """Remove all epochs' checkpoints but the newest ``keep``; 0 keeps all."""
    epochs = epochs_in(folder)
    for number in sorted(epochs)[:-keep] if keep else []:
        epochs[number].unlink(missing_ok=True)
