"""Map-versions on the wire, and what the data plane does about them (RFC 9302 §6, §7)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from testbed.dataplane.ebpf import EbpfDataPlane
from testbed.dataplane.model import DataPlaneEvent, DataPlaneEventKind, Entry, EntryKind, Locator
from testbed.lisp.map_version import is_newer
from testbed.lisp.wire.data import DataHeader
from tests.netns.conftest import OpenPlane
from tests.netns.lispnet import Wire, wait_for, wait_until
from tests.netns.packets import Encapsulated, ipv4, is_lisp, udp

pytestmark = pytest.mark.netns

EID, PEER = "192.168.1.10", "192.168.2.10"
RLOC, PEER_RLOC = "10.0.1.2", "10.0.2.2"
OURS, THEIRS = 100, 4000


def arriving(text: bytes, source: int, destination: int, *, sender: str = PEER) -> bytes:
    header = DataHeader(source_map_version=source, destination_map_version=destination).encode()
    inner = ipv4(sender, EID, udp(1, 9, text))
    return ipv4(PEER_RLOC, RLOC, udp(50000, 4341, header + inner), ttl=60)


def opened(open_plane: OpenPlane, *, map_versioning: bool = True) -> EbpfDataPlane:
    plane = open_plane(1, map_versioning=map_versioning)
    plane.set_entry(Entry(ip_network("192.168.1.0/24"), EntryKind.LOCAL, map_version=OURS))
    locators = (Locator(ip_address(PEER_RLOC)),)
    plane.set_entry(Entry(ip_network("192.168.2.0/24"), EntryKind.REMOTE, locators, map_version=THEIRS))
    return plane


def comes_through(site: Wire, core: Wire, packet: bytes, text: bytes) -> None:
    core.send(packet)
    site.expect(lambda frame: frame.endswith(text) and not is_lisp(frame))


def reports(plane: EbpfDataPlane) -> list[DataPlaneEvent]:
    return [event for event in plane.read_events() if event.map_version is not None]


def test_equal_versions_say_nothing(open_plane: OpenPlane, site_wire: Wire, core_wire: Wire) -> None:
    plane = opened(open_plane)
    comes_through(site_wire, core_wire, arriving(b"regular", THEIRS, OURS), b"regular")
    assert reports(plane) == []


def test_rfc9302_7_1_an_older_destination_is_delivered_and_reported(
    open_plane: OpenPlane, site_wire: Wire, core_wire: Wire
) -> None:
    plane = opened(open_plane)
    comes_through(site_wire, core_wire, arriving(b"older", THEIRS, OURS - 1), b"older")
    assert wait_for(plane.event_fd())
    (report,) = reports(plane)
    assert report.kind is DataPlaneEventKind.OLD_DESTINATION_VERSION
    assert (str(report.eid), str(report.peer), report.map_version) == (EID, PEER_RLOC, OURS - 1)


@pytest.mark.parametrize("destination", [OURS + 1, 0], ids=["newer", "null"])
def test_rfc9302_7_1_a_newer_or_null_destination_is_dropped(
    open_plane: OpenPlane, core_wire: Wire, destination: int
) -> None:
    plane = opened(open_plane)
    core_wire.send(arriving(b"forged", THEIRS, destination))
    wait_until(lambda: plane.drops()["map-version-destination"] == 1)
    assert reports(plane) == []


@pytest.mark.parametrize("source", [THEIRS + 1, 5, THEIRS - 2049])
def test_rfc9302_7_2_a_newer_source_is_delivered_and_reported(
    open_plane: OpenPlane, site_wire: Wire, core_wire: Wire, source: int
) -> None:
    assert is_newer(source, THEIRS)
    plane = opened(open_plane)
    comes_through(site_wire, core_wire, arriving(b"moved", source, OURS), b"moved")
    assert wait_for(plane.event_fd())
    (report,) = reports(plane)
    assert report.kind is DataPlaneEventKind.NEW_SOURCE_VERSION
    assert (str(report.eid), str(report.peer), report.map_version) == (PEER, PEER_RLOC, source)


@pytest.mark.parametrize("source", [THEIRS - 1, THEIRS - 2048])
def test_rfc9302_7_2_an_older_source_is_dropped(open_plane: OpenPlane, core_wire: Wire, source: int) -> None:
    assert not is_newer(source, THEIRS)
    plane = opened(open_plane)
    core_wire.send(arriving(b"late", source, OURS))
    wait_until(lambda: plane.drops()["map-version-source"] == 1)


def test_rfc9302_7_2_null_and_unknown_sources_are_not_compared(
    open_plane: OpenPlane, site_wire: Wire, core_wire: Wire
) -> None:
    plane = opened(open_plane)
    comes_through(site_wire, core_wire, arriving(b"null", 0, OURS), b"null")
    unknown = arriving(b"unknown", THEIRS - 1, OURS, sender="192.168.3.10")
    comes_through(site_wire, core_wire, unknown, b"unknown")
    assert reports(plane) == []


def test_an_etr_without_map_versioning_ignores_them(open_plane: OpenPlane, site_wire: Wire, core_wire: Wire) -> None:
    plane = opened(open_plane, map_versioning=False)
    comes_through(site_wire, core_wire, arriving(b"ignored", THEIRS - 1, OURS + 1), b"ignored")
    assert reports(plane) == []


def test_what_is_sent_on_is_of_the_new_mapping(open_plane: OpenPlane, core_wire: Wire) -> None:
    """An xTR that is not authoritative any more compares nothing, and sends the new mapping's version."""
    plane = opened(open_plane)
    away = (Locator(ip_address("10.0.3.2")),)
    plane.set_entry(Entry(ip_network(f"{EID}/32"), EntryKind.AWAY, away, map_version=OURS + 1))
    core_wire.send(arriving(b"stale", THEIRS, OURS))
    seen = Encapsulated.read(core_wire.expect(is_lisp)[14:])
    assert (seen.outer.destination, seen.flags, seen.nonce) == ("10.0.3.2", 0x10, OURS + 1)
    assert next(event.kind for event in plane.read_events()) is DataPlaneEventKind.STALE_PACKET
