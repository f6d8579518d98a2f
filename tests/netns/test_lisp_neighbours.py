"""Hosts of one dynamic prefix at two sites are neighbours to themselves (proxy ARP and ND)."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from testbed.lisp.sightings import read_frame
from tests.netns.lispnet import ETH_P_ALL, inside
from tests.netns.sites import GATEWAY_MAC, GUEST, GUEST6, GUEST_MAC, PEER, Lab
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")

NEIGHBOUR, NEIGHBOUR6 = "192.168.0.20", "fd0e::20"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    built = Lab(tmp_path, "smr-old-xtr")
    try:
        built.start()
        yield built
    finally:
        built.close()


@pytest.fixture
def neighbour(lab: Lab) -> Iterator[str]:
    """A second host of the guest's prefixes, on the LAN of site B; the guest is on that of A."""
    name = "neighbour"
    subprocess.run(["ip", "netns", "add", lab._ns(name)], check=True)
    lab.run(name, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
    lab._link("lan-b", "neighbour", name, "eth0")
    lab._ip("lan-b", "link set neighbour master site")
    lab._ip(name, f"addr add {NEIGHBOUR}/24 dev eth0", "route add default via 192.168.0.1")
    lab._ip(name, f"addr add {NEIGHBOUR6}/64 dev eth0 nodad", "route add default via fd0e::1")
    yield name
    subprocess.run(["ip", "netns", "del", lab._ns(name)], check=True)


def ping(lab: Lab, node: str, target: str, *, count: int = 5) -> int:
    """How many of `count` echoes, 50 ms apart, are answered."""
    shown = lab.run(node, "ping", "-n", "-q", "-c", str(count), "-i", "0.05", "-W", "1", target).stdout
    return int(shown.split(" received")[0].rsplit(" ", 1)[-1])


@contextmanager
def heard(lab: Lab, node: str) -> Iterator[list[bytes]]:
    """The frames that come to a node while the block runs; there when it has ended."""
    frames: list[bytes] = []
    with inside(lab._ns(node)):
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with listener:
        yield frames
        listener.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                frame, address = listener.recvfrom(2000)
                if address[2] != socket.PACKET_OUTGOING:
                    frames.append(frame)


def mac_of(lab: Lab, node: str, address: str) -> str:
    """The MAC that a node's kernel found out for a neighbour."""
    words = lab.run(node, "ip", "neighbour", "show", address).stdout.split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


def test_the_xtr_answers_for_a_neighbour_that_is_at_another_site(lab: Lab, neighbour: str) -> None:
    """Proxy ARP and ND: the hosts believe each other on their LAN; between them are two xTRs."""
    for here, there, gateway in ((GUEST, NEIGHBOUR, "192.168.0.1"), (GUEST6, NEIGHBOUR6, "fd0e::1")):
        for node, address in (("guest", here), (neighbour, there)):
            ping(lab, node, gateway, count=1)  # it shows itself
            wait_until(lambda eid=address: is_registered(lab, eid), f"{address} is registered")  # type: ignore[misc]
        started = time.monotonic()
        assert ping(lab, "guest", there, count=1) == 1
        assert time.monotonic() - started < 0.9, "the first question is answered: hosts ask again after a second"
        assert ping(lab, "guest", there) == 5
        assert ping(lab, neighbour, here) == 5
        assert mac_of(lab, "guest", there) == mac_of(lab, neighbour, here) == GATEWAY_MAC


@pytest.mark.parametrize("ipv6", [False, True], ids=["arp", "nd"])
def test_the_xtr_does_not_answer_for_a_guest_that_has_come_and_not_spoken(lab: Lab, neighbour: str, ipv6: bool) -> None:
    """By everybody's word it is at the other site; the gateway's own question makes it show itself."""
    eid, gateway = (GUEST6, "fd0e::1") if ipv6 else (GUEST, "192.168.0.1")
    ping(lab, "guest", gateway, count=1)
    wait_until(lambda: is_registered(lab, eid), "the guest is registered")
    ping(lab, neighbour, gateway, count=1)
    assert ping(lab, neighbour, eid) == 5
    assert mac_of(lab, neighbour, eid) == GATEWAY_MAC
    moved_ns = time.monotonic_ns()
    lab.move_guest("a", "b")
    lab.run("guest", "ip", "neighbour", "flush", "all")
    lab.run(neighbour, "ip", "neighbour", "flush", "all")
    with heard(lab, neighbour) as frames:
        assert ping(lab, neighbour, eid) == 5
        wait_until(lambda: lab.saw("eid_detected", "xtr-b", since_ns=moved_ns), "site B has seen the guest")
        time.sleep(0.5)
    assert {frame.mac for frame in map(read_frame, frames) if frame and frame.eid == ip_address(eid)} == {GUEST_MAC}
    assert mac_of(lab, neighbour, eid) == GUEST_MAC
    wait_until(lambda: ping(lab, "peer", eid) == 5, "the other sites know, too")


def is_registered(lab: Lab, eid: str) -> bool:
    """Whether the Map-Server has a mapping of just this host."""
    rows = lab.ask("ms", op="inspect")["registrations"]
    return any(row["eid"].split("/")[0] == eid for row in rows)


def test_a_host_that_is_gone_is_noticed_and_what_is_sent_to_it_is_counted(lab: Lab) -> None:
    """What leaves a tunnel goes past the interface, where the kernel does not see that its neighbour is used."""
    # An answer is good for half to one and a half times the base. If that is not longer than the delay, the kernel
    # takes its own probe for use, and asks again for ever: the answer never becomes old.
    patience = {"base_reachable_time_ms": "3000", "delay_first_probe_time": "1", "retrans_time_ms": "100"}
    for key, value in patience.items():
        lab.run("xtr-c", "sysctl", "-qw", f"net.ipv4.neigh.eid.{key}={value}")
    lab.run("xtr-c", "ip", "neighbour", "flush", "dev", "eid")  # what is known already keeps its time
    assert ping(lab, "guest", PEER) >= 4

    def stale() -> bool:
        return "STALE" in lab.run("xtr-c", "ip", "neighbour", "show", PEER).stdout

    wait_until(stale, "the peer's answer is old", deadline_s=60)
    assert ping(lab, "guest", PEER) == 5
    lab._ip("peer", f"addr del {PEER}/24 dev eth0")

    def counted() -> int:
        ping(lab, "guest", PEER, count=1)
        return int(lab.ask("xtr-c", op="inspect")["drops"].get("eid-unresolved", 0))

    wait_until(lambda: counted() > 0, "it is noticed", deadline_s=60)


def test_more_hosts_than_the_kernel_has_neighbours_for_are_registered_all_the_same(lab: Lab) -> None:
    most, hosts = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3"), 100  # of the whole machine
    before = most.read_text()
    try:
        most.write_text("40")
        for number in range(100, 100 + hosts):
            lab.ask("xtr-a", op="hint", mac=f"02:00:00:00:00:{number:02x}", eid=f"192.168.0.{number}")
        wait_until(lambda: lab.saw("neighbour_not_bound", "xtr-a"), "the table is full")
    finally:
        most.write_text(before)
    wait_until(lambda: is_registered(lab, f"192.168.0.{99 + hosts}"), "the last one is registered")
    assert ping(lab, "guest", PEER) >= 4


def test_what_still_waits_for_its_mapping_in_the_end_is_in_the_books(lab: Lab) -> None:
    lab.run("ms", "ip", "link", "set", "core", "down")
    ping(lab, "peer", "192.168.0.77", count=3)
    lab.stop_agent("xtr-c")
    (last,) = lab.saw("packets_dropped", "xtr-c")
    assert last["unresolved"] == 3
