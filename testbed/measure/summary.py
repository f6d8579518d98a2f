"""Write an analysis as summary.json: the machine-readable contract, the same for the same input."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from testbed.measure.analysis import Analysis, FlowResult, MigrationResult, Randomness
from testbed.measure.fates import told_of_gap, triangular_count
from testbed.measure.gaps import Gap
from testbed.measure.headline import headline
from testbed.measure.losses import Fate
from testbed.measure.marks import Mark
from testbed.measure.model import Migration, ms
from testbed.measure.phases import PHASES
from testbed.measure.probepackets import ProbeKey
from testbed.measure.statistics import describe, wilson
from testbed.measure.tcp import broken, longest_stall_ms
from testbed.measure.thresholds import evaluate, parse
from testbed.measure.timeline import Timeline
from testbed.measure.validity import invalidates
from testbed.measure.verdict import Verdict, outcome_verdict, run_verdict

SCHEMA_VERSION = 1

#: How round-trip times rose: in the whole window, before the suspension (pre-copy), after it.
EXCURSIONS = (
    "highest_rtt", "above_baseline_p99",
    "highest_rtt_precopy", "above_baseline_p99_precopy", "highest_rtt_after_t2", "above_baseline_p99_after_t2",
)  # fmt: skip
#: Metrics in milliseconds that statistics are made of, in the report's order.
TIMES = (
    "stuntime_ms", "vm_downtime_ms", "reconnection_ms", "remap_latency_ms", "unattributed_ms",
    "hypervisor_part_ms", "network_part_ms", "migration_time_ms", "stuntime_by_send_ms", "gaps_total_ms",
    "longest_silence_ms", *(f"{name}_ms" for name in EXCURSIONS), "both_sites_ms", "naive_outage_ms",
    "tcp_longest_stall_ms",
)  # fmt: skip
#: Those of them that come from the probes alone.
PROBED = (
    "gaps_total_ms", "longest_silence_ms", *(f"{name}_ms" for name in EXCURSIONS), "naive_outage_ms",
)  # fmt: skip
#: Counts of the probes of the flow that the outage is measured in.
PROBE_COUNTS = (
    "probes_sent", "probes_lost", "probes_duplicated", "probes_reordered", "probes_late",
    "probes_never_sent",
)  # fmt: skip
COUNTS = (*PROBE_COUNTS, "tcp_broken")
#: Where the times of a flow's probes come from: their sender's own log, or captures at the taps of its hosts.
PROBER, CAPTURED = "prober", "captures"
#: Everything that a --fail-if expression may name.
METRICS = frozenset((*TIMES, *COUNTS, *(f"{phase}_ms" for phase in PHASES)))


@dataclass(frozen=True, slots=True)
class Summary:
    """The content of summary.json.

    Attributes:
        data: the object, JSON-serialisable.
    """

    data: dict[str, Any]

    @property
    def verdict(self) -> Verdict:
        """The run's verdict."""
        return Verdict(self.data["verdict"])

    @property
    def exit_code(self) -> int:
        """The exit code that goes with it."""
        return self.verdict.exit_code

    @property
    def headline(self) -> str:
        """The one sentence on the run."""
        return str(self.data["headline"])

    def to_json(self) -> str:
        """The file's text; floats that JSON has no word for are an error."""
        return json.dumps(self.data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def summarise(analysis: Analysis, rng: Randomness, fail_if: Sequence[str] = ()) -> Summary:
    """Build the summary.

    Args:
        analysis: of the run.
        rng: the generator of each figure's bootstrap, by its name.
        fail_if: threshold expressions.

    Raises:
        ThresholdError: for an expression that cannot be read.
    """
    manifest = analysis.run.manifest
    migrations = [migration_summary(result, analysis.run.fates) for result in analysis.migrations]
    statistics = statistics_of(migrations, rng)
    of = len(counted(migrations))
    thresholds = [evaluate(parse(expression, METRICS), statistics, of) for expression in fail_if]
    invalid = invalidates(analysis.findings)
    verdict = run_verdict(
        [result.verdict for result in analysis.migrations],
        outcome_verdict(manifest.get("outcome")),
        invalid=bool(invalid),
        thresholds=[outcome.holds for outcome in thresholds],
    )
    data: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run_id": manifest.get("run_id"),
        "verdict": verdict.value,
        "exit_code": verdict.exit_code,
        "headline": "",
        "substrate": manifest.get("substrate"),
        "accelerator": manifest.get("accelerator"),
        "hypervisor": manifest.get("hypervisor"),
        "mechanism": manifest.get("mechanism"),
        "probe_interval_ms": ms(analysis.run.interval_ns) if analysis.run.interval_ns else None,
        "conditions": dict(analysis.run.conditions),
        "migrations": migrations,
        "statistics": statistics,
        "success": success_of(migrations),
        "validity": [asdict(finding) for finding in analysis.findings],
        "calibration": [asdict(one) for one in analysis.calibrations],
        "thresholds": [asdict(outcome) for outcome in thresholds],
        "outcome": manifest.get("outcome"),
    }
    data["headline"] = headline(data)
    return Summary(data)


