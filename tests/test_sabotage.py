"""Proof that the proofs bite: every mistake of ``tests/sabotage.py`` makes a test fail.

All of them take longer than the other tests together, so every sixth is tried here; NANOGAN_SABOTAGE=all tries all, and
so does ``python -m tests.sabotage``.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.sabotage import ROOT, SABOTAGES

EVERY = 1 if os.environ.get("NANOGAN_SABOTAGE") == "all" else 6


@pytest.fixture(scope="module")
def caught_by():
    """{title: the first test that failed, or None}, from as many processes as there are cores."""
    count = min(8, os.cpu_count() or 1)
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.sabotage", "--json", "--every", str(EVERY), "--part", f"{i}/{count}"],
            cwd=ROOT,
            env=os.environ | one_thread,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    outputs = [process.communicate(timeout=500)[0] for process in processes]
    assert all(outputs), "the tests could not be run with some mistake: python -m tests.sabotage tells which"
    return {title: test for output in outputs for title, test in json.loads(output).items()}


def test_there_are_many_and_no_two_are_the_same():
    assert len(SABOTAGES) >= 40
    assert len({item.title for item in SABOTAGES}) == len({(item.module, item.edits) for item in SABOTAGES})
    assert len({item.title for item in SABOTAGES}) == len(SABOTAGES)


@pytest.mark.parametrize("item", SABOTAGES, ids=lambda item: item.title.replace(" ", "-"))
def test_what_it_changes_is_there(item):
    source = (ROOT / f"{item.module.replace('.', '/')}.py").read_text(encoding="utf-8")
    changed = item.apply(source)
    assert changed != source
    compile(changed, item.module, "exec")


@pytest.mark.parametrize("sabotage", SABOTAGES[::EVERY], ids=lambda item: item.title.replace(" ", "-"))
def test_a_mistake_does_not_survive(sabotage, caught_by):
    assert caught_by[sabotage.title], f"no test notices this: {sabotage.title}"


def test_a_harmless_change_survives():
    """The runner itself: tests fail because of the mistake, not because of how they are run."""
    from tests import sabotage

    harmless = sabotage.sabotage("optim", "harmless", "self.steps += 1", "self.steps += 2 - 1")
    program = "import sys; from tests.sabotage import Sabotage, first_failure\n"
    program += f"sys.exit(repr(first_failure({harmless!r})))"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.stderr.strip() == "None"
