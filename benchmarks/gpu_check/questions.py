"""The groups of questions, and how one is asked."""

from pathlib import Path

import nanogan
from benchmarks.gpu_check.ceilings import ceilings
from benchmarks.gpu_check.compare import Wrong
from benchmarks.gpu_check.graph import games, graph, variants
from benchmarks.gpu_check.layers import all_layers, networks
from benchmarks.gpu_check.long import long
from benchmarks.gpu_check.nccl import nccl
from benchmarks.gpu_check.operations import operations
from benchmarks.gpu_check.products import products
from benchmarks.tables import reason
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
    "nccl": nccl,
    "long": long,
}


def answers(device, group, after=0):
    """Yield (question, answer, right) of a group, without its first ``after`` questions; right is None for a fact.

    An exception of a question is its answer. One of the group, between questions, is the last answer.
    """
    questions, number = iter(GROUPS[group](device)), 0
    while True:
        try:
            question, function = next(questions)
        except StopIteration:
            return
        except Exception as raised:
            yield "the questions that follow", _described(raised), False
            return
        number += 1
        if number <= after:
            continue
        try:
            right, answer = function()
        except Wrong as wrong:
            right, answer = False, str(wrong)
        except Exception as raised:  # CUDA, cuBLAS and CuPy fail with exceptions of many kinds
            right, answer = False, _described(raised)
        finally:
            backend.set_matmul_precision("float32")
        yield question, answer, right if right is None else bool(right)


def _described(raised):
    """Say what was raised, and by which line of nanogan or of the check: "ValueError: ... (conv.py:77)"."""
    trace, place = raised.__traceback__, "?"
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if any(file.is_relative_to(folder) for folder in (Path(nanogan.__file__).parent, Path(__file__).parent)):
            place = f"{file.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{reason(raised)} ({place})"
