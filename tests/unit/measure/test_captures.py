"""What only captured frames know: the guest's first and last frame, t13, and where a lost probe was lost."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import dpkt
import pytest

from testbed.lisp.wire import EncapsulatedControl, MapReply, MapRequest, RequestedEid, host_eid
from testbed.lisp.wire.inet import build_udp_packet
from testbed.measure.frames import Frame, GuestFrames, Passage, SenderMacs, StreamFrames, WallClock
from testbed.measure.gaps import find_gaps
from testbed.measure.losses import LossFinder, ProbeKey, lost_where
from testbed.measure.model import Interval
from testbed.measure.timeline import build_timeline
from testbed.report import build_report
from testbed.report.messages import ControlFrames
from tests.unit.measure.packets import (
    GATEWAY,
    ITR,
    NEW,
    OLD,
    PEER,
    encapsulated,
    ethernet,
    packet,
    probe,
    reply,
    request,
)
from tests.unit.measure.synthetic import EID, MAC, MS, START_NS, Story, events, migration, outage, probes, write_run


def test_only_the_reply_is_lost() -> None:
    """Every request reached the guest's LAN and was answered; the replies went no further than xtr-b."""
    series = probes(outage((800, 830)))
    (gap,) = find_gaps(series)
    finder = LossFinder.of([series], [EID])
    for seq in range(gap.first_seq, gap.last_seq + 1):
        finder.see(Frame(0, "xtr-c", "core", encapsulated(ITR, NEW, request(seq))), 100)
        finder.see(Frame(0, "xtr-b", "eid", ethernet(GATEWAY, request(seq))), 200)
        finder.see(Frame(0, "xtr-b", "eid", ethernet(MAC, reply(seq))), 300)
    assert lost_where(gap, series, finder.fates) == {"reply, last seen at xtr-b-eid": 3}


def test_requests_are_lost_at_different_hops() -> None:
    series = probes(outage((800, 840)))
    (gap,) = find_gaps(series)
    first = gap.first_seq
    finder = LossFinder.of([series], [EID])
    # In any order: the later sighting counts, not the later call.
    finder.see(Frame(0, "xtr-a", "eid", ethernet(GATEWAY, request(first))), 200)
    finder.see(Frame(0, "xtr-c", "core", encapsulated(ITR, OLD, request(first))), 100)
    for seq in (first + 1, first + 2):
        finder.see(Frame(0, "xtr-c", "core", encapsulated(ITR, OLD, request(seq))), 100)
    assert lost_where(gap, series, finder.fates) == {
        "request, last seen at xtr-c-core": 2,
        "request, last seen at xtr-a-eid": 1,
        "seen nowhere": 1,
    }


def test_a_packet_through_both_xtrs_is_triangular() -> None:
    """Sent to the old xTR, which sent it on; one that went straight to the new one is not, nor is a reply."""
    series = probes(outage((800, 810)))
    (gap,) = find_gaps(series)
    cores = {(xtr, "core"): xtr for xtr in ("xtr-a", "xtr-b", "xtr-c")}
    finder = LossFinder.of([series], [EID], cores)
    bent, straight = gap.first_seq + 1, gap.first_seq + 2
    for node, seq, to in (("xtr-c", bent, OLD), ("xtr-a", bent, OLD), ("xtr-a", bent, NEW), ("xtr-b", bent, NEW)):
        finder.see(Frame(0, node, "core", encapsulated(ITR, to, request(seq))), 100)
    for node in ("xtr-c", "xtr-b"):
        finder.see(Frame(0, node, "core", encapsulated(ITR, NEW, request(straight))), 100)
    finder.see(Frame(0, "xtr-a", "core", encapsulated(NEW, ITR, reply(straight))), 200)
    fates = finder.fates
    triangular = {key.seq for key, fate in fates.items() if fate.is_triangular("xtr-a", "xtr-b")}
    assert triangular == {bent}


