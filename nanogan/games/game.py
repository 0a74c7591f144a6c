"""What is trained: networks, their optimisers, and one step of the game that they play.

    class Seen(NamedTuple): loss_d: np.ndarray; loss_g: np.ndarray             the columns of log.csv

    class MyGAN(Game):
        Options = MyOptions                                                    its flags: see :class:`Options`
        exports = {"generator.safetensors": "g"}
        def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
            self.options, self.device, self.dtype = options, get_device(device), dtype
            self.g, self.d = ...                                               networks, on the device
            self.opt_g, self.opt_d = Adam(self.g, lr=options.lr), Adam(self.d, lr=options.lr)
        def draw(self, batches, rng, at):                                      host: everything random, all schedules
            (batch,) = batches                                                 as many as a step takes: one
            real = batch["images"]
            return {"real": real, "z": draw_z(rng, len(real), ...), "lr": self.options.lr}
        def step(self, real, z, lr) -> Seen:                                   device: the lesson
            self.opt_g.lr = self.opt_d.lr = lr                                 a resumed run's --lr comes this way
            ...                                     self.d.backward(loss_backward(self.opt_d.dloss, loss_cache), ...)
            return Seen(loss_d, loss_g)
        def objectives(self, seen): return {"opt_d": seen.loss_d, "opt_g": seen.loss_g}
        def fixed(self, batches, rng): return z                                what is shown each time
        def sample(self, z): return images
        def generate(cls, network, count, options, rng, device): return images     (a classmethod) for --generate

    EXAMPLES = {"my GAN": (MyGAN, {"latent": 3}, {"images": (1, 8, 8)})}       {name: (class, options, shapes)}

A GAN is at most three files: networks in ``models/`` if it needs new ones, its game here, its script in ``examples/``.
There is no list of games: ``python -m nanogan.gradcheck`` and the tests find each by its ``EXAMPLES``. Three rules:
parameters change in an optimiser's ``step`` alone, which also clips weights if the optimiser has a ``weight_clip``;
a backward starts from its optimiser's ``dloss``, which is not 1 where losses are scaled (fp16); and names are free, but
a network called ``g`` is the one that ``checkpoint.load_generator`` takes out of a run's checkpoint.
"""

import dataclasses
import typing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanogan.backend import Device, seeded_rng
from nanogan.errors import UserError
from nanogan.layers import Layer
from nanogan.optim import Optimizer, linear_decay
from nanogan.optim.options import as_float


def option(default, help, *, low=None, above=None, high=None, choices=None, metavar=None, may_change=False):
    """Return a field of :class:`Options`.

    help: a line for ``--help``. low, above, high: the least value, what it must be above, the greatest one. choices:
    the values that there are. may_change: whether a resumed run may have another value.
    """
    limits = {"low": low, "above": above, "high": high, "choices": choices}
    return dataclasses.field(
        default=default, metadata={"help": help, "metavar": metavar, "may_change": may_change, **limits}
    )


def lr_decay_option(default="none"):
    """Return the option that a game has whose learning rates may fall; :func:`lr_factor` obeys it."""
    help = "linear: the learning rates fall to 0 over the run, for a calm end"
    return option(default, help, choices=("none", "linear"))


def lr_factor(options, at):
    """Return the factor of a learning rate at a step: 1, or :func:`nanogan.optim.linear_decay`'s."""
    return linear_decay(at) if options.lr_decay == "linear" else 1


@dataclass(frozen=True)
class Options:
    """A game's options. A subclass is a frozen dataclass of :func:`option` fields, each with its type.

    From the fields come the flags (``d_steps`` is ``--d-steps``), ``--help``, what a resumed run may not change, and
    what checkpoints and reports show. NumPy's numbers become Python's, which checkpoints can hold, a Path a str. Raises
    UserError for a value that a field does not allow.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = plain(option_type(field), getattr(self, field.name))
            problem = wrong_value(field, value)
            if problem:
                raise UserError(problem)
            object.__setattr__(self, field.name, value)  # a frozen dataclass is set like this

    @classmethod
    def of(cls, values):
        """Return the options among ``values``, {name: value}; defaults for those that are missing."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values})


