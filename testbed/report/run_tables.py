"""The tables of a run as a whole: figures, a row a migration, checks, calibration, facts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.measure.headline import words_of
from testbed.measure.reasons import THRESHOLD_WORDS
from testbed.measure.summary import counted, value_of
from testbed.report.tables import MISSING, Cell, Column, Content, Table, heads, numeric, yes_or_no
from testbed.report.words import listed, metric_names, microseconds, milliseconds, milliseconds_interval

#: Column of the table of all migrations → the metric in it.
MIGRATION_COLUMNS = {
    "Outage": "stuntime_ms",
    "Not running": "hypervisor_part_ms",
    "Network": "network_part_ms",
    "Unattributed": "unattributed_ms",
    "Remapping": "remap_latency_ms",
    "Migration": "migration_time_ms",
}
#: Headings of what `description` gives.
DESCRIBED = ("n", "Median, ms", "95 % interval, ms", "Quartiles, ms", "Min, ms", "Max, ms")
#: Folder of a run → what it is called in a row of the table of all migrations.
EVIDENCE_FOLDERS = {"pcap": "pcap", "logs": "logs", "console": "console"}


def outliers_of(data: Mapping[str, Any], metric: str) -> list[int]:
    """The migrations whose value of a metric lies beyond 1.5 interquartile ranges."""
    entry = data["statistics"][metric]
    if entry is None:
        return []
    measured = [m["index"] for m in counted(data["migrations"]) if value_of(m, metric) is not None]
    return [measured[position] for position in entry["outliers"]]


def missing_reason(data: Mapping[str, Any], metric: str) -> str:
    """Why a metric has no statistics: the first migration's reason."""
    for migration in data["migrations"]:
        reasons = migration["reasons"]
        why = reasons.get(metric) or reasons.get(metric.removesuffix("_ms"))
        if why:
            return str(why)
    return "no migration succeeded" if data["migrations"] else "nothing was migrated"


def figures_table(data: Mapping[str, Any]) -> Table:
    """Every metric: its value of one migration, or the statistics of several."""
    names = metric_names(data["substrate"])
    if data["success"]["n"] <= 1:
        return Table.of(("Metric", *numeric("Value, ms"), "Meaning"), (_value(data, *item) for item in names.items()))
    columns = heads(
        "Metric",
        *numeric(*DESCRIBED, "P95, ms"),
        Column("Outliers", inline=True, one_line=True),
    )
    note = (
        "Medians with a bias-corrected bootstrap interval (95 %), from n = 6 on; P95 from n = 59 on. Outliers, beyond "
        "1.5 interquartile ranges, are marked and never removed."
    )
    return Table.of(columns, (_statistics(data, *item) for item in names.items()), note).without_empty()


def _value(data: Mapping[str, Any], metric: str, words: tuple[str, str]) -> list[Content]:
    entry = data["statistics"][metric]
    if entry is None:
        return [words[0], MISSING, Cell(missing_reason(data, metric), "sub")]
    return [words[0], Cell(milliseconds(entry["median"]), "strong"), Cell(words[1], "sub")]


def _statistics(data: Mapping[str, Any], metric: str, words: tuple[str, str]) -> list[Content]:
    entry, name = data["statistics"][metric], (Cell(words[0]), Cell(words[1], "sub"))
    if entry is None:
        return [(Cell(words[0]), Cell(missing_reason(data, metric), "sub")), "0", *[MISSING] * 6, ""]
    outliers = [Cell(f"no. {index}", "flag", href=f"#migration-{index}") for index in outliers_of(data, metric)]
    return [name, *description(entry), milliseconds(entry["p95"]), outliers or ""]


def description(entry: Mapping[str, Any]) -> list[Content]:
    """A sample's n, median, interval, quartiles, least and greatest value, as DESCRIBED heads them."""
    return [
        str(entry["n"]),
        Cell(milliseconds(entry["median"]), "strong"),
        milliseconds_interval(entry["ci95"]),
        milliseconds_interval(entry["iqr"]),
        milliseconds(entry["min"]),
        milliseconds(entry["max"]),
    ]


def migrations_table(data: Mapping[str, Any], files: Sequence[str]) -> Table:
    """A row a migration, each leading to its part of the page, its raw data, captures, logs and consoles.

    Args:
        data: summary.json.
        files: of the run's folder, relative to it.
    """
    pause = words_of(data["substrate"]).pause
    named = [pause[0].upper() + pause[1:] if name == "Not running" else name for name in MIGRATION_COLUMNS]
    columns = heads(
        *numeric("No."), "Verdict", "Route", *numeric(*(f"{name}, ms" for name in named), "Lost / sent"),
        Column("Leads to", inline=True, one_line=True),
    )  # fmt: skip
    outliers = {metric: outliers_of(data, metric) for metric in MIGRATION_COLUMNS.values()}
    rows = [_migration(migration, outliers, files) for migration in data["migrations"]]
    marked = "* beyond 1.5 interquartile ranges of its column: marked, never removed." if any(outliers.values()) else ""
    success = data["success"]
    low, high = (100 * end for end in success["ci95"])
    note = f"{success['succeeded']} of {success['n']} succeeded: 95 % Wilson interval {low:.0f} to {high:.0f} %."
    causes = " ".join(f"{times} × {cause}." for cause, times in success["failures"].items())
    return Table.of(columns, rows, [Cell(text) for text in (note, causes, marked) if text])


