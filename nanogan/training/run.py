"""The folder that a run leaves: log, sample grids, checkpoints, warnings, report."""

import dataclasses
import json
import time
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from numbers import Real
from pathlib import Path

import numpy as np

from nanogan import checkpoint, dispatch, images
from nanogan.backend import array_module, get_device, seeded_rng, to_numpy
from nanogan.disk import Lock, mark_results, replacing, writable_folder
from nanogan.errors import TrainingDiverged, UserError, checked_count
from nanogan.images import plots
from nanogan.info import machine_of_a_run
from nanogan.progress import bar, say, warn
from nanogan.report import write_report
from nanogan.training.earlier import (
    BEST,
    LAST,
    check_own,
    clear_all_temporaries,
    folder_of,
    make_folders,
    read_warnings,
    same_folder,
    samples_in,
    set_aside,
    take_up,
    write_warnings,
)  # fmt: skip
from nanogan.training.health import FEWEST, Health
from nanogan.training.log import Log, columns, columns_of, log_line, read_rows
from nanogan.training.measures import Measures, as_number
from nanogan.training.saving import Checkpoints, Writer

SHOWN = 64  # real images in real.png, and those that samples are compared with


class Run:
    """What :func:`nanogan.training.train` leaves in the folder ``out``, and how often.

    Below ``out``: report.html, which shows all of it, real.png, samples/*.png (after every epoch and every
    ``sample_every`` steps), log.csv, losses.png, training.gif, warnings.csv (see :mod:`nanogan.training.health`),
    measures.csv (what ``measure(game)``, a function that returns {name: number}, finds after each epoch, if you give
    one), options.json (``options``, a dictionary that JSON can hold, which checkpoints hold too: paths become text,
    NumPy's numbers Python's), curves.json, machine.json, and the networks of the game's ``exports``. Those of an
    earlier run are moved to ``out``/previous first. Every ``log_every`` steps a line is printed.

    Checkpoints, from which a run goes on as if it had never stopped, are in ``out``/checkpoints:
    last.safetensors        written every ``checkpoint_minutes``, after each epoch, and at the end. If that took more
                            than 2% of the time, it is written more rarely. 0 writes it after every step regardless
    epoch_003.safetensors   the same after an epoch; the newest ``keep`` remain, with 0 all
    best.safetensors        the epoch after which ``metric(game)``, a number, was lowest (if you give one)

    If a run is resumed, log.csv is cut back to its step and what came later in ``out`` is removed. If the checkpoint is
    of another run's folder, that one stays as it is, and its log and samples are copied.

    when_begun: functions that write what else belongs to the run, called once the files of an earlier one are moved.

    on_disk_full: "stop" raises OSError at the first file that cannot be written; "continue" trains on, says so, and
    tries again when the next file is due. Any other failure to write raises OSError.

    lock: a :class:`nanogan.disk.Lock` of ``out`` that the caller holds; None takes one while the run lasts. Two runs
    that write into one folder would mix their files: the second raises UserError.

    Raises UserError for options that JSON cannot hold, and before a run begins if a checkpoint cannot hold the game.
    """

    def __init__(
        self, out, *, log_every=100, sample_every=None, checkpoint_minutes=2.0, keep=3, metric=None,
        measure=None, on_disk_full="stop", options=None, when_begun=(), lock=None,
    ):  # fmt: skip
        if on_disk_full not in ("stop", "continue"):
            raise UserError(f'on_disk_full expected "stop" or "continue", got {on_disk_full!r}')
        checked_count("log_every", log_every, 1)
        checked_count("keep", keep, 0)
        if sample_every is not None:
            checked_count("sample_every", sample_every, 0)
        if not isinstance(checkpoint_minutes, Real) or not checkpoint_minutes >= 0:
            raise UserError(f"checkpoint_minutes expected a number of at least 0, got {checkpoint_minutes!r}")
        for name, function in (("metric", metric), ("measure", measure)):
            if function is not None and not callable(function):
                raise UserError(f"{name} expected a function of the game, got {function!r:.80}")
        self.out, self.log_every, self.sample_every = Path(out), log_every, sample_every
        self.checkpoint_minutes, self.keep, self.metric = checkpoint_minutes, keep, metric
        self.measure = measure
        self.on_disk_full, self.when_begun = on_disk_full, when_begun
        self.options = None if options is None else checkpoint.as_json(options)
        self.lock = lock
        self._networks_of = None  # the step that the exported networks are of
        self._checked = None  # the step after which all was finite

    # ------------------------------------------------------------------------------------------------- the beginning

    def reserved(self):
        """Return a context in which no other run writes into the folder. Raises UserError if one does already."""
        return Lock(writable_folder(self.out, results=False)) if self.lock is None else nullcontext()

    def begin(self, game, loader, plan, seed, resume=None):
        """Start the folder, or take it up where ``resume`` left it; return False if no step is left to do."""
        out, self.game, self.plan, columns = self.out, game, plan, columns_of(game.fields())
        checkpoint.checked_state(game)  # what cannot be saved is told now and not at the first checkpoint
        if resume is not None and resume.steps_per_epoch != plan.steps_per_epoch:
            raise UserError(
                f"{resume.path} cannot be resumed with these batches: it had {resume.steps_per_epoch} in an epoch, "
                f"now there are {plan.steps_per_epoch}; use the same images and batch size"
            )
        if resume is not None and resume.step >= plan.total:
            self.draw_again(game, resume)
            return False
        enough = -(-FEWEST // loader.batch_size)  # batches, where they are small
        first = list(loader.epoch(1, stop=max(game.batches, enough)))
        self._fixed = game.fixed(first, seeded_rng(seed, "fixed noise"))
        real = [batch[game.real] for batch in first[:enough]]
        self._real = array_module(real[0]).concatenate(real)[:SHOWN]
        check_own(out, game.exports, resume)
        mark_results(out)
        make_folders(out)
        if resume is None:
            set_aside(out)
            self.progress = checkpoint.Progress(0, 1, 0, plan.steps_per_epoch, 0.0)
            rows, self._frames = [], []
        else:
            rows, self._frames = take_up(out, resume, columns)
            self.progress = dataclasses.replace(resume, best=resume.best if (out / BEST).exists() else None)
        for write in self.when_begun:
            write()
        if self.options is not None:
            self.progress.options = self.options
            self._write_json("options.json", self.options)
        self._write_json("curves.json", {"curves": game.curves, "labels": game.labels, "exports": list(game.exports)})
        self._write_json("machine.json", machine_of_a_run(game.device))
        source = folder_of(resume) if resume is not None else None
        self.measures = None
        if self.measure is not None:
            earlier = None if source is None else source / "measures.csv"
            self.measures = Measures(out / "measures.csv", self.measure, earlier, self.progress.step)
        self._start(rows)
        return True

    def draw_again(self, game, resume):
        """Draw training.gif, losses.png and report.html of a run that may have been killed before it drew them.

        ``game`` may be a Game class. Nothing happens if the checkpoint ``resume`` is not of this folder.
        """
        if same_folder(folder_of(resume), self.out):
            self.game = game
            clear_all_temporaries(self.out)
            self._frames = [path for step, path in samples_in(self.out) if step <= resume.step]
            self._draw(read_rows(self.out / "log.csv", resume.step, columns_of(game.fields())))

    def _start(self, rows):
        out, progress = self.out, self.progress
        self._first, self._began = progress.step, time.perf_counter() - progress.seconds
        # reading makes a GPU wait
        self._read_every = 1 if get_device(self.game.device).kind == "cpu" else self.log_every
        self.log = Log(out / "log.csv", self.game.fields(), rows)
        self.writer = Writer(out, progress, self.on_disk_full)
        self.checkpoints = Checkpoints(self.writer, self.game, self.log, self.checkpoint_minutes, self.keep)
        self.health, self._warned = Health(self.log.columns), read_warnings(out, progress.step)
        self._watching = ExitStack()
        self._ran = self._watching.enter_context(dispatch.watch())  # until the first step is done
        self.bar = bar(total=self.plan.total, initial=progress.step, unit="step", dynamic_ncols=True)

    def _write_json(self, name, content):
        with replacing(self.out / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    # ------------------------------------------------------------------------------------------------ after each step

    def note(self, at, seen):
        """Note what a step returned; print a line if it is time."""
        progress = self.progress
        progress.step, progress.epoch, progress.batch = at.step, at.epoch, at.step_in_epoch
        progress.seconds = time.perf_counter() - self._began
        self.log.add(at.epoch, at.step, seen, progress.seconds)
        self.bar.update()
        if at.step == 1:
            self.writer.write(self.out / "real.png", images.save_grid, self.out / "real.png", self._real)
        if at.step == self._first + 1:
            self._tell_what_computes()
        if at.step % self._read_every == 0 or at.step % self.log_every == 0:
            self._read()
        if at.step % self.log_every == 0 or at.step == self._first + 1:
            self._print(at)
        if at.step % self.log_every == 0:
            self._warn(at)

    def is_last(self, at, stop):
        """Whether the run ends after this step: it is the plan's last, or ``stop()`` says so."""
        return at.step == self.plan.total or stop()

    def _tell_what_computes(self):
        """Say which operations fast paths computed in the first step: a change in nanogan/ops does nothing to them."""
        self._watching.close()
        operations = dispatch.fast_paths(get_device(self.game.device).kind)
        fast = ", ".join(dict.fromkeys(operations[name] for name in self._ran if name in operations))
        if fast:
            say(f"computed by nanogan/fast: {fast}; the rest by nanogan/ops (all of it with NANOGAN_FAST=0)")

    def samples_are_due(self, at):
        """Whether ``sample_every`` asks for a grid after this step."""
        return bool(self.sample_every) and at.step % self.sample_every == 0

    def checkpoint_is_due(self):
        """Whether ``checkpoint_minutes`` ask for a checkpoint after this step."""
        return self.checkpoints.are_due()

    def save_samples(self, at, last=False):
        """Write a grid of samples and the exported networks; look whether the game is healthy."""
        self._last_chance(at, last)
        self._check(at)
        frame = self.out / "samples" / f"epoch_{at.epoch:03d}_step_{at.step:06d}.png"
        samples = self.game.sample(self._fixed)
        if self.writer.write(frame, images.save_grid, frame, samples, columns=self.game.images_per_row):
            self._frames.append(frame)
        for name, network in self.game.exported().items():
            if self.writer.write(self.out / name, checkpoint.save, self.out / name, network):
                self._networks_of = at.step
        self._warn(at, samples[self.game.generated])

    def save_checkpoint(self, at, last=False):
        """Write the checkpoints that are due after this step."""
        self._last_chance(at, last)
        names, ends_epoch = [], at.ends_epoch
        due = last or self.checkpoints.are_due(ends_epoch)
        if due:
            self._check(at)
        if due and ends_epoch:
            names.append(f"epoch_{at.epoch:03d}.safetensors")
        try:
            if self.measures is not None and (ends_epoch or at.step == self.plan.total):
                self.measures.take(self.game, self.progress)
                self.writer.write(self.measures.path, self.measures.save)
            if ends_epoch and self.metric is not None and self._is_best(as_number(self.metric(self.game), "metric")):
                names.append(BEST.name)
        except Exception:  # a wrong measure costs no training
            if due:
                with suppress(OSError):  # do not let this hide the original error
                    self.checkpoints.save([*names, LAST.name])
            raise
        if due or names:
            self.checkpoints.save([*names, LAST.name])

    def _last_chance(self, at, last):
        if last and not self.writer.last_chance:
            self.writer.last_chance = True
            if at.step % self.log_every and at.step != self._first + 1:
                self._print(at)

    def _check(self, at):
        """Read the losses and look whether all weights are finite, once after a step."""
        if self._checked != at.step:
            self._read()
            check_finite(self.game, at.step)
            self._checked = at.step

    def _read(self):
        """Fetch what steps returned so far and save it; the last one is shown beside the bar."""
        row = self.log.fetch()
        self.writer.write(self.log.path, self.log.save)
        self.bar.set_postfix({self.game.labels.get(name, name): f"{value:.3f}" for name, value in row.items()
                              if name.startswith("loss")}, refresh=False)  # fmt: skip

    def _print(self, at):
        row = self.log.fetch()
        text = self.game.line({name: row[name] for name in self.game.fields()})
        say(log_line(row, self.plan.epochs, self.plan.steps_per_epoch, text))

    def _warn(self, at, samples=None):
        new = self.health.check(self.log.rows, samples, self._real)
        if new or self._warned is None:
            self._warned = [*(self._warned or []), *((at.step, message) for message in new)]
            self.writer.write(self.out / "warnings.csv", write_warnings, self.out, self._warned)
        for message in new:
            warn(f"warning: {message}")

    def _is_best(self, value):
        """Print a metric's value and note it in ``progress`` if it is the lowest so far."""
        lowest = self.progress.best
        best = "" if lowest is None else f", best {lowest:.6g}"
        say(f"metric after epoch {self.progress.epoch}: {value:.6g}{best}")
        if not np.isfinite(value) or (lowest is not None and value >= lowest):
            return False
        self.progress.best = value
        return True

    # ------------------------------------------------------------------------------------------------------- the end

    def end(self, completed):
        """Draw training.gif, losses.png and report.html, and return ``completed``."""
        self._draw(self.log.rows, self.writer.write)
        return completed

    @contextmanager
    def errors_told(self):
        """Save and draw what there is when an error ends the run, and close the log."""
        try:
            yield
        except BaseException as error:
            with suppress(OSError):  # do not let this hide the original error
                self.log.save()
                self._draw(self.log.rows)
            if isinstance(error, TrainingDiverged):
                step = self._networks_of
                kept = f"the checkpoint of step {step} is kept in {self.out}" if step else self.writer.kept()
                raise TrainingDiverged(f"training stopped: {error}; {kept}") from None
            raise
        finally:
            self._watching.close()
            self.bar.close()
            self.log.close()

    def _draw(self, rows, write=lambda path, function, *arguments: function(*arguments)):
        """Write training.gif, losses.png and report.html from what there is."""
        out, frames = self.out, [frame for frame in self._frames if frame.exists()]
        if frames:
            write(out / "training.gif", images.save_gif, out / "training.gif", frames)
        if rows:
            plot = out / "losses.png"
            write(
                plot,
                plots.save_training_plot,
                plot,
                columns(rows, columns_of(self.game.fields())),
                self.game.curves,
                self.game.labels,
            )
            write(out / "report.html", write_report, out)


def check_finite(game, step):
    """Raise TrainingDiverged if a parameter or a running statistic is NaN or infinite. A GPU is waited for once."""
    networks = [*game.networks().values(), *game.exported().values()]
    arrays = [
        (name, array)
        for network in {id(network): network for network in networks}.values()
        for name, array in network.state_dict().items()
        if array.dtype.kind == "f"
    ]
    if not arrays:
        return
    xp = array_module(arrays[0][1])
    finite = to_numpy(xp.stack([xp.isfinite(array).all() for _, array in arrays]))
    if not finite.all():
        name, _ = arrays[int(np.argmin(finite))]
        raise TrainingDiverged(f"after step {step} {name} was no longer finite; try a lower learning rate")
