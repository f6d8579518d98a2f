"""The prober of the Xen guests' image, as a process in a namespace: what it sends is a probe, and never a burst."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from testbed.measure.probepackets import ProbePacket, probe_packet
from tests.netns.lispnet import DEADLINE_S, Network, Wire, inside, wait_for

pytestmark = pytest.mark.netns

SOURCE = Path(__file__).parents[2] / "images" / "guest" / "prober.c"
INTERVAL_MS = 5
#: (the guest's address, its peer's), which answers ICMP.
PAIRS = [("192.168.1.10", "192.168.1.1"), ("fd0e:1::10", "fd0e:1::1")]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("guest") / "guest-prober"
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", built, SOURCE], check=True)
    return built


@contextlib.contextmanager
def probing(network: Network, program: Path, peer: str, flows: str) -> Iterator[subprocess.Popen[bytes]]:
    words = f"{peer},{INTERVAL_MS * 1_000_000},{flows}"
    with subprocess.Popen(["ip", "netns", "exec", network.names["host1"], program, words]) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def echo_port(network: Network, peer: str) -> Iterator[socket.socket]:
    """The peer's UDP echo port, which does not answer."""
    with inside(network.names["xtr1"]):
        bound = socket.socket(socket.AF_INET6 if ":" in peer else socket.AF_INET, socket.SOCK_DGRAM)
    with bound:
        bound.bind((peer, 7))
        bound.settimeout(DEADLINE_S)
        yield bound


def number_of(payload: bytes) -> int:
    assert payload[:8] == b"TBPROBE1"
    assert len(payload) == 24
    return int.from_bytes(payload[16:], "big")


@pytest.mark.parametrize(("eid", "peer"), PAIRS)
def test_icmp_echoes_that_a_kernel_answers(
    network: Network, site_wire: Wire, program: Path, eid: str, peer: str
) -> None:
    """The reply has the request's payload, and nobody replies to one with a wrong checksum."""
    eids = {ip_address(eid).packed}

    def reply() -> ProbePacket:
        found = probe_packet(site_wire.expect(lambda frame: probe_packet(frame, eids) is not None), eids)
        assert found is not None
        return found

    with probing(network, program, peer, "icmp"):
        replies = [reply() for _ in range(5)]
    assert {(one.key.flow, one.key.direction, one.is_request) for one in replies} == {("icmp", "from-guest", False)}
    numbers = [one.key.seq for one in replies]
    assert numbers == sorted(set(numbers))
    assert len({one.sender for one in replies}) == 1


@pytest.mark.parametrize(("eid", "peer"), PAIRS)
def test_datagrams_to_the_echo_port(network: Network, program: Path, eid: str, peer: str) -> None:
    with echo_port(network, peer) as port, probing(network, program, peer, "icmp,udp"):
        received = [port.recvfrom(2048) for _ in range(5)]
    assert {address[0] for _, address in received} == {eid}
    numbers = [number_of(payload) for payload, _ in received]
    assert numbers == sorted(set(numbers))


def test_what_was_missed_is_not_made_up_for(network: Network, program: Path) -> None:
    """Stopped for at least 20 turns, it goes on with the turn that it then is, one an interval."""
    with echo_port(network, PAIRS[0][1]) as port, probing(network, program, PAIRS[0][1], "udp") as process:
        port.recv(2048)
        process.send_signal(signal.SIGSTOP)
        before = -1
        while wait_for(port.fileno(), 20 * INTERVAL_MS / 1e3):
            before = number_of(port.recv(2048))
        continued = time.monotonic()
        process.send_signal(signal.SIGCONT)
        numbers = [number_of(port.recv(2048)) for _ in range(20)]
        elapsed_ms = (time.monotonic() - continued) * 1e3
    assert numbers[0] >= before + 20
    assert numbers == sorted(set(numbers))
    assert len(numbers) <= elapsed_ms / INTERVAL_MS + 2


@pytest.mark.parametrize("words", ["", "nonsense,1000000,udp", "192.168.1.1,0,udp", "192.168.1.1", "::1,9,tcp"])
def test_what_it_does_not_understand_it_refuses(program: Path, words: str) -> None:
    assert subprocess.run([program, words], timeout=10).returncode == 2
