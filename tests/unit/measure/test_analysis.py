"""Whole migrations whose figures are known by construction: timeline, phases, validity, verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from testbed.events import TIMELINE, Event
from testbed.measure.analysis import MigrationResult, Run, analyse
from testbed.measure.model import Interval
from testbed.measure.phases import PHASES, uncovered
from testbed.measure.summary import Summary, summarise
from testbed.measure.timeline import build_timeline
from testbed.measure.uncertainty import UNCERTAINTIES
from testbed.measure.verdict import Verdict
from tests.unit.measure.synthetic import (
    EID,
    MS,
    RLOC,
    START_NS,
    Story,
    clock,
    event,
    events,
    migration,
    outage,
    probes,
    run,
)


def one(found: Run) -> MigrationResult:
    (result,) = analyse(found).migrations
    return result


def summary(found: Run, *fail_if: str) -> Summary:
    return summarise(analyse(found), lambda name: np.random.default_rng(1), fail_if)


LOST = outage((800, 1594))


def test_whole_migration() -> None:
    result = summary(run(Story(), probes(LOST)))
    (entry,) = result.data["migrations"]
    assert result.verdict is Verdict.PASS
    assert entry["metrics"]["migration_time_ms"] == 1500.0
    assert entry["metrics"]["vm_downtime_ms"] == 700.0
    assert entry["metrics"]["remap_latency_ms"] == 84.0
    assert entry["metrics"]["stuntime_ms"] == 810.0  # answers of 794 and 1604
    assert entry["metrics"]["stuntime_by_send_ms"] == 810.0
    assert entry["metrics"]["naive_outage_ms"] == 800.0
    assert entry["phases_ms"] == {
        "detection": 4.0,
        "registration": 24.0,
        "notification": 19.0,
        "timer_wait": None,
        "resolution": 30.0,
        "installation": 4.0,
    }
    assert entry["origin"]["label"] == "t2"
    assert (entry["gaps"][0]["start_ms"], entry["gaps"][0]["lost"]) == (-6.0, 80)
    assert result.exit_code == 0


@pytest.mark.parametrize(("ours", "theirs"), [(0, 8), (7, 0), (7, 8)])
def test_the_same_eid_in_another_instance_is_somebody_elses(ours: int, theirs: int) -> None:
    def within(each: Event, instance_id: int, later_ms: int = 0) -> Event:
        named = {"instance_id": instance_id} if instance_id and "eid" in each.fields else {}
        return replace(each, mono_ns=each.mono_ns + later_ms * MS, fields={**each.fields, **named})

    story = events(Story())
    expected = build_timeline(migration(Story()), story).marks
    own = [within(each, ours) for each in story]
    # A moment before and after: whichever of two candidates a mark prefers, it would be one of these.
    others = [
        within(replace(each, fields={**each.fields, "limiter": "smr_interval_s"}), theirs, by_ms)
        for each in story
        if "eid" in each.fields
        for by_ms in (-1, 1)
    ]
    moved = migration(Story(), instance_id=ours)
    both = sorted([*own, *others], key=lambda each: each.mono_ns)
    assert build_timeline(moved, both).marks == expected
    assert build_timeline(migration(Story(), instance_id=9), both).at("t13") is None
    found = run(Story(), probes(LOST))
    assert one(replace(found, events=both, migrations=[moved])).limiters == ()


def test_parts_and_remainders_add_up() -> None:
    entry = summary(run(Story(), probes(LOST))).data["migrations"][0]
    metrics = entry["metrics"]
    assert metrics["hypervisor_part_ms"] == 700.0 + 10.0  # t2 → t3 → t4
    assert metrics["network_part_ms"] == 4 + 24 + 19 + 30 + 4
    # 794 → t2, t5 → t6, t7 → t9, t13 → the first answer
    assert [(rest["after"], rest["before"], rest["length_ms"]) for rest in entry["unattributed"]] == [
        ("the last answer", "t2", 6.0),
        ("t5", "t6", 2.0),
        ("t7", "t9", 1.0),
        ("t13", "the first answer", 10.0),
    ]
    assert metrics["unattributed_ms"] == 19.0
    parts = metrics["hypervisor_part_ms"] + metrics["network_part_ms"] + metrics["unattributed_ms"]
    assert parts == metrics["stuntime_ms"]
    assert not entry["flagged"]


def test_unexplained_outage_is_flagged_and_shown() -> None:
    result = summary(run(Story(), probes(outage((800, 2000)))))
    (entry,) = result.data["migrations"]
    assert entry["metrics"]["unattributed_ms"] == 1210.0 - 710.0 - 81.0
    assert entry["flagged"]
    assert result.verdict is Verdict.PASS  # a flag is for the reader, it judges nothing


def test_two_gaps_the_blackout_takes_the_longest_that_overlaps_it() -> None:
    result = one(run(Story(), probes(outage((300, 310), (800, 1200), (1210, 1594)))))
    assert result.phases.chosen is not None
    assert result.phases.chosen.lost == 40
    assert result.phases.length_ms("stuntime") == 410.0
    assert len(result.phases.others) == 2


def test_a_longer_gap_far_from_the_blackout_is_not_the_outage() -> None:
    result = one(run(Story(), probes(outage((820, 1000), (2000, 2600)))))
    assert result.phases.chosen is not None
    assert result.phases.chosen.first_sent_ns == START_NS + 820 * MS
    assert result.phases.length_ms("stuntime") == 190.0


def test_without_t2_the_longest_gap_of_the_window_counts() -> None:
    result = one(run(Story().without("t2"), probes(outage((300, 310), (800, 1594)))))
    assert result.phases.chosen is not None
    assert result.phases.chosen.lost == 80
    assert result.timeline.origin()[0] == "t0"
    assert result.phases.length_ms("vm_downtime") is None
    assert "guest_suspended" in result.phases.reasons["vm_downtime"]


def test_nothing_lost_is_measured_as_nothing() -> None:
    result = summary(run(Story(), probes(outage())))
    metrics = result.data["migrations"][0]["metrics"]
    assert metrics["stuntime_ms"] == 0.0
    assert metrics["unattributed_ms"] == 0.0
    assert "below 10 ms" in result.headline


def test_delayed_not_lost_is_an_excursion() -> None:
    def held(sent_ms: float) -> tuple[float, ...]:
        return (1598.0 - sent_ms,) if 800 <= sent_ms < 1594 else (4.0,)

    metrics = summary(run(Story(), probes(held))).data["migrations"][0]["metrics"]
    assert metrics["stuntime_ms"] == 0.0
    assert metrics["naive_outage_ms"] == 0.0
    assert metrics["longest_silence_ms"] == 804.0
    assert metrics["highest_rtt_ms"] == 798.0


def test_excursion_of_precopy_is_told_from_that_of_the_blackout() -> None:
    """Pre-copy slows 20 probes; the blackout holds 80 back, the last one sent before t2 among them."""

    def slow(sent_ms: float) -> tuple[float, ...]:
        held = 1598.0 - sent_ms
        return (held,) if 797 <= sent_ms < 1594 else (30.0,) if 200 <= sent_ms < 400 else (4.0,)

    metrics = summary(run(Story().with_(t2=802.0), probes(slow))).data["migrations"][0]["metrics"]
    assert metrics["highest_rtt_precopy_ms"] == 30.0
    assert metrics["above_baseline_p99_precopy_ms"] == 200.0
    assert metrics["highest_rtt_after_t2_ms"] == 798.0
    assert metrics["above_baseline_p99_after_t2_ms"] == 800.0
    assert metrics["above_baseline_p99_ms"] == 1000.0
    entry = summary(run(Story().without("t2", "t4"), probes(slow))).data["migrations"][0]
    assert entry["metrics"]["highest_rtt_precopy_ms"] is None
    assert entry["reasons"]["highest_rtt_precopy_ms"] == "needs t2"


def test_duplicates_are_counted_and_hide_nothing() -> None:
    def twice(sent_ms: float) -> tuple[float, ...]:
        return () if 800 <= sent_ms < 1594 else (4.0, 6.0) if sent_ms >= 1594 else (4.0,)

    metrics = summary(run(Story(), probes(twice))).data["migrations"][0]["metrics"]
    assert metrics["probes_duplicated"] == 139  # sent from 1600 to 2980
    assert metrics["probes_lost"] == 80
    assert metrics["stuntime_ms"] == 810.0


def test_only_the_way_towards_the_guest_is_lost() -> None:
    lost, whole = probes(LOST), probes(outage(), direction="from-guest")
    entry = summary(run(Story(), whole, lost)).data["migrations"][0]
    assert entry["metrics"]["stuntime_ms"] == 810.0
    assert [(flow["direction"], flow["lost"]) for flow in entry["probes"]] == [
        ("to-guest", 80),
        ("from-guest", 0),
    ]
    assert {gap["direction"] for gap in entry["gaps"]} == {"to-guest"}


def test_failed_migration_keeps_everything() -> None:
    labels = [f"t{n}" for n in range(3, 14)]
    story = replace(Story().without(*labels), ok=False, error="timed out")
    result = summary(run(story, probes(outage((800, 9999)))))
    (entry,) = result.data["migrations"]
    assert result.verdict is Verdict.FAIL
    assert result.exit_code == 10
    assert entry["metrics"]["stuntime_ms"] is None
    assert "at least" in entry["reasons"]["stuntime_ms"]
    for name in ("migration_time_ms", "vm_downtime_ms", "remap_latency_ms", "unattributed_ms"):
        assert entry["metrics"][name] is None
        assert entry["reasons"][name]
    for phase in PHASES:
        assert entry["phases_ms"][phase] is None
        assert entry["reasons"][phase]
    assert entry["gaps"][0]["open"]
    assert entry["metrics"]["probes_lost"] > 200
    assert result.headline == "vm1 did not move from site-a to site-b: timed out"
    assert result.data["success"]["failures"] == {"timed out": 1}


def test_every_null_has_its_reason() -> None:
    for missing in [f"t{n}" for n in range(1, 14)]:
        entry = summary(run(Story().without(missing), probes(LOST))).data["migrations"][0]
        for name, value in entry["metrics"].items():
            assert value is not None or entry["reasons"].get(name), (missing, name)
        for name, value in entry["phases_ms"].items():
            assert value is not None or entry["reasons"].get(name), (missing, name)


def test_migrated_but_never_answering_again_is_a_failure() -> None:
    result = summary(run(Story(), probes(outage((800, 9999)))))
    assert result.verdict is Verdict.FAIL
    assert "at least" in result.headline


def test_migration_without_end_is_an_error() -> None:
    result = summary(run(replace(Story(), ok=None), probes(LOST)))
    assert result.verdict is Verdict.ERROR
    assert result.exit_code == 11


@pytest.mark.parametrize(("step_ms", "verdict"), [(0.4, Verdict.PASS), (1.5, Verdict.INVALID), (-40, Verdict.INVALID)])
def test_clock_step(step_ms: float, verdict: Verdict) -> None:
    result = summary(run(Story(), probes(LOST), clock=clock(step_ms)))
    assert result.verdict is verdict


def test_starved_prober_is_invalid() -> None:
    starved = probes(LOST, lateness_ms=lambda due: 30.0 if 800 <= due < 1000 else 0.0)
    result = summary(run(Story(), starved))
    assert result.verdict is Verdict.INVALID
    assert result.exit_code == 12
    late = [f for f in result.data["validity"] if f["ok"] is False]
    assert [f["name"] for f in late] == ["prober on time, migration 0, icmp to-guest"]
    assert result.data["migrations"][0]["metrics"]["probes_late"] == 20


def test_probes_never_sent_are_invalid() -> None:
    holes = probes(LOST, lateness_ms=lambda due: None if 200 <= due < 430 else 0.0)
    result = summary(run(Story(), holes))
    assert result.verdict is Verdict.INVALID
    assert result.data["migrations"][0]["metrics"]["probes_never_sent"] == 23


def test_few_probes_never_sent_are_flagged() -> None:
    holes = probes(LOST, lateness_ms=lambda due: None if 200 <= due < 230 else 0.0)
    result = summary(run(Story(), holes))
    assert result.verdict is Verdict.PASS
    (finding,) = [f for f in result.data["validity"] if f["ok"] is False]
    assert (finding["severity"], finding["name"]) == ("flag", "all probes sent, migration 0, icmp to-guest")
    assert result.data["migrations"][0]["metrics"]["probes_never_sent"] == 3


def test_a_guest_that_is_not_where_it_should_be_is_a_failure() -> None:
    story = run(Story(), probes(LOST))
    lost = replace(story.migrations[0], failed_checks=("guest_only_here",))
    result = summary(replace(story, migrations=[lost]))
    assert result.verdict is Verdict.FAIL
    assert "guest_only_here" in result.data["migrations"][0]["error"]


def test_dirty_baseline_is_invalid() -> None:
    assert summary(run(Story(), probes(outage((-500, -490), (800, 1594))))).verdict is Verdict.INVALID


def test_requested_loss_does_not_dirty_the_baseline() -> None:
    def lossy(sent_ms: float) -> tuple[float, ...]:
        return () if sent_ms % 250 == 0 or 800 <= sent_ms < 1594 else (4.0,)

    found = run(Story(), probes(lossy))
    assert summary(found).verdict is Verdict.INVALID
    assert summary(replace(found, expected_loss=0.04)).verdict is Verdict.PASS


def test_dropped_frames_are_invalid() -> None:
    captures = [{"node": "xtr-b", "interface": "eid", "file": "x", "dropped": 3}]
    assert summary(run(Story(), probes(LOST), captures=captures)).verdict is Verdict.INVALID


def test_no_probes_is_invalid_and_nothing_is_invented() -> None:
    result = summary(run(Story()))
    assert result.verdict is Verdict.INVALID
    (entry,) = result.data["migrations"]
    assert entry["metrics"]["stuntime_ms"] is None
    assert entry["metrics"]["probes_sent"] is None
    assert entry["metrics"]["vm_downtime_ms"] == 700.0


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        ({"ok": False, "error": "xen-a did not boot", "code": 11}, Verdict.ERROR),
        ({"ok": False, "error": "no image", "code": 13}, Verdict.SKIPPED),
        (None, Verdict.ERROR),
    ],
)
def test_run_that_broke_off(outcome: dict[str, Any] | None, verdict: Verdict) -> None:
    found = replace(run(Story(), probes(LOST), outcome=outcome), migrations=[])
    result = summary(found)
    assert result.verdict is verdict
    assert result.headline.startswith("Nothing was migrated")


@pytest.mark.parametrize(("settled", "verdict"), [(True, "FAIL"), (False, "ERROR")])
def test_silence_at_the_end_says_something_only_if_it_was_waited_out(settled: bool, verdict: str) -> None:
    story = Story()
    found = replace(run(story, probes(outage((800, 9999)))), migrations=[migration(story, settled=settled)])
    result = one(found)
    assert result.flows[0].gaps[0].is_open
    assert result.verdict.value == verdict


def test_a_failed_migration_comes_before_a_stepped_clock() -> None:
    story = replace(Story(), ok=False, error="refused")
    assert summary(run(story, probes(LOST), clock=clock(9))).verdict is Verdict.FAIL


def test_threshold() -> None:
    found = run(Story(), probes(LOST))
    assert summary(found, "stuntime_ms.median > 2000").verdict is Verdict.PASS
    failed = summary(found, "stuntime_ms.median > 500")
    assert failed.verdict is Verdict.FAIL
    assert failed.data["thresholds"][0]["detail"] == "stuntime_ms.median = 810"


def test_threshold_judges_only_valid_figures() -> None:
    found = run(Story(), probes(LOST), clock=clock(9))
    assert summary(found, "stuntime_ms.median > 500").verdict is Verdict.INVALID


@pytest.mark.parametrize(
    ("expression", "detail"),
    [
        ("remap_latency_ms.median > 10", "remap_latency_ms.median = not measured"),
        ("stuntime_ms.p95 > 10", "stuntime_ms.p95 = not measured (n = 1: a one-sided 95 % statement needs 59)"),
    ],
)
def test_threshold_on_what_was_not_measured_does_not_pass(expression: str, detail: str) -> None:
    result = summary(run(Story().without("t13"), probes(LOST)), expression)
    assert result.verdict is Verdict.INVALID
    assert result.data["thresholds"][0]["detail"] == detail
    # Beside one that holds it does not matter: that one is known.
    assert summary(run(Story().without("t13"), probes(LOST)), expression, "stuntime_ms > 1").verdict is Verdict.FAIL


def test_pubsub_has_no_resolution_and_is_notified_by_the_publication() -> None:
    story = Story(mechanism="pubsub")
    entry = summary(run(story, probes(LOST))).data["migrations"][0]
    assert entry["phases_ms"]["resolution"] is None
    assert entry["reasons"]["resolution"].startswith("not applicable")
    assert entry["phases_between"]["notification"] == ["t8", "t11"]
    assert entry["phases_ms"]["notification"] == 62.0


def test_with_ttl_nobody_notifies() -> None:
    entry = summary(run(Story(mechanism="ttl"), probes(LOST))).data["migrations"][0]
    assert entry["phases_ms"]["notification"] is None
    assert entry["reasons"]["notification"].startswith("not applicable")


def waiting(mechanism: str, asked: str, answered: str) -> Run:
    """The ITR asks a second after the new mapping is there, and gets it; the peer waits all the time."""
    story = Story(mechanism=mechanism).with_(t10=None, t11=None, t12=2532.0, t13=2534.0)
    said = [
        *events(story),
        event(2500, "xtr-c", asked, eid=f"{EID}/32", nonce="0x1"),
        event(2530, "xtr-c", answered, eid=f"{EID}/32", nonce="0x1"),
    ]
    return replace(run(story, probes(outage((800, 2534)))), events=sorted(said, key=lambda e: e.mono_ns))


@pytest.mark.parametrize(
    ("mechanism", "asked", "answered"),
    [("ttl", "map_request_sent", "map_reply_received"), ("rloc-probe", "rloc_probe_sent", "rloc_probe_answered")],
)
def test_waiting_for_a_timer_is_a_part_of_its_own(mechanism: str, asked: str, answered: str) -> None:
    found = waiting(mechanism, asked, answered)
    expired = event(2495, "xtr-c", "map_cache_expired", eid=f"{EID}/32", old_rloc=RLOC["site-a"])
    found = replace(found, events=sorted([*found.events, expired], key=lambda e: e.mono_ns))
    (entry,) = summary(found).data["migrations"]
    assert entry["phases_ms"]["timer_wait"] == 972.0  # from 1528, when the Map-Server has the new mapping
    assert entry["phases_between"]["timer_wait"] == ["t8", "t10"]
    assert entry["phases_ms"]["resolution"] == 30.0
    metrics = entry["metrics"]
    assert metrics["unattributed_ms"] < 0.02 * metrics["stuntime_ms"]
    assert metrics["network_part_ms"] > 1000
    assert not entry["flagged"]


def test_an_itr_that_asks_before_its_entry_expires_has_not_waited_for_that() -> None:
    (entry,) = summary(waiting("ttl", "map_request_sent", "map_reply_received")).data["migrations"]
    assert entry["phases_ms"]["timer_wait"] is None
    assert entry["reasons"]["timer_wait"] == "xtr-c asked though its entry had not expired"
    assert entry["flagged"]
    (told,) = summary(run(Story(), probes(LOST))).data["migrations"]
    assert told["reasons"]["timer_wait"] == "not applicable: with smr-old-xtr the ITR is told"


def test_an_outage_that_the_old_xtr_ends_did_not_wait_for_the_probe() -> None:
    """It sends the packets on from 1650 ms; the ITR's probe is a second away."""
    found = waiting("rloc-probe", "rloc_probe_sent", "rloc_probe_answered")
    (entry,) = summary(replace(found, series=[probes(outage((800, 1650)))])).data["migrations"]
    assert entry["phases_ms"]["timer_wait"] == 972.0
    last = entry["unattributed"][-1]
    assert (last["after"], last["before"]) == ("t7", "the first answer")
    assert last["length_ms"] == 114.0