def test_the_other_direction_has_the_same_numbers_and_is_not_confused() -> None:
    to_guest = probes(outage((800, 810)))
    from_guest = probes(outage((800, 810)), direction="from-guest")
    finder = LossFinder.of([to_guest, from_guest], [EID])
    seq = find_gaps(to_guest)[0].first_seq
    finder.see(Frame(0, "xtr-b", "eid", ethernet(MAC, packet(EID, PEER, 1, probe(seq, echo_type=8)))), 100)
    assert lost_where(find_gaps(to_guest)[0], to_guest, finder.fates) == {"seen nowhere": 1}
    assert lost_where(find_gaps(from_guest)[0], from_guest, finder.fates) == {"request, last seen at xtr-b-eid": 1}


@pytest.mark.parametrize(("version", "eid", "peer"), [(4, EID, PEER), (6, "fd00::10", "fd00:3::10")])
def test_udp_and_both_versions(version: int, eid: str, peer: str) -> None:
    series = probes(outage((800, 810)), flow="udp")
    (gap,) = find_gaps(series)
    finder = LossFinder.of([series], [eid])
    finder.see(Frame(0, "xtr-b", "eid", ethernet(GATEWAY, packet(peer, eid, 17, probe(gap.first_seq)))), 100)
    finder.see(Frame(0, "xtr-b", "eid", ethernet(MAC, packet(eid, peer, 17, probe(gap.first_seq, answers=True)))), 200)
    assert lost_where(gap, series, finder.fates) == {"reply, last seen at xtr-b-eid": 1}


def test_an_ipv6_probe_is_found_in_an_ipv4_tunnel() -> None:
    """An ICMPv6 echo is seen at both xTRs' core sides, inside IPv4, and bare on the guest's LAN."""
    eid, peer = "fd00::10", "fd00:3::10"
    series = probes(outage((800, 820)))
    (gap,) = find_gaps(series)
    finder = LossFinder.of([series], [eid])
    asked, answered = (gap.first_seq, gap.first_seq + 1)
    for seq in (asked, answered):
        inside = packet(peer, eid, 58, probe(seq, echo_type=128))
        finder.see(Frame(0, "xtr-c", "core", encapsulated(ITR, NEW, inside)), 100)
        finder.see(Frame(0, "xtr-b", "eid", ethernet(GATEWAY, inside)), 200)
    back = packet(eid, peer, 58, probe(answered, echo_type=129))
    finder.see(Frame(0, "xtr-b", "core", encapsulated(NEW, ITR, back)), 300)
    assert finder.fates[ProbeKey("icmp", "to-guest", asked)].words == "request, last seen at xtr-b-eid"
    assert finder.fates[ProbeKey("icmp", "to-guest", answered)].words == "reply, last seen at xtr-b-core"


@pytest.mark.parametrize("data", [b"", b"TBPROBE1", bytes(60), b"TBPROBE1" + bytes(40), bytes(14) + b"TBPROBE1" * 9])
def test_other_frames_are_nobodys(data: bytes) -> None:
    series = probes(outage((800, 810)))
    finder = LossFinder.of([series], [EID])
    finder.see(Frame(0, "xtr-b", "eid", data), 100)
    assert lost_where(find_gaps(series)[0], series, finder.fates) == {"seen nowhere": 1}


