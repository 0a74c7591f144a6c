"""Is what a GPU computes right? Each question is a line: the answer, and whether it is the right one.

    python -m benchmarks.gpu_check --device gpu --out FILE.md             two minutes
    python -m benchmarks.gpu_check --device cpu                           the questions that a CPU can be asked

Fast paths, layers and networks are compared with the readable operations in float64 on the CPU, on the same inputs. An
error is ||got - expected|| / ||expected||, and right if it is small, or not much larger than that of the readable
operations in the same precision. A recorded step is compared with the same step launched kernel by kernel.

Questions are asked in groups, each in its own process: an error that leaves the GPU unusable ends one process, a new
one goes on with the next question. The file is written after every answer.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from nanogan import backend, cli, dispatch, layers, ops
from nanogan.backend import channels_last, cublas, to_device, to_numpy
from nanogan.cli import at_least
from nanogan.data import Loader, builtin_digits
from nanogan.errors import UserError
from nanogan.games.dcgan import DCGAN
from nanogan.games.game import At
from nanogan.gradcheck.cases import GAMES, LAYERS, OPERATIONS, UPDATES
from nanogan.gradcheck.games import random_batches
from nanogan.images import resize
from nanogan.info.machine import machine_of_a_run, report
from nanogan.models import dcgan
from nanogan.ops.batchnorm import example as batchnorm
from nanogan.ops.examples import Draw, Example, UpdateExample, normal
from nanogan.ops.updates import move_average
from nanogan.training.graph import Graphed, why_not

ROOT = Path(__file__).parents[1]
EXACT = {"float32": 1e-5, "float64": 1e-11}  # an error that is right whatever the readable operations' own
TF32, SIXTEEN_BITS = 3e-3, 1e-4  # the same for TF32, and for sums of 16-bit products in float32
WORSE = 5  # times the readable operations' own error is still right
RECORDED = 1e-5  # the largest difference of an array between a replay and the same step launched kernel by kernel
LOST = 3  # exit status of a process that can no longer use the GPU
SIZES = {"MNIST default": (28, 1, 32, 32), "64x64": (64, 3, 64, 64)}  # image size, channels, width, batch


class Wrong(Exception):
    """An answer, the exception's text, that is not the right one."""


# ------------------------------------------------------------------------------------------------- what is compared


def error(got, expected):
    """||got - expected|| / ||expected||; NaN stays NaN, and is no right answer."""
    got, expected = (np.asarray(to_numpy(np.asarray(a) if np.isscalar(a) else a), np.float64) for a in (got, expected))
    if got.shape != expected.shape:
        raise Wrong(f"shape {got.shape} instead of {expected.shape}")
    size = np.linalg.norm(expected.ravel())
    return float(np.linalg.norm((got - expected).ravel()) / (size or 1))


class Worst:
    """The worst of several errors, each compared with a tolerance."""

    def __init__(self):
        self.count, self.share, self.text = 0, -1.0, "nothing was compared"

    def add(self, what, got, tolerance):
        """Note the error ``got``; it is right up to ``tolerance``."""
        self.count += 1
        share = got / tolerance if np.isfinite(got) else np.inf
        if share > self.share:
            self.share, self.text = share, f"{got:.1e} ({what}; right up to {tolerance:.1e})"

    def answer(self):
        """The answer's text. Raises Wrong if an error is too large, or there is none."""
        text = f"{self.count} compared, worst {self.text}"
        if not self.count or not self.share <= 1:
            raise Wrong(text)
        return text


@contextlib.contextmanager
def readable():
    """The readable operations alone, in this block."""
    before, dispatch.FAST = dispatch.FAST, False
    try:
        yield
    finally:
        dispatch.FAST = before


@contextlib.contextmanager
def products_in(precision):
    """Matrix products in ``precision``, in this block."""
    backend.set_matmul_precision(precision)
    try:
        yield
    finally:
        backend.set_matmul_precision("float32")


def allowed(usual, dtype, precision):
    """The largest error that is right where the readable operations' own is ``usual``."""
    if precision == "tf32":  # a GPU may cut bits off where the emulation rounds
        return max(TF32, 2 * WORSE * usual)
    return max(EXACT[dtype], WORSE * usual)


