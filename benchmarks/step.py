"""One whole DCGAN training step, nanogan beside torch: same networks, same numbers, same run, in alternation.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m benchmarks.step
    python -m benchmarks.step --network mnist --batch-size 128 --rounds 15
    python -m benchmarks.step --device gpu --out             six minutes; --quick takes two

On the CPU torch runs as pytorch/examples writes it (eager), in channels_last, in channels_last without the weight
gradients of D that G's step throws away, and compiled where that works. On a GPU it runs in float32, with TF32 products
and under autocast to bf16; eager, compiled (reduce-overhead) and as a CUDA graph of the whole step; always with the
fused Adam, cuDNN's choice by trial, and its pictures on the card. A ratio is to the fastest torch of the same numbers.
A CUDA graph of either library is given its pictures and its noise as in training: copied into the arrays it reads.

Each contender first proves by its losses in four steps that it does the same work; of a CUDA graph the fourth is a
replay. One that fails is a line with
the reason. Each network runs in a process of its own, and so does each measurement of memory.
"""

import argparse
import gc
import json
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine, torch_dcgan
from benchmarks.clock import Target
from nanogan import backend, cli, dispatch
from nanogan.cli import at_least
from nanogan.errors import UserError
from nanogan.games.dcgan import StepResult
from nanogan.games.game import Game
from nanogan.models import dcgan
from nanogan.optim import Adam
from nanogan.training import adversarial_step
from nanogan.training.graph import Graphed

RESULTS = Path(__file__).parent / "results"
NETWORKS = {
    "64": {"image_size": 64, "channels": 3, "width": 64, "batch_size": 64},  # pytorch/examples' defaults
    "32": {"image_size": 32, "channels": 1, "width": 64, "batch_size": 64},
    "mnist": {"image_size": 28, "channels": 1, "width": 32, "batch_size": 32},  # examples/mnist_dcgan.py's defaults
}
LARGE = {
    "64-b128": {"image_size": 64, "channels": 3, "width": 64, "batch_size": 128},  # as the paper and torch's tutorial
    "64-w128": {"image_size": 64, "channels": 3, "width": 128, "batch_size": 128},  # the paper's figure 1
}
TINY = {"tiny": {"image_size": 16, "channels": 1, "width": 4, "batch_size": 8}}  # shows that this file works
ON_GPU = ("64-b128", "mnist", "64", "64-w128", "32")  # the most telling first: time there is scarce
LATENT, LR, BETAS = 100, 2e-4, (0.5, 0.999)


@dataclass(frozen=True)
class Form:
    """How a contender does its step."""

    precision: str = "float32"  # of products: "float32", "tf32" (stored in 32 bits), "bf16", "fp16"
    how: str = "eager"  # "compiled", or "CUDA graph"
    channels_last: bool = True
    freeze_d: bool = True  # torch computes no weight gradients of D in G's step
    fast: bool = True  # nanogan's fast paths

    @property
    def numbers(self):
        """What it is compared with."""
        return "16 bit" if self.precision in ("bf16", "fp16") else self.precision


