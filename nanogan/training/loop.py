"""The loop round the step: progress, log, pictures, checkpoints."""

import csv
import errno
import itertools
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from numbers import Integral
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from nanogan import checkpoint, images
from nanogan.backend import array_module, get_device
from nanogan.disk import clear_temporaries, replacing
from nanogan.errors import TrainingDiverged, UserError
from nanogan.games.dcgan import StepResult, adversarial_step, discriminator_step, losses_of
from nanogan.games.drawing import draw_noise, draw_z, sample
from nanogan.images import plots
from nanogan.info import machine_of_a_run
from nanogan.optim import LinearDecay
from nanogan.report import write_report
from nanogan.training.health import Health
from nanogan.training.log import Log, columns, columns_of, log_line, read_rows

PRODUCTS = (
    "options.json",
    "real.png",
    "log.csv",
    "losses.png",
    "training.gif",
    "report.html",
    "machine.json",
    "curves.json",
    "warnings.csv",
    "skipped.txt",
    "generator.safetensors",
    "discriminator.safetensors",
)
SERIES = ("samples/epoch_*.png", "checkpoints/*.safetensors")  # products of which there are many
LAST, BEST = (Path("checkpoints", f"{name}.safetensors") for name in ("last", "best"))
SAVING_SHARE = 0.02  # of the time may go into checkpoints
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
COLUMNS = columns_of(StepResult._fields)
CURVES = {"losses": ("loss_d", "loss_g"), "how real D finds images": ("d_real", "d_fake_before")}
LABELS = {"loss_d": "Loss_D", "loss_g": "Loss_G", "d_real": "D(x), real", "d_fake_before": "D(G(z)), generated"}


