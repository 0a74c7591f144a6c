"""Gradient checks: does a backward pass compute the slopes of its forward pass?

    from nanogan.gradcheck import check_layer, check_operation

    check_layer(MyLayer(), x).raise_if_wrong()
    check_operation(ops.relu_forward, ops.relu_backward, {"x": x})

``python -m nanogan.gradcheck`` checks every operation and layer of nanogan and prints a table.

**How.** The outputs y are summed up to one number, loss = sum of dy * y, with a random dy. (With dy = 1 everywhere,
whole terms of a wrong backward can cancel: BatchNorm's dx is then 0 whatever is computed.) Then backward's gradient g
of each array a is compared with central differences of the loss, in float64, in two ways:

- along random directions v of unit length, g . v against (loss(a + eps v) - loss(a - eps v)) / (2 eps): a few forwards
  for each direction, whatever the size. Any mistake shows, as a direction has a part along every element.
- element by element where arrays are small, or for some random elements of larger ones, to say where the mistake is.

**Kinks.** |x|, ReLU and max pooling have slopes that jump; differences across a jump are a mixture of two slopes, and
comparing with a mixture proves nothing. A jump between a - eps v and a + eps v shows in the forward alone. On a smooth
curve the slopes on the right and on the left differ by eps times the curvature, so by a quarter as much for a quarter
of the step; across a kink they do not. The step is then shortened; where the kink is at a itself, the arrays are moved
a little and everything is computed again. No tolerance is widened.

**Step and tolerance.** Central differences are wrong by eps^2 (the curve bends) and by rounding / eps. Both are small
near eps = cube root of the machine's precision: 6e-6 in float64, where about 1e-10 of the loss remains. Code that only
exists in float32 can be checked in ``dtype=np.float32``: there eps is 5e-3, and two digits are compared. That serves an
operation; steps of that size meet a kink wherever a network has hundreds of ReLUs, which needs float64.

**The contract.** Right slopes are not all that a GAN needs of a layer. Its discriminator holds a real and a fake batch
at once, gradients of both add up, and G's step wants D's dx without its dw. :mod:`nanogan.gradcheck.contract` checks
that, too; ``Report.broken`` has a sentence for each promise that is not kept.
"""

import copy
import itertools
from dataclasses import dataclass, field

import numpy as np

from nanogan.backend import array_module, to_numpy
from nanogan.errors import UserError
from nanogan.gradcheck.contract import layer_promises, operation_promises

# of the largest gradient of an array; differences are good to about 1e-9 and 1e-4 for values of order 1
TOLERANCE = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 1e-2}
ELEMENTS = 64  # of an array that are checked one by one
SEARCHED = 4096  # of an array that are, once a direction has shown a mistake
KINK_MOVES = 8  # how often the arrays are moved away from a kink before giving up


@dataclass
class Mismatch:
    """The worst disagreement found in one array: backward's number and the differences', and where."""

    name: str
    error: float
    index: tuple | None = None  # None: along a random direction
    backward: float = 0.0
    numeric: float = 0.0

    def __str__(self):
        if self.index is None:
            return f"d{self.name} along a random direction: {self._values()}"
        place = f"[{','.join(map(str, self.index))}]" if self.index else ""
        if not np.isfinite(self.backward):
            return f"d{self.name}{place}: backward says {self.backward}"
        return f"d{self.name}{place}: {self._values()}"

    def _values(self):
        return f"backward says {self.backward:.6g}, finite differences say {self.numeric:.6g}{self._hint()}"

    def _hint(self):
        if self.numeric == 0 or self.backward == 0:
            return ": a term is missing?" if self.backward == 0 else ": a term too many?"
        ratio = self.backward / self.numeric
        if abs(ratio + 1) < 1e-4:
            return ": sign?"
        for factor in (2, 0.5, 4, 0.25):
            if abs(ratio - factor) < 1e-4:
                return f": a factor of {factor:g} too much?"
        return ""


@dataclass
class Report:
    """What a check found: for each array the worst relative error and where it is; and the promises not kept."""

    subject: str
    worst: dict[str, Mismatch] = field(default_factory=dict)
    tolerance: float = TOLERANCE[np.dtype(np.float64)]
    kinks: int = 0  # how often the arrays had to be moved away from one
    broken: list[str] = field(default_factory=list)

    @property
    def error(self):
        """The worst relative error of all arrays."""
        return max((mismatch.error for mismatch in self.worst.values()), default=0.0)

    @property
    def passed(self):
        """Whether every gradient agrees and every promise is kept."""
        return self.error <= self.tolerance and not self.broken  # False for NaN

    def raise_if_wrong(self):
        """Raise AssertionError, with a line for each array and promise, unless all is well; return the report."""
        if not self.passed:
            what = "broken contract" if self.error <= self.tolerance else "wrong gradient"
            raise AssertionError(f"{self.subject}: {what}\n{self}")
        return self

    def __str__(self):
        lines = []
        for mismatch in self.worst.values():
            good = mismatch.error <= self.tolerance
            lines.append(f"  d{mismatch.name}: right to {mismatch.error:.1e}" if good else f"  {mismatch}")
        lines += [f"  {sentence}" for sentence in self.broken]
        return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------- the checks