def test_timeline_takes_the_right_events() -> None:
    """The noise of other EIDs, nodes and refreshes in `synthetic.events` is left alone."""
    story = Story()
    timeline = build_timeline(migration(story), events(story))
    wanted = {label: round(START_NS + at * MS) for label, at in story.marks.items() if at is not None}
    assert {label: mark.mono_ns for label, mark in timeline.marks.items() if label != "t0"} == wanted


def test_retransmitted_request_counts_from_the_first_one() -> None:
    story = Story()
    more = [*events(story), event(1550, "xtr-c", "map_request_sent", eid=EID, nonce=98)]
    timeline = build_timeline(migration(story), sorted(more, key=lambda e: e.mono_ns))
    assert timeline.at("t10") == START_NS + 1550 * MS


def test_request_that_was_answered_with_the_old_rloc_is_another_resolution() -> None:
    story = Story()
    stale = [
        event(900, "xtr-c", "map_request_sent", eid=EID, nonce=50),
        event(930, "xtr-c", "map_reply_received", eid=EID, rloc=RLOC["site-a"], nonce=50),
    ]
    timeline = build_timeline(migration(story), sorted([*events(story), *stale], key=lambda e: e.mono_ns))
    assert timeline.at("t10") == START_NS + 1560 * MS
    assert timeline.at("t11") == START_NS + 1590 * MS


