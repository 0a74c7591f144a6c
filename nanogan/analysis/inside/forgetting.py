"""Which maps of a generator draw a thing, and what does it draw without them?

Source: A. Radford, L. Metz, S. Chintala, arXiv:1511.06434, section 6.3.1 and figure 6, where bedrooms lose windows.
Boxes are drawn round the windows of some samples; logistic regression tells positions inside a box from positions
elsewhere by the activations of one hidden layer, a number for each map; the maps with a weight above 0 are set to zero
everywhere, and the rest of the generator draws what is left.

A box is (left, top, right, bottom) in pixels of the picture, from 0 to its side; right and bottom are outside. "Maps"
are channels of the activations (N, C, h, w) that follow a hidden (transposed) convolution, after BatchNorm and ReLU.
All networks run in eval mode.
"""

import itertools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nanogan.backend import array_module, device_of, to_numpy
from nanogan.errors import UserError
from nanogan.layers import Conv2d, ConvTranspose2d, Linear, ReLU, Sequential
from nanogan.ops import bce_with_logits_backward, bce_with_logits_forward
from nanogan.optim import Adam, LinearDecay

# Where an attribute of nanogan.data.sets.faces is to be seen: boxes in shares of the picture's side
FACE_BOXES = {
    "smile": [(0.34, 0.60, 0.66, 0.80)],
    "glasses": [(0.22, 0.37, 0.78, 0.62)],
    "long_hair": [(0.12, 0.45, 0.38, 1.0), (0.62, 0.45, 0.88, 1.0)],  # beside face and neck
    "looks_right": [(0.12, 0.20, 0.88, 0.80)],  # the whole face
    "round": [(0.12, 0.25, 0.30, 0.90), (0.70, 0.25, 0.88, 0.90), (0.30, 0.05, 0.70, 0.25)],  # cheeks and top
}
MAX_BOXES_FILE = 10_000_000  # bytes; one of a thousand boxes has 50 thousand


# ------------------------------------------------------------------------------------------- a generator in two parts


def hidden_layers(g):
    """The numbers of the layers, from 0, that end what a convolution of ``g`` begins: the ReLU after each but the last.

    The last convolution's output is the picture.
    """
    starts = [i for i, layer in enumerate(g.layers) if isinstance(layer, (Conv2d, ConvTranspose2d))]
    ends = [
        max((i for i in range(a, b) if isinstance(g.layers[i], ReLU)), default=None)
        for a, b in itertools.pairwise(starts)
    ]
    if not ends or None in ends:
        raise UserError("forgetting expected a generator of two convolutions or more, with a ReLU between each two")
    return ends


def second_highest(g):
    """The layer that the paper looks at, of :func:`hidden_layers`: the last but one, or the only one.

    The paper says "the second highest convolution layer" and that 200 of its maps were dropped. Its highest hidden
    layer has 128, the one below it 256: so the picture itself is not counted.
    """
    return hidden_layers(g)[-2:][0]


def activations(g, z, layer, *, batch_size=256):
    """Return what generator ``g`` has after its layer number ``layer``, (N, C, h, w), for z (N, latent)."""
    first = Sequential(*g.layers[: layer + 1])
    z = z.reshape(len(z), g.latent, 1, 1)
    parts = [first.forward(z[i : i + batch_size], train=False)[0] for i in range(0, len(z), batch_size)]
    return array_module(z).concatenate(parts)


def draw(g, y, layer, *, without=(), batch_size=256):
    """Draw pictures (N, C, H, W) from activations y (N, C, h, w) after ``layer``, the maps ``without`` set to zero."""
    xp = array_module(y)
    keep = np.ones((y.shape[1], 1, 1))
    keep[np.asarray(without, int)] = 0
    keep = xp.asarray(keep, dtype=y.dtype)
    rest = Sequential(*g.layers[layer + 1 :])
    parts = [rest.forward(y[i : i + batch_size] * keep, train=False)[0] for i in range(0, len(y), batch_size)]
    return xp.concatenate(parts)


def forget(g, z, maps, *, layer=None):
    """Draw z (N, latent) with generator ``g`` while its ``maps``, a sequence of numbers, are zero at all positions.

    ``layer`` is one of :func:`hidden_layers`; the paper's if None. Without maps that is what :func:`sample` draws.
    Raises UserError for a layer or maps that are not there.
    """
    layer = second_highest(g) if layer is None else layer
    if layer not in hidden_layers(g):
        raise UserError(f"layer {layer} ends no hidden convolution: use one of {', '.join(map(str, hidden_layers(g)))}")
    y = activations(g, z, layer)
    if len(maps) and not 0 <= min(maps) <= max(maps) < y.shape[1]:
        raise UserError(f"that layer has maps 0 to {y.shape[1] - 1}, got {list(map(int, maps))[:8]}")
    return draw(g, y, layer, without=maps)


