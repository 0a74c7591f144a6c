"""The loop round the step: progress, log, pictures, checkpoints."""

import json
import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nanogan import checkpoint, images, plot
from nanogan.backend import array_module, get_device, to_device
from nanogan.errors import TrainingDiverged
from nanogan.files import replacing
from nanogan.training.adversarial import adversarial_step, sample
from nanogan.training.log import Log, log_line

PRODUCTS = (
    "options.json",
    "real.png",
    "log.csv",
    "losses.png",
    "training.gif",
    "generator.safetensors",
    "discriminator.safetensors",
)


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
):
    """Train generator ``g`` against discriminator ``d`` for ``epochs`` rounds of ``loader``; return True if completed.

    noise_rng: the numpy.random.Generator of each step's z ~ N(0, 1). fixed_z (N, latent): the noise of the sample
    pictures, drawn after every epoch and every ``sample_every`` steps. ``log_every`` steps a line is printed.
    ``max_steps`` ends the run early. ``options`` (a dictionary) is written to options.json. After Ctrl-C the step is
    finished, everything is saved, and False is returned.

    Below ``out``: real.png, samples/*.png, log.csv, losses.png, training.gif, generator.safetensors and
    discriminator.safetensors. Those of an earlier run are moved to ``out``/previous first.

    Raises TrainingDiverged if a loss or a parameter is not finite; the checkpoint of the last sample is kept.
    """
    out = Path(out)
    _set_aside(out)
    if options is not None:
        with replacing(out / "options.json") as temporary:
            temporary.write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")
    steps_per_epoch = len(loader)
    total = min(epochs * steps_per_epoch, max_steps or epochs * steps_per_epoch)
    read_every = 1 if get_device(device).kind == "cpu" else log_every  # reading makes a GPU wait
    log, frames, saved_at, step = Log(out / "log.csv"), [], None, 0
    start = time.perf_counter()

    with (
        _stop_between_steps() as stop,
        tqdm(total=total, unit="step", dynamic_ncols=True, disable=None) as bar,
        np.errstate(over="ignore", invalid="ignore"),  # told once, as TrainingDiverged
    ):
        try:
            for epoch in range(1, epochs + 1):
                for real in loader.epoch(epoch):
                    if step == 0:
                        images.save_grid(out / "real.png", real[: len(fixed_z)])
                    z = to_device(noise_rng.standard_normal((len(real), g.latent), dtype=np.float32), device)
                    result = adversarial_step(g, d, opt_g, opt_d, real, z)
                    step += 1
                    log.add(epoch, step, result, time.perf_counter() - start)
                    bar.update()

                    ends = step == total or stop()
                    samples_due = ends or step % steps_per_epoch == 0 or (sample_every and step % sample_every == 0)
                    if step % log_every == 0 or step % read_every == 0 or samples_due:
                        row = log.flush()
                        bar.set_postfix(Loss_D=f"{row['loss_d']:.3f}", Loss_G=f"{row['loss_g']:.3f}", refresh=False)
                    if step % log_every == 0 or step == 1 or ends:
                        tqdm.write(log_line(log.flush(), epochs, steps_per_epoch))
                    if samples_due:
                        _check_finite(g, d, step=step)
                        frame = out / "samples" / f"epoch_{epoch:03d}_step_{step:06d}.png"
                        images.save_grid(frame, sample(g, fixed_z))
                        frames.append(frame)
                        checkpoint.save(out / "generator.safetensors", g)
                        checkpoint.save(out / "discriminator.safetensors", d)
                        saved_at = step
                    if ends:
                        _draw(out, log, frames)
                        return step == total
        except BaseException as error:
            with suppress(OSError):  # the first error is the one to tell
                _draw(out, log, frames)
            if isinstance(error, TrainingDiverged):
                kept = (
                    f"the checkpoint of step {saved_at} is kept in {out}" if saved_at else "no checkpoint was saved yet"
                )
                raise TrainingDiverged(f"training stopped: {error}; {kept}") from None
            raise
        finally:
            log.close()


def _check_finite(*networks, step):
    """Raise TrainingDiverged if a parameter or a running statistic is NaN or infinite."""
    for network in networks:
        for name, array in network.state_dict().items():
            if not bool(array_module(array).isfinite(array).all()):
                raise TrainingDiverged(f"after step {step} {name} was no longer finite; try a lower learning rate")


def _set_aside(out):
    """Move what an earlier run left in ``out`` to ``out``/previous, so that all files in ``out`` are of one run."""
    earlier = [path for path in [*(out / "samples").glob("*.png"), *(out / name for name in PRODUCTS)] if path.exists()]
    if not earlier:
        return
    previous = out / "previous"
    for path in [*(previous / "samples").glob("*.png"), *(previous / name for name in PRODUCTS)]:
        path.unlink(missing_ok=True)
    (previous / "samples").mkdir(parents=True, exist_ok=True)
    for path in earlier:
        path.replace(previous / path.relative_to(out))
    tqdm.write(f"the earlier run in {out} is kept in {previous}")


def _draw(out, log, frames):
    """Write training.gif and losses.png from what there is."""
    if frames:
        images.save_gif(out / "training.gif", frames)
    if log.rows:
        plot.save_training_plot(out / "losses.png", log.columns())


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
