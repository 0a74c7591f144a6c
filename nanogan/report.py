"""One page about one run: pictures over time, curves, options. ``python -m nanogan.report RUN_FOLDER`` writes it.

The page is a single HTML file that needs nothing else: pictures are inside it, and it asks no network for anything.
What a run left behind may come from anyone and may be cut short: its text is escaped, its sizes are bounded, and what
cannot be read is left out. The page's look and its slider are in report.html, report.css and report.js here.
"""

import argparse
import base64
import csv
import hashlib
import io
import json
import re
import string
from datetime import datetime
from html import escape
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nanogan import cli
from nanogan.disk import replacing
from nanogan.errors import UserError
from nanogan.images.plots import smooth, ticks, usual_range
from nanogan.training.log import COLUMNS

MOST_POINTS = 1000  # of a curve; more than a screen's pixels show nothing
MOST_WARNINGS = 200
LONGEST_TEXT = 500  # characters of one option or warning
LARGEST_PICTURE = 8192  # pixels on a side; larger ones are left out
LARGEST_SHOWN = 1080  # pixels on a side; larger ones are shrunk
LARGEST_PNG = 64 * 1024  # bytes; larger pictures are kept as JPEG
LARGEST_TEXT_FILE = 1024 * 1024  # bytes of options.json, machine.json and warnings.csv


def write_report(out, *, max_frames=60):
    """Write ``out``/report.html about the run in the folder ``out`` and return its path.

    Reads what :func:`nanogan.training.train` leaves there, each file if it exists: log.csv, options.json, real.png,
    samples/*.png; and machine.json, {"label": "text"}, what the run was computed on, and warnings.csv, lines of
    "step,message" below that header, what was told during the run.

    Of more than ``max_frames`` sample grids evenly spaced ones are shown, the first and the last among them. Pictures
    of more than 64 KB are stored as JPEG.

    Raises UserError if there is no run in ``out``.
    """
    out = Path(out)
    frame_files = _frame_files(out / "samples")
    parts = [path for path in (out / "log.csv", out / "options.json", out / "real.png") if path.is_file()]
    parts += [path for _, _, path in frame_files[-1:]]
    if not parts:
        raise UserError(
            f"there is no run in {out}: expected log.csv, options.json, real.png or samples/epoch_*_step_*.png as "
            "training writes them; give the folder that was its --out"
        )
    log, options = _read_log(out / "log.csv"), _read_object(out / "options.json")
    frames = _frames(frame_files, max_frames)
    warnings = _read_warnings(out / "warnings.csv")
    data, folder = options.get("data"), options.get("path")
    folder = Path(folder).name if isinstance(folder, str) else out.resolve().name
    name = _short(data if isinstance(data, str) else folder) or "a run"
    written = datetime.fromtimestamp(max(path.stat().st_mtime for path in parts))

    sections = [
        _headline(log, options),
        _pictures(frames, _read_picture(out / "real.png"), log, name),
        _warnings(_diverged(log) + (warnings or []), frames, told=warnings is not None),
        _curves(log, warnings or []),
        _tables({"Options": options, "Machine": _read_object(out / "machine.json")}),
    ]
    script = _page_part("report.js")
    page = string.Template(_page_part("report.html")).substitute(
        title=escape(f"{name} · nanogan"),
        name=escape(name),
        subtitle=f"{written.day} {written:%B %Y, %H:%M} · {escape(_short(out.resolve().name))}",
        sections="\n".join(section for section in sections if section),
        style=_page_part("report.css"),
        script=script,
        # the browser runs this script and no other, whatever a run's files hold; it hashes what is between the tags
        script_hash=base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode(),
    )
    path = out / "report.html"
    with replacing(path) as temporary:
        temporary.write_bytes(page.encode("utf-8", "replace"))  # a JSON text may hold half a surrogate pair
    return path


def _page_part(name):
    """The text of report.html, report.css or report.js."""
    return resources.files("nanogan").joinpath(name).read_text(encoding="utf-8").rstrip("\n")


# ------------------------------------------------------------------------------------------------- what a run left


def _read_log(path):
    """Return {column: float array} of log.csv's whole rows, with NaN where there is no usable number.

    A row that was cut short, or whose step is not above the one before, is left out. Empty arrays if there is none.
    """
    rows, last = [], 0
    lines = _text(path, limit=None).split("\n")[:-1]  # a line without its end may be half a line
    names = [name.strip() for name in lines[0].split(",")] if lines else []
    for line in lines[1:]:
        fields = line.split(",")
        if len(fields) != len(names):
            continue
        row = dict(zip(names, map(_number, fields), strict=True))
        if last < row.get("step", 0) < 1e12:
            rows.append([row.get(name, np.nan) for name in COLUMNS])
            last = row["step"]
    return dict(zip(COLUMNS, np.array(rows, float).reshape(-1, len(COLUMNS)).T, strict=True))


