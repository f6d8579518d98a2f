"""Find every maximal run of unanswered probes, and what else happened to the replies.

A gap is never merged with another one, however short the sign of life between them, and what was
delayed is not called lost. The figure that people take from `ping -q` is computed beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from testbed.measure.model import NEVER, Int64s, Interval, Mask, ProbeSeries


@dataclass(frozen=True, slots=True)
class Gap:
    """A maximal run of probes that were not answered: they were sent, or their sender was suspended.

    Times are CLOCK_MONOTONIC in nanoseconds, None at either end of the log. The probes before and
    after are the nearest answered ones in the order sent. The answers before and after are the
    first reply to any probe sent after the loss, and the last one before that to any probe sent
    before it: replies may overtake each other.

    Attributes:
        flow, direction: whose probes.
        first_seq, last_seq: the first and the last lost one; None if all of them could not be sent.
        lost: how many were sent and lost.
        unsendable: how many were due while their sender was suspended.
        first_sent_ns, last_sent_ns: when its first and its last probe went out or, if unsendable, were due.
        sent_before_ns, sent_after_ns: of the answered probes on its two sides.
        answered_before_ns, answered_after_ns: the last sign of life before it, and the first after.
    """

    flow: str
    direction: str
    first_seq: int | None
    last_seq: int | None
    lost: int
    unsendable: int
    first_sent_ns: int
    last_sent_ns: int
    sent_before_ns: int | None
    answered_before_ns: int | None
    sent_after_ns: int | None
    answered_after_ns: int | None

    @property
    def start_ns(self) -> int:
        """The last sign of life before it; at the start of the log, when its first probe went out."""
        return self.first_sent_ns if self.answered_before_ns is None else self.answered_before_ns

    @property
    def is_open(self) -> bool:
        """Whether no probe was answered after it."""
        return self.answered_after_ns is None

    @property
    def length_ns(self) -> int | None:
        """From the last answer before to the first answer after; None if either is missing.

        Where a reply from before the loss was held back into it, this is shorter than
        `length_by_send_ns`: the peer did get a sign of life.
        """
        if self.answered_before_ns is None or self.answered_after_ns is None:
            return None
        return self.answered_after_ns - self.answered_before_ns

    @property
    def length_by_send_ns(self) -> int | None:
        """The same by send times: between the answered probes on its two sides."""
        if self.sent_before_ns is None or self.sent_after_ns is None:
            return None
        return self.sent_after_ns - self.sent_before_ns

    @property
    def at_least_ns(self) -> int:
        """What is certain of its length even when it is open: from its start to its last lost probe."""
        if self.length_ns is not None:
            return self.length_ns
        return max(0, self.last_sent_ns - self.start_ns)

    def span(self, until_ns: int) -> Interval:
        """Its stretch of time; an open one lasts until `until_ns`."""
        end_ns = until_ns if self.answered_after_ns is None else self.answered_after_ns
        return Interval(self.start_ns, max(self.start_ns, end_ns))


def without_undecided(series: ProbeSeries, patience_ns: int) -> tuple[ProbeSeries, int]:
    """Leave out the probes at the log's very end whose reply could still have been on its way.

    A prober that is stopped has always a few probes in flight. Counted as lost they would be a gap
    that never closes.

    Args:
        series: a whole log.
        patience_ns: how long a reply may take; unanswered probes sent later than this before the
            log's last stamp are undecided.

    Returns:
        the decided probes, and the number left out.
    """
    if not len(series):
        return series, 0
    last_ns = int(max(series.sent_ns.max(), series.received_ns.max()))
    undecided = series.was_sent & ~series.was_answered & (series.sent_ns > last_ns - patience_ns)
    return series.where(~undecided), int(undecided.sum())


def find_gaps(series: ProbeSeries) -> list[Gap]:
    """Every maximal run of unanswered probes, in order.

    Probes never sent are neither lost nor an answer; but those of a sender that is suspended (a guest that probes and
    is moved) could not be sent because of what is measured, so they are part of the run.
    """
    rows = series.where(series.was_sent | series.unsendable)
    unanswered = ~rows.was_answered
    if not unanswered.any():
        return []
    edges = np.flatnonzero(np.diff(np.concatenate(([False], unanswered, [False])).astype(np.int8)))
    return [_gap(rows, int(first), int(end)) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def _gap(rows: ProbeSeries, first: int, end: int) -> Gap:
    """The gap of rows `first` … `end` - 1, whose neighbours are answered by construction."""
    before, after = first > 0, end < len(rows)
    earlier, later = rows.received_ns[:first], rows.received_ns[end:]
    lost = rows.seq[first:end][rows.was_sent[first:end]]
    moments_ns = rows.moments_ns()
    earlier, later = earlier[earlier != NEVER], later[later != NEVER]
    answered_after_ns = int(later.min()) if after else None
    if answered_after_ns is not None:
        earlier = earlier[earlier <= answered_after_ns]
    return Gap(
        flow=rows.flow,
        direction=rows.direction,
        first_seq=int(lost[0]) if len(lost) else None,
        last_seq=int(lost[-1]) if len(lost) else None,
        lost=len(lost),
        unsendable=end - first - len(lost),
        first_sent_ns=int(moments_ns[first]),
        last_sent_ns=int(moments_ns[end - 1]),
        sent_before_ns=int(rows.sent_ns[first - 1]) if before else None,
        answered_before_ns=int(earlier.max()) if len(earlier) else None,
        sent_after_ns=int(rows.sent_ns[end]) if after else None,
        answered_after_ns=answered_after_ns,
    )


def lost_in(gap: Gap, series: ProbeSeries) -> Mask:
    """Which probes of a log are the lost ones of a gap that was found in it."""
    inside: Mask = (series.sent_ns >= gap.first_sent_ns) & (series.sent_ns <= gap.last_sent_ns)
    return series.was_sent & ~series.was_answered & inside


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the probes of one window.

    Attributes:
        due: probes that the schedule asked for.
        sent, never_sent: those that left, and those that did not though they could have.
        unsendable: those that were due while their sender was suspended.
        late: sent more than one interval after they were due.
        lateness_p99_ns: 99th percentile of sent - scheduled; None without a sent probe.
        between_sends_p99_ns: 99th percentile of the time between two that were sent one after the other, unless
            their sender was suspended between them; None with fewer than two.
        received, lost: sent ones with and without a reply.
        duplicated: answered more than once.
        reordered: replies that came after the reply to a later probe (as RFC 4737 §3 counts packets).
        longest_silence_ns: the longest time between two replies that follow each other: it has
            what was delayed as well as what was lost. None with fewer than two replies.
        naive_ns: (sent - received) × interval, what `ping -q` leads people to say.
        handover_p50_ns, handover_p99_ns: from the prober's call to the device, by the kernel's transmit stamps:
            what of a round trip is the machine's. None where the kernel gave no stamp.
    """

    due: int
    sent: int
    never_sent: int
    unsendable: int
    late: int
    lateness_p99_ns: int | None
    between_sends_p99_ns: int | None
    received: int
    lost: int
    duplicated: int
    reordered: int
    longest_silence_ns: int | None
    naive_ns: int
    handover_p50_ns: int | None
    handover_p99_ns: int | None