def train(
    g,
    d,
    opt_g,
    opt_d,
    loader,
    *,
    epochs,
    out,
    noise_rng,
    fixed_z,
    device="cpu",
    log_every=100,
    sample_every=None,
    max_steps=None,
    options=None,
    resume=None,
    checkpoint_minutes=2.0,
    keep=3,
    metric=None,
    on_disk_full="stop",
    loss="bce",
    label_smoothing=0.0,
    instance_noise=0.0,
    instance_rng=None,
    ema=None,
    lr_decay="none",
    d_steps=1,
    z_kind="normal",
):
    """Train generator ``g`` against discriminator ``d`` for ``epochs`` rounds of ``loader``; return True if completed.

    noise_rng: the numpy.random.Generator of each step's z, PCG64 as default_rng's. fixed_z (N, latent): the
    noise of the sample pictures, drawn after every epoch and every ``sample_every`` steps. ``log_every`` steps a line
    is printed. ``max_steps`` ends the run early. ``options`` (a dictionary that JSON can hold) is written to
    options.json and into the checkpoints. After Ctrl-C the step is finished, everything is saved, and False is
    returned.

    Below ``out``: report.html, which shows all of it, real.png, samples/*.png, log.csv, losses.png, training.gif,
    warnings.csv (see :mod:`nanogan.training.health`), machine.json, generator.safetensors and
    discriminator.safetensors. Those of an earlier run are moved to ``out``/previous first.

    Checkpoints, from which a run goes on as if it had never stopped, are in ``out``/checkpoints:
    last.safetensors        written every ``checkpoint_minutes``, after each epoch, and at the end. If that took more
                            than 2% of the time, it is written more rarely. 0 writes it after every step regardless
    epoch_003.safetensors   the same after an epoch; the newest ``keep`` remain, with 0 all
    best.safetensors        the epoch after which ``metric(g)``, a number, was lowest (if you give one)

    resume: the Progress that :func:`nanogan.checkpoint.load_training` returned. log.csv is cut back to its step; what
    came later in ``out`` is removed. If it was loaded from another run's folder, that one stays as it is, and its log
    and samples are copied. On the CPU the result is the same to the bit as without the interruption.

    on_disk_full: "stop" raises OSError at the first file that cannot be written; "continue" trains on, says so, and
    tries again when the next file is due. Any other failure to write raises OSError.
    Raises TrainingDiverged if a loss or a parameter is not finite; the checkpoint of the last sample is kept.

    loss, label_smoothing: of :func:`nanogan.games.dcgan_step`.
    instance_noise: the standard deviation of noise on all pictures that D sees, at the start; it falls in a straight
    line to 0 at the run's end, after ``epochs``. Drawn from ``instance_rng``, a PCG64 of its own.
    ema: a :class:`nanogan.optim.Ema` of ``g``. Samples, generator.safetensors and ``metric`` are then of its average.
    lr_decay: "linear" lets both learning rates fall to 0 at the run's end (:class:`nanogan.optim.LinearDecay`). In a
    run that is resumed for longer, this and the noise follow the line to the new end.
    d_steps: updates of ``d`` for each of ``g``: each takes the next batch and a z of its own, and the last one's z is
    ``g``'s too. A step is an update of ``g``, so an epoch has as many fewer; if its batches leave a rest, its last step
    has fewer updates of ``d``. z_kind: what z is drawn from, "normal" for N(0, 1) or "uniform" for U(-1, 1).
    """
    if on_disk_full not in ("stop", "continue"):
        raise UserError(f'on_disk_full expected "stop" or "continue", got {on_disk_full!r}')
    checkpoint.rng_state(noise_rng)  # one that cannot be saved is told now
    _check_game(loss, label_smoothing, instance_noise, instance_rng, lr_decay, d_steps, z_kind)
    out, steps_per_epoch = Path(out), steps_in_epoch(loader, d_steps)
    total = total_steps(epochs, steps_per_epoch, max_steps)
    if resume is None:
        _set_aside(out)
        progress = checkpoint.Progress(0, 1, 0, steps_per_epoch, 0.0, noise_rng)
        rows, frames = [], []
    else:
        if resume.steps_per_epoch != steps_per_epoch:
            raise UserError(
                f"{resume.path} cannot be resumed with these batches: it had {resume.steps_per_epoch} in an epoch, "
                f"now there are {steps_per_epoch}; use the same pictures and batch size"
            )
        if resume.step >= total:
            if _same_folder(_folder_of(resume), out):  # it may have been killed before it drew these
                _clear_temporaries(out)
                frames = [path for step, path in _samples_in(out) if step <= resume.step]
                _draw(out, read_rows(out / "log.csv", resume.step, COLUMNS), frames)
            return True
        rows, frames = _take_up(out, resume)
        noise_rng.bit_generator.state = resume.noise_rng.bit_generator.state
        if resume.instance_rng is not None and instance_rng is not None:
            instance_rng.bit_generator.state = resume.instance_rng.bit_generator.state
        progress = replace(resume, noise_rng=noise_rng)
        if not (out / BEST).exists():
            progress.best = None
    progress.instance_rng, progress.ema = instance_rng, ema
    if options is not None:
        progress.options = options
        with replacing(out / "options.json") as temporary:
            temporary.write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")
    with replacing(out / "machine.json") as temporary:
        temporary.write_text(json.dumps(machine_of_a_run(device), indent=2) + "\n", encoding="utf-8")
    with replacing(out / "curves.json") as temporary:
        text = json.dumps({"curves": CURVES, "labels": LABELS}, indent=2)
        temporary.write_text(text + "\n", encoding="utf-8")

    first, start = progress.step, time.perf_counter() - progress.seconds
    read_every = 1 if get_device(device).kind == "cpu" else log_every  # reading makes a GPU wait
    log = Log(out / "log.csv", StepResult._fields, rows)
    writer = _Writer(out, progress, log, checkpoint_minutes, keep, on_disk_full)
    health, told, data = Health(log.columns), _read_warnings(out, first), None
    artist = g if ema is None else ema.average  # whose pictures are shown and saved
    game = {"loss": loss, "label_smoothing": label_smoothing}
    planned = epochs * steps_per_epoch
    totals = ((opt_g, planned), (opt_d, epochs * len(loader)))
    schedules = [LinearDecay(optimizer, total=total) for optimizer, total in totals if lr_decay == "linear"]

    def drawn_for(real):
        """Return a batch's z, and the noise on the real pictures and on as many drawn ones."""
        z = draw_z(noise_rng, len(real), g.latent, z_kind, device)
        sigma = instance_noise * max(0.0, 1 - progress.step / planned)
        shape = real.shape
        return z, [draw_noise(instance_rng, shape, sigma, device) if sigma else None for _ in ("real", "drawn")]

    networks_of = None  # the step that generator.safetensors and discriminator.safetensors are of

    with (
        _stop_between_steps() as stop,
        tqdm(total=total, initial=first, unit="step", dynamic_ncols=True, disable=None) as bar,
        np.errstate(over="ignore", invalid="ignore"),  # told once, as TrainingDiverged
    ):
        try:
            for epoch in range(progress.epoch, epochs + 1):
                progress.epoch = epoch
                start_at = min(progress.batch * d_steps, len(loader))
                for *earlier, real in _in_groups(loader.epoch(epoch, start=start_at), d_steps):
                    if progress.step == 0:
                        writer.write(out / "real.png", images.save_grid, out / "real.png", real[: len(fixed_z)])
                    data = real[: len(fixed_z)] if data is None else data
                    for batch in earlier:
                        z, noise = drawn_for(batch)
                        _apply(schedules)
                        discriminator_step(g, d, opt_d, batch, z, noise=noise, **game)
                    z, noise = drawn_for(real)
                    _apply(schedules)
                    result = adversarial_step(g, d, opt_g, opt_d, real, z, noise=noise, **game)
                    if ema is not None:
                        ema.update()
                    progress.step, progress.batch = step, batch = progress.step + 1, progress.batch + 1
                    progress.seconds = time.perf_counter() - start
                    log.add(epoch, step, result, progress.seconds)
                    bar.update()

                    ends = writer.last_chance = step == total or stop()
                    epoch_ends = batch == steps_per_epoch
                    samples_due = ends or epoch_ends or (sample_every and step % sample_every == 0)
                    save_due = ends or writer.checkpoint_is_due(epoch_ends)
                    if step % log_every == 0 or step % read_every == 0 or samples_due or save_due:
                        row = log.fetch()
                        writer.write(log.path, log.save)
                        bar.set_postfix(Loss_D=f"{row['loss_d']:.3f}", Loss_G=f"{row['loss_g']:.3f}", refresh=False)
                    if step % log_every == 0 or step == first + 1 or ends:
                        tqdm.write(_line(log.fetch(), epochs, steps_per_epoch))
                    if samples_due or save_due:
                        _check_finite(*{g, d, artist}, step=step)
                    if samples_due:
                        frame = out / "samples" / f"epoch_{epoch:03d}_step_{step:06d}.png"
                        drawn = sample(artist, fixed_z)
                        if writer.write(frame, images.save_grid, frame, drawn):
                            frames.append(frame)
                        for name, network in (("generator.safetensors", artist), ("discriminator.safetensors", d)):
                            if writer.write(out / name, checkpoint.save, out / name, network):
                                networks_of = step
                    if samples_due or step % log_every == 0:
                        new = health.check(log.rows, drawn if samples_due else None, data)
                        if new or told is None:
                            told = [*(told or []), *((step, message) for message in new)]
                            writer.write(out / "warnings.csv", _write_warnings, out, told)
                        for message in new:
                            tqdm.write(f"warning: {message}", file=sys.stderr)
                    names = [f"epoch_{epoch:03d}.safetensors"] if epoch_ends and save_due else []
                    if epoch_ends and metric is not None and _is_lowest(metric(artist), progress):
                        names.append(BEST.name)
                    if save_due or names:
                        writer.save_checkpoint([*names, LAST.name], g, d, opt_g, opt_d)
                    if ends:
                        _draw(out, log.rows, frames, writer.write)
                        return step == total
                progress.batch = 0
        except BaseException as error:
            with suppress(OSError):  # the first error is the one to tell
                log.save()
                _draw(out, log.rows, frames)
            if isinstance(error, TrainingDiverged):
                kept = f"the checkpoint of step {networks_of} is kept in {out}" if networks_of else writer.kept()
                raise TrainingDiverged(f"training stopped: {error}; {kept}") from None
            raise
        finally:
            log.close()