@pytest.mark.parametrize("inside", [False, True], ids=["plain", "encapsulated"])
@pytest.mark.parametrize(("eid", "peer", "protocol", "kind"), [(EID, PEER, 1, 3), ("fd00::10", "fd00:3::10", 58, 1)])
def test_an_icmp_error_that_quotes_a_probe_is_no_sighting(
    eid: str, peer: str, protocol: int, kind: int, inside: bool
) -> None:
    """The old xTR's "host unreachable" on its way back does not mean that the request got so far."""
    series = probes(outage((800, 810)))
    (gap,) = find_gaps(series)
    asked = packet(peer, eid, protocol, probe(gap.first_seq, echo_type=8 if protocol == 1 else 128))
    unreachable = packet(eid, peer, protocol, bytes([kind, 1, 0, 0, 0, 0, 0, 0]) + asked)
    finder = LossFinder.of([series], [eid])
    finder.see(Frame(0, "xtr-c", "core", encapsulated(ITR, OLD, asked)), 100)
    assert lost_where(gap, series, finder.fates) == {"request, last seen at xtr-c-core": 1}
    error = encapsulated(OLD, ITR, unreachable) if inside else ethernet(GATEWAY, unreachable)
    for node in ("xtr-a", "xtr-c"):
        finder.see(Frame(0, node, "core", error), 200)
    assert lost_where(gap, series, finder.fates) == {"request, last seen at xtr-c-core": 1}


def test_a_tagged_probe_is_a_sighting() -> None:
    series = probes(outage((800, 810)))
    (gap,) = find_gaps(series)
    plain = ethernet(GATEWAY, request(gap.first_seq))
    finder = LossFinder.of([series], [EID])
    finder.see(Frame(0, "xtr-a", "eid", plain[:12] + b"\x81\x00\x00\x07" + plain[12:]), 100)
    assert lost_where(gap, series, finder.fates) == {"request, last seen at xtr-a-eid": 1}


def test_frames_of_the_guest_in_two_migrations() -> None:
    there = Passage(0, "vm1", MAC, "site-a", "site-b", Interval(0, 1000))
    back = Passage(1, "vm1", MAC, "site-b", "site-a", Interval(1000, 2000))
    frames = GuestFrames([there, back], {("a", "eid"): "site-a", ("b", "eid"): "site-b"})
    for at, node in [(100, "a"), (300, "a"), (500, "b"), (900, "b"), (1400, "b"), (1600, "a"), (550, "c")]:
        frames.see(Frame(at, node, "eid", ethernet(MAC, request(1))), at)
    frames.see(Frame(450, "b", "eid", ethernet(GATEWAY, request(1))), 450)
    found = [(event.kind, event.mono_ns) for event in frames.events()]
    assert found == [
        ("guest_last_frame", 300),
        ("guest_first_frame", 500),
        ("guest_last_frame", 1400),
        ("guest_first_frame", 1600),
    ]


def test_who_speaks_for_the_guest_at_the_destination() -> None:
    """By IPv4, ARP or IPv6, in the window; not the gateway, which answers for others, nor frames at the source."""
    other, other_site = "52:54:00:00:00:0b", "52:54:00:00:00:0c"
    arp = b"\0\1\x08\0\6\4\0\1" + bytes.fromhex(MAC.replace(":", "")) + ip_address(EID).packed + bytes(10)
    said = b"\xff" * 6 + bytes.fromhex(MAC.replace(":", "")) + b"\x08\x06" + arp
    passages = [
        Passage(index, "vm1", MAC, "site-a", "site-b", Interval(1000, 2000), eid)
        for index, eid in enumerate((EID, "fd00::10"))
    ]
    speakers = SenderMacs(passages, {("a", "eid"): "site-a", ("b", "eid"): "site-b"}, [GATEWAY])
    for at, node, data in (
        (1100, "b", said),
        (1200, "b", ethernet(GATEWAY, reply(1))),
        (1300, "b", ethernet(other, request(1))),
        (1400, "a", ethernet(other_site, reply(1))),
        (2100, "b", ethernet(other_site, reply(1))),
        (1500, "b", b"\0" * 13),
        (1600, "b", ethernet(other, packet("fd00::10", "fd00:3::10", 58, probe(1, echo_type=129)))),
    ):
        speakers.see(Frame(at, node, "eid", data), at)
    assert speakers.found == {0: {MAC}, 1: {other}}


