"""``python -m benchmarks`` is ``python -m benchmarks.step``, the whole training step."""

import sys

from benchmarks.step import main

if __name__ == "__main__":
    sys.exit(main())
