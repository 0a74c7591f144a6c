"""A game's steps on a GPU: the first three kernel by kernel, all others as one CUDA graph.

    play = steps_of(game)
    seen = play(inputs)                  instead of game.step(**inputs)

A step is a function of its inputs and of the game's state, and reads nothing back; so what it launches is the same each
time, and :mod:`nanogan.backend.graphs` can record it. What changes from step to step must then be on the device: the
inputs are copied into arrays of fixed addresses, and optimisers and averages of weights keep a clock there. What a step
counts on the host (an optimiser's steps, the batches that BatchNorm has seen) is advanced after each replay.
"""

import contextlib
import functools
from collections.abc import Mapping

import numpy as np

from nanogan import dispatch
from nanogan.backend import graphs, matmul_precision
from nanogan.errors import UserError
from nanogan.progress import say

MANY = 10  # kinds of inputs after which no more is hoped for
PLAIN = (bool, int, float, str, tuple, type(None))


def steps_of(game):
    """Return a function of step's inputs, a dictionary, that returns what ``game.step`` does.

    On a GPU that is :class:`Graphed`, unless NANOGAN_GRAPH=0 or NANOGAN_FAST=0 is in the environment.
    """
    if game.device.kind == "cpu" or not (graphs.ON and dispatch.FAST):
        return lambda inputs: game.step(**inputs)
    return Graphed(game)


class Graphed:
    """Plays a game's steps. Each method below plays one, and says which one plays the next:

        first -> prepare -> rehearse -> record -> replay -> replay -> ...        eager: after give_up, for good

    A recording is for inputs of one kind, that of two steps in a row; one of another kind, as an epoch's shorter last
    batch, is played kernel by kernel. Where a step cannot be recorded, ``report`` is given a line that says why, and
    all are played like that.

    Attributes: play, the method that plays the next step; recorder, with the graph, once there is one.
    """

    def __init__(self, game, report=say):
        self.game, self.report, self.play = game, report, self.first
        self.kind = self.recorder = self.inputs = self.draws = self.numbers = None
        self.kinds = 0  # seen before there was a recorder

    def __call__(self, inputs):
        inputs = graphs.mapped(lambda leaf: leaf.item() if isinstance(leaf, np.generic) else leaf, inputs)
        kind = graphs.kind_of_arguments(inputs)
        if kind == self.kind:
            return self.play(inputs)
        if self.recorder is None and self.play != self.eager:
            self.kind, self.play = kind, self.first
            self.kinds += 1
            if self.kinds > MANY:
                return self.give_up("its inputs are of another kind at every step", inputs)
            return self.play(inputs)
        return self.eager(inputs)

    def eager(self, inputs):
        """Play a step kernel by kernel."""
        return self.game.step(**inputs)

    def first(self, inputs):
        """Play a step that compiles the kernels."""
        seen = self.eager(inputs)
        self.play = self.prepare
        return seen

    def prepare(self, inputs):
        """Play a step on the arrays, the memory and the stream of the recording, which this makes."""
        problem = why_not(self.game, inputs)
        if problem:
            return self.give_up(problem, inputs)
        self.recorder, self.inputs = graphs.Recorder(), graphs.Static(inputs, self.game.dtype)
        self.draws = Draws(self.game)
        for member in with_clocks(self.game):
            member.keep_clock(True)
        with self.draws.noted():
            seen, numbers = self.recorder.warm_up(self._step)
        self.row_of = type(type(seen).__name__, (type(seen),), {"__doc__": "What a step returned; row: as one array."})
        self.numbers = self.recorder.cupy.empty_like(numbers)
        self.play = self.rehearse
        return self._seen(numbers)

    def rehearse(self, inputs):
        """Play one more step like that, which asks for the same memory as the recording: ``prepare`` asked for more."""
        self.inputs.fill(inputs)
        self.draws.fill()
        with self.draws.repeated():
            self.recorder.warm_up(self._step)
        self.play = self.record
        return self._seen(self.numbers)

    def record(self, inputs):
        """Record a step, then play it as a replay."""
        before, problem = Held(self.game), None
        try:
            with self.draws.repeated():
                self.recorder.record(self._step)
            self.changes = before.changes()
        except Exception as error:  # CuPy and CUDA refuse with exceptions of many kinds
            problem = reason(error)
        finally:
            before.take_back()
        if problem:
            return self.give_up(problem, inputs)
        self.held = before
        self.report("from this step on a step is one CUDA graph (NANOGAN_GRAPH=0 launches its kernels one by one)")
        self.play = self.replay
        return self._replayed(inputs)

    def replay(self, inputs):
        """Play the recorded step; record it anew if what the recording holds has changed."""
        if not self.held.holds(self.changes):
            self.play = self.record
            return self.record(inputs)
        return self._replayed(inputs)

    def give_up(self, problem, inputs):
        """Play this step, and all that follow, kernel by kernel."""
        self.report(f"a step cannot be one CUDA graph ({problem}): its kernels are launched one by one")
        self.inputs = self.draws = self.numbers = self.recorder = None
        self.play = self.eager
        for member in with_clocks(self.game):
            member.keep_clock(False)
        return self.eager(inputs)

    def _replayed(self, inputs):
        self.inputs.fill(inputs)
        self.draws.fill()
        self.recorder.replay()
        self.changes.make()
        return self._seen(self.numbers)

    def _step(self):
        seen = self.game.step(**self.inputs.arguments)
        return seen, graphs.packed(seen, self.numbers)

    def _seen(self, numbers):
        """What the step returned, in memory that the next one leaves alone."""
        row = numbers.copy()
        seen = self.row_of(*(row[i] for i in range(len(row))))
        seen.row = row
        return seen