def _number(text):
    """The number that ``text`` says; NaN if it says none, or one that no curve could show."""
    try:
        value = float(text)
    except ValueError:
        return np.nan
    return value if abs(value) < 1e15 else np.nan


def _read_object(path):
    """Return the dictionary in a JSON file; an empty one if there is none."""
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_warnings(path):
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
        pass  # what was read so far is told
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
    """A sample grid: when it was drawn, and what."""

    epoch: int
    step: int
    picture: Picture


def _frame_files(folder):
    """Return [(step, epoch, path)] of the sample grids in ``folder``, in the order of training."""
    names = ((re.fullmatch(r"epoch_(\d{1,12})_step_(\d{1,12})\.png", path.name), path) for path in folder.glob("*.png"))
    return sorted((int(match[2]), int(match[1]), path) for match, path in names if match and path.is_file())


def _frames(files, max_frames):
    """Return the Frames of at most ``max_frames`` evenly spaced ``files``, without those that cannot be read."""
    files = list(files)
    while files and _read_picture(files[-1][2]) is None:  # the last one is where the eye goes
        files.pop()
    if len(files) > max_frames:
        files = [files[i] for i in np.linspace(len(files) - 1, 0, max_frames).round().astype(int)[::-1]]
    pictures = [(step, epoch, _read_picture(path)) for step, epoch, path in files]
    return [Frame(epoch, step, picture) for step, epoch, picture in pictures if picture is not None]


def _read_picture(path):
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


# --------------------------------------------------------------------------------------------- sections of the page


def _headline(log, options):
    """How much was computed, and how fast."""
    step, epoch = log["step"], log["epoch"][np.isfinite(log["epoch"])]
    if len(step) == 0:
        return '<p class="note">No step has been logged.</p>'
    seconds, ms = _time(log)
    cells = [("steps", f"{step[-1]:,.0f}")]
    if len(epoch):
        planned = options.get("epochs")
        of = f" <small>of {planned:,}</small>" if type(planned) is int and epoch[-1] <= planned < 1e12 else ""
        cells.append(("epoch", f"{epoch[-1]:,.0f}{of}"))
    if seconds is not None:
        cells.append(("training time", _duration(seconds)))
    if ms is not None:
        cells.append(("a step, on average", f"{_three_digits(ms)} <small>ms</small>"))
        batch = options.get("batch_size")
        if type(batch) is int and 0 < batch < 1e9:
            cells.append(("real pictures a second", _three_digits(batch * 1000 / ms)))
    items = "\n".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in cells)
    note = '\n<p class="note">Times include drawing and saving.</p>' if seconds is not None else ""
    return f'<dl class="numbers">\n{items}\n</dl>{note}'


def _pictures(frames, real, log, name):
    """The sample grids behind a slider, beside real pictures."""
    if not frames and real is None:
        return _section("Pictures", '<p class="quiet">No picture has been drawn yet.</p>')
    # small pixels are shown as squares, of one size in both grids
    scale = max(1, round(500 / max(1, (frames[-1].picture if frames else real).width)))
    figures = []
    if frames:
        images = []
        for i, (epoch, step, picture) in enumerate(frames):
            where = f"epoch {epoch:,}, step {step:,}"
            place = _across(step, log["step"])
            at = "" if place is None else f' data-at="{place:.2f}"'
            hidden = "" if i == len(frames) - 1 else " hidden"
            alt = f"pictures drawn after {where}"
            images.append(_image(picture, scale, alt, f' decoding="sync" data-where="{where}"{at}{hidden}'))
        last = f"epoch {frames[-1].epoch:,}, step {frames[-1].step:,}"
        figures.append(
            "<figure>\n<figcaption><h3>Drawn by the generator</h3></figcaption>\n"
            f'<div id="frames">\n{"".join(images)}</div>\n'
            f'<p class="caption">After <output id="where" for="frame">{last}</output>, from the same noise each time'
            "</p>\n"
            '<div class="player" hidden>\n<button id="play" type="button">Play</button>\n'
            f'<input id="frame" type="range" min="1" max="{len(frames)}" step="1" value="{len(frames)}" '
            f'aria-label="time of training" aria-valuetext="{last}">\n</div>\n</figure>'
        )
    if real is not None:
        share = min(100, 100 * real.width / frames[-1].picture.width) if frames else 100
        share = f' style="--share:{share:.0f}%"'  # so that they are of one size on a telephone too
        figures.append(
            "<figure>\n<figcaption><h3>Real</h3></figcaption>\n"
            f"{_image(real, scale, 'real pictures, of the training data', share)}"
            f'<p class="caption">From the training data, {escape(name)}</p>\n</figure>'
        )
    pixelated = " pixelated" if scale > 1 else ""
    return _section("Pictures", f'<div class="pictures{pixelated}">\n' + "\n".join(figures) + "\n</div>")


