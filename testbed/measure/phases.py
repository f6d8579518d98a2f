"""Divide one migration's outage into the hypervisor's part, the network's parts and what is left.

Every figure is a difference of two marks of the timeline. One that was not measured is None, with the
reason beside it. What no part covers is never spread over the others: it is shown as unattributed,
with the marks that it lies between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from testbed.measure.gaps import Gap
from testbed.measure.headline import duration
from testbed.measure.model import Interval, Migration, ms
from testbed.measure.timeline import Timeline

#: Above this share of the outage, what is unattributed flags the run (design: measurement).
UNATTRIBUTED_FLAG = 0.10

#: Parts of the hypervisor and of the guest's devices that it reconnects: until the first frame is out the
#: network has nothing to go by. `vm_downtime` alone is what hypervisors report.
HYPERVISOR_PARTS = ("vm_downtime", "reconnection")

PHASES = ("detection", "registration", "notification", "timer_wait", "resolution", "installation")

#: mechanism → what its ITR waits for, since nobody tells it anything: from when the Map-Server would give the new
#: mapping (t8) until the ITR asks (t10).
TIMERS = {"ttl": "its entry's TTL", "rloc-probe": "its next RLOC-probe"}

#: mechanism → the mark at which the notification of the correspondent's ITR begins. `smr-old-xtr` waits
#: for the old xTR to be told; the Map-Server's own mechanisms begin with its entry; the new xTR
#: begins as soon as it has detected the EID, or, where its packets carry the map-version, as soon as its
#: registration's acknowledgement has given it one. Nobody tells an ITR that waits for a timer (TIMERS).
NOTIFIED_FROM = {
    "smr-old-xtr": "t9",
    "smr-map-server": "t8",
    "pubsub": "t8",
    "smr-new-xtr": "t5",
    "map-version": "t7",
}

#: Metric → the two marks whose difference it is.
SPANS = {
    "migration_time": ("t0", "t3"),
    "vm_downtime": ("t2", "t3"),
    "reconnection": ("t3", "t4"),
    "remap_latency": ("t4", "t13"),
    "detection": ("t4", "t5"),
    "registration": ("t6", "t7"),
    "resolution": ("t10", "t11"),
    "installation": ("t11", "t13"),
}


@dataclass(frozen=True, slots=True)
class Remainder:
    """A stretch of the outage that no part covers, and the last mark before and first mark after it."""

    span: Interval
    after: str
    before: str


@dataclass(slots=True)
class Phases:
    """One migration's figures.

    Attributes:
        spans: name → stretch of time, for every metric and phase that was measured.
        between: name → the two marks that it was measured between.
        reasons: name → why it has none.
        outage: last answered probe before the loss → first answered one after; None if not closed.
        outage_by_send_ns: the same by send times.
        chosen: the gap that is the outage; None if no probe was lost.
        others: the window's other gaps in the same flow and direction.
        hypervisor_ns, network_ns, unattributed_ns: the parts of the outage; they add up to it.
        remainders: where the unattributed part lies.
    """

    spans: dict[str, Interval] = field(default_factory=dict)
    between: dict[str, tuple[str, str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    outage: Interval | None = None
    outage_by_send_ns: int | None = None
    chosen: Gap | None = None
    others: tuple[Gap, ...] = ()
    hypervisor_ns: int | None = None
    network_ns: int | None = None
    unattributed_ns: int | None = None
    remainders: tuple[Remainder, ...] = ()

    def length_ms(self, name: str) -> float | None:
        """A metric or phase in milliseconds; None if it was not measured (see `reasons`)."""
        span = self.spans.get(name)
        return None if span is None else ms(span.length_ns)

    @property
    def flagged(self) -> bool:
        """Whether more of the outage is unattributed than the flag allows."""
        if self.outage is None or self.unattributed_ns is None:
            return False
        return self.unattributed_ns > UNATTRIBUTED_FLAG * self.outage.length_ns


def choose_outage(migration: Migration, timeline: Timeline, gaps: Sequence[Gap]) -> Gap | None:
    """The gap that is this migration's outage, among those of one flow and direction.

    The rule: the longest gap that overlaps the blackout t2 … t3; if none does, the longest one that
    overlaps t2 … t13 (the remapping); if none does, or t2 is not known, the longest of the window.
    Gaps are never joined: a sign of life between two of them is one.
    """
    end_ns = migration.window.end_ns
    spans = [(gap, gap.span(end_ns)) for gap in gaps]
    spans = [(gap, span) for gap, span in spans if span.overlaps(migration.window)]
    t2 = timeline.at("t2")
    for until in ("t3", "t13"):
        moment = timeline.at(until)
        if t2 is None or moment is None:
            continue
        there = [(gap, span) for gap, span in spans if span.overlaps(Interval(t2, moment))]
        if there:
            return _longest(there)
    return _longest(spans)


def _longest(spans: Sequence[tuple[Gap, Interval]]) -> Gap | None:
    """The gap with the longest span; the earliest of equals."""
    return max(spans, key=lambda pair: pair[1].length_ns)[0] if spans else None


def measure_phases(
    migration: Migration, timeline: Timeline, gaps: Sequence[Gap], *, was_probed: bool, was_answered: bool
) -> Phases:
    """All figures of one migration.

    Args:
        migration: who is who, and the window.
        timeline: its marks, t14 included.
        gaps: of the flow and direction that the outage is measured in, in the window.
        was_probed: whether that flow sent anything in the window.
        was_answered: whether anything of it was answered in the window.
    """
    phases = Phases()
    spans = dict(SPANS)
    notified = _notification_marks(migration, timeline, phases)
    if notified is not None:
        spans["notification"] = notified
    if _waited_for_a_timer(migration, timeline, phases):
        spans["timer_wait"] = "t8", "t10"
    for name, (start, end) in spans.items():
        _measure(phases, timeline, name, start, end)
    if "t10" not in timeline.marks and "t11" in timeline.marks:
        phases.reasons["resolution"] = timeline.missing["t10"]
    _measure_outage(phases, migration, timeline, gaps, was_probed, was_answered)
    _attribute(phases, timeline)
    return phases


def _notification_marks(migration: Migration, timeline: Timeline, phases: Phases) -> tuple[str, str] | None:
    """From the mechanism's trigger until the ITR asks; until the news itself when it is published."""
    start = NOTIFIED_FROM.get(migration.mechanism)
    if start is None:
        phases.reasons["notification"] = (
            f"not applicable: with {migration.mechanism or 'no mechanism'} nobody tells the ITR"
        )
        return None
    t11 = timeline.marks.get("t11")
    published = t11 is not None and t11.kind == "publication_received"
    return start, "t11" if published else "t10"


