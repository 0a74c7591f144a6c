"""Everything that wants a GPU, in one command and within a time: is it right? Then: how fast is it?

    python -m benchmarks.gpu_session --out FOLDER                      seven and a half minutes
    python -m benchmarks.gpu_session --device cpu --quick --out FOLDER     shows that it works

Each part is a process with a time limit; one that fails or hangs costs only its share, and what one does not use goes
to those after it. FOLDER then holds summary.md, a table FOLDER/<part>.md of each part, as far as it came, and log.txt
with all that was printed. The summary is written anew after each part, and printed at the end.
"""

import argparse
import contextlib
import importlib.util
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT, TimeoutExpired

from benchmarks import processes
from benchmarks.session_summary import missing, summary


@dataclass(frozen=True)
class Part:
    """A command, in order of importance. ``weight``: its share of the time, beside those of the parts after it."""

    name: str
    command: tuple  # "{budget}" and "{out}" stand for its own time, with a margin, and the file of its table
    weight: float
    tail: int = 3  # lines of its output that the summary shows if it left no table
    threads: int | None = None  # of NumPy's products, where it runs several processes


def parts(device, quick):
    """Return the parts of a session on ``device``."""
    cpu = device == "cpu"

    def module(name, *options, table=True):
        options = ("--device", device, *(("--budget", "{budget}", "--out", "{out}") if table else ()), *options)
        return tuple(processes.python(name, *options))

    # warnings stay warnings: this machine's packages may be newer than those that the tests are held to
    tests = tuple(processes.python("pytest", "-m", "gpu", "-v", "--tb=short", "-W", "default"))
    tests += ("-p", "no:cacheprovider")
    tests += ("--continue-on-collection-errors",)  # a package that is missing costs the tests that need it
    tests += ("-n", "6") if importlib.util.find_spec("xdist") else ()
    step, operations, kernels = ("--quick",), ("--rounds", "3"), ("--out", "{out}")
    epoch = ("--network", "mnist", "--rounds", "1" if quick else "2")
    if quick:
        step += ("--rounds", "3")
        epoch += ("--pictures", "12800")
    if cpu:
        step = ("--network", "tiny", "--rounds", "1", "--no-memory", "--no-compile")
        operations = ("--network", "tiny", "--rounds", "1")
        epoch = ("--network", "tiny", "--pictures", "80", "--rounds", "1")
    result = [
        Part("info", module("nanogan.info", table=False), 15, 30),
        Part("check", module("benchmarks.gpu_check"), 120),
        Part("pytest", (*tests, "tests"), 130, 15, threads=2),
        Part("step", module("benchmarks.step", *step), 105),
        Part("operations", module("benchmarks.operations", *operations), 35),
        Part("kernels", module("benchmarks.kernels", *kernels, table=False), 30, 10),
        Part("epoch", module("benchmarks.epoch", *epoch), 35),
    ]
    return [part for part in result if part.name != "kernels" or not cpu]  # a CPU has none of these kernels


def limits(parts, left):
    """Return the seconds that the first of ``parts`` may take of those that are left."""
    return left * parts[0].weight / sum(part.weight for part in parts)


def run(part, limit, out):
    """Run ``part`` for at most ``limit`` seconds; return its exit status, or "out of time"."""
    budget = str(max(10, int(0.8 * limit)))  # it stops by itself, and then has the rest to end in
    table = out / f"{part.name}.md"
    command = [word.replace("{budget}", budget).replace("{out}", str(table)) for word in part.command]
    threads = {} if part.threads is None else {"OPENBLAS_NUM_THREADS": str(part.threads)}
    with open(out / f"{part.name}.txt", "w", encoding="utf-8") as log:
        environment = {"PYTHONUNBUFFERED": "1"} | threads
        process = processes.start(command, environment, stdout=log, stderr=STDOUT, start_new_session=True)
        try:
            return process.wait(limit)
        except TimeoutExpired:
            return "out of time"
        finally:
            processes.kill(process, session=True)  # with the workers that it left


def absolute_path(text):
    """A path of the command line; the parts run in the checkout, so it must not depend on the working folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a path, got an empty one")
    return Path(text).expanduser().absolute()


def main():
    parser = argparse.ArgumentParser(description="The checks, tests and benchmarks that want a GPU, within a time.")
    parser.add_argument("--device", default="gpu", help="gpu, gpu:N; cpu shows that it works (default: gpu)")
    parser.add_argument("--budget", type=int, default=450, metavar="SECONDS", help="default: 450")
    parser.add_argument("--out", type=absolute_path, required=True, metavar="FOLDER", help="folder of the output")
    parser.add_argument("--only", action="append", metavar="PART", help="this part alone; may be repeated")
    parser.add_argument("--quick", action="store_true", help="less of each: for --budget 240")
    args = parser.parse_args()
    if args.budget < 30:
        parser.error(f"--budget expected at least 30 seconds, got {args.budget}")
    todo = parts(args.device, args.quick)
    unknown = set(args.only or ()) - {part.name for part in todo}
    if unknown:
        parser.error(
            f"--only expected one of {', '.join(part.name for part in todo)}, got {', '.join(sorted(unknown))}"
        )
    out, begun, rows, texts, tables = args.out, time.perf_counter(), [], {}, {}
    out.mkdir(parents=True, exist_ok=True)
    (out / "log.txt").write_text("", encoding="utf-8")
    for line in missing():
        print(line, flush=True)
    todo = [part for part in todo if not args.only or part.name in args.only]
    lines = []
    for i, part in enumerate(todo):
        left = args.budget - (time.perf_counter() - begun)
        limit, start = limits(todo[i:], left), time.perf_counter()
        if left < 10:
            rows.append((part, "not begun, for want of time", 0.0, 0.0))
        else:
            print(f"[{time.perf_counter() - begun:4.0f} s] {part.name}: up to {limit:.0f} s", flush=True)
            (out / f"{part.name}.md").unlink(missing_ok=True)  # of a session before
            status = run(part, limit, out)
            rows.append((part, status, time.perf_counter() - start, limit))
            texts[part.name] = collected(out, part, status)
            with contextlib.suppress(OSError):
                tables[part.name] = (out / f"{part.name}.md").read_text(encoding="utf-8", errors="replace")
        lines = summary(rows, texts, tables)
        (out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n" + "\n".join(lines), flush=True)
    return 0 if all(status == 0 for _, status, *_ in rows) else 1


def collected(out, part, status):
    """Move what a part printed into log.txt, since few files come back from some machines; return it."""
    path = out / f"{part.name}.txt"
    text = path.read_text(encoding="utf-8", errors="replace")
    with open(out / "log.txt", "a", encoding="utf-8") as log:
        log.write(f"==== {part.name}: {status}\n{text}\n")
    path.unlink()
    return text


if __name__ == "__main__":
    sys.exit(main())
