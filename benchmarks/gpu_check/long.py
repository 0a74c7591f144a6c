"""Many steps in a row, replayed and eager: do losses agree, and does memory stay?"""

import time

import numpy as np

from benchmarks.gpu_check.compare import SIZES, Wrong
from benchmarks.gpu_check.played import needs_a_gpu, training_of
from nanogan import backend
from nanogan.backend import to_numpy
from nanogan.data import Loader, builtin_digits
from nanogan.games.dcgan import DCGAN
from nanogan.games.game import At
from nanogan.images import resize
from nanogan.training.graph import Graphed


@needs_a_gpu
def long(device, steps=1000):
    """A thousand steps, replayed and eager, from one state with the same batches; and the memory that they take."""
    curves = {}
    yield f"{steps} eager steps", lambda: (True, many_steps(device, steps, curves, "eager"))
    yield f"{steps} replays: finite, and memory does not grow", lambda: (
        True, many_steps(device, steps, curves, "graph")
    )  # fmt: skip
    yield "the first 10 steps' losses are the eager ones'", lambda: (True, curves_agree(curves))


def many_steps(device, steps, curves, how):
    """Train on digits as a run does, short batches included; keep the losses."""
    cupy, network = device.array_module, SIZES["MNIST default"]
    images = resize(builtin_digits(1000)[0], network["image_size"])
    options, shapes = training_of(network)
    game = DCGAN(DCGAN.Options.of(options), shapes, device, 0)
    notes, losses, memory, at, epoch = [], [], [], 0, 0
    play = Graphed(game, notes.append) if how == "graph" else lambda inputs: game.step(**inputs)
    loader, pool = Loader(images, batch_size=network["batch_size"], device=device), cupy.get_default_memory_pool()
    start = time.perf_counter()
    while at < steps:
        epoch += 1
        for got in loader.epoch(epoch):
            at += 1
            inputs = game.draw([got], backend.seeded_rng(0, f"step {at}"), At(at, 1, steps, steps))
            result = play(inputs)
            losses.append(cupy.stack([result.loss_d, result.loss_g]))
            if at in (min(100, steps // 2), steps):
                cupy.cuda.get_current_stream().synchronize()
                memory.append((pool.used_bytes() - 512 * len(losses), pool.total_bytes()))
            if at == steps:
                break
    seconds = time.perf_counter() - start
    curves[how] = to_numpy(cupy.stack(losses))
    (used, total), (used_later, total_later) = memory
    grown = (
        f"in use {used / 1e6:.1f} MB, then {used_later / 1e6:.1f}; held {total / 1e6:.1f}, then {total_later / 1e6:.1f}"
    )
    text = f"{seconds / steps * 1e3:.2f} ms a step, loader included; {grown}"
    if how == "graph":
        text += f"; recorded {sum('is one CUDA graph' in note for note in notes)} times"
        if play.recorder is None:
            raise Wrong(f"not recorded: {notes[-1]}")
    if not np.isfinite(curves[how]).all():
        raise Wrong(f"a loss is not finite, first in step {int(np.argmin(np.isfinite(curves[how]).all(axis=1))) + 1}")
    if used_later > used + 1e6 or total_later > 1.2 * total + 8e6:
        raise Wrong(f"memory grows: {text}")
    ends = curves[how][-100:].mean(axis=0)
    return f"{text}; the last 100 losses' means {ends[0]:.3f} and {ends[1]:.3f}"


def curves_agree(curves):
    if len(curves) < 2:
        raise Wrong("the eager or the replayed run is missing")
    eager, graphed = curves["eager"], curves["graph"]
    far = np.abs(graphed / eager - 1).max(axis=1)
    apart = np.flatnonzero(~(far <= 1e-3))
    text = (
        f"off by {far[:10].max():.1e} in the first 10; by 1e-3 first in step {apart[0] + 1 if len(apart) else 'none'}"
    )
    if not far[:10].max() <= 1e-3:
        raise Wrong(text)
    return text
