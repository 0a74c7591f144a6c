"""Other processes of a benchmark: started in the checkout, and never waited for without a limit.

Needs the standard library alone: a session has to say which packages are missing.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
GPU_LOST = 3  # exit status of a process that can no longer use the GPU
GRACE = 5.0  # seconds in which a killed process should end; one that a driver holds does not


def python(module, *arguments):
    """Return the command ``python -m module`` with ``arguments``."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def start(command, environment=None, **options):
    """Start ``command`` in the checkout, without input; ``environment`` is added to this process's own."""
    environment = os.environ | (environment or {})
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=ROOT, env=environment, **options)


def kill(process, session=False):
    """Kill a process, or all of the session that it was started in; leave it behind if it does not end."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL) if session else process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)


def lines_of(process, ends, silence=None):
    """Yield the lines that a process prints to its stdout, which is a pipe, as they come.

    ends: when to stop it, by time.perf_counter(); it has at least a second. silence: the seconds after which one that
    prints nothing is stopped. Raises subprocess.TimeoutExpired when it has been stopped, behind all that it printed.
    """
    lines, ends = queue.SimpleQueue(), max(ends, time.perf_counter() + 1)

    def read():
        try:
            with process.stdout as stdout:
                for line in stdout:
                    lines.put(line)
        finally:
            lines.put(None)

    threading.Thread(target=read, daemon=True).start()  # it stays if the process cannot be killed

    def left():
        return max(0.0, min(ends - time.perf_counter(), silence or float("inf")))

    try:
        while (line := lines.get(timeout=left())) is not None:
            yield line
        process.wait(max(GRACE, left()))
        return
    except (queue.Empty, subprocess.TimeoutExpired):
        pass
    finally:
        if process.poll() is None:
            kill(process)
    with contextlib.suppress(queue.Empty):
        while (line := lines.get(timeout=GRACE)) is not None:
            yield line
    raise subprocess.TimeoutExpired(process.args, silence or 0)


def printed(command, limit=None, environment=None, stderr=None):
    """Run ``command``; return its exit status and what it printed.

    Raises subprocess.TimeoutExpired after ``limit`` seconds.
    """
    process = start(command, environment, stdout=subprocess.PIPE, stderr=stderr, encoding="utf-8", errors="replace")
    try:
        text, _ = process.communicate(timeout=limit)
    except BaseException:
        kill(process)
        process.stdout.close()
        raise
    return process.returncode, text


def last_line(command, limit=None, environment=None, stderr=None):
    """Run ``command`` and return the last line that it printed, read as JSON.

    Raises subprocess.SubprocessError if it fails or takes longer than ``limit`` seconds.
    """
    status, text = printed(command, limit, environment, stderr)
    if status:
        raise subprocess.CalledProcessError(status, command)
    return json.loads(text.splitlines()[-1])
