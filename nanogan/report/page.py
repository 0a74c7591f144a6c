"""One page about one run: images over time, curves, options. ``python -m nanogan.report RUN_FOLDER`` writes it.

The page is a single HTML file that needs nothing else: images are inside it, and it asks no network for anything.
What a run left behind may come from anyone and may be cut short: its text is escaped, its sizes are bounded, and what
cannot be read is left out. The page's look and its slider are in report.html, report.css and report.js here.
"""

import base64
import hashlib
import itertools
import json
import string
from datetime import datetime
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np

from nanogan.disk import replacing
from nanogan.errors import UserError
from nanogan.images.plots import panels
from nanogan.report.charts import across, chart
from nanogan.report.what_a_run_left import (
    OLD_CURVES,
    OLD_LABELS,
    frame_files,
    read_curves,
    read_frames,
    read_log,
    read_object,
    read_picture,
    read_warnings,
    short,
)

PRIVATE = ("working_folder",)  # options that the page does not show: it is for others too, and a user's name is in it
MOST_WARNINGS = 200
MOST_MEASURES = 200  # rows of measures.csv, the last ones
COLOURS = ("first", "second", "third", "fourth", "fifth")  # classes of report.css, as many as plots.COLOURS


def write_report(out, *, max_frames=60):
    """Write ``out``/report.html about the run in the folder ``out`` and return its path.

    Reads these files, each if it exists: log.csv, whose header names the columns, "step" among them; curves.json,
    {"curves": {title: [columns]}, "labels": {column: label}}, how they are drawn; options.json; real.png;
    samples/*.png; machine.json, {"label": "text"}, what the run was computed on; and warnings.csv, lines of
    "step,message" below that header, what was reported during the run, and measures.csv, what was measured after each
    epoch.

    Without a usable curves.json the losses, columns whose name starts with "loss", are in one chart, the others in a
    second. Of more than ``max_frames`` sample grids evenly spaced ones are shown, the first and the last among them.
    Images of more than 64 KB are stored as JPEG.

    Raises UserError if there is no run in ``out``.
    """
    out = Path(out)
    grids = frame_files(out / "samples")
    parts = [path for path in (out / "log.csv", out / "options.json", out / "real.png") if path.is_file()]
    parts += [path for _, _, path in grids[-1:]]
    if not parts:
        raise UserError(
            f"there is no run in {out}: expected log.csv, options.json, real.png or samples/epoch_*_step_*.png as "
            "training writes them; give the folder that was its --out"
        )
    log, old = read_log(out / "log.csv")
    curves, labels = read_curves(out / "curves.json")
    if old and not curves:
        curves, labels = OLD_CURVES, OLD_LABELS
    options, frames = read_object(out / "options.json"), read_frames(grids, max_frames)
    warnings = read_warnings(out / "warnings.csv")
    shown = {name: value for name, value in options.items() if name not in PRIVATE}
    data, folder = options.get("data"), options.get("path")
    folder = Path(folder).name if isinstance(folder, str) else out.resolve().name
    name = short(data if isinstance(data, str) else folder) or "a run"
    written = datetime.fromtimestamp(max(path.stat().st_mtime for path in parts))

    sections = [
        _headline(log, options),
        _images(frames, read_picture(out / "real.png"), log, name),
        _warnings(_diverged(log) + (warnings or []), frames, watched=warnings is not None),
        _curves(log, panels(log, curves, labels), warnings or []),
        _measures(read_log(out / "measures.csv")[0]),
        _tables({"Options": shown, "Machine": read_object(out / "machine.json")}),
    ]
    script = _page_part("report.js")
    page = string.Template(_page_part("report.html")).substitute(
        title=escape(f"{name} · nanogan"),
        name=escape(name),
        subtitle=f"{written.day} {written:%B %Y, %H:%M} · {escape(short(out.resolve().name))}",
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
    return resources.files("nanogan.report").joinpath(name).read_text(encoding="utf-8").rstrip("\n")


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
            cells.append(("real images a second", _three_digits(batch * 1000 / ms)))
    items = "\n".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in cells)
    note = '\n<p class="note">Times include samples and saving.</p>' if seconds is not None else ""
    return f'<dl class="numbers">\n{items}\n</dl>{note}'


