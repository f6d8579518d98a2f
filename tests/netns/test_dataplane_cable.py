"""What comes out of a tunnel is handed to the other end of the EID interface's cable, where there is one."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from testbed.dataplane.interface import is_cable_to_elsewhere
from testbed.dataplane.model import Entry, EntryKind
from tests.netns.conftest import OpenPlane
from tests.netns.lispnet import ETH_P_ALL, Network, Wire, inside
from tests.netns.packets import ipv4, ipv6, lisp, udp

pytestmark = pytest.mark.netns

RLOC, PEER_RLOC = "10.0.1.2", "10.0.2.2"
PAYLOAD = b"handed over"


@pytest.fixture
def tap(network: Network) -> Iterator[socket.socket]:
    """All frames at the EID interface of xTR 1, in both directions."""
    with inside(network.names["xtr1"]):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with tap:
        tap.bind(("eid", ETH_P_ALL))
        tap.setblocking(False)
        yield tap


def passed(tap: socket.socket) -> int:
    """How often the packet has gone out since this was last asked; what the kernel says for itself does not count."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            frame, address = tap.recvfrom(65600)
            count += address[2] == socket.PACKET_OUTGOING and PAYLOAD in frame
    return count


@pytest.mark.parametrize("family", [4, 6])
def test_a_known_host_is_reached_past_the_interface_and_an_unknown_one_through_it(
    open_plane: OpenPlane, network: Network, site_wire: Wire, core_wire: Wire, tap: socket.socket, family: int
) -> None:
    here, there = ("192.168.1.10", "192.168.2.10") if family == 4 else ("fd0e:1::10", "fd0e:2::10")
    inner = (ipv4 if family == 4 else ipv6)(there, here, udp(1, 2, PAYLOAD))
    plane = open_plane(1)
    plane.set_entry(Entry(ip_network(here), EntryKind.LOCAL))
    arriving = ipv4(PEER_RLOC, RLOC, udp(50000, 4341, lisp(inner)), ttl=64)

    def delivered() -> bytes:
        core_wire.send(arriving)
        return site_wire.expect(lambda seen: PAYLOAD in seen)

    network.run("xtr1", "ip", "neigh", "flush", "dev", "eid")
    first = delivered()
    assert passed(tap) == 1
    second = delivered()
    assert second == first
    assert passed(tap) == 0
    assert second[:6] == site_wire.mac
    assert second[12:14] == (b"\x08\0" if family == 4 else b"\x86\xdd")


def test_only_a_cable_to_another_namespace_counts(network: Network) -> None:
    with inside(network.names["xtr1"]):
        assert is_cable_to_elsewhere("eid")
        assert not is_cable_to_elsewhere("lo")
        network.run("xtr1", "ip", "link", "add", "here", "type", "veth", "peer", "name", "too", check=True)
        try:
            assert not is_cable_to_elsewhere("here")
        finally:
            network.run("xtr1", "ip", "link", "del", "here", check=True)