def check_operation(
    forward, backward, inputs, options=None, *, subject=None, rng=None, dtype=np.float64, tolerance=None, contract=True
):
    """Check a pair of functions of ``nanogan.ops``' kind and return a :class:`Report`.

    inputs: {name: array}, in the order of forward's arguments; floating-point arrays are checked in ``dtype``, and
    backward's results belong to them in the same order. options: forward's keyword arguments, or a function that makes
    them anew for each call (where they hold a random generator). ``tolerance`` is relative to an array's largest
    gradient: 1e-6 in float64 and 1e-2 in float32 if not given. ``contract=False`` compares the slopes only.
    """
    inputs = {name: _as(array, dtype) for name, array in inputs.items()}

    def call(arrays):
        chosen = options() if callable(options) else options or {}
        return forward(*arrays.values(), **chosen)

    def gradients(dy, cache):
        results = backward(dy, cache)
        results = results if isinstance(results, tuple) else (results,)
        return dict(zip(inputs, results, strict=False))

    def run():  # on copies: some forwards update running statistics
        return call({name: array.copy() for name, array in inputs.items()})

    report = _check(subject or forward.__name__, run, gradients, inputs, rng, dtype, tolerance)
    if contract:
        report.broken = [f"contract: {s}" for s in operation_promises(call, gradients, inputs)]
    return report


def check_layer(layer, x, *, train=True, subject=None, rng=None, dtype=np.float64, tolerance=None, contract=True):
    """Check dx and every parameter's gradient of a layer or a network on the input ``x``; return a :class:`Report`.

    The layer is copied and the copy converted to ``dtype``, so that its parameters, gradients and running statistics
    stay as they are. ``tolerance`` and ``contract`` are those of :func:`check_operation`.
    """
    layer = copy.deepcopy(layer).astype(dtype)
    arrays = {"x": _as(x, dtype)} | {name: parameter for name, parameter, _ in layer.named_parameters()}
    ran = []

    def run():  # on a copy, so that every forward finds the same running statistics and random state
        ran[:] = [copy.deepcopy(layer)]
        return ran[0].forward(arrays["x"].copy(), train=train)

    def gradients(dy, cache):
        ran[0].zero_grad()
        dx = ran[0].backward(dy, cache)
        return {"x": dx} | {name: g for name, _, g in ran[0].named_parameters()}

    report = _check(subject or type(layer).__name__, run, gradients, arrays, rng, dtype, tolerance)
    if contract:
        report.broken = [f"contract: {s}" for s in layer_promises(layer, arrays["x"], train=train)]
    return report


def _as(array, dtype):
    return array.astype(dtype) if array.dtype.kind == "f" else array.copy()


def _check(subject, run, gradients, arrays, rng, dtype, tolerance):
    """Compare ``gradients(dy, cache)`` with differences of ``run()``, which returns ``y, cache`` for ``arrays``."""
    dtype = np.dtype(dtype)
    if dtype not in TOLERANCE:
        raise UserError(f"gradients are checked in float64 or float32, got dtype {dtype}")
    rng = rng or np.random.default_rng(0)
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    precision = float(np.finfo(dtype).eps)
    report = Report(subject, tolerance=tolerance)
    y, _ = run()
    dy = array_module(y).asarray(rng.standard_normal(y.shape).astype(dtype))
    # below this a gradient counts as this: precision / step, what rounding leaves, would look like a mistake
    floor = 5 * precision ** (2 / 3) / tolerance * float((dy * dy).sum()) ** 0.5
    step = precision ** (1 / 3)
    for moves in range(KINK_MOVES + 1):
        y, cache = run()
        found = _check_shapes(subject, gradients(dy.copy(), cache), arrays)

        def loss(y0=y):  # differences of y, added up in float64: the unchanged part costs no digits
            return float((dy * (run()[0] - y0)).sum(dtype=np.float64))

        try:
            report.worst = {
                name: _worst(name, loss, arrays[name], gradient.astype(np.float64), step, floor, rng, tolerance)
                for name, gradient in found.items()
            }
            report.kinks = moves
            return report
        except _Kink:
            for array in arrays.values():
                if array.dtype.kind == "f":
                    array += array_module(array).asarray(max(1e-3, 4 * step) * rng.standard_normal(array.shape))
    raise UserError(f"{subject} could not be checked: its slope jumps wherever it was tried")