def plain(kind, value):
    """Return ``value`` as Python's ``kind`` (int, float, bool or str) if it is one in other clothes, else as it is."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]  # NumPy's scalar
    if kind is float and as_float(value) is not None:
        return as_float(value)
    if kind is int and isinstance(value, np.integer):
        return int(value)
    if kind is bool and isinstance(value, np.bool_):
        return bool(value)
    if kind is str and isinstance(value, (str, Path)):
        return str(value)
    return value


def wrong_value(field, value):
    """What is wrong with the value of an option, in a sentence; None if nothing is."""
    kind, limits = option_type(field), field.metadata
    if value is None and field.default is None:
        return None
    if limits.get("choices"):
        known = ", ".join(map(str, limits["choices"]))
        fits = type(value) is kind and value in limits["choices"]
        return None if fits else f"unknown {field.name} {value!r}: use one of {known}"
    low, above, high = (limits.get(name) for name in ("low", "above", "high"))
    fits = type(value) is kind and (kind not in (int, float) or abs(value) < float("inf"))
    fits = fits and (low is None or value >= low) and (above is None or value > above)
    if fits and (high is None or value <= high):
        return None
    noun = {int: "an integer", float: "a number", bool: "True or False", str: "a text"}[kind]
    bounds = [f"{word} {limit}" for word, limit in (("of at least", low), ("above", above), ("at most", high))
              if limit is not None]  # fmt: skip
    return f"{field.name} expected {' '.join([noun, ' and '.join(bounds)]).strip()}, got {value!r}"


def option_type(field):
    """int, float, bool or str: the type of an option's values; that of ``float | None`` is float."""
    kinds = field.type  # a text where its file says "from __future__ import annotations"
    if isinstance(kinds, str):
        known = {kind.__name__: kind for kind in (int, float, bool, str)}
        return next(known[name.strip()] for name in kinds.split("|") if name.strip() != "None")
    return next(kind for kind in getattr(kinds, "__args__", (kinds,)) if kind is not type(None))


@dataclass(frozen=True)
class At:
    """Where a run stands when a step is drawn: all that a schedule may depend on."""

    step: int  # from 1
    epoch: int  # from 1
    of: int  # steps planned for the whole run
    steps_per_epoch: int = 1

    @property
    def done(self):
        """The share of the planned steps that lie before this one, 0 to below 1."""
        return (self.step - 1) / self.of

    @property
    def step_in_epoch(self):
        """From 1."""
        return self.step - (self.epoch - 1) * self.steps_per_epoch

    @property
    def ends_epoch(self):
        """Whether this is an epoch's last step."""
        return self.step_in_epoch == self.steps_per_epoch


class OfWholeBatch(np.random.Generator):
    """A generator that draws for the images of all ranks, and returns the numbers of this rank's.

    For layers that draw as they compute, as Dropout does: the first dimension of what they ask for is that of the
    rank's images. Other methods than random and standard_normal give numbers of each rank's own.
    """

    def __init__(self, rng, ranks):
        super().__init__(rng.bit_generator.jumped(ranks.rank + 1))
        self.of_all, self.ranks = rng, ranks

    def random(self, size=None, **options):
        return self._own(self.of_all.random, size, options)

    def standard_normal(self, size=None, **options):
        return self._own(self.of_all.standard_normal, size, options)

    def _own(self, draw, size, options):
        if size is None:
            return draw(**options)
        first, *rest = np.atleast_1d(size).tolist()
        N = first * self.ranks.size
        return draw((N, *rest), **options)[self.ranks.own(N)]


