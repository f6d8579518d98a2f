"""Packets whose next hop does not say its MAC: the kernel drops them, and the data plane counts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address

import pytest

from testbed.dataplane import kerneldrops
from testbed.dataplane.ebpf import EbpfDataPlane
from testbed.dataplane.model import EntryKind
from testbed.errors import TestbedError
from tests.netns.conftest import OpenPlane
from tests.netns.lispnet import Network, Wire, wait_until
from tests.netns.packets import ETHERNET, Ip, ipv4, ipv6, is_lisp, udp
from tests.netns.test_dataplane_state import EID, OLD_RLOC, PEER, arriving, entry

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("impatient")]


@contextmanager
def no_router(network: Network) -> Iterator[None]:
    """The core's router is not where xTR 1 believes it to be."""
    routes = (("10.0.1.1", "10.0.1.99"), ("fd00:1::1", "fd00:1::99"))
    for _, nobody in routes:
        network.run("xtr1", "ip", "route", "replace", "default", "via", nobody, check=True)
    try:
        yield
    finally:
        for router, _ in routes:
            network.run("xtr1", "ip", "route", "replace", "default", "via", router, check=True)


@pytest.fixture
def plane(open_plane: OpenPlane) -> EbpfDataPlane:
    opened = open_plane(1, other_rlocs=[ip_address("fd00:1::2")])
    assert opened.drops_not_counted() is None
    return opened


def counted(plane: EbpfDataPlane) -> dict[str, int]:
    return {reason: number for reason, number in plane.drops().items() if number}


@pytest.mark.parametrize("rloc", ["10.0.2.2", "fd00:2::2"])
def test_a_core_router_that_is_gone(
    plane: EbpfDataPlane, network: Network, site_wire: Wire, core_wire: Wire, rloc: str
) -> None:
    """Few wait and are given up with the question; of many the oldest make room at once. Either way all are counted."""
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, rloc))
    with no_router(network):
        for number in range(2):
            site_wire.send(ipv4(EID, PEER, udp(1, 2, f"first {number}".encode())))
        wait_until(lambda: counted(plane) == {"core-unresolved": 2})
        for number in range(40):
            site_wire.send(ipv4(EID, PEER, udp(1, 2, f"more {number}".encode())))
        wait_until(lambda: plane.drops()["core-unresolved"] >= 30, 0.2)
        wait_until(lambda: counted(plane) == {"core-unresolved": 42})
    site_wire.send(ipv4(EID, PEER, udp(1, 2, b"and back")))
    core_wire.expect(lambda frame: is_lisp(frame) and frame.endswith(b"and back"))
    assert counted(plane) == {"core-unresolved": 42}


def test_what_waits_for_a_mac_that_is_found_is_not_dropped(
    plane: EbpfDataPlane, network: Network, site_wire: Wire, core_wire: Wire
) -> None:
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, OLD_RLOC))
    network.run("xtr1", "ip", "neigh", "flush", "dev", "core", check=True)
    site_wire.send(ipv4(EID, PEER, udp(1, 2, b"waits")))
    core_wire.expect(lambda frame: is_lisp(frame) and frame.endswith(b"waits"))
    assert counted(plane) == {}


@pytest.mark.parametrize("family", [4, 6])
def test_a_host_that_is_gone(plane: EbpfDataPlane, core_wire: Wire, family: int) -> None:
    there, here = (PEER, "192.168.1.99") if family == 4 else ("fd0e:2::10", "fd0e:1::99")
    plane.set_entry(entry(here, EntryKind.LOCAL))
    for _ in range(3):
        core_wire.send(arriving((ipv4 if family == 4 else ipv6)(there, here, udp(1, 2, b"x", (there, here)))))
    wait_until(lambda: counted(plane) == {"eid-unresolved": 3})


def test_what_is_sent_on_from_an_old_xtr(plane: EbpfDataPlane, network: Network, core_wire: Wire) -> None:
    plane.set_entry(entry(EID, EntryKind.AWAY, OLD_RLOC))
    with no_router(network):
        core_wire.send(arriving(ipv4(PEER, EID, udp(1, 2, b"x"))))
        wait_until(lambda: counted(plane) == {"core-unresolved": 1})


def test_a_neighbour_that_never_had_a_mac_and_a_link_that_goes(
    plane: EbpfDataPlane, network: Network, site_wire: Wire
) -> None:
    """What waits when the link goes is thrown away with the neighbours."""
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, OLD_RLOC))
    with no_router(network):
        site_wire.send(ipv4(EID, PEER, udp(1, 2, b"x")))
        wait_until(lambda: "INCOMPLETE" in network.run("xtr1", "ip", "neigh", "show", "dev", "core").stdout)
        network.run("xtr1", "ip", "neigh", "del", "10.0.1.99", "dev", "core", check=True)
        wait_until(lambda: counted(plane) == {"core-unresolved": 1})


def test_what_a_capture_did_not_read_was_sent(
    plane: EbpfDataPlane, network: Network, site_wire: Wire, core_wire: Wire
) -> None:
    """A capture that ends throws away its copies, marks and all, for the reason of a neighbour that went."""
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, OLD_RLOC))
    capture = Wire(network, "xtr1", "core", "router", "to1")
    for number in range(3):
        site_wire.send(ipv4(EID, PEER, udp(1, 2, f"sent {number}".encode())))
    core_wire.expect(lambda frame: is_lisp(frame) and frame.endswith(b"sent 2"))
    capture.close()
    network.run("xtr1", "true")  # time for what is still to be counted
    assert counted(plane) == {}