def _image(picture, scale, alt, more=""):
    width, height = picture.width * scale, picture.height * scale
    return f'<img src="{picture.uri}" width="{width}" height="{height}" alt="{alt}"{more}>\n'


def _diverged(log):
    """[(step, message)] where a loss stopped being a number."""
    bad = ~np.isfinite(log["loss_d"] + log["loss_g"])
    return [(int(log["step"][bad.argmax()]), "a loss was no finite number from here on")] if bad.any() else []


def _warnings(warnings, frames, *, told):
    """What was told during the run, each with a link to the picture drawn then."""
    if not warnings:
        return _section("Warnings", '<p class="quiet">None was given.</p>') if told else ""
    items = []
    for step, message in warnings[:MOST_WARNINGS]:
        label = f"step {step:,}"
        later = [i for i, frame in enumerate(frames, start=1) if frame.step >= step] or [len(frames)]
        label = f'<a href="#frame={later[0]}">{label}</a>' if frames else f"<b>{label}</b>"
        items.append(f"<li>{label} {escape(_short(message))}</li>")
    left = len(warnings) - MOST_WARNINGS
    more = f'\n<p class="note">and {left:,} more</p>' if left > 0 else ""
    return _section("Warnings", '<ul class="warnings">\n' + "\n".join(items) + f"\n</ul>{more}")


def _curves(log, warnings):
    """Losses, beliefs and speed against the step."""
    step = log["step"]
    if len(step) == 0:
        return ""
    marks = [mark for mark, _ in warnings[:MOST_WARNINGS]]
    losses = {"Loss_D": log["loss_d"], "Loss_G": log["loss_g"]}
    beliefs = {"D(x), real": log["d_x"], "D(G(z)), drawn": log["d_g_z_before"]}
    charts = [
        _chart("Losses", step, losses, ("first", "second"), step, marks),
        _chart("How real D finds pictures", step, beliefs, ("third", "fourth"), step, marks, limits=(0, 1)),
    ]
    if len(step) > 10:  # the times of single steps say little: on a GPU they are noted before the step is computed
        edges = np.unique(np.linspace(0, len(step) - 1, 101).round().astype(int))
        middle = (step[edges[1:]] + step[edges[:-1]]) / 2
        ms = 1000 * np.diff(log["seconds"][edges]) / np.diff(step[edges])
        times = {"milliseconds": np.where(ms > 0, ms, np.nan)}
        charts.append(_chart("Time of a step", middle, times, ("plain",), step, [], raw=False))
    charts = [chart for chart in charts if chart]
    if not charts:
        return ""
    note = "Faint: every step. Bold: the mean over a fiftieth of the run; its last value stands beside its name."
    note += " Upright lines: warnings." if marks else ""
    return _section("Curves", "\n".join(charts) + f'\n<p class="note">{note}</p>')


def _tables(tables):
    """Tables of labels and values, side by side where there is room."""
    found = []
    for title, values in tables.items():
        rows = "\n".join(
            f'<tr><th scope="row">{escape(_short(label))}</th><td>{escape(_short(_value(value)))}</td></tr>'
            for label, value in list(values.items())[:MOST_WARNINGS]
        )
        if rows:
            found.append(_section(title, f"<table>\n<tbody>\n{rows}\n</tbody>\n</table>"))
    return '<div class="tables">\n' + "\n".join(found) + "\n</div>" if found else ""


def _section(title, content):
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>"


# ------------------------------------------------------------------------------------------------------------ curves