def _check_shapes(subject, found, arrays):
    """Return the gradients of all floating-point arrays in ``found``; raise AssertionError if one is None or misshapen.

    Whole numbers, such as an embedding's indices, have no gradient, and None is right for them.
    """
    found = {name: gradient for name, gradient in found.items() if arrays[name].dtype.kind == "f"}
    for name, gradient in found.items():
        if gradient is None:
            raise AssertionError(f"{subject}: backward returns no d{name} (None), but the result depends on {name}")
        if gradient.shape != arrays[name].shape:
            raise AssertionError(
                f"{subject}: d{name} has shape {gradient.shape}, but {name} has shape {arrays[name].shape}"
            )
    return found


class _Kink(Exception):
    """The loss's slope jumps here."""


def _worst(name, loss, array, gradient, step, floor, rng, tolerance):
    """Return the worst Mismatch of one array: along three directions, then for single elements."""
    xp = array_module(array)
    if not bool(xp.isfinite(gradient).all()):
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(to_numpy(gradient)))[0])
        return Mismatch(name, float("inf"), index, float(gradient[index]), float("nan"))
    gradient_norm = float((gradient * gradient).sum()) ** 0.5
    largest = float(abs(gradient).max()) if gradient.size else 0.0
    worst = Mismatch(name, 0.0)

    for _ in range(3):
        direction = rng.standard_normal(array.shape)
        direction = xp.asarray(direction / np.sqrt((direction**2).sum()))
        numeric = _slope(loss, array, direction, step, tolerance * max(floor, gradient_norm / array.size**0.5))
        backward = float((gradient * direction).sum())
        scale = max(abs(numeric), gradient_norm / array.size**0.5, floor)
        error = abs(backward - numeric) / scale
        if not error <= worst.error:
            worst = Mismatch(name, error, None, backward, numeric)

    # single elements: a sample, or many where a direction has shown that there is a mistake to be found
    count = ELEMENTS if worst.error <= tolerance else SEARCHED
    pairs = []
    for flat in sorted(rng.permutation(array.size)[:count].tolist()):
        index = tuple(int(i) for i in np.unravel_index(flat, array.shape))
        direction = xp.zeros(array.shape)
        direction[index] = 1
        numeric = _slope(loss, array, direction, step, tolerance * max(floor, largest))
        pairs.append((index, float(gradient[index]), numeric))
    scale = max([floor, largest, *(abs(numeric) for _, _, numeric in pairs)])
    elements = [
        Mismatch(name, abs(backward - numeric) / scale, index, backward, numeric) for index, backward, numeric in pairs
    ]
    worst_element = max(elements, key=lambda mismatch: (mismatch.error, np.isnan(mismatch.error)), default=worst)
    # an element says more than a direction, where it shows the mistake too
    return worst_element if worst_element.error > min(tolerance, worst.error) else worst


def _slope(loss, array, direction, step, negligible):
    """Return d loss / dt at array + t * direction, t = 0, by central differences that hold no kink.

    Raises _Kink if the slope jumps at t = 0 itself; a jump below ``negligible`` does not matter.
    """
    start = array.copy()

    def at(t):
        array[...] = start + t * direction
        value = loss()
        array[...] = start
        return value

    middle = at(0.0)
    step *= max(1.0, float(abs(start * (direction != 0)).max()))
    shortest = step / 256 if array.dtype == np.float64 else step / 4  # rounding / step is to stay below the tolerance
    values = [(at(step / 4**i), at(-step / 4**i)) for i in range(3)]
    while step >= shortest:
        # how much the slopes on the right and on the left differ, for steps of 1, 1/4 and 1/16
        jumps = [abs(right - 2 * middle + left) / (step / 4**i) for i, (right, left) in enumerate(values)]
        # on a smooth curve each is a quarter of the one before
        smooth = [b <= negligible / 4 or a / 8 < b < a / 2 for a, b in itertools.pairwise(jumps)]
        if jumps[0] <= negligible or (all(smooth) and jumps[1] > jumps[0] / 8):
            right, left = values[0]
            return (right - left) / (2 * step)
        step /= 4
        values = [*values[1:], (at(step / 16), at(-step / 16))]
    raise _Kink
