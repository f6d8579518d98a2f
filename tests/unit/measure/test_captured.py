"""Probe logs that are made of captures: what a guest sent and took, told by frames at its hosts' taps."""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dpkt
import numpy as np
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.measure.analysis import Run, analyse
from testbed.measure.captured import SCHEDULE_WINDOW_NS, SILENT_NS, CapturedProbes, schedule
from testbed.measure.fates import probe_rows
from testbed.measure.frames import Frame
from testbed.measure.gaps import count, find_gaps
from testbed.measure.losses import LossFinder, lost_where
from testbed.measure.model import Interval, ProbeSeries
from testbed.measure.summary import summarise
from testbed.report import build_report
from testbed.report.build import seeded
from testbed.report.migration_tables import gaps_table, probes_table
from tests.folders import digests
from tests.unit.measure.packets import GATEWAY, PEER, ethernet, packet, probe
from tests.unit.measure.synthetic import (
    EID,
    INTERVAL_MS,
    MAC,
    MS,
    START_NS,
    WALL_OFFSET_NS,
    Story,
    outage,
    probes,
    run,
    write_run,
)

A, B = ("xen-a", "eid"), ("xen-b", "eid")
INTERVAL_NS = INTERVAL_MS * MS
RTT_MS = 4.0


@dataclass(frozen=True)
class Seen:
    """A frame at a tap, `at_ms` from the request to migrate."""

    at_ms: float
    place: tuple[str, str]
    data: bytes

    @property
    def mono_ns(self) -> int:
        return START_NS + round(self.at_ms * MS)


def asks(at_ms: float, seq: int, place: tuple[str, str] = A, *, flow: str = "icmp", eid: str = EID) -> Seen:
    body = probe(seq, echo_type=8) if flow == "icmp" else probe(seq)
    return Seen(at_ms, place, ethernet(MAC, packet(eid, PEER, 1 if flow == "icmp" else 17, body)))


def answers(at_ms: float, seq: int, place: tuple[str, str] = A, *, flow: str = "icmp") -> Seen:
    body = probe(seq, echo_type=0) if flow == "icmp" else probe(seq, answers=True)
    return Seen(at_ms, place, ethernet(GATEWAY, packet(PEER, EID, 1 if flow == "icmp" else 17, body)))


def speaks(at_ms: float, place: tuple[str, str]) -> Seen:
    """Any other frame of the guest's."""
    return Seen(at_ms, place, ethernet(MAC, b"\x45"))


def turns(numbers: Iterable[int], first_ms: float, place: tuple[str, str], *, flow: str = "icmp") -> Iterator[Seen]:
    """Probes of a guest that is on time, the first of them sent at `first_ms`, all answered and taken."""
    numbers = list(numbers)
    for seq in numbers:
        sent_ms = first_ms + (seq - numbers[0]) * INTERVAL_MS
        yield from (asks(sent_ms, seq, place, flow=flow), answers(sent_ms + RTT_MS, seq, place, flow=flow))
    yield speaks(sent_ms + RTT_MS + 1, place)


def collector(frames: Iterable[Seen], eid: str = EID) -> CapturedProbes:
    found = CapturedProbes({eid}, {MAC}, {A, B})
    for frame in frames:
        found.see(Frame(0, *frame.place, frame.data), frame.mono_ns)
    return found


def log_of(
    frames: Iterable[Seen], *, flow: str = "icmp", suspended_ms: Iterable[float] = (), end_ns: int | None = None
) -> ProbeSeries:
    suspended_ns = [START_NS + round(at_ms * MS) for at_ms in suspended_ms]
    return collector(frames).log(flow, INTERVAL_NS, suspended_ns, end_ns)


def rows(series: ProbeSeries) -> list[tuple[int, float, float | None, float | None, int]]:
    """(number, due, sent, received, replies) of each, in ms from the request to migrate; -1 and None for none."""

    def at(ns: int) -> float | None:
        return None if ns < 0 else round((int(ns) - START_NS) / MS, 3)

    columns = (series.seq, series.scheduled_ns, series.sent_ns, series.received_ns, series.replies)
    return [
        (int(seq), at(due) or 0.0, at(sent), at(received), int(replies))
        for seq, due, sent, received, replies in zip(*columns, strict=True)
    ]


