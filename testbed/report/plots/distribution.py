"""Picture (c): what many migrations came to: distribution function with its band, every value in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from testbed.measure.headline import duration
from testbed.measure.statistics import ecdf
from testbed.report.plots.svg import Canvas, Scale, number
from testbed.report.plots.theme import Layout, heading

HEIGHT, GAP = 220.0, 56.0


def draw_distribution(
    values: Sequence[tuple[int, float]],
    outliers: Sequence[int],
    interval_ms: float,
    title: str,
    subtitle: str,
    layout: Layout,
) -> Canvas:
    """Draw the outages of a set.

    Args:
        values: (index of the migration, outage in ms), in order of execution; at least two.
        outliers: positions in `values` that lie beyond 1.5 interquartile ranges.
        interval_ms: of the probes: no value is sharper than this.
        title: of the picture.
        subtitle: what was run, with substrate and accelerator.
        layout: wide or narrow.
    """
    canvas = Canvas(layout.width, 0, title, f"distribution-{layout.name}")
    left = 52.0
    top = heading(canvas, title, subtitle, replace(layout, left=left)) + 12
    sample = [value for _, value in values]
    margin = max(interval_ms, 0.08 * (max(sample) - min(sample)))
    low, high = min(sample) - margin, max(sample) + margin
    if layout.labels_above:
        y = _ecdf(canvas, sample, Scale(low, high, left, layout.width - layout.right), top, layout)
        y = _strip(canvas, values, outliers, low, high, left, layout.width - layout.right, y + 24)
    else:
        half = (layout.width - layout.right - left - GAP) / 2
        y = _ecdf(canvas, sample, Scale(low, high, left, left + half), top, layout)
        _strip(canvas, values, outliers, low, high, left + half + GAP, layout.width - layout.right, top)
    canvas.height = y + 6
    return canvas


def _ecdf(canvas: Canvas, sample: Sequence[float], x: Scale, top: float, layout: Layout) -> float:
    """The distribution function as steps, its 95 % band behind."""
    bottom = top + HEIGHT
    y = Scale(0.0, 1.0, bottom, top)
    curve = ecdf(sample)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        canvas.line(x.start, y(share), x.end, y(share), "p-grid")
        canvas.text(x.start - 8, y(share) + 4, f"{share:g}", "p-small", anchor="end")
    upper = _steps(curve.x, curve.high, x, y, max(0.0, min(1.0, curve.epsilon)))
    lower = _steps(curve.x, curve.low, x, y, 0.0)
    band = [*upper, *reversed(lower)]
    canvas.path("M" + "L".join(f"{number(a)} {number(b)}" for a, b in band) + "z", "p-band")
    steps = _steps(curve.x, curve.y, x, y, 0.0)
    canvas.path("M" + "L".join(f"{number(a)} {number(b)}" for a, b in steps), "p-step")
    middle = sorted(sample)[len(sample) // 2] if len(sample) % 2 else None
    if middle is not None:
        canvas.line(x(middle), y(0.5), x(middle), bottom, "p-median")
    canvas.line(x.start, bottom, x.end, bottom, "p-axis")
    for tick in x.ticks(max(3, layout.ticks // 2)):
        canvas.text(x(tick), bottom + 16, f"{tick:g}", "p-small", anchor="middle")
    canvas.text((x.start + x.end) / 2, bottom + 32, "outage, ms", "p-sub", anchor="middle")
    canvas.text(x.start, top - 8, f"share not above, with 95 % DKW band (n = {len(sample)})", "p-small")
    return bottom + 38


def _steps(xs: Sequence[float], ys: Sequence[float], x: Scale, y: Scale, before: float) -> list[tuple[float, float]]:
    """Corners of a step function in pixels, from the axis's start to its end."""
    points, level = [(x.start, y(before))], before
    for value, share in zip(xs, ys, strict=True):
        points += [(x(value), y(level)), (x(value), y(share))]
        level = share
    return [*points, (x.end, y(level))]


def _strip(
    canvas: Canvas,
    values: Sequence[tuple[int, float]],
    outliers: Sequence[int],
    low: float,
    high: float,
    left: float,
    right: float,
    top: float,
) -> float:
    """Every value in the order of execution, so that a drift shows."""
    bottom = top + HEIGHT
    x = Scale(-0.5, len(values) - 0.5, left, right)
    y = Scale(low, high, bottom, top)
    for tick in y.ticks(5):
        canvas.line(left, y(tick), right, y(tick), "p-grid")
        canvas.text(left - 8, y(tick) + 4, f"{tick:g}", "p-small", anchor="end")
    ordinary = [(x(i), y(v)) for i, (_, v) in enumerate(values) if i not in outliers]
    unusual = [(x(i), y(v)) for i, (_, v) in enumerate(values) if i in outliers]
    canvas.dots(ordinary, "p-big-dots")
    canvas.dots(unusual, "p-out-dots")
    canvas.line(left, bottom, right, bottom, "p-axis")
    every = max(1, -(-len(values) // 10))
    for position, (index, value) in enumerate(values):
        if position % every == 0:
            tip = f"migration {index}: {duration(value)}"
            canvas.text(x(position), bottom + 16, str(index), "p-small", anchor="middle", tip=tip)
    canvas.text((left + right) / 2, bottom + 32, "migration, in order of execution", "p-sub", anchor="middle")
    marked = f", {len(outliers)} marked as outliers" if outliers else ""
    canvas.text(left, top - 8, f"outage, ms{marked}", "p-small")
    return bottom + 38