def why_not(game, inputs):
    """Return in a few words what keeps a step from being recorded, as far as can be seen before; None if nothing."""
    if not game.recordable:
        return f"{type(game).__name__} says so"
    for name, value in inputs.items():
        if any(isinstance(leaf, np.ndarray) for leaf in graphs.leaves(value)):
            return f"its input {name} is on the host"
    for name, member in game.members().items():
        # not inherited: a subclass with a rule of its own may count by itself, and says if it does not
        if hasattr(member, "steps") and not vars(type(member)).get("keeps_time_on_a_gpu"):
            return f"{name}, a {type(member).__name__}, may count its steps on the host: it has no keeps_time_on_a_gpu"
    return None


def with_clocks(game):
    """The optimisers and averages of weights, which depend on how many steps they have done."""
    return [member for member in game.members().values() if hasattr(member, "keep_clock")]


class Draws:
    """What layers such as Dropout draw on the host inside a step, in arrays on the device that are filled before it.

    A layer's generator is replaced while a step is rehearsed or recorded: its methods return these arrays.
    """

    def __init__(self, game):
        layers = [layer for network in game.networks().values() for _, layer in network.named_layers()]
        self.layers = [layer for layer in layers if isinstance(getattr(layer, "rng", None), np.random.Generator)]
        self.xp = game.device.array_module
        self.drawn = []  # (layer, method of its generator, arguments, options, array)

    @contextlib.contextmanager
    def noted(self):
        """A context in which draws are made and noted; arrays that stay are made at its end."""

        def draw(layer, rng, method, arguments, options):
            array = self.xp.asarray(getattr(rng, method)(*arguments, **options))
            self.drawn.append((layer, method, arguments, options, array))
            return array

        with self._replaced(draw):
            yield
        self.drawn = [(*what, self.xp.empty_like(array)) for *what, array in self.drawn]

    @contextlib.contextmanager
    def repeated(self):
        """A context in which the same draws are asked for again: the arrays are returned as they are."""
        following = iter(self.drawn)

        def draw(layer, rng, method, arguments, options):
            *noted, array = next(following, (None,))
            if noted != [layer, method, arguments, options]:
                raise UserError(f"{type(layer).__name__} draws other numbers than in the step before")
            return array

        with self._replaced(draw):
            yield

    def fill(self):
        """Draw what the next replay needs."""
        for layer, method, arguments, options, array in self.drawn:
            array.set(getattr(layer.rng, method)(*arguments, **options))

    @contextlib.contextmanager
    def _replaced(self, draw):
        generators = [layer.rng for layer in self.layers]
        for layer in self.layers:
            layer.rng = _Generator(layer, layer.rng, draw)
        try:
            yield
        finally:
            for layer, rng in zip(self.layers, generators, strict=True):
                layer.rng = rng


