"""Is a game's step right? Slopes, bits and turns, whatever the game.

    check_game(DCGAN, {"latent": 3, "width": 2}, {"images": (1, 8, 8)}).raise_if_wrong()

**Slopes.** An optimiser is to take its step with the slope of the loss that ``game.objectives`` names for it. A step
updates one network after the other, and what the first update changes is no part of the second one's slope. So a step
is run once, and each optimiser's gradient and the parameters after each of its updates are noted. Then the step is run
again with the optimisers replaced by the notes, and with the parameters of one network moved along a direction until
its last update: the loss, as a function of the way moved, has the slope that the gradient was to have.

That is the last update of each network. A game that updates one several times is given the same batch for each, with
optimisers that change nothing: then all its gradients are to be those of the last update.

**Bits.** Two steps from one state with the same inputs give the same bits: nothing random, nothing remembered that is
not in the state. **Turns.** A network changes in its own optimiser's step and at no other time; a network without an
optimiser never; and once an optimiser has taken its step, nobody adds to its network's gradients.
"""

import numpy as np

from nanogan.backend import array_module, get_device, to_device, to_numpy
from nanogan.games.game import At
from nanogan.gradcheck import TINY, TOLERANCE, Mismatch, Report, _Kink, _slope

SAMPLES = 5  # in a batch
TRIES = 8  # other weights and batches are tried where a loss has a kink


def check_game(game_class, options, shapes, *, device="cpu", subject=None, seed=0):
    """Check one step of a game in float64 and return a :class:`nanogan.gradcheck.Report`.

    options: values of its Options, {name: value}. shapes: of the loader's columns, {"images": (C, H, W), "labels": K}.
    """
    for attempt in range(TRIES):
        run = _Run(game_class, options, shapes, get_device(device), seed + attempt)
        report = Report(subject or game_class.__name__, tolerance=TOLERANCE[np.dtype(np.float64)], kinks=attempt)
        report.broken = run.promises()
        if report.broken:
            return report
        try:
            report.worst = run.slopes()
            return report
        except _Kink:
            continue
    report.broken = ["it could not be checked: a loss has a kink wherever it was tried"]
    return report


def random_batches(shapes, count, rng, device="cpu"):
    """Return ``count`` batches of the loader's kind: images and other floats from -1 to 1, labels, captions."""
    return [
        {name: to_device(_random_column(shape, rng), device) for name, shape in shapes.items()} for _ in range(count)
    ]


def _random_column(shape, rng):
    if isinstance(shape, dict):  # captions: {"words": ..., "shown": (K, T)}
        return rng.integers(0, len(shape["words"]), (SAMPLES, len(shape["shown"][0])))
    return rng.integers(0, shape, SAMPLES) if isinstance(shape, int) else rng.uniform(-1, 1, (SAMPLES, *shape))


