"""What arriving data packets say about locators, as the data plane reports it (RFC 9300 §5.3, §10)."""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network

import pytest

from testbed.dataplane import icmp
from testbed.dataplane.ebpf import EbpfDataPlane
from testbed.dataplane.model import DataPlaneEventKind, Entry, EntryKind, Locator
from testbed.lisp.wire.data import DataHeader
from tests.netns.conftest import OpenPlane
from tests.netns.lispnet import Wire, events_of, wait_until
from tests.netns.packets import ETHERNET, Encapsulated, ipv4, is_lisp, udp
from tests.netns.test_dataplane_mtu import ROUTER, SENT, paths_of

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
    # An echo reply that nobody waits for: what the host says to it would carry the next header.
    inner = ipv4(sender, EID, bytes(8) + text, protocol=1)
    return ipv4(peer, RLOC, udp(50000, 4341, header.encode() + inner), ttl=60)


def comes_through(site: Wire, core: Wire, packet: bytes, text: bytes) -> None:
    core.send(packet)
    site.expect(lambda frame: frame.endswith(text) and not is_lisp(frame))


def sent(site: Wire, core: Wire) -> Encapsulated:
    """What the site's next packet to the peer looks like in the core."""
    site.send(ipv4(EID, PEER, udp(1, 2, b"x")))
    return Encapsulated.read(core.expect(is_lisp)[ETHERNET:])


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
            # At most one report about an EID and peer in 70 ms: a packet after that says it again.
            comes_through(site_wire, core_wire, said, b"bits")
            return heard(plane) == [bits]

        wait_until(told)
        for _ in range(3):
            comes_through(site_wire, core_wire, said, b"bits")
        assert heard(plane) == []


def test_bits_are_not_reported_again_because_of_a_path_mtu_but_of_a_new_mapping(
    open_plane: OpenPlane, site_wire: Wire, core_wire: Wire
) -> None:
    plane = opened(open_plane, hear_locator_status=True)
    said = arriving(DataHeader(nonce=1, locator_status_bits=0b11), b"bits")

    def told() -> bool:
        comes_through(site_wire, core_wire, said, b"bits")
        return heard(plane) == [0b11]

    wait_until(told)
    reported_ns = time.monotonic_ns()
    core_wire.send(icmp.too_big(SENT, ROUTER, 1300))
    wait_until(lambda: plane.read_missed() is None and bool(paths_of(plane)))
    wait_until(lambda: time.monotonic_ns() > reported_ns + 90_000_000)  # a report could come again
    assert not told()
    plane.set_entry(REMOTE)
    wait_until(told)


def test_what_is_said_of_bits_does_not_silence_what_is_said_of_a_source(
    open_plane: OpenPlane, site_wire: Wire, core_wire: Wire
) -> None:
    """Reports of one kind are limited, not those of another about the same EID and peer."""
    plane = opened(open_plane, hear_locator_status=True, hear_sources=True)
    said = arriving(DataHeader(nonce=1, locator_status_bits=0b11), b"bits")
    comes_through(site_wire, core_wire, said, b"bits")
    plane.set_entry(Entry(REMOTE.eid, EntryKind.RESOLVE))
    comes_through(site_wire, core_wire, said, b"bits")
    kinds = [event.kind for event in plane.read_events()]
    assert kinds == [DataPlaneEventKind.LOCATOR_STATUS, DataPlaneEventKind.UNMAPPED_SOURCE]


def test_bits_of_an_instance_say_nothing_of_the_ninth_locator(
    open_plane: OpenPlane, site_wire: Wire, core_wire: Wire
) -> None:
    plane = open_plane(1, hear_locator_status=True, instance_id=7)
    plane.set_entry(Entry(LOCAL.eid, LOCAL.kind, instance_id=7))
    plane.set_entry(Entry(REMOTE.eid, REMOTE.kind, REMOTE.locators, instance_id=7))
    header = DataHeader(nonce=1, instance_id=7, locator_status_bits=0b10)
    comes_through(site_wire, core_wire, arriving(header, b"bits"), b"bits")
    (event,) = events_of(plane, DataPlaneEventKind.LOCATOR_STATUS)
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


def echo(site: Wire, core: Wire, header: DataHeader) -> None:
    comes_through(site, core, arriving(header, b"echo"), b"echo")


def test_rfc9300_10_1_a_nonce_that_is_asked_for_goes_back_once(
    open_plane: OpenPlane, site_wire: Wire, core_wire: Wire
) -> None:
    opened(open_plane, echo_timeout_ms=1000)
    echo(site_wire, core_wire, DataHeader(nonce=0xABCDEF, echo_nonce=True))
    answer = sent(site_wire, core_wire)
    assert (answer.flags, answer.nonce) == (0x80, 0xABCDEF)
    assert sent(site_wire, core_wire).nonce != 0xABCDEF


