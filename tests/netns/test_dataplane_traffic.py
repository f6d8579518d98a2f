"""Real traffic between two sites: echoes, streams with offloads on, path MTU discovery, a move."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from ipaddress import ip_address, ip_network

import pytest

from testbed.dataplane.layout import encode_key
from testbed.dataplane.model import DataPlaneEventKind, Entry, EntryKind, Locator
from tests.netns.conftest import RLOCS, OpenPlane, Planes, served
from tests.netns.lispnet import Network, inside

pytestmark = pytest.mark.netns

UDP_SEGMENT = 103  # linux/udp.h
STREAM = bytes(range(256)) * (16 * 1024 * 4)  # 16 MiB


def drops_of(planes: Planes) -> dict[str, int]:
    return {reason: n for plane in planes.values() for reason, n in plane.drops().items() if n}


@pytest.mark.parametrize("eid", ["192.168.{}.10", "fd0e:{}::10"])
def test_echoes_both_ways(network: Network, planes: Planes, eid: str) -> None:
    assert network.ping("host1", eid.format(2), "-s", "1000")
    assert network.ping("host2", eid.format(1))
    assert drops_of(planes) == {}


def test_a_rehearsal_installs_and_reports_nothing(planes: Planes) -> None:
    plane, rehearsed = planes[1], ip_network("198.51.100.10/32")
    plane.read_events()
    plane.rehearse(Entry(rehearsed, EntryKind.REMOTE, (Locator(ip_address("192.0.2.2")),)))
    assert plane.read_events() == []
    with pytest.raises(KeyError):
        plane._entries[4][encode_key(rehearsed, 0)]


def stream(network: Network, host: str, eid: str) -> bytes:
    """What arrives at an EID of `host` of a TCP stream that host 1 sends there."""
    received = bytearray()
    with ExitStack() as stack:
        with inside(network.names[host]):
            listener = stack.enter_context(socket.create_server((eid, 7777), family=family_of(eid)))
        with inside(network.names["host1"]):
            client = stack.enter_context(socket.create_connection((eid, 7777), timeout=20))
        server = stack.enter_context(listener.accept()[0])
        server.settimeout(20)

        def send() -> None:
            client.sendall(STREAM)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        while chunk := server.recv(1 << 20):
            received += chunk
        sender.join()
    return bytes(received)


@pytest.mark.parametrize("eid", ["192.168.{}.10", "fd0e:{}::10"])
def test_stream_arrives_whole(network: Network, planes: Planes, eid: str) -> None:
    """TCP with segmentation and checksum offload on everywhere, its path MTU found on the way."""
    assert stream(network, "host2", eid.format(2)) == STREAM
    assert set(drops_of(planes)) <= {"held-too-big"}


@pytest.mark.parametrize("size", [1, 1400, 9000])
@pytest.mark.parametrize("eid", ["192.168.{}.10", "fd0e:{}::10"])
def test_datagrams_arrive_whole(network: Network, planes: Planes, eid: str, size: int) -> None:
    """9000 octets are fragmented by their sender, whose path MTU is found by the first attempts."""
    payload = bytes(n % 251 for n in range(size))
    with ExitStack() as stack:
        ends = []
        for n in (1, 2):
            with inside(network.names[f"host{n}"]):
                end = stack.enter_context(socket.socket(family_of(eid), socket.SOCK_DGRAM))
                end.bind((eid.format(n), 8888))
                ends.append(end)
        ends[1].settimeout(0.5)
        for _ in range(8):
            ends[0].sendto(payload, (eid.format(2), 8888))
            try:
                assert ends[1].recv(65536) == payload
            except TimeoutError:
                continue
            return
    raise AssertionError(f"no datagram of {size} arrived: {drops_of(planes)}")


def test_an_eid_that_moves(network: Network, planes: Planes, open_plane: OpenPlane, rloc: str) -> None:
    """Host 3 takes over a flow: the old xTR re-encapsulates until the ITR is told, then nothing is stale."""
    eid = "192.168.2.10"
    new_rloc = ip_address(rloc.format(3))
    third = open_plane(3, rloc=new_rloc)
    third.set_entry(Entry(ip_network(f"{eid}/32"), EntryKind.LOCAL))
    back = (Locator(ip_address(rloc.format(1))),)
    third.set_entry(Entry(ip_network("192.168.1.0/24"), EntryKind.REMOTE, back))
    network.run("host3", "ip", "addr", "add", f"{eid}/32", "dev", "lan", check=True)
    network.run("xtr3", "ip", "route", "add", f"{eid}/32", "dev", "eid", check=True)
    try:
        planes[2].set_entry(Entry(ip_network(f"{eid}/32"), EntryKind.AWAY, (Locator(new_rloc),)))
        assert network.ping("host1", eid)
        planes[1].read_events()
        stale = [e for e in planes[2].read_events() if e.kind is DataPlaneEventKind.STALE_PACKET]
        assert {(str(e.eid), e.rloc) for e in stale} == {(eid, new_rloc)}
        planes[1].set_entry(Entry(ip_network(f"{eid}/32"), EntryKind.REMOTE, (Locator(new_rloc),)))
        assert network.ping("host1", eid)
        first = [e for e in planes[1].read_events() if e.kind is DataPlaneEventKind.FIRST_PACKET_NEW_RLOC]
        assert [(str(e.eid), e.rloc) for e in first] == [(eid, new_rloc)]
        assert not [e for e in planes[2].read_events() if e.kind is DataPlaneEventKind.STALE_PACKET]
    finally:
        network.run("host3", "ip", "addr", "del", f"{eid}/32", "dev", "lan")
        network.run("xtr3", "ip", "route", "del", f"{eid}/32", "dev", "eid")


@pytest.mark.parametrize("new_family", [4, 6])
def test_stream_through_the_old_xtr(network: Network, open_plane: OpenPlane, rloc: str, new_family: int) -> None:
    """Super-packets are re-encapsulated whole, and between address families by way of the slow path."""
    eid = ip_network("192.168.3.10/32")
    both = {n: [ip_address(pattern.format(n)) for pattern in RLOCS.values()] for n in (2, 3)}
    itr_rloc, new_rloc = ip_address(rloc.format(1)), ip_address(RLOCS[new_family].format(3))
    # The core's links take 1500: the ITR leaves room for the longer header that the old xTR may put on.
    itr = open_plane(1, rloc=itr_rloc, mtu=1400)
    old, new = (open_plane(n, rloc=rlocs[0], other_rlocs=rlocs[1:]) for n, rlocs in both.items())
    itr.set_entry(Entry(ip_network("192.168.1.0/24"), EntryKind.LOCAL))
    itr.set_entry(Entry(eid, EntryKind.REMOTE, (Locator(ip_address(rloc.format(2))),)))
    old.set_entry(Entry(eid, EntryKind.AWAY, (Locator(new_rloc),)))
    new.set_entry(Entry(eid, EntryKind.LOCAL))
    new.set_entry(Entry(ip_network("192.168.1.0/24"), EntryKind.REMOTE, (Locator(itr_rloc),)))
    with served(itr, old, new):
        assert stream(network, "host3", "192.168.3.10") == STREAM
    assert {reason for reason, n in old.drops().items() if n} <= {"slow-path-full"}
    assert old.usage(eid)[0] > 0


@pytest.mark.parametrize("eid", ["192.168.{}.10", "fd0e:{}::10"])
def test_segmented_datagrams_arrive_whole(network: Network, planes: Planes, eid: str) -> None:
    """UDP segmentation offload (UDP_SEGMENT): ten datagrams in one super-packet, as QUIC sends."""
    with ExitStack() as stack:
        ends = []
        for n in (1, 2):
            with inside(network.names[f"host{n}"]):
                end = stack.enter_context(socket.socket(family_of(eid), socket.SOCK_DGRAM))
                end.bind((eid.format(n), 8889))
                end.settimeout(2)
                ends.append(end)
        ends[0].setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        datagrams = [bytes([n]) * 1000 for n in range(10)]
        ends[0].sendto(b"".join(datagrams), (eid.format(2), 8889))
        assert [ends[1].recv(65536) for _ in datagrams] == datagrams


def family_of(eid: str) -> socket.AddressFamily:
    return socket.AF_INET if "." in eid else socket.AF_INET6
