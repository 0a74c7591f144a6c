"""Reads what a run left in its folder. It may come from anyone and may be cut short: all is checked and bounded."""

import base64
import csv
import io
import json
import re
from typing import NamedTuple

import numpy as np
from PIL import Image

MOST_COLUMNS = 64  # of log.csv, and of one panel
MOST_PANELS = 20
MOST_LABELS = 200
LONGEST_LABEL = 60  # characters of a panel's title, of a column and of what it is called
LONGEST_TEXT = 500  # characters of one option or warning
LARGEST_PICTURE = 8192  # pixels on a side; larger ones are left out
LARGEST_SHOWN = 1080  # pixels on a side; larger ones are shrunk
LARGEST_PNG = 64 * 1024  # bytes; larger pictures are kept as JPEG
LARGEST_TEXT_FILE = 1024 * 1024  # bytes of options.json, machine.json, curves.json and warnings.csv

# What version 0.1 called columns of log.csv, before a run's curves.json said how they are drawn, and how it drew them.
OLD_COLUMNS = {"d_x": "d_real", "d_g_z_before": "d_fake_before", "d_g_z_after": "d_fake_after"}
OLD_CURVES = {"losses": ["loss_d", "loss_g"], "how real D finds images": ["d_real", "d_fake_before"]}
OLD_LABELS = {"loss_d": "Loss_D", "loss_g": "Loss_G", "d_real": "D(x), real", "d_fake_before": "D(G(z)), generated"}


def read_log(path):
    """Return ({column: float array} of log.csv's whole rows, whether an earlier version wrote it).

    There are always the columns "epoch", "step" and "seconds". A number that is missing or unusable is NaN. A row that
    was cut short, or whose step is not above the one before, is left out. The arrays are empty if there is none.
    """
    rows, last = [], 0
    lines = _text(path, limit=None).split("\n")[:-1]  # a line without its end may be half a line
    written = [name.strip() for name in _fields(lines[0])] if lines else []
    header = [_label(OLD_COLUMNS.get(name, name)) for name in written]
    names = list(dict.fromkeys(["epoch", "step", "seconds", *header[:MOST_COLUMNS]]))
    for line in lines[1:]:
        fields = _fields(line)
        if len(fields) != len(header):
            continue
        row = {name: _number(text) for name, text in zip(header[:MOST_COLUMNS], fields, strict=False)}
        if last < row.get("step", 0) < 1e12:
            rows.append([row.get(name, np.nan) for name in names])
            last = row["step"]
    log = dict(zip(names, np.array(rows, float).reshape(-1, len(names)).T, strict=True))
    return log, not OLD_COLUMNS.keys().isdisjoint(written)


def _fields(line):
    """The fields of a line of CSV, in which a name with a comma stands in quotes; none if it cannot be read."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def read_curves(path):
    """Return (curves, labels) of curves.json, each a dictionary, empty if there is none that can be used.

    curves: {title of a panel: names of its columns}, labels: {column: what it is called}, as
    :func:`nanogan.images.plots.panels` takes them; what has another form is left out.
    """
    value = read_object(path)
    curves, labels = ({} if not isinstance(value.get(key), dict) else value[key] for key in ("curves", "labels"))
    curves = {
        _label(title): [name for name in names[:MOST_COLUMNS] if isinstance(name, str)]
        for title, names in list(curves.items())[:MOST_PANELS]
        if isinstance(names, list)
    }
    labels = {name: _label(label) for name, label in list(labels.items())[:MOST_LABELS] if isinstance(label, str)}
    return curves, labels


def _label(text):
    return short(text, LONGEST_LABEL)


def short(text, limit=LONGEST_TEXT):
    """Return ``text``, cut off at ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _number(text):
    """The number in ``text``; NaN if it is not one, or too large for a curve."""
    try:
        value = float(text)
    except ValueError:
        return np.nan
    return value if abs(value) < 1e15 else np.nan


def read_object(path):
    """Return the dictionary in a JSON file; an empty one if there is none."""
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_warnings(path):
    """Return [(step, message)] of warnings.csv; None if there is no such file."""
    if not path.is_file():
        return None
    found = []
    try:
        for row in csv.reader(io.StringIO(_text(path), newline="")):
            step = _number(row[0]) if len(row) == 2 else np.nan
            if 0 <= step < 1e12:  # neither the header nor half a line
                found.append((int(step), row[1]))
    except csv.Error:
        pass  # what was read so far is shown
    return found


def _text(path, limit=LARGEST_TEXT_FILE):
    """The text of a file; "" if it is not there, cannot be read, or has more than ``limit`` bytes."""
    try:
        if not path.is_file() or (limit is not None and path.stat().st_size > limit):
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


class Picture(NamedTuple):
    """A picture inside the page: its data: URI, and its size in pixels."""

    uri: str
    width: int
    height: int


class Frame(NamedTuple):
    """A sample grid, and the epoch and the step that it is of."""

    epoch: int
    step: int
    picture: Picture


def frame_files(folder):
    """Return [(step, epoch, path)] of the sample grids in ``folder``, in the order of training."""
    names = ((re.fullmatch(r"epoch_(\d{1,12})_step_(\d{1,12})\.png", path.name), path) for path in folder.glob("*.png"))
    return sorted((int(match[2]), int(match[1]), path) for match, path in names if match and path.is_file())


def read_frames(files, max_frames):
    """Return the Frames of at most ``max_frames`` evenly spaced ``files``, without those that cannot be read."""
    files = list(files)
    while files and read_picture(files[-1][2]) is None:  # the last one is where the eye goes
        files.pop()
    if len(files) > max_frames:
        files = [files[i] for i in np.linspace(len(files) - 1, 0, max_frames).round().astype(int)[::-1]]
    pictures = [(step, epoch, read_picture(path)) for step, epoch, path in files]
    return [Frame(epoch, step, picture) for step, epoch, picture in pictures if picture is not None]


def read_picture(path):
    """Return the Picture in a PNG file; None if there is none, or it is damaged or too large.

    A file of more than 64 KB becomes JPEG if that is smaller: sixty grids of colour photographs would be too much.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if max(image.size) > LARGEST_PICTURE:
                return None
            image.load()  # finds what is damaged
            stored, kind = path.read_bytes(), "png"
            if len(stored) > LARGEST_PNG:
                smaller = image.convert("L" if image.mode == "L" else "RGB")
                smaller.thumbnail((LARGEST_SHOWN, LARGEST_SHOWN))
                buffer = io.BytesIO()
                smaller.save(buffer, format="JPEG", quality=80, optimize=True)
                if buffer.tell() < len(stored):
                    image, stored, kind = smaller, buffer.getvalue(), "jpeg"
            return Picture(f"data:image/{kind};base64,{base64.b64encode(stored).decode()}", *image.size)
    except Exception:  # Pillow has many ways to say that a file is damaged
        return None
