"""The agents' sockets: stamps that a busy machine does not bend."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from testbed.errors import TestbedError
from testbed.lab.agents.sockets import ControlSocket, wall_clock_ahead_ns
from tests.waiting import wait_until

AHEAD_NS = 1_700_000_000_000_000_000


class Clocks:
    """Two clocks AHEAD_NS apart, and a scheduler that takes the processor at some readings."""

    def __init__(self, stolen_ns: Iterator[int]) -> None:
        self._now_ns = 1_000_000
        self._stolen_ns = stolen_ns

    def monotonic(self) -> int:
        self._now_ns += 100 + next(self._stolen_ns, 0)
        return self._now_ns

    def wall(self) -> int:
        return self.monotonic() + AHEAD_NS


@pytest.mark.parametrize("stolen_ms", [[], [0, 3], [0, 0, 7], [0, 3, 0, 0, 0, 5], [9]])
def test_the_clocks_difference_survives_a_scheduler_that_interrupts(stolen_ms: list[int]) -> None:
    clocks = Clocks(milliseconds * 1_000_000 for milliseconds in stolen_ms)
    assert abs(wall_clock_ahead_ns(clocks.monotonic, clocks.wall) - AHEAD_NS) < 1_000


def test_a_datagram_is_stamped_between_its_sending_and_its_reading() -> None:
    one, other = ControlSocket(ip_address("127.0.0.71")), ControlSocket(ip_address("127.0.0.72"))
    try:
        before_ns = time.monotonic_ns()
        assert one.send(b"hello", ip_address("127.0.0.72"), 4342) is None
        payload, source, port, arrival_ns = wait_until(other.receive, "the datagram")  # type: ignore[misc]
        read_ns = time.monotonic_ns()
        assert (payload, str(source), port) == (b"hello", "127.0.0.71", 4342)
        slack_ns = 100_000  # the comparison of the clocks
        assert before_ns - slack_ns <= arrival_ns <= read_ns
        assert other.receive() is None
    finally:
        one.close()
        other.close()


def test_a_port_that_is_taken_is_an_error_with_the_next_command() -> None:
    one = ControlSocket(ip_address("127.0.0.73"))
    try:
        with pytest.raises(TestbedError, match=r"127\.0\.0\.73 port 4342"):
            ControlSocket(ip_address("127.0.0.73"))
    finally:
        one.close()


SO_NO_CHECK = 11  # asm-generic/socket.h: of what is sent


def test_rfc9301_5_a_datagram_without_udp_checksum_is_dropped() -> None:
    receiver = ControlSocket(ip_address("127.0.0.74"))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for no_checksum in (1, 0):
                sender.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, no_checksum)
                sender.sendto(bytes([no_checksum]), ("127.0.0.74", 4342))
        received = wait_until(receiver.receive, "the datagram")
        assert received is not None
        assert received[0] == b"\0"  # the one with a checksum, though sent second
    finally:
        receiver.close()
