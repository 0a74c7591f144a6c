"""Write names.json: what the real CuPy offers, for the double that stands in for it. Needs CuPy, but no GPU.

python -m tests.strict_cupy.collect
"""

import inspect
import json
import re
from pathlib import Path

NAMES = Path(__file__).parent / "names.json"


def collect():
    """Return {"version", "cupy": {name: parameters}, "ndarray": ..., "cuda": ..., "cupyx": ...}.

    ``parameters`` are the names that a function takes, or None where CuPy does not tell.
    """
    import cupy
    import cupyx

    return {
        "version": cupy.__version__,
        "cupy": _members(cupy) | {"lib.stride_tricks.as_strided": _parameters(cupy.lib.stride_tricks.as_strided)},
        "ndarray": _members(cupy.ndarray),
        "cuda": _members(cupy.cuda),
        "stream": _members(cupy.cuda.Stream),
        "event": _members(cupy.cuda.Event),
        "cupyx": _members(cupyx),
        "linalg": _members(cupy._core._routines_linalg),
    }


def _members(owner):
    return {name: _parameters(getattr(owner, name, None)) for name in sorted(dir(owner)) if not name.startswith("_")}


def _parameters(value):
    if type(value).__name__ == "ufunc":  # the double's ufuncs take what CuPy's take: no where=, no order=
        return ["*args", "out", "dtype", "casting"]
    try:
        return list(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        pass
    told = re.match(r"_ndarray_base\.\w+\(self,? ?(.*)\)", getattr(value, "__doc__", None) or "")
    if told is None:
        return None
    return [part.split("=")[0].split(":")[0].split()[-1] for part in told[1].split(",") if part.strip(" /*")]


def lines(names):
    """The names as JSON, a line for each, so that a difference between two versions of CuPy can be read."""
    text = json.dumps(names, sort_keys=True)
    return re.sub(r'(?<=[\]l}]), (?=")', ",\n", text).replace(": {", ": {\n") + "\n"


if __name__ == "__main__":
    NAMES.write_text(lines(collect()), encoding="utf-8")