# ------------------------------------------------------------------------------------------------------------- boxes


def inside(boxes, size, shape):
    """Say which positions of a map of ``shape`` (h, w) lie in one of the ``boxes`` of a ``size`` x ``size`` picture.

    Position (r, c) stands for the cell of the picture that has its share: of a map of 8 x 8 and a picture of 32, 4 x 4
    pixels. It is inside if the cell's middle is. A box too small to hold a middle has the position of the cell that the
    box's middle is in, so that no box is without one. Returns bool NumPy (h, w).
    """
    h, w = shape
    rows, columns = (np.arange(h) + 0.5) * size / h, (np.arange(w) + 0.5) * size / w
    result = np.zeros(shape, bool)
    for left, top, right, bottom in boxes:
        held = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
        if not held.any():
            held[int((top + bottom) / 2 * h / size), int((left + right) / 2 * w / size)] = True
        result |= held
    return result


def read_boxes(path, *, samples, size):
    """Read boxes drawn by hand: a JSON file of {"sample number": [left, top, right, bottom], ...}.

    A sample with several has a list of boxes. Returns {number: [box, ...]} with 0 <= number < samples and each box
    inside the picture, 0 <= left < right <= size and 0 <= top < bottom <= size; raises UserError if the file holds
    anything else, naming the first mistake.
    """
    form = '{"0": [left, top, right, bottom], ...}'
    try:
        if Path(path).stat().st_size > MAX_BOXES_FILE:
            raise UserError(f"{path} is too large for a file of boxes: at most {MAX_BOXES_FILE:,} bytes were expected")
        pairs = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_Pairs)
    except OSError as error:
        raise UserError(f"cannot read the boxes {path} ({error.strerror or error}): name a file with --boxes") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, numbers or nesting without end
        reason = str(error)[:100]
        raise UserError(f"{path} is no JSON file ({reason}): boxes are written as {form}") from None
    if not isinstance(pairs, _Pairs) or not pairs:
        raise UserError(f"{path} holds no boxes: they are written as {form}")
    result = {}
    for key, value in pairs:
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < samples):
            raise UserError(f"{path}: samples are numbered from 0 to {samples - 1}, got {key[:20]!r}")
        if int(key) in result:
            raise UserError(f"{path}: sample {int(key)} is there twice: write its boxes as one list of boxes")
        boxes = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
        for box in boxes:
            if not _is_box(box, size):
                raise UserError(
                    f"{path}: a box of sample {int(key)} expected [left, top, right, bottom] in pixels of the picture, "
                    f"from 0 to {size}, left < right and top < bottom, got {str(box)[:60]}"
                )
        result[int(key)] = [tuple(map(float, box)) for box in boxes]
    return result


class _Pairs(list):
    """The names and values of a JSON object, those that stand there twice too."""


def _is_box(box, size):
    if not isinstance(box, list) or len(box) != 4 or not all(type(number) in (int, float) for number in box):
        return False
    left, top, right, bottom = box
    return 0 <= left < right <= size and 0 <= top < bottom <= size  # NaN is in no order


# -------------------------------------------------------------------------------------------------------- regression


class Regression(NamedTuple):
    """What :func:`logistic_regression` found."""

    weights: np.ndarray  # (C,), for maps divided by their standard deviation
    bias: float  # for maps whose mean was taken off
    accuracy: float  # the share of its own examples that it tells right
    slope: float  # the loss's largest derivative where it ended: 0 at the optimum


def examples(y, positive, negative, *, rng):
    """Return examples for the regression: activations (M, C), float64 on y's device, and labels (M,), ones then zeros.

    y (N, C, h, w); ``positive`` and ``negative`` bool NumPy (N, h, w). Every positive position is one; of the negative
    ones as many are drawn at random, as the paper does, or all if there are fewer. Raises UserError if there are none.
    """
    xp, rows = array_module(y), y.transpose(0, 2, 3, 1).reshape(-1, y.shape[1])  # (N*h*w, C)
    ones, zeros = np.flatnonzero(positive), np.flatnonzero(negative)
    if min(len(ones), len(zeros)) == 0:
        raise UserError(
            f"the regression expected positions that show the property and positions that do not, got {len(ones)} and "
            f"{len(zeros)}: draw more samples, or smaller boxes"
        )
    if len(zeros) > len(ones):
        zeros = rng.choice(zeros, len(ones), replace=False)
    chosen = np.concatenate([ones, zeros])
    labels = np.repeat([1.0, 0.0], [len(ones), len(zeros)])
    return rows[xp.asarray(chosen)].astype(np.float64), xp.asarray(labels)