class _Run:
    """A game in one state, the inputs of its next step, and what that step does."""

    def __init__(self, game_class, options, shapes, device, seed):
        rng = np.random.default_rng(seed)
        self.game = game_class(game_class.Options.of(options), shapes, device, seed, np.float64)
        for network in self.game.networks().values():  # larger weights than a DCGAN's first ones: slopes to be seen
            for _, parameter, _ in network.named_parameters():
                parameter += to_device(rng.normal(0, 0.3, parameter.shape), device)
        at = At(step=2, epoch=1, of=4, steps_per_epoch=4)
        self.game.reseed(seed, at.step)
        self.inputs = self.game.draw(random_batches(shapes, self.game.batches, rng, device), rng, at)
        self.seed, self.at = seed, at
        self.start = _copied(self.game.state_dict())
        self.notes = {name: [] for name in self.game.optimizers()}  # [(gradients, parameters after the update), ...]

    def step(self, inputs=None):
        """Take the step from the state that this started with; gradients hold garbage before it."""
        self.game.load_state_dict(self.start)
        self.game.reseed(self.seed, self.at.step)
        for network in self.game.networks().values():
            for _, _, gradient in network.named_parameters():
                gradient[...] = 1e3
        return self.game.step(**(self.inputs if inputs is None else inputs))

    # ------------------------------------------------------------------------------------------------------ promises

    def promises(self):
        """Take the step twice, note each update, and return a sentence for each promise that is broken."""
        broken = []
        with _replaced(self.game.optimizers(), lambda name, step: self._watched(name, step, broken)):
            first = [to_numpy(value).copy() for value in self.step()]
        broken += self._changed("after the optimisers' steps")
        for name, optimizer in self.game.optimizers().items():
            if not self.notes[name]:
                broken.append(f"{name} takes no step: call {name}.step()")
            elif not _equal(_gradients(optimizer.network), self.notes[name][-1][0]):
                broken.append(
                    f"the gradients of {name}'s network change after its step: pass need_dw=False to a backward that "
                    "only passes through it"
                )
        state = _copied(self.game.state_dict())
        again = self.step()
        if not all(np.array_equal(one, to_numpy(other)) for one, other in zip(first, again, strict=True)) or not _equal(
            state, self.game.state_dict()
        ):
            broken.append(
                "two steps from one state differ: draw in draw(), and keep what a step remembers in the state"
            )
        broken += [] if broken else self._differing_updates()
        if not all(to_numpy(value).ndim == 0 for value in again):
            broken.append("step returns arrays with axes: return 0-d ones")
        return broken

    def _watched(self, name, step, broken):
        def watched():
            broken.extend(self._changed(f"before {name}.step()"))
            network = self.game.optimizers()[name].network
            gradients = _gradients(network)
            step()
            for key, each in self.game.networks().items():
                if each is network:
                    self._now[key] = _parameters(each)
            self.notes[name].append((gradients, _parameters(network)))
            broken.extend(self._changed(f"in {name}.step()"))

        self._now = {key: _parameters(each) for key, each in self.game.networks().items()}
        return watched

    def _changed(self, when):
        broken = []
        for name, network in self.game.networks().items():
            now = _parameters(network)
            if not _equal(now, self._now[name]):
                broken.append(
                    f"the parameters of {name} change {when}: they may change in their optimiser's step alone "
                    "(weights are clipped by the optimiser: weight_clip=0.01)"
                )
                self._now[name] = now
        return broken

    def _differing_updates(self):
        """Sentences for updates of a network whose gradients differ from the last one's, for the same batch."""
        several = {name for name, notes in self.notes.items() if len(notes) > 1}
        if not several:
            return []
        count, found = self.game.batches, {name: [] for name in several}

        def noted(name, step):
            def note():
                found.setdefault(name, []).append(_gradients(self.game.optimizers()[name].network))
                self.game.reseed(self.seed, self.at.step)

            return note

        alike = {
            name: type(value)([value[-1]] * count)
            if isinstance(value, (list, tuple)) and len(value) == count
            else value
            for name, value in self.inputs.items()
        }
        with _replaced(self.game.optimizers(), noted):
            self.step(alike)
        return [
            f"update {i} of {name} has another gradient than its last one, for the same batch"
            for name in sorted(several)
            for i, gradients in enumerate(found[name][:-1], start=1)
            if not _close(gradients, found[name][-1])
        ]

    # -------------------------------------------------------------------------------------------------------- slopes

    def slopes(self):
        """Return {"opt_d: main.0.weight": the Mismatch of its gradient along a random direction, ...}."""
        rng, worst = np.random.default_rng(self.seed), {}
        step = float(np.finfo(np.float64).eps) ** (1 / 3)
        for name in self.game.optimizers():
            gradients = self.notes[name][-1][0]
            value = self._loss(name, None, None)
            noise = step * step * max(abs(value), 1e-3)
            for parameter, gradient in gradients.items():
                offset = array_module(gradient).zeros_like(gradient)
                typical = float((gradient * gradient).sum()) ** 0.5
                floor = 50 * noise / TOLERANCE[np.dtype(np.float64)]
                direction = rng.standard_normal(gradient.shape)
                direction = to_device(direction / max((direction**2).sum() ** 0.5, TINY), self.game.device)
                numeric = _slope(
                    lambda name=name, parameter=parameter, offset=offset: self._loss(name, parameter, offset),
                    offset, direction, step, noise, 1e-6 * max(floor, typical),
                )  # fmt: skip
                backward = float((gradient * direction).sum())
                error = abs(backward - numeric) / max(abs(numeric), typical, floor, TINY)
                label = f"{name}: {parameter}"
                worst[label] = Mismatch(label, error, None, backward, numeric)
        return worst

    def _loss(self, moved, parameter, offset):
        """The loss that the optimiser ``moved`` minimises, a parameter moved by ``offset`` until its last update."""
        calls = dict.fromkeys(self.notes, 0)

        def noted(name, step):
            def replay():
                after = self.notes[name][calls[name]][1]
                calls[name] += 1
                network = self.game.optimizers()[name].network
                last = calls[name] == len(self.notes[name])
                for key, array, _ in network.named_parameters():
                    array[...] = after[key] + (offset if (name, key) == (moved, parameter) and not last else 0)

            return replay

        network, original = self.game.optimizers()[moved].network, self.start
        with _replaced(self.game.optimizers(), noted):
            self.game.load_state_dict(original)
            self.game.reseed(self.seed, self.at.step)
            for key, array, _ in network.named_parameters():
                if key == parameter:
                    array += offset
            return float(self.game.objectives(self.game.step(**self.inputs))[moved])


class _replaced:
    """Each optimiser's ``step`` is ``make(name, step)`` inside this block."""

    def __init__(self, optimizers, make):
        self.optimizers, self.make = optimizers, make

    def __enter__(self):
        for name, optimizer in self.optimizers.items():
            optimizer.step = self.make(name, type(optimizer).step.__get__(optimizer))

    def __exit__(self, *error):
        for optimizer in self.optimizers.values():
            del optimizer.step


def _copied(state):
    return {
        key: _copied(value) if isinstance(value, dict) else value.copy() if hasattr(value, "copy") else value
        for key, value in state.items()
    }


def _parameters(network):
    return {name: parameter.copy() for name, parameter, _ in network.named_parameters()}


def _gradients(network):
    return {name: gradient.copy() for name, _, gradient in network.named_parameters()}


def _close(gradients, others):
    """Whether gradients, {name: array}, are alike but for rounding."""
    return all(
        bool((abs(gradient - others[name]) <= 1e-9 * max(1.0, float(abs(others[name]).max()))).all())
        for name, gradient in gradients.items()
    )


def _equal(one, other):
    """Whether two dictionaries (of dictionaries) hold the same bits."""
    return one.keys() == other.keys() and all(
        _equal(value, other[key])
        if isinstance(value, dict)
        else np.array_equal(to_numpy(value), to_numpy(other[key]), equal_nan=True)
        if hasattr(value, "dtype")
        else value == other[key]
        for key, value in one.items()
    )