CPU_FORMS = {
    "nanogan": Form(),
    "torch eager": Form(channels_last=False, freeze_d=False),
    "torch channels_last": Form(freeze_d=False),
    "torch channels_last, D frozen": Form(),
    "torch compiled": Form(how="compiled", freeze_d=False),
}
GPU_FORMS = {  # the most telling first: time there is scarce
    "torch CUDA graph, float32": Form(how="CUDA graph"),  # the others' losses are held to the first one's
    "nanogan CUDA graph, float32": Form(how="CUDA graph"),
    "torch CUDA graph, TF32": Form("tf32", "CUDA graph"),
    "nanogan CUDA graph, tf32": Form("tf32", "CUDA graph"),
    "torch CUDA graph, bf16 autocast": Form("bf16", "CUDA graph"),
    "nanogan CUDA graph, bf16": Form("bf16", "CUDA graph"),
    "nanogan, float32": Form(),
    "torch channels_last, float32": Form(),
    "nanogan, tf32": Form("tf32"),
    "torch channels_last, TF32": Form("tf32"),
    "nanogan, bf16": Form("bf16"),
    "torch channels_last, bf16 autocast": Form("bf16"),
    "nanogan CUDA graph, fp16": Form("fp16", "CUDA graph"),
    "torch eager, float32": Form(channels_last=False, freeze_d=False),
    "torch eager, TF32": Form("tf32", channels_last=False, freeze_d=False),
    "nanogan, fp16": Form("fp16"),
    "nanogan, float32, NANOGAN_FAST=0": Form(fast=False),
    "torch compiled, TF32": Form("tf32", "compiled"),
    "torch compiled, bf16 autocast": Form("bf16", "compiled"),
}
# Relative difference of a loss in the first step, and in the fourth. Adam first steps by the gradient's sign, which
# rounding decides where the gradient is all rounding: torch's two memory layouts are 4e-3 apart in the third step of
# the network "64" with batches of 16, and 1e-3 with batches of 64.
TOLERANCES = {"float32": (1e-3, 3e-2), "tf32": (1e-2, 6e-2), "16 bit": (5e-2, 2e-1)}


def contender(name, form, network, target):
    """Return ``prepare`` and ``step``: what sets the libraries' switches, and what queues a step, whose five numbers it
    returns without waiting for them. ``network`` is one of NETWORKS' values; pictures and noise are on the device.
    """
    rng = np.random.default_rng(0)
    shape = {key: network[key] for key in ("image_size", "channels", "width")}
    g, d = dcgan.generator(latent=LATENT, rng=rng, **shape), dcgan.discriminator(rng=rng, **shape)
    N, C, size = network["batch_size"], network["channels"], network["image_size"]
    real = rng.uniform(-1, 1, (N, size, size, C)).astype(np.float32).transpose(0, 3, 1, 2)  # channels-last
    z = rng.standard_normal((N, LATENT), dtype=np.float32)
    return (of_nanogan if name.startswith("nanogan") else of_torch)(form, g, d, real, z, target)


def of_nanogan(form, g, d, real, z, target):
    """:func:`contender` of nanogan."""
    g, d = g.to(target.device), d.to(target.device)
    real, z = backend.to_device(real, target.device), backend.to_device(z, target.device)
    scaling = form.precision == "fp16"
    opt_g, opt_d = (Adam(n, lr=LR, betas=BETAS, loss_scaling=scaling) for n in (g, d))
    for optimizer in (opt_g, opt_d) if scaling else ():
        optimizer.dloss[...] = 1024  # the initial scale may be too large, and a first step then changes nothing

    def prepare():
        dispatch.FAST = form.fast
        backend.set_matmul_precision(form.precision)

    if form.how == "CUDA graph":
        if not target.is_gpu:
            raise UserError("only a GPU has CUDA graphs")
        play = recorded(PlainDCGAN(g, d, opt_g, opt_d, target.device))
        return prepare, lambda: play({"real": real, "z": z})
    return prepare, lambda: adversarial_step(g, d, opt_g, opt_d, real, z)


class PlainDCGAN(Game):
    """The game of two given networks, whose step is the one that all contenders take."""

    def __init__(self, g, d, opt_g, opt_d, device):
        self.g, self.d, self.opt_g, self.opt_d, self.device, self.dtype = g, d, opt_g, opt_d, device, np.float32

    def step(self, real, z) -> StepResult:
        return adversarial_step(self.g, self.d, self.opt_g, self.opt_d, real, z)


def recorded(game):
    """Return a function of a step's inputs that plays the game's step, as one CUDA graph from its fourth call on.

    Raises UserError where it cannot be recorded.
    """
    notes = []
    play = Graphed(game, tell=notes.append)

    def step(inputs):
        seen = play(inputs)
        if notes and play.recorder is None:
            raise UserError(notes[-1])
        return seen

    return step