def _images(frames, real, log, name):
    """The sample grids behind a slider, beside real images."""
    if not frames and real is None:
        return _section("Images", '<p class="quiet">No images have been generated yet.</p>')
    # small pixels are shown as squares, of one size in both grids
    scale = max(1, round(500 / max(1, (frames[-1].picture if frames else real).width)))
    figures = []
    if frames:
        images = []
        for i, (epoch, step, picture) in enumerate(frames):
            where = f"epoch {epoch:,}, step {step:,}"
            place = across(step, log["step"])
            at = "" if place is None else f' data-at="{place:.2f}"'
            hidden = "" if i == len(frames) - 1 else " hidden"
            alt = f"images generated after {where}"
            images.append(_image(picture, scale, alt, f' decoding="sync" data-where="{where}"{at}{hidden}'))
        last = f"epoch {frames[-1].epoch:,}, step {frames[-1].step:,}"
        figures.append(
            "<figure>\n<figcaption><h3>Generated</h3></figcaption>\n"
            f'<div id="frames">\n{"".join(images)}</div>\n'
            f'<p class="caption">After <output id="where" for="frame">{last}</output>, from the same input each time'
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
            f"{_image(real, scale, 'real images of the training data', share)}"
            f'<p class="caption">From the training data, {escape(name)}</p>\n</figure>'
        )
    pixelated = " pixelated" if scale > 1 else ""
    return _section("Images", f'<div class="pictures{pixelated}">\n' + "\n".join(figures) + "\n</div>")


def _image(picture, scale, alt, more=""):
    width, height = picture.width * scale, picture.height * scale
    return f'<img src="{picture.uri}" width="{width}" height="{height}" alt="{alt}"{more}>\n'


def _diverged(log):
    """[(step, message)] where a loss stopped being finite."""
    losses = [values for name, values in log.items() if name.startswith("loss")]
    bad = ~np.isfinite(losses).all(axis=0) if losses else np.zeros(0, bool)
    return [(int(log["step"][bad.argmax()]), "a loss was not finite from here on")] if bad.any() else []


def _warnings(warnings, frames, *, watched):
    """What was reported during the run, each with a link to the samples of then."""
    if not warnings:
        return _section("Warnings", '<p class="quiet">No warnings.</p>') if watched else ""
    items = []
    for step, message in warnings[:MOST_WARNINGS]:
        label = f"step {step:,}"
        later = [i for i, frame in enumerate(frames, start=1) if frame.step >= step] or [len(frames)]
        label = f'<a href="#frame={later[0]}">{label}</a>' if frames else f"<b>{label}</b>"
        items.append(f"<li>{label} {escape(short(message))}</li>")
    left = len(warnings) - MOST_WARNINGS
    more = f'\n<p class="note">and {left:,} more</p>' if left > 0 else ""
    return _section("Warnings", '<ul class="warnings">\n' + "\n".join(items) + f"\n</ul>{more}")


def _curves(log, shown, warnings):
    """The panels ``shown``, and the speed, against the step."""
    step = log["step"]
    if len(step) == 0:
        return ""
    marks = [mark for mark, _ in warnings[:MOST_WARNINGS]]
    colours = itertools.cycle(COLOURS)  # from one panel to the next, so that neighbours differ
    charts = [
        chart(title[:1].upper() + title[1:], step, series, list(itertools.islice(colours, len(series))), step, marks)
        for title, series in shown
    ]
    if len(step) > 10:  # the times of single steps say little: on a GPU they are noted before the step is computed
        edges = np.unique(np.linspace(0, len(step) - 1, 101).round().astype(int))
        middle = (step[edges[1:]] + step[edges[:-1]]) / 2
        ms = 1000 * np.diff(log["seconds"][edges]) / np.diff(step[edges])
        times = [("milliseconds", np.where(ms > 0, ms, np.nan))]
        charts.append(chart("Time of a step", middle, times, ("plain",), step, [], raw=False))
    charts = [chart for chart in charts if chart]
    if not charts:
        return ""
    note = "Faint: every step. Bold: the mean over a fiftieth of the run; its last value stands beside its name."
    note += " Upright lines: warnings." if marks else ""
    return _section("Curves", "\n".join(charts) + f'\n<p class="note">{note}</p>')


def _measures(measured):
    """A table of what was measured, a row for each epoch."""
    names = [name for name in measured if name not in ("epoch", "step", "seconds")]
    if not names:
        return ""
    head = "".join(f'<th scope="col">{escape(short(name))}</th>' for name in names)
    rows = "\n".join(
        f'<tr><th scope="row">{epoch:.0f}</th>' + "".join(f"<td>{value:.4g}</td>" for value in values) + "</tr>"
        for epoch, *values in zip(*(measured[name][-MOST_MEASURES:] for name in ("epoch", *names)), strict=True)
    )
    head = f'<thead>\n<tr><th scope="col">epoch</th>{head}</tr>\n</thead>'
    return _section("Measured", f"<table>\n{head}\n<tbody>\n{rows}\n</tbody>\n</table>")


def _tables(tables):
    """Tables of labels and values, side by side where there is room."""
    found = []
    for title, values in tables.items():
        rows = "\n".join(
            f'<tr><th scope="row">{escape(short(label))}</th><td>{escape(short(_value(value)))}</td></tr>'
            for label, value in list(values.items())[:MOST_WARNINGS]
        )
        if rows:
            found.append(_section(title, f"<table>\n<tbody>\n{rows}\n</tbody>\n</table>"))
    return '<div class="tables">\n' + "\n".join(found) + "\n</div>" if found else ""


def _section(title, content):
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>"


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
