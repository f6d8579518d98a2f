"""Picture (a): one migration in swim lanes aligned at t2, with the round-trip times on the same axis.

Every lane shows where that node believes the guest to be. While the colours of the lanes disagree,
the peer's packets go astray; the shaded stretch is what the peer lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbed.measure.headline import duration
from testbed.measure.model import NS_PER_MS, ProbeSeries
from testbed.report.plots.svg import Canvas, Scale, spread, text_width
from testbed.report.plots.theme import Layout, heading, tick_label

LANE, LANE_WITH_LABEL, BAR = 44.0, 60.0, 15.0
SCATTER = 190.0


@dataclass(frozen=True, slots=True)
class Lane:
    """One row: a role, its node, its marks, its states (from label, to label, class, words)."""

    name: str
    node: str
    marks: tuple[str, ...]
    states: tuple[tuple[str | None, str | None, str, str], ...]


def lanes_of(migration: Mapping[str, Any], nodes: Mapping[str, str]) -> list[Lane]:
    """The five lanes of a migration; a state ends where the next one begins.

    Args:
        migration: an entry of the summary.
        nodes: role → node's name ("source_xtr", "destination_xtr", "map_server", "itr").
    """
    a, b = migration["source"], migration["destination"]
    source, destination, idle = "p-source", "p-destination", "p-idle"
    return [
        Lane(
            "guest",
            migration["guest"],
            ("t2", "t3", "t4", "t14"),
            (
                (None, "t2", source, f"runs at {a}"),
                ("t2", "t3", "p-paused", "suspended"),
                ("t3", "t4", "p-silent", f"runs at {b}, silent"),
                ("t4", None, destination, f"runs at {b}"),
            ),
        ),
        Lane(
            "source xTR",
            nodes["source_xtr"],
            ("t9",),
            ((None, "t9", source, "holds the EID"), ("t9", None, destination, f"away, at {b}")),
        ),
        Lane(
            "destination xTR",
            nodes["destination_xtr"],
            ("t5", "t6", "t7"),
            ((None, "t5", idle, ""), ("t5", None, destination, "holds the EID")),
        ),
        Lane(
            "mapping system",
            nodes["map_server"],
            ("t8",),
            ((None, "t8", source, f"EID → {a}"), ("t8", None, destination, f"EID → {b}")),
        ),
        Lane(
            "correspondent's ITR",
            nodes["itr"],
            ("t10", "t11", "t12", "t13"),
            ((None, "t12", source, f"sends to {a}"), ("t12", None, destination, f"sends to {b}")),
        ),
    ]


def zoom_of(migration: Mapping[str, Any], whole: tuple[float, float]) -> tuple[float, float]:
    """The stretch worth looking at: the outage and t2 … t14 with a margin, in ms from the origin."""
    moments = [e["t_ms"] for e in migration["events"] if e["t_ms"] is not None and e["label"] not in ("t0", "t1")]
    for gap in migration["gaps"]:
        if gap["outage"]:
            moments += [gap["start_ms"], gap["start_ms"] + (gap["length_ms"] or gap["at_least_ms"])]
    if not moments:
        return whole
    low, high = min(moments), max(moments)
    span = max(high - low, 20.0)
    return max(whole[0], low - 0.16 * span), min(whole[1], high + 0.3 * span)


def draw_timeline(
    migration: Mapping[str, Any],
    nodes: Mapping[str, str],
    series: ProbeSeries | None,
    title: str,
    subtitle: str,
    layout: Layout,
) -> Canvas:
    """Draw one migration.

    Args:
        migration: its entry of the summary.
        nodes: role → node's name.
        series: the probes that the outage is measured with, baseline included.
        title: of the picture.
        subtitle: what was run, with substrate and accelerator.
        layout: wide or narrow.
    """
    canvas = Canvas(layout.width, 0, title, f"timeline-{migration['index']}-{layout.name}")
    whole = _whole(migration, series)
    low, high = zoom_of(migration, whole)
    right = layout.width - layout.right
    x = Scale(low, high, layout.left, right)
    y = heading(canvas, title, subtitle, layout)
    y = _legend(canvas, migration, layout, y)
    y = _overview(canvas, migration, whole, (low, high), layout, y)
    top = y
    gap_slot = len(canvas.elements)
    for lane in lanes_of(migration, nodes):
        y = _lane(canvas, lane, migration, x, layout, y)
    y = _scatter(canvas, migration, series, x, layout, y + 14)
    shading = Canvas(0, 0, "", "")
    _shade_gaps(shading, migration, x, top, y, layout)
    canvas.elements[gap_slot:gap_slot] = shading.elements
    y = _time_axis(canvas, migration["origin"]["label"], x, layout, top, y)
    canvas.height = y + 6
    return canvas


def _whole(migration: Mapping[str, Any], series: ProbeSeries | None) -> tuple[float, float]:
    """The whole window, baseline to settle, in ms from the origin."""
    moments = [event["t_ms"] for event in migration["events"] if event["t_ms"] is not None]
    if series is not None and series.was_sent.any():
        sent = series.sent_ns[series.was_sent] - migration["origin"]["mono_ns"]
        moments += [float(sent.min()) / NS_PER_MS, float(sent.max()) / NS_PER_MS]
    low, high = (min(moments), max(moments)) if moments else (0.0, 1.0)
    return low, max(high, low + 1.0)


def _legend(canvas: Canvas, migration: Mapping[str, Any], layout: Layout, y: float) -> float:
    """What the lanes' colours say, over as many lines as needed; returns where the picture goes on."""
    left = 0.0 if layout.labels_above else layout.left
    place = left
    for cls, words in (
        ("p-source", f"at {migration['source']}"),
        ("p-paused", "suspended"),
        ("p-silent", f"at {migration['destination']}, silent"),
        ("p-destination", f"at {migration['destination']}"),
    ):
        width = 16 + text_width(words, 12.5) + 12
        if place + width > layout.width:
            place, y = left, y + 16
        canvas.rect(place, y - 9, 11, 11, cls, radius=2)
        canvas.text(place + 16, y, words, "p-small")
        place += width
    return y + 14


