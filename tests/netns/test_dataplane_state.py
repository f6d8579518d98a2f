"""Entries that change, what the data plane reports of it, and its slow path."""

from __future__ import annotations

import json
import socket
import struct
import time
from ipaddress import ip_address, ip_network

import pytest

from testbed.dataplane.ebpf import EbpfDataPlane
from testbed.dataplane.model import DataPlaneEventKind, Entry, EntryKind, Locator
from testbed.errors import TestbedError
from tests.netns.conftest import OpenPlane
from tests.netns.lispnet import Network, Wire, events_of, inside, wait_for, wait_until
from tests.netns.packets import ETHERNET, Encapsulated, Ip, checksum, ipv4, ipv6, is_lisp, lisp, udp

pytestmark = pytest.mark.netns

EID, EID6, PEER = "192.168.1.10", "fd0e:1::10", "192.168.2.10"
RLOC, OLD_RLOC, NEW_RLOC = "10.0.1.2", "10.0.2.2", "10.0.3.2"
PACKET = ipv4(EID, PEER, udp(1, 2, b"payload"))


def entry(eid: str, kind: EntryKind, *rlocs: str) -> Entry:
    return Entry(ip_network(eid), kind, tuple(Locator(ip_address(rloc)) for rloc in rlocs))


def arriving(inner: bytes, source: str = OLD_RLOC, ttl: int = 60, tos: int = 0) -> bytes:
    return ipv4(source, RLOC, udp(50000, 4341, lisp(inner)), ttl=ttl, tos=tos)


def missed(plane: EbpfDataPlane) -> bytes:
    found: list[bytes] = []

    def came() -> bool:
        packet = plane.read_missed()
        if packet is not None:
            found.append(packet)
        return bool(found)

    wait_until(came)
    return found[0]


@pytest.fixture
def plane(open_plane: OpenPlane) -> EbpfDataPlane:
    return open_plane(1)


def test_away_reencapsulates_and_reports(plane: EbpfDataPlane, core_wire: Wire) -> None:
    """The old xTR of a moved EID: new outer header, TTL one less in all (RFC 9300 §5.3)."""
    plane.set_entry(entry("192.168.1.10/32", EntryKind.AWAY, NEW_RLOC))
    before = time.monotonic_ns()
    core_wire.send(arriving(ipv4(PEER, EID, udp(1, 2, b"moved"), ttl=50, tos=0x02), ttl=40, tos=0x03))
    seen = Encapsulated.read(core_wire.expect(is_lisp)[ETHERNET:])
    assert (seen.outer.source, seen.outer.destination) == (RLOC, NEW_RLOC)
    assert (seen.outer.ttl, seen.outer.tos, seen.outer.header_sum) == (39, 0x03, 0)
    assert (seen.inner.ttl, seen.inner.tos, seen.inner.header_sum) == (39, 0x03, 0)
    assert seen.inner.payload.endswith(b"moved")
    (event,) = events_of(plane, DataPlaneEventKind.STALE_PACKET)
    assert (str(event.eid), str(event.peer), str(event.rloc)) == (EID, OLD_RLOC, NEW_RLOC)
    assert before < event.mono_ns < time.monotonic_ns()


@pytest.mark.parametrize("rloc", ["10.0.3.2", "fd00:3::2"])
def test_away_between_address_families(open_plane: OpenPlane, core_wire: Wire, rloc: str) -> None:
    plane = open_plane(1, other_rlocs=[ip_address("fd00:1::2")])
    plane.set_entry(entry("fd0e:1::10/128", EntryKind.AWAY, rloc))
    inner = ipv6("fd0e:2::10", EID6, udp(1, 2, b"moved"), ttl=50)
    core_wire.send(arriving(inner, ttl=40))
    if ":" in rloc:  # by way of the slow path
        assert wait_for(plane.miss_fd())
        assert plane.read_missed() is None
    seen = Encapsulated.read(core_wire.expect(is_lisp)[ETHERNET:])
    assert (seen.outer.destination, seen.outer.ttl, seen.inner.ttl) == (rloc, 39, 39)
    assert seen.inner.payload == inner[40:]