def _chart(title, step, series, colours, axis, marks, *, limits=None, raw=True):
    """Return a figure of curves, {label: values}, at the steps ``step``; "" if they hold no number.

    ``colours`` are classes of report.css. ``axis`` holds the steps of the whole run; ``marks`` those with an upright
    line. ``raw``: every value is drawn, faint, below a smoothed curve; else the values are drawn as they are.
    """
    series = {label: (np.isfinite(values), values) for label, values in series.items()}  # a diverged run ends in NaN
    curves = [
        (label, colour, step[keep], values[keep])
        for (label, (keep, values)), colour in zip(series.items(), colours, strict=True)
        if keep.any()
    ]
    if not curves:
        return ""
    low, high = usual_range([values for *_, values in curves]) if limits is None else limits

    def down(values):
        return 300 * (1 - (np.clip(values, low, high) - low) / (high - low))

    rules = [(value, float(down(value))) for value in ticks(low, high)]
    paths = [f'<path class="rule" d="{"".join(f"M0 {y:.1f}h1000" for _, y in rules)}"/>']
    upright = [place for mark in marks if (place := _across(mark, axis)) is not None]
    if upright:
        paths.append(f'<path class="mark" d="{"".join(f"M{10 * place:.1f} 0v300" for place in upright)}"/>')
    legend, story = [], []
    for label, colour, steps, values in curves:
        x = 10 * _across(steps, axis)
        if raw:
            dense = " dense" if len(x) > 10 * MOST_POINTS else ""  # its least and greatest values fill the chart
            paths.append(f'<path class="raw {colour}{dense}" d="{_path(*_extremes(x, down(values)))}"/>')
            values = smooth(values)
        paths.append(f'<path class="line {colour}" d="{_path(*_means(x, down(values)))}"/>')
        swatch = f'<svg viewBox="0 0 24 10" aria-hidden="true"><path class="line {colour}" d="M2 5h20"/></svg>'
        legend.append(f"<li>{swatch}{label} <b>{values[-1]:.3g}</b></li>")
        story.append(f"{label} from {values[0]:.3g} to {values[-1]:.3g}")
    across = [value for value in ticks(axis[0] - 1, max(axis[-1], axis[0] + 1), whole=True) if value <= axis[-1]]
    labels = [f'<span class="y" style="top:{y / 3:.2f}%">{value:.3g}</span>' for value, y in rules]
    for i, value in enumerate(across):
        few = " few" if len(across) > 4 and i % 2 else ""  # those that a telephone has no room for
        labels.append(f'<span class="x{few}" style="left:{_across(value, axis):.2f}%">{value:,.0f}</span>')
    summary = f"{title}: {', '.join(story)}, in {axis[-1]:,.0f} steps"
    return (
        f'<figure class="chart">\n<figcaption><h3>{title}</h3>\n<ul class="legend">{"".join(legend)}</ul></figcaption>'
        f'\n<div class="plot" role="img" aria-label="{summary}">\n'
        f'<svg viewBox="0 0 1000 300" preserveAspectRatio="none" aria-hidden="true">\n{"".join(paths)}\n</svg>\n'
        f'{"".join(labels)}\n<i class="cursor" hidden></i>\n</div>\n'
        '<p class="axis" aria-hidden="true">step</p>\n</figure>'
    )


def _across(step, axis):
    """How far along the axis from the first to the last of its steps, 0 to 100; None for a number that is not on it."""
    if len(axis) == 0:
        return None
    place = 100 * (step - axis[0] + 1) / (axis[-1] - axis[0] + 1)
    return place if np.ndim(step) or 0 <= place <= 100 else None


def _extremes(x, y):
    """Shorten a curve to the least and the greatest y of each stretch, so that every spike stays."""
    if len(x) <= MOST_POINTS:
        return x, y
    first = np.linspace(0, len(x), MOST_POINTS // 2, endpoint=False).astype(int)
    ends = np.append(first[1:], len(x))
    points = [i for a, b in zip(first, ends, strict=True) for i in sorted((a + y[a:b].argmin(), a + y[a:b].argmax()))]
    return x[points], y[points]


def _means(x, y):
    """Shorten a curve to the means of stretches; its ends stay where they are."""
    if len(x) <= MOST_POINTS:
        return x, y
    first = np.linspace(0, len(x), MOST_POINTS - 2, endpoint=False).astype(int)
    count = np.diff(np.append(first, len(x)))
    x, y = (np.concatenate([v[:1], np.add.reduceat(v, first) / count, v[-1:]]) for v in (x, y))
    return x, y


def _path(x, y):
    """SVG's path through points; a single one becomes a dot."""
    points = [f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    return "M" + "L".join(points) + ("h.1" if len(points) == 1 else "")


# ------------------------------------------------------------------------------------------------- numbers and words


def _time(log):
    """Return the run's seconds, and milliseconds a step without the first one, which warms up; None if not known."""
    keep = np.isfinite(log["seconds"]) & (log["seconds"] >= 0)
    step, seconds = log["step"][keep], log["seconds"][keep]
    if len(step) == 0:
        return None, None
    spent = seconds[-1] - seconds[0]
    return float(seconds.max()), float(1000 * spent / (step[-1] - step[0])) if len(step) > 1 and spent > 0 else None


def _duration(seconds):
    """Seconds, as people say it."""
    if seconds < 60:
        return f"{_three_digits(seconds)} <small>s</small>"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    if hours:
        return f"{hours:,} <small>h</small> {m} <small>min</small>"
    return f"{m} <small>min</small> {s} <small>s</small>"


def _three_digits(value):
    """A number above 0 with three digits or more: 0.0123, 4.57, 45.7, 1,234."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _value(value):
    """An option, as people read it."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text):
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def main():
    parser = argparse.ArgumentParser(
        prog="python -m nanogan.report",
        description="Write report.html, one page that needs no network, about a run, and print where it is.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN_FOLDER", help="the --out of a training")
    print(write_report(parser.parse_args().run))


if __name__ == "__main__":
    cli.run(main)