def test_sent_and_answered_at_the_tap() -> None:
    series = log_of(turns(range(5, 8), 100.0, A))
    assert rows(series) == [(5, 100, 100, 104, 1), (6, 110, 110, 114, 1), (7, 120, 120, 124, 1)]
    assert (series.flow, series.direction, series.captured) == ("icmp", "from-guest", True)
    assert set(series.kernel_sent_ns) == {-1}  # the guest's kernel does not say


def test_a_lost_request_and_a_lost_reply_are_lost_where_they_were() -> None:
    frames = [*turns(range(3), 0.0, A), asks(30, 3), asks(40, 4), *turns(range(5, 8), 50.0, A)]
    series = log_of(frames)
    (gap,) = find_gaps(series)
    assert (gap.lost, gap.unsendable, gap.first_seq, gap.last_seq) == (2, 0, 3, 4)
    assert gap.length_ns == 30 * MS  # the answers of 24 and 54
    finder = LossFinder.of([], [EID], unlogged=["from-guest"])
    for frame in frames:
        finder.see(Frame(0, *frame.place, frame.data), frame.mono_ns)
    finder.see(Frame(0, "xtr-a", "core", answers(49, 4).data), START_NS + 49 * MS)
    places = lost_where(gap, series, finder.fates)
    assert places == {"reply, last seen at xtr-a-core": 1, "request, last seen at xen-a-eid": 1}


def test_a_duplicated_reply_counts_from_the_first() -> None:
    series = log_of([*turns(range(3), 0.0, A), answers(12, 0), *turns(range(3, 5), 30.0, A)])
    assert rows(series)[0] == (0, 0, 0, 4, 2)
    assert count(series, INTERVAL_NS).duplicated == 1


def test_a_suspension_without_any_loss_is_a_gap() -> None:
    """The guest's clock counted 100 turns while the machine's had 170: 70 more could not be sent, nor any between."""
    series = log_of([*turns(range(100), -1000.0, A), *turns(range(100, 200), 700.0, B)])
    (gap,) = find_gaps(series)
    assert (gap.lost, gap.unsendable, gap.first_seq, gap.last_seq) == (0, 70, None, None)
    assert gap.length_ns == 710 * MS  # the answers of -6 and 704
    assert gap.length_by_send_ns == 710 * MS
    counts = count(series, INTERVAL_NS)
    assert (counts.due, counts.sent, counts.never_sent, counts.unsendable, counts.lost) == (270, 200, 0, 70, 0)
    assert counts.between_sends_p99_ns == INTERVAL_NS
    assert counts.naive_ns == 0  # a ping of the guest's own would have seen nothing


def test_lost_and_unsendable_are_one_gap_and_kept_apart() -> None:
    leaving = [asks(0, 100, A), asks(10, 101, A)]
    arriving = [asks(720, 110, B), asks(730, 111, B)]  # eight turns were counted by a guest whose device was not there
    series = log_of([*turns(range(100), -1000.0, A), *leaving, *arriving, *turns(range(112, 150), 740.0, B)])
    (gap,) = find_gaps(series)
    assert (gap.lost, gap.unsendable, gap.first_seq, gap.last_seq) == (4, 70, 100, 111)
    assert gap.length_ns == 750 * MS
    assert count(series, INTERVAL_NS).never_sent == 0


def test_what_its_device_held_back_goes_out_late_and_at_once() -> None:
    held = [asks(720 + n / 10, 100 + n, B) for n in range(5)]
    series = log_of([*turns(range(100), -1000.0, A), *held, *turns(range(105, 400), 730.0, B)])
    late = [(seq, due, sent) for seq, due, sent, *_ in rows(series) if 100 <= seq < 105]
    assert late == [(100, 680, 720), (101, 690, 720.1), (102, 700, 720.2), (103, 710, 720.3), (104, 720, 720.4)]
    assert find_gaps(series)[0].unsendable == 68  # from 0 to 670


def test_a_request_at_both_taps_was_sent_at_the_first() -> None:
    frames = [*turns(range(3), 0.0, A), asks(21, 2, B), *turns(range(3, 5), 30.0, B)]
    assert rows(log_of(frames))[2] == (2, 20, 20, None, 0)  # and it left before its reply could come


def test_a_reply_where_the_guest_is_not_is_none() -> None:
    leaving = [asks(0, 100, A), answers(15, 100, A)]  # suspended meanwhile: nothing of the guest is seen after it
    at_the_old_site = [asks(700, 101, B), answers(720, 101, A)]
    series = log_of([*turns(range(100), -1000.0, A), *leaving, *at_the_old_site, *turns(range(102, 110), 710.0, B)])
    assert [row[3] for row in rows(series) if row[0] in (100, 101)] == [None, None]


