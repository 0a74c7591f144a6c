"""Functions of nanogan as syntax trees: found by name, wherever they stand, and changed in a copy.

    place = find("conv2d_backward")                  the file moves, the name stays
    place = find("winograd:conv2d_backward")         of several of that name, the one in a winograd.py or winograd/
    place = find("BatchNorm2d.forward")              a method;  find("_TERMS")  a constant of a module
    changed(place.node, "dx -= dbeta / M", "")       a copy, in which that statement is left out

Trees are compared, not text, so comments and line breaks do not matter.
"""

import ast
import copy
import difflib
import functools
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


class NotFound(LookupError):
    """Code that a mistake is to change is not there, or is there more than once."""


@dataclass(frozen=True, eq=False)
class Place:
    """A function, a method or a module's constant: its file, its name ("Class.method") and its tree."""

    path: Path
    name: str
    node: ast.AST

    @property
    def parts(self):
        """ "nanogan/fast/cpu/winograd.py" -> ("nanogan", "fast", "cpu", "winograd")."""
        return self.path.relative_to(ROOT).with_suffix("").parts

    @property
    def module(self):
        return ".".join(self.parts).removesuffix(".__init__")


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def places():
    """All of them, in nanogan's files in the order of their names."""
    found = []
    for path in sorted((ROOT / "nanogan").rglob("*.py")):
        for node in tree_of(path).body:
            if isinstance(node, FUNCTION):
                found.append(Place(path, node.name, node))
            elif isinstance(node, ast.ClassDef):
                found += [Place(path, f"{node.name}.{n.name}", n) for n in node.body if isinstance(n, FUNCTION)]
            elif isinstance(node, ast.Assign):
                found += [Place(path, name.id, node) for name in node.targets if isinstance(name, ast.Name)]
    return found


def find(where):
    """Return the one place called ``where``: a name, and before a colon, where needed, parts of the file's path."""
    prefix, _, name = where.rpartition(":")
    parts = set(prefix.split(".")) - {""}
    hits = [place for place in places() if place.name == name and parts <= set(place.parts)]
    if len(hits) != 1:
        files = ", ".join(str(place.path.relative_to(ROOT)) for place in hits)
        raise NotFound(f"{where} is in several files: {files}" if hits else f"nanogan has no {where}")
    return hits[0]


# ------------------------------------------------------------------------------------------------------- changing


def replaced(node, old, new):
    """A copy of ``node`` with ``new`` in place of ``old``, a node or a list of statements in it."""
    return ast.fix_missing_locations(copy.deepcopy(node, {id(old): new}))  # the memo: what the copy of ``old`` is


def changed(node, old, new):
    """A copy of ``node`` in which the code ``old`` (there exactly once) is ``new``: expressions, or statements.

    ``old`` may also be a keyword of a call, ``train=train``, or a part of a string, as of a kernel's source.
    """
    before, after = _parsed(old), _parsed(new)
    hits = []
    if len(before) == 1 and isinstance(before[0], ast.Expr):
        hits = [n for n in ast.walk(node) if isinstance(n, ast.expr) and same(n, before[0].value)]
    if len(hits) == 1 and len(after) == 1 and isinstance(after[0], ast.Expr):
        return replaced(node, hits[0], after[0].value)
    hits = [
        (body, i)
        for body in bodies(node)
        for i in range(len(body) - len(before) + 1)
        if before and all(map(same, body[i : i + len(before)], before))
    ]
    if len(hits) == 1:
        body, i = hits[0]
        return replaced(node, body, body[:i] + after + body[i + len(before) :] or [ast.Pass()])
    if not hits:
        hits = [n for n in ast.walk(node) if isinstance(n, ast.keyword) and _keyword(n) == "".join(old.split())]
        if len(hits) == 1:
            return replaced(node, hits[0], ast.keyword(hits[0].arg, after[0].value))
    if not hits:
        hits = [n for n in ast.walk(node) if isinstance(n, ast.Constant) and _count(n.value, old) == 1]
        if len(hits) == 1:
            return replaced(node, hits[0], ast.Constant(hits[0].value.replace(old, new)))
    raise NotFound(f"holds {old!r} {len(hits)} times instead of once")


def _parsed(text):
    """The statements of ``text``; none if it is a part of a string and no Python."""
    try:
        return ast.parse(textwrap.dedent(text)).body
    except SyntaxError:
        return []


def _keyword(node):
    return "".join(f"{node.arg}={ast.unparse(node.value)}".split())


def _count(value, text):
    return value.count(text) if isinstance(value, str) else 0


def bodies(node):
    """Every list of statements in ``node``."""
    for inner in ast.walk(node):
        for field in ("body", "orelse", "finalbody"):
            if isinstance(getattr(inner, field, None), list):
                yield getattr(inner, field)


def same(a, b):
    return type(a) is type(b) and ast.dump(a) == ast.dump(b)


def difference(old, new):
    """What a reader sees of a change, line for line: ``("dx -= dbeta / M", "dx += dbeta / M")``."""
    lines = list(difflib.ndiff(ast.unparse(old).splitlines(), ast.unparse(new).splitlines()))
    before, after = ("; ".join(line[2:].strip() for line in lines if line[0] == sign) for sign in "-+")
    if max(len(before), len(after)) < 100:
        return before, after
    start = max(0, _alike(before, after) - 40)  # of long lines, what is around the change
    end = max(0, _alike(before[start:][::-1], after[start:][::-1]) - 40)
    return tuple("..." * (start > 0) + text[start : len(text) - end] + "..." * (end > 0) for text in (before, after))


def _alike(a, b):
    """How many characters ``a`` and ``b`` share at the beginning."""
    return next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))


# ------------------------------------------------------------------------------------------------------ compiling


def whole_file(place, new):
    """The tree of the file of ``place``, with ``new`` there."""
    return replaced(tree_of(place.path), place.node, new)


def code_of(place, new):
    """Compile ``new``, a function or method, alone; return its code object."""
    *owners, name = place.name.split(".")
    body = [new]
    for owner in owners:  # in its class: super() needs that
        body = [ast.ClassDef(name=owner, bases=[], keywords=[], body=body, decorator_list=[], type_params=[])]
    tree = ast.fix_missing_locations(ast.Module(body=body, type_ignores=[]))
    code = compile(tree, str(place.path), "exec")
    for name in place.name.split("."):
        code = next(const for const in code.co_consts if getattr(const, "co_name", None) == name)
    return code