def test_notify_of_another_register_is_not_the_acknowledgement() -> None:
    story = Story()
    more = [*events(story), event(1520, "xtr-b", "map_notify_received", eid=EID, nonce=555)]
    timeline = build_timeline(migration(story), sorted(more, key=lambda e: e.mono_ns))
    assert timeline.at("t7") == START_NS + 1540 * MS


def test_prefix_is_not_the_eid() -> None:
    story = Story()
    more = [*events(story), event(1400, "ms", "mapping_changed", eid="192.168.0.0/24", rloc=RLOC["site-b"])]
    timeline = build_timeline(migration(story), sorted(more, key=lambda e: e.mono_ns))
    assert timeline.at("t8") == START_NS + 1528 * MS
    exact = [
        *events(story.without("t8")),
        event(1400, "ms", "mapping_changed", eid=EID + "/32", rloc=RLOC["site-b"]),
    ]
    assert build_timeline(migration(story), exact).at("t8") == START_NS + 1400 * MS


def test_two_sources_are_both_kept_and_the_surer_taken() -> None:
    story = Story()
    late = event(830, "xen-a", "guest_suspended", guest="vm1", uncertainty_ms=50.0, via="libvirt")
    timeline = build_timeline(migration(story), sorted([*events(story), late], key=lambda e: e.mono_ns))
    mark = timeline.marks["t2"]
    assert (mark.via, mark.mono_ns) == ("libxl", START_NS + 800 * MS)
    (other,) = mark.others
    assert (other.via, other.difference_ms) == ("libvirt", 30.0)


