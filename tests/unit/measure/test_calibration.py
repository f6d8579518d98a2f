"""Known outages against the measurement: every phase, every length; and an instrument that is wrong is found out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.events import Event
from testbed.measure.analysis import Run, analyse
from testbed.measure.calibration import calibrations
from testbed.measure.model import ProbeSeries
from tests.unit.measure.synthetic import INTERVAL_MS, MS, START_NS, Story, event, outage, probes, run


def injected(start_ms: float, length_ms: float) -> Event:
    end_ns = START_NS + round((start_ms + length_ms) * MS)
    return event(start_ms, "lab", "outage_injected", end_ns=end_ns, asked_ms=length_ms, uncertainty_ms=0.05)


def measured(series: ProbeSeries, *events: Event) -> list[bool]:
    return [one.within for one in calibrations(events, series, INTERVAL_MS * MS)]


@given(st.floats(200, 230), st.floats(1, 2000))
def test_every_outage_is_measured_within_one_interval(start_ms: float, length_ms: float) -> None:
    """Whatever its phase; one shorter than an interval may lose no probe and still is within it."""
    series = probes(outage((start_ms, start_ms + length_ms)), end_ms=3000)
    assert measured(series, injected(start_ms, length_ms)) == [True]


@pytest.mark.parametrize("length_ms", [20, 100, 500, 2000])
def test_a_measurement_that_loses_two_probes_more_is_found_out(length_ms: float) -> None:
    series = probes(outage((400, 400 + length_ms + 2 * INTERVAL_MS)))
    (one,) = calibrations([injected(400, length_ms)], series, INTERVAL_MS * MS)
    assert not one.within
    assert one.error_ms == pytest.approx(2 * INTERVAL_MS)


def test_an_outage_without_end_has_no_length() -> None:
    series = probes(outage((400, 9000)))
    (one,) = calibrations([injected(400, 100)], series, INTERVAL_MS * MS)
    assert (one.measured_ms, one.outage_ms, one.within) == (None, None, False)


def test_outages_are_told_apart() -> None:
    series = probes(outage((200, 300), (700, 720), (1200, 1700)))
    events = [injected(200, 100), injected(700, 20), injected(1200, 500)]
    found = calibrations(events, series, INTERVAL_MS * MS)
    assert [one.lost for one in found] == [10, 2, 50]
    assert all(one.within for one in found)
    assert all(one.placed_ms is not None and 0 <= one.placed_ms < INTERVAL_MS for one in found)
    # What the peer sees has the intervals at both ends beside it.
    assert [one.outage_ms for one in found] == [110.0, 30.0, 510.0]


@pytest.mark.parametrize(("off_ms", "verdict"), [(0, "PASS"), (40, "INVALID")])
def test_a_run_that_fails_its_calibration_is_invalid(off_ms: float, verdict: str) -> None:
    from testbed.measure.summary import summarise
    from testbed.report.build import seeded

    story = Story()
    whole: Run = run(story, probes(outage((-3000, -2900 + off_ms), (800, 1594)), start_ms=-4000))
    whole = replace(whole, events=[injected(-3000, 100), *whole.events])
    summary = summarise(analyse(whole), seeded(1))
    assert summary.verdict.value == verdict
    assert summary.data["calibration"][0]["within"] is (off_ms == 0)
