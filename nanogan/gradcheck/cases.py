"""What is checked: the EXAMPLES at the end of every file of ``ops``, ``layers``, ``models`` and ``games``.

A file that is added is checked; there is no list to add it to.
"""

from nanogan.folders import modules_in
from nanogan.ops.examples import Example, UpdateExample


def _examples(package):
    """The EXAMPLES of each file that has some."""
    return [module.EXAMPLES for module in modules_in(package) if hasattr(module, "EXAMPLES")]


def _named(package):
    """{name: (a function that makes a layer or network, a function that draws its input)}; of games see there."""
    return {name: example for examples in _examples(package) for name, example in examples.items()}


_OPS = [example for examples in _examples("nanogan.ops") for example in examples]
OPERATIONS = [example for example in _OPS if isinstance(example, Example)]
UPDATES = [example for example in _OPS if isinstance(example, UpdateExample)]
LAYERS = _named("nanogan.layers")
NETWORKS = _named("nanogan.models")
GAMES = _named("nanogan.games")  # {name: (class, options, shapes)}
