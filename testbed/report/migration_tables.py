"""The tables of one migration: parts, timeline, gaps, probes, connections, evidence, raw data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from testbed.measure.frames import WallClock
from testbed.measure.headline import Words
from testbed.measure.model import flow_name
from testbed.measure.phases import PHASES
from testbed.measure.summary import value_of
from testbed.report.evidence import evidence
from testbed.report.plots.timeline import gap_anchor
from testbed.report.tables import MISSING, Cell, Column, Content, Detail, Row, Table, heads, numeric, row, yes_or_no
from testbed.report.words import MARK_WORDS, METRIC_NAMES, captured_words, microseconds, milliseconds, uncertainty

#: So many gaps of a migration are listed; all of them are in gaps.csv.
GAPS_SHOWN = 60

NS_PER_S = 1_000_000_000


def parts_table(migration: Mapping[str, Any], words: Words, interval_ms: float | None) -> Table:
    """The outage and its parts.

    Args:
        migration: its entry of the summary.
        words: for the substrate.
        interval_ms: of the probes: no outage is measured sharper.
    """
    named = [
        ("stuntime_ms", "total", "outage of the peer"),
        ("vm_downtime_ms", "hyper", f"{words.downtime} ({words.pause})"),
        ("reconnection_ms", "hyper", "reconnection"),
        *((f"{phase}_ms", "net", METRIC_NAMES[f"{phase}_ms"][0]) for phase in PHASES),
        ("unattributed_ms", "rest", "unattributed"),
        ("remap_latency_ms", "net", "remapping latency, whole"),
        ("migration_time_ms", "hyper", "migration time, whole"),
    ]
    rows = [_part(migration, metric, Cell(name, dot=dot), interval_ms) for metric, dot, name in named]
    return Table.of(heads("Part", *numeric("Time, ms", "±\N{NO-BREAK SPACE}ms"), "Between", "Note"), rows)


def _part(migration: Mapping[str, Any], metric: str, name: Cell, interval_ms: float | None) -> list[Content]:
    key, value = metric.removesuffix("_ms"), value_of(migration, metric)
    ends = migration["phases_between"].get(key)
    between: Content = f"{ends[0]} → {ends[1]}" if ends else ""
    sharpness = _sharpness(migration, ends) if ends else None
    note = migration["reasons"].get(metric) or migration["reasons"].get(key, "")
    if value is not None and metric == "unattributed_ms":
        between = [
            Cell(f"{rest['after']} → {rest['before']}: {milliseconds(rest['length_ms'])} ms")
            for rest in migration["unattributed"]
        ] or ""
    if metric == "stuntime_ms":
        between = "last answered probe before → first after"
        if value is not None:
            sharpness = interval_ms
            note = f"{milliseconds(migration['metrics']['stuntime_by_send_ms'])} ms by send times"
    shown = uncertainty(None if value is None else sharpness)
    return [name, milliseconds(value), shown, between, Cell(note, "sub")]


def _sharpness(migration: Mapping[str, Any], ends: Sequence[str]) -> float | None:
    """How sure the time between two marks is: their uncertainties together, in ms; None if one is not known."""
    known = {e["label"]: e.get("uncertainty_ms") for e in migration["events"]}
    both = [known.get(end) for end in ends]
    return None if None in both else round(sum(float(one) for one in both if one is not None), 3)


def timeline_table(migration: Mapping[str, Any]) -> Table:
    """The marks: when, how surely, by whom, and what others say."""
    origin = migration["origin"]["label"]
    times = numeric(f"ms from\N{NO-BREAK SPACE}{origin}", "±\N{NO-BREAK SPACE}ms")
    columns = heads("Mark", "Event", *times, "Source", "Other sources")
    return Table.of(columns, (_mark(event) for event in migration["events"]))


def _mark(event: Mapping[str, Any]) -> list[Content]:
    head: list[Content] = [Cell(event["label"], "strong"), MARK_WORDS[event["label"]]]
    if event["t_ms"] is None:
        return [*head, MISSING, "", Cell(event["reason"], "sub"), ""]
    others = [
        Cell(
            f"{other['kind']} of {other['source']}" + (f" ({other['via']})" if other["via"] else "") + ": "
            f"{microseconds(other['difference_ms'], signed=True)} ms",
            more=other["note"],
        )
        for other in event["others"]
    ]
    source = Cell(event["source"], more=f"({event['via']})" if event["via"] else "")
    return [*head, microseconds(event["t_ms"]), uncertainty(event["uncertainty_ms"]), source, others or ""]


def capture_files(manifest: Mapping[str, Any], files: Sequence[str]) -> dict[str, str]:
    """A capture's name, as a lost probe's fate gives it → its file, of those that the run's folder has."""
    captures = manifest.get("captures") or ()
    return {f"{one['node']}-{one['interface']}": one["file"] for one in captures if one["file"] in files}


