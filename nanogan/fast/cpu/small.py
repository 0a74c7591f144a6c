"""Small operations: the book's own code, with BLAS kept to one thread.

Threads cost more than they gain there. OpenBLAS would start its own all the same, from matrices of some 50 x 50 on, and
they would then spin for some 20 ms on a core that the next, larger operation needs.
"""

from nanogan import ops
from nanogan.dispatch import register
from nanogan.fast.cpu.threads import one_blas_thread


def serves(*args, **options):
    """Everything that no other path serves."""
    return True


def by_the_book(name):
    """Return the function ``name`` of nanogan.ops, run with one thread of BLAS."""

    def run(*args, **options):
        with one_blas_thread:
            return getattr(ops, name)(*args, **options)

    run.__name__ = name
    run.__doc__ = f"The same as :func:`nanogan.ops.{name}`, with one thread of BLAS."
    return run


for _operation in ("conv2d", "conv_transpose2d", "linear", "batchnorm"):  # all that multiply matrices
    _names = f"{_operation}_forward", f"{_operation}_backward"
    register("cpu", getattr(ops, _names[0]), *map(by_the_book, _names), serves=serves, priority=-1, by_the_book=True)