class _Generator:
    """Stands for a numpy.random.Generator: every method is ``draw(layer, rng, method, arguments, options)``."""

    def __init__(self, layer, rng, draw):
        self._draw = functools.partial(draw, layer, rng)

    def __getattr__(self, method):
        return lambda *arguments, **options: self._draw(method, arguments, options)


class Held:
    """What a recording holds of a game, as it is now: attributes of the game, its members and their layers.

    Kernels were given numbers as they were, and arrays by their addresses. Also what the game counts on the host: the
    ``steps`` of its members, and arrays of integers. Holding the arrays keeps them, and so their memory, alive.
    """

    def __init__(self, game):
        self.entries = [
            (whose, attributes, name, value)
            for whose, attributes in _attributes(game)
            for name, value in attributes.items()
            if not isinstance(value, np.random.Generator)  # a game's reseed replaces those
        ]
        self.arrays = [(array, array.copy()) for array in _host_arrays(game.state_dict())]
        self.precision = matmul_precision()

    def changes(self):
        """Return what one step has done since, as :class:`Changes`. Raises UserError for what a replay cannot do."""
        steps, on_device = [], []
        for whose, attributes, name, value in self.entries:
            now = attributes.get(name)
            if name == "lr" and _is_number_on_device(now):  # which the step has set from its inputs
                on_device.append((attributes, name, now))
            elif _same(now, value):
                continue
            elif name == "steps" and isinstance(now, int):
                steps.append((attributes, now - value))
            elif isinstance(now, PLAIN):
                raise UserError(f"it changes {whose}.{name} on the host")
            else:
                raise UserError(f"it replaces {whose}.{name}")
        arrays = []
        for array, copy in self.arrays:
            if array.dtype.kind in "iu":
                arrays.append((array, array - copy))
            elif not np.array_equal(array, copy, equal_nan=True):
                raise UserError("it changes numbers on the host")
        return Changes(steps, on_device, arrays)

    def take_back(self):
        """Set all to what it was."""
        for _, attributes, name, value in self.entries:
            attributes[name] = value
        for array, copy in self.arrays:
            array[...] = copy

    def holds(self, changes):
        """Whether all is as it was, but for what the step itself changes."""
        changed = changes.names
        return self.precision == matmul_precision() and all(
            _same(attributes.get(name), value) or (id(attributes), name) in changed
            for _, attributes, name, value in self.entries
        )


class Changes:
    """What one step does to a game on the host: it counts, and it sets learning rates, which are on the device."""

    def __init__(self, steps, on_device, arrays):
        self.steps, self.on_device, self.arrays = steps, on_device, arrays
        self.names = {(id(attributes), "steps") for attributes, _ in steps}
        self.names |= {(id(attributes), name) for attributes, name, _ in on_device}

    def make(self):
        """Do the same again, as after a replay."""
        for attributes, more in self.steps:
            attributes["steps"] += more
        for attributes, name, number in self.on_device:
            attributes[name] = number
        for array, more in self.arrays:
            array += more


def reason(error):
    """The first line of an error's text."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _attributes(game):
    """Yield (whose, a dictionary of attributes) of all that a step may read."""
    networks = list(game.networks().values())
    yield type(game).__name__, vars(game)
    for member in game.members().values():
        networks += [getattr(member, "average", None)] if hasattr(member, "keep_clock") else []
        yield type(member).__name__, vars(member)
        if isinstance(getattr(member, "state", None), dict):
            yield type(member).__name__, member.state
    for network in networks:
        for name, layer in network.named_layers() if network is not None else ():
            yield f"{name or 'the'} {type(layer).__name__}", vars(layer)
            for part in (layer.params, layer.grads, layer.buffers, vars(layer).get("options")):
                if part:
                    yield f"{name} {type(layer).__name__}", part


def _same(now, value):
    return now is value or (type(now) is type(value) and isinstance(value, PLAIN) and now == value)


def _is_number_on_device(value):
    return getattr(value, "shape", None) == () and not isinstance(value, (np.ndarray, np.generic))


def _host_arrays(state):
    if isinstance(state, np.ndarray):
        yield state
    elif isinstance(state, Mapping):
        for each in state.values():
            yield from _host_arrays(each)