def migration_summary(result: MigrationResult, fates: Mapping[ProbeKey, Fate] | None) -> dict[str, Any]:
    """One entry of `migrations`."""
    migration, timeline, phases = result.migration, result.timeline, result.phases
    label, origin_ns = timeline.origin() if timeline.marks else ("window", migration.window.start_ns)
    metrics, reasons = _metrics(result)
    return {
        "index": migration.index,
        "verdict": result.verdict.value,
        "warm_up": migration.warm_up,
        "guest": migration.guest,
        "eid": migration.eid,
        "instance_id": migration.instance_id,
        "source": migration.source_site,
        "destination": migration.destination_site,
        "error": _error(migration),
        "origin": {"label": label, "mono_ns": origin_ns},
        "window": migration.window._asdict(),
        "metrics": metrics,
        "phases_ms": {name: phases.length_ms(name) for name in PHASES},
        "phases_between": {name: list(ends) for name, ends in sorted(phases.between.items())},
        "bound": None if result.bound is None else asdict(result.bound),
        "limiters": list(result.limiters),
        "reasons": dict(sorted(reasons.items())),
        "unattributed": [
            {
                "start_ms": ms(rest.span.start_ns - origin_ns),
                "length_ms": ms(rest.span.length_ns),
                "after": rest.after,
                "before": rest.before,
            }
            for rest in phases.remainders
        ],
        "flagged": phases.flagged,
        "gaps": [
            {
                **_gap(gap, places, origin_ns, is_outage=gap is phases.chosen),
                "told": told_of_gap(gap, flow, fates, origin_ns),
            }
            for flow in result.flows
            for gap, places in zip(flow.gaps, flow.places, strict=True)
        ],
        "probes": [{**_flow(flow), "triangular": triangular_count(result, flow, fates)} for flow in result.flows],
        "tcp": [asdict(one) for one in result.connections],
        "verification": migration.verification,
        "events": _events(timeline, origin_ns),
    }


