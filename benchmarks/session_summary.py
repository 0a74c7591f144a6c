"""The summary of a session on a GPU: of each part what is wrong, then what is fast, in a hundred lines.

It reads what the parts printed and the tables that they wrote, as far as they came.
"""

import contextlib
import importlib.util
import re

LONGEST = 100  # lines of the summary
NEEDED = {  # module: (package, what needs it)
    "numpy": ("numpy", "nanogan"),
    "PIL": ("pillow", "nanogan"),
    "safetensors": ("safetensors", "nanogan"),
    "threadpoolctl": ("threadpoolctl", "nanogan"),
    "tqdm": ("tqdm", "nanogan"),
    "cupy": ("cupy-cuda13x[ctk]", "nanogan on a GPU"),
    "ml_dtypes": ("ml_dtypes", "bf16 on a GPU"),
    "torch": ("torch", "step, operations, epoch, and some tests"),
    "pytest": ("pytest", "the tests"),
    "hypothesis": ("hypothesis", "the tests"),
    "xdist": ("pytest-xdist", "tests in several processes; without it they take longer"),
    "sklearn": ("scikit-learn", "some tests"),
    "scipy": ("scipy", "some tests"),
}


def missing():
    """Return a line for each package that is not installed, and what needs it."""
    return [
        f"missing: {package}, for {why}"
        for module, (package, why) in NEEDED.items()
        if importlib.util.find_spec(module) is None
    ]


def summary(rows, texts, tables):
    """Return the lines of the summary, at most LONGEST.

    rows: (part, status, seconds, limit). texts, tables: {name of a part: what it printed, its table}.
    """
    lines = ["# GPU session", "", *versions(tables), *(f"- {line}" for line in missing()), ""]
    lines += ["| part | ended | seconds | limit |", "|---|---|---|---|"]
    for part, status, seconds, limit in rows:
        ended = {0: "ok", 1: "status 1: something is wrong"}.get(status, status)
        lines.append(f"| {part.name} | {ended} | {seconds:.0f} | {limit:.0f} |")
    readers = {"check": of_check, "pytest": of_pytest, "step": of_step, "epoch": of_epoch, "operations": of_operations}
    for part, status, *_ in rows:
        text, table = texts.get(part.name, ""), tables.get(part.name, "")
        if part.name == "info" and status == 0:
            continue  # the versions are above
        shown = readers[part.name](text, table) if part.name in readers else []
        if not shown:
            shown = [line for line in (table or text).splitlines() if line.strip()][-part.tail :]
            shown = ["```", *shown, "```"] if shown else ["it printed nothing"]
        lines += ["", f"## {part.name}", "", *shown]
    lines = [line[:220] for line in lines]
    if len(lines) > LONGEST:
        lines = [*lines[: LONGEST - 1], f"... and {len(lines) - LONGEST + 1} more lines, in the tables"]
    return lines


def versions(tables):
    """The lines of the check's table that name card, driver, CUDA, CuPy and torch."""
    table = tables.get("check") or ""
    return [line for line in table.splitlines() if re.match(r"- (card|driver|CuPy|torch|NumPy|processor|cores):", line)]


def of_check(text, table):
    """How many questions there are, and what is wrong: of each group the first ones."""
    counts = [line for line in table.splitlines() if re.match(r"\d+ questions", line)]
    wrong = [line for line in table.splitlines() if line.startswith("- WRONG")]
    groups = {}
    for line in wrong:
        groups.setdefault(line.split(":")[1], []).append(line)
    shown = [line for lines in groups.values() for line in lines[:3]][:15]
    left = [f"- ... and {len(wrong) - len(shown)} more in check.md"] if len(wrong) > len(shown) else []
    facts = [
        line.strip("| ").replace(" | ", ": ").removesuffix(": -")
        for line in table.splitlines()
        if re.match(r"\| (ceilings|long) \|", line) or "time of a step" in line
    ]
    lines = [*counts, "", *shown, *left, *(f"- {line}" for line in facts[:12])]
    return lines if counts else []


def of_pytest(text, table):
    """The last line, and what failed; of a run that was stopped, how far it came."""
    lines = text.splitlines()
    failed = sorted({m[2] for m in (re.search(r"(FAILED|ERROR)\s+(tests/\S+)", line) for line in lines) if m})
    done = sum(bool(re.search(r"\b(PASSED|FAILED|SKIPPED|ERROR|XFAIL)\b", line)) for line in lines)
    last = [line.strip("= ") for line in lines if re.match(r"=+ .*(passed|failed|skipped|error|deselected)", line)]
    left = [f"- ... and {len(failed) - 10} more"] if len(failed) > 10 else []
    return [last[-1] if last else f"stopped after {done} results", *(f"- {name}" for name in failed[:10]), *left]


def of_step(text, table):
    """What each contender takes beside torch's best in equal precision; of a third network on, the fastest alone."""
    head = "| | ms a step | speed, torch's best in this precision = 1 | loss off by |"
    lines = []
    for number, part in enumerate(table.split("\n### ")[1:] if "\n### " in table else []):
        label, *rest = part.splitlines()
        rows, failed = [], []
        for line in rest:
            cells = _cells(line)
            if not line.startswith(("| torch", "| nanogan")):
                continue
            if not cells[1].startswith("does not run"):
                rows.append(f"| {cells[0]} | {cells[1]} | {cells[4]} | {cells[6]} |")
            elif "want of time" not in cells[1]:
                failed.append(f"- {cells[0]} {cells[1][:100]}")
        fastest = [
            line for line in rest if line.startswith(("The fastest of each", "left out", "did not end", "failed"))
        ]
        lines += ["", label, ""]
        if number < 2:
            more = [f"- ... and {len(failed) - 4} more that do not run"] if len(failed) > 4 else []
            lines += [*([head, "|---|---|---|---|", *rows, ""] if rows else []), *failed[:4], *more]
        lines += fastest if fastest or rows else ["no contender was measured"]
    return lines[1:]


def of_epoch(text, table):
    """Its rows, without those that do not run."""
    rows = [line for line in table.splitlines() if line.startswith("| ") and "does not run" not in line]
    return [*rows[:1], "|---|---|---|---|---|", *rows[1:14]] if rows else []


def of_operations(text, table):
    """The rows in which nanogan is slowest beside torch."""
    rows = []
    for line in table.splitlines():
        cells = _cells(line)
        with contextlib.suppress(ValueError, IndexError):
            rows.append((float(cells[5]), cells))
    chosen = [f"| {' | '.join(c[:6])} |" for _, c in sorted(rows, key=lambda row: row[0])[:8]]
    if not chosen:
        return []
    head = "| the slowest beside torch | | products | nanogan, ms | torch, ms | speed, torch = 1 |"
    return [head, "|---|---|---|---|---|---|", *chosen]


def _cells(line):
    """Return the cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip("| ").split("|")]
