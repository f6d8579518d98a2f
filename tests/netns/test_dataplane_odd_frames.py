"""Frames that are not what their length, tag or checksum says: none ends the agent, none is lost in silence."""

from __future__ import annotations

import json
import struct
from ipaddress import ip_network

import pytest

from testbed.dataplane.ebpf import EbpfDataPlane
from testbed.dataplane.model import EntryKind
from tests.netns.conftest import OpenPlane
from tests.netns.lispnet import Network, Wire, wait_for, wait_until
from tests.netns.packets import ETHERNET, Encapsulated, Ip, checksum, ipv4, ipv6, is_lisp, udp
from tests.netns.test_dataplane_state import EID, EID6, NEW_RLOC, PEER, entry

pytestmark = pytest.mark.netns

PEER6 = "fd0e:2::10"
LONG = bytes(1480)
DF = 0x4000


@pytest.fixture
def plane(open_plane: OpenPlane) -> EbpfDataPlane:
    opened = open_plane(1)
    opened.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, NEW_RLOC))
    opened.set_entry(entry("fd0e:2::/64", EntryKind.REMOTE, NEW_RLOC))
    opened.set_entry(entry("192.168.200.0/24", EntryKind.RESOLVE))
    return opened


@pytest.mark.parametrize(
    "packet",
    [
        ipv4(EID, PEER, b""),
        ipv4(EID, PEER, udp(1, 2, b"short"), fragment=DF),
        ipv6(EID6, PEER6, udp(1, 2, b"short", (EID6, PEER6))),
    ],
)
def test_what_follows_a_packet_is_none_of_it(
    plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire, packet: bytes
) -> None:
    """The header says how long it is (RFC 791 §3.1, RFC 8200 §3), not the frame: it is not too long for the path."""
    site_wire.send(packet + LONG[: 1500 - len(packet)])
    assert wait_for(plane.miss_fd())
    assert plane.read_missed() is None
    seen = Encapsulated.read(core_wire.expect(is_lisp)[ETHERNET:])
    assert seen.inner.payload == Ip.read(packet).payload
    assert seen.udp_length == 16 + len(packet)
    assert sum(plane.drops().values()) == 0


def test_a_missed_packet_is_as_long_as_it_says(plane: EbpfDataPlane, site_wire: Wire) -> None:
    packet = ipv4(EID, "192.168.200.1", udp(1, 2, b"short"))
    site_wire.send(packet + bytes(13))
    assert wait_for(plane.miss_fd())
    assert plane.read_missed() == packet


def tagged(wire: Wire, packet: bytes, tci: int) -> bytes:
    kind = b"\x08\0" if packet[0] >> 4 == 4 else b"\x86\xdd"
    return wire.peer_mac + wire.mac + b"\x81\0" + struct.pack("!H", tci) + kind + packet


def not_of_a_vlan_here(network: Network, interface: str) -> int:
    """Frames that the kernel dropped because they are tagged and no interface is of that VLAN."""
    shown = network.run("xtr1", "ip", "-json", "-s", "-s", "link", "show", "dev", interface, check=True).stdout
    received = json.loads(shown)[0]["stats64"]["rx"]
    return int(received.get("otherhost", 0))


@pytest.mark.parametrize(
    "destination", [PEER, "192.168.200.1", "fd0e:2::10"], ids=["mapped", "unmapped", "mapped, IPv6"]
)
def test_a_frame_of_a_vlan_is_the_kernels(
    plane: EbpfDataPlane, network: Network, site_wire: Wire, core_wire: Wire, destination: str
) -> None:
    """No VLAN is the site's LAN; the kernel, which may have an interface of it, counts what is of none."""
    before = not_of_a_vlan_here(network, "eid")
    if ":" in destination:
        packet = ipv6(EID6, destination, udp(1, 2, b"tagged", (EID6, destination)))
    else:
        packet = ipv4(EID, destination, udp(1, 2, b"tagged"))
    for _ in range(3):
        site_wire.send_frame(tagged(site_wire, packet, 5))
    site_wire.send(ipv4(EID, PEER, udp(1, 2, b"after")))
    assert core_wire.expect(lambda frame: b"tagged" in frame or frame.endswith(b"after")).endswith(b"after")
    assert plane.read_missed() is None
    assert sum(plane.drops().values()) == 0
    assert not_of_a_vlan_here(network, "eid") == before + 3


def test_a_frame_of_a_vlan_from_the_core_is_the_kernels(
    plane: EbpfDataPlane, network: Network, site_wire: Wire, core_wire: Wire
) -> None:
    plane.set_entry(entry("192.168.1.0/24", EntryKind.LOCAL))
    before = not_of_a_vlan_here(network, "core")
    core_wire.send_frame(tagged(core_wire, arriving(b"tagged"), 5))
    core_wire.send(arriving(b"after"))
    assert site_wire.expect(lambda frame: b"tagged" in frame or frame.endswith(b"after")).endswith(b"after")
    assert not_of_a_vlan_here(network, "core") == before + 1