def gaps_table(migration: Mapping[str, Any], files: Mapping[str, str]) -> Table:
    """Every run of unanswered probes, each with its probes and their frames below.

    Args:
        migration: its entry of the summary.
        files: of the captures, by name (`capture_files`).
    """
    captured = any(gap["lost_where"] is not None for gap in migration["gaps"])
    columns = heads(
        "Flow",
        *numeric(
            f"Starts, ms from\N{NO-BREAK SPACE}{migration['origin']['label']}",
            "Length, ms",
            "By send times, ms",
            "Lost",
            "Not sent, suspended",
            "Probes",
        ),
        "Note",
        Column("What was lost, and where it was last seen" if captured else "Captures"),
    )
    hidden = len(migration["gaps"]) - GAPS_SHOWN
    note = (Cell(f"{hidden} more in"), Cell("gaps.csv", href="gaps.csv")) if hidden > 0 else ()
    rows = (_gap(migration, gap, files) for gap in migration["gaps"][:GAPS_SHOWN])
    return Table.of(columns, rows, note).without_empty()


def _gap(migration: Mapping[str, Any], gap: Mapping[str, Any], files: Mapping[str, str]) -> Row:
    length = f"≥ {microseconds(gap['at_least_ms'])}" if gap["length_ms"] is None else microseconds(gap["length_ms"])
    is_what = [Cell("the\N{NO-BREAK SPACE}outage", "strong")] if gap["outage"] else []
    is_what += [Cell("no answer after it")] if gap["open"] else []
    places = [Cell(f"{times} × {place}") for place, times in (gap["lost_where"] or {}).items()]
    cells: list[Content] = [
        Cell(flow_name(gap["flow"], gap["direction"], migration["eid"]), "nb"),
        microseconds(gap["start_ms"]),
        length,
        microseconds(gap["length_by_send_ms"]),
        str(gap["lost"]),
        str(gap["unsendable"] or ""),
        f"{gap['first_seq']}–{gap['last_seq']}" if gap["lost"] else MISSING,
        is_what or "",
        places or ("none was made" if gap["lost_where"] is None else MISSING),
    ]
    return row(cells, _told(migration, gap, files) if gap["told"] else None)


def _told(migration: Mapping[str, Any], gap: Mapping[str, Any], files: Mapping[str, str]) -> Detail:
    """The first and last lost probes of a gap with their frames."""
    columns = heads(
        *numeric("Probe", f"Sent, ms from\N{NO-BREAK SPACE}{migration['origin']['label']}"),
        Column("What was lost, and where it was last seen"), Column("Capture"),
    )  # fmt: skip
    rows: list[list[Content]] = []
    for probe in gap["told"]:
        file = files.get(probe["capture"] or "", "")
        frame = Cell(f"frame {probe['frame']}", href=file, more=f"of {probe['capture']}") if probe["frame"] else MISSING
        rows.append([str(probe["seq"]), microseconds(probe["sent_ms"]), probe["fate"] or "nothing was captured", frame])
    whole = gap["lost"] <= len(gap["told"])
    note = () if whole else (Cell(f"All {gap['lost']} are in"), Cell("probes.csv", href="probes.csv"))
    summary = (
        f"Its lost probes {gap['first_seq']} to {gap['last_seq']}, with their frames"
        if whole
        else f"The first and the last of its lost probes {gap['first_seq']} to {gap['last_seq']}, with their frames"
    )
    return Detail(summary, Table.of(columns, rows, note), gap_anchor(migration, gap))


#: Row of the table of probes → (its entry in the summary, what it is).
COUNT_ROWS = {
    "sent": ("sent", ""),
    "received": ("received", ""),
    "lost": ("lost", "sent and never answered"),
    "duplicated": ("duplicated", "answered more than once"),
    "reordered": ("reordered", "answers that the answer to a later probe overtook"),
    "triangular": ("triangular", "through the old xTR to the new one"),
    "late": ("late", "sent more than one interval after they were due"),
    "never sent": ("never_sent", "due, and not sent"),
    "not sent, suspended": ("unsendable", "due while their sender was suspended: in a gap, and not lost"),
}
TIME_ROWS = {
    "lateness P99, ms": ("lateness_p99_ms", "from when a probe was due until it was sent"),
    "kernel P50, ms": ("handover_p50_ms", "from there until the kernel gave it to the device: round trips contain it"),
    "kernel P99, ms": ("handover_p99_ms", ""),
}


def probes_table(migration: Mapping[str, Any]) -> Table:
    """What became of the probes, a column a flow, with what `ping -q` would say; without rows if there were none."""
    flows = migration["probes"]
    if not flows:
        return Table.of(("Probes",), ())
    rows: list[list[Content]] = []
    for name, (key, what) in COUNT_ROWS.items():
        rows.append([name, *(MISSING if flow[key] is None else str(flow[key]) for flow in flows), Cell(what, "sub")])
    outages: dict[str, tuple[list[str], str]] = {
        "outage, ms": ([milliseconds(flow["stuntime_ms"]) for flow in flows], "of the migration, as this flow saw it"),
        "longest gap, ms": ([_longest_gap(migration, flow) for flow in flows], "whatever it is of"),
        "ping -q says, ms": (
            [milliseconds(flow["naive_outage_ms"]) for flow in flows],
            "(sent − received) × interval: joins gaps, cannot place them, does not see what was delayed",
        ),
        "longest silence, ms": (
            [milliseconds(flow["longest_silence_ms"]) for flow in flows],
            "between two answers: delayed as well as lost",
        ),
    }
    rows += [
        [name, *(Cell(time, "strong") for time in times), Cell(what, "sub")] for name, (times, what) in outages.items()
    ]
    for name, (key, what) in TIME_ROWS.items():
        rows.append([name, *(microseconds(flow[key]) for flow in flows), Cell(what, "sub")])
    names = numeric(*(flow_name(flow["flow"], flow["direction"], migration["eid"]) for flow in flows))
    origin = captured_words(migration)
    return Table.of(heads("Probes", *names, "Meaning"), rows, Cell(origin) if origin else ())


