"""The calibration run as it is shipped: 20 outages of known length, and what the measurement says of each."""

from __future__ import annotations

from collections import Counter

import pytest

from testbed.measure.losses import ProbeKey
from testbed.measure.model import Interval
from testbed.report.load import frames_of, load, to_run
from tests.netns.own_lab import ROOT, needs_root
from tests.netns.runs import Run, run

pytestmark = [pytest.mark.netns, pytest.mark.timeout(900), needs_root]


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("calibration")
    return run(folder, experiment=ROOT / "experiments" / "calibration.yaml", windows=())


def test_twenty_of_twenty_known_outages_are_measured_within_one_interval(calibration: Run) -> None:
    found = calibration.summary["calibration"]
    assert calibration.manifest["overrides"] == []
    asked = [event["asked_ms"] for event in calibration.events if event["kind"] == "outage_injected"]
    assert asked == [20, 100, 500, 2000] * 5
    # A busy machine ends an outage late; how long it was is known all the same, from the kernel's two answers.
    assert all(one["length_ms"] >= length_ms for one, length_ms in zip(found, asked, strict=True))
    assert [one["within"] for one in found] == [True] * 20, found
    # The interval, and what stamps and late probes leave open: a calibration that allowed more would show nothing.
    assert all(abs(one["error_ms"]) <= one["allowed_ms"] < 20 for one in found), found
    assert calibration.summary["verdict"] == "PASS", calibration.summary["validity"]


def test_the_parts_add_up_and_explain_the_outages(calibration: Run) -> None:
    assert len(calibration.summary["migrations"]) == 2
    for migration in calibration.summary["migrations"]:
        metrics = migration["metrics"]
        parts = [metrics[name] for name in ("hypervisor_part_ms", "network_part_ms", "unattributed_ms")]
        assert sum(parts) == pytest.approx(metrics["stuntime_ms"], abs=0.01)
        assert metrics["unattributed_ms"] < 0.1 * metrics["stuntime_ms"], migration["unattributed"]


def test_what_was_dropped_is_found_where_it_was_dropped(calibration: Run) -> None:
    """The core drops: the correspondent's ITR is the last that has seen those probes, on its core side."""
    folder = load(calibration.folder)
    whole = to_run(folder, frames_of(folder))
    assert whole.fates is not None
    (series,) = whole.series
    places = Counter()
    for outage in (event for event in whole.events if event.kind == "outage_injected"):
        # A probe is on its way to the core for less than 9 ms, and the one before is 10 ms older.
        inside = series.within(Interval(outage.mono_ns, int(outage.fields["end_ns"]) - 9_000_000))
        for seq in inside.seq[inside.was_sent]:
            last = whole.fates[ProbeKey("icmp", "to-guest", int(seq))].last
            places[last.capture if last else None] += 1
    assert set(places) == {"xtr-c-rloc0"}
    assert places.total() > 1000
