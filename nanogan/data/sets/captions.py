"""Images with captions: coloured digits whose captions are known, and folders with a captions.csv."""

import csv
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from nanogan.backend import seeded_rng
from nanogan.data.formats.image_files import decode
from nanogan.data.sets.folder import PictureFolder
from nanogan.errors import UserError
from nanogan.text import one_line, quoted

MAX_BYTES = 1 << 26  # of a captions.csv, 64 MiB
MAX_LENGTH = 32  # words of a caption
MAX_WORDS = 10_000  # different ones in all captions
MAX_VALUES = 32  # of a column that counts as an attribute
SHOWN = 8  # captions that a grid of samples shows

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZES = ("small", "large")
COLOURS = {  # of a digit, and of a background: any digit is brighter than any background
    "red": ((240, 80, 70), (84, 6, 10)),
    "green": ((90, 220, 90), (6, 58, 20)),
    "blue": ((100, 160, 255), (12, 16, 96)),
    "yellow": ((250, 226, 80), (70, 54, 0)),
    "pink": ((255, 150, 220), (74, 6, 62)),
}
WORDS = ("", "a", "on", *SIZES, *COLOURS, *DIGITS)  # of the coloured digits' captions; 0 stands for no word


class Captions:
    """Captions as integers (N, T): ``numbers[n, t]`` is the place of a word in ``words``, 0 behind a caption's end.

    A column of a :class:`nanogan.data.Loader`. ``captions[i]`` takes some of them, ``captions.text(i)`` is one in
    words. Attributes: numbers, int64 (N, T); words, a tuple that starts with "".
    """

    def __init__(self, numbers, words):
        self.numbers, self.words = np.ascontiguousarray(numbers, np.int64), tuple(words)

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, indices):
        return Captions(self.numbers[indices], self.words)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.numbers, dtype=dtype)

    def text(self, i):
        """Caption number ``i`` in words."""
        return text_of(self.numbers[i], self.words)

    def described(self):
        """What a Loader's ``shapes`` says of this column: {"words": ..., "shown": the first SHOWN different ones}."""
        _, first = np.unique(self.numbers, axis=0, return_index=True)
        return {"words": self.words, "shown": self.numbers[np.sort(first)[:SHOWN]].tolist()}


def text_of(numbers, words):
    """The words of one caption (T,), with a space between them."""
    return " ".join(words[number] for number in numbers if number)


