"""One whole DCGAN training step, nanogan beside torch: same networks, same numbers, same run, in alternation.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m benchmarks.step
    python -m benchmarks.step --network mnist --batch-size 128 --rounds 15

torch runs as pytorch/examples writes it (eager), in channels_last, in channels_last without the weight gradients of D
that G's step throws away, and compiled where that works; the ratio is to the fastest of them. Each contender first
proves by its losses that it does the same work. Each network runs in a process of its own, and so does each measurement
of memory.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine, torch_dcgan
from nanogan.cli import at_least
from nanogan.models import dcgan
from nanogan.optim import Adam
from nanogan.training import adversarial_step

NETWORKS = {
    "64": {"image_size": 64, "channels": 3, "width": 64, "batch_size": 64},  # pytorch/examples' defaults
    "32": {"image_size": 32, "channels": 1, "width": 64, "batch_size": 64},
    "mnist": {"image_size": 28, "channels": 1, "width": 32, "batch_size": 32},  # examples/mnist_dcgan.py's defaults
}
CONTENDERS = ("nanogan", "torch eager", "torch channels_last", "torch channels_last, D frozen", "torch compiled")
LATENT, LR, BETAS = 100, 2e-4, (0.5, 0.999)


def contender(name, network):
    """Return a function that does one training step and returns its five numbers."""
    rng = np.random.default_rng(0)
    shape = {key: network[key] for key in ("image_size", "channels", "width")}
    g, d = dcgan.generator(latent=LATENT, rng=rng, **shape), dcgan.discriminator(rng=rng, **shape)
    N, C, size = network["batch_size"], network["channels"], network["image_size"]
    real = rng.uniform(-1, 1, (N, size, size, C)).astype(np.float32).transpose(0, 3, 1, 2)  # channels-last
    z = rng.standard_normal((N, LATENT), dtype=np.float32)

    if name == "nanogan":
        opt_g, opt_d = Adam(g, lr=LR, betas=BETAS), Adam(d, lr=LR, betas=BETAS)
        return lambda: [float(value) for value in adversarial_step(g, d, opt_g, opt_d, real, z)]

    g, d = torch_dcgan.copy_of(g), torch_dcgan.copy_of(d)
    memory_format = torch.contiguous_format if name == "torch eager" else torch.channels_last
    g, d = g.to(memory_format=memory_format), d.to(memory_format=memory_format)
    opt_g, opt_d = (torch.optim.Adam(n.parameters(), lr=LR, betas=BETAS) for n in (g, d))
    real, z = torch.tensor(real).contiguous(memory_format=memory_format), torch.tensor(z)
    if name == "torch compiled":
        torch.compiler.reset()  # else what was compiled for the network before counts towards its limit
        g, d = torch.compile(g), torch.compile(d)
    freeze_d = "frozen" in name
    return lambda: torch_dcgan.step(g, d, opt_g, opt_d, real, z, freeze_d=freeze_d)


def measure(network, rounds, names):
    """Return {contender: list of seconds a step}, and {contender: why it does not run}."""
    steps, times, failures, losses = {}, {}, {}, None
    for name in names:
        try:
            step = contender(name, network)
            first = step()
        except Exception as error:  # torch.compile fails with exceptions of many kinds
            if name == "nanogan":
                raise
            failures[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
            continue
        losses = losses or first
        # Adam first steps by the gradient's sign, which rounding decides where the gradient is all rounding
        np.testing.assert_allclose(first, losses, rtol=1e-3, err_msg=f"{name} does other work than {names[0]}")
        step()
        steps[name], times[name] = step, []
    for _ in range(rounds):
        for name, step in steps.items():
            time.sleep(0.05)  # threads of the one before may still be spinning
            step()  # fills the caches again
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return times, failures


def memory(name, network):
    """Return the MB that three steps need above what the imports took, measured in a new process."""
    command = [sys.executable, "-m", "benchmarks.step", "--child", json.dumps([name, network])]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return float(result.stdout.split()[-1]) if result.returncode == 0 else float("nan")


def child(name, network):
    """Print the memory of three steps."""
    before = machine.peak_memory()
    step = contender(name, network)
    for _ in range(3):
        step()
    print(machine.peak_memory() - before)


def table(label, network, times, failures, with_memory):
    """Return the Markdown lines of one network's results."""
    N, size = network["batch_size"], network["image_size"]
    lines = [
        f"### {label}: {size} x {size}, {network['channels']} channels, width {network['width']}, batch {N}",
        "",
        "| | ms a step, median | fastest to slowest | images/s | speed, torch's best = 1 | peak memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min((median for name, median in medians.items() if name != "nanogan"), default=float("nan"))
    for name, median in medians.items():
        low, high = min(times[name]) * 1e3, max(times[name]) * 1e3
        used = f"{memory(name, network):.0f}" if with_memory else "-"
        row = (
            name,
            f"{median * 1e3:.1f}",
            f"{low:.1f} to {high:.1f}",
            f"{N / median:.0f}",
            f"{best / median:.2f}",
            used,
        )
        lines.append("| " + " | ".join(row) + " |")
    lines += [f"| {name} | does not run: {why} | | | | |" for name, why in failures.items()]
    return [*lines, ""]


def every_network(args):
    """Measure each network with this script, and put the tables together."""
    options = ["--rounds", str(args.rounds)]
    options += ["--batch-size", str(args.batch_size)] if args.batch_size else []
    options += [f"--no-{name}" for name in ("compile", "memory") if getattr(args, f"no_{name}")]
    text = ""
    for label in NETWORKS:
        command = [sys.executable, "-m", "benchmarks.step", "--network", label, *options]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
        part = result.stdout if not text else result.stdout[result.stdout.index("###") :]
        print(part, end="", flush=True)
        text += part
    if args.out:
        Path(args.out).write_text("# One training step\n\n" + text, encoding="utf-8")


def main():
    count = at_least(int, 1)
    parser = argparse.ArgumentParser(description="One DCGAN training step, nanogan beside torch.")
    parser.add_argument("--network", choices=(*NETWORKS, "all"), default="all", help="default: all")
    parser.add_argument("--batch-size", type=count, help="instead of the network's own")
    parser.add_argument("--rounds", type=count, default=9, help="timed steps of each contender (default: 9)")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes a minute")
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    parser.add_argument("--out", metavar="FILE", help="write the table there too (Markdown)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(*json.loads(args.child))

    if args.network == "all":  # a process for each, which knows nothing of the networks before
        return every_network(args)
    lines = [f"- {line}" for line in machine.describe()]
    lines += [f"- {args.rounds} rounds in alternation, one untimed step before each timed one; float32", ""]
    print("\n".join(lines), flush=True)
    names = [name for name in CONTENDERS if not (args.no_compile and name == "torch compiled")]
    network = NETWORKS[args.network] | ({"batch_size": args.batch_size} if args.batch_size else {})
    times, failures = measure(network, args.rounds, names)
    rows = table(args.network, network, times, failures, not args.no_memory)
    print("\n".join(rows), flush=True)
    lines += rows
    if args.out:
        Path(args.out).write_text("# One training step\n\n" + "\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
