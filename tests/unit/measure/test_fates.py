"""The rows behind the counts: what became of each probe; and the evidence after a migration, as the report shows it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from testbed.measure.analysis import Run, analyse
from testbed.measure.fates import TOLD_OF_A_GAP, probe_rows
from testbed.measure.losses import Fate, Sighting
from testbed.measure.probepackets import ProbeKey
from testbed.measure.summary import summarise
from testbed.report.build import seeded
from testbed.report.context import migrations_of, with_mac_check
from testbed.report.evidence import evidence, impairments_table
from tests.unit.measure.synthetic import MAC, Story, event, events, manifest, migration, plan, probes, run

RTT_MS = 4.0


def answers(sent_ms: float) -> tuple[float, ...]:
    """Lost from 800 to 1594 ms; one reply held back behind others, one doubled."""
    if 800 <= sent_ms < 1594:
        return ()
    return {2000.0: (35.0,), 2100.0: (RTT_MS, RTT_MS)}.get(sent_ms, (RTT_MS,))


def analysed(fates: dict[ProbeKey, Fate] | None = None) -> Run:
    never = 2200.0
    series = probes(answers, lateness_ms=lambda due: None if due == never else 0.0)
    return replace(run(Story(), series), fates=fates)


def test_every_probe_has_one_outcome() -> None:
    rows = list(probe_rows(analyse(analysed())))
    outcomes = Counter(row.outcome for row in rows)
    assert outcomes["lost"] == 80
    assert outcomes["never sent"] == 1
    assert [row.sent_from_t0_ms for row in rows if row.reordered] == [2000.0]
    assert [row.sent_from_t0_ms for row in rows if row.replies == 2] == [2100.0]
    assert {row.rtt_ms for row in rows if row.outcome == "answered"} == {RTT_MS, 35.0}
    assert all(row.rtt_ms is None and row.received_ns is None for row in rows if row.outcome != "answered")


def test_a_lost_probe_says_which_way_and_where() -> None:
    first, second = 180, 181  # seq 0 goes out 1000 ms before t0
    fates = {
        ProbeKey("icmp", "to-guest", first): Fate(Sighting(1, "xtr-c-core", 5), None, ("xtr-a", "xtr-b")),
        ProbeKey("icmp", "to-guest", second): Fate(Sighting(1, "xtr-c-core", 6), Sighting(2, "xtr-b-eid", 7)),
    }
    analysis = analyse(analysed(fates))
    rows = {row.seq: row for row in probe_rows(analysis)}
    found = [(r.lost, r.last_seen, r.last_seen_frame, r.triangular) for r in (rows[first], rows[second], rows[182])]
    assert found == [
        ("request", "xtr-c-core", 5, True),
        ("reply", "xtr-b-eid", 7, False),
        ("", "", None, False),
    ]
    (entry,) = summarise(analysis, seeded(1)).data["migrations"]
    assert entry["probes"][0]["triangular"] == 1
    (gap,) = entry["gaps"]
    told = gap["told"]
    assert len(told) == TOLD_OF_A_GAP < gap["lost"]
    assert [one["seq"] for one in (told[0], told[-1])] == [gap["first_seq"], gap["last_seq"]]
    assert told[0] == {
        "seq": first, "sent_ms": 0.0, "fate": "request, last seen at xtr-c-core", "capture": "xtr-c-core", "frame": 5,
    }  # fmt: skip


def test_without_captures_nothing_is_said_of_places() -> None:
    (entry,) = summarise(analyse(analysed(None)), seeded(1)).data["migrations"]
    assert entry["probes"][0]["triangular"] is None
    assert {one["fate"] for one in entry["gaps"][0]["told"]} == {None}


def verified(**checks: bool) -> dict[str, Any]:
    """The summary's entry of a migration that was verified."""
    hosts = {"xen-a": {"libvirt": [{"name": "vm1", "state": "running"}]}, "xen-b": {"libvirt": []}}
    moved = {"xen-a": {"libvirt": []}, "xen-b": {"libvirt": [{"name": "vm1", "state": "running"}]}}
    all_events = [
        event(-900, "lab", "guest_identity", guest="vm1", boot_id="b-1", uptime_ms=1000),
        event(-2, "lab", "placement", index=0, when="before", hosts=hosts),
        *events(Story()),
        event(2991, "lab", "placement", index=0, when="after", hosts=moved),
        event(2992, "lab", "guest_identity", index=0, guest="vm1", boot_id="b-1", uptime_ms=4500),
        event(2993, "lab", "verification", index=0, ok=all(checks.values()), checks=checks, mapping=["10.0.2.2"]),
    ]
    (one,) = migrations_of(
        {**_plan(), "guests": [{"name": "vm1", "eid": "192.168.0.10", "mac": "52:54:00:00:00:0a"}]},
        manifest(),
        sorted(all_events, key=lambda e: e.mono_ns),
    )
    whole = replace(run(Story(), probes(answers)), migrations=[one])
    (entry,) = summarise(analyse(whole), seeded(1)).data["migrations"]
    return dict(entry)


