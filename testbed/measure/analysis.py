"""Take one run apart: every migration's timeline, gaps, phases and verdict, and what can be trusted. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.random import Generator

from testbed.events import Event
from testbed.measure import validity
from testbed.measure.bounds import Bound
from testbed.measure.calibration import Calibration, calibrations
from testbed.measure.gaps import Counts, Excursion, Gap, count, excursion, find_gaps, split_at, without_undecided
from testbed.measure.losses import Fate, lost_where
from testbed.measure.model import Interval, Migration, ProbeSeries, ms
from testbed.measure.phases import Phases, choose_outage, measure_phases
from testbed.measure.probepackets import ProbeKey
from testbed.measure.tcp import Connection, connection
from testbed.measure.timeline import Timeline, build_timeline, with_first_answer
from testbed.measure.validity import Finding
from testbed.measure.verdict import Verdict, migration_verdict

#: How long a reply may take at the end of a log before its probe counts as lost: this many of the
#: slowest usual round trips, and as many intervals.
PATIENCE = 3


@dataclass(frozen=True, slots=True)
class Run:
    """Everything raw that a run left behind.

    Attributes:
        manifest: as written by the orchestrator.
        events: in the order of `mono_ns`, those derived from captures included.
        series: the probe logs, one a flow and direction.
        migrations: who was who in each.
        interval_ns: of the probes.
        expected_loss: the loss probability of a probe, both ways, that the impairments ask for.
        bounds: migration index → analytic bound of its remapping.
        fates: probe → where captures saw it last; None if nothing was captured.
        problems: what could not be read of the run's folder.
        conditions: what its times depend on beside substrate, accelerator and mechanism.
    """

    manifest: Mapping[str, Any]
    events: Sequence[Event]
    series: Sequence[ProbeSeries]
    migrations: Sequence[Migration]
    interval_ns: int
    expected_loss: float = 0.0
    bounds: Mapping[int, Bound] = field(default_factory=dict)
    fates: Mapping[ProbeKey, Fate] | None = None
    problems: Sequence[str] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FlowResult:
    """What one flow in one direction saw of a migration.

    Attributes:
        series: its decided probes, baseline included.
        undecided: probes left out at the log's end.
        gaps: that touch the migration's window.
        places: of each gap, where how many of its probes were lost; None if nothing was captured.
        counts: of the baseline and the migration's window together.
        baseline: counts of the baseline window; None if there was none.
        excursion: round-trip times against the baseline's; None if not comparable.
        precopy: the same of what was answered before the suspension (t2); None without t2.
        after: the same of what was answered after it.
        outage: the gap that is the migration's outage in this flow; None if none of its probes was lost.
    """

    series: ProbeSeries
    undecided: int
    gaps: tuple[Gap, ...]
    places: tuple[dict[str, int] | None, ...]
    counts: Counts
    baseline: Counts | None
    excursion: Excursion | None
    precopy: Excursion | None
    after: Excursion | None
    outage: Gap | None


@dataclass(frozen=True, slots=True)
class MigrationResult:
    """One migration, measured.

    Attributes:
        flows: one a flow and direction, the one that the outage is measured in first.
        both_sites_ns: how long both xTRs claimed the EID (t5 … t9); None if not measured.
        connections: what became of the TCP connections that were probed.
        limiters: options whose rate limits delayed something about the EID before it was remapped (t4 … t13).
    """

    migration: Migration
    timeline: Timeline
    phases: Phases
    flows: tuple[FlowResult, ...]
    verdict: Verdict
    bound: Bound | None
    both_sites_ns: int | None
    connections: tuple[Connection, ...] = ()
    limiters: tuple[str, ...] = ()

    @property
    def primary(self) -> FlowResult | None:
        """The flow that the outage is measured in; None without probes."""
        return self.flows[0] if self.flows else None


@dataclass(frozen=True, slots=True)
class Analysis:
    """A run, measured."""

    run: Run
    migrations: tuple[MigrationResult, ...]
    findings: tuple[Finding, ...]
    calibrations: tuple[Calibration, ...] = ()


#: Gives the random generator for one figure by its name, so that adding a figure moves no other.
Randomness = Callable[[str], Generator]


def analyse(run: Run) -> Analysis:
    """Measure every migration of a run and check what the figures rest on."""
    results = tuple(_migration(run, migration) for migration in run.migrations)
    ordered = primary_first(run.series)
    checked = calibrations(run.events, ordered[0], run.interval_ns) if ordered else ()
    findings = [*_findings(run, results), *validity.check_calibration([one.within for one in checked])]
    return Analysis(run, results, tuple(findings), checked)


def primary_first(series: Sequence[ProbeSeries]) -> list[ProbeSeries]:
    """The logs with the one first that outages are measured in: towards the guest, ICMP before UDP."""
    order = ("icmp", "udp", "tcp")
    return sorted(series, key=lambda s: (s.flow == "tcp", s.direction != "to-guest", order.index(s.flow)))


def _migration(run: Run, migration: Migration) -> MigrationResult:
    timeline = build_timeline(migration, run.events)
    flows = tuple(_flow(run, migration, timeline, series) for series in primary_first(run.series))
    primary = flows[0] if flows else None
    gaps = primary.gaps if primary else ()
    in_window = primary.series.within(migration.window) if primary else None
    phases = measure_phases(
        migration,
        timeline,
        gaps,
        was_probed=bool(in_window is not None and in_window.was_sent.any()),
        was_answered=bool(primary and primary.series.was_answered.any()),
    )
    source = primary.series.name(migration.eid) if primary else "no probe"
    _close_timeline(timeline, phases, source, ms(run.interval_ns))
    answered_again = None
    if "stuntime" in phases.spans or phases.chosen is not None:
        answered_again = phases.chosen is None or not phases.chosen.is_open
    return MigrationResult(
        migration,
        timeline,
        phases,
        flows,
        migration_verdict(
            migration.ended_ok,
            peer_answered_again=answered_again,
            verified=not migration.failed_checks,
            settled=migration.settled,
        ),
        run.bounds.get(migration.index),
        _both_sites_ns(timeline),
        tuple(connection(flow.series, migration, run.events) for flow in flows if flow.series.flow == "tcp"),
        _limiters(run, migration, timeline),
    )


def _close_timeline(timeline: Timeline, phases: Phases, source: str, interval_ms: float) -> None:
    """Add t14 from the gap that was found to be the outage."""
    answered_ns = phases.chosen.answered_after_ns if phases.chosen else None
    reason = phases.reasons.get("stuntime", "no probe was lost: there is no first answer after a loss")
    with_first_answer(timeline, answered_ns, source, reason, interval_ms)


def _flow(run: Run, migration: Migration, timeline: Timeline, whole: ProbeSeries) -> FlowResult:
    """What one probe log says of one migration."""
    baseline_window = migration.baseline
    before = whole.within(baseline_window) if baseline_window else None
    usual_ns = before.rtt_ns() if before is not None else np.array([], dtype=np.int64)
    slowest_ns = int(usual_ns.max()) if len(usual_ns) else 0
    series, undecided = without_undecided(whole, PATIENCE * (slowest_ns + run.interval_ns))
    window = migration.window
    everything = Interval(baseline_window.start_ns if baseline_window else window.start_ns, window.end_ns)
    gaps = tuple(gap for gap in find_gaps(series) if gap.span(window.end_ns).overlaps(window))
    inside = series.within(window)

    def risen(part: ProbeSeries) -> Excursion | None:
        return excursion(before, part, run.interval_ns) if before is not None else None

    suspended_ns = timeline.at("t2")
    earlier, later = split_at(inside, suspended_ns) if suspended_ns is not None else (None, None)
    return FlowResult(
        series.within(everything),
        undecided,
        gaps,
        tuple(None if run.fates is None else lost_where(gap, series, run.fates) for gap in gaps),
        count(series.within(everything), run.interval_ns),
        count(before, run.interval_ns) if before is not None else None,
        risen(inside),
        risen(earlier) if earlier is not None else None,
        risen(later) if later is not None else None,
        choose_outage(migration, timeline, gaps),
    )


def _both_sites_ns(timeline: Timeline) -> int | None:
    """From the new xTR's detection until the old one is told."""
    arrived, departed = timeline.at("t5"), timeline.at("t9")
    if arrived is None or departed is None:
        return None
    return max(0, departed - arrived)


