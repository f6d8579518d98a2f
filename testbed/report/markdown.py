"""The report as Markdown: what fits into a pull request or a job's summary page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from testbed.measure.headline import Words, words_of
from testbed.measure.model import protocol_of
from testbed.measure.summary import Summary
from testbed.report.evidence import evidence, impairments
from testbed.report.html import command_of, facts, missing_reason, parts_of, verdict_reasons
from testbed.report.tables import table
from testbed.report.words import MARK_WORDS, figure, interval, limiter_words, metric_names, substrate_line


def markdown(summary: Summary, manifest: Mapping[str, Any]) -> str:
    """Write the report; the pictures are linked as files."""
    data = summary.data
    words = words_of(data["substrate"])
    where = substrate_line(data)
    lines = [
        f"# {data['verdict']}: {data['headline']}",
        "",
        f"`{where}` · `{data['mechanism'] or 'no mechanism'}` · run `{data['run_id']}`",
        "",
        *(f"> {reason}\n" for reason in verdict_reasons(data)),
        *(f"> Emulated: {text}\n" for text in manifest.get("emulated") or ()),
        f"## Figures ({where})",
        "",
        *table(("metric", "n", "median", "95 % interval", "quartiles", "min", "max", "P95"), _figures(data)),
    ]
    if len(data["migrations"]) > 1:
        lines += [f"## All migrations ({where})", "", *table(ALL_COLUMNS, _all(data["migrations"]))]
    for migration in _in_detail(data["migrations"]):
        lines += _migration(migration, words, where)
    lines += ["## Can it be trusted?", "", *table(("check", "holds", "found"), _checks(data))]
    if data["calibration"]:
        lines += ["Calibration, outages of known length:", "", *table(CALIBRATION_COLUMNS, _calibration(data))]
    lines += ["## What was run", "", *(f"- {name}: {value}" for name, value in facts(manifest)), ""]
    effects = impairments(manifest)
    if effects:
        lines += ["Impairments, requested and read back:", "", *table(effects["columns"], effects["rows"])]
    lines += ["Run it again:", "", "```", command_of(manifest), "```", ""]
    return "\n".join(lines)


CALIBRATION_COLUMNS = ("was, ms", "measured, ms", "off by, ms", "allowed, ms", "lost", "within")
ALL_COLUMNS = (
    "no.", "verdict", "route", "outage", "not running", "network", "unattributed", "remapping", "lost / sent",
)  # fmt: skip

#: So many migrations are told in detail; the rest have their row, and everything is in summary.json.
DETAILED = 5


def _in_detail(migrations: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first ones of those that did not succeed, then of those that did, in order of execution."""
    ranked = sorted(migrations, key=lambda m: (m["verdict"] == "PASS", m["index"]))[:DETAILED]
    return sorted(ranked, key=lambda migration: int(migration["index"]))


def _all(migrations: Sequence[Mapping[str, Any]]) -> Iterable[Sequence[str]]:
    parts = ("stuntime_ms", "hypervisor_part_ms", "network_part_ms", "unattributed_ms", "remap_latency_ms")
    for migration in migrations:
        metrics = migration["metrics"]
        yield (
            str(migration["index"]),
            migration["verdict"] + (" (warm-up)" if migration["warm_up"] else ""),
            f"{migration['source']} → {migration['destination']}",
            *(figure(metrics[part]) for part in parts),
            f"{metrics['probes_lost']} / {metrics['probes_sent']}",
        )


