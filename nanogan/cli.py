"""What all scripts share: the common flags, and exits that say in one sentence what went wrong."""

import argparse
import signal
import sys
from contextlib import contextmanager

from nanogan.errors import TrainingDiverged, UserError


def parser(description, *, out):
    """Return an argument parser with the flags that every example has; ``out`` is the default output folder."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    result.add_argument("--device", default="cpu", help="cpu, gpu, or gpu:N for one of several")
    result.add_argument("--seed", type=at_least(int, 0), default=0, help="same seed, same machine: same result")
    result.add_argument("--out", default=out, metavar="DIR", help="folder for everything that is written")
    result.add_argument("--dry-run", action="store_true", help="a few steps of the real thing, in seconds")
    return result


def at_least(kind, low, *, above=False, high=None):
    """Return an argparse type: an int or float from ``low`` on (``above``: not low itself), at most ``high``."""
    bound = f"{'above' if above else 'of at least'} {low}" + (f" and at most {high}" if high is not None else "")
    noun = "a whole number" if kind is int else "a number"

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {noun} {bound}, got {text!r}") from None
        fits = (value > low if above else value >= low) and value <= (float("inf") if high is None else high)
        if not fits or value == float("inf"):
            raise argparse.ArgumentTypeError(f"expected {noun} {bound}, got {text!r}")
        return value

    return convert


def run(main):
    """Call ``main()`` and exit: 0 if it returns, 2 for a user's mistake, 1 for other failures, 130 after Ctrl-C.

    Errors that a user can mend, full disks and exhausted memory are told in one sentence, without a traceback.
    """
    name = sys.argv[0].rsplit("/", 1)[-1]
    try:
        sys.exit(main())
    except UserError as error:
        code, message = 2, f"error: {error}"
    except TrainingDiverged as error:
        code, message = 1, f"error: {error}"
    except OSError as error:
        code, message = 1, f"error: {error}"
    except MemoryError as error:
        code, message = 1, f"error: out of memory ({error}): use a smaller --batch-size, --width or --image-size"
    except KeyboardInterrupt:
        code, message = 130, "stopped"
    print(f"{name}: {message}", file=sys.stderr)
    sys.exit(code)


@contextmanager
def ctrl_c_between_steps():
    """Yield a function that says whether Ctrl-C was pressed, so that a step is finished first.

    A second Ctrl-C stops at once. Outside the main thread, where signals cannot be caught, it is always False.
    """
    pressed = []

    def note(number, frame):
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not in the main thread
        yield lambda: False
        return
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
