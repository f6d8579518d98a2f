"""Picture (b): the outage as a waterfall of its parts, hypervisor's and network's, the rest last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from testbed.measure.headline import Words, duration, precise
from testbed.measure.phases import HYPERVISOR_PARTS, PHASES
from testbed.report.plots.svg import Canvas, Scale, text_width
from testbed.report.plots.theme import Layout, heading, tick_label

ROW, ROW_WITH_LABEL, BAR = 30.0, 44.0, 16.0
#: The network's parts have a scale of their own where they take less than this share of the outage.
MAGNIFIED_BELOW = 0.2

#: Row → (label, class of its bar).
ROWS = {
    "stuntime": ("outage of the peer", "p-total"),
    "vm_downtime": ("VM downtime", "p-hypervisor"),
    "reconnection": ("reconnection", "p-hypervisor-2"),
    "detection": ("detection", "p-network"),
    "registration": ("registration", "p-network-2"),
    "notification": ("notification", "p-network"),
    "timer_wait": ("wait for a timer", "p-network"),  # instead of a notification
    "resolution": ("resolution", "p-network-2"),
    "installation": ("installation", "p-network"),
}
assert set(PHASES) < set(ROWS)


def draw_waterfall(migration: Mapping[str, Any], words: Words, title: str, subtitle: str, layout: Layout) -> Canvas:
    """Draw the parts of one migration's outage.

    Args:
        migration: its entry of the summary.
        words: for the substrate.
        title: of the picture.
        subtitle: what was run, with substrate and accelerator.
        layout: wide or narrow.
    """
    canvas = Canvas(layout.width, 0, title, f"waterfall-{migration['index']}-{layout.name}")
    top = y = heading(canvas, title, subtitle, layout)
    bars = bars_of(migration)
    origin = migration["origin"]["label"]
    whole = _range(span for spans in bars.values() for span in spans)
    x = _scale(whole, layout)
    grid, grid_slot = Canvas(0, 0, "", ""), len(canvas.elements)
    height = ROW_WITH_LABEL if layout.labels_above else ROW
    near = magnified_range(bars)
    bound_ms = _bound_ms(migration)
    network_top = top
    for name, (label, cls) in ROWS.items():
        if name == PHASES[0]:
            if near is not None:
                y = _axis(grid, canvas, origin, x, layout, top, y)
                top, x, y = _magnify(canvas, x, near, layout, y)
            network_top = y
        if name == "vm_downtime":
            label = f"{words.downtime} ({words.pause})" if layout.labels_above else words.downtime
        if name == "timer_wait" and not bars[name]:
            continue
        why = migration["reasons"].get(name) or migration["reasons"].get(f"{name}_ms", "not measured")
        _row(canvas, label, bars[name], cls, why, x, layout, y, bound_ms if name in PHASES else None)
        y += height
    network_bottom = y
    _row(canvas, "unattributed", bars["unattributed"], "p-rest", "not measured", x, layout, y, None)
    y += height
    if any(bars.values()):
        y = _axis(grid, canvas, origin, x, layout, top, y)
        _bound(grid, migration, x, network_top, network_bottom)
        canvas.elements[grid_slot:grid_slot] = grid.elements
    canvas.height = y + 4
    return canvas


def magnified_range(bars: Mapping[str, list[tuple[float, float]]]) -> tuple[float, float] | None:
    """The stretch of the network's parts, if it is too short to be read beside the hypervisor's; else None."""
    network = [span for phase in PHASES for span in bars[phase]]
    if not network or not bars["stuntime"]:
        return None
    whole = _range(span for spans in bars.values() for span in spans)
    near = _range([*network, (min(start for start, _ in network), bars["stuntime"][0][1])])
    return near if near[1] - near[0] < MAGNIFIED_BELOW * (whole[1] - whole[0]) else None


def _range(spans: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """From the first moment of some stretches to the last, at least 1 ms."""
    ends = [moment for span in spans for moment in span] or [0.0, 1.0]
    return min(ends), max(max(ends), min(ends) + 1)


def _scale(span: tuple[float, float], layout: Layout) -> Scale:
    """A time axis with room for figures behind the last bar."""
    room = 0.26 if layout.labels_above else 0.14
    return Scale(span[0], span[1] + room * (span[1] - span[0]), layout.left, layout.width - layout.right)


def _magnify(
    canvas: Canvas, x: Scale, near: tuple[float, float], layout: Layout, y: float
) -> tuple[float, Scale, float]:
    """Open the short stretch of the network's parts to the picture's width; returns (top, scale, y) for its rows."""
    inner = _scale(near, layout)
    left, right = x(near[0]), max(x(near[1]), x(near[0]) + 2)
    upper, lower = y + 2, y + 34
    canvas.path(
        f"M{left:.1f} {upper:.1f}L{inner.start:.1f} {lower:.1f}M{right:.1f} {upper:.1f}L{inner.end:.1f} {lower:.1f}",
        "p-leader",
    )
    words = f"the last {duration(near[1] - near[0])}, magnified"
    canvas.text((inner.start + inner.end) / 2, lower - 2, words, "p-small p-halo", anchor="middle")
    return lower, inner, lower + 6


def bars_of(migration: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Row → its stretches in ms from the origin; empty where nothing was measured."""
    at = {event["label"]: event["t_ms"] for event in migration["events"]}
    bars: dict[str, list[tuple[float, float]]] = {}
    for name in (*HYPERVISOR_PARTS, *PHASES):
        length = migration["metrics"].get(f"{name}_ms", migration["phases_ms"].get(name))
        ends = migration["phases_between"].get(name)
        start = at.get(ends[0]) if ends else None
        bars[name] = [] if length is None or start is None else [(start, start + length)]
    outages = [g for g in migration["gaps"] if g["outage"] and g["length_ms"] is not None]
    bars["stuntime"] = [(g["start_ms"], g["start_ms"] + g["length_ms"]) for g in outages]
    bars["unattributed"] = [
        (rest["start_ms"], rest["start_ms"] + rest["length_ms"]) for rest in migration["unattributed"]
    ]
    return bars


