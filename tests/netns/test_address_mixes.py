"""Every mix of address families, whole: agents, data plane, a guest that moves, and what was on the wire.

Two sites and a correspondent (`tests.netns.sites`), EIDs of both families over RLOCs of one; every frame on the
core's links is captured, read by `testbed.decode` and by Wireshark's dissector, and verified octet by octet.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from testbed.decode import Frame, LispPacket, frames, lisp_packets
from tests.netns.innerpackets import faults
from tests.netns.lispnet import inside
from tests.netns.packets import ETHERNET, Encapsulated, is_lisp
from tests.netns.sites import GUEST, GUEST6, PEER, PEER6, Lab
from tests.netns.tshark import differences, dissected
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]

EIDS = {4: (PEER, GUEST), 6: (PEER6, GUEST6)}
OVERHEAD = {4: 36, 6: 56}
HEADERS_OF_AN_ECHO = {4: 28, 6: 48}
LINKS = ("to-a", "to-b", "to-c", "to-ms")
OFFLOADS = ("tx", "tso", "gso", "gro")
#: Ends the traffic: once it is in the capture, so is everything before.
LAST = "feed0ddba11c0de5"


class LabOverIpv6(Lab):
    """The lab with IPv6 locators: fd00:n::h for 10.0.n.h."""

    def _ip(self, node: str, *lines: str) -> None:
        super()._ip(node, *(ipv6_rlocs(line) for line in lines))

    def _xtr(self, *arguments: str) -> dict[str, Any]:
        return translated(super()._xtr(*arguments))

    def _map_server(self) -> dict[str, Any]:
        return translated(super()._map_server())


def ipv6_rlocs(text: str) -> str:
    """A text with IPv6 addresses for the IPv4 ones of the lab's core."""
    return re.sub(r"\b10\.0\.(\d)\.(\d)(/24)?", lambda m: f"fd00:{m[1]}::{m[2]}{'/64' if m[3] else ''}", text)


def translated(value: Any) -> Any:
    """A configuration with IPv6 locators."""
    if isinstance(value, dict):
        return {key: translated(each) for key, each in value.items()}
    if isinstance(value, list):
        return [translated(each) for each in value]
    return ipv6_rlocs(value) if isinstance(value, str) and not value.startswith("/") else value


@dataclass(frozen=True)
class Traffic:
    """What happened, and the capture of it."""

    rloc_version: int
    capture: Path
    frames: dict[int, Frame]
    packets: list[LispPacket]
    said: dict[str, Any]

    def data(self, protocol: str, eid_version: int) -> list[LispPacket]:
        """Data packets with an inner packet of a protocol and family."""
        return [
            packet
            for packet in self.packets
            if packet.plane == "data"
            and packet.message["inner"]["protocol"] == protocol
            and ip_address(packet.message["inner"]["source_eid"]).version == eid_version
        ]


@pytest.fixture(scope="module", params=[4, 6], ids=["rloc4", "rloc6"])
def traffic(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    folder = tmp_path_factory.mktemp("lab")
    lab = (Lab if request.param == 4 else LabOverIpv6)(folder, "smr-old-xtr")
    path = folder / "core.pcapng"
    try:
        whole_packets_only(lab)
        with captured(lab, path):
            said = make_traffic(lab)
            mark = bytes.fromhex(LAST)
            lab.run("peer", "ping", "-c", "1", "-p", LAST, GUEST)
            wait_until(lambda: path.read_bytes().count(mark) > 1, "the last packet is in the capture")
        read = {frame.number: frame for frame in frames(path)}
        yield Traffic(request.param, path, read, list(lisp_packets(read.values())), said)
    finally:
        lab.close()


def whole_packets_only(lab: Lab) -> None:
    """As on a physical wire: checksums and segments are made by the sender."""
    off = [word for name in OFFLOADS for word in (name, "off")]
    for node, interface in (("guest", "eth0"), ("peer", "eth0")):
        assert lab.run(node, "ethtool", "-K", interface, *off).returncode == 0


@contextmanager
def captured(lab: Lab, path: Path, links: Iterable[str] = LINKS) -> Iterator[None]:
    """Capture the core's links while the block runs."""
    words = [word for link in links for word in ("-i", link)]
    command = ["ip", "netns", "exec", lab._ns("core"), "dumpcap", "-q", *words, "-w", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: path.exists() and path.stat().st_size > 0, "dumpcap listens")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)


