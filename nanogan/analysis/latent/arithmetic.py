"""Calculating with z: smiling woman - neutral woman + neutral man = smiling man.

Single z are unstable, so the paper takes the mean of three whose pictures show the same. Source: A. Radford, L. Metz,
S. Chintala, arXiv:1511.06434, section 6.3.2 and figures 7 and 8. Its authors looked at the results; the rates measured
here are not theirs.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nanogan import images
from nanogan.backend import array_module
from nanogan.errors import UserError
from nanogan.games.drawing import sample

NOISE = 0.25  # the paper's


def taken(z, numbers):
    """Return the rows of z (N, latent) with these ``numbers``, a sequence or NumPy array of n: (n, latent)."""
    return z[array_module(z).asarray(numbers)]


def formula(a, b, c):
    """Return mean(a) - mean(b) + mean(c), (latent,); a, b, c (n, latent) are the z of samples that show one thing."""
    for z in (a, b, c):
        if z.ndim != 2 or len(z) == 0:
            raise UserError(f"a concept expected the z of one sample or more, (n, latent), got an array of {z.shape}")
    return a.mean(axis=0) - b.mean(axis=0) + c.mean(axis=0)


def with_neighbours(z, rng, *, count=9, noise=NOISE):
    """Return ``z`` (latent,) in the middle of ``count`` - 1 neighbours, (count, latent).

    Neighbours have noise added, uniform from -``noise`` to ``noise``: nine pictures that agree show that the result is
    no accident of one z. ``rng`` is NumPy's.
    """
    steps = rng.uniform(-noise, noise, (count, len(z)))
    steps[count // 2] = 0
    return z + array_module(z).asarray(steps, dtype=z.dtype)


def random_vector(rng, like):
    """Return a vector of ``like``'s length in a random direction, (latent,): what any change of z would have done."""
    xp = array_module(like)
    direction = rng.standard_normal(len(like))
    direction = xp.asarray(direction / np.linalg.norm(direction), dtype=like.dtype)
    return direction * xp.sqrt((like * like).sum())


def turned(z, axis, shares):
    """Return z (N, latent) moved along ``axis`` (latent,) by each of ``shares`` (T,), (N, T, latent).

    The paper's "turn vector" is such an axis: the mean z of faces that look right less that of faces that look left.
    """
    shares = array_module(z).asarray(shares, dtype=z.dtype)
    return z[:, None] + shares[:, None] * axis


def numbered(pictures, *, columns=10, scale=2):
    """Return a grid of pictures with their numbers below, uint8 (H, W, C), to choose samples from.

    pictures (N, C, H, W) or uint8 (N, H, W, C); each pixel is drawn ``scale`` times as large.
    """
    pictures = images.to_uint8(pictures).repeat(scale, axis=1).repeat(scale, axis=2)
    return images.grid(
        np.stack([_with_text_below(picture, str(i)) for i, picture in enumerate(pictures)]), columns=columns
    )


def _with_text_below(picture, text):
    H, W, C = picture.shape
    strip = sign(text, W, C, height=13)
    return np.concatenate([picture, strip])


def sign(text, width, channels, *, height=None):
    """Return a black picture with ``text`` in its middle, uint8 (height or width, width, channels)."""
    height = height or width
    image = Image.new("L", (width, height))
    font = ImageFont.load_default(size=min(12, height))
    ImageDraw.Draw(image).text((width / 2, height / 2), text, fill=255, font=font, anchor="mm")
    return np.asarray(image)[:, :, None].repeat(channels, axis=2)


def concepts(values, gained, given, *, count, rng):
    """Choose samples for the formula that gains an attribute; return three arrays of ``count`` sample numbers, a, b, c.

    values bool (N, K): what is seen in each of N samples. With ``gained`` = glasses and ``given`` = long hair,
        a   glasses, long hair        b   no glasses, long hair        c   no glasses, short hair
    or with long and short exchanged, as a coin falls; a - b + c should be the fourth combination.
    No sample is in two of them. Returns None if one of the four combinations has fewer than ``count`` samples.
    """
    start = bool(rng.integers(2))
    fits = {
        each: np.flatnonzero((values[:, gained] == each[0]) & (values[:, given] == each[1]))
        for each in ((True, start), (False, start), (False, not start), (True, not start))
    }
    if min(map(len, fits.values())) < count:
        return None
    return [rng.choice(some, count, replace=False) for some in list(fits.values())[:3]]


def rates(g, judge, z, values, gained, *, count=3, trials=20, rng, noise=NOISE):
    """Measure how often the formula gives an attribute, and how often another change of z of the same length does.

    ``judge(pictures)`` returns what is seen in pictures (N, C, H, W), bool NumPy (N, K); z (N, latent) are samples and
    ``values`` what is seen in them. In each of ``trials``, samples are chosen by :func:`concepts`, ``count`` for each,
    ``given`` being every other attribute in turn; nine pictures are drawn of mean(a) - mean(b) + mean(c), nine with a
    random vector of the length of mean(a) - mean(b) in its place, and nine of mean(c). Returns shares of pictures:

        success, random, before    the gained attribute is there, and the given one is as in c: of the three nines
        kept, random_kept          every attribute but the gained one is as in mean(c)'s own picture

    Each is None if :func:`concepts` finds too few samples for any other attribute.
    """
    others = [k for k in range(values.shape[1]) if k != gained]
    usable = [k for k in others if concepts(values, gained, k, count=count, rng=rng)]
    if not usable:
        return dict.fromkeys(("success", "random", "before", "kept", "random_kept"))
    nines, wanted = [], []
    for trial in range(trials):
        given = usable[trial % len(usable)]
        chosen = concepts(values, gained, given, count=count, rng=rng)
        a, b, c = (taken(z, numbers) for numbers in chosen)
        start = c.mean(axis=0)
        gain = formula(a, b, c) - start
        nines += [
            with_neighbours(each, rng, noise=noise) for each in (start + gain, start + random_vector(rng, gain), start)
        ]
        wanted.append((given, values[chosen[2][0], given]))
    seen = judge(sample(g, array_module(z).concatenate(nines))).reshape(trials, 3, -1, values.shape[1])

    success, kept = np.empty((2, *seen.shape[:3]))  # (trials, 3, 9)
    for trial, (given, value) in enumerate(wanted):
        success[trial] = seen[trial, :, :, gained] & (seen[trial, :, :, given] == value)
        itself = seen[trial, 2, seen.shape[2] // 2]  # mean(c)'s picture: the middle one of its nine
        kept[trial] = (seen[trial] == itself)[:, :, others].all(axis=2)
    names = ("success", "random", "before")
    result = {name: float(success[:, i].mean()) for i, name in enumerate(names)}
    return result | {"kept": float(kept[:, 0].mean()), "random_kept": float(kept[:, 1].mean())}


def turn_rates(g, judge, z, axis, attribute, *, rng):
    """Return the shares of samples that an axis turns from one side to the other, and that a random axis does.

    z (N, latent): at z - axis the attribute should not be seen, at z + axis it should. ``judge`` as for :func:`rates`;
    the random axis has the length of ``axis``. Returns {"turned", "random"}.
    """
    result = {}
    for name, way in (("turned", axis), ("random", random_vector(rng, axis))):
        ends = turned(z, way, [-1, 1])  # (N, 2, latent)
        seen = judge(sample(g, ends.reshape(-1, z.shape[1])))[:, attribute].reshape(-1, 2)
        result[name] = float((~seen[:, 0] & seen[:, 1]).mean())
    return result