def _metrics(result: MigrationResult) -> tuple[dict[str, Any], dict[str, str]]:
    """The figures, and why those that are null are."""
    phases, primary, timeline = result.phases, result.primary, result.timeline
    reasons = {f"{name}_ms" if name not in PHASES else name: why for name, why in phases.reasons.items()}
    metrics: dict[str, Any] = {
        "migration_time_ms": phases.length_ms("migration_time"),
        "vm_downtime_ms": phases.length_ms("vm_downtime"),
        "reconnection_ms": phases.length_ms("reconnection"),
        "stuntime_ms": phases.length_ms("stuntime"),
        "remap_latency_ms": phases.length_ms("remap_latency"),
        "unattributed_ms": _ms(phases.unattributed_ns),
        "hypervisor_part_ms": _ms(phases.hypervisor_ns),
        "network_part_ms": _ms(phases.network_ns),
        "stuntime_by_send_ms": _ms(phases.outage_by_send_ns),
        "both_sites_ms": _ms(result.both_sites_ns),
        "tcp_longest_stall_ms": longest_stall_ms(result.connections),
        "tcp_broken": broken(result.connections),
    }
    if primary is not None:
        counts = primary.counts
        closed = [gap.length_ns for gap in primary.gaps]
        metrics |= {
            "gaps_total_ms": None if None in closed else ms(sum(length or 0 for length in closed)),
            "longest_silence_ms": _ms(counts.longest_silence_ns),
            **_excursions(primary),
            "naive_outage_ms": ms(counts.naive_ns),
            "probes_sent": counts.sent,
            "probes_lost": counts.lost,
            "probes_duplicated": counts.duplicated,
            "probes_reordered": counts.reordered,
            "probes_late": counts.late,
            "probes_never_sent": counts.never_sent,
        }
    else:
        metrics |= dict.fromkeys((*PROBED, *PROBE_COUNTS))
    fallbacks = {
        "both_sites_ms": "needs t5 and t9",
        "gaps_total_ms": "a gap has no end, or no beginning",
        "longest_silence_ms": "fewer than two replies",
        **{f"{name}_ms": "no reply in the baseline, or none in this part of the window" for name in EXCURSIONS},
    }
    if timeline.at("t2") is None:
        fallbacks |= {f"{name}_ms": "needs t2" for name in EXCURSIONS[2:]}
    tcp_why = "a connection had too few answers to say" if result.connections else "no TCP connection was probed"
    reasons |= {name: tcp_why for name in ("tcp_longest_stall_ms", "tcp_broken") if metrics[name] is None}
    outage_why = phases.reasons.get("stuntime", "the outage was not measured")
    for name, value in metrics.items():
        if value is None and name not in reasons:
            reasons[name] = fallbacks.get(name, outage_why) if primary else "no probe log was found"
    return metrics, {name: why for name, why in reasons.items() if metrics.get(name) is None}


def _excursions(flow: FlowResult) -> dict[str, float | None]:
    """EXCURSIONS of a flow, in their order."""
    figures = [
        figure
        for rise in (flow.excursion, flow.precopy, flow.after)
        for figure in ((_ms(rise.highest_ns), _ms(rise.above_ns)) if rise else (None, None))
    ]
    return {f"{name}_ms": figure for name, figure in zip(EXCURSIONS, figures, strict=True)}


def _ms(ns: int | None) -> float | None:
    return None if ns is None else ms(ns)


def _gap(gap: Gap, places: dict[str, int] | None, origin_ns: int, *, is_outage: bool) -> dict[str, Any]:
    """One entry of `gaps`; times count from the migration's origin."""
    return {
        "flow": gap.flow,
        "direction": gap.direction,
        "start_ms": ms(gap.start_ns - origin_ns),
        "length_ms": _ms(gap.length_ns),
        "length_by_send_ms": _ms(gap.length_by_send_ns),
        "at_least_ms": ms(gap.at_least_ns),
        "lost": gap.lost,
        "unsendable": gap.unsendable,
        "first_seq": gap.first_seq,
        "last_seq": gap.last_seq,
        "open": gap.is_open,
        "outage": is_outage,
        "lost_where": places,
    }


def _flow(flow: FlowResult) -> dict[str, Any]:
    """One entry of `probes`."""
    counts, rise = flow.counts, flow.excursion
    numbers = flow.series.seq[~flow.series.unsendable]
    return {
        "flow": flow.series.flow,
        "direction": flow.series.direction,
        "first_seq": int(numbers.min()) if len(numbers) else None,
        "last_seq": int(numbers.max()) if len(numbers) else None,
        "due": counts.due,
        "sent": counts.sent,
        "received": counts.received,
        "lost": counts.lost,
        "duplicated": counts.duplicated,
        "reordered": counts.reordered,
        "late": counts.late,
        "never_sent": counts.never_sent,
        "unsendable": counts.unsendable,
        "undecided": flow.undecided,
        "lateness_p99_ms": _ms(counts.lateness_p99_ns),
        "handover_p50_ms": _ms(counts.handover_p50_ns),
        "handover_p99_ms": _ms(counts.handover_p99_ns),
        "between_sends_p99_ms": _ms(counts.between_sends_p99_ns),
        "stamps": CAPTURED if flow.series.captured else PROBER,
        "stuntime_ms": _outage_ms(flow),
        "longest_silence_ms": _ms(counts.longest_silence_ns),
        "naive_outage_ms": ms(counts.naive_ns),
        "gaps": len(flow.gaps),
        "baseline_lost": None if flow.baseline is None else flow.baseline.lost,
        "baseline_sent": None if flow.baseline is None else flow.baseline.sent,
        "baseline_rtt_p99_ms": _ms(rise.baseline_p99_ns if rise else None),
        "highest_rtt_ms": _ms(rise.highest_ns if rise else None),
    }


