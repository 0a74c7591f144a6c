"""What all scripts share: the common flags, and exits that say in one sentence what went wrong."""

import argparse
import contextlib
import io
import os
import shlex
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

from nanogan import ranks
from nanogan.errors import EndedElsewhere, TrainingDiverged, UserError
from nanogan.text import one_line, quoted


def parser(description, *, out, together=False):
    """Return an argument parser with the flags that every example has; ``out`` is the default output folder.

    together: whether several processes may run the script as one, under mpiexec. Raises UserError if there are, and
    they may not.
    """
    if not together and ranks.launched().size > 1:
        raise UserError("this script runs in one process: start it without mpiexec")
    result = argparse.ArgumentParser(description=description, formatter_class=_HelpFormatter, allow_abbrev=False)
    result.add_argument("--device", default="cpu", help="cpu, gpu, or gpu:N for one of several")
    result.add_argument("--seed", type=at_least(int, 0), default=0, help="same seed, same machine: same result")
    result.add_argument(
        "--out", type=path, default=out, metavar="DIR", help="output folder; a run in it is kept in DIR/previous"
    )
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


def path(text):
    """An argparse type: the path of a file or a folder, or a data set's name; ``~`` is the home folder, as in a shell.

    A shell expands ``--out ~/x`` itself, but neither ``--out='~/x'`` nor what a notebook or a program hands over.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a path or a name, got an empty text: for the working folder write .")
    expanded = os.path.expanduser(text)
    if expanded == text and (text == "~" or text.startswith(("~/", f"~{os.sep}"))):
        raise argparse.ArgumentTypeError(f"{text!r} names no folder, as no home folder is known: write the whole path")
    return expanded


def command(*arguments):
    """Return the command line, quoted for the shell, that starts this script as it was started, with ``arguments``."""
    words = [*ranks.launcher(), *_start(), *map(str, arguments)]
    return subprocess.list2cmdline(words) if os.name == "nt" else " ".join(map(_shell_word, words))


def _start():
    """The interpreter, its options, and the script, as they stood on the command line; without one, what would do."""
    script, *arguments = sys.argv
    start = sys.orig_argv[: len(sys.orig_argv) - len(arguments)]
    if [*start, *arguments] == sys.orig_argv and (start[-1:] == [script] or start[-2:-1] == ["-m"]):
        return start
    return ["python", script]  # a notebook's %run, or a program that calls main()


def _shell_word(word):
    """Quote a word for the shell, with escapes for what a terminal would obey or cannot show."""
    if quoted(word) == word:
        return shlex.quote(word)
    harmless = {letter for letter in word if quoted(letter) == letter and letter not in "'\\"}
    escaped = "".join(letter if letter in harmless else _bytes_of(letter) for letter in word)
    return f"$'{escaped}'"


def _bytes_of(letter):
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))


def run(main, *, alone=False):
    """Call ``main()`` and exit: 0 if it returns, 2 for a user's mistake, 1 for other failures, 130 after Ctrl-C.

    Errors that a user can mend, full disks and exhausted memory are reported in one sentence, without a traceback.
    Of processes that a launcher started together, the first speaks for all, and they exit together. alone: of them the
    first calls ``main``, and the others do nothing.
    """
    if alone and ranks.launched().rank:
        sys.exit(0)
    name, stderr = _program(), sys.stderr
    _prepare_streams()
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # Pillow's: too large ones are left out and named
    rank = ranks.launched().rank
    if rank:
        stderr, sys.stdout, sys.stderr = sys.stderr, _Nowhere(), _Nowhere()

    def start():
        if not alone:
            ranks.start()
        _warn_of_another_nanogan(name)
        return main()

    by_itself = True
    try:
        code, message = _outcome(start)
    except EndedElsewhere:
        code, message, by_itself = 1, None, False

    def tell():
        whose = f"rank {rank}: " if rank else ""
        _tell(f"{name}: {whose}{message}", stderr if rank else sys.stderr)

    together = ranks.current()
    if together is not ranks.ALONE:
        together.leave(code or 0, None if message is None else tell, by_itself=by_itself)
    if message is not None and not rank:
        tell()
    sys.exit(code)


def _outcome(main):
    """Return main's exit status, and what to say of an error; None if there was none."""
    try:
        status = main()
        if hasattr(sys.stdout, "flush"):  # print needs no more than write
            sys.stdout.flush()
        return status, None
    except UserError as error:
        return 2, f"error: {quoted(error)}"
    except TrainingDiverged as error:
        return 1, f"error: {quoted(error)}"
    except EndedElsewhere:
        raise
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        _abandon(sys.stdout)
        return 1, "error: nobody reads the output any more: stopped"
    except OSError as error:
        return 1, f"error: {quoted(_of_the_system(error))}"
    except MemoryError as error:  # CuPy's OutOfMemoryError is one
        return 1, quoted(_out_of_memory(error, gpu=type(error).__module__.startswith("cupy")))
    except KeyboardInterrupt:
        return 130, "stopped"
    except SystemExit as end:
        if ranks.current() is ranks.ALONE:
            raise
        return (1, end.code) if isinstance(end.code, str) else (int(end.code or 0), None)
    except Exception as error:
        if type(error).__module__.startswith(("cupy", "cupy_backends")):
            return 1, quoted(_gpu_failed(error))
        if ranks.current() is ranks.ALONE:
            raise
        return 1, traceback.format_exc()  # the others wait for this process: it may not just end


