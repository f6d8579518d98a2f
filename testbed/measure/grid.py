"""The rows of a sweep: one a combination, its remapping latency beside the bound that theory gives it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from testbed.measure.summary import counted

#: What a row describes of its migrations.
FIGURES = ("remap_latency_ms", "stuntime_ms", "vm_downtime_ms")


def row(
    cell: Mapping[str, Any],
    summary: Mapping[str, Any],
    attempts: Sequence[tuple[str, str]],
    *,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One combination as a row.

    Args:
        cell: the grid's keys and their values.
        settings: what was set beside them, because of them.
        summary: of its run: one lab, in which the guest went there and back.
        attempts: every run of it with its verdict; the last one is the summary's.

    Returns:
        the cell's keys, `bound_ms` (of the median; None where theory gives none), `waiting_ms` (until a packet uses
        the new RLOC, in the median), each figure's statistics, `excess_ms` (the median remapping above its bound), the
        limiters that delayed one of the migrations that count.
    """
    migrations = counted(summary["migrations"])
    bounds = [_median_bound(m["bound"]) for m in migrations if m["bound"] and m["bound"]["bound_ms"] is not None]
    statistics = summary["statistics"]
    bound_ms = round(median(bounds), 3) if bounds else None
    remapped = statistics["remap_latency_ms"]
    reasons = [m["reasons"]["remap_latency_ms"] for m in migrations if "remap_latency_ms" in m["reasons"]]
    return {
        "mechanism": summary["mechanism"],
        **cell,
        "settings": dict(settings or {}),
        "substrate": summary["substrate"],
        "accelerator": summary["accelerator"],
        "verdict": summary["verdict"],
        "bound_ms": bound_ms,
        "waiting_ms": migrations[0]["bound"]["waiting_ms"] if bounds else None,
        "bound_formula": migrations[0]["bound"]["formula"] if bounds else None,
        **{name: _figure(statistics[name]) for name in FIGURES},
        "excess_ms": None if remapped is None or bound_ms is None else round(remapped["median"] - bound_ms, 3),
        "values_ms": [m["metrics"]["remap_latency_ms"] for m in migrations],
        "not_measured": {why: reasons.count(why) for why in reasons},
        "limiters": sorted({name for m in migrations for name in m["limiters"]}),
        "migrations": len(migrations),
        "warm_ups": sum(m["warm_up"] for m in summary["migrations"]),
        "labs": 1,
        "run_id": summary["run_id"],
        "attempts": [{"run_id": run, "verdict": verdict} for run, verdict in attempts],
    }


def _median_bound(bound: Mapping[str, Any]) -> float:
    """Where no packet is waited for the bound of the median is that of each."""
    return float(bound["bound_ms"] if bound["median_ms"] is None else bound["median_ms"])


def _figure(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A metric's statistics, without what is of no use in a table."""
    if found is None:
        return None
    return {key: found[key] for key in ("n", "median", "ci95", "iqr", "min", "max")}


def ordered(rows: Sequence[Mapping[str, Any]], grid: Mapping[str, Sequence[Any]]) -> list[Mapping[str, Any]]:
    """Rows in the order in which the grid lists their values, whatever order they were run in."""
    places = {key: {value: index for index, value in enumerate(values)} for key, values in grid.items()}
    return sorted(rows, key=lambda each: [places[key][each[key]] for key in grid])
