"""How a training step's time grows with batch, width and threads; nanogan beside torch (channels-last, D frozen).

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m benchmarks.scaling --out benchmarks/results/scaling-cpu.md

Every setting runs in a process of its own.
"""

import argparse
import json
import os
import statistics

from benchmarks import machine, processes, tables
from benchmarks.networks import NETWORKS
from benchmarks.step import measure
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
    command = processes.python("benchmarks.scaling", "--child", json.dumps([network, threads, rounds]))
    environment = {"OPENBLAS_NUM_THREADS": str(threads), "NANOGAN_THREADS": str(threads)}
    return processes.last_line(command, environment=environment)


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
    settings += [("mnist", {"batch_size": n}, cores) for n in (32, 64, 128, 512)]
    settings += [(name, {}, 1) for name in ("64", "32", "mnist")]
    lines = machine.about()
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
        figures = f"{ours:.3f}", f"{theirs:.3f}", f"{theirs / ours:.2f}"
        lines.append(tables.row((label, network["width"], network["batch_size"], threads, *figures)))
        print(lines[-1], flush=True)
    tables.save(args.out, "How a step scales", lines)


if __name__ == "__main__":
    cli.run(main)
