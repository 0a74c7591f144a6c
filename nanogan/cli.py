"""What all scripts share: the common flags, and exits that say in one sentence what went wrong."""

import argparse
import os
import shlex
import subprocess
import sys

from nanogan.errors import TrainingDiverged, UserError


def parser(description, *, out):
    """Return an argument parser with the flags that every example has; ``out`` is the default output folder."""
    result = argparse.ArgumentParser(description=description, formatter_class=_HelpFormatter, allow_abbrev=False)
    result.add_argument("--device", default="cpu", help="cpu, gpu, or gpu:N for one of several")
    result.add_argument("--seed", type=at_least(int, 0), default=0, help="same seed, same machine: same result")
    result.add_argument("--out", default=out, metavar="DIR", help="output folder; a run in it is kept in DIR/previous")
    result.add_argument("--dry-run", action="store_true", help="a few steps of the real thing, in seconds")
    return result


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each option's default, unless it is None or False."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False:  # 0 is a default like any other
            return action.help
        return super()._get_help_string(action)


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


def command(*arguments):
    """Return the command line, quoted for the shell, that starts this script as it was started, with ``arguments``."""
    start = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]  # the interpreter, its options, the script
    words = [*start, *map(str, arguments)]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def run(main):
    """Call ``main()`` and exit: 0 if it returns, 2 for a user's mistake, 1 for other failures, 130 after Ctrl-C.

    Errors that a user can mend, full disks and exhausted memory are reported in one sentence, without a traceback.
    """
    name = sys.argv[0].rsplit("/", 1)[-1]
    sys.stdout.reconfigure(line_buffering=True)  # a log in a file can be followed, and is whole if the run is killed
    try:
        status = main()
        sys.stdout.flush()
        sys.exit(status)
    except UserError as error:
        code, message = 2, f"error: {error}"
    except TrainingDiverged as error:
        code, message = 1, f"error: {error}"
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more at its end
        code, message = 1, "error: nobody reads the output any more: stopped"
    except OSError as error:
        code, message = 1, f"error: {error}"
    except MemoryError as error:  # CuPy's OutOfMemoryError is one
        code, message = 1, _out_of_memory(error)
    except KeyboardInterrupt:
        code, message = 130, "stopped"
    except Exception as error:
        if not type(error).__module__.startswith(("cupy", "cupy_backends")):
            raise
        code, message = 1, _gpu_failed(error)
    print(f"{name}: {message}", file=sys.stderr)
    sys.exit(code)


def _out_of_memory(error):
    return (
        f"error: out of memory ({error}): use smaller batches (--batch-size), networks (--width) or pictures "
        "(--image-size), or draw fewer"
    )


def _gpu_failed(error):
    """One sentence for an error of CUDA's libraries; some are short of memory too, and say so in their own way."""
    text = (" ".join(str(error).split()) or type(error).__name__)[:300]  # a compiler's log may be long
    if "ALLOC_FAILED" in text or "MemoryAllocation" in text:
        return _out_of_memory(text)
    return (
        f"error: the GPU stopped working ({text}): start again, from the last checkpoint if there is one; if it "
        "happens again, look at nvidia-smi and the driver's log, or use --device cpu"
    )