def test_guest_that_sends_is_running() -> None:
    """A callback that comes after the first frame gives way to the frame, and is kept beside it."""
    timeline = build_timeline(migration(Story()), events(Story().with_(t3=1600.0)))
    mark = timeline.marks["t3"]
    assert (mark.via, mark.mono_ns) == ("frame", START_NS + 1510 * MS)
    assert mark.others[0].difference_ms == 90.0


def test_guest_that_still_sends_is_not_suspended() -> None:
    story = Story()
    frame = event(815, "tap-site-a", "guest_last_frame", guest="vm1", uncertainty_ms=0.1, via="frame")
    mark = build_timeline(migration(story), [*events(story), frame]).marks["t2"]
    assert (mark.via, mark.mono_ns) == ("frame", START_NS + 815 * MS)


def test_detection_before_the_first_frame_is_not_negative_time() -> None:
    result = one(run(Story().with_(t5=1505.0), probes(LOST)))
    assert result.phases.length_ms("detection") is None
    assert result.phases.reasons["detection"] == "t5 came 5.0 ms before t4"


def test_both_sites_claim() -> None:
    entry = summary(run(Story(), probes(LOST))).data["migrations"][0]
    assert entry["metrics"]["both_sites_ms"] == 27.0


def test_netns_never_calls_itself_a_vm_migration() -> None:
    result = summary(run(Story(), probes(LOST), substrate="netns", accelerator="none"))
    assert "emulated guest" in result.headline
    assert "hypervisor" not in result.headline
    assert "VM" not in result.headline


