"""A game's steps on a GPU: the first three kernel by kernel, all others as one CUDA graph.

    play = steps_of(game)
    seen = play(inputs)                  instead of game.step(**inputs)

A step is a function of its inputs and of the game's state, and reads nothing back; so what it launches is the same each
time, and :mod:`nanogan.backend.graphs` can record it. What changes from step to step must then be on the device: the
inputs are copied into arrays of fixed addresses, and optimisers and averages of weights keep a clock there. What a step
counts on the host (an optimiser's steps, the batches that BatchNorm has seen) is counted on after each replay.
"""

import contextlib
import functools
from collections.abc import Mapping

import numpy as np

from nanogan import dispatch
from nanogan.backend import graphs
from nanogan.errors import UserError
from nanogan.progress import say


def steps_of(game):
    """Return a function of step's inputs, a dictionary, that returns what ``game.step`` does.

    On a GPU that is :class:`Graphed`, unless NANOGAN_GRAPH=0 or NANOGAN_FAST=0 is in the environment.
    """
    if game.device.kind == "cpu" or not (graphs.ON and dispatch.FAST):
        return lambda inputs: game.step(**inputs)
    return Graphed(game)


MANY = 10  # kinds of inputs after which no more is hoped for


class Graphed:
    """Plays a game's steps: launched kernel by kernel, rehearsed twice, recorded, then replayed.

    A recording is for inputs of one kind, that of two steps in a row; one of another kind, as an epoch's shorter last
    batch, is played kernel by kernel. Where a step cannot be recorded, ``tell`` is given a line that says why, and all
    are played like that.

    Attributes: play, what the next step does; recorder, with the graph, once there is one.
    """

    def __init__(self, game, tell=say):
        self.game, self.tell, self.play = game, tell, self.first
        self.kind = self.recorder = None
        self.kinds = 0  # seen before there was a recorder

    def __call__(self, inputs):
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
        self.play = self.prepare
        return self.eager(inputs)

    def prepare(self, inputs):
        """Play a step on the arrays, the memory and the stream of the recording."""
        problem = why_not(self.game, inputs)
        if problem:
            return self.give_up(problem, inputs)
        self.recorder, self.inputs = graphs.Recorder(), graphs.Static(inputs, self.game.dtype)
        self.draws = Draws(self.game)
        for member in with_clocks(self.game):
            member.keep_clock(True)
        self.play = self.rehearse
        with self.draws.noted():
            seen, numbers = self.recorder.rehearse(self._step)
        self.row_of = type(type(seen).__name__, (type(seen),), {"__doc__": "What a step returned; row: as one array."})
        return self._seen(numbers)

    def rehearse(self, inputs):
        """Play one more step like that: the memory that the first gave back is now cut as the recording needs it."""
        self.inputs.fill(inputs)
        self.draws.fill()
        self.play = self.record
        with self.draws.repeated():
            _, numbers = self.recorder.rehearse(self._step)
        return self._seen(numbers)

    def record(self, inputs):
        """Record a step, then play it as a replay."""
        counts = Counts(self.game)
        try:
            with self.draws.repeated():
                _, self.numbers = self.recorder.record(self._step)
            self.counted = counts.changes()
        except Exception as error:  # CuPy and CUDA refuse with exceptions of many kinds
            counts.take_back()
            return self.give_up(reason(error), inputs)
        counts.take_back()
        self.settings = Settings(self.game)
        self.tell("from this step on a step is one CUDA graph (NANOGAN_GRAPH=0 launches its kernels one by one)")
        self.play = self.replay
        return self.replay(inputs)

    def replay(self, inputs):
        """Play the recorded step; record it anew if an optimiser's settings or a network's arrays are others now."""
        if not self.settings.hold():
            self.play = self.record
            return self.record(inputs)
        self.inputs.fill(inputs)
        self.draws.fill()
        self.recorder.replay()
        self.counted.add()
        self.settings.restore()
        return self._seen(self.numbers)

    def give_up(self, problem, inputs):
        """Play this step, and all that follow, kernel by kernel."""
        self.tell(f"a step cannot be one CUDA graph ({problem}): its kernels are launched one by one")
        self.recorder, self.play = None, self.eager
        for member in with_clocks(self.game):
            member.keep_clock(False)
        return self.eager(inputs)

    def _step(self):
        seen = self.game.step(**self.inputs.arguments)
        return seen, graphs.packed(seen)

    def _seen(self, numbers):
        """What the step returned, in memory that the next one leaves alone."""
        row = numbers.copy()
        seen = self.row_of(*(row[i] for i in range(len(row))))
        seen.row = row
        return seen


