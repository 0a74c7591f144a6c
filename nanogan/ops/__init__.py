"""Forward and backward passes, written out. Every operation is a pair of plain functions:

    y, cache = conv2d_forward(x, w, b, stride=2, padding=1)
    dx, dw, db = conv2d_backward(dy, cache, need_dx=True, need_dw=True)

``d<name>`` is the gradient of the loss with respect to ``<name>`` and has its shape. A forward's
last line packs what its backward's first line unpacks. A backward changes neither dy nor the cache; what is not needed
comes back as None. The dtype that goes in comes out. All functions work on NumPy and on CuPy arrays.

An operation is one file of this folder. Every ``*_forward``, ``*_backward`` and ``*_update`` that a file defines is
offered here, and its ``EXAMPLES`` (:mod:`nanogan.ops.examples`) are what the gradient checks and the tests try.
"""

from nanogan.folders import modules_in


def _defined():
    """Return {name: function} of all operations that the files of this folder define, not of what they import."""
    return {
        name: function
        for module in modules_in(__name__)
        for name, function in vars(module).items()
        if name.endswith(("_forward", "_backward", "_update")) and name[0] != "_"
        if getattr(function, "__module__", None) == module.__name__
    }


globals().update(_defined())
__all__ = sorted(_defined())
