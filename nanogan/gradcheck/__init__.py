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
comparing with a mixture proves nothing. A jump between a - eps v and a + eps v shows in the forward alone: a quarter of
the step gives another slope, where on a smooth curve it gives the same. The step is then shortened. A jump at a itself
gives the same mixture for every step; it shows by slopes on the right and on the left that do not come closer to each
other. Then the arrays are moved a little and everything is computed again. No tolerance is widened.

**Step and tolerance.** Central differences are wrong by eps^2 (the curve bends) and by rounding / eps. Both are small
near eps = cube root of the machine's precision: 6e-6 in float64, where about 1e-10 of the loss remains. Code that only
exists in float32 can be checked in ``dtype=np.float32``: there eps is 5e-3, and two digits are compared. That serves an
operation; steps of that size meet a kink wherever a network has hundreds of ReLUs, which needs float64.

**The contract.** Right slopes are not all that a GAN needs of a layer. Its discriminator holds a real and a fake batch
at once, gradients of both add up, and G's step wants D's dx without its dw. :mod:`nanogan.gradcheck.contract` checks
that, too; ``Report.broken`` has a sentence for each promise that is not kept.

**Tangents.** A layer that defines ``tangent`` is linear piece by piece. Its tangent is checked like a forward, with its
backward, and against the layer's own backward, of which it is the transpose: <dy, tangent(v)> = <backward(dy), v>.
"""

import copy
import inspect
from dataclasses import dataclass, field

import numpy as np

from nanogan.backend import array_module, to_numpy
from nanogan.errors import UserError
from nanogan.gradcheck.contract import layer_promises, operation_promises
from nanogan.layers import Layer

# of the largest gradient of an array; differences are good to about 1e-9 and 1e-4 for values of order 1
TOLERANCE = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 1e-2}
ELEMENTS = 8  # of an array that are checked one by one, where directions show no mistake
SEARCHED = 4096  # of an array that are, once a direction has shown a mistake
TINY = 1e-300  # where everything is 0
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
        return float(np.max([mismatch.error for mismatch in self.worst.values()], initial=0.0))  # NaN stays NaN

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
    forward,
    backward,
    inputs,
    options=None,
    *,
    differentiable=None,
    subject=None,
    rng=None,
    dtype=np.float64,
    tolerance=None,
    contract=True,
):
    """Check a pair of functions of ``nanogan.ops``' kind and return a :class:`Report`.

    inputs: {name: array}, in the order of forward's arguments; floating-point arrays are checked in ``dtype``.
    differentiable: the names (or None for a result to be passed over) that backward's results belong to, in order; all
    inputs if not given. options: forward's keyword arguments, or a function that makes them anew for each call (where
    they hold a random generator). ``tolerance`` is relative to an array's largest gradient: 1e-6 in float64 and 1e-2 in
    float32 if not given. ``contract=False`` compares the slopes only.

    Raises AssertionError if a gradient is missing or has another shape than its array, UserError if nothing can be
    compared: a forward that draws other numbers each time, or returns NaN.
    """
    inputs = {name: _as(name, array, dtype) for name, array in inputs.items()}
    subject = subject or forward.__name__
    names = tuple(inputs) if differentiable is None else tuple(differentiable)

    def call(arrays):
        chosen = options() if callable(options) else options or {}
        return _pair(subject, forward(*arrays.values(), **chosen))

    def gradients(dy, cache):
        results = backward(dy, cache)
        results = results if isinstance(results, (tuple, list)) else (results,)
        surplus = [result for result in results[len(names) :] if result is not None]
        if len(results) < len(names) or surplus:
            count = len(names) + len(surplus) if surplus else len(results)
            raise AssertionError(
                f"{subject}: backward returns {count} gradients, expected {len(names)} ({', '.join(map(str, names))}): "
                "return one for each input, or name those that have one in differentiable="
            )
        return {name: result for name, result in zip(names, results, strict=False) if name is not None}

    def run():  # on copies: some forwards update running statistics
        return call({name: array.copy() for name, array in inputs.items()})

    report = _check(subject, run, gradients, inputs, rng, dtype, tolerance)
    if contract:
        report.broken = [f"contract: {s}" for s in operation_promises(call, gradients, inputs)]
    return report


def check_layer(layer, x, *, train=True, subject=None, rng=None, dtype=np.float64, tolerance=None, contract=True):
    """Check dx and every parameter's gradient of a layer or a network on the input ``x``; return a :class:`Report`.

    The layer is copied and the copy converted to ``dtype``, so that its parameters, gradients and running statistics
    stay as they are. ``tolerance``, ``contract`` and the errors raised are those of :func:`check_operation`.
    """
    subject = subject or type(layer).__name__
    if not hasattr(layer, "params"):
        raise UserError(f"{subject} has no params: call super().__init__() first in its __init__")
    for method, keywords in ((layer.forward, ("train",)), (layer.backward, ("need_dx", "need_dw"))):
        parameters = inspect.signature(method).parameters
        missing = [name for name in keywords if name not in parameters]
        if missing and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            expected = (
                "forward(self, x, train=True)"
                if keywords == ("train",)
                else ("backward(self, dy, cache, need_dx=True, need_dw=True)")
            )
            raise UserError(f"{subject}'s {method.__name__} lacks {' and '.join(missing)}: write {expected}")
    layer = copy.deepcopy(layer).astype(dtype)
    arrays = {"x": _as("x", x, dtype)} | {name: parameter for name, parameter, _ in layer.named_parameters()}
    ran = []

    def run():  # on a copy, so that every forward finds the same running statistics and random state
        ran[:] = [copy.deepcopy(layer)]
        return _pair(subject, ran[0].forward(arrays["x"].copy(), train=train))

    def gradients(dy, cache):
        ran[0].zero_grad()
        dx = ran[0].backward(dy, cache)
        if dx is not None and arrays["x"].dtype.kind != "f":
            raise UserError(f"{subject} returns a dx for an x of {x.dtype}, which has none: check with x.astype(float)")
        return {"x": dx} | {name: g for name, _, g in ran[0].named_parameters()}

    rng = rng or np.random.default_rng(0)
    report = _check(subject, run, gradients, arrays, rng, dtype, tolerance)
    if contract:
        report.broken = [f"contract: {s}" for s in layer_promises(layer, arrays["x"], train=train)]
        if has_tangent(layer):
            _check_tangent(report, run, ran, arrays, rng, dtype)
    return report


def has_tangent(layer):
    """Whether a layer and all layers in it define ``tangent``."""
    layers = [layer, *(inner for _, inner in layer.named_layers())]
    return all(type(each).tangent is not Layer.tangent for each in layers)


def _check_tangent(report, run, ran, arrays, rng, dtype):
    """Add to ``report`` what is wrong with the tangent of the layer that ``run()`` leaves in ``ran``.

    Along v, and as v and the parameters change. As x changes it stays, so the difference of a layer that is curved is
    noticed as a gradient that is not 0.
    """
    xp = array_module(arrays["x"])
    v = xp.asarray(rng.standard_normal(arrays["x"].shape).astype(dtype))
    y, cache = run()
    dy = xp.asarray(rng.standard_normal(y.shape).astype(dtype))
    t, _ = ran[0].tangent(v, cache)
    across, back = float((dy * t).sum()), float((ran[0].backward(dy, cache) * v).sum())
    if t.shape != y.shape or abs(across - back) > report.tolerance * max(abs(across), abs(back), TINY):
        report.broken.append(
            f"tangent(v) is not how y changes along v: <dy, tangent(v)> is {across:.6g}, <backward(dy), v> {back:.6g}"
        )

    def tangent():
        _, cache = run()
        return ran[0].tangent(v.copy(), cache)  # as some return v itself

    def gradients(dy, cache):
        ran[0].zero_grad()
        dv = ran[0].backward(dy, cache)
        parameters = {name: gradient for name, _, gradient in ran[0].named_parameters()}
        return {"v": dv, "x": xp.zeros_like(arrays["x"])} | parameters

    found = _check(report.subject, tangent, gradients, arrays | {"v": v}, rng, dtype, report.tolerance)
    for name, mismatch in found.worst.items():
        mismatch.name = f"{name} of its tangent"
        report.worst[mismatch.name] = mismatch


def _as(name, array, dtype):
    try:
        array_module(array)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    return array.astype(dtype) if array.dtype.kind == "f" else array.copy()


def _pair(subject, result):
    if not isinstance(result, tuple) or len(result) != 2 or not hasattr(result[0], "shape"):
        raise UserError(f"{subject}'s forward returns {type(result).__name__}, expected a pair: return y, cache")
    return result


def _check(subject, run, gradients, arrays, rng, dtype, tolerance):
    """Compare ``gradients(dy, cache)`` with differences of ``run()``, which returns ``y, cache`` for ``arrays``."""
    dtype = np.dtype(dtype)
    if dtype not in TOLERANCE:
        raise UserError(f"gradients are checked in float64 or float32, got dtype {dtype}")
    rng = rng or np.random.default_rng(0)
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    report = Report(subject, tolerance=tolerance)
    y, _ = run()
    _check_forward(subject, y, run()[0], dtype)
    dy = array_module(y).asarray(rng.standard_normal(y.shape).astype(dtype))
    step = float(np.finfo(dtype).eps) ** (1 / 3)
    for moves in range(KINK_MOVES + 1):
        y, cache = run()
        found = _check_shapes(subject, gradients(dy.copy(), cache), arrays)
        # what rounding of y leaves of precision / step; a gradient that would drown in it counts as larger
        noise = step * step * float((dy * y * dy * y).sum(dtype=np.float64)) ** 0.5
        limits = step, noise, 50 * noise / tolerance, tolerance

        def loss(y0=y):  # differences of y, added up in float64: the unchanged part costs no digits
            return float((dy * (run()[0] - y0)).sum(dtype=np.float64))

        try:
            report.worst = {
                name: _worst(name, loss, arrays[name], gradient.astype(np.float64), limits, rng)
                for name, gradient in found.items()
            }
            report.kinks = moves
            return report
        except _Kink:
            for array in arrays.values():
                if array.dtype.kind == "f":
                    array += array_module(array).asarray(max(1e-3, 4 * step) * rng.standard_normal(array.shape))
    raise UserError(f"{subject} could not be checked: its slope jumps wherever it was tried")


def _check_forward(subject, y, again, dtype):
    """Raise UserError for what no differences can be taken of."""
    if y.dtype != dtype:
        raise UserError(f"{subject}'s forward makes {y.dtype} of {dtype}: let the result have the inputs' dtype")
    if not bool(array_module(y).isfinite(y).all()):
        raise UserError(f"{subject}'s forward returns NaN or infinity for this input: check with another")
    if not bool((y == again).all()):
        raise UserError(
            f"{subject}'s forward gives another result each time: draw random numbers from a generator that the "
            "layer keeps, seeded when it is made, so that copies of the layer draw the same"
        )


def _check_shapes(subject, found, arrays):
    """Return the gradients of the floating-point arrays in ``found``; raise AssertionError if one is None or misshapen.

    Whole numbers, such as an embedding's indices, have no gradient, and None is right for them.
    """
    found = {name: gradient for name, gradient in found.items() if arrays[name].dtype.kind == "f"}
    for name, gradient in found.items():
        if gradient is None:
            raise AssertionError(
                f"{subject}: backward returns no d{name} (None); it is zeros where the result does not depend on {name}"
            )
        if not hasattr(gradient, "shape") or gradient.shape != arrays[name].shape:
            got = f"shape {gradient.shape}" if hasattr(gradient, "shape") else f"type {type(gradient).__name__}"
            raise AssertionError(f"{subject}: d{name} has {got}, but {name} has shape {arrays[name].shape}")
    if not found:
        raise UserError(f"{subject} has nothing to be checked: no input and no parameter is of floating-point numbers")
    return found


class _Kink(Exception):
    """The loss's slope jumps here."""


