"""The recorded step: what may happen between replays, options, precisions, and every game."""

import functools

import numpy as np

from benchmarks.gpu_check.compare import SIZES, Wrong
from benchmarks.gpu_check.played import Played, alike, needs_a_gpu, played_dcgan
from benchmarks.timing import seconds
from nanogan.gradcheck.cases import GAMES
from nanogan.training.graph import why_not


@needs_a_gpu
def graph(device):
    """The DCGAN's recorded step in the sizes that are trained, and what may happen between replays."""
    for label in SIZES:
        played = functools.cache(functools.partial(played_dcgan, device, label))

        def same(played=played):
            return True, played().compare()

        def disturbed(played=played):
            return True, unharmed_by_others(played())

        def rates(played=played):
            return True, obeys_rates(played())

        def shorter(played=played):
            return True, survives_a_shorter_batch(played())

        def speed(played=played):
            return None, times_of(played())

        yield f"DCGAN {label}: a replay is the eager step", same
        yield f"DCGAN {label}: eager work between replays changes nothing", disturbed
        yield f"DCGAN {label}: a rate that changes between replays is obeyed", rates
        yield f"DCGAN {label}: a shorter batch between replays", shorter
        yield f"DCGAN {label}: time of a step", speed


def unharmed_by_others(played):
    """Compare a replay with one after other work has filled and freed much memory."""
    cupy = played.device.array_module
    played.needs_recording()
    start = played.state()
    expected = played.replayed(played.inputs)
    for megabytes in (1, 7, 64, 200):  # NaN would show in a replay that shared this memory
        held = [cupy.full(megabytes << 18, np.nan, np.float32) for _ in range(3)]
        held.append(held[0] * 2)
        del held
    second = played_dcgan(played.device, "MNIST default", steps=2)
    second.game.step(**second.inputs)
    del second
    cupy.get_default_memory_pool().free_all_blocks()
    cupy.full(64 << 18, np.nan, np.float32)
    played.restore(start)
    got = played.replayed(played.inputs)
    return alike(got, expected)


def obeys_rates(played):
    """Replay with learning rates that are not the recorded ones, and with rates of 0."""
    played.needs_recording()
    start = played.state()
    answers = []
    for factor in (10.0, 0.0):
        inputs = played.inputs | {name: factor * played.inputs[name] for name in ("lr", "d_lr")}
        answers.append(f"times {factor:g}: {played.compare(inputs) if factor else 'parameters stay'}")
        if not factor:
            played.restore(start)
            played.replayed(inputs)
            parameters = [p.copy() for n in played.game.networks().values() for _, p, _ in n.named_parameters()]
            played.restore(start)
            now = [p for n in played.game.networks().values() for _, p, _ in n.named_parameters()]
            if not all(bool((a == b).all()) for a, b in zip(parameters, now, strict=True)):
                raise Wrong("parameters changed in a replay with a rate of 0")
        played.restore(start)
    return "; ".join(answers)


def survives_a_shorter_batch(played):
    """Play a shorter batch, without the recording, which serves the next full one."""
    short = played.drawn(6, batch=max(2, played.batch // 3))
    played.play(short)
    return played.compare()


def times_of(played):
    """Return the milliseconds of a step, eager and replayed."""
    cupy, inputs = played.device.array_module, played.inputs
    played.needs_recording()

    def milliseconds(function, calls):
        for _ in range(3):
            function()
        return 1e3 * seconds(function, calls, cupy.cuda.get_current_stream().synchronize)

    eager = milliseconds(lambda: played.game.step(**played.play.inputs.arguments), 50)
    alone = milliseconds(played.play.recorder.replay, 200)
    replayed = milliseconds(lambda: played.play(inputs), 200)
    return f"eager {eager:.3f} ms, replayed {replayed:.3f} ms, the graph alone {alone:.3f} ms"


@needs_a_gpu
def variants(device):
    """Options that change what a step does, and every precision of products."""
    cases = {
        "tf32": ({}, "tf32"),
        "bf16": ({}, "bf16"),
        "fp16 with loss scaling": ({}, "fp16"),
        "average of weights, falling rates": ({"ema": 0.99, "lr_decay": "linear"}, "float32"),
        "three updates of D": ({"d_steps": 3}, "float32"),
        "hinge, instance noise": ({"loss": "hinge", "instance_noise": 0.2}, "float32"),
        "label smoothing, lsgan": ({"loss": "lsgan", "label_smoothing": 0.1}, "float32"),
    }
    for label, (options, precision) in cases.items():

        def same(options=options, precision=precision):
            steps = 30 if precision == "fp16" else 5  # until the scale has fallen to one that overflows nothing
            return True, played_dcgan(device, "MNIST default", options, precision, steps).compare()

        yield f"DCGAN MNIST default, {label}: a replay is the eager step", same

    def decaying():
        """Falling rates over a few steps, replayed and eager."""
        played = played_dcgan(device, "MNIST default", {"lr_decay": "linear"})
        played.needs_recording()
        start, inputs = played.state(), [played.drawn(step) for step in (40, 70, 99)]
        got = [played.replayed(each) for each in inputs][-1]
        played.restore(start)
        expected = [played.eager(each) for each in inputs][-1]
        return True, alike(got, expected)

    yield "DCGAN MNIST default: rates that fall over three replays", decaying


@needs_a_gpu
def games(device):
    """Every game's recorded step. One that is not recorded says why."""
    for name, (cls, options, shapes) in GAMES.items():

        def same(cls=cls, options=options, shapes=shapes):
            played = Played(cls, options, shapes, device)
            problem = why_not(played.game, played.inputs)
            if problem and not played.is_recorded:
                return None, f"not recorded: {problem}"
            return True, played.compare()

        yield f"{name}: a replay is the eager step", same