def _overview(
    canvas: Canvas,
    migration: Mapping[str, Any],
    whole: tuple[float, float],
    zoom: tuple[float, float],
    layout: Layout,
    y: float,
) -> float:
    """A strip of the whole window: pre-copy, gaps, and which part is drawn large below."""
    right = layout.width - layout.right
    x = Scale(*whole, layout.left, right)
    at = {event["label"]: event["t_ms"] for event in migration["events"]}
    if not layout.labels_above:
        canvas.text(layout.left - 12, y + 10, "whole window", "p-small", anchor="end")
    canvas.rect(layout.left, y, right - layout.left, 12, "p-idle", radius=2)
    start, end = at.get("t0"), at.get("t3")
    if start is not None and end is not None:
        tip = f"migration requested to resumed: {duration(end - start)}"
        canvas.rect(x(start), y, x(end) - x(start), 12, "p-busy", tip=tip)
    for gap in _measured(migration):
        length = gap["length_ms"] if gap["length_ms"] is not None else whole[1] - gap["start_ms"]
        canvas.rect(x(gap["start_ms"]), y, max(1.5, x(length) - x(0)), 12, "p-loss-solid")
    canvas.rect(x(zoom[0]), y - 3, max(3.0, x(zoom[1]) - x(zoom[0])), 18, "p-window", radius=2)
    y_zoom = y + 44
    canvas.path(
        f"M{x(zoom[0]):.1f} {y + 15:.1f}L{layout.left:.1f} {y_zoom:.1f}"
        f"M{x(zoom[1]):.1f} {y + 15:.1f}L{right:.1f} {y_zoom:.1f}",
        "p-leader",
    )
    origin = migration["origin"]["label"]
    canvas.text(layout.left, y + 28, f"{duration(-whole[0])} before {origin}", "p-small p-halo")
    canvas.text(
        right,
        y + 28,
        f"{duration(whole[1])} after {origin}",
        "p-small p-halo",
        anchor="end",
    )
    return y_zoom


def _lane(canvas: Canvas, lane: Lane, migration: Mapping[str, Any], x: Scale, layout: Layout, y: float) -> float:
    """One lane: what its node believes, as a bar, and its marks above."""
    at = {e["label"]: e["t_ms"] for e in migration["events"] if e["t_ms"] is not None}
    height = LANE_WITH_LABEL if layout.labels_above else LANE
    bar_y = y + height - BAR - 5
    if layout.labels_above:
        canvas.text(layout.left, y + 15, f"{lane.name}, {lane.node}", "p-strong")
    else:
        canvas.text(layout.left - 12, bar_y + 5, lane.name, "p-strong", anchor="end")
        canvas.text(layout.left - 12, bar_y + 19, lane.node, "p-small", anchor="end")
    reached = x.start
    for start, end, cls, words in lane.states:
        begin = reached if start is None else at.get(start)
        begin_x = reached if start is None else (None if begin is None else x(begin))
        finish_x = x.end if end is None or end not in at else x(at[end])
        if begin_x is None:
            continue
        begin_x, finish_x = max(begin_x, x.start), min(max(finish_x, x.start), x.end)
        canvas.rect(begin_x, bar_y, finish_x - begin_x, BAR, cls, radius=2, tip=words)
        inside = [x(at[mark]) for mark in lane.marks if mark in at and begin_x <= x(at[mark]) < finish_x]
        _words(canvas, words, cls, [begin_x, *inside, finish_x], bar_y)
        reached = finish_x
    _marks(canvas, lane, migration, x, bar_y)
    return y + height


