"""A training step of the default network beside other busy programs; nanogan and torch, each in a process of its own.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m benchmarks.busy --out benchmarks/results/busy-cpu.md

The other programs are loops of Python that never wait. The fair share of a step on one thread is its quiet time times
(programs + 1) / cores, where that is above 1.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time

from benchmarks import machine, processes, tables
from benchmarks.networks import NETWORKS
from benchmarks.scaling import TORCH
from benchmarks.step import measure
from nanogan import cli
from nanogan.cli import at_least

CONTENDERS = {  # name: contender of benchmarks.step, variables
    "nanogan": ("nanogan", {}),
    "nanogan, NANOGAN_THREADS=1": ("nanogan", {"NANOGAN_THREADS": "1"}),
    "torch": (TORCH, {}),
    "torch, OMP_NUM_THREADS=1": (TORCH, {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}),
}


@contextlib.contextmanager
def busy(count):
    """Keep ``count`` cores busy meanwhile."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5 if loops else 0)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def child(contender, rounds):
    """Print how long a step took in each window of steps, in seconds."""
    times, failures, _ = measure(NETWORKS["mnist"], rounds, (contender,))
    if failures:
        raise RuntimeError(failures)
    print(json.dumps(times[contender]))


def run(name, rounds):
    """Return the times of one contender, measured in a new process."""
    contender, variables = CONTENDERS[name]
    command = processes.python("benchmarks.busy", "--child", contender, "--rounds", rounds)
    return processes.last_line(command, environment=variables)


def main():
    parser = argparse.ArgumentParser(description="A training step's time beside other busy programs.")
    parser.add_argument("--rounds", type=at_least(int, 1), default=10, help="windows of steps (default: 10)")
    parser.add_argument("--programs", type=at_least(int, 0), nargs="+", default=[0, 1, 3], help="default: 0 1 3")
    parser.add_argument("--out", type=cli.path, metavar="FILE", help="write the table there too (Markdown)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child, args.rounds)

    lines = machine.about()
    lines += [f"- 28 x 28, width 32, batch 32; {args.rounds} windows of steps: median, and the slowest", ""]
    columns = "".join(f" {n} busy loop{'s' * (n != 1)}, ms |" for n in args.programs)
    lines += [f"| |{columns}", "|---|" + "---|" * len(args.programs)]
    print("\n".join(lines), flush=True)
    for name in CONTENDERS:
        cells = []
        for count in args.programs:
            with busy(count):
                times = [seconds * 1e3 for seconds in run(name, args.rounds)]
            cells.append(f"{statistics.median(times):.1f}, {max(times):.1f}")
        lines.append(tables.row((name, *cells)))
        print(lines[-1], flush=True)
    tables.save(args.out, "A step beside busy programs", lines)


if __name__ == "__main__":
    cli.run(main)
