"""Picture (a'): the remapping magnified, as a sequence of messages between the nodes' lanes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from testbed.measure.headline import duration
from testbed.report.plots.svg import Canvas, Scale, spread, text_width
from testbed.report.plots.theme import Layout, heading, tick_label

LANE = 58.0
#: Room for the lanes' names in a narrow picture.
NARROW_LEFT = 122.0

#: Role → its lane from the top, and the marks that lie in it.
LANES = {
    "guest": ("t4", "t14"),
    "destination_xtr": ("t5", "t6", "t7"),
    "map_server": ("t8",),
    "source_xtr": ("t9",),
    "itr": ("t10", "t11", "t12", "t13"),
}

ROLES = {
    "guest": "guest",
    "destination_xtr": "destination xTR",
    "map_server": "mapping system",
    "source_xtr": "source xTR",
    "itr": "correspondent's ITR",
}

#: What passes between lanes: (from mark, to mark). The reply's way back to the guest's peer is t13 → t14.
MESSAGES = (("t4", "t5"), ("t6", "t8"), ("t8", "t7"), ("t8", "t9"), ("t13", "t14"))


def marks_of(migration: Mapping[str, Any]) -> dict[str, float]:
    """The marks that the picture shows, in ms from the origin; with fewer than two there is no picture."""
    wanted = {label for marks in LANES.values() for label in marks}
    return {e["label"]: e["t_ms"] for e in migration["events"] if e["t_ms"] is not None and e["label"] in wanted}


def draw_sequence(
    migration: Mapping[str, Any], nodes: Mapping[str, str], title: str, subtitle: str, layout: Layout
) -> Canvas:
    """Draw the messages of one migration's remapping.

    Args:
        migration: its entry of the summary, with at least two marks (`marks_of`).
        nodes: role → node's name.
        title: of the picture.
        subtitle: what was run, with substrate and accelerator.
        layout: wide or narrow.
    """
    canvas = Canvas(layout.width, 0, title, f"sequence-{migration['index']}-{layout.name}")
    top = heading(canvas, title, subtitle, layout) + 8
    if layout.labels_above:  # arrows cross whatever stands between the lanes: names stand beside them
        layout = replace(layout, left=NARROW_LEFT)
    at = marks_of(migration)
    low, high = min(at.values()), max(at.values())
    margin = max(0.04 * (high - low), 0.5)
    x = Scale(low - margin, high + margin, layout.left, layout.width - layout.right)
    names = {"guest": migration["guest"], **nodes}
    lane_y = {role: top + LANE * (row + 0.55) for row, role in enumerate(LANES)}
    for role, y in lane_y.items():
        canvas.line(x.start, y, x.end, y, "p-axis")
        _lane_name(canvas, ROLES[role], names[role], x.start - 12, y, layout)
    _messages(canvas, at, x, lane_y, migration)
    _marks(canvas, at, x, lane_y)
    bottom = top + LANE * len(LANES)
    _axis(canvas, x, bottom, migration["origin"]["label"], layout)
    canvas.height = bottom + 42
    return canvas


def _lane_name(canvas: Canvas, role: str, node: str, right: float, y: float, layout: Layout) -> None:
    """A lane's role and node, one below the other; the longest roles of a narrow picture over both lines."""
    first, _, last = role.rpartition(" ")
    if layout.labels_above and first:
        canvas.text(right, y, first, "p-mark", anchor="end")
        canvas.text(right, y + 14, f"{last}, {node}", "p-small", anchor="end")
    else:
        canvas.text(right, y, role, "p-mark" if layout.labels_above else "p-strong", anchor="end")
        canvas.text(right, y + 14, node, "p-small", anchor="end")


def _messages(
    canvas: Canvas,
    at: Mapping[str, float],
    x: Scale,
    lane_y: Mapping[str, float],
    migration: Mapping[str, Any],
) -> None:
    """Arrows from cause to effect, where both were seen."""
    where = {label: role for role, labels in LANES.items() for label in labels}
    messages = list(MESSAGES)
    notification = migration["phases_between"].get("notification")
    if notification:
        messages.append((notification[0], notification[1]))
    if "t10" in at and "t11" in at:
        _resolution(canvas, at, x, lane_y)
    for start, end in messages:
        if start in at and end in at and at[end] >= at[start]:
            ends = (x(at[start]), lane_y[where[start]], x(at[end]), lane_y[where[end]])
            _arrow(canvas, *ends, f"{start} → {end}: {duration(at[end] - at[start])}")


def _resolution(canvas: Canvas, at: Mapping[str, float], x: Scale, lane_y: Mapping[str, float]) -> None:
    """The Map-Request to the mapping system and its reply; when it turned was not stamped: drawn half-way."""
    left, right = x(at["t10"]), x(at["t11"])
    turn, y, top = (left + right) / 2, lane_y["itr"], lane_y["map_server"]
    _arrow(canvas, left, y, turn, top, "Map-Request")
    _arrow(canvas, turn, top, right, y, "Map-Reply")


def _arrow(canvas: Canvas, x1: float, y1: float, x2: float, y2: float, tip: str) -> None:
    """A straight arrow that stops short of its end."""
    length = max(1.0, ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    tip_x, tip_y = x2 - 5 * ux, y2 - 5 * uy
    canvas.path(f"M{x1:.1f} {y1:.1f}L{tip_x - 6 * ux:.1f} {tip_y - 6 * uy:.1f}", "p-arrow", tip=tip)
    base_x, base_y = tip_x - 8 * ux, tip_y - 8 * uy
    canvas.path(
        f"M{tip_x:.1f} {tip_y:.1f}L{base_x - 4 * uy:.1f} {base_y + 4 * ux:.1f}"
        f"L{base_x + 4 * uy:.1f} {base_y - 4 * ux:.1f}z",
        "p-arrow-head",
    )


def _marks(canvas: Canvas, at: Mapping[str, float], x: Scale, lane_y: Mapping[str, float]) -> None:
    """A dot for each mark, its label above, moved apart from its neighbours."""
    for role, labels in LANES.items():
        shown = sorted((at[label], label) for label in labels if label in at)
        if not shown:
            continue
        y = lane_y[role]
        centres = [x(moment) for moment, _ in shown]
        widths = [text_width(label, 12.5) + 7 for _, label in shown]
        for (moment, label), place, wanted in zip(shown, spread(centres, widths, x.start, x.end), centres, strict=True):
            canvas.path(f"M{place:.1f} {y - 11:.1f}L{wanted:.1f} {y:.1f}", "p-leader")
            canvas.element("circle", cx=wanted, cy=y, r=3.5, cls="p-total")
            canvas.text(place, y - 13, label, "p-mark", anchor="middle", tip=f"{label}: {moment:.3f} ms")


def _axis(canvas: Canvas, x: Scale, y: float, origin: str, layout: Layout) -> None:
    canvas.line(x.start, y, x.end, y, "p-axis")
    for tick in x.ticks(layout.ticks):
        canvas.line(x(tick), y, x(tick), y + 5, "p-axis")
        tick_label(canvas, x(tick), y + 18, f"{tick:g}")
    canvas.text((x.start + x.end) / 2, y + 34, f"ms from {origin}", "p-sub", anchor="middle")