def _tell(text, stream):
    try:
        print(text, file=stream, flush=True)
    except OSError:  # its reader has gone too
        _abandon(stream)


def _program():
    """What errors are headed by: "mnist_dcgan.py", or "nanogan.convert" after python -m."""
    name = os.path.basename(sys.argv[0])
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return module.name.removesuffix(".__main__") if name == "__main__.py" and module is not None else name


def _of_the_system(error):
    """What happened and to which file; the system's own errors begin with a number, and may name none."""
    if type(error).__str__ is not OSError.__str__ or error.strerror is None:
        return error
    if error.filename is not None:
        advice = ": check who may read and write it" if isinstance(error, PermissionError) else ""
        return f"{error.filename}: {error.strerror}{advice}"
    return f"{error.strerror}: a file or the standard output could not be read or written"


def _prepare_streams():
    """Make standard output and error fit for any text, even where they are closed, or a notebook's."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file, a pipe, a terminal
            stream.reconfigure(errors="backslashreplace")  # of letters that its encoding lacks
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # a log in a file can be followed, and is whole after a kill


def _open_closed_streams():
    """Open what the process was started without (``>&-``), else the next file would get its number and its output."""
    if None in (sys.stdout, sys.stderr):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # always the lowest that is free
            pass
        os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, _Nowhere())


class _Nowhere(io.TextIOBase):
    """The standard stream of a process that was started without."""

    def write(self, text):
        return len(text)


def _abandon(stream):
    """Lead a stream that nobody reads nowhere, else Python complains once more at its end."""
    with contextlib.suppress(OSError, ValueError):  # a notebook's has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _warn_of_another_nanogan(name):
    """Say if the script stands in a checkout whose nanogan is not the one that runs: changes there would do nothing."""
    checkout = Path(sys.argv[0]).resolve().parent.parent
    beside, running = checkout / "nanogan", Path(__file__).parent
    if (beside / "__init__.py").is_file() and not beside.samefile(running):
        print(
            f"{name}: nanogan runs from {quoted(running)}, not from {quoted(beside)} beside this script, "
            f"where changes have no effect: pip install -e {quoted(checkout)}",
            file=sys.stderr,
        )


def _out_of_memory(error, gpu=False):
    return (
        f"error: out of memory ({error}): use smaller batches (--batch-size), networks (--width) or images "
        f"(--image-size), or draw fewer{'; NANOGAN_GRAPH=0 saves memory, too' if gpu else ''}"
    )


def _gpu_failed(error):
    """One sentence for an error of CUDA's libraries; some are short of memory too, and say so in their own way."""
    text = one_line(error, 300)  # a compiler's log may be long
    if "ALLOC_FAILED" in text or "MemoryAllocation" in text:
        return _out_of_memory(text, gpu=True)
    return (
        f"error: the GPU stopped working ({text}): start again, from the last checkpoint if there is one; if it "
        "happens again, look at nvidia-smi and the driver's log, or use --device cpu"
    )
