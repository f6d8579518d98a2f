"""What only captured frames know: the guest's first and last frame, t13, and where a lost probe was lost."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import dpkt
import pytest

from testbed.lisp.wire import DATA_PORT
from testbed.lisp.wire.inet import checksum
from testbed.measure.frames import Frame, GuestFrames, Passage, WallClock
from testbed.measure.gaps import find_gaps
from testbed.measure.losses import LossFinder, ProbeKey, lost_where
from testbed.measure.model import Interval
from testbed.report import build_report
from tests.unit.measure.synthetic import EID, MAC, MS, START_NS, Story, outage, probes, write_run

PEER, GATEWAY = "192.168.3.10", "00:00:5e:00:01:01"
ITR, NEW, OLD = "10.0.3.2", "10.0.2.2", "10.0.1.2"


def ethernet(source: str, ip: bytes) -> bytes:
    kind = b"\x86\xdd" if ip[0] >> 4 == 6 else b"\x08\x00"
    return b"\x02" * 6 + bytes.fromhex(source.replace(":", "")) + kind + ip


def packet(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    one, other = ip_address(source).packed, ip_address(destination).packed
    if len(one) == 16:
        head = b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes([protocol, 64])
        return head + one + other + payload
    head = b"\x45\0" + (20 + len(payload)).to_bytes(2, "big") + bytes([0, 0, 0, 0, 64, protocol])
    summed = checksum(head + bytes(2) + one + other).to_bytes(2, "big")
    return head + summed + one + other + payload


def probe(seq: int, *, echo_type: int | None = None, answers: bool = False) -> bytes:
    """An ICMP echo, or (without a type) a UDP datagram to the echo port or from it, with a probe's payload."""
    header = bytes([echo_type, 0, 0, 0, 0, 1, 0, 1]) if echo_type is not None else b"\x80\0\0\x07\0\x20\0\0"
    if answers:
        header = b"\0\x07\x80\0\0\x20\0\0"
    return header + b"TBPROBE1" + b"whichrun" + seq.to_bytes(8, "big")


def encapsulated(source: str, destination: str, inner: bytes) -> bytes:
    udp = (0xF000).to_bytes(2, "big") + DATA_PORT.to_bytes(2, "big") + (16 + len(inner)).to_bytes(2, "big") + b"\0\0"
    return ethernet(GATEWAY, packet(source, destination, 17, udp + bytes(8) + inner))


def request(seq: int) -> bytes:
    return packet(PEER, EID, 1, probe(seq, echo_type=8))


def reply(seq: int) -> bytes:
    return packet(EID, PEER, 1, probe(seq, echo_type=0))


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