def precisions(device):
    return [p for p in backend.PRECISIONS if device.kind == "gpu" or p != "tf32"]


def on_a_cpu(precision):
    """The precision that rounds like ``precision`` where it is emulated: fp16 has as many fraction bits as TF32."""
    return "fp16" if precision == "tf32" else precision


# --------------------------------------------------------------------------------------------- ceilings, products


def ceilings(device):
    """How fast memory, products and launches are; nothing to be wrong about."""
    if device.kind == "cpu":
        yield "ceilings", lambda: (None, "not asked of a CPU: benchmarks.step measures them")
        return
    cupy = device.array_module

    def seconds(function, calls, rounds=3):
        function()
        found = []
        for _ in range(rounds):
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record()
            for _ in range(calls):
                function()
            end.record()
            end.synchronize()
            found.append(cupy.cuda.get_elapsed_time(start, end) / 1e3 / calls)
        return max(sorted(found)[rounds // 2], 1e-12)

    def copied():
        size = min(1 << 30, cupy.cuda.runtime.memGetInfo()[0] // 8)
        source, target = cupy.ones(size, np.uint8), cupy.empty(size, np.uint8)
        return None, f"{2 * size / seconds(lambda: cupy.copyto(target, source), 5) / 1e12:.2f} TB/s, read and written"

    @functools.cache
    def matrices():
        rng, M = np.random.default_rng(0), 8192
        return *(to_device(rng.standard_normal((M, M), dtype=np.float32), device) for _ in range(2)), cupy.empty((M, M))

    def multiplied(dtype, tf32=False):
        a, b, _ = matrices()
        a, b = (x.astype(dtype) for x in (a, b))
        out = cupy.empty(a.shape, np.float32)
        took = seconds(lambda: cublas.product(a, b, out=out, tf32=tf32), 3)
        return None, f"{2 * len(a) ** 3 / took / 1e12:.0f} TFLOP/s, 8192 x 8192 matrices"

    def host(function, calls=2000):
        function()
        cupy.cuda.get_current_stream().synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return None, f"{(time.perf_counter() - start) / calls * 1e6:.1f} microseconds of the host"

    def small(*shape):
        return cupy.ones(shape, np.float32)

    def launch():
        x, y = small(64, 64), small(64, 64)
        return host(lambda: cupy.add(x, y, out=y))

    def product():
        a, b, out = small(64, 64), small(64, 64), small(64, 64)
        return host(lambda: cublas.product(a, b, out=out))

    yield "copy within the GPU", copied
    yield "cuBLAS, float32", lambda: multiplied(np.float32)
    yield "cuBLAS, tf32", lambda: multiplied(np.float32, True)
    yield "cuBLAS, bf16 to float32", lambda: multiplied(backend.precision._bfloat16())
    yield "cuBLAS, fp16 to float32", lambda: multiplied(np.float16)
    yield "a kernel's launch through CuPy", launch
    yield "a product's call through ctypes", product


PRODUCTS = [(1, 1, 1), (3, 5, 7), (64, 48, 80), (1, 100, 512), (512, 1, 3), (4096, 1024, 129), (100, 2048, 64)]


def products(device):
    """Matrix products, against float64: each precision, transposed factors, adding to what is there."""
    if device.kind == "gpu":
        yield "cuBLAS is called directly", lambda: (cublas.available(device.array_module), "by ctypes")
        for dtype in ("float64", "float32", "float16", "bfloat16"):
            yield f"cuBLAS, {dtype}", functools.partial(direct_products, device, dtype)
        yield "cuBLAS, tf32", functools.partial(direct_products, device, "float32", tf32=True)
    for precision in precisions(device):
        yield f"product and add_product, {precision}", functools.partial(products_of_nanogan, device, precision)


def direct_products(device, dtype, tf32=False):
    xp, worst, rng = device.array_module, Worst(), np.random.default_rng(1)
    kind = backend.precision._bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    out_type = np.float64 if dtype == "float64" else np.float32
    tolerance = TF32 if tf32 else SIXTEEN_BITS if kind.itemsize == 2 else EXACT[np.dtype(out_type).name]
    for M, K, N in PRODUCTS:
        for transposed in ((False, False), (True, False), (False, True), (True, True)):
            factors, exact = [], []
            for shape, swap in zip(((M, K), (K, N)), transposed, strict=True):
                x = to_device(rng.standard_normal(shape[::-1] if swap else shape), device).astype(kind)
                factors.append(x.T if swap else x)
                exact.append(to_numpy(factors[-1].astype(np.float64)))
            expected = exact[0] @ exact[1]
            out = xp.full((M, N), np.nan, out_type)
            cublas.product(*factors, out=out, tf32=tf32)
            worst.add(f"{M} x {K} x {N}, transposed: {transposed}", error(out, expected), tolerance)
            before = rng.standard_normal((M, N)).astype(out_type)
            out = to_device(before, device).copy()
            cublas.product(*factors, out=out, add=True, tf32=tf32)
            worst.add(f"{M} x {K} x {N}, added", error(out, before + expected), tolerance)
    wide = to_device(rng.standard_normal((40, 64)), device).astype(kind)
    rows = wide[:, 8:40]  # with gaps between the rows
    exact = to_numpy(rows.astype(np.float64))
    out = xp.full((40, 40), np.nan, out_type)
    worst.add("rows with gaps", error(cublas.product(rows, rows.T, out=out, tf32=tf32), exact @ exact.T), tolerance)
    return True, worst.answer()


def products_of_nanogan(device, precision):
    worst, rng = Worst(), np.random.default_rng(2)
    for M, K, N in PRODUCTS:
        a, b, before = (rng.standard_normal(s, dtype=np.float32) for s in ((M, K), (K, N), (M, N)))
        exact = a.astype(np.float64) @ b
        with products_in(on_a_cpu(precision)), readable():
            tolerance = allowed(error(backend.product(a, b), exact), "float32", precision)
        with products_in(precision):
            there = [to_device(x, device) for x in (a, b)]
            out = to_device(before.copy(), device)
            worst.add(f"{M} x {K} x {N}", error(backend.product(*there), exact), tolerance)
            backend.precision.add_product(out, *there)
            worst.add(f"{M} x {K} x {N}, added", error(out, before + exact), tolerance)
    return True, worst.answer()


# ------------------------------------------------------------------------------------------- fast paths, by operation


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
    """Every registered fast path against the operation that it stands for."""
    dispatch.load(device.kind)
    tried = set()
    examples = {}
    for example in [*OPERATIONS, *MORE]:
        if (device.kind, example.forward) in dispatch._paths:
            examples.setdefault(example.forward, []).append(example)
    for forward, found in examples.items():
        tried.add(forward)
        multiplies = forward in (ops.conv2d_forward, ops.conv_transpose2d_forward, ops.linear_forward)
        for dtype in ("float64", "float32"):
            yield f"{forward.__name__}, {dtype}", functools.partial(by_paths, device, found, dtype, "float32")
        for precision in precisions(device)[1:] if multiplies else ():
            label = f"{forward.__name__}, {precision}"
            yield label, functools.partial(by_paths, device, found, "float32", precision)
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
    pairs = ("batchnorm and relu", "batchnorm and leaky_relu")  # the next group's
    left = {
        dispatch._operation_name(function) for kind, function in dispatch._paths
        if kind == device.kind and function not in tried
    }  # fmt: skip
    left -= set(pairs)
    yield "fast paths that no question tries", lambda: (not left, ", ".join(sorted(left)) or "none")


def by_paths(device, examples, dtype, precision):
    """The fast paths that serve some examples, forward and backward, in one dtype."""
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
        return None, f"no fast path serves one of {len(examples)} examples"
    return True, worst.answer()


def calls(pair, example, inputs, dy):
    """Return {name: array} of all that a forward and its backward return or change; ``dy`` or who draws it."""
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


# ------------------------------------------------------------------------------------------------- layers, networks


def all_layers(device):
    """Every layer's example, and BatchNorm with what follows it."""
    for name, (make, draw) in LAYERS.items():
        if any(hasattr(layer, "rng") for _, layer in make().named_layers()):
            continue  # it draws other numbers for other dtypes
        yield f"layer {name}, float32", functools.partial(compared, device, [(name, make, draw)])
    for activation in (layers.ReLU, layers.LeakyReLU):
        for dtype in ("float64", "float32"):
            for mean in (0, 1e4):
                label = f"BatchNorm and {activation.__name__}, {dtype}, mean {mean:g}"
                yield label, functools.partial(compared, device, list(pairs(activation, mean)), dtype=dtype)


def pairs(activation, mean):
    """BatchNorm, then an activation, in several sizes: (name, a function that makes it, its input)."""
    options = {"negative_slope": 0.2} if activation is layers.LeakyReLU else {}
    shapes = (4, 3, 5, 5), (16, 64, 32, 32), (64, 512, 4, 4), (8, 130, 7, 7), (64, 33), (32, 128, 7, 7)
    for shape in shapes:
        kind = layers.BatchNorm2d if len(shape) == 4 else layers.BatchNorm1d

        def make(kind=kind, C=shape[1]):
            network = layers.Sequential(kind(C), activation(**options))
            rng = np.random.default_rng(8)
            for _, parameter, _ in network.named_parameters():
                parameter[...] = rng.standard_normal(parameter.shape)
            return network

        def values(rng, shape):
            return mean + rng.standard_normal(shape)

        yield str(shape), make, Draw(shape, values)


def compared(device, cases, dtype="float32", precision="float32"):
    """Forward and backward of layers, with gradients that are added to what is there, by whatever path serves."""
    worst, ran = Worst(), set()
    for name, make, draw in cases:
        x = draw(np.random.default_rng(9))
        x = x.astype(dtype) if x.dtype.kind == "f" else x
        exact = through(make(), x, np.float64, "cpu")
        with products_in(on_a_cpu(precision)):
            usual = through(make(), x, np.dtype(dtype), "cpu", exact["dy"])
        with products_in(precision), dispatch.watch() as paths:
            got = through(make(), x, np.dtype(dtype), device, exact["dy"], fast=True)
        ran |= {path.rpartition(".")[2] for path in paths if path.startswith("nanogan.fast")}
        for key, expected in exact.items():
            if key != "dy":
                tolerance = allowed(error(usual[key], expected), dtype, precision)
                worst.add(f"{key} of {name}", error(got[key], expected), tolerance)
    return True, f"{worst.answer()}; fast paths: {', '.join(sorted(ran)) or 'none'}"


def through(network, x, dtype, device, dy=None, fast=False):
    """Return {name: array} of y, dx, gradients and state after a forward and two backwards."""
    network = network.astype(dtype).to(device)
    x = to_device(channels_last(x.astype(dtype) if x.dtype.kind == "f" else x), device)
    for _, _, gradient in network.named_parameters():
        gradient[...] = 0.5
    with contextlib.nullcontext() if fast else readable():
        y, cache = network.forward(x, train=True)
        if dy is None:
            dy = channels_last(np.random.default_rng(10).standard_normal(y.shape))
        for _ in range(2):
            dx = network.backward(to_device(dy.astype(dtype), device), cache)
    found = {"y": y, "dy": dy} | ({} if dx is None else {"dx": dx})
    found |= {f"d {name}": gradient for name, _, gradient in network.named_parameters()}
    return found | {name: a for name, a in network.state_dict().items() if name.rpartition(".")[2].startswith("run")}


def networks(device):
    """The DCGAN's two networks in the sizes that are trained, in every precision of products."""
    for label, (size, channels, width, N) in SIZES.items():
        for letter, make, shape in (
            ("G", dcgan.generator, (N, 100)), ("D", dcgan.discriminator, (N, channels, size, size)),
        ):  # fmt: skip
            if device.kind == "cpu" and label != "MNIST default":
                continue  # the book's float64 takes a minute of a laptop
            shape = (max(2, N // 4), *shape[1:])

            def build(make=make, size=size, channels=channels, width=width):
                return make(image_size=size, channels=channels, width=width, rng=np.random.default_rng(11))

            for precision in precisions(device):
                case = (f"{letter}, {label}", build, normal(*shape))
                yield (
                    f"{letter}, {label}, {precision}",
                    functools.partial(compared, device, [case], "float32", precision),
                )


# ------------------------------------------------------------------------------------------------- the recorded step


class Played:
    """A game of which a step is recorded, the fourth of ``steps``, and the states between which its steps lead.

    Attributes: game; play (Graphed); notes, what that has said; inputs, of one step.
    """

    def __init__(self, cls, options, shapes, device, *, precision="float32", batch=None, steps=5):
        backend.set_matmul_precision(precision)
        self.device, self.shapes, self.batch, self.notes = device, shapes, batch, []
        self.game = cls(cls.Options.of(options), shapes, device, 0, np.float32)
        self.play = Graphed(self.game, tell=self.notes.append)
        self.rng = np.random.default_rng(12)
        self.inputs = self.drawn(1)
        for step in range(1, steps + 1):
            self.play(self.inputs if step == 1 else self.drawn(step))

    def drawn(self, step, batch=None):
        """A step's inputs, of random images."""
        batch = batch or self.batch
        if batch is None:
            batches = random_batches(self.shapes, self.game.batches, self.rng)
        else:
            shape = (batch, *self.shapes["images"])
            batches = [{"images": self.rng.uniform(-1, 1, shape)} for _ in range(self.game.batches)]
        batches = [
            {n: to_device(a.astype(np.float32) if a.dtype == np.float64 else a, self.device) for n, a in b.items()}
            for b in batches
        ]
        self.game.reseed(0, step)
        return self.game.draw(batches, np.random.default_rng(step), At(step, 1, 100, 100))

    @property
    def is_recorded(self):
        return self.play.play == self.play.replay

    def needs_recording(self):
        if not self.is_recorded:
            raise Wrong(f"not recorded: {(self.notes or ['nothing was said'])[-1]}")

    def state(self):
        """A copy of the game's state, on the host."""
        return _copied(self.game.state_dict())

    def restore(self, state):
        """Go back to ``state``. Rates stay where the recording reads them."""
        rates = {optimizer: optimizer.lr for optimizer in self.game.optimizers().values()}
        self.game.load_state_dict(state)
        for optimizer, lr in rates.items():
            optimizer.lr = lr

    def replayed(self, inputs):
        """Return state and numbers after a replay with ``inputs``."""
        said = len(self.notes)
        self.game.reseed(0, 1)  # layers that draw numbers draw the same in an eager step
        seen = self.play(inputs)
        self.needs_recording()
        if len(self.notes) > said:
            raise Wrong(f"it was not a replay: {self.notes[-1]}")
        return self.state() | {"numbers": _row(seen)}

    def eager(self, inputs):
        """Return state and numbers after the same step, launched kernel by kernel."""
        self.play.inputs.fill(inputs)
        self.game.reseed(0, 1)
        seen = self.game.step(**self.play.inputs.arguments)
        return self.state() | {"numbers": _row(seen)}

    def compare(self, inputs=None):
        """Compare a replay with the eager step from the same state; return how far they are apart, in words."""
        inputs = self.inputs if inputs is None else inputs
        self.needs_recording()
        start = self.state()
        got = self.replayed(inputs)
        self.restore(start)
        expected = self.eager(inputs)
        if not any(changed(start, expected)):
            raise Wrong("the eager step changed no array")
        return alike(got, expected)


def alike(got, expected):
    """Say how far two states are apart. Raises Wrong if it is further than RECORDED."""
    worst, count, name = differing(got, expected)
    if not count:
        return "the same bits"
    text = f"{count} arrays differ, {name} by {worst:.1e}"
    if not worst <= RECORDED:
        raise Wrong(text)
    return text


def differing(one, other):
    """Return (the largest relative difference, how many arrays and numbers differ, which differs most)."""
    one, other = dict(_flat(one)), dict(_flat(other))
    worst, count, which = 0.0, 0, ""
    for name, expected in other.items():
        got = one[name]
        if np.array_equal(got, expected, equal_nan=True):
            continue
        count += 1
        scale = float(np.abs(expected).max(initial=0)) or 1.0
        far = float(np.abs(np.asarray(got, np.float64) - expected).max()) / scale
        far = np.inf if np.isnan(far) else far
        if far >= worst:
            worst, which = far, name
    return worst, count, which


def changed(before, after):
    """Yield the names of the arrays that are others now, without numbers such as counts of steps."""
    after = dict(_flat(after))
    for name, array in _flat(before):
        if array.ndim and not np.array_equal(array, after[name], equal_nan=True):
            yield name


def _flat(state, prefix=""):
    for name, value in state.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) or hasattr(value, "dtype"):
            yield f"{prefix}{name}", np.asarray(to_numpy(value) if hasattr(value, "dtype") else value)


def _copied(state):
    return {
        key: _copied(value) if isinstance(value, dict) else to_numpy(value).copy() if hasattr(value, "dtype") else value
        for key, value in state.items()
    }


def _row(seen):
    return np.array([float(value) for value in seen])


def needs_a_gpu(questions):
    """Make a group of questions about recorded steps one line on a CPU, which records nothing."""

    @functools.wraps(questions)
    def group(device, *arguments):
        if device.kind == "cpu":
            yield questions.__name__, lambda: (None, "not asked of a CPU, whose steps are not recorded")
        else:
            yield from questions(device, *arguments)

    return group


def _dcgan(device, label, options=None, precision="float32", steps=5):
    size, channels, width, batch = SIZES[label]
    options = {"image_size": size, "width": width} | (options or {})
    shapes = {"images": (channels, size, size)}
    return Played(DCGAN, options, shapes, device, precision=precision, batch=batch, steps=steps)


@needs_a_gpu
def graph(device):
    """The DCGAN's recorded step in the sizes that are trained, and what may happen between replays."""
    for label in SIZES:
        played = functools.cache(functools.partial(_dcgan, device, label))

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
            return True, _dcgan(device, "MNIST default", options, precision, steps).compare()

        yield f"DCGAN MNIST default, {label}: a replay is the eager step", same

    def decaying():
        """Falling rates over a few steps, replayed and eager."""
        played = _dcgan(device, "MNIST default", {"lr_decay": "linear"})
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


def unharmed_by_others(played):
    """Replay, then once more after others have filled and freed much memory."""
    cupy = played.device.array_module
    played.needs_recording()
    start = played.state()
    expected = played.replayed(played.inputs)
    for megabytes in (1, 7, 64, 200):  # numbers that would be seen, in memory that a replay must not share
        held = [cupy.full(megabytes << 18, np.nan, np.float32) for _ in range(3)]
        held.append(held[0] * 2)
        del held
    other = _dcgan(played.device, "MNIST default", steps=2)
    other.game.step(**other.inputs)
    del other
    cupy.get_default_memory_pool().free_all_blocks()
    cupy.full(64 << 18, np.nan, np.float32)
    played.restore(start)
    got = played.replayed(played.inputs)
    return alike(got, expected)


def obeys_rates(played):
    """Replays with other learning rates than the recorded ones, and of 0."""
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
    """A batch of other length is played without the recording, which serves the next one."""
    short = played.drawn(6, batch=max(2, played.batch // 3))
    played.play(short)
    return played.compare()


def times_of(played):
    """Milliseconds of a step, eager and replayed."""
    cupy, inputs = played.device.array_module, played.inputs
    played.needs_recording()

    def milliseconds(function, calls):
        for _ in range(3):
            function()
        cupy.cuda.get_current_stream().synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            function()
        cupy.cuda.get_current_stream().synchronize()
        return (time.perf_counter() - start) / calls * 1e3

    eager = milliseconds(lambda: played.game.step(**played.play.inputs.arguments), 50)
    alone = milliseconds(played.play.recorder.replay, 200)
    replayed = milliseconds(lambda: played.play(inputs), 200)
    return f"eager {eager:.3f} ms, replayed {replayed:.3f} ms, the graph alone {alone:.3f} ms"


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
    cupy, (size, channels, width, batch) = device.array_module, SIZES["MNIST default"]
    images = resize(builtin_digits(1000)[0], size)
    game = DCGAN(DCGAN.Options.of({"image_size": size, "width": width}), {"images": (channels, size, size)}, device, 0)
    notes, losses, memory, at, epoch = [], [], [], 0, 0
    play = Graphed(game, tell=notes.append) if how == "graph" else lambda inputs: game.step(**inputs)
    loader, pool = Loader(images, batch_size=batch, device=device), cupy.get_default_memory_pool()
    start = time.perf_counter()
    while at < steps:
        epoch += 1
        for got in loader.epoch(epoch):
            at += 1
            inputs = game.draw([got], backend.seeded_rng(0, f"step {at}"), At(at, 1, steps, steps))
            seen = play(inputs)
            losses.append(cupy.stack([seen.loss_d, seen.loss_g]))
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
        raise Wrong("one of the two runs is missing")
    eager, graphed = curves["eager"], curves["graph"]
    far = np.abs(graphed / eager - 1).max(axis=1)
    apart = np.flatnonzero(~(far <= 1e-3))
    text = (
        f"off by {far[:10].max():.1e} in the first 10; by 1e-3 first in step {apart[0] + 1 if len(apart) else 'none'}"
    )
    if not far[:10].max() <= 1e-3:
        raise Wrong(text)
    return text


GROUPS = {
    "ceilings": ceilings,
    "products": products,
    "operations": operations,
    "layers": all_layers,
    "networks": networks,
    "graph": graph,
    "variants": variants,
    "games": games,
    "long": long,
}


# --------------------------------------------------------------------------------------------- asking, and writing down


def answers(device, group, after=0):
    """Yield (question, answer, right) of a group, without its first ``after`` questions; right is None for a fact."""
    for number, (question, function) in enumerate(GROUPS[group](device)):
        if number < after:
            continue
        try:
            right, answer = function()
        except Wrong as wrong:
            right, answer = False, str(wrong)
        except Exception as raised:  # CUDA, cuBLAS and CuPy fail with exceptions of many kinds
            lines = [line.strip() for line in str(raised).splitlines() if line.strip()]
            place = _place(raised)
            right, answer = False, f"raised {type(raised).__name__}: {(lines or [''])[0]} ({place})"
        finally:
            backend.set_matmul_precision("float32")
        yield question, answer, right if right is None else bool(right)


def _place(raised):
    """Where in nanogan an exception was raised: "conv.py:77"."""
    trace, place = raised.__traceback__, "?"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "nanogan" in file or file == __file__:
            place = f"{Path(file).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def one_group(name, group, after):
    """Print a group's answers as lines of JSON; return LOST if the GPU can no longer be used."""
    device = backend.get_device(name)
    for question, answer, right in answers(device, group, after):
        print(json.dumps([question, answer, right]), flush=True)
        if device.kind == "gpu" and right is False:
            try:
                device.array_module.cuda.get_current_stream().synchronize()
                int(device.array_module.ones(3).sum())
            except Exception as lost:
                print(json.dumps(["", f"the GPU was lost there: {type(lost).__name__}", False]), flush=True)
                return LOST
    return 0


class Table:
    """Answers of all groups, written to a file after each."""

    def __init__(self, lines, out):
        self.lines, self.out, self.rows, self.lock = lines, out, {group: [] for group in GROUPS}, threading.Lock()

    def add(self, group, question, answer, right):
        with self.lock:
            self.rows[group].append((question, answer, right))
            print(f"{_mark(right):>5}  {group}: {question}: {answer}", flush=True)
            if self.out:
                Path(self.out).write_text(self.text(), encoding="utf-8")

    def text(self):
        """The whole table, in Markdown; what is wrong is said above it."""
        rows = [(group, *row) for group, found in self.rows.items() for row in found]
        wrong = [row for row in rows if row[3] is False]
        counts = f"{len(rows)} questions: {sum(r[3] is True for r in rows)} right, {len(wrong)} wrong, "
        counts += f"{sum(r[3] is None for r in rows)} for information"
        lines = ["# Is it right on this machine?", "", *self.lines, "", counts + ".", ""]
        lines += [f"- WRONG: {group}: {question}: {answer}" for group, question, answer, _ in wrong]
        lines += ["", "| | question | answer | right? |", "|---|---|---|---|"]
        for row in rows:
            cells = [str(cell).replace("|", "/") for cell in (*row[:3], _mark(row[3]))]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    @property
    def all_right(self):
        return not any(right is False for found in self.rows.values() for *_, right in found)


def _mark(right):
    return {True: "yes", False: "NO", None: "-"}[right]


def ask(group, device, table, ends, jobs=1):
    """Ask a group's questions in a process; after one that loses the GPU, the next ones in a new process.

    ends: when all is to be over, by time.perf_counter(). jobs: how many groups are asked at once.
    """
    asked = 0
    env = {"OPENBLAS_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))} | os.environ
    for _ in range(4):
        command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", device, "--group", group]
        process = subprocess.Popen(
            [*command, "--after", str(asked)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            start_new_session=True, env=env,
        )  # fmt: skip
        watchdog = threading.Timer(max(1.0, ends - time.perf_counter()), _kill, [process])
        watchdog.start()
        said = []
        with process.stdout as lines:
            for line in lines:
                try:
                    question, answer, right = json.loads(line)
                except ValueError:
                    said.append(line.strip())
                    continue
                asked += bool(question)
                table.add(group, question or "(the same)", answer, right)
        status = process.wait()
        watchdog.cancel()
        if status == 0:
            return
        if time.perf_counter() >= ends:
            table.add(group, f"question {asked + 1} and what follows", "out of time", False)
            return
        if status != LOST:  # it died of the question that it was asked
            last = next((line for line in reversed(said) if line), "no message")
            table.add(group, f"question {asked + 1}", f"its process ended with status {status}: {last[:200]}", False)
            asked += 1


def _kill(process):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def about(device):
    """Lines that name the machine: card, driver, CUDA, CuPy, torch."""
    found = machine_of_a_run(device)
    found["driver"] = report()["GPU"].get("driver", "none")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["torch"] = importlib.metadata.version("torch")
    names = ("card", "driver", "CuPy", "torch", "NumPy", "processor", "cores", "nanogan", "Python")
    return [f"- {name}: {found[name]}" for name in names if name in found]


def main():
    parser = argparse.ArgumentParser(description="Is what a GPU computes right? A table of questions and answers.")
    parser.add_argument("--device", default="gpu", help="gpu, gpu:N, or cpu (default: gpu)")
    parser.add_argument("--budget", type=at_least(int, 5), default=150, metavar="SECONDS", help="default: 150")
    parser.add_argument("--out", type=cli.path, metavar="FILE", help="write the table there too (Markdown)")
    parser.add_argument("--only", action="append", choices=GROUPS, help="this group alone; may be repeated")
    parser.add_argument("--jobs", type=at_least(int, 1), help="groups asked at once (default: cores / 2, at most 5)")
    parser.add_argument("--group", choices=GROUPS, help=argparse.SUPPRESS)
    parser.add_argument("--after", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.group:
        return one_group(args.device, args.group, args.after)
    ends = time.perf_counter() + args.budget
    try:
        table = Table(about(args.device), args.out)
    except UserError as problem:
        parser.error(str(problem))
    groups = [group for group in GROUPS if not args.only or group in args.only]
    if "ceilings" in groups:  # alone: others would be measured with it
        ask("ceilings", args.device, table, ends)
        groups.remove("ceilings")
    first = ("graph", "operations", "networks", "games")  # the longest first
    groups.sort(key=lambda group: first.index(group) if group in first else len(first))
    jobs = args.jobs or max(1, min(5, (os.cpu_count() or 2) // 2))
    with ThreadPoolExecutor(jobs) as pool:
        for job in [pool.submit(ask, group, args.device, table, ends, jobs) for group in groups]:
            job.result()
    text = table.text()
    print("\n" + text[: text.index("| | question")], flush=True)
    return 0 if table.all_right else 1


if __name__ == "__main__":
    cli.run(main)