def test_a_priority_tag_is_of_no_vlan(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    """IEEE 802.1Q §6.9: VLAN 0 says only a priority; the frame is the LAN's, the tag does not go on."""
    plane.set_entry(entry("192.168.1.0/24", EntryKind.LOCAL))
    site_wire.send_frame(tagged(site_wire, ipv4(EID, PEER, udp(1, 2, b"urgent")), 7 << 13))
    assert is_lisp(core_wire.expect(lambda frame: frame.endswith(b"urgent")))
    packet = ipv4(EID, "192.168.200.1", udp(1, 2, b"urgent"))
    site_wire.send_frame(tagged(site_wire, packet, 7 << 13))
    assert wait_for(plane.miss_fd())
    assert plane.read_missed() == packet
    core_wire.send_frame(tagged(core_wire, arriving(b"urgent too"), 7 << 13))
    assert site_wire.expect(lambda frame: frame.endswith(b"urgent too"))[12:14] == b"\x08\0"


def test_a_frame_that_says_another_version_is_malformed(plane: EbpfDataPlane, site_wire: Wire) -> None:
    packet = ipv4(EID, "192.168.200.1", udp(1, 2, b"an EtherType of IPv6"))
    site_wire.send_frame(site_wire.peer_mac + site_wire.mac + b"\x86\xdd" + packet)

    def counted() -> bool:
        assert plane.read_missed() is None
        return plane.drops()["held-malformed"] == 1

    wait_until(counted)


def arriving(payload: bytes, **outer: int) -> bytes:
    inner = ipv4(PEER, EID, udp(1, 9, payload))
    return ipv4("10.0.2.2", "10.0.1.2", udp(50000, 4341, struct.pack("!II", 0x80 << 24, 0) + inner), **outer)


def with_header(packet: bytes, at: int, *octets: int, right: bool = True) -> bytes:
    """The packet with other octets in its IPv4 header, whose checksum is right all the same, or not changed."""
    changed = bytearray(packet)
    changed[at : at + len(octets)] = bytes(octets)
    if right:
        changed[10:12] = b"\0\0"
        changed[10:12] = struct.pack("!H", checksum(bytes(changed[:20])))
    return bytes(changed)


def refused_headers(network: Network) -> dict[str, int]:
    """What the kernel counted of IPv4 headers that it refused."""
    counted: dict[str, int] = {}
    for file in ("snmp", "netstat"):
        lines = [line.split() for line in network.run("xtr1", "cat", f"/proc/net/{file}").stdout.splitlines()]
        for heads, numbers in zip(lines[::2], lines[1::2], strict=True):
            if heads[0] in ("Ip:", "IpExt:"):
                counted |= dict(zip(heads[1:], map(int, numbers[1:]), strict=True))
    return {name: counted[name] for name in ("InHdrErrors", "InTruncatedPkts", "InCsumErrors")}


@pytest.mark.parametrize(
    ("packet", "counter"),
    [
        (with_header(arriving(b"torn"), 8, 1, right=False), "InCsumErrors"),
        (with_header(arriving(b"torn"), 12, 10, 0, 66, 2, right=False), "InCsumErrors"),
        (with_header(arriving(b"torn"), 0, 0x44), "InHdrErrors"),
        (with_header(arriving(b"torn"), 2, 0, 19), "InHdrErrors"),
        (with_header(arriving(b"torn"), 2, 5, 0), "InTruncatedPkts"),
    ],
    ids=["TTL", "source", "IHL 4", "shorter than its header", "longer than the frame"],
)
def test_a_wrong_outer_header_is_the_kernels(
    plane: EbpfDataPlane, network: Network, site_wire: Wire, core_wire: Wire, packet: bytes, counter: str
) -> None:
    """RFC 1812 §5.2.2: who acts on a header must verify it first; the kernel drops such a packet and counts it."""
    plane.set_entry(entry("192.168.1.0/24", EntryKind.LOCAL))
    before = refused_headers(network)
    core_wire.send(packet)
    core_wire.send(arriving(b"after"))
    assert site_wire.expect(lambda frame: b"torn" in frame or frame.endswith(b"after")).endswith(b"after")
    assert refused_headers(network)[counter] == before[counter] + 1
    assert plane.usage(ip_network("192.168.1.0/24"))[0] == 1
    assert plane.read_missed() is None
    assert sum(plane.drops().values()) == 0


def test_a_datagram_that_ends_behind_its_packet_is_truncated(plane: EbpfDataPlane, core_wire: Wire) -> None:
    """The frame's padding does not complete it."""
    packet = with_header(arriving(b"torn"), 2, 0, 60)
    core_wire.send(packet)
    wait_until(lambda: plane.drops()["truncated"] == 1)
