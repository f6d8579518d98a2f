"""Picture (d): the outages of several pools side by side, every migration a dot, medians with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from testbed.measure.headline import duration
from testbed.report.plots.svg import Canvas, Scale, text_width
from testbed.report.plots.theme import Layout, heading, tick_label

ROW = 64.0
#: The axis' length, in lengths of the longest row.
ROOM_FOR_WORDS = 1.25


@dataclass(frozen=True, slots=True)
class Group:
    """One row.

    Attributes:
        name: what distinguishes it.
        badges: its substrate and accelerator.
        values: in milliseconds, in order of execution.
        median: of the values.
        interval: of the median; None if the sample is too small for one.
    """

    name: str
    badges: str
    values: tuple[float, ...]
    median: float
    interval: tuple[float, float] | None


def draw_groups(groups: Sequence[Group], title: str, subtitle: str, layout: Layout) -> Canvas:
    """Draw at least one group, all with values.

    Args:
        groups: the rows.
        title: of the picture.
        subtitle: what was run, with substrate and accelerator.
        layout: wide or narrow.
    """
    if not layout.labels_above:
        names = [text_width(group.name, 13, bold=True) for group in groups]
        longest = max([*names, *(text_width(group.badges, 12.5) for group in groups)])
        layout = replace(layout, left=max(layout.left, 20 + longest))
    canvas = Canvas(layout.width, 0, title, f"groups-{layout.name}")
    top = heading(canvas, title, subtitle, layout) + 10
    everything = [value for group in groups for value in group.values]
    high = max(everything) * ROOM_FOR_WORDS or 1.0
    x = Scale(0.0, high, layout.left, layout.width - layout.right)
    bottom = top + ROW * len(groups)
    for tick in x.ticks(layout.ticks):
        canvas.line(x(tick), top, x(tick), bottom, "p-grid")
        tick_label(canvas, x(tick), bottom + 16, f"{tick:g}")
    canvas.line(x.start, bottom, x.end, bottom, "p-axis")
    canvas.text((x.start + x.end) / 2, bottom + 32, "outage of the peer, ms", "p-sub", anchor="middle")
    for number, group in enumerate(groups):
        _row(canvas, group, x, layout, top + ROW * number)
    canvas.height = bottom + 40
    return canvas


def _row(canvas: Canvas, group: Group, x: Scale, layout: Layout, y: float) -> None:
    middle = y + 0.62 * ROW
    if layout.labels_above:
        canvas.text(x.start, y + 14, f"{group.name} · {group.badges}", "p-strong")
    else:
        canvas.text(x.start - 12, middle - 2, group.name, "p-strong", anchor="end")
        canvas.text(x.start - 12, middle + 13, group.badges, "p-small", anchor="end")
    # Dots lie above each other in the order of execution, so that equal values stay visible.
    step = min(3.0, 20.0 / max(1, len(group.values)))
    low = -step * (len(group.values) - 1) / 2
    canvas.dots([(x(v), middle + low + step * i) for i, v in enumerate(group.values)], "p-dots")
    if group.interval is not None:
        left, right = x(group.interval[0]), x(group.interval[1])
        canvas.rect(left, middle - 14, max(2.0, right - left), 28, "p-band")
    canvas.line(x(group.median), middle - 15, x(group.median), middle + 15, "p-median")
    words = f"{duration(group.median)} (n = {len(group.values)})"
    place = min(x(max(group.values)) + 10, x.end - text_width(words, 12, bold=True))
    canvas.text(place, middle - (16 if layout.labels_above else -4), words, "p-strong")
