"""Every registered fast path against the operation that it stands for."""

import functools

import numpy as np

from benchmarks.gpu_check.compare import EXACT, Worst, allowed, error, on_a_cpu, precisions, products_in
from nanogan import dispatch, ops
from nanogan.backend import channels_last, to_device
from nanogan.gradcheck.cases import OPERATIONS, UPDATES
from nanogan.ops.batchnorm import example as batchnorm
from nanogan.ops.examples import Draw, Example, UpdateExample, normal
from nanogan.ops.updates import move_average


def shifted(example, mean):
    """The example with ``mean`` added to its x."""
    x = example.draws["x"]
    example.draws["x"] = Draw(x.shape, lambda rng, shape: mean + x.values(rng, shape), x.gradient)
    return example


MORE = [  # those of a DCGAN; narrow and odd ones; a mean far above the spread
    Example(ops.conv2d_forward, x=normal(16, 3, 64, 64), w=normal(64, 3, 4, 4), stride=2, padding=1),
    Example(ops.conv2d_forward, x=normal(16, 64, 32, 32), w=normal(128, 64, 4, 4), b=normal(128), stride=2, padding=1),
    Example(ops.conv2d_forward, x=normal(64, 512, 4, 4), w=normal(1, 512, 4, 4)),
    Example(ops.conv2d_forward, x=normal(4, 130, 7, 7), w=normal(66, 130, 3, 3), padding=1),
    Example(ops.conv_transpose2d_forward, x=normal(64, 100, 1, 1), w=normal(100, 512, 4, 4)),
    Example(
        ops.conv_transpose2d_forward, x=normal(16, 128, 8, 8), w=normal(128, 64, 4, 4), b=normal(64), stride=2,
        padding=1,
    ),
    Example(ops.conv_transpose2d_forward, x=normal(8, 64, 32, 32), w=normal(64, 3, 4, 4), stride=2, padding=1),
    Example(ops.linear_forward, x=normal(128, 1024), w=normal(256, 1024), b=normal(256)),
    batchnorm(16, 64, 32, 32, train=True),
    batchnorm(64, 512, 4, 4, train=True),
    batchnorm(16, 130, 7, 7, train=True),
    batchnorm(64, 1024, train=True),
    shifted(batchnorm(16, 64, 16, 16, train=True), 1e4),
    shifted(batchnorm(8, 3, 16, 16, train=True), 1e4),
    Example(ops.relu_forward, x=normal(16, 64, 32, 32)),
    Example(ops.leaky_relu_forward, x=normal(16, 64, 32, 32), negative_slope=0.2),
    Example(ops.tanh_forward, x=normal(16, 3, 64, 64)),
    Example(ops.sigmoid_forward, x=normal(16, 3, 64, 64, scale=10)),
    Example(ops.bce_with_logits_forward, logits=normal(128, 1, scale=30), target=1.0),
    Example(ops.bce_with_logits_forward, logits=normal(5000, 1, scale=5), target=0.0),
    Example(ops.mse_forward, x=normal(128, 1), target=1.0),
    Example(ops.mse_forward, x=normal(300, 1), target=0.0, reduction="sum"),
]  # fmt: skip


def operations(device):
    """Ask for each operation in each dtype, for each update rule, and what was left out."""
    dispatch.load(device.kind)
    tried = set()
    examples = {}
    for example in [*OPERATIONS, *MORE]:
        if (device.kind, example.forward) in dispatch._paths:
            examples.setdefault(example.forward, []).append(example)
    for forward, group in examples.items():
        tried.add(forward)
        multiplies = forward in (ops.conv2d_forward, ops.conv_transpose2d_forward, ops.linear_forward)
        for dtype in ("float64", "float32"):
            yield f"{forward.__name__}, {dtype}", functools.partial(by_paths, device, group, dtype, "float32")
        for precision in precisions(device)[1:] if multiplies else ():
            label = f"{forward.__name__}, {precision}"
            yield label, functools.partial(by_paths, device, group, "float32", precision)
    for update in {example.update: None for example in UPDATES}:
        if (device.kind, update) in dispatch._paths:
            tried.add(update)
            rules = [example for example in UPDATES if example.update is update]
            yield f"{update.__name__}, float32", functools.partial(by_updates, device, rules)
    if (device.kind, ops.adam_update) in dispatch._paths and device.kind == "gpu":
        yield "adam_update, its step on the GPU", functools.partial(by_clock, device)
    if (device.kind, move_average) in dispatch._paths:
        tried.add(move_average)
        yield "move_average, float32", functools.partial(by_average, device)
    others = ("batchnorm and relu", "batchnorm and leaky_relu", "discriminate")  # the next group's, and the CPU's
    left = {
        dispatch._operation_name(function) for kind, function in dispatch._paths
        if kind == device.kind and function not in tried
    }  # fmt: skip
    left -= set(others)
    yield "fast paths that no question tries", lambda: (not left, ", ".join(sorted(left)) or "none")


