"""The one sentence on top of every report, from a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Words:
    """How a substrate is spoken of.

    Attributes:
        mover: what moves.
        pause: whose part the time is in which it does not run.
        downtime: what that time is called.
    """

    mover: str
    pause: str
    downtime: str


#: An emulated guest is a namespace whose pause the experiment sets: it never calls itself a VM migration.
WORDS = {
    "xen": Words("{guest}", "the hypervisor", "VM downtime"),
    "netns": Words("{guest}, an emulated guest (a namespace),", "its set pause", "pause of the guest"),
}


def words_of(substrate: str | None) -> Words:
    """The words for a substrate; those of Xen if it is not known."""
    return WORDS.get(substrate or "", WORDS["xen"])


#: The parts of an outage, as metrics are named.
PARTS = ("hypervisor_part", "network_part", "unattributed")


#: From so many milliseconds on: (divisor, unit, digits behind the point).
PRECISION: tuple[tuple[float, int, str, int], ...] = (
    (9_995.0, 1000, "s", 1),
    (999.5, 1000, "s", 2),
    (9.95, 1, "ms", 0),
    (0.0, 1, "ms", 1),
)


def duration(value_ms: float) -> str:
    """Milliseconds as people read them: "3.2 ms", "190 ms", "1.42 s", "65.0 s"."""
    divisor, unit, digits = _precision(value_ms)
    return f"{value_ms / divisor:.{digits}f} {unit}"


def precise(value_ms: float) -> str:
    """Milliseconds for tables: "3.2 ms", "190.4 ms", "1.421 s"."""
    return f"{value_ms:.1f} ms" if abs(value_ms) < 999.95 else f"{value_ms / 1000:.3f} s"


def _precision(value_ms: float) -> tuple[int, str, int]:
    """Divisor, unit and digits for a value and its parts."""
    for least_ms, divisor, unit, digits in PRECISION:
        if abs(value_ms) >= least_ms:
            return divisor, unit, digits
    raise ValueError(f"{value_ms} is not a time")


def headline(summary: Mapping[str, Any]) -> str:
    """Say what happened and whose part was how long.

    Args:
        summary: of summary.json, all but this sentence.
    """
    counted = [m for m in summary["migrations"] if not m["warm_up"]]
    if not counted:
        return _without_migration(summary)
    words = words_of(summary["substrate"])
    subject, pause = words.mover.format(guest=counted[0]["guest"]), words.pause
    if len(counted) == 1:
        return _of_one(counted[0], subject, pause, summary)
    return _of_many(counted, subject, pause, summary)


def _without_migration(summary: Mapping[str, Any]) -> str:
    outcome = summary.get("outcome") or {}
    what = outcome.get("error") or "the run ended before it wrote its outcome"
    if summary["verdict"] == "SKIPPED" and not outcome.get("ok"):
        return f"Nothing was migrated, a prerequisite is missing: {what}"
    return f"Nothing was migrated: {what}"


def _of_one(migration: Mapping[str, Any], subject: str, pause: str, summary: Mapping[str, Any]) -> str:
    route = f"from {migration['source']} to {migration['destination']}"
    metrics = migration["metrics"]
    if migration["error"]:
        return f"{subject} did not move {route}: {migration['error']}"
    if migration["verdict"] == "ERROR":
        return f"{subject} was sent {route}, and nobody saw the migration end"
    outage = metrics["stuntime_ms"]
    if outage is None:
        return f"{subject} moved {route}: {migration['reasons']['stuntime_ms']}"
    if not outage:
        interval = summary["probe_interval_ms"]
        return f"{subject} moved {route}, and its peer lost no probe: any outage is below {duration(interval)}"
    parts = written_parts([metrics[f"{part}_ms"] for part in PARTS], outage)
    return f"{subject} moved {route}: its peer lost it for {duration(outage)}: {_parts(parts, pause)}"


def _parts(parts: Sequence[str], pause: str) -> str:
    hypervisor, network, rest = parts
    return f"{hypervisor} {pause}, {network} the network's remapping, {rest} unattributed"


def written_parts(parts_ms: Sequence[float], whole_ms: float) -> list[str]:
    """Write parts in the whole's unit with one digit more, each rounded for itself.

    So they agree with every other place that shows them, and their sum, rounded as the whole is, with the whole.
    """
    divisor, unit, digits = _precision(whole_ms)
    return [f"{part / divisor:.{digits + 1}f} {unit}" for part in parts_ms]


def _of_many(counted: list[Any], subject: str, pause: str, summary: Mapping[str, Any]) -> str:
    succeeded = [m for m in counted if m["verdict"] == "PASS"]
    times = f"{len(succeeded)} of {len(counted)} times" if len(succeeded) < len(counted) else f"{len(counted)} times"
    figure = summary["statistics"].get("stuntime_ms")
    if figure is None:
        return f"{subject} moved {times}; how long its peer lost it was not measured"
    interval = ""
    if figure["ci95"]:
        interval = f" (95 % interval {duration(figure['ci95'][0])} to {duration(figure['ci95'][1])})"
    medians = [summary["statistics"][f"{part}_ms"]["median"] for part in PARTS]
    return (
        f"{subject} moved {times}: its peer lost it for a median of {duration(figure['median'])}{interval}; "
        f"medians of the parts: {_parts([duration(median) for median in medians], pause)}"
    )