def count(series: ProbeSeries, interval_ns: int) -> Counts:
    """Count what became of the probes of a series that were due every `interval_ns`."""
    sent = series.where(series.was_sent)
    answered = sent.where(sent.was_answered)
    lateness = sent.sent_ns - sent.scheduled_ns
    arrivals = answered.received_ns[np.argsort(answered.received_ns, kind="stable")]
    lost, unsendable = len(sent) - len(answered), int(series.unsendable.sum())
    apart_ns = _between_sends(series)
    handover = (sent.kernel_sent_ns - sent.sent_ns)[sent.kernel_sent_ns != NEVER]
    return Counts(
        due=len(series),
        sent=len(sent),
        never_sent=len(series) - len(sent) - unsendable,
        unsendable=unsendable,
        late=int((lateness > interval_ns).sum()),
        lateness_p99_ns=int(np.percentile(lateness, 99)) if len(sent) else None,
        between_sends_p99_ns=int(np.percentile(apart_ns, 99)) if len(apart_ns) else None,
        received=len(answered),
        lost=lost,
        duplicated=int((answered.replies > 1).sum()),
        reordered=int(overtaken(answered).sum()),
        longest_silence_ns=int(np.diff(arrivals).max()) if len(arrivals) > 1 else None,
        naive_ns=lost * interval_ns,
        handover_p50_ns=int(np.percentile(handover, 50)) if len(handover) else None,
        handover_p99_ns=int(np.percentile(handover, 99)) if len(handover) else None,
    )


def _between_sends(series: ProbeSeries) -> Int64s:
    """The times between two probes that were sent one after the other, their sender not suspended between them."""
    rows = series.where(series.was_sent | series.unsendable)
    both = rows.was_sent[:-1] & rows.was_sent[1:]
    return np.diff(rows.sent_ns)[both]


def overtaken(answered: ProbeSeries) -> Mask:
    """Which replies arrived when the reply to a later probe had already come (RFC 4737 §3), row by row."""
    arrival = np.argsort(answered.received_ns, kind="stable")
    order = answered.sent_ns[arrival]
    result = np.zeros(len(answered), dtype=np.bool_)
    result[arrival] = order < np.maximum.accumulate(order)
    return result


@dataclass(frozen=True, slots=True)
class Excursion:
    """How far and how long round-trip times rose above the baseline: buffered is not lost.

    Attributes:
        baseline_p99_ns: the 99th percentile of the baseline's round-trip times.
        highest_ns: the highest round-trip time in the window.
        above_ns: interval × the number of answered probes above the baseline's P99. One in a
            hundred is above it when nothing happens.
    """

    baseline_p99_ns: int
    highest_ns: int
    above_ns: int


def excursion(baseline: ProbeSeries, window: ProbeSeries, interval_ns: int) -> Excursion | None:
    """Compare a window's round-trip times with the baseline's; None if either has no reply."""
    usual, seen = baseline.rtt_ns(), window.rtt_ns()
    if not len(usual) or not len(seen):
        return None
    p99_ns = int(np.percentile(usual, 99))
    return Excursion(p99_ns, int(seen.max()), int((seen > p99_ns).sum()) * interval_ns)


def split_at(window: ProbeSeries, moment_ns: int) -> tuple[ProbeSeries, ProbeSeries]:
    """The probes answered before a moment, and those answered from it on: one that it held back was held back by it."""
    answered = window.was_answered
    before = window.received_ns < moment_ns
    return window.where(answered & before), window.where(answered & ~before)