def _longest_gap(migration: Mapping[str, Any], flow: Mapping[str, Any]) -> str:
    """The longest gap of a flow; of one that nothing was answered after, what is certain."""
    mine = [g for g in migration["gaps"] if (g["flow"], g["direction"]) == (flow["flow"], flow["direction"])]
    longest = max(mine, key=lambda gap: float(gap["at_least_ms"]), default=None)
    if longest is None:
        return milliseconds(0.0)
    return ("≥ " if longest["length_ms"] is None else "") + milliseconds(longest["at_least_ms"])


def tcp_table(migration: Mapping[str, Any]) -> Table:
    """What became of the TCP connections."""
    columns = heads("Direction", "Survived", *numeric("Longest stall, ms", "Bytes in order"), "Note")
    rows: list[list[Content]] = [
        [
            one["direction"],
            yes_or_no(one["survived"], "not known"),
            milliseconds(one["longest_stall_ms"]),
            str(one["bytes_in_order"]),
            Cell(one["error"] or "", "sub"),
        ]
        for one in migration["tcp"]
    ]
    return Table.of(columns, rows)


def evidence_table(migration: Mapping[str, Any]) -> Table:
    """What was verified after the migration, with what was seen."""
    rows: list[list[Content]] = [
        [one.words, yes_or_no(one.ok, "not seen"), Cell(one.seen, "sub")] for one in evidence(migration)
    ]
    return Table.of(("After the migration", "Holds", "Evidence"), rows)


def raw_table(
    migration: Mapping[str, Any], manifest: Mapping[str, Any], files: Sequence[str], pictures: Sequence[str]
) -> Table:
    """Which files have this migration, and which part of each.

    Args:
        migration: its entry of the summary.
        manifest: manifest.json.
        files: of the run's folder, relative to it.
        pictures: names of its pictures.
    """
    number, window = migration["index"], migration["window"]
    moments = f"mono_ns from {window['start_ns']} to {window['end_ns']}"
    mine = f"rows of migration {number}"
    rows: list[list[Content]] = [["events", _file("events.jsonl"), moments]]
    for flow in migration["probes"]:
        name = f"probes/{flow['flow']}-{flow['direction']}.parquet"
        some = flow["first_seq"] is not None
        numbers = f"seq {flow['first_seq']} to {flow['last_seq']}, the baseline included" if some else "none was due"
        told = flow_name(flow["flow"], flow["direction"], migration["eid"])
        rows.append([f"probes, {told}", _file(name), numbers])
    rows.append(["probes and their fates, gaps, figures", _tables(), mine])
    captures = [_file(file) for file in capture_files(manifest, files).values()]
    if captures:
        rows.append(["captures", captures, _frames(window, manifest)])
    for folder, name in (("logs", "logs"), ("console", "consoles")):
        inside = [file for file in files if file.startswith(f"{folder}/")]
        places = dict.fromkeys("/".join(file.split("/")[:2]) + ("/" if file.count("/") > 1 else "") for file in inside)
        if places:
            rows.append([name, [_file(place) for place in places], "of the whole run"])
    drawn = [Cell(f"{name}.{kind}", href=f"plots/{name}.{kind}") for name in pictures for kind in ("svg", "json")]
    if drawn:
        rows.append(["pictures and their data", drawn, ""])
    return Table.of(("What", Column("Files", inline=True), "This migration's part"), rows)


def _file(name: str) -> Cell:
    return Cell(name, href=name)


def _tables() -> list[Cell]:
    return [_file(name) for name in ("probes.csv", "gaps.csv", "gaps.parquet", "migrations.csv", "summary.json")]


def _frames(window: Mapping[str, int], manifest: Mapping[str, Any]) -> Content:
    """The display filter that leaves a migration's frames of a capture, which has wall time."""
    if "start" not in (manifest.get("clock") or {}):
        return "of the whole run: the wall clock was not noted"
    offset_ns = WallClock.of(manifest["clock"]).offset_ns
    first, last = ((window[end] + offset_ns) / NS_PER_S for end in ("start_ns", "end_ns"))
    moments = [datetime.fromtimestamp(moment, UTC).strftime("%H:%M:%S.%f")[:-3] for moment in (first, last)]
    return [
        Cell(f"frame.time_epoch >= {first:.6f} && frame.time_epoch < {last:.6f}", "code"),
        Cell(f"(Wireshark; {moments[0]} to {moments[1]} UTC)", "sub"),
    ]
