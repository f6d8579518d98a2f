"""Hold the measurement against outages of known length. Pure.

An outage of length L loses k probes, those that pass the point of the dropping within it. With one probe an
interval, k intervals are off from L by less than one interval, whatever the phase: that is what the measurement
can resolve. The outage of the peer (last answer before → first answer after) has the two intervals at its ends
beside it: it is longer than the dropping by up to two intervals, and so it was for the peer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.events import Event
from testbed.measure.gaps import Gap, find_gaps
from testbed.measure.model import Interval, ProbeSeries, ms


@dataclass(frozen=True, slots=True)
class Calibration:
    """One known outage, and what was measured of it.

    Attributes:
        flow, direction: measured by whose probes.
        start_ns: CLOCK_MONOTONIC of its beginning.
        length_ms: how long it was.
        measured_ms: from the send time of the first lost probe to that of the first answered one after it;
            0 if none was lost, None without an answer after it.
        outage_ms: last answer before → first answer after, as the peer saw it; None without a closed gap.
        lost: probes.
        placed_ms: from its beginning to the send time of the first lost probe.
        error_ms: `measured_ms` - `length_ms`.
        allowed_ms: one interval, and what stamps and lateness leave open.
        within: whether the error is.
    """

    flow: str
    direction: str
    start_ns: int
    length_ms: float
    measured_ms: float | None
    outage_ms: float | None
    lost: int
    placed_ms: float | None
    error_ms: float | None
    allowed_ms: float
    within: bool


def calibrations(events: Sequence[Event], series: ProbeSeries, interval_ns: int) -> tuple[Calibration, ...]:
    """Measure every outage that was injected (`outage_injected`), with the probes of one log.

    Args:
        events: of the run.
        series: the log that outages are measured in.
        interval_ns: of its probes.
    """
    injected = [event for event in events if event.kind == "outage_injected"]
    if not injected:
        return ()
    gaps = find_gaps(series)
    return tuple(_calibration(event, series, gaps, interval_ns) for event in injected)


def _calibration(event: Event, series: ProbeSeries, gaps: Sequence[Gap], interval_ns: int) -> Calibration:
    start_ns, end_ns = event.mono_ns, int(event.fields["end_ns"])
    length_ms, uncertainty_ms = ms(end_ns - start_ns), float(event.fields["uncertainty_ms"])
    found = _gap_of(gaps, Interval(start_ns, end_ns), interval_ns)
    near = series.within(Interval(start_ns - 2 * interval_ns, end_ns + 2 * interval_ns))
    lateness = near.sent_ns[near.was_sent] - near.scheduled_ns[near.was_sent]
    late_ms = ms(int(lateness.max() - lateness.min())) if len(lateness) else 0.0
    measured_ms: float | None = 0.0
    if found is not None:
        measured_ms = None if found.sent_after_ns is None else ms(found.sent_after_ns - found.first_sent_ns)
    error_ms = None if measured_ms is None else round(measured_ms - length_ms, 3)
    allowed_ms = round(ms(interval_ns) + uncertainty_ms + late_ms, 3)
    return Calibration(
        flow=series.flow,
        direction=series.direction,
        start_ns=start_ns,
        length_ms=length_ms,
        measured_ms=measured_ms,
        outage_ms=None if found is None or found.length_ns is None else ms(found.length_ns),
        lost=found.lost if found else 0,
        placed_ms=ms(found.first_sent_ns - start_ns) if found else None,
        error_ms=error_ms,
        allowed_ms=allowed_ms,
        within=error_ms is not None and abs(error_ms) <= allowed_ms,
    )


def _gap_of(gaps: Sequence[Gap], outage: Interval, interval_ns: int) -> Gap | None:
    """The longest gap that an outage may have made; probes pass the dropping some time after they are sent."""
    wide = Interval(outage.start_ns - interval_ns, outage.end_ns + interval_ns)
    there = [gap for gap in gaps if gap.span(wide.end_ns).overlaps(wide)]
    return max(there, key=lambda gap: gap.at_least_ns, default=None)