def _figures(data: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    for name, (words, _) in metric_names(data["substrate"]).items():
        entry = data["statistics"][name]
        if entry is None:
            yield words, "0", f"— ({missing_reason(data, name)})", "", "", "", "", ""
        else:
            yield (
                words,
                str(entry["n"]),
                f"**{figure(entry['median'])}**",
                interval(entry["ci95"]),
                interval(entry["iqr"]),
                figure(entry["min"]),
                figure(entry["max"]),
                figure(entry["p95"]),
            )


def _migration(migration: Mapping[str, Any], words: Words, where: str) -> list[str]:
    """One migration: its parts, its timeline, its gaps, its probes."""
    number = migration["index"]
    warm_up = ", warm-up, not counted" if migration["warm_up"] else ""
    route = f"{migration['guest']}, {migration['source']} → {migration['destination']}"
    lines = [
        f"## Migration {number}: {route} ({where}): {migration['verdict']}{warm_up}",
        "",
        " ".join(f"![{name}](plots/{name}-{number}.svg)" for name in ("timeline", "waterfall", "sequence")),
        "",
    ]
    parts = [(row["name"], row["value"], row["between"], row["note"]) for row in parts_of(migration, words)]
    lines += table(("part", "time", "between", "note"), parts)
    bound = migration["bound"]
    if bound and bound["bound_ms"] is not None:
        theory = f"{figure(bound['bound_ms'])} = `{bound['formula']}`"
        lines += [f"By theory the remapping takes {theory}; {bound['why']}. {limiter_words(migration)}", ""]
    label = migration["origin"]["label"]
    lines += table(("", "event", f"ms from {label}", "source", "other sources"), _marks(migration))
    if migration["gaps"]:
        columns = (
            "flow",
            "direction",
            f"starts, ms from {label}",
            "length, ms",
            "by send times, ms",
            "lost",
            "what was lost, and where it was last seen",
            "",
        )
        lines += table(columns, (_gap(gap, migration["eid"]) for gap in migration["gaps"][:60]))
    names = (
        "flow",
        "direction",
        "sent",
        "received",
        "lost",
        "duplicated",
        "reordered",
        "triangular",
        "late",
        "never_sent",
    )
    probes = [{**probe, "flow": protocol_of(probe["flow"], migration["eid"])} for probe in migration["probes"]]
    rows = [["—" if probe[name] is None else str(probe[name]) for name in names] for probe in probes]
    lines += table([name.replace("_", " ") for name in names], rows)
    if migration["tcp"]:
        lines += table(("TCP", "survived", "longest stall", "bytes in order", "note"), _connections(migration))
    seen = {None: "not seen", True: "yes", False: "**no**"}
    rows = [[row.words, seen[row.ok], row.seen] for row in evidence(migration)]
    return lines + (table(("after the migration", "holds", "evidence"), rows) if rows else [])


def _marks(migration: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    for event in migration["events"]:
        if event["t_ms"] is None:
            yield event["label"], MARK_WORDS[event["label"]], "—", event["reason"], ""
            continue
        others = "; ".join(f"{o['kind']} of {o['source']}: {o['difference_ms']:+.3f}" for o in event["others"])
        via = f" ({event['via']})" if event["via"] else ""
        yield (
            event["label"],
            MARK_WORDS[event["label"]],
            f"{event['t_ms']:.3f}",
            event["source"] + via,
            others,
        )


def _gap(gap: Mapping[str, Any], eid: str) -> Sequence[str]:
    length = f"≥ {gap['at_least_ms']:.3f}" if gap["length_ms"] is None else f"{gap['length_ms']:.3f}"
    by_send = "—" if gap["length_by_send_ms"] is None else f"{gap['length_by_send_ms']:.3f}"
    places = "; ".join(f"{times} × {place}" for place, times in (gap["lost_where"] or {}).items())
    note = "the outage" if gap["outage"] else ""
    flow = protocol_of(gap["flow"], eid)
    return flow, gap["direction"], f"{gap['start_ms']:.3f}", length, by_send, str(gap["lost"]), places, note


def _checks(data: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    words = {None: "not checked", True: "yes", False: "**no**"}
    for finding in data["validity"]:
        yield finding["name"], words[finding["ok"]], finding["detail"]
    for outcome in data["thresholds"]:
        holds = {None: "not decided", True: "**yes: fail**", False: "no"}[outcome["holds"]]
        yield f"fail if `{outcome['expression']}`", holds, outcome["detail"]


def _calibration(data: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    for one in data["calibration"]:
        measured = "—" if one["measured_ms"] is None else f"{one['measured_ms']:.3f}"
        error = "—" if one["error_ms"] is None else f"{one['error_ms']:+.3f}"
        within = "yes" if one["within"] else "**no**"
        yield f"{one['length_ms']:.3f}", measured, error, f"{one['allowed_ms']:.3f}", str(one["lost"]), within


def _connections(migration: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    words = {None: "not known", True: "yes", False: "**no**"}
    for one in migration["tcp"]:
        survived, stall = words[one["survived"]], figure(one["longest_stall_ms"])
        yield one["direction"], survived, stall, str(one["bytes_in_order"]), one["error"]