def _limiters(run: Run, migration: Migration, timeline: Timeline) -> tuple[str, ...]:
    """The limits that held something back between the guest's arrival and the new RLOC's first packet."""
    start_ns = next((at for label in ("t4", "t3", "t2", "t0") if (at := timeline.at(label)) is not None), 0)
    end_ns = timeline.at("t13") or migration.window.end_ns
    named = {
        str(event.fields["limiter"])
        for event in run.events
        if "limiter" in event.fields and start_ns <= event.mono_ns <= end_ns and migration.concerns(event)
    }
    return tuple(sorted(named))


def _findings(run: Run, results: Sequence[MigrationResult]) -> list[Finding]:
    """Every check of the run, in the order in which the report lists them."""
    findings = [validity.check_clock(run.manifest.get("clock"))]
    for result in results:
        which = f"migration {result.migration.index}"
        for flow in result.flows:
            where = f"{which}, {flow.series.name(result.migration.eid)}"
            if flow.series.flow == "tcp":  # a broken connection is a result, and sends nothing
                findings.append(validity.check_lateness(where, flow.counts, run.interval_ns))
                continue
            findings.append(validity.check_baseline(where, flow.baseline, run.expected_loss))
            if flow.series.captured:
                findings += validity.check_guests_prober(where, flow.baseline, flow.counts, run.interval_ns)
                continue
            findings.append(validity.check_lateness(where, flow.counts, run.interval_ns))
            findings.append(validity.check_sent(where, flow.counts))
        if not result.flows:
            findings.append(Finding(f"probes, {which}", "invalid", False, "no probe log was found"))
        findings.append(validity.check_unattributed(which, result.phases.flagged, _share(result.phases)))
    tell_probes = any(series.captured for series in run.series)
    findings.append(validity.check_captures(run.manifest.get("captures") or (), tell_probes=tell_probes))
    findings.append(validity.check_readable(run.problems, tell_probes=tell_probes))
    host = run.manifest.get("host") or {}
    findings += [validity.check_host(host), validity.check_load(host)]
    return findings


def _share(phases: Phases) -> float | None:
    """The unattributed share of the outage; 0 for an outage below one interval."""
    if phases.outage is None or phases.unattributed_ns is None:
        return None
    return phases.unattributed_ns / phases.outage.length_ns if phases.outage.length_ns else 0.0
