"""Starting scripts and commands as a user does.

``run`` does it in this process: a Python of its own would import everything again, which costs more time than most
tests compute. ``process`` starts one, for what needs it: signals, kill -9, variables that are read at import, output
that is followed while it comes, and imports that must not happen.

A program is the path of a script, or the name of a module as after ``python -m``.
"""

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
import urllib.request
import warnings
from pathlib import Path
from unittest import mock

import numpy as np

from nanogan import backend, dispatch

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(program, *arguments, folder=".", **environment):
    """Run ``program`` in this process, in ``folder``, with variables added to its environment.

    It finds what it would find in a process of its own, and leaves this one as it was. Returns the CompletedProcess:
    its returncode, and stdout and stderr as text. What it raises, but for SystemExit, is raised here, so that a
    traceback is always a failure.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    command = _command(program, arguments)
    with _a_process_of_its_own(command, out, err, folder, environment):
        try:
            if isinstance(program, Path):
                runpy.run_path(str(program), run_name="__main__")
            else:
                runpy.run_module(program, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = _status(end.code, err)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8").replace("\r\n", "\n"))
    return subprocess.CompletedProcess(command, code, *texts)


def process(program, *arguments, folder=".", **environment):
    """Start ``program`` in a process of its own, in ``folder``, and return it: a Popen with pipes of text."""
    with ctrl_c():
        return subprocess.Popen(
            _command(program, arguments),
            cwd=folder,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )


@contextlib.contextmanager
def ctrl_c():
    """Let Ctrl-C raise KeyboardInterrupt, here and in the processes that are started meanwhile.

    Where the tests themselves run in a shell's background, SIGINT is ignored, and processes inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _command(program, arguments):
    start = [str(program)] if isinstance(program, Path) else ["-m", program]
    return [sys.executable, *start, *map(str, arguments)]


@contextlib.contextmanager
def _a_process_of_its_own(command, out, err, folder, environment):
    """What a program finds at its start; afterwards, all that it may have changed is as it was."""
    is_module = command[1] == "-m"
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    precision, working_folder = backend.matmul_precision(), os.getcwd()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment))
        stack.enter_context(mock.patch.object(dispatch, "FAST", dispatch.FAST))
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        stack.enter_context(warnings.catch_warnings())  # raised as errors, as everywhere in the tests
        warnings.filterwarnings("ignore", ".* found in sys.modules ", RuntimeWarning)  # runpy's, of a command we test
        stack.enter_context(
            mock.patch.multiple(
                sys,
                argv=command[2 if is_module else 1 :],
                orig_argv=list(command),
                path=[str(Path(folder).resolve() if is_module else Path(command[1]).parent), *sys.path],
                stdin=stack.enter_context(open(os.devnull, encoding="utf-8")),
                stdout=out,
                stderr=err,
            )
        )
        stack.callback(os.chdir, working_folder)
        os.chdir(folder)
        stack.callback(backend.set_matmul_precision, precision)
        backend.set_matmul_precision("float32")
        stack.callback(urllib.request.install_opener, None)  # which knows the proxies of the environment
        urllib.request.install_opener(None)
        for number, handler in before.items():
            stack.callback(signal.signal, number, handler)
        yield


def _status(code, err):
    """The exit status that Python makes of SystemExit's code; a text is printed."""
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=err)
    return 1
