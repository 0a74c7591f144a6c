"""Faces drawn with Pillow, whose attributes are known: a data set to measure what a generator knows of them."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from nanogan.backend import seeded_rng
from nanogan.errors import UserError

ATTRIBUTES = ("smile", "glasses", "long_hair", "looks_right", "round")  # the others: none, none, short, left, long
SIZES = (32, 64)
FINER = 4  # the drawing's pixels per pixel of the result: smooth edges

SKINS = ((250, 220, 196), (238, 196, 160), (214, 162, 120), (166, 112, 76), (112, 74, 52))
HAIRS = ((34, 26, 24), (92, 56, 32), (154, 92, 44), (222, 184, 96), (150, 146, 144), (176, 62, 36))


def builtin_faces(count=20_000, *, size=32, seed=0, progress=None):
    """Return ``count`` faces, uint8 (N, size, size, 3), and their attributes, {name: uint8 (N,)} of zeros and ones.

    The attributes are ATTRIBUTES, each thrown like a coin and independent of the others:

        smile        an open laughing mouth; else a straight, closed one
        glasses      dark ones; else none
        long_hair    down to the shoulders; else short
        looks_right  turned to the right of the picture; else to its left, in both cases by an angle of its own
        round        a round face; else a long one

    Colours of skin, hair, clothes and background, position, width and the features' places are random and independent
    of the attributes. The same seed gives the same faces, at both sizes (with the same version of Pillow). ``progress``
    wraps the iteration (tqdm).

    Raises UserError for a count below 1 or a size that is neither 32 nor 64.
    """
    if count < 1:
        raise UserError(f"builtin_faces expected a count of at least 1, got {count}")
    if size not in SIZES:
        raise UserError(
            f"builtin_faces expected a size of 32 or 64 pixels, got {size}: nanogan.images.resize has others"
        )
    rng = seeded_rng(seed, "faces")
    attributes = rng.integers(0, 2, (count, len(ATTRIBUTES)), dtype=np.uint8)
    pictures = np.empty((count, size, size, 3), np.uint8)
    for i in (progress or iter)(range(count)):
        pictures[i] = _face(size, rng, *(bool(value) for value in attributes[i]))
    return pictures, {name: attributes[:, i].copy() for i, name in enumerate(ATTRIBUTES)}


def _face(size, rng, smile, glasses, long_hair, looks_right, is_round):
    """Draw one face, uint8 (size, size, 3). Lengths and places are shares of the picture's side."""
    side = size * FINER
    skin, hair, shirt, wall, lips = _colours(rng)
    turn = rng.uniform(0.4, 1) * (1 if looks_right else -1)
    x, y = 0.5 + rng.normal(0, 0.012), 0.52 + rng.normal(0, 0.012)  # the face's middle
    wide, high = (0.27, 0.27) if is_round else (0.205, 0.325)  # half its width and height
    wide, high = wide * rng.uniform(0.96, 1.04), high * rng.uniform(0.96, 1.04)
    eye, mouth = y - rng.uniform(0.02, 0.05), y + high * rng.uniform(0.5, 0.56)
    front = x + 0.075 * turn  # what is at the front of a head moves farther than the head when it turns
    apart = rng.uniform(0.098, 0.108)  # half the distance of the eyes

    image = Image.new("RGB", (side, side), wall)
    draw = ImageDraw.Draw(image)

    def ellipse(x, y, wide, high, fill=None, **options):
        draw.ellipse(_box(x, y, wide, high, side), fill=fill, **options)

    def line(points, fill, width):
        draw.line([(px * side, py * side) for px, py in points], fill=fill, width=round(width * side))

    back = x - 0.03 * turn  # and what is behind moves the other way
    if long_hair:
        draw.rounded_rectangle(_box(back, y + 0.12, wide + 0.085, high + 0.13, side), 0.2 * side, fill=hair)
    ellipse(x, 1.08, 0.36, 0.2, shirt)
    ellipse(x, y + high, 0.09, 0.14, _shade(skin, 0.82))  # the neck
    ellipse(back, y - 0.07, wide + 0.035, high - 0.01, hair)  # a cap of hair, of which the face leaves the rim
    if not long_hair:
        ellipse(back - 0.9 * turn * wide, y + 0.02, 0.05, 0.07, _shade(skin, 0.9))  # the ear that is seen
    ellipse(x, y + 0.035, wide, high - 0.035, skin)

    for sign in (-1, 1):
        at = front + sign * apart
        ellipse(at, eye, 0.052, 0.04, (250, 250, 250))
        ellipse(at + 0.016 * turn, eye, 0.028, 0.034, (30, 24, 24))
        if glasses:
            draw.ellipse(_box(at, eye, 0.092, 0.086, side), outline=(20, 20, 26), width=round(0.034 * side))
    if glasses:
        line([(front - 0.02, eye), (front + 0.02, eye)], (20, 20, 26), 0.034)
    nose = y + 0.07
    line([(front + 0.025 * turn, eye + 0.03), (front + 0.05 * turn, nose), (front, nose)], _shade(skin, 0.72), 0.022)
    if smile:
        box = _box(front, mouth - 0.055, 0.115, 0.115, side)
        draw.chord(box, 10, 170, fill=lips)
        draw.chord(_box(front, mouth - 0.05, 0.085, 0.08, side), 20, 160, fill=(252, 252, 252))
    else:
        line([(front - 0.075, mouth), (front + 0.075, mouth)], lips, 0.036)
    return np.asarray(image.reduce(FINER))


def _colours(rng):
    """Random colours of skin, hair, shirt, wall and lips, (red, green, blue) from 0 to 255."""
    skin = _shade(SKINS[rng.integers(len(SKINS))], rng.uniform(0.95, 1.03))
    hair = _shade(HAIRS[rng.integers(len(HAIRS))], rng.uniform(0.9, 1.1))
    shirt = _hsv(rng.uniform(), rng.uniform(0.3, 0.8), rng.uniform(0.4, 0.9))
    wall = _hsv(rng.uniform(), rng.uniform(0.05, 0.35), rng.uniform(0.75, 0.95))
    lips = _hsv(rng.uniform(0.96, 1.0), rng.uniform(0.6, 0.8), rng.uniform(0.5, 0.65))
    return skin, hair, shirt, wall, lips


def _hsv(hue, saturation, value):
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))


def _shade(colour, factor):
    """A colour made darker (below 1) or lighter."""
    return tuple(min(255, round(part * factor)) for part in colour)


def _box(x, y, wide, high, side):
    """The box round (x, y), half as wide and high as given, in pixels of a drawing of ``side``."""
    return [(x - wide) * side, (y - high) * side, (x + wide) * side, (y + high) * side]