def make_traffic(lab: Lab) -> dict[str, Any]:
    """Start the agents, talk to the guest at site A by every protocol, move it to B, and talk again."""
    lab.start()
    said: dict[str, Any] = {}
    for version, (peer, guest) in EIDS.items():
        pings(lab, "guest", peer)  # the guest shows itself
        said[f"ping {version}"] = pings(lab, "peer", guest)
        # Before TCP, whose first segments would find the path's MTU out.
        size = str(1500 - HEADERS_OF_AN_ECHO[version])
        said[f"mtu {version}"] = lab.run("peer", "ping", "-c", "1", "-W", "1", "-M", "do", "-s", size, guest).stdout
        said[f"udp {version}"] = udp_echo(lab, peer, guest)
        said[f"tcp {version}"] = tcp_echo(lab, peer, guest)
    lab.move_guest("a", "b")
    lab.announce_guest()
    for version, (peer, guest) in EIDS.items():
        pings(lab, "guest", peer)
        said[f"moved {version}"] = pings(lab, "peer", guest)
    said["mapping"] = {row["eid"]: row["locators"] for row in lab.ask("ms", op="inspect")["registrations"]}
    said["drops"] = {node: lab.ask(node, op="inspect")["drops"] for node in ("xtr-a", "xtr-b", "xtr-c")}
    return said


def pings(lab: Lab, node: str, target: str) -> int:
    """How many of five echoes are answered."""
    shown = lab.run(node, "ping", "-n", "-q", "-c", "5", "-i", "0.05", "-W", "1", target).stdout
    return int(shown.split(" received")[0].rsplit(" ", 1)[-1])


def udp_echo(lab: Lab, peer: str, guest: str) -> bytes:
    """What comes back of a datagram."""
    with ExitStack() as stack:
        ends = []
        for node, address in (("guest", guest), ("peer", peer)):
            with inside(lab._ns(node)):
                end = stack.enter_context(socket.socket(family_of(address), socket.SOCK_DGRAM))
                end.bind((address, 7007))
                end.settimeout(5)
                ends.append(end)
        ends[1].sendto(b"there and back", (guest, 7007))
        datagram, sender = ends[0].recvfrom(100)
        ends[0].sendto(datagram, sender)
        return ends[1].recv(100)


def tcp_echo(lab: Lab, peer: str, guest: str) -> bytes:
    """What comes back of a connection's first segments."""
    with ExitStack() as stack:
        with inside(lab._ns("guest")):
            listener = stack.enter_context(socket.create_server((guest, 7008), family=family_of(guest)))
        with inside(lab._ns("peer")):
            client = stack.enter_context(socket.create_connection((guest, 7008), 5, source_address=(peer, 0)))
        server = stack.enter_context(listener.accept()[0])
        server.settimeout(5)
        client.sendall(bytes(range(250)) * 16)  # three segments
        received = b""
        while len(received) < 4000:
            received += server.recv(4000)
        server.sendall(received[:10])
        return received + client.recv(100)


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET if "." in address else socket.AF_INET6


@pytest.mark.parametrize("version", [4, 6], ids=["eid4", "eid6"])
def test_every_protocol_gets_through(traffic: Traffic, version: int) -> None:
    said = traffic.said
    assert said[f"ping {version}"] == 5
    assert said[f"udp {version}"] == b"there and back"
    assert said[f"tcp {version}"] == bytes(range(250)) * 16 + bytes(range(10))
    assert said[f"moved {version}"] >= 4
    rlocs = {"a": "10.0.1.2", "b": "10.0.2.2"}
    rloc = rlocs["b"] if traffic.rloc_version == 4 else ipv6_rlocs(rlocs["b"])
    assert said["mapping"][f"{EIDS[version][1]}/{32 if version == 4 else 128}"] == [rloc]


@pytest.mark.parametrize("version", [4, 6], ids=["eid4", "eid6"])
def test_1500_octets_end_to_end_are_too_big_by_the_overhead(traffic: Traffic, version: int) -> None:
    assert re.search(rf"mtu ?= ?{1500 - OVERHEAD[traffic.rloc_version]}\b", traffic.said[f"mtu {version}"])
    assert traffic.said["drops"]["xtr-c"]["held-too-big"] == 2  # one of each family


