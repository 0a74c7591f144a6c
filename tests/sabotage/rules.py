"""The obvious mistakes, made by rule: one small change to the syntax tree of a function at a time.

Each rule takes a function's tree and yields pairs (old, new): a node or list of statements in it, and what stands there
instead. What would notice that?
"""

import ast
import itertools

from tests.sabotage.trees import bodies

OPPOSITE = {ast.Add: ast.Sub, ast.Sub: ast.Add}
NEIGHBOUR = {
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
IN_PLACE = {ast.Add: "__iadd__", ast.Sub: "__isub__", ast.Mult: "__imul__", ast.Div: "__itruediv__"}
COUNTERPART = {"g": "d", "d": "g", "G": "D", "D": "G", "a": "b", "b": "a"}
COUNTERPART |= {"real": "fake", "fake": "real", "REAL": "FAKE", "FAKE": "REAL"}


def nodes(function, *kinds):
    return [node for node in ast.walk(function) if isinstance(node, kinds)]


def given(function):
    """Names that the function does not make: its parameters and what it unpacks from the cache."""
    names = {argument.arg for argument in nodes(function, ast.arg)}
    for statement in nodes(function, ast.Assign):
        if isinstance(statement.value, ast.Name) and statement.value.id == "cache":
            names |= {name.id for name in nodes(statement.targets[0], ast.Name)}
    return names


def negated(value):
    """-value, and for ``a if condition else b`` each side's; None stays None."""
    if isinstance(value, ast.IfExp):
        return ast.IfExp(value.test, negated(value.body), negated(value.orelse))
    if isinstance(value, ast.Constant) and value.value is None:
        return value
    return ast.UnaryOp(ast.USub(), value)


# ---------------------------------------------------------------------------------------------------------- rules


def left_out(function):
    """A statement is missing. (Not one without which a name would be unknown: every test notices that.)"""
    for body in bodies(function):
        for i, statement in enumerate(body):
            if isinstance(statement, (ast.Return, ast.Raise, ast.Pass, ast.FunctionDef)):
                continue
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue  # a docstring
            known = given(function) | {
                name.id
                for name in nodes(function, ast.Name)
                if isinstance(name.ctx, ast.Store) and name.lineno < statement.lineno
            }
            if isinstance(statement, ast.Assign):
                own = {name.id for target in statement.targets for name in nodes(target, ast.Name)}
                if not own <= known or "cache" in {name.id for name in nodes(statement.value, ast.Name)}:
                    continue
            yield body, body[:i] + body[i + 1 :] or [ast.Pass()]


def sign(function):
    """+ for -, x for -x, and a gradient that points the other way."""
    for node in nodes(function, ast.BinOp):
        if type(node.op) in OPPOSITE:
            yield node, ast.BinOp(node.left, OPPOSITE[type(node.op)](), node.right)
    for node in nodes(function, ast.AugAssign):
        if type(node.op) in OPPOSITE:
            yield node, ast.AugAssign(node.target, OPPOSITE[type(node.op)](), node.value)
    for node in nodes(function, ast.UnaryOp):
        if isinstance(node.op, ast.USub):
            yield node, node.operand
    for node in nodes(function, ast.Assign):
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id[0] == "d" and isinstance(node.value, (ast.Call, ast.IfExp)):
            yield node.value, negated(node.value)
    for node in nodes(function, ast.Return):
        if isinstance(node.value, (ast.Call, ast.BinOp, ast.IfExp, ast.Name)):
            yield node.value, negated(node.value)


def term(function):
    """A term of a sum or a factor of a product is missing, or a divisor or exponent."""
    for node in nodes(function, ast.BinOp):
        yield node, node.left
        if isinstance(node.op, (ast.Add, ast.Mult)):
            yield node, node.right
        if isinstance(node.op, ast.Sub):
            yield node, negated(node.right)


def returned(function):
    """Two results change places."""
    for node in nodes(function, ast.Return):
        if isinstance(node.value, ast.Tuple):
            values = node.value.elts
            for i, j in itertools.combinations(range(len(values)), 2):
                swapped = list(values)
                swapped[i], swapped[j] = values[j], values[i]
                yield node.value, ast.Tuple(swapped, ast.Load())


def needs(function):
    """need_dx or need_dw is not looked at."""
    for node in nodes(function, ast.Name):
        if node.id in ("need_dx", "need_dw") and isinstance(node.ctx, ast.Load):
            yield node, ast.Constant(True)
            yield node, ast.Constant(False)


def overwritten(function):
    """= for +=, and for an array of the caller a new one instead of a change in place."""
    for node in nodes(function, ast.AugAssign):
        yield node, ast.Assign([node.target], node.value)
        if isinstance(node.target, ast.Name) and node.target.id in given(function):
            read = ast.Name(node.target.id, ast.Load())
            yield node, ast.Assign([node.target], ast.BinOp(read, node.op, node.value))


def spoiled(function):
    """An array of the caller, or of the cache, is changed in place: a * b becomes a *= b."""
    for node in nodes(function, ast.BinOp):
        if isinstance(node.left, ast.Name) and node.left.id in given(function) and type(node.op) in IN_PLACE:
            yield node, ast.Call(ast.Attribute(node.left, IN_PLACE[type(node.op)], ast.Load()), [node.right], [])


def condition(function):
    """>= for >, != for ==, or for and, x for not x."""
    for node in nodes(function, ast.Compare):
        if len(node.ops) == 1 and type(node.ops[0]) in NEIGHBOUR:
            yield node, ast.Compare(node.left, [NEIGHBOUR[type(node.ops[0])]()], node.comparators)
    for node in nodes(function, ast.BoolOp):
        yield node, ast.BoolOp(NEIGHBOUR[type(node.op)](), node.values)
    for node in nodes(function, ast.UnaryOp):
        if isinstance(node.op, ast.Not):
            yield node, node.operand


def arguments(function):
    """Two names that are passed side by side change places."""
    for node in nodes(function, ast.Call):
        for i, (one, next_one) in enumerate(itertools.pairwise(node.args)):
            if isinstance(one, ast.Name) and isinstance(next_one, ast.Name):
                args = [*node.args[:i], next_one, one, *node.args[i + 2 :]]
                yield node, ast.Call(node.func, args, node.keywords)


def option(function):
    """train=False for train=True. (need_dx=True for need_dx=False costs time and changes nothing.)"""
    for node in nodes(function, ast.keyword):
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool) and node.arg != "need_dx":
            yield node.value, ast.Constant(not node.value.value)


def counterpart(function):
    """The fake batch for the real one, G's optimiser for D's: any name whose counterpart the function knows too."""
    known = {node.id for node in nodes(function, ast.Name)} | {node.attr for node in nodes(function, ast.Attribute)}
    for node in nodes(function, ast.Name, ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        words = name.split("_")
        for i, word in enumerate(words):
            other = "_".join([*words[:i], COUNTERPART.get(word, ""), *words[i + 1 :]])
            if isinstance(node.ctx, ast.Load) and other in known:
                known_one = ast.Name(other, node.ctx)
                yield node, known_one if isinstance(node, ast.Name) else ast.Attribute(node.value, other, node.ctx)


def number(function):
    """A number is one too large. (Not a default: callers pass theirs.)"""
    defaults = {id(node) for node in nodes(function.args, ast.Constant)}
    for node in nodes(function, ast.Constant):
        if type(node.value) in (int, float) and id(node) not in defaults:
            yield node, ast.Constant(node.value + 1)


RULES = [left_out, sign, term, returned, needs, overwritten, spoiled, condition, arguments, option, counterpart, number]