def _line(row, epochs, steps_per_epoch):
    """Return pytorch/examples' line for a row of the log, with "before" and "after" spelt out."""
    text = (
        f"Loss_D: {row['loss_d']:.4f}  Loss_G: {row['loss_g']:.4f}  D(x): {row['d_real']:.4f}  "
        f"D(G(z)): {row['d_fake_before']:.4f} before D's step, {row['d_fake_after']:.4f} after"
    )
    return log_line(row, epochs, steps_per_epoch, text)


def _check_game(loss, label_smoothing, instance_noise, instance_rng, lr_decay, d_steps, z_kind):
    """Raise UserError for values of :func:`train` that are none."""
    losses_of(loss, label_smoothing)
    draw_z(np.random.default_rng(0), 0, 0, z_kind)
    if not 0 <= instance_noise < float("inf"):
        raise UserError(f"instance_noise expected a standard deviation of at least 0, got {instance_noise!r}")
    if instance_noise and instance_rng is None:
        raise UserError("instance_noise expected instance_rng=numpy.random.default_rng(seed), to draw it")
    if instance_rng is not None:
        checkpoint.rng_state(instance_rng)
    if lr_decay not in ("none", "linear"):
        raise UserError(f'lr_decay expected "none" or "linear", got {lr_decay!r}')
    if not isinstance(d_steps, Integral) or d_steps < 1:
        raise UserError(f"d_steps expected a whole number of at least 1, got {d_steps!r}")


def _in_groups(batches, size):
    """Yield lists of the next ``size`` of ``batches``; the last one may be shorter."""
    while group := list(itertools.islice(batches, size)):
        yield group


