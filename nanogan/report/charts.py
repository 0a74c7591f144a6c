"""Charts of a report: SVG without a script. Lines stretch with the window, words and numbers keep their size."""

from html import escape

import numpy as np

from nanogan.images.plots import axis_range, smooth, ticks

MOST_POINTS = 1000  # of a curve; more than a screen's pixels show nothing


def chart(title, step, series, colours, axis, marks, *, raw=True):
    """Return a figure of curves, [(label, values)], at the steps ``step``; "" if they hold no number.

    ``colours``: a class of report.css for each. ``axis`` holds the steps of the whole run; ``marks`` those with an
    upright line. ``raw``: every value is drawn, faint, below a smoothed curve; else the values are drawn as they are.
    """
    curves = [
        (escape(label), colour, step[np.isfinite(values)], values[np.isfinite(values)])  # a diverged run ends in NaN
        for (label, values), colour in zip(series, colours, strict=True)
        if np.isfinite(values).any()
    ]
    if not curves:
        return ""
    title, (low, high) = escape(title), axis_range([values for *_, values in curves])

    def down(values):
        return 300 * (1 - (np.clip(values, low, high) - low) / (high - low))

    rules = [(value, float(down(value))) for value in ticks(low, high)]
    paths = [f'<path class="rule" d="{"".join(f"M0 {y:.1f}h1000" for _, y in rules)}"/>']
    upright = [place for mark in marks if (place := across(mark, axis)) is not None]
    if upright:
        paths.append(f'<path class="mark" d="{"".join(f"M{10 * place:.1f} 0v300" for place in upright)}"/>')
    legend, story = [], []
    for label, colour, steps, values in curves:
        x = 10 * across(steps, axis)
        if raw:
            dense = " dense" if len(x) > 10 * MOST_POINTS else ""  # its least and greatest values fill the chart
            paths.append(f'<path class="raw {colour}{dense}" d="{_path(*_extremes(x, down(values)))}"/>')
            values = smooth(values)
        paths.append(f'<path class="line {colour}" d="{_path(*_means(x, down(values)))}"/>')
        swatch = f'<svg viewBox="0 0 24 10" aria-hidden="true"><path class="line {colour}" d="M2 5h20"/></svg>'
        legend.append(f"<li>{swatch}{label} <b>{values[-1]:.3g}</b></li>")
        story.append(f"{label} from {values[0]:.3g} to {values[-1]:.3g}")
    summary = f"{title}: {', '.join(story)}, in {axis[-1]:,.0f} steps"
    return (
        f'<figure class="chart">\n<figcaption><h3>{title}</h3>\n<ul class="legend">{"".join(legend)}</ul></figcaption>'
        f'\n<div class="plot" role="img" aria-label="{summary}">\n'
        f'<svg viewBox="0 0 1000 300" preserveAspectRatio="none" aria-hidden="true">\n{"".join(paths)}\n</svg>\n'
        f'{_scales(rules, axis)}\n<i class="cursor" hidden></i>\n</div>\n'
        '<p class="axis" aria-hidden="true">step</p>\n</figure>'
    )


def _scales(rules, axis):
    """Return the numbers beside the horizontal ``rules``, [(value, y)], and those below the axis."""
    labels = [f'<span class="y" style="top:{y / 3:.2f}%">{value:.3g}</span>' for value, y in rules]
    steps = [value for value in ticks(axis[0] - 1, max(axis[-1], axis[0] + 1), whole=True) if value <= axis[-1]]
    for i, value in enumerate(steps):
        few = " few" if len(steps) > 4 and i % 2 else ""  # those that a telephone has no room for
        labels.append(f'<span class="x{few}" style="left:{across(value, axis):.2f}%">{value:,.0f}</span>')
    return "".join(labels)


def across(step, axis):
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
