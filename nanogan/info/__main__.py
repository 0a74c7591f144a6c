"""``python -m nanogan.info``: what nanogan found on this machine; paste it into a bug report.

Exits with 0 whatever is missing; with ``--device gpu`` (or gpu:N), with 2 if that device does not work.
"""

import argparse
import json

from nanogan import cli
from nanogan.errors import UserError
from nanogan.info.machine import report, usable
from nanogan.text import quoted


def text(found):
    """Lay a report out in two columns."""
    width = max(len(label) for section in found.values() for label in section)
    lines = []
    for name, section in found.items():
        lines += ["", name]
        for label, value in section.items():
            values = [quoted(line) for line in (value if isinstance(value, list) else [value])]
            lines.append(f"  {label:{width}}  {values[0]}")
            lines += [f"  {'':{width}}  {value}" for value in values[1:]]
    return "\n".join(lines[1:])


def main():
    parser = argparse.ArgumentParser(
        prog="python -m nanogan.info", description="Show what nanogan found on this machine.", allow_abbrev=False
    )
    parser.add_argument("--device", help="cpu, gpu, or gpu:N: exit with 2 if it does not work")
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_args()
    found = report()
    print(json.dumps(found, indent=2) if args.json else text(found))
    if args.device is not None:
        problem = usable(args.device)
        if problem != "works":
            raise UserError(problem)
    return 0


if __name__ == "__main__":
    cli.run(main, alone=True)