@pytest.mark.parametrize("version", [4, 6], ids=["eid4", "eid6"])
def test_all_of_it_was_encapsulated(traffic: Traffic, version: int) -> None:
    peer, guest = EIDS[version]
    for protocol in ("icmp" if version == 4 else "icmpv6", "udp", "tcp"):
        seen = {(p.message["inner"]["source_eid"], p.interface) for p in traffic.data(protocol, version)}
        assert {(peer, "to-c"), (peer, "to-a"), (guest, "to-a"), (guest, "to-c")} <= seen, protocol
    moved = {p.interface for p in traffic.data("icmp" if version == 4 else "icmpv6", version)}
    assert "to-b" in moved
    assert {ip_address(p.source).version for p in traffic.packets} == {traffic.rloc_version}
    assert not [str(packet.malformed) for packet in traffic.packets if packet.malformed]
    eids = {octets for pair in EIDS.values() for octets in (ip_address(pair[0]).packed, ip_address(pair[1]).packed)}
    offset, length = (26, 4) if version == 4 else (22, 16)
    plain = [f for f in traffic.frames.values() if f.data[offset : offset + length] in eids]
    assert plain == []  # no packet of an EID was in the core as it is


def test_the_whole_control_plane_was_there(traffic: Traffic) -> None:
    kinds = Counter(p.message["type"] for p in traffic.packets if p.plane == "control")
    kinds += Counter(p.message["inner"]["type"] for p in traffic.packets if "inner_source" in p.message)
    expected = {"Map-Register", "Map-Notify", "Map-Request", "Map-Reply", "Encapsulated-Control-Message"}
    assert expected <= set(kinds), kinds


def test_wireshark_reads_the_same(traffic: Traffic) -> None:
    theirs = dissected(traffic.capture)
    assert len(traffic.packets) > 100
    found = [line for ours in traffic.packets for line in differences(ours, theirs.get(ours.frame, {}))]
    assert found == []
    for ours in traffic.packets:
        wrong = replace(ours, source=EIDS[traffic.rloc_version][0])
        assert differences(wrong, theirs[ours.frame])  # the comparison would have told


def core_hops(frame: Frame, packet: Encapsulated) -> int:
    """Routers of the core passed: none on the link of the RLOC that sent it."""
    number = {"to-a": 1, "to-b": 2, "to-c": 3}[frame.interface]
    return 0 if packet.outer.source in (f"10.0.{number}.2", f"fd00:{number}::2") else 1


def ttl_of(packet: Encapsulated) -> int:
    """Of an inner packet: 64 less one router; through the old xTR, two, and the core's router (RFC 9300 §5.3)."""
    from_itr = {PEER: 3, PEER6: 3}.get(packet.inner.source)
    again = from_itr is not None and packet.outer.source not in ("10.0.3.2", "fd00:3::2")
    return 61 if again else 63


def faults_of(frame: Frame, data: Encapsulated) -> list[str]:
    return faults(data, sent_ttl=ttl_of(data), core_hops=core_hops(frame, data))


def test_every_inner_packet_is_whole_and_of_the_right_ttl(traffic: Traffic) -> None:
    checked: Counter[tuple[int, int]] = Counter()
    for frame in traffic.frames.values():
        if is_lisp(frame.data):
            data = Encapsulated.read(frame.data[ETHERNET:])
            assert faults_of(frame, data) == [], frame
            checked[data.inner.version, data.inner.protocol] += 1
    assert set(checked) == {(4, 1), (4, 6), (4, 17), (6, 58), (6, 6), (6, 17)}
    assert min(checked.values()) >= 4, checked


def corrupted(octets: bytes, position: int) -> bytes:
    return octets[:position] + bytes([octets[position] ^ 0x01]) + octets[position + 1 :]


def test_a_corrupted_copy_of_any_of_them_is_found_out(traffic: Traffic) -> None:
    """What the test before this one relies on: one wrong bit in checksum, payload or TTL, and it fails."""
    outer = {4: 20, 6: 40}[traffic.rloc_version] + 16 + ETHERNET
    for frame in traffic.frames.values():
        if not is_lisp(frame.data):
            continue
        version = frame.data[outer] >> 4
        transport = outer + (20 if version == 4 else 40)
        protocol = frame.data[outer + (9 if version == 4 else 6)]
        checksum_at = transport + {1: 2, 6: 16, 17: 6, 58: 2}[protocol]
        positions = {
            "inner TTL": outer + (8 if version == 4 else 7),
            "outer TTL": ETHERNET + (8 if traffic.rloc_version == 4 else 7),
            "inner transport checksum": checksum_at,
        } | ({"inner header checksum": outer + 10} if version == 4 else {})
        for fault, position in positions.items():
            bad = replace(frame, data=corrupted(frame.data, position))
            said = faults_of(bad, Encapsulated.read(bad.data[ETHERNET:]))
            assert any(fault in each for each in said), (fault, said)
        at_its_end = replace(frame, data=corrupted(frame.data, len(frame.data) - 1))
        assert faults_of(at_its_end, Encapsulated.read(at_its_end.data[ETHERNET:])) == ["inner transport checksum"]
