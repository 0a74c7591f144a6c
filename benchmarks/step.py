"""One whole DCGAN training step, nanogan beside torch: same networks, same numbers, same run, in alternation.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m benchmarks.step
    python -m benchmarks.step --network mnist --batch-size 128 --rounds 15
    python -m benchmarks.step --device gpu --out             six minutes; --quick takes two

On the CPU torch runs as pytorch/examples writes it (eager), in channels_last, in channels_last without the weight
gradients of D that G's step throws away, and compiled where that works. On a GPU it runs in float32, with TF32 products
and under autocast to bf16; eager, compiled (reduce-overhead) and as a CUDA graph of the whole step; always with the
fused Adam, cuDNN's choice by trial, and its images on the card. A ratio is to the fastest torch of the same numbers.
A CUDA graph of either library is given its images and its noise as in training: copied into the arrays it reads.

Each contender first proves by its losses in four steps that it does the same work; of a CUDA graph the fourth is a
replay. One that fails is a line with the reason. Each network runs in its own process, and so does each measurement
of memory.
"""

import argparse
import gc
import json
import re
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import machine, processes, tables
from benchmarks.clock import Target
from benchmarks.contenders import CPU_FORMS, GPU_FORMS, contender
from benchmarks.networks import LARGE, NETWORKS, TINY
from benchmarks.processes import GPU_LOST
from benchmarks.tables import NO_TIME, reason, say
from nanogan import backend, cli, dispatch
from nanogan.cli import at_least
from nanogan.errors import UserError

RESULTS = Path(__file__).parent / "results"
ON_GPU = ("64-b128", "mnist", "64", "64-w128", "32")  # the most telling first: time there is scarce


# Relative difference of a loss in the first step, and in the fourth. Adam first steps by the gradient's sign, which
# rounding decides where the gradient is all rounding: torch's two memory layouts are 4e-3 apart in the third step of
# the network "64" with batches of 16, and 1e-3 with batches of 64.
TOLERANCES = {"float32": (1e-3, 3e-2), "tf32": (1e-2, 6e-2), "16 bit": (5e-2, 2e-1)}


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
            failures[name] = NO_TIME
            continue
        say(f"{label} {name}: first steps")
        try:
            prepare, step = contender(name, form, network, target)
            prepare()
            losses = np.array([[float(value) for value in step()][:2] for _ in range(4)])
            expected = losses if expected is None else expected
            first, *_, fourth = abs(losses / expected - 1).max(axis=1)  # NaN stays NaN, and passes nothing
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


def memory(name, network, device, timeout=120):
    """Return "peak / kept" in MB of three steps, above what the imports took, measured in a new process."""
    command = processes.python("benchmarks.step", "--child", json.dumps([name, network, device]))
    try:
        peak, kept = processes.last_line(command, timeout, stderr=subprocess.DEVNULL)
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
        cells = (
            name,
            f"{median * 1e3:.{1 if median > 0.01 else 3}f}",
            f"{low:.{1 if median > 0.01 else 3}f} to {high:.{1 if median > 0.01 else 3}f}",
            f"{N / median:.0f}",
            f"{best[numbers] / median:.2f}" if numbers in best else "-",
            f"{median / ours[numbers]:.2f}" if numbers in ours else "-",
            "{:.0e}, {:.0e}".format(*differences[name]),
            memories.get(name, "-"),
        )
        lines.append(tables.row(cells))
    lines += [f"| {name} | does not run: {why} | | | | | | |" for name, why in failures.items()]
    if len({forms[name].numbers for name in medians}) > 1:
        first = {
            library: min((m, name) for name, m in medians.items() if name.startswith(library))
            for library in ("nanogan", "torch")
            if any(name.startswith(library) for name in medians)
        }
        texts = [f"{name}, {median * 1e3:.3f} ms" for median, name in first.values()]
        ratio = f"; nanogan's speed {first['torch'][0] / first['nanogan'][0]:.2f}" if len(first) == 2 else ""
        lines += ["", f"The fastest of each: {'; '.join(texts)}{ratio}."]
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
        left = args.budget - (time.perf_counter() - tables.STARTED) if args.budget else None
        if left is not None and left < 15:
            part = f"### {label}\n\n{NO_TIME}\n\n"
        else:
            share = left and (left if i == len(labels) - 1 else left * (0.4 if i == 0 else 1.3 / (len(labels) - i)))
            part = one_network(label, options, share, i)
        print(part, end="", flush=True)
        text += part
        save(args, target, text)  # what there is, should the time be up


def one_network(label, options, budget, position):
    """Return the table of a network from a new process; where a contender loses the GPU, again without it."""
    lost = {}
    for _ in range(4):
        command = processes.python("benchmarks.step", "--network", label, *options, "--only-table")
        command += ["--budget", f"{budget:.0f}"] if budget else []
        command += ["--no-compile"] if budget and position and "--no-compile" not in options else []
        command += ["--no-memory"] if budget and position > 1 and "--no-memory" not in options else []
        command += ["--lost", json.dumps(lost)] if lost else []
        begun = time.perf_counter()
        try:
            status, text = processes.printed(command, 2 * budget + 60 if budget else None)
        except subprocess.TimeoutExpired:
            return f"### {label}\n\ndid not end in time\n\n"
        if status == 0:
            return text
        if status != GPU_LOST:
            return f"### {label}\n\nfailed with status {status}: its messages are on the standard error\n\n"
        lost |= json.loads(text.splitlines()[-1])
        budget = budget and max(15, budget - (time.perf_counter() - begun))
    return f"### {label}\n\nthe GPU was lost again and again: {lost}\n\n"


def about(args, target):
    """Return the lines that stand above the tables."""
    lines = machine.about(target)
    if target.is_gpu:
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
    tables.save(path, "One training step", text)


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

    target = Target.chosen(args.device, parser)
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
        return GPU_LOST
    memories = {}
    if not args.no_memory:
        measured = [name for name in times if forms[name].how != "compiled" or not target.is_gpu]
        say(f"{args.network}: memory")
        with ThreadPoolExecutor(4 if target.is_gpu else 1) as pool:
            results = pool.map(lambda name: memory(name, network, args.device), measured)
            memories = dict(zip(measured, results, strict=True))
    rows = table(args.network, network, forms, times, failures | args.lost, differences, memories)
    print("\n".join(rows), flush=True)
    if not args.only_table:
        save(args, target, "\n".join([*lines, *rows]))


if __name__ == "__main__":
    cli.run(main)