def test_a_turn_that_was_missed_is_never_sent() -> None:
    series = log_of([*turns(range(10), 0.0, A), *turns(range(12, 20), 120.0, A)])
    assert [row for row in rows(series) if row[2] is None] == [(10, 100, None, None, 0), (11, 110, None, None, 0)]
    assert find_gaps(series) == []
    assert count(series, INTERVAL_NS).between_sends_p99_ns > 2 * INTERVAL_NS


def test_a_guest_that_is_not_heard_again_leaves_an_open_gap() -> None:
    silent_ms = SILENT_NS / MS + 10
    heard = list(turns(range(100), 0.0, A))
    (gap,) = find_gaps(log_of([*heard, Seen(990 + silent_ms, A, ethernet(GATEWAY, b"\x45"))]))
    assert gap.is_open
    assert gap.at_least_ns > SILENT_NS - 3 * INTERVAL_NS
    assert find_gaps(log_of([*heard, Seen(1500, A, ethernet(GATEWAY, b"\x45"))])) == []


def test_a_guest_that_was_suspended_and_stayed() -> None:
    """A migration failed after the suspension: no frame says that it left, but the hypervisor does."""
    frames = [*turns(range(100), -1000.0, A), *turns(range(100, 200), 700.0, A)]
    (gap,) = find_gaps(log_of(frames, suspended_ms=[5]))
    assert (gap.lost, gap.unsendable, gap.length_ns) == (0, 70, 710 * MS)
    # Without that word it may as well have been starved: late, and not suspended.
    starved = log_of(frames)
    assert find_gaps(starved) == []
    assert count(starved, INTERVAL_NS).lateness_p99_ns == 700 * MS


def test_the_log_ends_with_the_probing() -> None:
    series = log_of(turns(range(100), 0.0, A), end_ns=START_NS + 500 * MS)
    assert len(series) == 50
    assert series.was_answered.all()


def test_a_second_boot_is_left_out_and_said() -> None:
    other = asks(500, 3).data.replace(b"whichrun", b"otherrun")
    found = collector([*turns(range(10), 0.0, A), Seen(500, A, other)])
    assert len(found.log("icmp", INTERVAL_NS, (), None)) == 10
    assert found.strangers == 1


def test_what_an_icmp_error_quotes_is_no_probe() -> None:
    quoted = b"\x03\x03\0\0\0\0\0\0" + packet(EID, PEER, 17, probe(7))
    error = Seen(55, A, ethernet(GATEWAY, packet(PEER, EID, 1, quoted)))
    assert len(log_of([*turns(range(5), 0.0, A, flow="udp"), error], flow="udp")) == 5


def test_flows_and_directions_are_not_confused() -> None:
    towards = Seen(2, A, ethernet(GATEWAY, packet(PEER, EID, 1, probe(0, echo_type=8))))
    back = Seen(3, A, ethernet(MAC, packet(EID, PEER, 1, probe(0, echo_type=0))))
    found = collector([*turns(range(3), 0.0, A), *turns(range(5), 1.0, A, flow="udp"), towards, back])
    assert [len(found.log(flow, INTERVAL_NS, (), None)) for flow in ("icmp", "udp")] == [3, 5]


def test_ipv6() -> None:
    eid, peer = "fd00::10", "fd00:3::10"
    asked = Seen(0, A, ethernet(MAC, packet(eid, peer, 58, probe(0, echo_type=128))))
    answered = Seen(4, A, ethernet(GATEWAY, packet(peer, eid, 58, probe(0, echo_type=129))))
    after = Seen(10, A, ethernet(MAC, packet(eid, peer, 58, probe(1, echo_type=128))))
    series = collector([asked, answered, after], eid).log("icmp", INTERVAL_NS, (), None)
    assert rows(series)[0] == (0, 0, 0, 4, 1)


def test_frames_may_come_in_any_order() -> None:
    frames = [*turns(range(100), -1000.0, A), *turns(range(103, 160), 700.0, B)]
    shuffled = random.Random(1).sample(frames, len(frames))
    assert rows(log_of(shuffled)) == rows(log_of(frames))


def test_without_frames_there_is_a_log_without_rows() -> None:
    assert len(log_of([])) == 0