def test_rfc9300_10_1_every_packet_asks_until_the_nonce_comes_back(
    open_plane: OpenPlane, site_wire: Wire, core_wire: Wire
) -> None:
    plane = opened(open_plane, echo_timeout_ms=1000)
    plane.request_echo(ip_address(PEER_RLOC), 0x123456)
    for _ in range(3):
        asking = sent(site_wire, core_wire)
        assert (asking.flags, asking.nonce) == (0xA0, 0x123456)
    # The peer asks as well: what goes there asks and answers by turns.
    echo(site_wire, core_wire, DataHeader(nonce=0x777777, echo_nonce=True))
    for _ in range(2):
        assert (sent(site_wire, core_wire).flags, sent(site_wire, core_wire).flags) == (0x80, 0xA0)
        echo(site_wire, core_wire, DataHeader(nonce=0x777777, echo_nonce=True))
    echo(site_wire, core_wire, DataHeader(nonce=0x123456))
    (event,) = events_of(plane, DataPlaneEventKind.NONCE_ECHOED)
    assert (str(event.peer), str(event.eid)) == (PEER_RLOC, PEER)
    assert {sent(site_wire, core_wire).flags for _ in range(3)} == {0x80}


def test_rfc9300_10_1_who_sends_without_the_echo_has_not_got_the_request(
    open_plane: OpenPlane, site_wire: Wire, core_wire: Wire
) -> None:
    plane = opened(open_plane, echo_timeout_ms=1)
    plane.request_echo(ip_address(PEER_RLOC), 0x123456)
    for _ in range(2):
        sent(site_wire, core_wire)
    echo(site_wire, core_wire, DataHeader(nonce=1))
    assert not [event for event in plane.read_events() if event.kind is DataPlaneEventKind.NONCE_NOT_ECHOED]
    sent(site_wire, core_wire)  # the third: from now on silence counts

    def told() -> bool:
        echo(site_wire, core_wire, DataHeader(nonce=1))
        return any(event.kind is DataPlaneEventKind.NONCE_NOT_ECHOED for event in plane.read_events())

    wait_until(told)
    assert sent(site_wire, core_wire).flags == 0x80


def test_rfc9300_10_1_one_way_traffic_says_nothing(open_plane: OpenPlane, site_wire: Wire, core_wire: Wire) -> None:
    plane = opened(open_plane, echo_timeout_ms=1)
    plane.request_echo(ip_address(PEER_RLOC), 0x123456)
    for _ in range(5):
        assert sent(site_wire, core_wire).flags == 0xA0
    # Another xTR of the peer's sends: it was asked nothing.
    comes_through(site_wire, core_wire, arriving(DataHeader(nonce=1), b"other", peer="10.0.3.2"), b"other")
    assert not [event for event in plane.read_events() if event.kind is DataPlaneEventKind.NONCE_NOT_ECHOED]
    plane.request_echo(ip_address(PEER_RLOC), None)
    assert sent(site_wire, core_wire).flags == 0x80


def test_without_the_option_nothing_is_echoed(open_plane: OpenPlane, site_wire: Wire, core_wire: Wire) -> None:
    opened(open_plane)
    echo(site_wire, core_wire, DataHeader(nonce=0xABCDEF, echo_nonce=True))
    assert sent(site_wire, core_wire).nonce != 0xABCDEF


RESOLVE = Entry(ip_network("192.168.0.0/16"), EntryKind.RESOLVE)


@pytest.mark.parametrize(
    ("mapped", "hear"), [(False, True), (True, True), (False, False)], ids=["gleaned", "mapped", "not listened to"]
)
def test_rfc9300_9_where_an_unmapped_source_sends_from_is_reported(
    open_plane: OpenPlane, site_wire: Wire, core_wire: Wire, mapped: bool, hear: bool
) -> None:
    plane = open_plane(1, hear_sources=hear)
    for entry in (RESOLVE, LOCAL, *([REMOTE] if mapped else [])):
        plane.set_entry(entry)
    comes_through(site_wire, core_wire, arriving(DataHeader(nonce=1), b"glean"), b"glean")
    found = [event for event in plane.read_events() if event.kind is DataPlaneEventKind.UNMAPPED_SOURCE]
    assert [(str(event.eid), str(event.peer)) for event in found] == (
        [(PEER, PEER_RLOC)] if hear and not mapped else []
    )
