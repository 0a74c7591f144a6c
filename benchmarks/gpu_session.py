"""Everything that wants a GPU, in one command and within a time: its tests first, then the benchmarks.

    python -m benchmarks.gpu_session --budget 540 --out FOLDER

Each part is a process with a time limit of its own; one that fails or hangs costs only its share. Its output is in
FOLDER/<part>.txt, its table in FOLDER/<part>.md, as far as it came. The summary comes last, on the standard output.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from nanogan import cli
from nanogan.cli import at_least

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Part:
    """A command, in order of importance. ``share`` is how much of the time that is left it may take."""

    name: str
    command: tuple  # "{budget}" and "{out}" stand for its own time, with a margin, and the file of its table
    share: float
    tail: int = 3  # lines of its output that the summary shows


def parts(device, quick):
    """Return the parts of a session on ``device``."""
    python = sys.executable
    step = (python, "-m", "benchmarks.step", "--device", device, "--budget", "{budget}", "--out", "{out}")
    operations = (python, "-m", "benchmarks.operations", "--device", device, "--budget", "{budget}", "--out", "{out}")
    epoch = (python, "-m", "benchmarks.epoch", "--device", device, "--budget", "{budget}", "--out", "{out}")
    # warnings stay warnings: this machine's packages may be newer than those that the tests are held to
    tests = (python, "-m", "pytest", "-m", "gpu", "-q", "-W", "default", "-p", "no:cacheprovider", "tests")
    if quick:
        step += ("--quick",)
        operations += ("--rounds", "3")
        epoch += ("--rounds", "1", "--pictures", "12800")
    if device == "cpu":  # shows that a session works
        step += ("--network", "tiny", "--rounds", "1", "--no-memory", "--no-compile")
        operations += ("--network", "tiny", "--rounds", "1")
        epoch += ("--network", "tiny", "--pictures", "80")
    return [
        Part("info", (python, "-m", "nanogan.info", "--device", device), 0.1, 40),
        Part("pytest", tests, 0.4, 15),
        Part("step", step, 0.65, 40),
        Part("operations", operations, 0.5, 80),
        Part("epoch", epoch, 0.95, 12),
    ]


def run(part, limit, out):
    """Run ``part`` for at most ``limit`` seconds; return its exit status, or "out of time"."""
    budget = str(max(10, int(0.8 * limit)))  # it stops by itself, and then has the rest to end in
    table = out / f"{part.name}.md"
    command = [word.replace("{budget}", budget).replace("{out}", str(table)) for word in part.command]
    with open(out / f"{part.name}.txt", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return "out of time"
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # with the workers that it left
            process.wait()


def main():
    parser = argparse.ArgumentParser(description="The tests and benchmarks that want a GPU, within a time.")
    parser.add_argument("--device", default="gpu", help="gpu, gpu:N; cpu shows that it works (default: gpu)")
    parser.add_argument("--budget", type=at_least(int, 30), default=540, metavar="SECONDS", help="default: 540")
    parser.add_argument("--out", required=True, type=cli.path, metavar="DIR", help="folder of the output")
    parser.add_argument("--only", action="append", metavar="PART", help="this part alone; may be repeated")
    parser.add_argument("--quick", action="store_true", help="less of each: for --budget 240")
    args = parser.parse_args()
    out, begun, rows = Path(args.out), time.perf_counter(), []
    out.mkdir(parents=True, exist_ok=True)
    for part in parts(args.device, args.quick):
        if args.only and part.name not in args.only:
            continue
        left = args.budget - (time.perf_counter() - begun)
        if left < 10:
            rows.append((part, "not begun, for want of time", 0.0))
            continue
        start = time.perf_counter()
        print(f"{part.name}: up to {part.share * left:.0f} s", flush=True)
        status = run(part, part.share * left, out)
        rows.append((part, status, time.perf_counter() - start))

    for part, status, seconds in rows:
        print(f"\n==== {part.name}: {'ok' if status == 0 else f'status {status}'}, {seconds:.0f} s")
        source = out / f"{part.name}.md"
        source = source if source.exists() else out / f"{part.name}.txt"
        if source.exists():
            text = source.read_text(encoding="utf-8", errors="replace").splitlines()
            print("\n".join(line[:240] for line in text[-part.tail :]))
    return 0 if all(status == 0 for _, status, _ in rows) else 1


if __name__ == "__main__":
    cli.run(main)