def of_torch(form, g, d, real, z, target):
    """:func:`contender` of torch."""
    if not target.has_torch:
        raise UserError(f"torch {torch.__version__} has no CUDA here")
    if form.how == "CUDA graph" and not target.is_gpu:
        raise UserError("only a GPU has CUDA graphs")
    memory_format = torch.channels_last if form.channels_last else torch.contiguous_format
    place = {"device": target.torch, "memory_format": memory_format}
    g, d = torch_dcgan.copy_of(g).to(**place), torch_dcgan.copy_of(d).to(**place)
    options = {"fused": True, "capturable": form.how == "CUDA graph"} if target.is_gpu else {}
    opt_g, opt_d = (torch.optim.Adam(n.parameters(), lr=LR, betas=BETAS, **options) for n in (g, d))
    real, z = torch.tensor(real).to(**place), torch.tensor(z).to(target.torch)
    if form.how == "compiled":
        torch.compiler.reset()  # else what was compiled for the network before counts towards its limit
        g, d = (torch.compile(n, mode="reduce-overhead" if target.is_gpu else None) for n in (g, d))
    if form.numbers == "16 bit":
        dtype = torch.bfloat16 if form.precision == "bf16" else torch.float16
        g, d = torch_dcgan.Autocast(g, dtype), torch_dcgan.Autocast(d, dtype)

    def prepare():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = form.precision == "tf32"
        torch.backends.cudnn.benchmark = True

    def step():
        if form.how == "compiled":
            torch.compiler.cudagraph_mark_step_begin()  # what the last step returned may be overwritten
        return torch_dcgan.queued_step(g, d, opt_g, opt_d, *inputs, freeze_d=form.freeze_d)

    inputs = real, z
    if form.how != "CUDA graph":
        return prepare, step
    inputs = torch.empty_like(real), torch.empty_like(z)
    return prepare, captured(step, (real, z), inputs)


def captured(step, sources, inputs):
    """Return a function that runs ``step`` twice and from the third call on replays it as one CUDA graph.

    Each time ``sources`` are copied into ``inputs`` first, which ``step`` reads, as training has to.
    """
    side, calls = torch.cuda.Stream(), []

    def run():
        calls.append(None)
        for target, source in zip(inputs, sources, strict=True):
            target.copy_(source)
        if len(calls) <= 2:  # on another stream, as capturing demands: choices by trial, Adam's state
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                result = step()
            torch.cuda.current_stream().wait_stream(side)
            return result
        if len(calls) == 3:
            run.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(run.graph):
                run.result = step()
        run.graph.replay()
        return run.result

    return run