def _worst(name, loss, array, gradient, limits, rng):
    """Return the worst Mismatch of one array: along three directions, then for single elements."""
    xp = array_module(array)
    step, noise, floor, tolerance = limits
    if not bool(xp.isfinite(gradient).all()):
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(to_numpy(gradient)))[0])
        return Mismatch(name, float("inf"), index, float(gradient[index]), float("nan"))
    worst = Mismatch(name, 0.0)
    if not array.size:
        return worst
    typical = float((gradient * gradient).mean()) ** 0.5
    largest = float(abs(gradient).max())

    for _ in range(3):
        direction = rng.standard_normal(array.shape)
        direction = xp.asarray(direction / np.sqrt((direction**2).sum()))
        numeric = _slope(loss, array, direction, step, noise, tolerance * max(floor, typical))
        backward = float((gradient * direction).sum())
        error = abs(backward - numeric) / max(abs(numeric), typical, floor, TINY)
        if error > worst.error:
            worst = Mismatch(name, error, None, backward, numeric)

    # single elements: a sample, or many where a direction has shown that there is a mistake to be found
    count = ELEMENTS if worst.error <= tolerance else SEARCHED
    pairs = []
    for flat in sorted(rng.permutation(array.size)[:count].tolist()):
        index = tuple(int(i) for i in np.unravel_index(flat, array.shape))
        direction = xp.zeros(array.shape)
        direction[index] = 1
        numeric = _slope(loss, array, direction, step, noise, tolerance * max(floor, largest))
        pairs.append((index, float(gradient[index]), numeric))
    scale = max([floor, largest, TINY, *(abs(numeric) for _, _, numeric in pairs)])
    elements = [
        Mismatch(name, abs(backward - numeric) / scale, index, backward, numeric) for index, backward, numeric in pairs
    ]
    worst_element = max(elements, key=lambda mismatch: mismatch.error)
    # an element says more than a direction, where it shows the mistake too
    return worst_element if worst_element.error > min(tolerance, worst.error) else worst