def _words(canvas: Canvas, words: str, cls: str, edges: list[float], bar_y: float) -> None:
    """Write a state's words into the first stretch of its bar that no mark cuts and that has room."""
    style = "p-small" if cls in ("p-idle", "p-paused", "p-silent") else "p-on-bar"
    for left, right in zip(sorted(edges), sorted(edges)[1:], strict=False):
        if words and right - left > text_width(words, 11) + 12:
            canvas.text(left + 6, bar_y + 11.5, words, style)
            return


def _marks(canvas: Canvas, lane: Lane, migration: Mapping[str, Any], x: Scale, bar_y: float) -> None:
    """Ticks on the bar and their labels above it, moved apart where they would overlap."""
    shown = [e for e in migration["events"] if e["label"] in lane.marks and e["t_ms"] is not None]
    shown = [e for e in shown if x.low <= e["t_ms"] <= x.high]
    if not shown:
        return
    centres = [x(event["t_ms"]) for event in shown]
    widths = [text_width(event["label"], 12.5) + 7 for event in shown]
    for event, centre, label_x in zip(shown, centres, spread(centres, widths, x.start, x.end), strict=True):
        tip = f"{event['label']} {event['kind']} of {event['source']}: {event['t_ms']:.3f} ms"
        canvas.line(centre, bar_y - 2, centre, bar_y + BAR + 2, "p-tick")
        canvas.path(f"M{label_x:.1f} {bar_y - 9:.1f}L{centre:.1f} {bar_y - 2:.1f}", "p-leader")
        canvas.text(label_x, bar_y - 11, event["label"], "p-mark", anchor="middle", tip=tip)


def _scatter(
    canvas: Canvas,
    migration: Mapping[str, Any],
    series: ProbeSeries | None,
    x: Scale,
    layout: Layout,
    y: float,
) -> float:
    """Round-trip times over send times, and the lost probes as strokes at the top."""
    bottom = y + SCATTER
    name = "" if series is None else series.name(migration["eid"])
    if layout.labels_above:
        canvas.text(layout.left, y, f"round trip, {name}, ms" if name else "no probes", "p-strong")
    else:
        canvas.text(layout.left - 12, y + 17, "lost probes", "p-strong", anchor="end")
        canvas.text(layout.left - 44, y + 54, "round trip, ms" if name else "no probes", "p-strong", anchor="end")
        canvas.text(layout.left - 44, y + 69, name, "p-small", anchor="end")
    if series is None or not series.was_answered.any():
        return bottom
    points, lost = _points(migration, series, x)
    times = [rtt for _, rtt in points] or [1.0]
    usual_ms = _baseline_p99_ms(migration, series)
    low, high = min(times), max([*times, usual_ms or 0.0])
    logarithmic = high > 8 * low
    low, high = (low / 1.4, high * 1.6) if logarithmic else (0.0, high * 1.25)
    scale = Scale(low, high, bottom, y + 42, logarithmic)
    for tick in scale.ticks(5):
        canvas.line(x.start, scale(tick), x.end, scale(tick), "p-grid")
        if layout.labels_above:
            canvas.text(x.start + 2, scale(tick) - 3, f"{tick:g}", "p-small p-halo")
        else:
            canvas.text(x.start - 8, scale(tick) + 4, f"{tick:g}", "p-small", anchor="end")
    canvas.dots([(x(moment), scale(rtt)) for moment, rtt in points], "p-dots")
    if usual_ms is not None:
        canvas.line(x.start, scale(usual_ms), x.end, scale(usual_ms), "p-usual")
        words = f"baseline's P99, {duration(usual_ms)}"
        canvas.text(x.end - 2, scale(usual_ms) - 5, words, "p-small p-halo", anchor="end")
    cells = sorted({round(x(moment), 0) for moment in lost})
    if cells:
        canvas.path("".join(f"M{cell:.0f} {y + 8:.0f}v10" for cell in cells), "p-lost-dots")
        words = f"{len(lost)} lost"
        canvas.text(x.end, y + 4, words, "p-loss-text", anchor="end")
    return bottom


