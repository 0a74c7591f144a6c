"""Freed memory is kept for the next arrays."""

import ctypes


def keep_freed_memory():
    """Make the C library keep freed arrays for the next ones instead of handing them back to the system each time.

    Getting pages back from the system costs as much as filling them: a step of the MNIST example took 2.2 times
    as long. In glibc's terms (mallopt(3)): no array gets a mapping of its own, and the heap's free top stays. What is
    kept is at most what was once in use. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc; on Windows, CDLL(None) is a TypeError
        return
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_MMAP_MAX, 0)