def test_stale_reports_are_limited_per_peer(plane: EbpfDataPlane, core_wire: Wire) -> None:
    plane.set_entry(entry("192.168.1.10/32", EntryKind.AWAY, NEW_RLOC))
    started = time.monotonic_ns()
    for _ in range(20):
        for source in (OLD_RLOC, "10.0.2.3"):
            core_wire.send(arriving(ipv4(PEER, EID, b"", protocol=253), source))
            core_wire.expect(is_lisp)
    stale = events_of(plane, DataPlaneEventKind.STALE_PACKET)
    allowed = 1 + (time.monotonic_ns() - started) // 70_000_000
    by_peer = [str(event.peer) for event in stale]
    assert set(by_peer) == {OLD_RLOC, "10.0.2.3"}
    assert by_peer.count(OLD_RLOC) <= allowed
    assert len(stale) < 40


def test_away_encapsulates_what_the_site_sends(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    plane.set_entry(entry("192.168.2.10/32", EntryKind.AWAY, NEW_RLOC))
    site_wire.send(PACKET)
    assert Encapsulated.read(core_wire.expect(is_lisp)[ETHERNET:]).outer.destination == NEW_RLOC


def test_reencapsulated_packet_of_ttl_1_ends(plane: EbpfDataPlane, core_wire: Wire) -> None:
    plane.set_entry(entry("192.168.1.10/32", EntryKind.AWAY, NEW_RLOC))
    core_wire.send(arriving(ipv4(PEER, EID, b"", protocol=253), ttl=1))
    wait_until(lambda: plane.drops()["ttl"] == 1)


def test_first_packet_is_reported_once_a_change(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    def first_packets(new: Entry) -> list[tuple[str, str, str | None]]:
        plane.set_entry(new)
        for _ in range(3):
            site_wire.send(PACKET)
            core_wire.expect(is_lisp)
        told = [e for e in plane.read_events() if e.kind is DataPlaneEventKind.FIRST_PACKET_NEW_RLOC]
        return [(str(e.eid), str(e.rloc), str(e.old_rloc) if e.old_rloc else None) for e in told]

    old, new = (entry("192.168.2.0/24", EntryKind.REMOTE, rloc) for rloc in (OLD_RLOC, NEW_RLOC))
    plane.read_events()
    assert first_packets(old) == [(PEER, OLD_RLOC, None)]
    assert first_packets(old) == []
    assert first_packets(new) == [(PEER, NEW_RLOC, OLD_RLOC)]
    assert first_packets(new) == []
    plane.set_entry(old)  # there and back before any packet: what is used did not change in the end
    assert first_packets(old) == [(PEER, OLD_RLOC, NEW_RLOC)]


def test_a_report_that_finds_no_room_is_counted_and_the_first_packet_said_later(
    plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire
) -> None:
    plane.set_entry(entry("fd0e:2::/64", EntryKind.DROP))
    for n in range(1, 3501):  # of 88 octets each, for 256 KiB
        site_wire.send(ipv6(f"fd0e:1::{n:x}", "fd0e:2::10", b"", protocol=59))
    wait_until(lambda: plane.reports_lost() > 0)
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, NEW_RLOC))
    site_wire.send(PACKET)
    core_wire.expect(is_lisp)
    assert {event.kind for event in plane.read_events()} == {DataPlaneEventKind.EID_SEEN}
    lost = plane.reports_lost()
    site_wire.send(PACKET)
    core_wire.expect(is_lisp)
    assert [str(e.rloc) for e in events_of(plane, DataPlaneEventKind.FIRST_PACKET_NEW_RLOC)] == [NEW_RLOC]
    assert plane.reports_lost() == lost


def test_a_refresh_before_the_first_packet_does_not_silence_it(
    plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire
) -> None:
    remote = entry("192.168.2.0/24", EntryKind.REMOTE, NEW_RLOC)
    plane.set_entry(remote)
    plane.set_entry(remote)
    site_wire.send(PACKET)
    core_wire.expect(is_lisp)
    assert [str(e.rloc) for e in events_of(plane, DataPlaneEventKind.FIRST_PACKET_NEW_RLOC)] == [NEW_RLOC]


