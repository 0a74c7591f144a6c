"""Proof that the proofs bite: every mistake of ``tests/sabotage`` makes a test fail.

Each run of the suite tries a share of them, another one with every commit. NANOGAN_SABOTAGE=all tries all, as does
``python -m tests.sabotage``; NANOGAN_SABOTAGE=3/20 tries every 20th from number 3 on, as a failure's message says.
"""

import ast
import datetime
import json
import os
import subprocess
import sys

import pytest

from tests.sabotage import rules, trees
from tests.sabotage.catalogue import BY_HAND, all_mistakes, by_rule
from tests.sabotage.harmless import HARMLESS
from tests.sabotage.judges import judges
from tests.sabotage.mistake import mistake
from tests.sabotage.run import put_in
from tests.sabotage.trees import ROOT, NotFound

SHARES = 20


def share():
    """The part to try, "I/N"."""
    wanted = os.environ.get("NANOGAN_SABOTAGE", "")
    if wanted:
        return "0/1" if wanted == "all" else wanted
    try:
        git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        number = int(git.stdout, 16)
    except (OSError, subprocess.CalledProcessError):  # a copy without its history
        number = datetime.date.today().toordinal()
    return f"{number % SHARES}/{SHARES}"


def test_there_are_many_and_no_two_are_the_same():
    mistakes = all_mistakes()
    assert len(BY_HAND) > 150
    assert len(mistakes) > 500
    assert {rule for _, rule, _ in by_rule()} == {rule.__name__ for rule in rules.RULES}
    assert len({mistake.title for mistake in mistakes}) == len(mistakes)


def test_what_they_change_is_there():
    """The code that a mistake changes was changed itself, or a test file has another name: change the mistake, too."""
    lost, seen = [], {}
    for item in all_mistakes():
        try:
            changed = ast.dump(item.node)
            judges(item)
            if isinstance(item.node, trees.FUNCTION):
                trees.code_of(item.place, item.node)
            if changed == ast.dump(item.place.node):
                lost.append(f"{item.title}: changes nothing")
            twin = seen.setdefault((item.place.path, item.place.name, changed, item.on_gpu), item.title)
            if twin != item.title:
                lost.append(f"{item.title}: is the same as {twin}")
        except NotFound as error:
            lost.append(str(error))
    assert not lost, "\n".join(["these mistakes cannot be made:", *lost])


def test_what_is_called_harmless_can_be_made():
    assert not HARMLESS.keys() - {item.title for item, _, _ in by_rule()}


def run(*arguments):
    result = subprocess.run(
        [sys.executable, "-m", "tests.sabotage", "--json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert result.returncode in (0, 1), result.stderr
    return json.loads(result.stdout)


def test_a_share_of_the_mistakes_is_noticed():
    part = share()
    found = run("--part", part)
    survivors = [title for title, test in found.items() if test is None]
    assert found
    assert not survivors, "\n".join([f"no test notices these (NANOGAN_SABOTAGE={part} tries them again):", *survivors])


def test_a_harmless_change_survives():
    """The runner itself: tests fail because of the mistake, not because of how they are run."""
    program = (
        "from tests.sabotage.mistake import mistake; from tests.sabotage.run import first_failures\n"
        "print(first_failures([mistake('harmless', 'Timed.advance', 'self.steps += 1', 'self.steps += 2 - 1')]))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.stdout.strip() == "{'harmless': None}", result.stderr


# ---------------------------------------------------------------------------------------------------- trees and rules


def function(text):
    return ast.parse(text).body[0]


def test_formatting_and_comments_do_not_matter():
    node = function("def f(x, y):\n    z = (x +\n         y)  # a sum\n    return z")
    assert ast.unparse(trees.changed(node, "z = x+y", "")) == "def f(x, y):\n    return z"
    assert ast.unparse(trees.changed(node, "x + y", "x - y")) == "def f(x, y):\n    z = x - y\n    return z"
    assert ast.unparse(node) == "def f(x, y):\n    z = x + y\n    return z", "the tree itself stays"


def test_keywords_and_parts_of_strings_can_be_changed():
    node = function("def f(x):\n    g(train=train, x=x)\n    h('y = x + 1; z = y')")
    node = trees.changed(node, "train=train", "train=True")
    assert ast.unparse(trees.changed(node, "x + 1;", "x + 2;")).splitlines()[1:] == [
        "    g(train=True, x=x)",
        "    h('y = x + 2; z = y')",
    ]


@pytest.mark.parametrize("old", ["x + 2", "x"])
def test_what_is_to_be_changed_must_be_there_once(old):
    with pytest.raises(NotFound, match=r"holds '.*' [02] times instead of once"):
        trees.changed(function("def f(x):\n    return x + x"), old, "1")


def test_functions_are_found_by_name():
    assert trees.find("conv2d_output_size").parts[:2] == ("nanogan", "ops")
    assert trees.find("ops:conv2d_forward").parts[-1] == "conv"
    assert trees.find("BatchNorm2d.forward").node.name == "forward"
    with pytest.raises(NotFound, match="conv2d_forward is in several files: .*ops/conv.py"):
        trees.find("conv2d_forward")
    with pytest.raises(NotFound, match="nanogan has no no_such_function"):
        trees.find("no_such_function")


def test_rules_make_the_obvious_mistakes():
    node = function(
        "def f_backward(dy, cache, need_dx=True, need_dw=True):\n"
        "    x, w = cache\n"
        "    dw = 0\n"
        "    if need_dw:\n"
        "        dw += dy * x\n"
        "    return (dy - w, dw)\n"
    )
    made = {
        (rule.__name__, *trees.difference(node, trees.replaced(node, old, new)))
        for rule in rules.RULES
        for old, new in rule(node)
    }
    assert {
        ("left_out", "dw += dy * x", "pass"),
        ("sign", "dw += dy * x", "dw -= dy * x"),
        ("sign", "return (dy - w, dw)", "return (dy + w, dw)"),
        ("term", "dw += dy * x", "dw += x"),
        ("returned", "return (dy - w, dw)", "return (dw, dy - w)"),
        ("needs", "if need_dw:", "if True:"),
        ("overwritten", "dw += dy * x", "dw = dy * x"),
        ("spoiled", "dw += dy * x", "dw += dy.__imul__(x)"),
        ("number", "dw = 0", "dw = 1"),
    } <= made


def test_a_mistake_is_put_in_and_taken_out_again():
    from nanogan.layers import Dropout
    from nanogan.ops import relu_backward

    known, default = relu_backward, Dropout().options["p"]
    with put_in(mistake("", "ops:relu_backward", "dy * (y > 0)", "7")):
        assert known(1.0, 2.0) == 7
    assert known(1.0, 2.0) == 1.0
    with put_in(mistake("", "Dropout.__init__", "0.5", "0.25")):
        assert Dropout().options["p"] == 0.25
    assert Dropout().options["p"] == default == 0.5