def _outage_ms(flow: FlowResult) -> float | None:
    """The migration's outage as one flow saw it; None if it has no end, or nothing was sent, or TCP made up for it."""
    if flow.series.flow == "tcp" or not flow.counts.sent:
        return None
    return 0.0 if flow.outage is None else _ms(flow.outage.length_ns)


def _events(timeline: Timeline, origin_ns: int) -> list[dict[str, Any]]:
    """The marks in the order of time, then what is missing in the order of labels."""
    marks = sorted(timeline.marks.values(), key=lambda mark: (mark.mono_ns, int(mark.label[1:])))
    seen = [_mark(mark, origin_ns) for mark in marks]
    absent = sorted(timeline.missing.items(), key=lambda item: int(item[0][1:]))
    return seen + [{"label": label, "kind": None, "source": None, "t_ms": None, "reason": why} for label, why in absent]


def _mark(mark: Mark, origin_ns: int) -> dict[str, Any]:
    return {
        "label": mark.label,
        "kind": mark.kind,
        "source": mark.source,
        "via": mark.via or None,
        "t_ms": ms(mark.mono_ns - origin_ns),
        "uncertainty_ms": mark.uncertainty_ms,
        "others": [
            {
                "kind": other.kind,
                "source": other.source,
                "via": other.via or None,
                "t_ms": ms(other.mono_ns - origin_ns),
                "difference_ms": other.difference_ms,
                "note": other.note,
            }
            for other in mark.others
        ],
    }


def counted(migrations: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The migrations that statistics are made of: those that succeeded, warm-ups left out."""
    return [m for m in migrations if not m["warm_up"] and m["verdict"] == Verdict.PASS.value]


def value_of(migration: Mapping[str, Any], metric: str) -> float | None:
    """A metric or phase ("detection_ms") of one migration of the summary."""
    if metric in migration["metrics"]:
        value = migration["metrics"][metric]
    else:
        value = migration["phases_ms"].get(metric.removesuffix("_ms"))
    return None if value is None else float(value)


def statistics_of(migrations: Sequence[Mapping[str, Any]], rng: Randomness) -> dict[str, Any]:
    """Describe every figure over the migrations that count."""
    result: dict[str, Any] = {}
    for metric in (*TIMES, *(f"{phase}_ms" for phase in PHASES), *COUNTS):
        values = [value_of(migration, metric) for migration in counted(migrations)]
        sample = [value for value in values if value is not None]
        description = describe(sample, rng(metric))
        result[metric] = None if description is None else rounded(asdict(description))
    return result


def rounded(value: Any) -> Any:
    """Floats of a JSON value to the microsecond, tuples as lists."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return value


def success_of(migrations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The success rate with its Wilson interval, and the failures by cause."""
    tried = [m for m in migrations if not m["warm_up"]]
    succeeded = sum(m["verdict"] == Verdict.PASS.value for m in tried)
    low, high = wilson(succeeded, len(tried))
    causes: dict[str, int] = {}
    for migration in tried:
        if migration["verdict"] != Verdict.PASS.value:
            cause = migration["error"] or migration["reasons"].get("stuntime_ms") or "no migration_ended event"
            causes[cause] = causes.get(cause, 0) + 1
    return {
        "n": len(tried),
        "succeeded": succeeded,
        "ci95": [round(low, 4), round(high, 4)],
        "failures": dict(sorted(causes.items())),
    }


def _error(migration: Migration) -> str | None:
    """What went wrong with a migration, and which of the checks after it failed."""
    failed = ", ".join(migration.failed_checks)
    parts = [migration.error, f"not verified afterwards: {failed}" if failed else ""]
    return "; ".join(part for part in parts if part) or None
