"""``python -m nanogan.report RUN_FOLDER``: write report.html about a run, and print where it is."""

import argparse

from nanogan import cli
from nanogan.report.page import write_report


def main():
    parser = argparse.ArgumentParser(
        prog="python -m nanogan.report",
        description="Write report.html, one page that needs no network, about a run, and print where it is.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=cli.path, metavar="RUN_FOLDER", help="the --out of a training")
    print(write_report(parser.parse_args().run))


if __name__ == "__main__":
    cli.run(main, alone=True)