def segment(source: str, destination: str, flags: int) -> bytes:
    """An Ethernet frame with a TCP segment without data."""
    return ethernet(GATEWAY, packet(source, destination, 6, bytes(12) + bytes([5 << 4, flags]) + bytes(6)))


@pytest.mark.parametrize("hosts", [("10.1.1.2", "10.1.2.2"), ("fd01:1::2", "fd01:2::2")])
def test_precopy_begins_with_the_streams_first_packet(hosts: tuple[str, str]) -> None:
    """The SYN from the source host to the destination's, in the window: no answer to it, no stream back, no retry."""
    here, there = hosts
    syn, syn_ack, ack = 0x02, 0x12, 0x10
    passage = Passage(3, "vm1", MAC, "site-a", "site-b", Interval(1000, 2000))
    addresses, nodes = {"site-a": here, "site-b": there}, {"site-a": "xen-a", "site-b": "xen-b"}
    streams = StreamFrames([passage], addresses, nodes)
    seen = [
        (900, "xen-a", segment(here, there, syn)),
        (1050, "xen-a", segment(there, here, syn)),
        (1060, "xen-a", segment(here, there, ack)),
        (1070, "xen-b", segment(here, there, syn)),
        (1300, "xen-a", segment(here, there, syn)),
        (1100, "xen-a", segment(here, there, syn)),
        (1110, "xen-a", segment(there, here, syn_ack)),
        (1120, "xen-a", ethernet(GATEWAY, request(1))),
        (1130, "xen-a", b"\x00" * 13),
    ]
    for mono_ns, node, data in seen:
        streams.see(Frame(mono_ns, node, f"{node}-mig", data), mono_ns)
    (event,) = streams.events()
    assert (event.kind, event.mono_ns, event.source) == ("precopy_started", 1100, "capture xen-a-xen-a-mig")
    assert event.fields["guest"] == "vm1"
    assert event.fields["uncertainty_ms"] == 0.1


def control_frame(source: str, destination: str, message: bytes) -> bytes:
    return ethernet(GATEWAY, build_udp_packet(ip_address(source), ip_address(destination), 4342, 4342, message))


def test_control_messages_in_captures_are_a_second_source() -> None:
    """The ITR's capture has its Map-Request of t10 (0x63 is 99) 0.4 ms after its word, and the reply of t11 with it."""
    asked = MapRequest(99, (ip_address(ITR),), (RequestedEid(host_eid(ip_address(EID))),)).encode()
    other = MapRequest(98, (ip_address(ITR),), (RequestedEid(host_eid(ip_address(EID))),)).encode()
    whole = EncapsulatedControl(ip_address(ITR), ip_address(EID), 4342, asked).encode()
    frames = ControlFrames([migration(Story())], {("xtr-c", "core"): "xtr-c"}, {"xtr-c": ITR})
    for at_ms, node, data in (
        (1560.1, "xtr-c", control_frame(ITR, "10.0.0.2", other)),
        (1560.4, "xtr-c", control_frame(ITR, "10.0.0.2", whole)),
        (1560.5, "ms", control_frame(ITR, "10.0.0.2", whole)),
        (1590.0, "xtr-c", control_frame("10.0.0.2", ITR, MapReply(99, ()).encode())),
        (1590.1, "xtr-c", encapsulated(ITR, NEW, request(1))),
        (9999.0, "xtr-c", control_frame(ITR, "10.0.0.2", whole)),
    ):
        frames.see(Frame(0, node, "core", data), START_NS + round(at_ms * MS))
    said = [replace(e, fields={**e.fields, "nonce": "0x63"}) if e.fields.get("nonce") == 99 else e
            for e in events(Story())]  # fmt: skip
    timeline = build_timeline(migration(Story()), sorted([*said, *frames.found], key=lambda e: e.mono_ns))
    t10, t11 = timeline.marks["t10"], timeline.marks["t11"]
    assert (t10.source, t10.kind, t10.uncertainty_ms) == ("capture xtr-c-core", "map_request_sent", 0.1)
    assert [(one.source, one.difference_ms) for one in t10.others] == [("xtr-c", -0.4)]
    # What is received has the kernel's stamp already, which is as good.
    assert (t11.source, t11.uncertainty_ms) == ("xtr-c", 0.1)
    assert [(one.source, one.difference_ms) for one in t11.others] == [("capture xtr-c-core", 0.0)]


