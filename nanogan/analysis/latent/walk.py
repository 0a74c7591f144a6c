"""Walks through the latent space: what lies between two pictures, and whether the way there is smooth.

A generator that had learned its training pictures by heart would show one of them, jump, and show the next. One that
has learned what pictures are made of changes a little with every step. Source: A. Radford, L. Metz, S. Chintala,
arXiv:1511.06434, section 6.1 and figure 4, which walk along straight lines between nine random z; the number is not
theirs.
"""

import numpy as np

from nanogan.backend import array_module, squared_distance_blocks, to_numpy
from nanogan.errors import UserError

PATHS = ("line", "circle")


def between(a, b, t, *, path="line"):
    """Return the z at the shares ``t`` of the way from ``a`` to ``b``, (T, ..., latent).

    a, b (..., latent); t (T,), 0 is a and 1 is b. Two paths:

        line    (1 - t) a + t b
        circle  r (sin((1 - t) v) a/|a| + sin(t v) b/|b|) / sin v,    r = (1 - t) |a| + t |b|

    with v the angle between a and b. z ~ N(0, 1) of 100 numbers has a length near 10 and two of them stand nearly at
    a right angle, so the middle of a line has a length near 7, which the generator never saw; a great circle keeps it.
    Source of the circle: K. Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985; for latent spaces
    T. White, arXiv:1609.04468.

    Raises UserError for a circle between z that are zero or point in opposite directions: there is none, or many.
    """
    if path not in PATHS:
        raise UserError(f"a path expected {' or '.join(PATHS)}, got {path!r}")
    if a.shape != b.shape:
        raise UserError(f"a way expected two z of one shape, got {a.shape} and {b.shape}")
    xp = array_module(a)
    t = xp.asarray(t, dtype=a.dtype).reshape(-1, *[1] * a.ndim)  # (T, 1, ..., 1)
    if path == "line":
        return (1 - t) * a + t * b

    norm_a, norm_b = (xp.sqrt((z * z).sum(axis=-1, keepdims=True)) for z in (a, b))
    if not bool(((norm_a > 0) & (norm_b > 0)).all()):
        raise UserError("a great circle expected z that are not zero: use a line")
    a, b = a / norm_a, b / norm_b
    cosine = xp.clip((a * b).sum(axis=-1, keepdims=True), -1, 1)
    angle, sine = xp.arccos(cosine), xp.sqrt(1 - cosine * cosine)
    tiny = 1e-3  # radians: there the formula divides rounding by rounding, and a line is the same
    if bool(((sine < tiny) & (cosine < 0)).any()):
        raise UserError("a great circle expected z that do not point in opposite directions: use a line")
    sine = xp.where(sine < tiny, 1, sine)
    arc = (xp.sin((1 - t) * angle) * a + xp.sin(t * angle) * b) / sine
    arc = xp.where(angle < tiny, (1 - t) * a + t * b, arc)
    return ((1 - t) * norm_a + t * norm_b) * arc


def legs(corners, steps, *, path="line"):
    """Return the round trip through ``corners`` (k, latent), (k, steps + 1, latent): a leg from each to the next.

    Each leg holds both its ends; the last one ends at the first corner.
    """
    if len(corners) < 2 or steps < 1:
        raise UserError(f"a walk expected at least 2 corners and 1 step, got {len(corners)} and {steps}")
    xp = array_module(corners)
    shares = xp.linspace(0, 1, steps + 1)
    return between(corners, xp.roll(corners, -1, axis=0), shares, path=path).swapaxes(0, 1)


def plane(corners, side, *, path="line"):
    """Return the z between four ``corners`` (4, latent), (side, side, latent).

    The corners are at the top left, top right, bottom left and bottom right; every row is a way from the left column
    to the right one.
    """
    if len(corners) != 4 or side < 2:
        raise UserError(f"a plane expected 4 corners and a side of at least 2, got {len(corners)} and {side}")
    shares = array_module(corners).linspace(0, 1, side)
    left, right = between(corners[:2], corners[2:], shares, path=path).swapaxes(0, 1)  # (side, latent) each
    return between(left, right, shares, path=path).swapaxes(0, 1)


def step_sizes(pictures):
    """Return how much each frame differs from the one before, NumPy float64 (k, T - 1).

    pictures (k, T, C, H, W): k legs of T frames. The difference is the root of the mean square over pixels, in units
    of the pictures (-1 to 1: black to white is 2).
    """
    xp = array_module(pictures)
    difference = (pictures[:, 1:] - pictures[:, :-1]).astype(np.float64)
    sizes = xp.sqrt((difference * difference).mean(axis=(2, 3, 4)))
    return to_numpy(sizes)


def smoothness(pictures):
    """Return numbers that tell a walk that glides from one that jumps, as a dictionary.

    pictures (k, 2n + 1, C, H, W): legs of 2n steps. Of the walk of n steps (every other frame) come
        median_step, largest_step     as :func:`step_sizes`
        largest_over_median           1: all steps are alike. None where the median is 0
    and, of the walk of 2n steps against that one,
        largest_halved                the largest step of the finer walk as a share of the coarser one's. A smooth way
                                      halves it, 0.5; a jump is as large however small the steps are, 1.0
    """
    if pictures.shape[1] < 3 or pictures.shape[1] % 2 == 0:
        raise UserError(f"smoothness expected legs of an odd number of frames, 3 or more, got {pictures.shape[1]}")
    coarse, fine = step_sizes(pictures[:, ::2]), step_sizes(pictures)
    median, largest = float(np.median(coarse)), float(coarse.max())
    return {
        "median_step": median,
        "largest_step": largest,
        "largest_over_median": largest / median if median else None,
        "largest_halved": float(fine.max()) / largest if largest else None,
    }


def by_heart(pictures, known, *, batch_size=256, progress=None):
    """Return what a generator would draw that knows nothing but the pictures ``known``: the nearest one to each.

    pictures (N, C, H, W), known (M, C, H, W) on the same device; nearest in pixels, |x - y|^2. The result is to be
    measured beside the generator's own pictures: a number that does not tell the two apart tells nothing.
    ``progress`` wraps the iteration over batches (tqdm).
    """
    flat, known_flat = (each.reshape(len(each), -1) for each in (pictures, known))
    blocks = squared_distance_blocks(flat, known_flat, rows=batch_size, progress=progress)
    return known[array_module(pictures).concatenate([block.argmin(axis=1) for block in blocks])]
