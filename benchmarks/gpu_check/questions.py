"""The groups of questions, and how one is asked."""

from pathlib import Path

from benchmarks.gpu_check.ceilings import ceilings
from benchmarks.gpu_check.compare import Wrong
from benchmarks.gpu_check.graph import games, graph, variants
from benchmarks.gpu_check.layers import all_layers, networks
from benchmarks.gpu_check.long import long
from benchmarks.gpu_check.operations import operations
from benchmarks.gpu_check.products import products
from nanogan import backend

GROUPS = {
    "ceilings": ceilings,
    "products": products,
    "operations": operations,
    "layers": all_layers,
    "networks": networks,
    "graph": graph,
    "variants": variants,
    "games": games,
    "long": long,
}


def answers(device, group, after=0):
    """Yield (question, answer, right) of a group, without its first ``after`` questions; right is None for a fact."""
    for number, (question, function) in enumerate(GROUPS[group](device)):
        if number < after:
            continue
        try:
            right, answer = function()
        except Wrong as wrong:
            right, answer = False, str(wrong)
        except Exception as raised:  # CUDA, cuBLAS and CuPy fail with exceptions of many kinds
            lines = [line.strip() for line in str(raised).splitlines() if line.strip()]
            place = _place(raised)
            right, answer = False, f"raised {type(raised).__name__}: {(lines or [''])[0]} ({place})"
        finally:
            backend.set_matmul_precision("float32")
        yield question, answer, right if right is None else bool(right)


def _place(raised):
    """Where in nanogan an exception was raised: "conv.py:77"."""
    trace, place = raised.__traceback__, "?"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "nanogan" in file or Path(file).parent == Path(__file__).parent:
            place = f"{Path(file).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