def by_paths(device, examples, dtype, precision):
    """The fast paths that serve the examples, forward and backward, in ``dtype``."""
    worst, served = Worst(), 0
    for example in examples:
        given = example.draw(np.random.default_rng(3))
        given = {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in given.items()}
        rng = np.random.default_rng(4)
        for path in dispatch._paths[device.kind, example.forward]:
            if path.precisions is not None and precision not in path.precisions:
                continue
            inputs = {name: to_device(channels_last(a), device).copy() for name, a in given.items()}
            if not path.serves(*(split := example.split(inputs))[0].values(), **split[1]):
                continue
            served += 1
            exact = calls(example.pair, example, _as(given, np.float64), rng)
            with products_in(on_a_cpu(precision)):
                usual = calls(example.pair, example, _as(given, dtype), exact["dy"])
            with products_in(precision):
                got = calls(
                    (path.forward, path.backward), example, inputs, to_device(exact["dy"].astype(dtype), device)
                )
            for name, expected in exact.items():
                if name != "dy":
                    tolerance = allowed(error(usual[name], expected), dtype, precision)
                    worst.add(f"{name} of {example}", error(got[name], expected), tolerance)
    if not served:
        return None, f"no fast path serves any of {len(examples)} examples"
    return True, worst.answer()


def calls(pair, example, inputs, dy):
    """Return {name: array} of all that a forward and its backward return or change. dy: an array, or what draws it."""
    inputs = {name: a.copy() for name, a in inputs.items()}
    positional, named = example.split(inputs)
    forward, backward = pair
    y, cache = forward(*positional.values(), **named)
    if isinstance(dy, np.random.Generator):
        dy = channels_last(np.asarray(dy.standard_normal(y.shape)))
    gradients = backward(dy.astype(y.dtype), cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    result = {"y": y, "dy": dy}
    result |= {f"d{n}": g for n, g in zip(example.differentiable, gradients, strict=False) if n and g is not None}
    return result | {name: a for name, a in inputs.items() if name.startswith("running")}


def _as(given, dtype):
    return {name: channels_last(a.astype(dtype) if a.dtype.kind == "f" else a) for name, a in given.items()}


def by_updates(device, examples):
    """Three steps of each rule of an optimiser, by its fast path."""
    worst, rng = Worst(), np.random.default_rng(5)
    for example in examples:
        start = rng.standard_normal((300, 7))
        gradients = [rng.standard_normal((300, 7)) for _ in range(3)]
        (path,) = dispatch._paths[device.kind, example.update]
        exact, got = start.copy(), to_device(start.astype(np.float32), device).copy()
        example.run(exact, gradients)
        fast = UpdateExample(path.forward, torch=example.torch, **example.options)
        fast.run(got, [to_device(g.astype(np.float32), device) for g in gradients])
        worst.add(str(example), error(got, exact), EXACT["float32"])
    return True, worst.answer()


def by_clock(device):
    """Adam with the number of its step, and its rate, on the GPU."""
    xp, worst, rng = device.array_module, Worst(), np.random.default_rng(6)
    (path,) = dispatch._paths[device.kind, ops.adam_update]
    for step in (1, 2, 1000, 100_000):
        arrays = [rng.standard_normal((64, 5)) for _ in range(3)] + [rng.uniform(0.1, 1, (64, 5))]
        there = [to_device(a.astype(np.float32), device).copy() for a in arrays]
        options = {"lr": 0.01, "betas": (0.5, 0.999)}
        ops.adam_update(*arrays, step=step, **options)
        options["lr"] = xp.full((), 0.01, np.float32)
        path.forward(*there, step=xp.full((), step, np.float64), **options)
        for name, a, b in zip(("parameter", "", "m", "v"), there, arrays, strict=True):
            worst.add(f"{name} in step {step}", error(a, b), EXACT["float32"])
    return True, worst.answer()


def by_average(device):
    rng = np.random.default_rng(7)
    average, newest = rng.standard_normal((2, 50, 3))
    there = to_device(average.astype(np.float32), device).copy()
    (path,) = dispatch._paths[device.kind, move_average]
    path.forward(there, to_device(newest.astype(np.float32), device), beta=0.9)
    move_average(average, newest, beta=0.9)
    worst = Worst()
    worst.add("the average", error(there, average), EXACT["float32"])
    return True, worst.answer()