def _waited_for_a_timer(migration: Migration, timeline: Timeline, phases: Phases) -> bool:
    """Whether what made the ITR ask was a timer; else why not."""
    if migration.mechanism not in TIMERS:
        told = f"with {migration.mechanism} the ITR is told" if migration.mechanism else "no mechanism"
        phases.reasons["timer_wait"] = f"not applicable: {told}"
    elif migration.mechanism == "ttl" and "t10" in timeline.marks and not timeline.entry_expired:
        phases.reasons["timer_wait"] = f"{migration.correspondent_itr} asked though its entry had not expired"
    else:
        return True
    return False


def _measure(phases: Phases, timeline: Timeline, name: str, start: str, end: str) -> None:
    """Measure one span between two marks, or note why it cannot be."""
    phases.between[name] = (start, end)
    absent = [f"{label}: {timeline.missing[label]}" for label in (start, end) if label in timeline.missing]
    if absent:
        phases.reasons[name] = "; ".join(absent)
        return
    first, second = timeline.marks[start], timeline.marks[end]
    span = Interval(first.mono_ns, second.mono_ns)
    if span.end_ns >= span.start_ns:
        phases.spans[name] = span
    elif span.start_ns - span.end_ns <= first.uncertainty_ns + second.uncertainty_ns:
        phases.spans[name] = Interval(span.start_ns, span.start_ns)
    else:
        phases.reasons[name] = f"{end} came {ms(span.start_ns - span.end_ns)} ms before {start}"


