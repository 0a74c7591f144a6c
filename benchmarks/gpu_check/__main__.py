"""The command line: a process for each group of questions, a new one after an error, and the table of answers."""

import argparse
import contextlib
import importlib.metadata
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from subprocess import PIPE, STDOUT, TimeoutExpired

from benchmarks import processes, tables
from benchmarks.gpu_check.questions import GROUPS, answers
from benchmarks.processes import GPU_LOST
from nanogan import backend, cli
from nanogan.cli import at_least
from nanogan.errors import UserError
from nanogan.info.machine import driver, machine_of_a_run

TITLE = "Is it right on this machine?"
PROCESSES = 4  # of a group, at most
STOPPED = (130, -signal.SIGINT)  # exit statuses after Ctrl-C, which reaches the groups' processes too


def one_group(name, group, after):
    """Print a group's answers as lines of JSON; return GPU_LOST if the GPU can no longer be used."""
    device = backend.get_device(name)
    for question, answer, right in answers(device, group, after):
        print(json.dumps([question, answer, right]), flush=True)
        if device.kind == "gpu" and right is False:
            try:
                device.array_module.cuda.get_current_stream().synchronize()
                int(device.array_module.ones(3).sum())
            except Exception as lost:
                print(json.dumps(["", f"the GPU was lost there: {tables.reason(lost)}", False]), flush=True)
                return GPU_LOST
    return 0


class Table:
    """Answers of all groups, written to a file after each."""

    def __init__(self, lines, out):
        self.lines, self.out, self.rows, self.lock = lines, out, {group: [] for group in GROUPS}, threading.Lock()

    def add(self, group, question, answer, right):
        with self.lock:
            self.rows[group].append((question, answer, right))
            print(f"{_mark(right):>5}  {group}: {question}: {answer}", flush=True)
            tables.save(self.out, TITLE, self.text())

    def text(self):
        """The table, in Markdown; what is wrong stands above it."""
        rows = [(group, *row) for group, rows in self.rows.items() for row in rows]
        wrong = [row for row in rows if row[3] is False]
        counts = f"{len(rows)} questions: {sum(r[3] is True for r in rows)} right, {len(wrong)} wrong, "
        counts += f"{sum(r[3] is None for r in rows)} for information"
        lines = [*self.lines, "", counts + ".", ""]
        lines += [f"- WRONG: {group}: {question}: {answer}" for group, question, answer, _ in wrong]
        lines += ["", "| | question | answer | right? |", "|---|---|---|---|"]
        for row in rows:
            lines.append(tables.row(str(cell).replace("|", "/") for cell in (*row[:3], _mark(row[3]))))
        return "\n".join(lines) + "\n"

    @property
    def all_right(self):
        return not any(right is False for rows in self.rows.values() for *_, right in rows)


def _mark(right):
    return {True: "yes", False: "NO", None: "-"}[right]


def ask(group, device, table, ends, jobs=1, patience=None):
    """Ask a group's questions in a process; after one that loses the GPU, dies or hangs, the rest in a new process.

    ends: when all is to be over, by time.perf_counter(). jobs: how many groups are asked at once. patience: the seconds
    after which a question hangs.
    """
    asked, threads = 0, max(1, (os.cpu_count() or 1) // jobs)
    environment = {"OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", str(threads))}
    for _ in range(PROCESSES):
        command = processes.python("benchmarks.gpu_check", "--device", device, "--group", group, "--after", asked)
        process = processes.start(
            command, environment, stdout=PIPE, stderr=STDOUT, encoding="utf-8", errors="replace"
        )  # fmt: skip
        messages, problem = [], None
        try:
            for line in processes.lines_of(process, ends, patience):
                answer = answer_of(line)
                if answer is None:
                    messages.append(line.strip())
                    continue
                asked += bool(answer[0])
                table.add(group, answer[0] or "(the same)", *answer[1:])
        except TimeoutExpired:
            problem = f"no answer in {patience or 0:.0f} s"
        if process.returncode in (0, *STOPPED):
            return
        if time.perf_counter() >= ends:
            table.add(group, f"question {asked + 1} and what follows", "out of time", False)
            return
        if process.returncode != GPU_LOST:  # it died of the question that it was asked
            last = next((line for line in reversed(messages) if line), "no message")
            problem = problem or f"its process ended with status {process.returncode}: {last[:200]}"
            table.add(group, f"question {asked + 1}", problem, False)
            asked += 1
    table.add(group, f"question {asked + 1} and what follows", f"not asked, after {PROCESSES} processes", False)


def answer_of(line):
    """Return (question, answer, right) of a line that :func:`one_group` printed, None of any other."""
    try:
        question, answer, right = json.loads(line)
    except (ValueError, TypeError):
        return None
    is_answer = isinstance(question, str) and isinstance(answer, str) and (right is None or isinstance(right, bool))
    return (question, answer, right) if is_answer else None


def described(device):
    """Return lines that name the machine: card, driver, CUDA, CuPy, torch."""
    about = machine_of_a_run(device)
    about["driver"] = driver()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        about["torch"] = importlib.metadata.version("torch")
    names = ("card", "driver", "CuPy", "torch", "NumPy", "processor", "cores", "nanogan", "Python")
    return [f"- {name}: {about[name]}" for name in names if name in about]


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
        table = Table(described(args.device), args.out)
    except UserError as problem:
        parser.error(str(problem))
    groups = [group for group in GROUPS if not args.only or group in args.only]
    if "ceilings" in groups:  # alone: the other groups would be measured with it
        ask("ceilings", args.device, table, ends, patience=args.budget / 2)
        groups.remove("ceilings")
    first = ("graph", "operations", "networks", "games")  # the longest first
    groups.sort(key=lambda group: first.index(group) if group in first else len(first))
    jobs = args.jobs or max(1, min(5, (os.cpu_count() or 2) // 2))
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for job in [pool.submit(ask, group, args.device, table, ends, jobs, args.budget / 2) for group in groups]:
                job.result()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    text = table.text()
    print(f"\n# {TITLE}\n\n{text[: text.index('| | question')]}", flush=True)
    return 0 if table.all_right else 1


if __name__ == "__main__":
    cli.run(main)