def _row(
    canvas: Canvas,
    label: str,
    spans: list[tuple[float, float]],
    cls: str,
    why: str,
    x: Scale,
    layout: Layout,
    y: float,
    bound_ms: float | None,
) -> None:
    """One row: its label, its bars, and their sum behind the last one, clear of the bound; or why there is none."""
    bar_y = y + (20 if layout.labels_above else 7)
    if layout.labels_above:
        canvas.text(layout.left, y + 14, label, "p-text")
    else:
        canvas.text(layout.left - 12, bar_y + 12, label, "p-text", anchor="end")
    if not spans:
        room = int((x.end - x.start) / (11 * 0.54))
        words = why if len(why) <= room else why[: room - 1] + "…"
        canvas.text(x.start + 4, bar_y + 12, words, "p-none", tip=why)
        return
    shown = [(max(start, x.low), min(end, x.high)) for start, end in spans if end >= x.low and start <= x.high]
    for start, end in shown:
        canvas.rect(x(start), bar_y, max(1.5, x(end) - x(start)), BAR, cls, radius=2, tip=precise(end - start))
    total = precise(sum(end - start for start, end in spans))
    place = x(max((end for _, end in shown), default=x.low)) + 6
    if len(spans) > 1:
        longer = f"{total} in {len(spans)} stretches"
        total = longer if place + text_width(longer, 12) <= x.end else total
    if bound_ms is not None and place - 4 < x(bound_ms) < place + text_width(total, 12) + 4:
        place = x(bound_ms) + 6
    if place + text_width(total, 12) > x.end:
        place = x(min((start for start, _ in shown), default=x.low)) - 6 - text_width(total, 12)
    if place < x.start:  # a bar as wide as the picture has its figure inside
        canvas.text(x.end - 6, bar_y + 12, total, "p-on-bar", anchor="end")
    else:
        canvas.text(place, bar_y + 12, total, "p-strong")


def _bound_ms(migration: Mapping[str, Any]) -> float | None:
    """Where the remapping would end if nothing but distance took time, in ms from the origin."""
    bound = migration["bound"]
    at = {event["label"]: event["t_ms"] for event in migration["events"]}
    start = at.get("t5") if at.get("t5") is not None else at.get("t4")
    if bound is None or bound["bound_ms"] is None or start is None:
        return None
    return float(start) + float(bound["bound_ms"])


def _bound(canvas: Canvas, migration: Mapping[str, Any], x: Scale, top: float, bottom: float) -> None:
    """The analytic bound as a dashed line."""
    bound, moment = migration["bound"], _bound_ms(migration)
    if moment is None:
        return
    words = f"theory: {duration(bound['bound_ms'])}"
    if moment > x.high:
        canvas.text(x.end, top + 12, f"{words}, beyond the picture", "p-bound-text", anchor="end")
        return
    canvas.line(x(moment), top + 2, x(moment), bottom, "p-bound")
    canvas.path(f"M{x(moment):.1f} {top - 4:.1f}l5 5l-5 5l-5 -5z", "p-bound-dot", tip=bound["formula"])
    left = x(moment) - 9 - text_width(words, 11) > x.start + 4
    canvas.text(x(moment) + (-9 if left else 9), top + 5, words, "p-bound-text", anchor="end" if left else "start")


def _axis(grid: Canvas, canvas: Canvas, origin: str, x: Scale, layout: Layout, top: float, y: float) -> float:
    """The time axis, with its grid painted below the bars."""
    seconds = x.high - x.low > 3000
    for tick in x.ticks(layout.ticks):
        grid.line(x(tick), top, x(tick), y, "p-grid")
        label = f"{tick / 1000:g}" if seconds else f"{tick:g}"
        tick_label(canvas, x(tick), y + 16, label)
    unit = "s" if seconds else "ms"
    canvas.text((x.start + x.end) / 2, y + 32, f"{unit} from {origin}", "p-sub", anchor="middle")
    return y + 38
