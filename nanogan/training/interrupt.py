"""Ctrl-C finishes the step."""

import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress


@contextmanager
def stop_between_steps():
    """Yield a function that says whether Ctrl-C was pressed, or the process told to end: a step is finished first.

    A second Ctrl-C stops at once. Outside the main thread, where signals cannot be caught, it is always False.
    """
    asked = []

    def note(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        with suppress(OSError, ValueError, AttributeError):  # standard error is closed, or a notebook's without number
            # print may not be called here
            os.write(sys.stderr.fileno(), b"\nfinishing this step and saving; Ctrl-C again stops at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