def split(text):
    """The words of a caption: lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def encode(text, words, length):
    """Return a caption as integers (length,), places in ``words``, then zeros.

    Raises UserError for a word that is not in ``words``, and for no word or more than ``length``.
    """
    found = split(text)
    unknown = [word for word in found if word not in words]
    if unknown:
        known = [word for word in words if word]
        more = f", ... ({len(known)} words)" if len(known) > 40 else ""
        raise UserError(f"unknown word {unknown[0][:40]!r} in the caption: use {', '.join(known[:40])}{more}")
    if not 1 <= len(found) <= length:
        raise UserError(f"a caption expected 1 to {length} words, got {len(found)}: {text[:80]!r}")
    return np.array([words.index(word) for word in found] + [0] * (length - len(found)), np.int64)


def captions_of(texts):
    """Return the :class:`Captions` of texts: words in alphabetical order, as many places as the longest one has words.

    Raises UserError for a text without words or with more than MAX_LENGTH, and for more than MAX_WORDS different words.
    """
    texts = [split(text) for text in texts]
    for i, text in enumerate(texts, start=1):
        if not 1 <= len(text) <= MAX_LENGTH:
            raise UserError(f"caption {i} expected 1 to {MAX_LENGTH} words, got {len(text)}: {' '.join(text)[:80]!r}")
    words = ("", *sorted(set().union(*texts)))
    if len(words) - 1 > MAX_WORDS:
        raise UserError(f"captions expected at most {MAX_WORDS} different words, got {len(words) - 1}")
    places = {word: i for i, word in enumerate(words)}
    numbers = np.zeros((len(texts), max(map(len, texts), default=1)), np.int64)
    for row, text in zip(numbers, texts, strict=True):
        row[: len(text)] = [places[word] for word in text]
    return Captions(numbers, words)


# ------------------------------------------------------------------------------------------------- coloured digits


def captioned_digits(digits, labels, *, size=32, seed=0, progress=None):
    """Colour digits and write a caption for each: "a large red seven on blue".

    digits: uint8 (N, 28, 28, 1), white on black, such as MNIST's; labels (N,), 0 to 9. Size, colour and background are
    random and independent of the digit, colour and background never the same; a small digit is little more than half as
    high as a large one and does not stand in the middle. Each colour varies a little. The same word is a bright colour
    of a digit and a dark one of a background. The same seed gives the same images. ``progress`` wraps
    the iteration (tqdm).

    Returns images, uint8 (N, size, size, 3); their :class:`Captions` of 6 words each; and their attributes, {name:
    int64 (N,)}: "digit", "size" (places in SIZES), "colour" and "background" (places in COLOURS).
    """
    if digits.shape[1:] != (28, 28, 1) or len(labels) != len(digits):
        raise UserError(
            f"captioned_digits expected digits (N, 28, 28, 1) and N labels, got {digits.shape} and {len(labels)}"
        )
    if not 8 <= size <= 1024:
        raise UserError(f"captioned_digits expected a size of 8 to 1024 pixels, got {size}")
    rng, N = seeded_rng(seed, "captioned digits"), len(digits)
    sizes, colours = rng.integers(0, 2, N), rng.integers(0, len(COLOURS), N)
    backgrounds = (colours + rng.integers(1, len(COLOURS), N)) % len(COLOURS)  # any but the digit's own
    palette = np.array(list(COLOURS.values()), np.float32)  # (colours, 2, 3)
    images = np.empty((N, size, size, 3), np.uint8)
    for i in (progress or iter)(range(N)):
        cover = _placed(digits[i, :, :, 0], size, bool(sizes[i]), rng)  # (size, size, 1), 0 to 1
        ink, paper = palette[[colours[i], backgrounds[i]], [0, 1]] + rng.normal(0, 6, (2, 3))
        images[i] = np.clip(np.rint(paper + cover * (ink - paper)), 0, 255)
    place = {word: number for number, word in enumerate(WORDS)}
    names = tuple(COLOURS)
    columns = [
        np.full(N, place["a"]),
        np.array([place[word] for word in SIZES])[sizes],
        np.array([place[word] for word in names])[colours],
        np.array([place[word] for word in DIGITS])[np.asarray(labels, np.int64)],
        np.full(N, place["on"]),
        np.array([place[word] for word in names])[backgrounds],
    ]
    attributes = {"digit": np.asarray(labels, np.int64), "size": sizes, "colour": colours, "background": backgrounds}
    return images, Captions(np.stack(columns, axis=1), WORDS), attributes


def _placed(digit, size, is_large, rng):
    """A digit, uint8 (28, 28), scaled and moved on a square of ``size`` pixels: floats (size, size, 1), 0 to 1."""
    side = 2 * size  # drawn at twice the size, then halved: smooth edges
    scale = (rng.uniform(1.1, 1.25) if is_large else rng.uniform(0.62, 0.74)) * side / 28
    room = 0.02 if is_large else 0.12  # how far its middle may lie from the image's, as a share of the side
    x, y = side / 2 + rng.uniform(-room, room, 2) * side
    where = (1 / scale, 0, 14 - x / scale, 0, 1 / scale, 14 - y / scale)  # Pillow asks where a pixel comes from
    drawn = Image.fromarray(digit).transform((side, side), Image.Transform.AFFINE, where, Image.Resampling.BILINEAR)
    return np.asarray(drawn.reduce(2), np.float32)[:, :, None] / 255


# ------------------------------------------------------------------------------------------ a folder and its captions


def load_captioned(path, *, size, channels=3, count=None, progress=None):
    """Return the images of a folder that captions.csv in it has captions for.

    captions.csv (UTF-8, comma-separated) has a header with the columns ``file``, an image's path below the folder
    (below its folder ``images`` if it has one), and ``caption``. Its other columns are attributes, if they have at most
    MAX_VALUES different values. ``count`` takes the first rows. ``progress`` wraps the iteration over images (tqdm).

    The file is not trusted: a name in it is compared with those of the images that lie in the folder, and is never
    opened itself. An image that cannot be decoded is left out with its caption.

    Returns images, uint8 (N, size, size, channels), their :class:`Captions`, {attribute: int64 (N,)}, and {path: why
    it was left out}. Raises UserError for a missing or damaged file, and for a name that is no image of the folder.
    """
    path = Path(path)
    rows = _rows(path / "captions.csv")
    below = path / "images" if (path / "images").is_dir() else path
    folder = PictureFolder(below, size=size, channels=channels)
    number = {Path(folder.file(i)).relative_to(below).as_posix(): i for i in range(len(folder))}
    unknown = [row["file"] for row in rows if row["file"] not in number]
    if unknown:
        raise UserError(
            f"{path / 'captions.csv'} does not match its folder: {len(unknown)} of its {len(rows)} files are not among "
            f"the {len(folder)} images in {below}, the first is {unknown[0][:80]!r}"
        )
    images, kept, skipped = [], [], {}
    for row in (progress or iter)(rows[:count]):
        file = folder.file(number[row["file"]])
        try:
            images.append(decode(file, size, channels))
            kept.append(row)
        except Exception as error:  # Pillow's readers raise many kinds, of which a bad file may cause any
            skipped[file] = one_line(error)
    if not kept:
        file, reason = next(iter(skipped.items()))
        raise UserError(f"none of the images in {below} can be read (for one, {quoted(file)}: {reason})")
    return np.stack(images), captions_of([row["caption"] for row in kept]), _attributes(kept), skipped


def _rows(path):
    """The rows of a captions.csv, a list of dictionaries."""
    if not path.is_file():
        raise UserError(
            f"there is no {path}: expected a folder with a captions.csv, whose columns are file and caption"
        )
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES} bytes")
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        names, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a table of comma-separated values in UTF-8 ({error})") from None
    if not {"file", "caption"} <= set(names):
        raise UserError(f"{path} expected the columns file and caption, got {', '.join(names)[:80] or 'none'}")
    broken = [i for i, row in enumerate(rows, start=2) if None in row or None in row.values()]
    if broken:
        raise UserError(f"{path} expected {len(names)} values in each row, row {broken[0]} has more or fewer")
    if not rows:
        raise UserError(f"{path} has no rows below its header")
    return rows


def _attributes(rows):
    """{column: int64 (N,)} of the columns with 2 to MAX_VALUES different values; 0 is the first in the alphabet."""
    found = {}
    for name in rows[0].keys() - {"file", "caption"}:
        values, numbers = np.unique([row[name] for row in rows], return_inverse=True)
        if 2 <= len(values) <= MAX_VALUES:
            found[name] = numbers.astype(np.int64)
    return {name: found[name] for name in rows[0] if name in found}
