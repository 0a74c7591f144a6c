"""``python -m benchmarks`` is ``python -m benchmarks.step``, the whole training step."""

from benchmarks.step import main
from nanogan import cli

if __name__ == "__main__":
    cli.run(main)
