"""All mistakes: those made by rule, then those by hand."""

import ast
import collections
import functools

from tests.sabotage import (
    by_hand_book,
    by_hand_fast,
    by_hand_gpu,
    by_hand_ranks,
    by_hand_rest,
    by_hand_runs,
    by_hand_translation,
    rules,
    trees,
)
from tests.sabotage.harmless import HARMLESS
from tests.sabotage.mistake import Mistake

STEPS = (  # of games: functions and methods
    "adversarial_step",
    "discriminator_step",
    "critic_step",
    "generator_step",
    "gradient_penalty",
    "ACGAN.through_d",
)
BY_HAND = [
    *by_hand_book.BOOK,
    *by_hand_rest.REST,
    *by_hand_fast.FAST,
    *by_hand_runs.RUNS,
    *by_hand_gpu.GPU,
    *by_hand_ranks.RANKS,
    *by_hand_translation.TRANSLATION,
]


def has_rules(place):
    """Whether mistakes are made by rule in ``place``: an operation's backward or update, a tangent, a game's step."""
    folder = place.parts[1]
    if not isinstance(place.node, trees.FUNCTION):
        return False
    if folder == "ops":
        return place.name.endswith(("_backward", "_update"))
    if folder == "layers":
        return place.name.endswith(".tangent") or place.name.startswith("same_as_")
    return folder == "games" and (place.name.endswith(".step") or place.name in STEPS)


@functools.cache
def by_rule():
    """``[(mistake, rule's name, reason if it is harmless or None), ...]``, no two alike."""
    found, seen, titles = [], set(), collections.Counter()
    for place in filter(has_rules, trees.places()):
        where = f"{'.'.join(place.parts)}:{place.name}"
        seen.add((where, ast.dump(place.node)))
        for rule in rules.RULES:
            for old, new in rule(place.node):
                node = trees.replaced(place.node, old, new)
                if (where, ast.dump(node)) in seen:
                    continue
                seen.add((where, ast.dump(node)))
                before, after = trees.difference(place.node, node)
                title = f"{place.name}: {before}  ->  {after or 'nothing'}"
                titles[title] += 1
                if titles[title] > 1:
                    title += f"  (number {titles[title]})"
                reason = HARMLESS.get(title)
                found.append((Mistake(title, where, lambda _, node=node: node), rule.__name__, reason))
    return found


def all_mistakes():
    """Those that a test should notice."""
    return [mistake for mistake, _, reason in by_rule() if reason is None] + BY_HAND