def measure(network, rounds, names, *, target=None, forms=CPU_FORMS, budget=None, label=""):
    """Return {contender: list of seconds a step}, {contender: why it does not run}, {contender: how far its loss is}.

    ``rounds`` windows of each contender in turn, fewer (at least 3) where ``budget`` seconds are used up. Losses
    are compared with the first contender's in the first step and in the fourth. Raises :class:`DeviceLost` when the GPU
    is of no more use.
    """
    target = target or Target("cpu")
    begun, runs, times, failures, differences, expected = time.perf_counter(), {}, {}, {}, {}, None

    def left():
        return float("inf") if budget is None else budget - (time.perf_counter() - begun)

    def fail(name, error):
        failures[name] = reason(error)
        runs.pop(name, None)
        times.pop(name, None)
        gc.collect()
        try:
            target.free()
            target.synchronize()
        except Exception as lost:
            raise DeviceLost(name, failures[name]) from lost

    for name in names:
        form = forms[name]
        if left() < (budget or 0) * (0.6 if form.how == "compiled" else 0.3):
            failures[name] = "left out, for want of time"
            continue
        say(f"{label} {name}: first steps")
        try:
            prepare, step = contender(name, form, network, target)
            prepare()
            found = np.array([[float(value) for value in step()][:2] for _ in range(4)])
            expected = found if expected is None else expected
            first, *_, fourth = abs(found / expected - 1).max(axis=1)  # NaN stays NaN, and passes nothing
            if not all(np.array([first, fourth]) <= TOLERANCES[form.numbers]):
                raise UserError(
                    f"does other work: its losses are {first:.1e} off in the first step, {fourth:.1e} in the fourth"
                )
            target.seconds(step, 3)
            calls = target.calls(step)
        except Exception as error:  # torch.compile, CUDA and CuPy fail with exceptions of many kinds
            prepare = step = None
            fail(name, error)
            continue
        runs[name], times[name], differences[name] = (prepare, step, calls), [], (first, fourth)
    for done in range(rounds):
        if done >= 3 and left() < 0:
            break
        for name, (prepare, step, calls) in list(runs.items()):
            if not target.is_gpu:
                time.sleep(0.05)  # threads of the one before may still be spinning
            try:
                prepare()
                for _ in range(3 if target.is_gpu else max(1, calls // 4)):  # caches and cores are as in training again
                    step()
                times[name].append(target.seconds(step, calls))
            except Exception as error:
                prepare = step = None
                fail(name, error)
    for name, values in times.items():
        say(f"{label} {name}: {statistics.median(values) * 1e3:.2f} ms, windows of {runs[name][2]} steps")
    dispatch.FAST = True
    backend.set_matmul_precision("float32")
    return times, failures, differences


class DeviceLost(Exception):
    """A contender, ``args[0]``, failed so that the process can no longer use the GPU; ``args[1]`` is the reason."""


def reason(error):
    """One line that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{kind}{(lines or [''])[0]}"[:200].replace("|", "/")


def say(text):
    """Tell whoever waits how far it is; the table goes to the standard output."""
    print(f"[{time.perf_counter() - STARTED:5.0f} s] {text}", file=sys.stderr, flush=True)


STARTED = time.perf_counter()


def memory(name, network, device, timeout=120):
    """Return "peak / kept" in MB of three steps, above what the imports took, measured in a new process."""
    command = [sys.executable, "-m", "benchmarks.step", "--child", json.dumps([name, network, device])]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=timeout, check=True
        )
        peak, kept = json.loads(result.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError):
        return "unknown"
    return f"{peak:.0f}" if peak == kept else f"{peak:.0f} / {kept:.0f}"


def child(name, network, device):
    """Print the memory of three steps."""
    target, kept = Target(device), []

    def steps():
        prepare, step = contender(name, forms_on(target)[name], network, target)
        prepare()
        for _ in range(3):
            kept[:] = [step, step()]

    print(json.dumps(target.peak_memory(steps)))


def forms_on(target):
    """The contenders of a device. Every GPU's can also be asked for by name on the CPU, which shows that they work."""
    return GPU_FORMS if target.is_gpu else CPU_FORMS | GPU_FORMS


def table(label, network, forms, times, failures, differences, memories):
    """Return the Markdown lines of one network's results."""
    N, size = network["batch_size"], network["image_size"]
    lines = [
        f"### {label}: {size} x {size}, {network['channels']} channels, width {network['width']}, batch {N}",
        "",
        "| | ms a step, median | fastest to slowest | images/s | speed, torch's best = 1 | nanogan's beside it "
        "| loss off by | peak memory, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours, best = {}, {}
    for name, median in medians.items():
        numbers = forms[name].numbers
        if not name.startswith("nanogan"):
            best[numbers] = min(median, best.get(numbers, median))
        elif forms[name].fast:
            ours[numbers] = min(median, ours.get(numbers, median))
    for name, median in medians.items():
        low, high, numbers = min(times[name]) * 1e3, max(times[name]) * 1e3, forms[name].numbers
        row = (
            name,
            f"{median * 1e3:.{1 if median > 0.01 else 3}f}",
            f"{low:.{1 if median > 0.01 else 3}f} to {high:.{1 if median > 0.01 else 3}f}",
            f"{N / median:.0f}",
            f"{best[numbers] / median:.2f}" if numbers in best else "-",
            f"{median / ours[numbers]:.2f}" if numbers in ours else "-",
            "{:.0e}, {:.0e}".format(*differences[name]),
            memories.get(name, "-"),
        )
        lines.append("| " + " | ".join(row) + " |")
    lines += [f"| {name} | does not run: {why} | | | | | | |" for name, why in failures.items()]
    if len({forms[name].numbers for name in medians}) > 1:
        first = {
            library: min((m, name) for name, m in medians.items() if name.startswith(library))
            for library in ("nanogan", "torch")
            if any(name.startswith(library) for name in medians)
        }
        told = [f"{name}, {median * 1e3:.3f} ms" for median, name in first.values()]
        ratio = f"; nanogan's speed {first['torch'][0] / first['nanogan'][0]:.2f}" if len(first) == 2 else ""
        lines += ["", f"The fastest of each: {'; '.join(told)}{ratio}."]
    return [*lines, ""]


def every_network(args, target):
    """Measure each network with this script, and put the tables together."""
    labels = ON_GPU if target.is_gpu else NETWORKS
    options = ["--rounds", str(args.rounds), "--device", args.device]
    options += ["--batch-size", str(args.batch_size)] if args.batch_size else []
    options += [f"--no-{name}" for name in ("compile", "memory") if getattr(args, f"no_{name}")]
    text = "\n".join([*about(args, target), ""])
    print(text, flush=True)
    for i, label in enumerate(labels):
        left = args.budget - (time.perf_counter() - STARTED) if args.budget else None
        if left is not None and left < 15:
            part = f"### {label}\n\nleft out, for want of time\n\n"
        else:
            share = left and (left if i == len(labels) - 1 else left * (0.4 if i == 0 else 1.3 / (len(labels) - i)))
            part = one_network(label, options, share, i)
        print(part, end="", flush=True)
        text += part
        save(args, target, text)  # what there is, should the time be up


def one_network(label, options, budget, position):
    """Return the table of a network from a new process; where a contender loses the GPU, from another one without."""
    lost = {}
    for _ in range(4):
        command = [sys.executable, "-m", "benchmarks.step", "--network", label, *options, "--only-table"]
        command += ["--budget", f"{budget:.0f}"] if budget else []
        command += ["--no-compile"] if budget and position and "--no-compile" not in options else []
        command += ["--no-memory"] if budget and position > 1 and "--no-memory" not in options else []
        command += ["--lost", json.dumps(lost)] if lost else []
        begun = time.perf_counter()
        try:
            result = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[1],
                timeout=2 * budget + 60 if budget else None,
            )
        except subprocess.TimeoutExpired:
            return f"### {label}\n\ndid not end in time\n\n"
        if result.returncode == 0:
            return result.stdout
        if result.returncode != LOST:
            return f"### {label}\n\nfailed with status {result.returncode}: its messages are on the standard error\n\n"
        lost |= json.loads(result.stdout.splitlines()[-1])
        budget = budget and max(15, budget - (time.perf_counter() - begun))
    return f"### {label}\n\nthe GPU was lost again and again: {lost}\n\n"


LOST = 3  # exit status


def about(args, target):
    """Return the lines that stand above the tables."""
    lines = [f"- {line}" for line in machine.describe()]
    if target.is_gpu:
        say("measuring the card")
        lines += [f"- {line}" for line in machine.describe_gpu(target, machine.ceilings(target))]
        lines.append(
            f"- medians of up to {args.rounds} windows in alternation, each of steps queued for {target.least_window} "
            "seconds between two waits for the device; losses are not read inside"
        )
        lines.append("- memory: arrays in use at the worst / what the libraries took from the driver for them")
    else:
        lines.append(
            f"- medians of {args.rounds} windows in alternation, each of at least {target.least_window} seconds of "
            "steps in a row, as in training; float32"
        )
    return [*lines, ""]


def save(args, target, text):
    """Write the tables to the file of --out."""
    if not args.out:
        return
    path = Path(args.out)
    if args.out == AUTOMATIC:
        name = "cpu"
        if target.is_gpu:
            properties = target.device.array_module.cuda.runtime.getDeviceProperties(target.device.index)
            name = re.sub("[^a-z0-9]+", "-", properties["name"].decode().lower()).strip("-")
        path = RESULTS / f"step-{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# One training step\n\n" + text, encoding="utf-8")


AUTOMATIC = "benchmarks/results/step-<device>.md"


def main():
    count = at_least(int, 1)
    parser = argparse.ArgumentParser(description="One DCGAN training step, nanogan beside torch.")
    parser.add_argument("--device", default="cpu", help="cpu, gpu, or gpu:N (default: cpu)")
    networks = NETWORKS | LARGE | TINY
    parser.add_argument("--network", choices=(*networks, "all"), default="all", help="default: all")
    parser.add_argument("--batch-size", type=count, help="instead of the network's own")
    parser.add_argument("--rounds", type=count, default=9, help="timed windows of each contender (default: 9)")
    parser.add_argument("--forms", metavar="TEXT", help="only contenders whose name holds this, and the first one")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes a minute")
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    parser.add_argument("--budget", type=count, metavar="SECONDS", help="leave out what does not fit (GPU: 360)")
    parser.add_argument("--quick", action="store_true", help="two minutes: --budget 120 --no-compile --no-memory")
    parser.add_argument(
        "--out", type=cli.path, metavar="FILE", nargs="?", const=AUTOMATIC,
        help=f"write the table there too (default: {AUTOMATIC})",
    )  # fmt: skip
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--only-table", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--lost", type=json.loads, default={}, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(*json.loads(args.child))

    try:
        target = Target(args.device)
    except UserError as error:
        parser.error(str(error))
    if args.quick:
        args.budget, args.no_compile, args.no_memory = args.budget or 120, True, True
    if target.is_gpu:
        args.budget = args.budget or 360
    if args.network == "all":  # a process for each, which knows nothing of the networks before
        return every_network(args, target)

    lines = [] if args.only_table else about(args, target)
    print("\n".join(lines), flush=True, end="\n" if lines else "")
    forms = GPU_FORMS if target.is_gpu or args.forms else CPU_FORMS
    names = [name for name, form in forms.items() if not (args.no_compile and form.how == "compiled")]
    names = [name for name in names if not args.forms or args.forms in name or name == names[0]]
    names = [name for name in names if name not in args.lost]
    network = networks[args.network] | ({"batch_size": args.batch_size} if args.batch_size else {})
    budget = args.budget and args.budget * (0.9 if args.no_memory else 0.7)
    try:
        times, failures, differences = measure(
            network, args.rounds, names, target=target, forms=forms, budget=budget, label=args.network
        )
    except DeviceLost as lost:
        say(f"{args.network}: the GPU is lost: {lost}")
        if args.only_table:
            print(json.dumps(dict([lost.args])))
        return LOST
    memories = {}
    if not args.no_memory:
        measured = [name for name in times if forms[name].how != "compiled" or not target.is_gpu]
        say(f"{args.network}: memory")
        with ThreadPoolExecutor(4 if target.is_gpu else 1) as pool:
            found = pool.map(lambda name: memory(name, network, args.device), measured)
            memories = dict(zip(measured, found, strict=True))
    rows = table(args.network, network, forms, times, failures | args.lost, differences, memories)
    print("\n".join(rows), flush=True)
    if not args.only_table:
        save(args, target, "\n".join([*lines, *rows]))


if __name__ == "__main__":
    cli.run(main)