def why_not(game, inputs):
    """Return in a few words what keeps a step from being recorded, as far as can be seen before; None if nothing."""
    for name, value in inputs.items():
        if any(isinstance(leaf, np.ndarray) for leaf in graphs.leaves(value)):
            return f"its input {name} is on the host"
    for name, optimizer in game.optimizers().items():
        if not vars(type(optimizer)).get(
            "keeps_time_on_a_gpu"
        ):  # not inherited: a rule of one's own may count by itself
            return f"{name}, a {type(optimizer).__name__}, counts its steps on the host"
    return None


def with_clocks(game):
    """The optimisers and averages of weights, which depend on how many steps they have done."""
    return [member for member in game.members().values() if hasattr(member, "keep_clock")]


class Settings:
    """What a recording holds of a game's optimisers and averages: their options, and where the parameters are."""

    def __init__(self, game):
        members = [vars(member) for member in with_clocks(game)]
        self.numbers = [
            (attributes, name, value)
            for attributes in members
            for name, value in attributes.items()
            if name != "steps" and isinstance(value, (int, float, tuple, type(None)))
        ]
        self.on_device = [  # a learning rate that the step sets from its inputs
            (attributes, name, value)
            for attributes in members
            for name, value in attributes.items()
            if getattr(value, "shape", None) == ()
        ]
        self.networks = list(game.networks().values())
        self.places = self._places()

    def hold(self):
        """Whether all is as it was."""
        return all(attributes[name] == value for attributes, name, value in self.numbers) and (
            self.places == self._places()
        )

    def restore(self):
        """Give what the recorded step set its value again, which a step played kernel by kernel may have replaced."""
        for attributes, name, value in self.on_device:
            attributes[name] = value

    def _places(self):
        return [id(parameter) for network in self.networks for _, parameter, _ in network.named_parameters()]


class Draws:
    """What layers such as Dropout draw on the host inside a step, in arrays on the device that are filled before it.

    A layer's generator is replaced while a step is rehearsed or recorded: what it is asked for comes as such an array.
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


class Counts:
    """What a game counts on the host, as it is now: the ``steps`` of its members, and arrays of integers."""

    def __init__(self, game):
        self.game = game
        self.members = [member for member in game.members().values() if isinstance(getattr(member, "steps", None), int)]
        self.arrays = list(_host_arrays(game.state_dict()))
        self.steps = [member.steps for member in self.members]
        self.copies = [array.copy() for array in self.arrays]
        self.plain = _plain(game)

    def changes(self):
        """Return how far all has moved since, as :class:`Changes`. Raises UserError for what does not just count."""
        for array, copy in zip(self.arrays, self.copies, strict=True):
            if array.dtype.kind not in "iu" and not np.array_equal(array, copy, equal_nan=True):
                raise UserError("it changes numbers on the host")
        changed = [name for name, value in _plain(self.game).items() if self.plain.get(name) != value]
        if changed:
            raise UserError(f"it changes {type(self.game).__name__}.{changed[0]} on the host")
        return Changes(
            [(member, member.steps - before) for member, before in zip(self.members, self.steps, strict=True)],
            [
                (array, array - copy)
                for array, copy in zip(self.arrays, self.copies, strict=True)
                if (array != copy).any()
            ],
        )

    def take_back(self):
        """Set all to what it was."""
        for member, steps in zip(self.members, self.steps, strict=True):
            member.steps = steps
        for array, copy in zip(self.arrays, self.copies, strict=True):
            array[...] = copy


class Changes:
    """What one step adds to a game's counts."""

    def __init__(self, steps, arrays):
        self.steps, self.arrays = steps, arrays

    def add(self):
        """Count one step."""
        for member, more in self.steps:
            member.steps += more
        for array, more in self.arrays:
            array += more


def reason(error):
    """The first line of an error's text."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _host_arrays(state):
    if isinstance(state, np.ndarray):
        yield state
    elif isinstance(state, Mapping):
        for each in state.values():
            yield from _host_arrays(each)


def _plain(game):
    return {name: value for name, value in vars(game).items() if isinstance(value, (bool, int, float, str, type(None)))}