class Game:
    """Networks that play against each other. What is an attribute belongs to the run, as a layer's attributes do:

        Layer        moved, checked, saved and resumed under the attribute's name
        Optimizer    saved and resumed; a network without one is frozen
        anything else with state_dict and load_state_dict (an average of weights, a pool of images): saved and resumed

    ``shapes`` says what the loader's columns hold: {"images": (C, H, W), "labels": number of classes}, and of captions,
    integers (N, T), {"words": the words that they are places in, "shown": some captions, lists of T integers}.
    """

    Options = Options
    batches = 1  # that one step takes, the same for a whole run; see batches_of
    exports = {}  # {"generator.safetensors": "g"}: networks that a run leaves as files; the first one generates
    curves = {}  # {"losses": ("loss_d", "loss_g")}: the panels in which step's numbers are drawn
    labels = {}  # {"loss_d": "Loss_D"}: how the numbers are called there; by their own names if not given
    real = "images"  # the loader's column of real images, for real.png and to compare samples with
    unpaired = ()  # columns of the loader that have a length and an order of their own: another domain's images
    images_per_row = None  # of the sample grids; about as many as there are rows if not given
    generates = True  # whether generate makes images from random numbers alone; a translator needs images
    least_batch = 1  # images that a step needs; BatchNorm of vectors has no variance of one
    recordable = True  # False for a step that depends on what it counted on the host: see nanogan.training.graph
    ranks = None  # the processes that share its batches, a nanogan.ranks.Ranks; None: this one alone
    generated = slice(None)  # those of sample's images that are compared with the real ones
    device = Device("cpu")  # where its arrays are

    # ---- what a game writes itself

    def __init__(self, options, shapes, device="cpu", seed=0, dtype=np.float32):
        raise TypeError(f"{type(self).__name__} expected its own __init__ with networks and optimisers: write it")

    @classmethod
    def batches_of(cls, options):
        """Return the batches that one step takes with ``options``: 1, or one for each update of D. __init__ sets it.

        An epoch's last step may be given fewer.
        """
        return cls.batches

    def draw(self, batches, rng, at):
        """Return step's keyword arguments, on the device, for ``batches``, a list of the loader's dictionaries.

        On the host: everything random comes from ``rng``, a numpy.random.Generator that depends on the run's seed and
        the step alone; everything scheduled from ``at``. The last group of an epoch may have fewer than
        ``self.batches``.

        Where ranks share a batch, each draws for all of its images, and step is given a rank's part: of every array the
        rows of its own images. Images themselves are of use for their ``shape`` alone here, and are passed on: what is
        computed with them is step's. An array therefore has a row for each image of its batch; a number is a float.
        """
        raise TypeError(f"{type(self).__name__} expected its own draw(batches, rng, at): write it")

    def step(self, **inputs):
        """Update every network; return a NamedTuple of 0-d arrays, whose fields are the columns of log.csv.

        Its class is the method's annotation: ``def step(self, real, z) -> Seen``. A step is deterministic, a function
        of its inputs and of the game's state alone, and reads nothing back to the host. On a GPU it is recorded and
        played again as one CUDA graph: Python's lines then run no more, so a step that branches on what it counted says
        ``recordable = False``. The run stops if a field whose
        name starts with "loss" is not finite. Fields d_real and d_fake_after are mean probabilities, and are watched
        for a discriminator that wins: a critic's scores are called otherwise.
        """
        raise TypeError(f"{type(self).__name__} expected its own step(**inputs): write it")

    def objectives(self, seen):
        """Return {attribute of an optimiser: the loss that it minimises}, numbers of step's result.

        With several updates of one network, its last one's. gradcheck compares the gradient of that update with the
        slope of this loss, and the other updates' gradients with the last one's, for the same batch.
        """
        raise TypeError(f"{type(self).__name__} expected its own objectives(seen): write it")

    def fixed(self, batches, rng):
        """Return what :meth:`sample` is given each time: z, labels, source images. Drawn once, at a run's start.

        ``batches``: the run's first ones, as many as a step takes, or more if these are of fewer than 8 images.
        """
        raise TypeError(f"{type(self).__name__} expected its own fixed(batches, rng): write it")

    def sample(self, fixed):
        """Return images (N, C, H, W), -1 to 1, in rows of ``images_per_row`` each."""
        raise TypeError(f"{type(self).__name__} expected its own sample(fixed): write it")

    @classmethod
    def generate(cls, network, count, options, rng, device):
        """Return ``count`` images (N, C, H, W) of a network as the first of ``exports``: what ``--generate`` writes.

        ``options`` has the options as attributes, not checked: those of networks do not count here.
        """
        raise TypeError(f"{cls.__name__} expected its own generate(network, count, options, rng, device): write it")

    @classmethod
    def contradiction(cls, options, arrays):
        """Return what a checkpoint's ``arrays``, {"g.main.0.weight": array}, say against its options; None if nothing.

        Asked before anything is built, so that a file cannot have networks made that are larger than its own.
        """
        return None

    def line(self, numbers):
        """Return what the log says of a step, whose result is the dictionary ``numbers``."""
        return "  ".join(f"{self.labels.get(name, name)}: {value:.4g}" for name, value in numbers.items())

    # ---- what every game has

    @classmethod
    def fields(cls):
        """The names of the numbers that :meth:`step` returns."""
        seen = typing.get_type_hints(cls.step).get("return")
        if not hasattr(seen, "_fields"):
            raise TypeError(f"{cls.__name__}.step expected a NamedTuple as its annotation: def step(self, ...) -> Seen")
        return seen._fields

    def networks(self):
        """{attribute: network}, in the order in which they were made."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Layer)}

    def optimizers(self):
        """{attribute: optimiser}, in the order in which they were made."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Optimizer)}

    def members(self):
        """{attribute: whatever has a state}: networks, optimisers and the rest, in the order of their making."""
        return {name: value for name, value in vars(self).items() if hasattr(value, "load_state_dict")}

    def state_dict(self):
        """Return {attribute: its state}: all that later steps depend on besides their inputs; arrays, not copies.

        States are dictionaries of arrays and numbers, or of such dictionaries. Names and shapes do not change in a run.
        """
        return {name: member.state_dict() for name, member in self.members().items()}

    def load_state_dict(self, state):
        """Go on from :meth:`state_dict`'s result; arrays are copied. Raises UserError if it is of another game."""
        members = self.members()
        if state.keys() != members.keys():
            raise UserError(
                f"this state belongs to another game: {type(self).__name__} has {', '.join(members)}, "
                f"got {', '.join(map(str, state))}"
            )
        for name, member in members.items():
            member.load_state_dict(state[name])

    def exported(self):
        """{file name: network} of ``exports``."""
        return {file: getattr(self, attribute) for file, attribute in self.exports.items()}

    def reseed(self, seed, step):
        """Let layers that draw numbers (Dropout) draw those of step number ``step``, whatever was drawn before."""
        for prefix, network in self.networks().items():
            for name, layer in network.named_layers(prefix):
                if isinstance(getattr(layer, "rng", None), np.random.Generator):
                    rng = seeded_rng(seed, f"{name} in step {step}")
                    layer.rng = rng if self.ranks is None else OfWholeBatch(rng, self.ranks)