def _slope(loss, array, direction, step, noise, negligible):
    """Return d loss / dt at array + t * direction, t = 0, by central differences that hold no kink.

    ``noise``: how far rounding may put the slope off for this step. Errors below ``negligible`` do not matter.
    Raises _Kink if the slope jumps at t = 0 itself, or too near to it.
    """
    start = array.copy()

    def at(t):
        array[...] = start + t * direction
        value = loss()
        array[...] = start
        return value

    middle = at(0.0)
    step *= max(1.0, float(abs(start * (direction != 0)).max()))
    right, left = at(step), at(-step)
    for _ in range(5 if array.dtype == np.float64 else 2):  # 4^5 * noise is still below what is negligible
        slope, jump = (right - left) / (2 * step), abs(right - 2 * middle + left) / step
        nearer_right, nearer_left = at(step / 4), at(-step / 4)
        nearer_slope = (nearer_right - nearer_left) / (step / 2)
        nearer_jump = abs(nearer_right - 2 * middle + nearer_left) / (step / 4)
        same = abs(slope - nearer_slope) <= negligible / 4 + 12 * noise
        if same and (jump <= negligible or nearer_jump <= jump / 2 + 12 * noise):
            return slope
        step, noise, right, left = step / 4, 4 * noise, nearer_right, nearer_left
    raise _Kink
