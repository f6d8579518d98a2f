"""Picture (e): a sweep's remapping latencies, each combination's median beside the bound of theory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from testbed.measure.headline import duration
from testbed.report.plots.svg import Canvas, Scale, text_width
from testbed.report.plots.theme import Layout, heading, tick_label

ROW, ROW_WITH_LABEL = 30.0, 46.0
#: Half the height of the band of a median's interval, and of the mark of a bound.
BAND, MARK = 8.0, 11.0
#: Between a row's last mark and its words.
GAP = 10.0


def draw_grid(
    key: str, rows: Sequence[tuple[str, Mapping[str, Any]]], title: str, subtitle: str, layout: Layout
) -> Canvas:
    """Draw at least one row that was measured.

    Args:
        key: unique among the pictures of a page.
        rows: (label, row of the sweep), in order.
        title: of the picture.
        subtitle: what was run, with substrate and accelerator.
        layout: wide or narrow.
    """
    if not layout.labels_above:
        layout = replace(layout, left=max(layout.left, 20 + max(text_width(label, 13, bold=True) for label, _ in rows)))
    canvas = Canvas(layout.width, 0, title, f"{key}-{layout.name}")
    top = heading(canvas, title, subtitle, layout) + 8
    measured = [value for _, row in rows for value in row["values_ms"] if value is not None]
    high = max([*measured, *(row["bound_ms"] or 0.0 for _, row in rows)])
    axis = layout.width - layout.right - layout.left
    room = GAP + max(text_width(_words(row), 12, bold=True) for _, row in rows)
    x = Scale(0.0, high * axis / max(axis - room, axis / 3) or 1.0, layout.left, layout.width - layout.right)
    height = ROW_WITH_LABEL if layout.labels_above else ROW
    bottom = top + height * len(rows)
    for tick in x.ticks(layout.ticks):
        canvas.line(x(tick), top, x(tick), bottom, "p-grid")
        tick_label(canvas, x(tick), bottom + 16, f"{tick:g}")
    canvas.line(x.start, bottom, x.end, bottom, "p-axis")
    canvas.text((x.start + x.end) / 2, bottom + 32, "remapping latency, ms", "p-sub", anchor="middle")
    for number, (label, row) in enumerate(rows):
        _row(canvas, label, row, x, layout, top + height * number, height)
    canvas.height = bottom + 40
    return canvas


def _row(canvas: Canvas, label: str, row: Mapping[str, Any], x: Scale, layout: Layout, y: float, height: float) -> None:
    middle = y + height - ROW / 2
    if layout.labels_above:
        canvas.text(x.start, y + 13, label, "p-strong")
    else:
        canvas.text(x.start - 12, middle + 4, label, "p-strong", anchor="end")
    found, bound_ms = row["remap_latency_ms"], row["bound_ms"]
    if found is None:
        canvas.text(x.start + 6, middle + 4, "not measured", "p-none")
    else:
        if found["ci95"] is not None:
            left, right = (x(end) for end in found["ci95"])
            canvas.rect(left, middle - BAND, max(2.0, right - left), 2 * BAND, "p-band")
        canvas.dots([(x(value), middle) for value in row["values_ms"] if value is not None], "p-dots")
        canvas.line(x(found["median"]), middle - MARK, x(found["median"]), middle + MARK, "p-median")
        words = _words(row)
        place = min(x(max(found["max"], bound_ms or 0.0)) + GAP, x.end - text_width(words, 12, bold=True))
        canvas.text(place, middle + 4, words, "p-strong")
    if bound_ms is not None:
        canvas.line(x(bound_ms), middle - MARK, x(bound_ms), middle + MARK, "p-bound")


def _words(row: Mapping[str, Any]) -> str:
    """The median, and how far it is from its bound."""
    if row["remap_latency_ms"] is None:
        return ""
    beside = "" if row["excess_ms"] is None else f" (bound {row['excess_ms']:+.1f} ms)"
    return duration(row["remap_latency_ms"]["median"]) + beside
