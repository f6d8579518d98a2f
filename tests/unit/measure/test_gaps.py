"""Gaps of synthetic probe logs, each with the figure that `ping -q` would suggest beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.measure.gaps import count, excursion, find_gaps, without_undecided
from testbed.measure.model import NEVER, Interval, Probe, ProbeSeries
from tests.unit.measure.synthetic import INTERVAL_MS, MS, START_NS, outage, probes

INTERVAL_NS = INTERVAL_MS * MS


def test_no_loss_no_gap() -> None:
    assert find_gaps(probes(outage())) == []


def test_one_gap_by_answers_and_by_send_times() -> None:
    series = probes(outage((800, 1500)))
    (gap,) = find_gaps(series)
    assert gap.lost == 70
    assert gap.first_sent_ns == START_NS + 800 * MS
    assert gap.start_ns == START_NS + 794 * MS  # the answer to the probe of 790, 4 ms later
    assert gap.length_ns == 710 * MS  # 794 → 1504
    assert gap.length_by_send_ns == 710 * MS  # 790 → 1500
    assert count(series, INTERVAL_NS).naive_ns == 700 * MS


def test_two_gaps_with_one_reply_between_are_not_one() -> None:
    series = probes(outage((800, 1200), (1210, 1500)))
    first, second = find_gaps(series)
    assert (first.lost, second.lost) == (40, 29)
    assert first.length_ns == 410 * MS
    assert second.length_ns == 300 * MS
    assert first.answered_after_ns == second.answered_before_ns == START_NS + 1204 * MS
    assert count(series, INTERVAL_NS).naive_ns == 690 * MS  # one number for both, and no place


def test_delayed_is_not_lost() -> None:
    def held(sent_ms: float) -> tuple[float, ...]:
        """What is sent from 800 on is held and delivered at 1500."""
        return (1504.0 - sent_ms,) if 800 <= sent_ms < 1500 else (4.0,)

    series = probes(held)
    assert find_gaps(series) == []
    counts = count(series, INTERVAL_NS)
    assert counts.naive_ns == 0  # ping -q sees nothing at all
    assert counts.longest_silence_ns == 710 * MS  # the reply to 790 came at 794, the next at 1504
    rise = excursion(
        series.within(Interval(START_NS - 1000 * MS, START_NS)),
        series.within(Interval(START_NS, START_NS + 3000 * MS)),
        INTERVAL_NS,
    )
    assert rise is not None
    assert rise.baseline_p99_ns == 4 * MS
    assert rise.highest_ns == 704 * MS
    assert rise.above_ns == 700 * MS


def test_duplicates_do_not_hide_losses() -> None:
    def twice(sent_ms: float) -> tuple[float, ...]:
        return () if 800 <= sent_ms < 900 else (4.0, 5.0) if 900 <= sent_ms < 1000 else (4.0,)

    series = probes(twice)
    counts = count(series, INTERVAL_NS)
    assert counts.duplicated == 10
    assert counts.lost == 10  # replies received minus probes sent would be 0
    assert [gap.lost for gap in find_gaps(series)] == [10]


def test_reordered_replies_are_counted_once_each() -> None:
    def slow_one(sent_ms: float) -> tuple[float, ...]:
        return (25.0,) if sent_ms == 500 else (4.0,)

    # The reply to 500 comes at 525, after those to 510 (514) and 520 (524).
    assert count(probes(slow_one), INTERVAL_NS).reordered == 1


def test_first_answer_after_the_loss_may_be_to_a_later_probe() -> None:
    def slow_at_first(sent_ms: float) -> tuple[float, ...]:
        return () if 800 <= sent_ms < 1500 else (90.0,) if sent_ms == 1500 else (4.0,)

    (gap,) = find_gaps(probes(slow_at_first))
    assert gap.answered_after_ns == START_NS + 1514 * MS  # of the probe of 1510, not 1590 of the one of 1500
    assert gap.sent_after_ns == START_NS + 1500 * MS


def test_reply_held_from_before_the_loss_is_a_sign_of_life() -> None:
    def held_one(sent_ms: float) -> tuple[float, ...]:
        return () if 800 <= sent_ms < 1500 else (610.0,) if sent_ms == 790 else (4.0,)

    (gap,) = find_gaps(probes(held_one))
    assert gap.answered_before_ns == START_NS + 1400 * MS
    assert gap.length_ns == 104 * MS
    assert gap.length_by_send_ns == 710 * MS


def test_open_gap_has_no_length_but_a_least_one() -> None:
    (gap,) = find_gaps(probes(outage((800, 9999))))
    assert gap.is_open
    assert gap.length_ns is None
    assert gap.at_least_ns == (2990 - 794) * MS


def test_loss_from_the_first_probe_on_has_no_answer_before() -> None:
    (gap,) = find_gaps(probes(outage((-1000, -900))))
    assert gap.answered_before_ns is None
    assert gap.length_ns is None
    assert gap.start_ns == START_NS - 1000 * MS


def test_probes_never_sent_are_not_lost() -> None:
    series = probes(outage(), lateness_ms=lambda due: None if 800 <= due < 900 else 0.0)
    counts = count(series, INTERVAL_NS)
    assert find_gaps(series) == []
    assert (counts.never_sent, counts.lost, counts.naive_ns) == (10, 0, 0)
    assert counts.due == counts.sent + counts.never_sent


def test_probes_in_flight_at_the_end_are_undecided() -> None:
    series = probes(outage((2980, 9999)), end_ms=3000)
    decided, left_out = without_undecided(series, 50 * MS)
    assert left_out == 2
    assert find_gaps(decided) == []


def test_an_outage_at_the_end_is_not_undecided() -> None:
    decided, left_out = without_undecided(probes(outage((800, 9999))), 50 * MS)
    (gap,) = find_gaps(decided)
    assert left_out == 5
    assert gap.is_open
    assert gap.lost == 215


def test_empty_log() -> None:
    series = ProbeSeries.of("icmp", "to-guest", [])
    assert find_gaps(series) == []
    assert count(series, INTERVAL_NS).lateness_p99_ns is None
    assert without_undecided(series, MS) == (series, 0)


FATES = st.lists(
    st.one_of(st.sampled_from(["lost", "never", "suspended"]), st.integers(min_value=1, max_value=80)), max_size=120
)


def series_of(fates: list[str | int]) -> ProbeSeries:
    rows = []
    for seq, fate in enumerate(fates):
        due = 1000 * MS + seq * INTERVAL_NS
        sent = None if fate in ("never", "suspended") else due
        received = due + fate * MS if isinstance(fate, int) else None
        rows.append(Probe(None if fate == "suspended" else seq, due, sent, received, int(isinstance(fate, int))))
    return ProbeSeries.of("icmp", "to-guest", rows)


@given(FATES)
def test_gaps_are_the_maximal_runs(fates: list[str | int]) -> None:
    runs: list[list[tuple[int, str]]] = [[]]
    for seq, fate in enumerate(fates):
        if fate in ("lost", "suspended"):
            runs[-1].append((seq, str(fate)))
        elif fate != "never":
            runs.append([])
    expected = []
    for run in filter(None, runs):
        lost = [seq for seq, fate in run if fate == "lost"]
        ends = (lost[0], lost[-1]) if lost else (None, None)
        expected.append((*ends, len(lost), len(run) - len(lost)))
    gaps = find_gaps(series_of(fates))
    assert [(g.first_seq, g.last_seq, g.lost, g.unsendable) for g in gaps] == expected


@given(FATES)
def test_every_lost_probe_is_in_one_gap(fates: list[str | int]) -> None:
    series = series_of(fates)
    counts = count(series, INTERVAL_NS)
    gaps = find_gaps(series)
    assert sum(gap.lost for gap in gaps) == counts.lost == counts.sent - counts.received
    assert sum(gap.unsendable for gap in gaps) == counts.unsendable
    assert counts.due == counts.sent + counts.never_sent + counts.unsendable
    assert counts.naive_ns == counts.lost * INTERVAL_NS


@given(FATES)
def test_no_reply_comes_within_a_gap(fates: list[str | int]) -> None:
    series = series_of(fates)
    received = series.received_ns[series.received_ns != NEVER]
    for gap in find_gaps(series):
        assert gap.length_ns is None or gap.length_ns >= 0
        if gap.answered_before_ns is not None and gap.answered_after_ns is not None:
            within = (received > gap.answered_before_ns) & (received < gap.answered_after_ns)
            assert not within.any()


@given(FATES, st.integers(min_value=0, max_value=500))
def test_only_unanswered_probes_are_undecided(fates: list[str | int], patience_ms: int) -> None:
    series = series_of(fates)
    decided, left_out = without_undecided(series, patience_ms * MS)
    assert len(decided) + left_out == len(series)
    assert decided.was_answered.sum() == series.was_answered.sum()


def test_window_keeps_what_was_sent_in_it() -> None:
    series = probes(outage())
    inside = series.within(Interval(START_NS, START_NS + 100 * MS))
    assert list((inside.sent_ns - START_NS) // MS) == list(range(0, 100, 10))


@pytest.mark.parametrize("late_ms", [0.0, 3.0, 25.0])
def test_lateness(late_ms: float) -> None:
    counts = count(probes(outage(), lateness_ms=lambda due: late_ms), INTERVAL_NS)
    assert counts.lateness_p99_ns == round(late_ms * MS)
    assert counts.late == (counts.sent if late_ms > INTERVAL_MS else 0)


def test_series_is_sorted_by_when_probes_were_due() -> None:
    rows = [Probe(1, 20, 21, None, 0), Probe(0, 10, 11, 15, 1)]
    series = ProbeSeries.of("udp", "from-guest", rows)
    assert list(series.seq) == [0, 1]
    assert np.array_equal(series.received_ns, [15, NEVER])


def test_what_the_kernel_adds_is_said_of_the_probes_it_stamped() -> None:
    rows = [
        Probe(seq, START_NS + seq * MS, START_NS + seq * MS, START_NS + seq * MS + 500, 1, START_NS + seq * MS + delay)
        for seq, delay in enumerate(range(0, 101_000, 1000))
    ]
    counts = count(ProbeSeries.of("icmp", "to-guest", [*rows, Probe(101, START_NS, START_NS, None, 0)]), INTERVAL_NS)
    assert (counts.handover_p50_ns, counts.handover_p99_ns) == (50_000, 99_000)
    unstamped = count(probes(outage()), INTERVAL_NS)
    assert (unstamped.handover_p50_ns, unstamped.handover_p99_ns) == (None, None)
