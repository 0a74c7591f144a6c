"""Which test notices which mistake?

python -m tests.sabotage                  every mistake, with the first test that failed
python -m tests.sabotage adam conv        those whose title holds "adam" or "conv"
python -m tests.sabotage --part 3/20      every 20th, from number 3 on
"""

import argparse
import json
import os
import sys


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.sabotage", description=__doc__.split("\n")[0])
    parser.add_argument("text", nargs="*", help="only mistakes whose title holds one of these")
    parser.add_argument("--part", metavar="I/N", default="0/1", help="every N-th, from number I on")
    parser.add_argument("--jobs", type=int, help="mistakes tried at a time; one for each core if not given")
    parser.add_argument("--json", action="store_true", help="print {title: test}")
    args = parser.parse_args()
    for library in ("OPENBLAS", "OMP", "MKL"):  # the work is split among mistakes; and who forks has no threads
        os.environ[f"{library}_NUM_THREADS"] = "1"
    os.environ.setdefault("HYPOTHESIS_PROFILE", "sabotage")

    from tests.sabotage.catalogue import all_mistakes
    from tests.sabotage.judges import judges
    from tests.sabotage.run import Broken, first_failures
    from tests.sabotage.trees import NotFound

    def can_be_made(mistake):
        try:
            return mistake.node is not None and bool(judges(mistake))
        except NotFound as error:
            print(f"cannot be made: {error}", file=sys.stderr)
            return False

    start, step = map(int, args.part.split("/"))
    chosen = [m for m in all_mistakes() if not args.text or any(text in m.title for text in args.text)]
    chosen = list(filter(can_be_made, chosen[start::step]))
    out = sys.stdout

    def told(mistake, test):
        if not args.json:
            print(f"{mistake.title:80} {test or 'SURVIVES'}", file=out, flush=True)

    try:
        found = first_failures(chosen, jobs=args.jobs, told=told)
    except Broken as error:
        sys.exit(f"the tests cannot judge: {error}")
    survivors = [title for title, test in found.items() if test is None]
    print(json.dumps(found) if args.json else f"{len(found)} mistakes, {len(survivors)} survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