def _measure_outage(
    phases: Phases,
    migration: Migration,
    timeline: Timeline,
    gaps: Sequence[Gap],
    was_probed: bool,
    was_answered: bool,
) -> None:
    """The outage that the peer saw, and why it is not known where it is not."""
    if not was_probed:
        phases.reasons["stuntime"] = "no probe was sent in the migration's window"
        return
    gap = choose_outage(migration, timeline, gaps)
    phases.chosen = gap
    phases.others = tuple(other for other in gaps if other is not gap)
    if gap is None:
        # Probes were sent throughout and all were answered: measured, and below one interval.
        moment = timeline.origin()[1]
        phases.outage, phases.outage_by_send_ns = Interval(moment, moment), 0
    elif gap.is_open:
        phases.reasons["stuntime"] = (
            f"no probe was answered after the loss: at least {duration(ms(gap.at_least_ns))}, to its end"
        )
    elif gap.length_ns is None or not was_answered:
        phases.reasons["stuntime"] = "no probe was answered before the loss"
    else:
        phases.outage = gap.span(migration.window.end_ns)
        phases.outage_by_send_ns = gap.length_by_send_ns
    if phases.outage is not None:
        phases.spans["stuntime"] = phases.outage


def _attribute(phases: Phases, timeline: Timeline) -> None:
    """Split the outage: what the hypervisor's parts cover, what the network's phases cover, the rest."""
    if phases.outage is None:
        phases.reasons["unattributed"] = "the outage was not measured"
        return
    hypervisor = [phases.spans[name] for name in HYPERVISOR_PARTS if name in phases.spans]
    network = [phases.spans[name] for name in PHASES if name in phases.spans]
    wait = phases.spans.get("timer_wait")
    if wait is not None and wait.end_ns > phases.outage.end_ns:
        network.remove(wait)  # the peer did not wait for it: the old xTR sent its packets on
    phases.hypervisor_ns = _covered_ns(phases.outage, hypervisor)
    attributed_ns = _covered_ns(phases.outage, hypervisor + network)
    phases.network_ns = attributed_ns - phases.hypervisor_ns
    phases.unattributed_ns = phases.outage.length_ns - attributed_ns
    phases.remainders = tuple(
        Remainder(span, *_neighbours(span, phases.outage, timeline))
        for span in uncovered(phases.outage, hypervisor + network)
    )


def uncovered(whole: Interval, parts: Sequence[Interval]) -> list[Interval]:
    """The stretches of `whole` that no part covers, in order."""
    left, reached = [], whole.start_ns
    for part in sorted(part.clip(whole) for part in parts):
        if part.length_ns and part.start_ns > reached:
            left.append(Interval(reached, part.start_ns))
        if part.length_ns:
            reached = max(reached, part.end_ns)
    if reached < whole.end_ns:
        left.append(Interval(reached, whole.end_ns))
    return left


def _covered_ns(whole: Interval, parts: Sequence[Interval]) -> int:
    """How much of `whole` the union of the parts covers."""
    return whole.length_ns - sum(span.length_ns for span in uncovered(whole, parts))


def _neighbours(span: Interval, outage: Interval, timeline: Timeline) -> tuple[str, str]:
    """What a stretch of the outage lies between: the nearest marks, or the outage's own ends."""
    before = [(mark.mono_ns, label) for label, mark in timeline.marks.items() if mark.mono_ns <= span.start_ns]
    after = [(mark.mono_ns, label) for label, mark in timeline.marks.items() if mark.mono_ns >= span.end_ns]
    starts = "the last answer" if span.start_ns == outage.start_ns or not before else max(before)[1]
    ends = "the first answer" if span.end_ns == outage.end_ns or not after else min(after)[1]
    return starts, ends
