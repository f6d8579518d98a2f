"""What comes out of a tunnel is handed to the other end of the EID interface's cable, where there is one."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from testbed.dataplane.interface import is_cable_to_elsewhere
from testbed.dataplane.model import Entry, EntryKind
from tests.netns.conftest import OpenPlane
from tests.netns.lispnet import Network, Wire, inside
from tests.netns.packets import ipv4, ipv6, lisp, udp

pytestmark = pytest.mark.netns

RLOC, PEER_RLOC = "10.0.1.2", "10.0.2.2"


def sent_by(network: Network, interface: str) -> int:
    """Frames that an interface of xTR 1 has transmitted."""
    return int(network.run("xtr1", "cat", f"/sys/class/net/{interface}/statistics/tx_packets", check=True).stdout)


@pytest.mark.parametrize("family", [4, 6])
def test_a_known_host_is_reached_past_the_interface_and_an_unknown_one_through_it(
    open_plane: OpenPlane, network: Network, site_wire: Wire, core_wire: Wire, family: int
) -> None:
    here, there = ("192.168.1.10", "192.168.2.10") if family == 4 else ("fd0e:1::10", "fd0e:2::10")
    inner = (ipv4 if family == 4 else ipv6)(there, here, udp(1, 2, b"handed over"))
    plane = open_plane(1)
    plane.set_entry(Entry(ip_network(here), EntryKind.LOCAL))
    arriving = ipv4(PEER_RLOC, RLOC, udp(50000, 4341, lisp(inner)), ttl=64)

    def delivered() -> bytes:
        core_wire.send(arriving)
        return site_wire.expect(lambda seen: b"handed over" in seen)

    network.run("xtr1", "ip", "neigh", "flush", "dev", "eid")
    before = sent_by(network, "eid")
    first = delivered()
    resolving = sent_by(network, "eid")
    assert resolving > before + 1, "a question for the MAC, and the packet"
    second = delivered()
    assert second == first
    # The kernel may ask in between whether a host is still there; that is no data.
    assert sent_by(network, "eid") <= resolving + 1
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
