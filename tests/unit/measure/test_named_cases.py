"""Cases that a measurement must tell apart, each known by construction, beside what `ping -q` would have claimed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from testbed.measure.analysis import Run, analyse
from testbed.measure.losses import Fate, ProbeKey, Sighting
from testbed.measure.model import ProbeSeries
from testbed.measure.summary import summarise
from tests.unit.measure.synthetic import Path_, Story, clock, outage, probes, run

#: Of every case: probes every 10 ms, answered after 4 ms, the guest suspended from 800 to 1500 ms after the request.
MOVED = Story()
STAYED = Story(ok=False, error="timed out").without(*(f"t{number}" for number in range(3, 14)))


@dataclass(frozen=True)
class Case:
    """What happens, and what must come out.

    Attributes:
        name: of the case.
        series: what the prober logged.
        gaps: (start, length) in ms from the suspension (t2), number of probes lost, where they were lost.
        verdict: of the run.
        naive_ms: (sent - received) × interval.
        story: what the components said.
        why: begins the detail of what makes the run INVALID.
        figures: further metrics of the migration.
        clock_step_ms: by which the wall clock is set.
        fates: of probes, by when they were sent.
    """

    name: str
    series: ProbeSeries
    gaps: tuple[tuple[float, float | None, int], ...]
    verdict: str
    naive_ms: float
    story: Story = MOVED
    why: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    clock_step_ms: float = 0.0
    fates: dict[ProbeKey, Fate] | None = None
    places: dict[str, int] | None = None


def held(sent_ms: float) -> tuple[float, ...]:
    """Buffered while the guest is away, and delivered when it is there."""
    return (1598.0 - sent_ms,) if 800 <= sent_ms < 1594 else (4.0,)


def twice(path: Path_) -> Path_:
    """Every answer comes a second time, 2 ms later."""
    return lambda sent_ms: tuple(rtt for answer in path(sent_ms) for rtt in (answer, answer + 2.0))


def starved(due_ms: float) -> float | None:
    """For 100 ms nothing is sent at all, and for 60 ms more everything is late."""
    if 400 <= due_ms < 500:
        return None
    return 25.0 if 500 <= due_ms < 560 else 0.0


LOST = outage((800, 1594))
ONE_GAP = (-6.0, 810.0, 80)


def reply_fates() -> dict[ProbeKey, Fate]:
    """Every request was seen at the guest's LAN, and its reply behind it."""
    series = probes(LOST)
    fate = Fate(request=Sighting(1, "xtr-b-eid0", 1), reply=Sighting(2, "xtr-b-eid0", 2))
    return {ProbeKey("icmp", "to-guest", int(seq)): fate for seq in series.seq}


CASES = (
    Case("one gap", probes(LOST), (ONE_GAP,), "PASS", 800.0, figures={"stuntime_ms": 810.0, "gaps_total_ms": 810.0}),
    Case(
        # The outage is the longer one: a peer that was answered at 1004 ms was not without its guest for 810 ms.
        "two gaps with one reply between",
        probes(outage((800, 1000), (1001, 1594))),
        ((-6.0, 210.0, 20), (204.0, 600.0, 59)),
        "PASS",
        790.0,
        figures={"stuntime_ms": 600.0, "gaps_total_ms": 810.0},
    ),
    Case(
        "delayed but not lost",
        probes(held),
        (),
        "PASS",
        0.0,
        figures={"stuntime_ms": 0.0, "longest_silence_ms": 804.0, "highest_rtt_ms": 798.0},
    ),
    Case("duplicated", probes(twice(LOST)), (ONE_GAP,), "PASS", 800.0, figures={"probes_duplicated": 319}),
    Case(
        "reply lost only",
        probes(LOST),
        (ONE_GAP,),
        "PASS",
        800.0,
        fates=reply_fates(),
        places={"reply, last seen at xtr-b-eid0": 80},
    ),
    Case(
        "migration failed and guest still at the source",
        probes(outage((800, 900))),
        ((-6.0, 110.0, 10),),
        "FAIL",
        100.0,
        story=STAYED,
    ),
    Case(
        # Probes are stamped by the monotonic clock, which nobody sets: the gap is right, the captures' times are not.
        "clock step",
        probes(LOST),
        (ONE_GAP,),
        "INVALID",
        800.0,
        clock_step_ms=250.0,
        why="wall moved 250.0 ms against monotonic",
    ),
    Case(
        # Nothing was lost, and the silence is the prober's own.
        "probe process starved",
        probes(outage(), lateness_ms=starved),
        (),
        "INVALID",
        0.0,
        why="P99 of lateness 25.0 ms",
        figures={"probes_never_sent": 10, "probes_late": 6, "longest_silence_ms": 135.0},
    ),
)


def summary_of(case: Case) -> dict[str, Any]:
    found: Run = replace(run(case.story, case.series, clock=clock(case.clock_step_ms)), fates=case.fates)
    return summarise(analyse(found), lambda name: np.random.default_rng(1)).data


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case) -> None:
    data = summary_of(case)
    (migration,) = data["migrations"]
    gaps = [(gap["start_ms"], gap["length_ms"], gap["lost"]) for gap in migration["gaps"]]
    naive_ms = migration["metrics"]["naive_outage_ms"]
    said = ", ".join(f"{length} ms from {start} ms on" for start, length, _ in gaps) or "none"
    print(f"{case.name}: {data['verdict']}; gaps: {said}; (sent - received) x interval: {naive_ms} ms")
    assert tuple(gaps) == case.gaps
    assert data["verdict"] == case.verdict
    assert naive_ms == case.naive_ms
    assert {name: migration["metrics"][name] for name in case.figures} == case.figures
    invalid = [one["detail"] for one in data["validity"] if one["severity"] == "invalid" and one["ok"] is False]
    assert bool(invalid) == bool(case.why)
    assert any(detail.startswith(case.why) for detail in invalid or [""])
    if case.places is not None:
        assert [gap["lost_where"] for gap in migration["gaps"]] == [case.places]