def test_headline_adds_up_as_read() -> None:
    result = summary(run(Story(), probes(LOST)))
    assert result.headline == (
        "vm1 moved from site-a to site-b: its peer lost it for 810 ms: "
        "710.0 ms the hypervisor, 81.0 ms the network's remapping, 19.0 ms unattributed"
    )


def test_uncovered() -> None:
    whole = Interval(0, 100)
    parts = [Interval(10, 20), Interval(15, 40), Interval(90, 200), Interval(60, 60), Interval(-50, 5)]
    assert uncovered(whole, parts) == [Interval(5, 10), Interval(40, 90)]
    assert uncovered(whole, []) == [whole]
    assert uncovered(whole, [Interval(-1, 101)]) == []


def test_same_input_same_summary() -> None:
    found = run(Story(), probes(LOST))
    assert summary(found).to_json() == summary(found).to_json()


@pytest.mark.parametrize(("load", "ok"), [(2.0, True), (2.1, False), (None, None)])
def test_a_machine_that_is_busy_before_the_run_flags_it(load: float | None, ok: bool | None) -> None:
    found = run(Story(), probes(LOST), host={"cores": 2, "load_before": load, "load_after": 3.5, "steal_percent": 0.0})
    result = summary(found)
    (check,) = [one for one in result.data["validity"] if one["name"] == "machine free before"]
    assert (check["ok"], check["severity"]) == (ok, "flag")
    assert result.verdict is Verdict.PASS