def test_resolve_hands_over_and_inject_takes_back(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    plane.set_entry(entry("192.168.0.0/16", EntryKind.RESOLVE))
    assert plane.read_missed() is None
    site_wire.send(PACKET)
    assert wait_for(plane.miss_fd())
    assert missed(plane) == PACKET
    plane.set_entry(entry("192.168.2.10/32", EntryKind.REMOTE, NEW_RLOC))
    plane.inject(PACKET)
    seen = Encapsulated.read(core_wire.expect(is_lisp)[ETHERNET:])
    assert seen.outer.destination == NEW_RLOC
    assert seen.inner.payload == PACKET[20:]


def test_a_held_packet_has_its_checksum(plane: EbpfDataPlane, network: Network) -> None:
    """The sender left it to the hardware; whoever reads the slow path must get it computed."""
    plane.set_entry(entry("192.168.0.0/16", EntryKind.RESOLVE))
    with inside(network.names["host1"]), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hold me", ("192.168.9.9", 9))
    packet = missed(plane)
    pseudo = packet[12:20] + struct.pack("!HH", 17, len(packet) - 20)
    assert packet[26:28] != b"\0\0"
    assert checksum(pseudo + packet[20:]) == 0


def test_inject_for_an_eid_that_has_come_here(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    plane.set_entry(entry("192.168.1.10/32", EntryKind.LOCAL))
    plane.inject(ipv4(PEER, EID, udp(1, 9, b"come home"), ttl=9))
    frame = site_wire.expect(lambda f: f.endswith(b"come home"))
    assert Ip.read(frame[ETHERNET:]).ttl == 8


@pytest.mark.parametrize("entries", [[EntryKind.NATIVE], []], ids=["NATIVE", "gone"])
@pytest.mark.parametrize("family", [4, 6])
def test_what_was_held_goes_natively(
    plane: EbpfDataPlane, core_wire: Wire, family: int, entries: list[EntryKind]
) -> None:
    """The answer is to forward natively (RFC 9301 §5.4), or the entry has gone: the kernel routes it as any other."""
    source, destination = (EID, PEER) if family == 4 else (EID6, "fd0e:2::10")
    for kind in entries:
        plane.set_entry(entry(f"{destination}/{32 if family == 4 else 128}", kind))
    datagram = udp(1, 9, b"natively", (source, destination))
    plane.inject((ipv4 if family == 4 else ipv6)(source, destination, datagram, ttl=9))
    seen = Ip.read(core_wire.expect(lambda frame: frame.endswith(b"natively"))[ETHERNET:])
    assert (seen.source, seen.destination, seen.ttl) == (source, destination, 8)


def test_nothing_of_the_kernels_own_comes_out_of_the_tap(plane: EbpfDataPlane, network: Network) -> None:
    """Neither when it is made nor when the machine becomes a router: what comes is counted as malformed."""
    shown = network.run("xtr1", "ip", "-json", "address", "show", "dev", "lisp0", check=True).stdout
    assert [link["addr_info"] for link in json.loads(shown) if link] == [[]]
    forwarding = "net.ipv6.conf.all.forwarding"
    network.run("xtr1", "sysctl", f"{forwarding}=0", check=True)
    network.run("xtr1", "sysctl", f"{forwarding}=1", check=True)
    assert not wait_for(plane.miss_fd(), 1.5)  # unsolicited reports come within a second (RFC 3810 §9.11)


def test_a_full_slow_path_is_counted(plane: EbpfDataPlane, site_wire: Wire) -> None:
    plane.set_entry(entry("192.168.0.0/16", EntryKind.RESOLVE))
    for _ in range(600):
        site_wire.send(PACKET)
    wait_until(lambda: plane.drops()["slow-path-full"] > 0)
    held = 0
    while plane.read_missed() is not None:
        held += 1
    assert held + plane.drops()["slow-path-full"] == 600


def test_what_cannot_be_injected_is_counted(plane: EbpfDataPlane, network: Network) -> None:
    links = network.run("xtr1", "ip", "-brief", "link").stdout.splitlines()
    tap = next(line.split()[0] for line in links if line.startswith("lisp"))
    plane.inject(PACKET)
    assert plane.drops()["inject-no-room"] == 0
    network.run("xtr1", "ip", "link", "set", tap, "down", check=True)
    plane.inject(PACKET)
    assert plane.drops()["inject-no-room"] == 1


def test_what_has_no_route_is_counted(open_plane: OpenPlane, network: Network, site_wire: Wire) -> None:
    plane = open_plane(1, other_rlocs=[ip_address("fd00:1::2")])
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, "fd00:9::2"))
    network.run("xtr1", "ip", "-6", "route", "del", "default", check=True)
    try:
        site_wire.send(PACKET)
        wait_until(lambda: plane.drops()["core-refused"] == 1)
    finally:
        network.run("xtr1", "ip", "-6", "route", "add", "default", "via", "fd00:1::1", check=True)


