"""Frames that are not what their length or tag says: none ends the agent, none is lost in silence."""

from __future__ import annotations

import pytest

from testbed.dataplane.ebpf import EbpfDataPlane
from testbed.dataplane.model import EntryKind
from tests.netns.conftest import OpenPlane
from tests.netns.lispnet import Wire, wait_for, wait_until
from tests.netns.packets import ETHERNET, Encapsulated, Ip, ipv4, ipv6, is_lisp, udp
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


def test_a_frame_that_says_another_version_is_malformed(plane: EbpfDataPlane, site_wire: Wire) -> None:
    packet = ipv4(EID, "192.168.200.1", udp(1, 2, b"an EtherType of IPv6"))
    site_wire.send_frame(site_wire.peer_mac + site_wire.mac + b"\x86\xdd" + packet)

    def counted() -> bool:
        assert plane.read_missed() is None
        return plane.drops()["held-malformed"] == 1

    wait_until(counted)