def logistic_regression(x, labels, *, l2=1e-3, steps=1000, lr=0.1, progress=None):
    """Fit weights w and a bias b so that sigmoid(x' w + b) tells the labels (M,) of x (M, C); return a `Regression`.

        loss = mean of binary cross entropy + l2/2 * |w|^2,      x' = (x - mean) / standard deviation

    Maps differ in scale by more than ten. Divided by their standard deviation they are all punished alike by l2, and
    weights say how much a map tells, not how large its numbers are, which matters when the strongest are taken. Without
    l2 the division would change no sign. A map that is always the same has weight 0. ``steps`` of Adam on all examples,
    with a learning rate that falls to 0, from w = 0; the loss is convex. ``progress`` wraps the steps.
    """
    xp = array_module(x)
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0)) / xp.where(spread > 0, spread, 1)
    target = labels[:, None].astype(x.dtype)
    linear = Linear(x.shape[1], 1, dtype=x.dtype)
    linear.params["weight"][...] = 0
    linear.params["bias"][...] = 0
    linear.to(device_of(x))
    optimizer = Adam(linear, lr=lr)
    schedule = LinearDecay(optimizer, total=steps + 1)
    for step in (progress or iter)(range(steps + 1)):  # the last one's gradient tells how near the optimum is
        linear.zero_grad()
        logits, cache = linear.forward(x)
        _, loss_cache = bce_with_logits_forward(logits, target)
        linear.backward(bce_with_logits_backward(1.0, loss_cache), cache, need_dx=False)
        linear.add_grads(weight=l2 * linear.params["weight"])
        if step < steps:
            optimizer.step()
            schedule.step()
    return Regression(
        weights=to_numpy(linear.params["weight"])[0].copy(),
        bias=float(linear.params["bias"][0]),
        accuracy=float(((logits > 0) == (target > 0)).mean()),
        slope=max(float(abs(gradient).max()) for gradient in linear.grads.values()),
    )


def responsible(weights, count=None):
    """Return the numbers of the maps to drop, strongest first: those of ``weights`` (C,) above 0, the paper's rule.

    With ``count``, that many of the largest weights, whatever their sign.
    """
    order = np.argsort(-weights, kind="stable")
    return order[: int((weights > 0).sum()) if count is None else count]


# ---------------------------------------------------------------------------------------------------------- measures


def rates(before, after, k):
    """Compare what a judge sees, bool (N, K), in pictures of the same z before and after; ``k`` is the property.

        after        the share of pictures that have the property
        lost         of those that had it, the share that has it no more
        gained       of those that had it not, the share that has it now
        kept         of those that had it not, the share in which all else is as before; they had nothing to forget
        kept_with    the same of those that had it, for properties that do not exclude each other

    A share of no pictures is None.
    """
    had, others = before[:, k], np.arange(before.shape[1]) != k
    same = (before == after)[:, others].all(axis=1)
    return {
        "after": float(after[:, k].mean()),
        "lost": _share(~after[had, k]),
        "gained": _share(after[~had, k]),
        "kept": _share(same[~had]),
        "kept_with": _share(same[had]),
    }


def change(before, after, masks):
    """How much pictures (N, C, H, W), -1 to 1, changed: mean absolute difference in levels of 255.

    ``masks`` bool NumPy (N, H, W) are the boxes. Returns {"inside", "outside"}; None where there are no such pixels.
    """
    difference = to_numpy(abs(after - before).mean(axis=1)).astype(np.float64) * 127.5  # (N, H, W)
    return {"inside": _share(difference[masks]), "outside": _share(difference[~masks])}


def _share(values):
    return float(values.mean()) if len(values) else None


def beside_random(effect, maps, channels, *, trials=10, rng, progress=None):
    """Measure what dropping ``maps`` does, beside dropping as many random ones of ``channels``.

    ``effect(maps)`` returns numbers by name. Returns {name: {"forgetting", "random", "low", "high"}}: of ``trials``
    random choices the mean, the smallest and the largest. A number that is None is left out.
    """
    chosen = effect(maps)
    random = [effect(rng.choice(channels, len(maps), replace=False)) for _ in (progress or iter)(range(trials))]
    result = {}
    for name, value in chosen.items():
        if value is not None:
            others = [each[name] for each in random]
            result[name] = {
                "forgetting": value,
                "random": float(np.mean(others)),
                "low": min(others),
                "high": max(others),
            }
    return result
