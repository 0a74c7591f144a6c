"""How well does a game do, over several seeds? What its example measures, run after run.

    python -m benchmarks.games acgan --seeds 0 1 2 --out benchmarks/results/games/acgan.md
    python -m benchmarks.games lsgan --seeds 0 1 2 -- --epochs 1        what stands behind -- goes to the example

Each seed is a run of examples/NAME.py in its own process and its own folder below --runs; a number is that of the run's
last epoch. Seconds are the run's: training, samples and measuring, without reading the data.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import machine, tables
from nanogan import cli
from nanogan.cli import at_least
from nanogan.disk import writable_folder
from nanogan.errors import UserError
from nanogan.report.what_a_run_left import read_log

EXAMPLES = Path(__file__).parents[1] / "examples"


def measured(folder):
    """Return {name: number} of a run's last row in measures.csv, its "seconds" among them.

    Raises UserError if nothing was measured.
    """
    log, _ = read_log(Path(folder) / "measures.csv")
    if not len(log["step"]):
        raise UserError(f"nothing was measured in {folder}: expected an example that writes measures.csv")
    return {name: float(values[-1]) for name, values in log.items() if name not in ("epoch", "step")}


def table(found):
    """Return a Markdown table of {seed: {name: number}}: a row for each number, its mean and standard deviation."""
    rows = ["| | " + " | ".join(f"seed {seed}" for seed in found) + " | mean | standard deviation |"]
    rows.append("|---" * (len(found) + 3) + "|")
    for name in next(iter(found.values())):
        values = [numbers[name] for numbers in found.values()]
        spread = f"{statistics.stdev(values):.2g}" if len(values) > 1 else ""
        rows.append(
            f"| {name} | " + " | ".join(f"{v:.4g}" for v in values) + f" | {statistics.mean(values):.4g} | {spread} |"
        )
    return "\n".join(rows)


def run(name, seed, folder, flags):
    """Run an example with a seed; raises UserError if it fails."""
    command = [sys.executable, EXAMPLES / f"{name}.py", "--seed", str(seed), "--out", folder, *flags]
    status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if status:
        raise UserError(f"examples/{name}.py with seed {seed} ended with status {status}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", metavar="NAME", help="of an example: acgan is examples/acgan.py")
    parser.add_argument("--seeds", type=at_least(int, 0), nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--runs", default="runs/games", type=cli.path, metavar="FOLDER", help="default: runs/games")
    parser.add_argument("--out", type=cli.path, metavar="FILE", help="write the table there too (Markdown)")
    own, flags = sys.argv[1:], []
    if "--" in own:
        own, flags = own[: own.index("--")], own[own.index("--") + 1 :]
    args = parser.parse_args(own)
    if not (EXAMPLES / f"{args.name}.py").is_file():
        parser.error(f"there is no examples/{args.name}.py")
    found = {}
    try:
        if args.out:
            writable_folder(Path(args.out).parent)
        for seed in sorted(args.seeds):
            folder = writable_folder(Path(args.runs) / f"{args.name}-{seed}")
            run(args.name, seed, folder, flags)
            found[seed] = measured(folder)
            print(f"seed {seed}: {json.dumps(found[seed])}", flush=True)
    except UserError as error:
        parser.error(str(error))
    lines = [
        *machine.about(),
        "- `python " + " ".join([f"examples/{args.name}.py", "--seed N", *flags]) + "`",
        "",
        table(found),
    ]
    text = "\n".join(lines) + "\n"
    print(f"# {args.name}\n\n{text}")
    tables.save(args.out, args.name, text)


if __name__ == "__main__":
    cli.run(main)