@given(
    st.lists(st.integers(0, 9 * MS), min_size=2, max_size=200),
    st.integers(-100, 100),
    st.integers(0, 10**12),
)
def test_due_is_never_after_sent_and_right_to_what_the_drift_makes(late: list[int], ppm: int, start_ns: int) -> None:
    late[len(late) // 2] = 0  # somebody was on time
    numbers = np.arange(len(late), dtype=np.int64)
    true_ns = start_ns + numbers * INTERVAL_NS * (1_000_000 + ppm) // 1_000_000
    due_ns = schedule(numbers, true_ns + np.array(late), INTERVAL_NS)
    assert (due_ns <= true_ns + np.array(late)).all()
    drift_ns = SCHEDULE_WINDOW_NS * abs(ppm) // 1_000_000 + 2
    assert (np.abs(due_ns - true_ns) <= drift_ns).all()


def two_ways(from_guest: ProbeSeries, **manifest_changes: Any) -> Run:
    captures = [{"node": "xen-a", "interface": "eid", "file": "x", "dropped": 0}]
    return run(Story(), probes(outage((800, 1594))), from_guest, **{"captures": captures, **manifest_changes})


def moved(first_ms: float = 1600.0) -> list[Seen]:
    """A guest that probes from 2 s before to 3 s after the request, suspended from 800 on."""
    return [*turns(range(280), -2000.0, A), *turns(range(290, 430), first_ms, B)]


def test_an_outage_is_told_in_both_directions() -> None:
    summary = summarise(analyse(two_ways(log_of(moved()))), seeded(1)).data
    assert summary["verdict"] == "PASS"
    flows = {flow["direction"]: flow for flow in summary["migrations"][0]["probes"]}
    assert flows["to-guest"]["stuntime_ms"] == summary["migrations"][0]["metrics"]["stuntime_ms"] == 810.0
    assert flows["from-guest"]["stuntime_ms"] == 810.0  # the answers of 794 and 1604
    found = [flows["from-guest"][name] for name in ("lost", "unsendable", "never_sent", "stamps", "naive_outage_ms")]
    assert found == [0, 80, 0, "captures", 0.0]
    gaps = {gap["direction"]: gap for gap in summary["migrations"][0]["gaps"]}
    assert (gaps["from-guest"]["lost"], gaps["from-guest"]["unsendable"]) == (0, 80)
    assert (gaps["to-guest"]["lost"], gaps["to-guest"]["unsendable"]) == (80, 0)


def test_every_probe_has_one_outcome() -> None:
    found = [row for row in probe_rows(analyse(two_ways(log_of(moved())))) if row.direction == "from-guest"]
    outcomes = Counter(row.outcome for row in found)
    assert set(outcomes) == {"answered", "unsendable"}
    assert outcomes["unsendable"] == sum(row.seq is None for row in found) == 80


def invalid(found: Run) -> list[str]:
    findings = analyse(found).findings
    return [finding.name for finding in findings if finding.severity == "invalid" and finding.ok is False]


def thinned(frames: list[Seen], start_ms: float, end_ms: float, keep: int) -> list[Seen]:
    """Only every `keep`-th frame pair of a stretch of time: the guest missed the other turns."""
    inside = [frame for frame in frames if start_ms <= frame.at_ms < end_ms]
    gone = {id(frame) for place, frame in enumerate(inside) if place // 2 % keep}
    return [frame for frame in frames if id(frame) not in gone]


def test_a_guest_that_sends_too_seldom_before_the_migration_is_invalid() -> None:
    assert invalid(two_ways(log_of(thinned(moved(), -1000, 0, 2)))) == []  # two intervals: one interval late
    name = "guest's prober regular, migration 0, icmp from-guest"
    assert invalid(two_ways(log_of(thinned(moved(), -1000, 0, 3)))) == [name]


def test_a_guest_that_the_migration_slows_is_flagged() -> None:
    found = two_ways(log_of(thinned(moved(), 100, 700, 5)))
    assert invalid(found) == []
    (flagged,) = [f for f in analyse(found).findings if f.ok is False]
    assert (flagged.severity, flagged.name) == ("flag", "all probes sent, migration 0, icmp from-guest")
    assert flagged.detail == "48 of 399 never sent, 80 more while it was suspended"


def test_a_log_without_a_probe_is_invalid() -> None:
    assert invalid(two_ways(log_of([]))) == [
        "baseline migration 0, icmp from-guest",
        "guest's prober regular, migration 0, icmp from-guest",
    ]


@pytest.mark.parametrize("dropped", [3, None])
def test_a_frame_that_was_not_captured_is_no_lost_probe_in_silence(dropped: int | None) -> None:
    """The capture dropped the frame of a reply, so that its probe looks lost."""
    holes = [frame for frame in moved() if frame.data != answers(0, 350).data]
    captures = [{"node": "xen-a", "interface": "eid", "file": "x", "dropped": dropped}]
    found = two_ways(log_of(holes), captures=captures)
    assert invalid(found) == ["captures complete"]
    assert sum(gap.lost for gap in find_gaps(log_of(holes))) == 1


def test_a_capture_that_cannot_be_read_is_invalid_where_it_tells_probes() -> None:
    assert invalid(replace(two_ways(log_of(moved())), problems=["x: cut"])) == ["all files read"]


def captured_run(folder: Path) -> Path:
    places = {"xen-a": "site-a", "xen-b": "site-b"}
    captures = [
        {"node": node, "interface": "eid", "site": site, "file": f"pcap/{node}-eid.pcapng", "dropped": 0}
        for node, site in places.items()
    ]
    asked = {"interval_ms": INTERVAL_MS, "flows": ["icmp"], "captured": ["from-guest"]}
    write_run(folder, [Story()], captures=captures, probes=asked)
    (folder / "pcap").mkdir()
    for node in places:
        with (folder / f"pcap/{node}-eid.pcapng").open("wb") as file:
            writer = dpkt.pcapng.Writer(file)
            for frame in moved():
                if frame.place[0] == node:
                    writer.writepkt(frame.data, ts=(frame.mono_ns + WALL_OFFSET_NS) / 1e9)
    return folder


def test_a_report_makes_the_log_and_makes_it_again(tmp_path: Path) -> None:
    folder = captured_run(tmp_path / "run")
    summary = build_report(folder)
    assert summary.verdict.value == "PASS", summary.data["validity"]
    log = parquet.read_table(folder / "probes" / "icmp-from-guest.parquet").to_pylist()
    assert {row["direction"] for row in log} == {"from-guest"}
    assert sum(row["sent_ns"] is None for row in log) == sum(row["seq"] is None for row in log) == 80
    before = digests(folder)
    build_report(folder)
    assert digests(folder) == before


def test_without_its_captures_the_log_that_was_made_counts(tmp_path: Path) -> None:
    folder = captured_run(tmp_path / "run")
    build_report(folder)
    made = (folder / "probes" / "icmp-from-guest.parquet").read_bytes()
    shutil.rmtree(folder / "pcap")
    summary = build_report(folder)
    (flow,) = (one for one in summary.data["migrations"][0]["probes"] if one["direction"] == "from-guest")
    assert (flow["stamps"], flow["unsendable"]) == ("captures", 80)
    assert (folder / "probes" / "icmp-from-guest.parquet").read_bytes() == made


def test_the_report_says_where_the_times_come_from(tmp_path: Path) -> None:
    folder = captured_run(tmp_path / "run")
    build_report(folder)
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text()
        assert "icmp from-guest: 10 ms between two sends (P99)" in text, name
        assert "not sent, suspended" in text.lower(), name


def test_the_tables_say_how_many_of_a_gap_could_not_be_sent(tmp_path: Path) -> None:
    folder = captured_run(tmp_path / "run")
    (migration,) = build_report(folder).data["migrations"]
    gaps, flows = gaps_table(migration, {}), probes_table(migration)
    column = [column.name for column in gaps.columns].index("Not sent, suspended")
    assert {row.cells[0][0].text: row.cells[column][0].text for row in gaps.rows} == {
        "icmp to-guest": "",
        "icmp from-guest": "80",
    }
    assert {row.cells[0][0].text: row.cells[-1][0].text for row in gaps.rows}["icmp from-guest"] == "—"  # nothing lost
    (counts,) = (row for row in flows.rows if row.cells[0][0].text == "not sent, suspended")
    assert [cells[0].text for cells in counts.cells[1:3]] == ["0", "80"]
    assert "\n".join(flows.markdown()) in (folder / "report.md").read_text()
    assert re.search(r"\| icmp from-guest \|.*\| 0 +\| 80 +\|", (folder / "report.md").read_text())


def test_windows_have_what_was_due_in_them() -> None:
    series = log_of(moved())
    inside = series.within(Interval(START_NS + 900 * MS, START_NS + 1000 * MS))
    assert (len(inside), int(inside.unsendable.sum())) == (10, 10)
