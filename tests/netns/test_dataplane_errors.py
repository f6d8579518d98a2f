"""What hosts are told of packets that are too long or too old, at this site and through the tunnel (RFC 9300 §7)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from testbed.dataplane.ebpf import EbpfDataPlane
from testbed.dataplane.model import EntryKind
from tests.netns.conftest import OpenPlane
from tests.netns.lispnet import Wire, wait_for, wait_until
from tests.netns.packets import ETHERNET, Encapsulated, Ip, checksum, ipv4, ipv6, is_lisp, udp
from tests.netns.test_dataplane_state import EID, EID6, NEW_RLOC, OLD_RLOC, PEER, arriving, entry

pytestmark = pytest.mark.netns


@pytest.fixture
def plane(open_plane: OpenPlane) -> EbpfDataPlane:
    return open_plane(1)


def answered(plane: EbpfDataPlane, wire: Wire, packet: bytes, wanted: Callable[[bytes], bool]) -> Ip:
    """The site's ICMP answer to a packet that it sends, with the slow path served once."""
    wire.send(packet)
    assert wait_for(plane.miss_fd())
    assert plane.read_missed() is None
    return Ip.read(wire.expect(wanted)[ETHERNET:])


@pytest.mark.parametrize(("rloc", "mtu"), [("10.0.3.2", 1500 - 36), ("fd00:3::2", 1500 - 56)])
def test_fragmentation_needed(open_plane: OpenPlane, site_wire: Wire, rloc: str, mtu: int) -> None:
    """RFC 9300 §7.1 and RFC 1191: the MTU that the site may use; the last size that fits passes."""
    plane = open_plane(1, other_rlocs=[ip_address("fd00:1::2")])
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, rloc))
    packet = ipv4(EID, PEER, udp(1, 2, bytes(mtu + 1 - 28)), fragment=0x4000)
    error = answered(plane, site_wire, packet, lambda f: f[12:14] == b"\x08\0" and f[23] == 1)
    assert (error.source, error.destination, error.header_sum) == ("192.168.1.1", EID, 0)
    assert checksum(error.payload) == 0
    assert struct.unpack_from("!BBxxHH", error.payload) == (3, 4, 0, mtu)
    assert error.payload[8:36] == packet[:28]
    assert plane.drops()["held-too-big"] == 1
    site_wire.send(packet[:2] + ipv4(EID, PEER, udp(1, 2, bytes(mtu - 28)), fragment=0x4000)[2:])
    wait_until(lambda: plane.usage(ip_network("192.168.2.0/24"))[0] == 1)


def test_a_site_is_told_of_what_was_held_for_it(plane: EbpfDataPlane, site_wire: Wire) -> None:
    """A packet that the agent injects when its mapping has come is the site's, whoever its source is."""
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, NEW_RLOC))
    plane.inject(ipv4(EID, PEER, udp(1, 2, bytes(1472)), fragment=0x4000))
    assert wait_for(plane.miss_fd())
    assert plane.read_missed() is None
    error = Ip.read(site_wire.expect(lambda f: f[12:14] == b"\x08\0" and f[23] == 1)[ETHERNET:])
    assert (error.destination, error.payload[:2]) == (EID, b"\x03\x04")


def test_another_site_is_told_through_the_tunnel(open_plane: OpenPlane, core_wire: Wire) -> None:
    """What arrived in IPv4 is too long for the IPv6 header that it would get on its way on."""
    plane = open_plane(1, other_rlocs=[ip_address("fd00:1::2")])
    plane.set_entry(entry("192.168.1.10/32", EntryKind.AWAY, "fd00:3::2"))
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, OLD_RLOC))
    core_wire.send(arriving(ipv4(PEER, EID, udp(1, 2, bytes(1460 - 28)), fragment=0x4000)))

    def told() -> bool:
        assert plane.read_missed() is None
        return plane.drops()["held-too-big"] == 1

    wait_until(told)
    seen = Encapsulated.read(core_wire.expect(is_lisp)[ETHERNET:])
    assert (seen.outer.destination, seen.inner.source, seen.inner.destination) == (OLD_RLOC, "192.168.1.1", PEER)
    assert struct.unpack_from("!BBxxHH", seen.inner.payload) == (3, 4, 0, 1500 - 56)


def test_packet_too_big(open_plane: OpenPlane, site_wire: Wire) -> None:
    plane = open_plane(1, mtu=1400)
    plane.set_entry(entry("fd0e:2::/64", EntryKind.REMOTE, NEW_RLOC))
    packet = ipv6(EID6, "fd0e:2::10", udp(1, 2, bytes(1330)))
    error = answered(plane, site_wire, packet, lambda f: f[12:14] == b"\x86\xdd" and f[54] == 2)
    assert (error.source, error.destination) == ("fd0e:1::1", EID6)
    pseudo = error.whole[8:40] + struct.pack("!II", len(error.payload), 58)
    assert checksum(pseudo + error.payload) == 0
    assert struct.unpack_from("!BBxxI", error.payload) == (2, 0, 1400 - 36)
    assert len(error.whole) == 1280


def test_without_df_the_inner_packet_is_fragmented(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, NEW_RLOC))
    packet = ipv4(EID, PEER, udp(1, 2, bytes(range(250)) * 5 + bytes(222)))
    site_wire.send(packet)
    assert wait_for(plane.miss_fd())
    assert plane.read_missed() is None
    first, second = (Encapsulated.read(core_wire.expect(is_lisp)[ETHERNET:]) for _ in range(2))
    assert first.inner.payload + second.inner.payload == packet[20:]
    assert (first.inner.fragment, second.inner.fragment) == (0x2000, len(first.inner.payload) // 8)
    assert first.inner.header_sum == second.inner.header_sum == 0
    assert abs(len(first.inner.payload) - len(second.inner.payload)) <= 8  # two halves, RFC 9300 §7.1
    assert first.outer.fragment == second.outer.fragment == 0x4000


def test_time_exceeded_to_the_site(plane: EbpfDataPlane, site_wire: Wire) -> None:
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, NEW_RLOC))
    packet = ipv4(EID, PEER, udp(1, 2, b"x"), ttl=1)
    error = answered(plane, site_wire, packet, lambda f: f[12:14] == b"\x08\0" and f[23] == 1)
    assert (error.source, error.payload[0], error.payload[1]) == ("192.168.1.1", 11, 0)


def test_time_exceeded_through_the_tunnel(plane: EbpfDataPlane, core_wire: Wire) -> None:
    plane.set_entry(entry("192.168.1.0/24", EntryKind.LOCAL))
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, OLD_RLOC))
    core_wire.send(arriving(ipv4(PEER, EID, udp(1, 2, b"x"), ttl=9), ttl=1))
    assert wait_for(plane.miss_fd())
    assert plane.read_missed() is None
    seen = Encapsulated.read(core_wire.expect(is_lisp)[ETHERNET:])
    assert (seen.inner.source, seen.inner.destination, seen.inner.payload[0]) == ("192.168.1.1", PEER, 11)


def test_icmp_errors_are_limited(plane: EbpfDataPlane, site_wire: Wire) -> None:
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, NEW_RLOC))
    for _ in range(200):
        site_wire.send(ipv4(EID, PEER, udp(1, 2, b"x"), ttl=1))

    def all_read() -> bool:
        plane.read_missed()
        return plane.drops()["held-ttl-expired"] == 200

    wait_until(all_read)
    assert 100 <= plane.icmp_errors_withheld() < 200