def _plan() -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(plan())


def test_evidence_of_a_verified_migration() -> None:
    names = ("guest_only_here", "guest_answers", "mapping_only_here", "boot_id_unchanged", "uptime_not_backwards")
    rows = evidence(verified(**dict.fromkeys(names, True)))
    assert [row.ok for row in rows] == [True] * 5 + [None]  # nothing was captured
    seen = [row.seen for row in rows]
    assert seen[0] == "before: xen-a: vm1 (running), xen-b: nothing; after: xen-a: nothing, xen-b: vm1 (running)"
    assert seen[2] == "the Map-Server has 10.0.2.2"
    assert seen[3:5] == ["b-1", "1.0 s, then 4.5 s"]
    assert seen[5] == "no frame from its address was captured"


def test_a_check_that_failed_is_shown_as_such() -> None:
    entry = verified(guest_only_here=False, boot_id_unchanged=True)
    assert [row.ok for row in evidence(entry)] == [False, True, None]
    assert entry["verdict"] == "FAIL"


def test_a_place_of_emulated_guests_says_who_is_there() -> None:
    entry = verified(guest_only_here=True)
    places = {"site-a": {"guests": []}, "site-b": {"guests": ["vm1"]}}
    entry["verification"] = {**entry["verification"], "placement": {"before": None, "after": places}}
    assert evidence(entry)[0].seen == "site-a: nothing, site-b: vm1"


#: A verification that looked at nothing.
UNSEEN: dict[str, Any] = {
    "checks": {}, "mapping": [],
    "placement": {"before": None, "after": None}, "identity": {"before": None, "after": None},
}  # fmt: skip


@pytest.mark.parametrize(
    ("macs", "ok"), [({MAC}, True), ({MAC, "52:54:00:00:00:0b"}, False), ({"52:54:00:00:00:0b"}, False)]
)
def test_the_mac_is_a_check_that_can_fail(macs: set[str], ok: bool) -> None:
    one = migration(Story(), verification={**UNSEEN, "checks": {"guest_answers": True}})
    found = replace(run(Story(), probes(answers)), migrations=[with_mac_check(one, macs)])
    (entry,) = summarise(analyse(found), seeded(1)).data["migrations"]
    assert entry["verification"]["checks"]["mac_unchanged"] is ok
    assert entry["verdict"] == ("PASS" if ok else "FAIL")
    row = evidence(entry)[-1]
    assert (row.ok, row.words) == (ok, "its MAC address is the same")
    assert all(mac in row.seen for mac in macs)


def test_a_mac_that_was_not_seen_decides_nothing() -> None:
    one = migration(Story(), verification=UNSEEN)
    assert with_mac_check(one, set()) == one
    assert with_mac_check(migration(Story()), {MAC}).verification is None


def test_a_migration_that_was_not_verified_has_no_evidence() -> None:
    (entry,) = summarise(analyse(replace(analysed(), migrations=[migration(Story())])), seeded(1)).data["migrations"]
    assert evidence(entry) == []


def test_links_as_asked_and_as_they_are() -> None:
    link = {
        "link": "core-a", "backend": "relay", "rtt_ms": 10.238,
        "requested": {"delay_ms": 5.0, "jitter_ms": 0.0, "loss_percent": 0.5, "rate_mbit": 1000.0},
        "effective": {"delay_ns": 5000000, "jitter_ns": 0, "loss_ppb": 5000000, "rate_bps": 1000000000},
        "counters": [{"sent": 10, "lost": 1, "late": 0}, {"sent": 20, "queue_dropped": 2, "late": 3}],
    }  # fmt: skip
    table = impairments_table({"impairments": [link, {"link": "core-b", "backend": "netem", "requested": {}}]})
    asked = "delay 5 ms, loss 0.5 %, rate 1000 Mbit/s"
    assert [[cell.text for (cell,) in row.cells] for row in table.rows] == [
        ["core-a", "relay", asked, asked, "10.238", "30", "3", "3"],
        ["core-b", "netem", "nothing", "nothing", "—", "—", "—", "—"],
    ]
