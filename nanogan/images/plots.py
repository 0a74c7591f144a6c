"""Plots, drawn with Pillow: what a training's log contains; numbers beside each other."""

import itertools

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nanogan.disk import replacing

INK, FAINT, PAPER = "#222222", "#dddddd", "#ffffff"
COLOURS = ("#1f77b4", "#d95f02", "#2a9d4f", "#8e44ad", "#777777")


def save_training_plot(path, columns, curves=None, labels=None):
    """Draw a training's numbers against the step, in panels: see :func:`panels` for ``curves`` and ``labels``.

    ``columns`` holds equally long sequences under the names of log.csv, "step" among them. Numbers that are not finite
    leave a gap; nothing is written if there is no other.
    """
    shown = panels(columns, curves, labels)
    if not shown:
        return
    width, height = 900, 20 + 310 * len(shown)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    step = np.asarray(columns["step"], float)
    for i, (title, series) in enumerate(shown):
        panel(draw, font, (60, 40 + 310 * i, width - 20, 290 + 310 * i), step, series, title)
    draw.text((width - 20, height - 8), "step", INK, font, anchor="rs")
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


def panels(columns, curves=None, labels=None):
    """Return what is drawn of a log's ``columns``: [(title, [(label, array of values), ...]), ...].

    curves: {title: names of the columns in that panel}. Names that the log lacks, and columns without a finite number,
    are left out. If no panel is left, or without ``curves``, the losses (columns whose name starts with "loss") are in
    one panel, all others in a second. labels: {column: what it is called}, by default its name.

    A panel has at most as many columns as there are :data:`COLOURS`; what is more goes into another below it.
    """
    labels, found = labels or {}, []
    for title, names in (curves or _default_curves(columns)).items():
        series = [(labels.get(name, name), np.asarray(columns[name], float)) for name in names if name in columns]
        series = [(label, values) for label, values in series if np.isfinite(values).any()]
        for first in range(0, len(series), len(COLOURS)):
            found.append((f"{title}, continued" if first else title, series[first : first + len(COLOURS)]))
    return panels(columns, None, labels) if curves and not found else found


def _default_curves(columns):
    names = [name for name in columns if name not in ("epoch", "step", "seconds")]
    losses = [name for name in names if name.startswith("loss")]
    return {"losses": losses, "other columns": [name for name in names if name not in losses]}


def save_bars(path, groups):
    """Draw bars from 0 to 1 with their numbers, in per cent: {title: [(label, value, spread), ...]}.

    A spread above 0 is drawn as a line from value - spread to value + spread.
    """
    width, row, start = 640, 24, 170
    high = max(value + spread for bars in groups.values() for _, value, spread in bars) or 1.0
    sheet = Image.new("RGB", (width, sum(40 + row * len(bars) for bars in groups.values()) + 10), PAPER)
    draw, font, y = ImageDraw.Draw(sheet), ImageFont.load_default(), 10
    scale = (width - start - 110) / high
    for title, bars in groups.items():
        draw.text((start, y), title, INK, font)
        y += 20
        for (label, value, spread), colour in zip(bars, itertools.cycle(COLOURS)):
            middle, end = y + row / 2, start + value * scale
            draw.text((start - 8, middle), label, INK, font, anchor="rm")
            draw.rectangle((start, y + 4, end, y + row - 4), _fade(colour))
            text = f"{value:.1%}"
            if spread:
                draw.line((end - spread * scale, middle, end + spread * scale, middle), colour, 3)
                text += f" \u00b1 {spread:.1%}"
            draw.text((end + spread * scale + 6, middle), text, INK, font, anchor="lm")
            y += row
        y += 20
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


def panel(draw, font, box, x, series, title, limits=None):
    """Draw ``series``, [(label, values)], inside ``box`` (left, top, right, bottom): faint as it is, bold smoothed.

    limits: the least and the greatest value that the axis shows; chosen by :func:`axis_range` if not given.
    """
    left, top, right, bottom = box
    series = [(label, np.asarray(values, float)) for label, values in series]
    series = [(label, x[np.isfinite(values)], values[np.isfinite(values)]) for label, values in series]
    low, high = axis_range([values for _, _, values in series]) if limits is None else limits
    span = max(1.0, x[-1] - x[0])

    def place(xs, ys):
        across = left + (xs - x[0]) / span * (right - left)
        down = bottom - (np.clip(ys, low, high) - low) / (high - low) * (bottom - top)
        return list(zip(across.tolist(), down.tolist(), strict=True))

    for value in ticks(low, high):
        ((_, y),) = place(x[:1], np.array([value]))
        draw.line((left, y, right, y), FAINT)
        draw.text((left - 6, y), f"{value:.3g}", INK, font, anchor="rm")
    for value in ticks(x[0], max(x[-1], x[0] + 1), whole=True):
        ((across, _),) = place(np.array([value]), np.array([low]))
        draw.text((across, bottom + 5), f"{value:.0f}", INK, font, anchor="mt")

    across = left
    draw.text((left, top - 26), title, INK, font)
    for (_, steps, values), colour in zip(series, COLOURS, strict=False):  # below all that is bold
        draw.line(place(*_thinned(steps, values)), _fade(colour), 1)
    for (label, steps, values), colour in zip(series, COLOURS, strict=False):
        draw.line(place(*_thinned(steps, smooth(values))), colour, 2)
        draw.line((across, top - 6, across + 18, top - 6), colour, 3)
        draw.text((across + 24, top - 6), label, INK, font, anchor="lm")
        across += 40 + draw.textlength(label, font)


def _thinned(*arrays):
    """At most 900 of the arrays' elements, evenly spaced: more points than pixels show nothing."""
    keep = np.unique(np.linspace(0, len(arrays[0]) - 1, 900).round().astype(int))
    return [array[keep] for array in arrays]


def axis_range(curves):
    """Return the range of a panel's axis: 0 to 1 for shares and probabilities, else the curves' usual range.

    Curves that all lie between 0 and 1 count as shares, unless they would be flat at the bottom of the panel.
    """
    low, high = usual_range(curves)
    shares = low == 0 and high > 0.5 and max(values.max() for values in curves) <= 1
    return (0.0, 1.0) if shares else (low, high)


def usual_range(curves):
    """Return the range of an axis for ``curves``, arrays of numbers: 0 is in it, a few spikes may leave it."""
    curves = list(curves)
    low = min(0.0, *(1.05 * float(np.percentile(values, 0.5)) for values in curves))
    return low, max(low + 1e-9, *(1.05 * float(np.percentile(values, 99.5)) for values in curves), 0.0)


def ticks(low, high, *, whole=False):
    """Round numbers from ``low`` to ``high``, about five."""
    rough = (high - low) / 4
    magnitude = 10.0 ** np.floor(np.log10(rough))
    step = magnitude * min((1, 2, 2.5, 5, 10), key=lambda factor: abs(np.log(factor * magnitude / rough)))
    step = max(1.0, np.ceil(step)) if whole else step
    return np.arange(np.ceil(low / step), np.floor(high / step + 1e-9) + 1) * step


def smooth(values):
    """Running mean over about a fiftieth of the length; shorter windows at both ends."""
    half = max(1, len(values) // 100)
    total = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (total[last] - total[first]) / (last - first)


def _fade(colour):
    """The colour, two thirds of the way to paper."""
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return tuple((2 * 255 + channel) // 3 for channel in channels)