def _baseline_p99_ms(migration: Mapping[str, Any], series: ProbeSeries) -> float | None:
    """What 99 of 100 round trips of the baseline were not above: where an excursion begins."""
    for flow in migration["probes"]:
        if (flow["flow"], flow["direction"]) == (series.flow, series.direction):
            usual: float | None = flow["baseline_rtt_p99_ms"]
            return usual
    return None


def _points(
    migration: Mapping[str, Any], series: ProbeSeries, x: Scale
) -> tuple[list[tuple[float, float]], list[float]]:
    """(send time, round trip) of the answered probes in view, and the send times of the lost; all in ms."""
    origin_ns = migration["origin"]["mono_ns"]
    sent = series.where(series.was_sent)
    moments = (sent.sent_ns - origin_ns) / NS_PER_MS
    visible = (moments >= x.low) & (moments <= x.high)
    answered = sent.was_answered & visible
    rtts = (sent.received_ns[answered] - sent.sent_ns[answered]) / NS_PER_MS
    points = [(float(m), max(float(r), 1e-3)) for m, r in zip(moments[answered], rtts, strict=True)]
    return points, [float(m) for m in moments[visible & ~sent.was_answered]]


def _shade_gaps(
    canvas: Canvas, migration: Mapping[str, Any], x: Scale, top: float, bottom: float, layout: Layout
) -> None:
    """Shade every gap of the measured flow; write its length on the one that is the outage."""
    for gap in _measured(migration):
        end = x.high if gap["length_ms"] is None else gap["start_ms"] + gap["length_ms"]
        left, right = max(x(gap["start_ms"]), x.start), min(x(end), x.end)
        if right <= left:
            continue
        tip = f"{gap['lost']} probes lost, {gap['first_seq']} to {gap['last_seq']}" if gap["lost"] else "no probe lost"
        if gap["unsendable"]:
            tip += f", {gap['unsendable']} could not be sent"
        if gap["length_ms"] is not None:
            tip += f", in {duration(gap['length_ms'])}"
        canvas.link(gap_anchor(migration, gap))
        canvas.rect(left, top, max(1.0, right - left), bottom - top, "p-loss", tip=tip)
        canvas.end_link()
        if gap["outage"]:
            length = (
                "no answer any more" if gap["length_ms"] is None else f"peer lost it for {duration(gap['length_ms'])}"
            )
            canvas.line(left, top, left, bottom, "p-loss-edge")
            if gap["length_ms"] is not None:
                canvas.line(right, top, right, bottom, "p-loss-edge")
            place = min(
                max((left + right) / 2, x.start + text_width(length, 12) / 2),
                x.end - text_width(length, 12) / 2,
            )
            canvas.link(gap_anchor(migration, gap))
            canvas.text(place, bottom - 8, length, "p-loss-text", anchor="middle", tip=tip)
            canvas.end_link()


def gap_anchor(migration: Mapping[str, Any], gap: Mapping[str, Any]) -> str:
    """The identifier of a gap's row in the page."""
    return f"gap-{migration['index']}-{gap['flow']}-{gap['direction']}-{gap['start_ms']:g}"


def _measured(migration: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The gaps of the flow and direction that the outage is measured in: those of the first probe log."""
    first = migration["probes"][0] if migration["probes"] else {}
    same = (first.get("flow"), first.get("direction"))
    return [gap for gap in migration["gaps"] if (gap["flow"], gap["direction"]) == same]


def _time_axis(canvas: Canvas, origin: str, x: Scale, layout: Layout, top: float, y: float) -> float:
    """The common time axis, zero at the origin."""
    canvas.line(x.start, y, x.end, y, "p-axis")
    if x.low <= 0 <= x.high:
        canvas.line(x(0), top, x(0), y, "p-zero")
    seconds = x.high - x.low > 3000
    for tick in x.ticks(layout.ticks):
        canvas.line(x(tick), y, x(tick), y + 5, "p-axis")
        label = f"{tick / 1000:g}" if seconds else f"{tick:g}"
        tick_label(canvas, x(tick), y + 18, label)
    unit = "s" if seconds else "ms"
    canvas.text((x.start + x.end) / 2, y + 34, f"{unit} from {origin}", "p-sub", anchor="middle")
    return y + 40