def test_every_mark_has_an_uncertainty_and_one_that_nobody_knows_is_the_least_sure() -> None:
    unsaid = {"precopy_started", "guest_suspended", "guest_resumed", "guest_first_frame", "first_answered_probe"}
    assert {kind for _, kind, _ in TIMELINE} - unsaid <= set(UNCERTAINTIES)  # these say it themselves
    story = Story()
    heard = event(1509.0, "xen-b", "guest_first_frame", guest="vm1")  # earlier, and nobody knows how sure
    found = replace(run(story, probes(LOST)), events=sorted([*events(story), heard], key=lambda e: e.mono_ns))
    (entry,) = summary(found).data["migrations"]
    t4 = next(one for one in entry["events"] if one["label"] == "t4")
    assert t4["source"] == "tap-site-b"
    assert [one["source"] for one in t4["others"]] == ["xen-b"]
    by_label = {one["label"]: one.get("uncertainty_ms") for one in entry["events"]}
    assert [label for label, known in by_label.items() if known is None] == ["t1"]  # of no capture


def test_t5_has_the_kernels_stamp_of_the_frame_beside_it() -> None:
    seen = event(1511.5, "xtr-b", "eid_detected").mono_ns
    said = [
        replace(e, fields={**e.fields, "seen_ns": seen}) if e.kind == "eid_detected" else e for e in events(Story())
    ]
    timeline = build_timeline(migration(Story()), said)
    (word,) = timeline.marks["t5"].others
    assert (word.via, word.difference_ms) == ("kernel", -2.5)
    assert timeline.at("t5") == event(1514.0, "xtr-b", "eid_detected").mono_ns


def test_an_emulated_guest_has_no_precopy() -> None:
    timeline = build_timeline(migration(Story(), has_precopy=False), events(Story().without("t1")))
    assert timeline.missing["t1"].startswith("not applicable")
