"""How a training step's time grows with batch, width and threads; nanogan beside torch (channels-last, D frozen).

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m benchmarks.scaling --out benchmarks/results/scaling-cpu.md

Every setting runs in a process of its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import machine
from benchmarks.step import NETWORKS, measure
from nanogan import cli
from nanogan.cli import at_least

TORCH = "torch channels_last, D frozen"


def child(network, threads, rounds):
    """Print the median step of both, in seconds."""
    import torch

    torch.set_num_threads(threads)
    times, failures, _ = measure(network, rounds, ("nanogan", TORCH))
    if failures:
        raise RuntimeError(failures)
    print(json.dumps([statistics.median(times[name]) for name in ("nanogan", TORCH)]))


def run(network, threads, rounds):
    """Return the medians of nanogan and torch, in seconds, measured in a new process."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--child", json.dumps([network, threads, rounds])]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": str(threads), "NANOGAN_THREADS": str(threads)}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    return json.loads(result.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description="A training step's time by batch, width and threads.")
    parser.add_argument("--rounds", type=at_least(int, 1), default=5, help="default: 5")
    parser.add_argument("--out", type=cli.path, metavar="FILE", help="write the table there too (Markdown)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(*json.loads(args.child))

    cores = os.cpu_count() or 1
    settings = [("64", {"batch_size": n}, cores) for n in (16, 32, 64, 128, 256)]
    settings += [("64", {"width": n}, cores) for n in (16, 32, 128)]
    settings += [("32", {"batch_size": n}, cores) for n in (16, 64, 256)]
    settings += [("mnist", {"batch_size": n}, cores) for n in (32, 128, 512)]
    settings += [(name, {}, 1) for name in ("64", "32", "mnist")]
    lines = [f"- {line}" for line in machine.describe()]
    lines += [f"- medians of {args.rounds} windows of steps in alternation; float32", ""]
    lines += [
        "| network | width | batch | threads | nanogan, ms an image | torch, ms an image | speed, torch = 1 |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name, change, threads in settings:
        network = NETWORKS[name] | change
        ours, theirs = (seconds / network["batch_size"] * 1e3 for seconds in run(network, threads, args.rounds))
        label = f"{network['image_size']} x {network['image_size']} x {network['channels']}"
        cells = (label, network["width"], network["batch_size"], threads, f"{ours:.3f}", f"{theirs:.3f}")
        lines.append("| " + " | ".join(map(str, cells)) + f" | {theirs / ours:.2f} |")
        print(lines[-1], flush=True)
    if args.out:
        Path(args.out).write_text("# How a step scales\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