def test_wall_clock() -> None:
    clock = WallClock.of({"start": {"mono_ns": 50, "wall_ns": 1050}})
    assert clock.mono_ns(1100) == 100


def write_pcap(path: Path, frames: list[tuple[float, bytes]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        writer = dpkt.pcapng.Writer(file)
        for at_ms, data in frames:
            writer.writepkt(data, ts=(START_NS + at_ms * MS + 1_700_000_000_000_000_000) / 1e9)


def captures(*names: tuple[str, str]) -> list[dict[str, object]]:
    return [{"node": n, "interface": i, "file": f"pcap/{n}-{i}.pcapng", "dropped": 0} for n, i in names]


def test_first_packet_to_the_new_rloc(tmp_path: Path) -> None:
    """The earliest data packet of the window for this EID to the new RLOC; the agent's own event stays."""
    folder = write_run(tmp_path / "run", [Story()], captures=captures(("xtr-c", "xtr-c-core")))
    other = packet(PEER, "192.168.0.77", 1, probe(1, echo_type=8))
    write_pcap(
        folder / "pcap" / "xtr-c-xtr-c-core.pcapng",
        [
            (-10, encapsulated(ITR, NEW, request(1))),
            (900, encapsulated(ITR, OLD, request(2))),
            (950, encapsulated(ITR, NEW, other)),
            (1596, encapsulated(ITR, NEW, request(3))),
            (1606, encapsulated(ITR, NEW, request(4))),
        ],
    )
    (migration,) = build_report(folder).data["migrations"]
    t13 = next(event for event in migration["events"] if event["label"] == "t13")
    assert t13["source"] == "xtr-c"  # the kernel's own mark is surer than a capture's
    (word,) = t13["others"]
    assert word["via"] == "frame"
    assert word["difference_ms"] == pytest.approx(2, abs=0.001)
    assert migration["gaps"][0]["lost_where"] == {"seen nowhere": migration["gaps"][0]["lost"]}


def test_t13_from_the_capture_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story().without("t13")], captures=captures(("xtr-c", "xtr-c-core")))
    write_pcap(folder / "pcap" / "xtr-c-xtr-c-core.pcapng", [(1596, encapsulated(ITR, NEW, request(3)))])
    (migration,) = build_report(folder).data["migrations"]
    assert migration["metrics"]["remap_latency_ms"] == pytest.approx(86, abs=0.001)


def test_damaged_capture_is_said_and_not_fatal(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story()], captures=captures(("xtr-c", "xtr-c-core"), ("xtr-b", "x")))
    (folder / "pcap").mkdir()
    (folder / "pcap" / "xtr-b-x.pcapng").write_bytes(b"not a capture")
    summary = build_report(folder)
    (finding,) = [f for f in summary.data["validity"] if f["name"] == "all files read"]
    assert finding["ok"] is False
    assert "xtr-c-xtr-c-core" in finding["detail"]
    assert "xtr-b-x" in finding["detail"]
    assert summary.verdict.value == "PASS"


def test_frames_without_clock_place_nothing(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story()], captures=captures(("xtr-c", "xtr-c-core")), clock=None)
    write_pcap(folder / "pcap" / "xtr-c-xtr-c-core.pcapng", [(1596, encapsulated(ITR, NEW, request(3)))])
    (migration,) = build_report(folder).data["migrations"]
    assert migration["gaps"][0]["lost_where"] is None
