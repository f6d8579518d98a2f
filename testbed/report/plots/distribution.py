"""Picture (c): what many migrations came to: distribution function with its band, every value in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from testbed.measure.headline import duration
from testbed.measure.statistics import ecdf
from testbed.report.plots.svg import Canvas, Scale, number
from testbed.report.plots.theme import Layout, heading, tick_label

HEIGHT, GAP = 220.0, 56.0
#: Room at the ends of an axis, as a share of the values' range; of values that are all the same, of their size.
MARGIN, MARGIN_OF_EQUALS = 0.08, 0.05


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one metric.

    Attributes:
        name: of the metric: "outage of the peer".
        values: (index of the migration, milliseconds), in order of execution; at least one.
        median: of the values.
        outliers: positions in `values` that lie beyond 1.5 interquartile ranges.
        sharpness_ms: what no value is sharper than: the axis shows at least that much on both sides.
    """

    name: str
    values: tuple[tuple[int, float], ...]
    median: float
    outliers: tuple[int, ...]
    sharpness_ms: float

    def range(self) -> tuple[float, float]:
        """The ends of an axis."""
        times = [value for _, value in self.values]
        low, high = min(times), max(times)
        margin = MARGIN * (high - low) or MARGIN_OF_EQUALS * abs(high) or 1.0
        margin = max(margin, self.sharpness_ms)
        return low - margin, high + margin


def draw_distribution(key: str, sample: Sample, title: str, subtitle: str, layout: Layout) -> Canvas:
    """Draw the values of a set.

    Args:
        key: unique among the pictures of a page.
        sample: the values.
        title: of the picture.
        subtitle: what was run, with substrate and accelerator.
        layout: wide or narrow.
    """
    canvas = Canvas(layout.width, 0, title, f"{key}-{layout.name}")
    left = 52.0
    top = heading(canvas, title, subtitle, replace(layout, left=left)) + 16
    low, high = sample.range()
    if layout.labels_above:
        y = _ecdf(canvas, sample, Scale(low, high, left, layout.width - layout.right), top, layout)
        y = _strip(canvas, sample, left, layout.width - layout.right, y + 28)
    else:
        half = (layout.width - layout.right - left - GAP) / 2
        y = _ecdf(canvas, sample, Scale(low, high, left, left + half), top, layout)
        _strip(canvas, sample, left + half + GAP, layout.width - layout.right, top)
    canvas.height = y + 6
    return canvas


def _ecdf(canvas: Canvas, sample: Sample, x: Scale, top: float, layout: Layout) -> float:
    """The distribution function as steps, its 95 % band behind, the median where it crosses one half."""
    bottom = top + HEIGHT
    y = Scale(0.0, 1.0, bottom, top)
    curve = ecdf([value for _, value in sample.values])
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        canvas.line(x.start, y(share), x.end, y(share), "p-grid")
        canvas.text(x.start - 8, y(share) + 4, f"{share:g}", "p-small", anchor="end")
    upper = _steps(curve.x, curve.high, x, y, max(0.0, min(1.0, curve.epsilon)))
    lower = _steps(curve.x, curve.low, x, y, 0.0)
    band = [*upper, *reversed(lower)]
    canvas.path("M" + "L".join(f"{number(a)} {number(b)}" for a, b in band) + "z", "p-band")
    steps = _steps(curve.x, curve.y, x, y, 0.0)
    canvas.path("M" + "L".join(f"{number(a)} {number(b)}" for a, b in steps), "p-step")
    middle = x(sample.median)
    canvas.line(middle, y(0.5), middle, bottom, "p-median")
    right = middle < (x.start + x.end) / 2
    words = f"median {duration(sample.median)}"
    canvas.text(middle + (6 if right else -6), bottom - 7, words, "p-mark", anchor="start" if right else "end")
    canvas.line(x.start, bottom, x.end, bottom, "p-axis")
    for tick in x.ticks(max(3, layout.ticks // 2)):
        tick_label(canvas, x(tick), bottom + 16, f"{tick:g}")
    canvas.text((x.start + x.end) / 2, bottom + 32, f"{sample.name}, ms", "p-sub", anchor="middle")
    canvas.text(x.start, top - 8, f"share not above, with 95 % DKW band (n = {len(sample.values)})", "p-small")
    return bottom + 38


def _steps(xs: Sequence[float], ys: Sequence[float], x: Scale, y: Scale, before: float) -> list[tuple[float, float]]:
    """Corners of a step function in pixels, from the axis's start to its end."""
    points, level = [(x.start, y(before))], before
    for value, share in zip(xs, ys, strict=True):
        points += [(x(value), y(level)), (x(value), y(share))]
        level = share
    return [*points, (x.end, y(level))]


def _strip(canvas: Canvas, sample: Sample, left: float, right: float, top: float) -> float:
    """Every value in the order of execution, so that a drift shows; outliers as rings with their numbers."""
    bottom, values = top + HEIGHT, sample.values
    x = Scale(-0.5, len(values) - 0.5, left, right)
    y = Scale(*sample.range(), bottom, top)
    for tick in y.ticks(5):
        canvas.line(left, y(tick), right, y(tick), "p-grid")
        canvas.text(left - 8, y(tick) + 4, f"{tick:g}", "p-small", anchor="end")
    canvas.line(left, y(sample.median), right, y(sample.median), "p-median")
    canvas.dots([(x(i), y(v)) for i, (_, v) in enumerate(values) if i not in sample.outliers], "p-big-dots")
    for position in sample.outliers:
        index, value = values[position]
        canvas.element("circle", cx=x(position), cy=y(value), r=4.5, cls="p-outlier")
        below = y(value) < top + 14
        canvas.text(x(position), y(value) + (17 if below else -9), str(index), "p-loss-text", anchor="middle")
    canvas.line(left, bottom, right, bottom, "p-axis")
    every = max(1, -(-len(values) // 10))
    for position, (index, value) in enumerate(values):
        if position % every == 0:
            tip = f"migration {index}: {duration(value)}"
            canvas.text(x(position), bottom + 16, str(index), "p-small", anchor="middle", tip=tip)
    canvas.text((left + right) / 2, bottom + 32, "migration, in order of execution", "p-sub", anchor="middle")
    canvas.text(left, top - 8, f"each migration, ms{_marked(len(sample.outliers))}", "p-small")
    return bottom + 38


def _marked(outliers: int) -> str:
    """How many values are marked, in words."""
    if not outliers:
        return ""
    return "; ring: an outlier" if outliers == 1 else f"; rings: {outliers} outliers"