def _apply(schedules):
    for schedule in schedules:
        schedule.step()


def steps_in_epoch(loader, d_steps=1):
    """The steps of an epoch, one for every ``d_steps`` batches or what is left of them."""
    return -(-len(loader) // d_steps)


def total_steps(epochs, steps_per_epoch, max_steps=None):
    """The steps of a whole run."""
    return min(epochs * steps_per_epoch, max_steps or epochs * steps_per_epoch)


class _Writer:
    """Writes a run's files: decides when a checkpoint is due, and what happens when one cannot be written."""

    def __init__(self, out, progress, log, minutes, keep, on_disk_full):
        self.out, self.progress, self.log = out, progress, log
        self.minutes, self.keep, self.on_disk_full = minutes, keep, on_disk_full
        self.last_chance = False  # what cannot be written now never will be
        self.saved_at = progress.step or None  # the step of the last checkpoint
        self.due, self.not_before = time.perf_counter() + 60 * minutes, 0.0
        self.failing = set()  # kinds of files that the disk had no room for

    def write(self, path, function, *arguments, **options):
        """Call a function that writes ``path``, and return whether it could; raise OSError if that ends the run."""
        kind = path if path.parent == self.out else path.parent
        try:
            function(*arguments, **options)
        except OSError as error:
            reason = error.strerror or error
            if error.errno not in DISK_FULL or self.on_disk_full == "stop" or self.last_chance:
                raise OSError(
                    f"{path} could not be written ({reason}): training stopped at step {self.progress.step}; "
                    f"{self.kept()}"
                ) from error
            if kind not in self.failing:
                message = f"{path} could not be written ({reason}): training goes on; make room on the disk"
                tqdm.write(message, file=sys.stderr)
            self.failing.add(kind)
            return False
        self.failing.discard(kind)
        return True

    def checkpoint_is_due(self, epoch_ends):
        """Whether a checkpoint is to be written after this step."""
        now = time.perf_counter()
        return now >= self.due or (epoch_ends and now >= self.not_before)

    def save_checkpoint(self, names, *networks_and_optimizers):
        """Write a checkpoint under the first of ``names``; the others are copies."""
        began, folder = time.perf_counter(), self.out / LAST.parent
        path = folder / names[0]
        if (
            self.write(self.log.path, self.log.save, durable=True)  # the log is never behind the checkpoint
            and self.write(path, checkpoint.save_training, path, *networks_and_optimizers, self.progress)
        ):
            self.saved_at = self.progress.step
            self.write(folder, _copy_as, path, names[1:])
            _prune(folder, self.keep)
        now = time.perf_counter()
        self.not_before = now + (now - began) / SAVING_SHARE if self.minutes else now
        self.due = max(now + 60 * self.minutes, self.not_before)

    def kept(self):
        """Say which checkpoint is there."""
        if not self.saved_at:
            return "no checkpoint was saved yet"
        return f"the checkpoint of step {self.saved_at}, {self.out / LAST}, is whole"


def _copy(path, name):
    """Copy a checkpoint; no link, because overwriting one name would change the other."""
    with replacing(name, durable=True) as temporary:
        shutil.copyfile(path, temporary)


def _copy_as(path, names):
    """Give a checkpoint other names too, the last of which is LAST's; if there is no room, that one alone."""
    try:
        for name in names:
            _copy(path, path.with_name(name))
    except OSError:
        path.replace(path.with_name(LAST.name))
        raise


def _is_lowest(value, progress):
    """Print a metric's value and note it in ``progress`` if it is the lowest so far."""
    value, lowest = float(value), progress.best
    tqdm.write(f"metric after epoch {progress.epoch}: {value:.6g}" + ("" if lowest is None else f", best {lowest:.6g}"))
    if not np.isfinite(value) or (lowest is not None and value >= lowest):
        return False
    progress.best = value
    return True


def _epochs_in(folder):
    """Return {number: path} of a folder's epoch_003.safetensors, ..."""
    found = {path: re.fullmatch(r"epoch_(\d{1,15})\.safetensors", path.name) for path in folder.glob("epoch_*")}
    return {int(match[1]): path for path, match in found.items() if match}


def _prune(folder, keep):
    """Remove all epochs' checkpoints but the newest ``keep``; 0 keeps all."""
    epochs = _epochs_in(folder)
    for number in sorted(epochs)[:-keep] if keep else []:
        epochs[number].unlink(missing_ok=True)


def _folder_of(resume):
    """The folder of the run that a checkpoint was loaded from; None if it is not in one."""
    return resume.path.parent.parent if resume.path and resume.path.parent.name == LAST.parent.name else None


def _same_folder(one, other):
    return one is not None and one.exists() and other.exists() and one.samefile(other)


def _take_up(out, resume):
    """Bring ``out`` to where it was at ``resume``'s step; return the log's rows and the sample pictures up to there."""
    source = _folder_of(resume)
    same = _same_folder(source, out)
    if _same_folder(source, out / "previous"):
        raise UserError(f"{out} cannot take up the run in {source}, whose place its own run needs: use another folder")
    if not same:
        _set_aside(out)
    if resume.path is not None and not ((out / LAST).exists() and resume.path.samefile(out / LAST)):
        _copy(resume.path, out / LAST)  # first of all: from here on the files belong to this checkpoint
    if same:
        _clear_temporaries(out)
        for step, path in _samples_in(out):
            if step > resume.step:
                path.unlink()
        for number, path in _epochs_in(out / LAST.parent).items():
            if number * resume.steps_per_epoch > resume.step:
                path.unlink()
        with suppress(UserError):  # a damaged one is none
            if checkpoint.read_training(out / BEST)[0].step > resume.step:
                (out / BEST).unlink()
    elif source is not None:
        (out / "samples").mkdir(parents=True, exist_ok=True)
        kept = [path for step, path in _samples_in(source) if step <= resume.step]
        for path in [*kept, *source.glob("real.png")]:
            shutil.copyfile(path, out / path.relative_to(source))
    rows = read_rows(source / "log.csv", resume.step, COLUMNS) if source is not None else []
    if len(rows) < resume.step:
        tqdm.write(f"the log up to step {resume.step} is not whole: log.csv starts with {len(rows)} rows of it")
    return rows, [path for _, path in _samples_in(out)]


def _samples_in(out):
    """Return [(step, path)] of the sample pictures that can be opened, in order."""
    found = []
    for path in (out / "samples").glob("epoch_*.png"):
        match = re.fullmatch(r"epoch_\d{1,15}_step_(\d{1,15})\.png", path.name)
        with suppress(OSError, SyntaxError):  # what Pillow raises for damaged files
            if match:
                with Image.open(path) as picture:
                    picture.verify()
                found.append((int(match[1]), path))
    return sorted(found)


def _products(out):
    """All files of a run that are in ``out``."""
    files = [path for pattern in (*PRODUCTS, *SERIES) for path in out.glob(pattern)]
    return [path for path in files if not path.name.startswith(".")]


def _clear_temporaries(out):
    for name in (*PRODUCTS, *SERIES):
        clear_temporaries(out / name)


def _check_finite(*networks, step):
    """Raise TrainingDiverged if a parameter or a running statistic is NaN or infinite."""
    for network in networks:
        for name, array in network.state_dict().items():
            if not bool(array_module(array).isfinite(array).all()):
                raise TrainingDiverged(f"after step {step} {name} was no longer finite; try a lower learning rate")


def _set_aside(out):
    """Move what an earlier run left in ``out`` to ``out``/previous, so that all files in ``out`` are of one run."""
    _clear_temporaries(out)
    earlier = _products(out)
    if not earlier:
        return
    previous = out / "previous"
    for path in _products(previous):
        path.unlink()
    for path in earlier:
        target = previous / path.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    tqdm.write(f"the earlier run in {out} is kept in {previous}")


def _read_warnings(out, step):
    """Return [(step, message)] of warnings.csv up to ``step``; None if there is none yet."""
    try:
        with open(out / "warnings.csv", newline="", encoding="utf-8") as file:
            return [(int(at), message) for at, message in list(csv.reader(file))[1:] if int(at) <= step]
    except (OSError, ValueError):
        return None


def _write_warnings(out, told):
    with replacing(out / "warnings.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("step", "message"), *told])


def _draw(out, rows, frames, write=lambda path, function, *arguments: function(*arguments)):
    """Write training.gif, losses.png and report.html from what there is."""
    frames = [frame for frame in frames if frame.exists()]
    if frames:
        write(out / "training.gif", images.save_gif, out / "training.gif", frames)
    if rows:
        write(out / "losses.png", plots.save_training_plot, out / "losses.png", columns(rows, COLUMNS), CURVES, LABELS)
        write(out / "report.html", write_report, out)


@contextmanager
def _stop_between_steps():
    """Yield a function that says whether Ctrl-C was pressed, or the process told to end: a step is finished first.

    A second Ctrl-C stops at once. Outside the main thread, where signals cannot be caught, it is always False.
    """
    asked = []

    def note(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        os.write(2, b"\nfinishing this step and saving; Ctrl-C again stops at once\n")  # print may not be called here

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