def test_a_link_that_goes_while_packets_wait(plane: EbpfDataPlane, network: Network, site_wire: Wire) -> None:
    """The kernel throws away the neighbour's queue as it does a capture's, but these were not sent."""
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, OLD_RLOC))
    with no_router(network):
        for _ in range(2):
            site_wire.send(ipv4(EID, PEER, udp(1, 2, b"x")))
        wait_until(lambda: "INCOMPLETE" in network.run("xtr1", "ip", "neigh", "show", "dev", "core").stdout)
        network.run("xtr1", "ip", "link", "set", "core", "down", check=True)
        try:
            wait_until(lambda: counted(plane) == {"core-unresolved": 2})
        finally:
            network.run("xtr1", "ip", "link", "set", "core", "up", check=True)
            network.run("xtr1", "ip", "addr", "replace", "fd00:1::2/64", "dev", "core", "nodad", check=True)


def test_the_kernels_own_packets_are_not_ours(plane: EbpfDataPlane, network: Network) -> None:
    with no_router(network):
        assert not network.ping("xtr1", "10.0.2.2")
        assert counted(plane) == {}


def test_another_data_planes_packets_are_not_ours(open_plane: OpenPlane, network: Network, site_wire: Wire) -> None:
    first, second = open_plane(1), open_plane(2)
    first.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, OLD_RLOC))
    with no_router(network):
        site_wire.send(ipv4(EID, PEER, udp(1, 2, b"x")))
        wait_until(lambda: counted(first) == {"core-unresolved": 1})
    assert counted(second) == {}


def test_a_full_queue_is_counted_once(plane: EbpfDataPlane, network: Network, site_wire: Wire) -> None:
    """As refused by the interface, although the kernel drops it in the neighbour's name."""
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, OLD_RLOC))
    network.ping("xtr1", "10.0.1.1")
    discipline = "tbf rate 8kbit burst 1600 limit 1600"
    network.run("xtr1", "tc", "qdisc", "add", "dev", "core", "root", *discipline.split(), check=True)
    try:
        for _ in range(10):
            site_wire.send(ipv4(EID, PEER, udp(1, 2, bytes(1000))))
        sent = network.run("xtr1", "tc", "-s", "qdisc", "show", "dev", "core", check=True).stdout
        dropped = int(sent.split("dropped ")[1].split(",")[0])
        assert 0 < dropped < 10
        assert counted(plane) == {"core-refused": dropped}
    finally:
        network.run("xtr1", "tc", "qdisc", "del", "dev", "core", "root", check=True)


def test_a_cable_whose_far_end_is_down_is_the_interfaces(
    plane: EbpfDataPlane, network: Network, site_wire: Wire
) -> None:
    """The MAC is known and the interface is up, but its other end takes nothing."""
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, OLD_RLOC))
    known = ("10.0.1.1", "lladdr", "02:00:00:00:00:01", "dev", "core", "nud", "permanent")
    network.run("xtr1", "ip", "neigh", "replace", *known, check=True)
    try:
        network.run("router", "ip", "link", "set", "to1", "down", check=True)
        for _ in range(3):
            site_wire.send(ipv4(EID, PEER, udp(1, 2, b"x")))
        wait_until(lambda: plane.drops()["core-refused"] >= 3)  # the kernel's own frames count there, too
        assert set(counted(plane)) == {"core-refused"}
    finally:
        network.run("xtr1", "ip", "neigh", "del", "10.0.1.1", "dev", "core")
        network.run("router", "ip", "link", "set", "to1", "up", check=True)
        network.run("router", "ip", "addr", "replace", "fd00:1::1/64", "dev", "to1", "nodad", check=True)


def test_the_mark_does_not_leave_the_xtr(
    plane: EbpfDataPlane, network: Network, site_wire: Wire, core_wire: Wire
) -> None:
    """Or the core's own drops would count as ours."""
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, OLD_RLOC))
    with ExitStack() as stack:
        network.run("router", "ip", "link", "set", "to2", "down", check=True)
        stack.callback(network.run, "router", "ip", "link", "set", "to2", "up")
        site_wire.send(ipv4(EID, PEER, udp(1, 2, b"lost in the core")))
        core_wire.expect(lambda frame: frame.endswith(b"lost in the core"))
    assert counted(plane) == {}


def test_where_the_kernel_cannot_tell_it_says_so_and_forwards(
    open_plane: OpenPlane, monkeypatch: pytest.MonkeyPatch, site_wire: Wire, core_wire: Wire
) -> None:
    def refuse(name: str) -> Callable[..., object]:
        raise TestbedError("bpf-failed", "Loading the data plane into the kernel: Invalid argument.")

    monkeypatch.setattr(kerneldrops, "compiled_object", refuse)
    plane = open_plane(1)
    plane.set_entry(entry("192.168.2.0/24", EntryKind.REMOTE, OLD_RLOC))
    site_wire.send(ipv4(EID, PEER, udp(1, 2, b"all the same")))
    assert Ip.read(core_wire.expect(is_lisp)[ETHERNET:]).destination == OLD_RLOC
    assert plane.drops_not_counted() == "Loading the data plane into the kernel: Invalid argument."
    assert "core-unresolved" not in plane.drops()
