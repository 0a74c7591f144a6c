"""A data set that needs no network: digits drawn with Pillow's own font, each slanted, stretched and thickened anew."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, features

from nanogan.backend import seeded_rng
from nanogan.errors import UserError

CANVAS = 96  # pixels of the drawing that is distorted
STROKES = 3  # thicknesses: 0, 1, 2 pixels of the canvas added all round
DRAWN = 56  # pixels of the distorted drawing, halved at the end: smooth edges, as MNIST's


def builtin_digits(count=60_000, *, seed=0, progress=None):
    """Return ``count`` pictures of digits, uint8 (N, 28, 28, 1), white on black like MNIST's, and labels, uint8 (N,).

    Every picture has a random thickness, slant, rotation, width, height, position and blur. The same seed gives the
    same pictures (with the same version of Pillow). ``progress`` wraps the iteration (tqdm).
    """
    if count < 1:
        raise UserError(f"builtin_digits expected a count of at least 1, got {count}")
    if not features.check("freetype2"):
        raise UserError("the built-in digits expected a Pillow with FreeType, which its wheels have: reinstall pillow")
    rng = seeded_rng(seed, "digits")
    labels = rng.integers(0, 10, count).astype(np.uint8)
    glyphs = {(digit, stroke): _glyph(digit, stroke) for digit in range(10) for stroke in range(STROKES)}
    images = np.empty((count, 28, 28, 1), np.uint8)
    for i in (progress or iter)(range(count)):
        glyph = glyphs[int(labels[i]), int(rng.integers(STROKES))]
        images[i, :, :, 0] = _distorted(glyph, rng)
    return images, labels


def _glyph(digit, stroke):
    """Draw a digit in the middle of the canvas; ``stroke`` pixels are added all round it."""
    image = Image.new("L", (CANVAS, CANVAS))
    font = ImageFont.load_default(size=72)
    centre = (CANVAS / 2, CANVAS / 2)
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = draw.textbbox(centre, str(digit), font=font, anchor="mm", stroke_width=stroke)
    shifted = (CANVAS - (left + right) / 2, CANVAS - (top + bottom) / 2)  # the font's idea of the middle is another
    draw.text(shifted, str(digit), fill=255, font=font, anchor="mm", stroke_width=stroke)
    return image


def _distorted(glyph, rng):
    """Return the drawing under a random affine map, uint8 (28, 28)."""
    angle, slant = rng.normal(0, 0.12), rng.normal(0.1, 0.2)  # in radians; and as a share of the height
    width, height = rng.uniform(0.95, 1.4, 2) * DRAWN / CANVAS  # pixels of the result per pixel of the canvas
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = rotation @ np.array([[1, -slant], [0, 1]]) @ np.diag([width, height])
    inverse = np.linalg.inv(forward)  # Pillow asks where each pixel of the result comes from
    target = DRAWN / 2 + rng.normal(0, 1.0, 2)
    a, b, d, e = inverse.ravel()
    c, f = CANVAS / 2 - inverse @ target
    drawn = glyph.transform((DRAWN, DRAWN), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
    drawn = drawn.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.1)))
    return np.asarray(drawn.reduce(2))
