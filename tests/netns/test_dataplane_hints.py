"""What arriving data packets say about locators, as the data plane reports it (RFC 9300 §5.3, §10)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from testbed.dataplane.ebpf import EbpfDataPlane
from testbed.dataplane.model import DataPlaneEvent, DataPlaneEventKind, Entry, EntryKind, Locator
from testbed.lisp.wire.data import DataHeader
from tests.netns.conftest import OpenPlane
from tests.netns.lispnet import Wire, wait_until
from tests.netns.packets import ETHERNET, Encapsulated, ipv4, is_lisp, udp

pytestmark = pytest.mark.netns

EID, PEER = "192.168.1.10", "192.168.2.10"
RLOC, PEER_RLOC = "10.0.1.2", "10.0.2.2"
LOCAL = Entry(ip_network("192.168.1.0/24"), EntryKind.LOCAL)
REMOTE = Entry(ip_network("192.168.2.0/24"), EntryKind.REMOTE, (Locator(ip_address(PEER_RLOC)),))


def opened(open_plane: OpenPlane, **options: object) -> EbpfDataPlane:
    plane = open_plane(1, **options)
    plane.set_entry(LOCAL)
    plane.set_entry(REMOTE)
    return plane


def arriving(header: DataHeader, text: bytes, *, sender: str = PEER, peer: str = PEER_RLOC) -> bytes:
    inner = ipv4(sender, EID, udp(1, 9, text))
    return ipv4(peer, RLOC, udp(50000, 4341, header.encode() + inner), ttl=60)


def comes_through(site: Wire, core: Wire, packet: bytes, text: bytes) -> None:
    core.send(packet)
    site.expect(lambda frame: frame.endswith(text) and not is_lisp(frame))


def sent(site: Wire, core: Wire) -> Encapsulated:
    """What the site's next packet to the peer looks like in the core."""
    site.send(ipv4(EID, PEER, udp(1, 2, b"x")))
    return Encapsulated.read(core.expect(is_lisp)[ETHERNET:])


def reported(plane: EbpfDataPlane, kind: DataPlaneEventKind) -> list[DataPlaneEvent]:
    """The reports of a kind, once there are any."""
    found: list[DataPlaneEvent] = []

    def any_came() -> bool:
        found.extend(event for event in plane.read_events() if event.kind is kind)
        return bool(found)

    wait_until(any_came)
    return found


def heard(plane: EbpfDataPlane) -> list[int]:
    """The locator-status-bits that were reported since the last time."""
    return [event.locator_status for event in plane.read_events() if event.locator_status is not None]


def test_rfc9300_10_the_bits_of_the_site_are_sent_as_they_change(
    open_plane: OpenPlane, site_wire: Wire, core_wire: Wire
) -> None:
    plane = opened(open_plane, locator_status_bits=0)
    plane.set_locator_status(0b11)
    assert (sent(site_wire, core_wire).flags, sent(site_wire, core_wire).second) == (0xC0, 0b11)
    plane.set_locator_status(0b01)
    assert sent(site_wire, core_wire).second == 0b01


def test_rfc9300_10_bits_are_reported_when_they_change(open_plane: OpenPlane, site_wire: Wire, core_wire: Wire) -> None:
    plane = opened(open_plane, hear_locator_status=True)
    for bits in (0b11, 0b10, 0b11):
        said = arriving(DataHeader(nonce=1, locator_status_bits=bits), b"bits")

        def told(said: bytes = said, bits: int = bits) -> bool:
            # At most one report about an EID and peer in 10 ms: a packet after that says it again.
            comes_through(site_wire, core_wire, said, b"bits")
            return heard(plane) == [bits]

        wait_until(told)
        for _ in range(3):
            comes_through(site_wire, core_wire, said, b"bits")
        assert heard(plane) == []


def test_bits_of_an_instance_say_nothing_of_the_ninth_locator(
    open_plane: OpenPlane, site_wire: Wire, core_wire: Wire
) -> None:
    plane = open_plane(1, hear_locator_status=True, instance_id=7)
    plane.set_entry(Entry(LOCAL.eid, LOCAL.kind, instance_id=7))
    plane.set_entry(Entry(REMOTE.eid, REMOTE.kind, REMOTE.locators, instance_id=7))
    header = DataHeader(nonce=1, instance_id=7, locator_status_bits=0b10)
    comes_through(site_wire, core_wire, arriving(header, b"bits"), b"bits")
    (event,) = reported(plane, DataPlaneEventKind.LOCATOR_STATUS)
    assert event.locator_status == 0xFFFFFF02


@pytest.mark.parametrize(
    ("header", "sender", "hear"),
    [
        (DataHeader(nonce=1), PEER, True),
        (DataHeader(nonce=1, locator_status_bits=1), "192.168.9.9", True),
        (DataHeader(nonce=1, locator_status_bits=1), PEER, False),
    ],
    ids=["without the L-bit", "of an unknown source", "not listened to"],
)
def test_nothing_is_reported(
    open_plane: OpenPlane, site_wire: Wire, core_wire: Wire, header: DataHeader, sender: str, hear: bool
) -> None:
    plane = opened(open_plane, hear_locator_status=hear)
    comes_through(site_wire, core_wire, arriving(header, b"bits", sender=sender), b"bits")
    assert heard(plane) == []