def _migration(
    migration: Mapping[str, Any], outliers: Mapping[str, Sequence[int]], files: Sequence[str]
) -> list[Content]:
    number, metrics = migration["index"], migration["metrics"]
    figures: list[Content] = []
    for metric in MIGRATION_COLUMNS.values():
        strange = number in outliers[metric]
        figures.append(Cell(milliseconds(metrics[metric]) + (" *" if strange else ""), "flag" if strange else ""))
    evidence = [
        Cell(name, href=f"{folder}/")
        for folder, name in EVIDENCE_FOLDERS.items()
        if any(file.startswith(f"{folder}/") for file in files)
    ]
    return [
        Cell(str(number), "strong", href=f"#migration-{number}"),
        Cell(
            migration["verdict"],
            "ok" if migration["verdict"] == "PASS" else "bad",
            more="warm-up, not counted" if migration["warm_up"] else "",
        ),
        Cell(f"{migration['source']} → {migration['destination']}", "nb"),
        *figures,
        MISSING if metrics["probes_sent"] is None else f"{metrics['probes_lost']} / {metrics['probes_sent']}",
        [Cell("data", href=f"#data-{number}"), *evidence],
    ]


@dataclass(frozen=True, slots=True)
class Trust:
    """What the checks came to.

    Attributes:
        words: how many hold: "50 of 51 checks hold".
        remarkable: those that do not hold, or that nobody made.
        whole: all of them, with the thresholds.
    """

    words: str
    remarkable: Table
    whole: Table


def trust(data: Mapping[str, Any]) -> Trust:
    """Whether the figures can be trusted."""
    whole, findings = checks_table(data), data["validity"]
    holding = sum(finding["ok"] is True for finding in findings)
    remarkable = (row for row in whole.rows if row.cells[1][0].kind != "ok")
    return Trust(f"{holding} of {len(findings)} checks hold", Table.of(whole.columns, remarkable), whole)


def checks_table(data: Mapping[str, Any]) -> Table:
    """Every rule of validity and every threshold, with what was found."""
    rows: list[list[Content]] = []
    for finding in data["validity"]:
        flag = finding["severity"] != "invalid"
        holds = yes_or_no(finding["ok"], "not checked", no="no: flagged" if flag else "no: invalid", flag=flag)
        rows.append([finding["name"], holds, finding["detail"]])
    for outcome in data["thresholds"]:
        holds = Cell(THRESHOLD_WORDS[outcome["holds"]], "ok" if outcome["holds"] is False else "bad")
        rows.append([f"fail if {outcome['expression']}", holds, outcome["detail"]])
    return Table.of(("Check", "Holds", "Found"), rows)


def calibration_table(data: Mapping[str, Any]) -> Table:
    """Each outage of known length and what was measured of it."""
    columns = heads(
        *numeric("Was, ms", "Measured, ms", "Off by, ms", "Allowed, ms", "Outage of the peer, ms", "Probes lost"),
        Column("Within"),
    )
    return Table.of(
        columns,
        (
            [
                microseconds(one["length_ms"]),
                microseconds(one["measured_ms"]),
                microseconds(one["error_ms"], signed=True),
                microseconds(one["allowed_ms"]),
                microseconds(one["outage_ms"]),
                str(one["lost"]),
                yes_or_no(one["within"], "not checked", no="no: invalid"),
            ]
            for one in data["calibration"]
        ),
    )


def facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was run and where, as name and value."""
    host = manifest.get("host") or {}
    accelerator = manifest.get("accelerator")
    reason = manifest.get("accelerator_reason")
    rows = [
        ("mechanism", manifest.get("mechanism")),
        ("hypervisor", manifest.get("hypervisor")),
        ("substrate", manifest.get("substrate")),
        ("accelerator", f"{accelerator or 'none'}: {reason}" if reason else accelerator),
        ("guests", listed(manifest.get("guests"))),
        ("sites", listed(manifest.get("sites"))),
        ("instance-IDs", listed(manifest.get("instance_ids") or {})),
        ("probes", listed(manifest.get("probes"))),
        ("baseline, settle", f"{manifest.get('baseline_s')} s, {manifest.get('settle_s')} s"),
        ("seed", manifest.get("seed")),
        ("machine", listed({key: host[key] for key in ("cpu", "cores", "kernel") if key in host})),
        ("load before, after", f"{host.get('load_before')}, {host.get('load_after')}"),
        ("versions", listed(manifest.get("versions"))),
        ("commit", manifest.get("git_commit")),
        ("overrides", listed(manifest.get("overrides"))),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "", "None")]


def command_of(manifest: Mapping[str, Any]) -> str:
    """The command that ran it, quoted for a shell."""
    command = manifest.get("command") or ""
    return command if isinstance(command, str) else shlex.join(str(word) for word in command)