def test_negative_entries(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    plane.set_entry(entry("192.168.2.0/24", EntryKind.DROP))
    site_wire.send(PACKET)
    wait_until(lambda: plane.drops()["negative-entry"] == 1)
    plane.set_entry(entry("192.168.2.0/24", EntryKind.NATIVE))
    site_wire.send(PACKET)
    native = core_wire.expect(lambda frame: frame.endswith(b"payload"))
    assert not is_lisp(native)
    assert Ip.read(native[ETHERNET:]).destination == PEER


def test_own_addresses_stay_the_kernels(
    plane: EbpfDataPlane, network: Network, site_wire: Wire, core_wire: Wire
) -> None:
    """The gateway answers although its prefix resolves; and an echo request through the tunnel reaches it."""
    plane.set_entry(entry("192.168.0.0/16", EntryKind.RESOLVE))
    plane.set_entry(entry("10.0.0.0/8", EntryKind.RESOLVE))
    assert network.ping("host1", "192.168.1.1")
    assert network.ping("host1", RLOC)
    with pytest.raises(TestbedError, match=r"192\.168\.1\.1/32"):
        plane.set_entry(entry("192.168.1.1/32", EntryKind.LOCAL))
    echo = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    core_wire.send(arriving(ipv4("10.0.1.1", "192.168.1.1", echo, protocol=1)))
    reply = core_wire.expect(lambda f: f[12:14] == b"\x08\0" and f[23] == 1 and f[34] == 0)
    assert Ip.read(reply[ETHERNET:]).source == "192.168.1.1"


def test_flooded_and_multicast_frames_are_not_forwarded(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    plane.set_entry(entry("0.0.0.0/0", EntryKind.REMOTE, NEW_RLOC))
    for mac in (b"\x02\0\0\0\x77\x77", b"\xff" * 6, b"\x01\0\x5e\x01\x01\x01"):
        site_wire.send_frame(mac + site_wire.mac + b"\x08\0" + ipv4(EID, PEER, udp(1, 2, b"not routed")))
    site_wire.send(PACKET)
    first = core_wire.expect(is_lisp)
    assert first.endswith(b"payload")


def seen_eids(plane: EbpfDataPlane) -> list[tuple[str, str | None]]:
    return [(str(event.eid), event.mac) for event in events_of(plane, DataPlaneEventKind.EID_SEEN)]


def mac_text(mac: bytes) -> str:
    return ":".join(f"{octet:02x}" for octet in mac)


def arp(operation: int, mac: bytes, sender: str, target: str) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    addresses = mac + ip_address(sender).packed + bytes(6) + ip_address(target).packed
    return b"\xff" * 6 + mac + b"\x08\x06" + head + addresses


def icmpv6(kind: int, source: str, target: str) -> bytes:
    message = struct.pack("!BBHI", kind, 0, 0, 0) + ip_address(target).packed
    return ipv6(source, "ff02::1", message, ttl=255, protocol=58)


GUEST_MAC = b"\x02\0\0\0\0\x42"
ALL_NODES = b"\x33\x33\0\0\0\x01"


@pytest.mark.parametrize(
    ("frame", "eid"),
    [
        (arp(1, GUEST_MAC, "192.168.1.66", "192.168.1.66"), "192.168.1.66"),  # gratuitous
        (arp(1, GUEST_MAC, "192.168.1.66", "192.168.1.1"), "192.168.1.66"),
        (arp(2, GUEST_MAC, "192.168.1.66", "192.168.1.66"), "192.168.1.66"),
        (b"\xff" * 6 + GUEST_MAC + b"\x08\0" + ipv4("192.168.1.66", "255.255.255.255", b""), "192.168.1.66"),
        (ALL_NODES + GUEST_MAC + b"\x86\xdd" + icmpv6(136, "fe80::42", "fd0e:1::66"), "fd0e:1::66"),
        (ALL_NODES + GUEST_MAC + b"\x86\xdd" + icmpv6(135, "::", "fd0e:1::66"), "fd0e:1::66"),
        (ALL_NODES + GUEST_MAC + b"\x86\xdd" + icmpv6(135, "fd0e:1::66", "fd0e:1::1"), "fd0e:1::66"),
    ],
)
def test_discovery(plane: EbpfDataPlane, site_wire: Wire, frame: bytes, eid: str) -> None:
    site_wire.send_frame(frame)
    assert (eid, mac_text(GUEST_MAC)) in seen_eids(plane)


def test_discovery_knows_what_is_local_and_what_is_not_dynamic(plane: EbpfDataPlane, site_wire: Wire) -> None:
    plane.set_entry(entry("192.168.1.70/32", EntryKind.LOCAL))
    plane.set_entry(entry("192.168.1.71/32", EntryKind.AWAY, NEW_RLOC))
    quiet = ("192.168.1.70", "172.16.0.9", "0.0.0.0", "192.168.1.1")
    for sender in (*quiet, "192.168.1.71"):
        site_wire.send_frame(arp(1, GUEST_MAC, sender, "192.168.1.1"))
    seen = [eid for eid, mac in seen_eids(plane) if mac == mac_text(GUEST_MAC)]
    assert seen == ["192.168.1.71"]


def test_usage_counts_since_installation(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    prefix = ip_network("192.168.2.0/24")
    assert plane.usage(prefix) == (0, 0, None)
    plane.set_entry(entry(str(prefix), EntryKind.REMOTE, NEW_RLOC))
    assert plane.usage(prefix) == (0, 0, None)
    before = time.monotonic_ns() - 10_000_000  # a timer tick at 100 Hz
    for _ in range(3):
        site_wire.send(PACKET)
        core_wire.expect(is_lisp)
    packets, octets, last_used_ns = plane.usage(prefix)
    assert (packets, octets) == (3, 3 * len(PACKET))
    assert last_used_ns is not None
    assert before <= last_used_ns < time.monotonic_ns()
    plane.delete_entry(prefix)
    assert plane.usage(prefix) == (0, 0, None)


def test_close_is_idempotent_and_leaves_nothing(network: Network, open_plane: OpenPlane) -> None:
    plane = open_plane(1)
    assert "lisp" in network.run("xtr1", "ip", "-brief", "link").stdout
    with inside(network.names["xtr1"]):
        plane.close()
        plane.close()
    assert "lisp" not in network.run("xtr1", "ip", "-brief", "link").stdout
    for interface in ("eid", "core"):
        assert "bpf" not in network.run("xtr1", "tc", "filter", "show", "dev", interface, "ingress").stdout


def test_a_second_data_plane_takes_the_place_of_a_killed_one(
    open_plane: OpenPlane, network: Network, site_wire: Wire, core_wire: Wire
) -> None:
    first, second = open_plane(1), open_plane(1)
    first.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, OLD_RLOC))
    second.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, NEW_RLOC))
    site_wire.send(PACKET)
    assert Encapsulated.read(core_wire.expect(is_lisp)[ETHERNET:]).outer.destination == NEW_RLOC


def test_missing_interface_is_said(network: Network) -> None:
    from testbed.dataplane import open_ebpf

    with inside(network.names["xtr1"]), pytest.raises(TestbedError) as caught:
        open_ebpf(rloc=ip_address(RLOC), core_interface="core", eid_interface="none")
    assert caught.value.code == "interface-missing"
    assert caught.value.next_command
