"""The sockets of an agent: UDP port 4342 and the frames of a LAN, both with the kernel's arrival stamp."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import TypeAlias

from testbed.errors import TestbedError
from testbed.lisp.actions import CONTROL_PORT, Address
from testbed.lisp.sightings import ETHERTYPE_ARP, ETHERTYPE_IPV6, ETHERTYPE_RARP

SO_TIMESTAMPNS = 35
_MSG_PROBE = 0x10
_SO_ATTACH_FILTER = 26
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_IGNORE_OUTGOING = 23
_PACKET_MR_ALLMULTI = 2
_ETH_P_ALL = 0x0003
_TIMESPEC = struct.Struct("@qq")
_LONGEST_DATAGRAM = 65536
#: Enough for a burst of a few hundred control messages while the process is off the CPU.
_RECEIVE_BUFFER_OCTETS = 1 << 20
#: Readings of both clocks to compare them, and how close is close enough: well below a millisecond,
#: above what three system calls take on a slow machine.
_CLOCK_READINGS = 5
_CLOSE_NS = 5_000


def wall_clock_ahead_ns(
    monotonic_ns: Callable[[], int] = time.monotonic_ns, wall_ns: Callable[[], int] = time.time_ns
) -> int:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC, now.

    The two cannot be read at once, and the scheduler may take the processor in between; so the closest
    of a few pairs of readings counts.
    """
    best: tuple[int, int] | None = None
    for _ in range(_CLOCK_READINGS):
        before, wall, after = monotonic_ns(), wall_ns(), monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, wall - (before + after) // 2)
        if best[0] <= _CLOSE_NS:
            break
    assert best is not None
    return best[1]


def arrival_ns(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """When the kernel received it, CLOCK_MONOTONIC; now, if the kernel does not say."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            # The kernel stamps with the wall clock only.
            arrival_ns: int = seconds * 1_000_000_000 + nanoseconds - wall_clock_ahead_ns()
            return min(arrival_ns, time.monotonic_ns())
    return time.monotonic_ns()


#: A lab has few locators; the same ones again and again.
_text: Callable[[Address], str] = lru_cache(maxsize=1024)(str)


@lru_cache(maxsize=1024)
def _address(text: str) -> Address:
    """The address of a peer as the socket names it, its zone left out."""
    return ip_address(text.partition("%")[0])


class ControlSocket:
    """UDP port 4342 at one locator (RFC 9301 §5); sends from it too.

    Args:
        rloc: address to bind.
        port: 0 for any.

    Attributes:
        port: that is bound.
    """

    def __init__(self, rloc: Address, port: int = CONTROL_PORT) -> None:
        family = socket.AF_INET if rloc.version == 4 else socket.AF_INET6
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._buffer = bytearray(_LONGEST_DATAGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_OCTETS)
        _attach(self._socket, _WITH_CHECKSUM)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        try:
            self._socket.bind((str(rloc), port))
        except OSError as error:
            self._socket.close()
            raise TestbedError(
                "control-port",
                f"Cannot serve {rloc} port {port}",
                why=error.strerror or "",
                next_command="ip -brief address; ss -lnup",
            ) from error
        self.port: int = self._socket.getsockname()[1]

    def fileno(self) -> int:
        """The descriptor, for an event loop."""
        return self._socket.fileno()

    def receive(self) -> tuple[bytes, Address, int, int] | None:
        """(payload, source, source port, arrival in nanoseconds) of the next datagram, or None."""
        try:
            octets, ancillary, _, peer = self._socket.recvmsg_into([self._buffer], 64)
        except BlockingIOError:
            return None
        except OSError:
            # An ICMP error of an earlier datagram; who sent it is not served by our stopping.
            return None
        return bytes(memoryview(self._buffer)[:octets]), _address(peer[0]), peer[1], arrival_ns(ancillary)

    def send(self, payload: bytes, destination: Address, port: int) -> str | None:
        """Send a datagram; the reason if it could not be sent."""
        try:
            self._socket.sendto(payload, (_text(destination), port))
        except OSError as error:
            return error.strerror
        return None

    def rehearse(self) -> None:
        """Do what `send` does except for sending: with these flags and no octets the kernel only looks up the route."""
        with contextlib.suppress(OSError):
            self._socket.sendto(b"", socket.MSG_CONFIRM | _MSG_PROBE, self._socket.getsockname())

    def close(self) -> None:
        """Free the port."""
        self._socket.close()


#: A program of classic BPF: code, jump if true, jump if false (both counted from the next instruction), operand.
_Filter: TypeAlias = tuple[tuple[int, int, int, int], ...]


def _attach(to: socket.socket, program: _Filter) -> None:
    """Let the kernel queue only what a program accepts."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("@HBBI", *instruction) for instruction in program))
    descriptor = struct.pack("@HxxxxxxP", len(program), ctypes.addressof(code))
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, descriptor)


#: Of a datagram from its UDP header on: accept one with a checksum. A wrong one the kernel drops by itself; none at all
#: it would let pass over IPv4, and RFC 9301 §5 has it non-zero.
_WITH_CHECKSUM: _Filter = (
    (0x28, 0, 0, 6),  # ldh [6]: the checksum
    (0x15, 0, 1, 0),
    (0x06, 0, 0, 0),  # reject
    (0x06, 0, 0, 0xFFFFFFFF),  # accept
)

#: Classic BPF: accept ARP, RARP, and ICMPv6 from neighbour solicitations on.
_SIGHTINGS: _Filter = (
    (0x28, 0, 0, 12),  # ldh [12]: the EtherType
    (0x15, 7, 0, ETHERTYPE_ARP),
    (0x15, 6, 0, ETHERTYPE_RARP),
    (0x15, 0, 4, ETHERTYPE_IPV6),
    (0x30, 0, 0, 20),  # ldb [20]: the next header
    (0x15, 0, 2, 58),  # ICMPv6
    (0x30, 0, 0, 54),  # ldb [54]: its type
    (0x35, 1, 0, 135),  # jge: a solicitation or later
    (0x06, 0, 0, 0),  # reject
    (0x06, 0, 0, 0xFFFF),  # accept
)


class LanSocket:
    """Frames of a LAN that show who is there; sends frames too.

    Args:
        interface: on the LAN.
    """

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(0))
        # Attached before it is bound, so that nothing else is ever queued.
        _attach(self._socket, _SIGHTINGS)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.bind((interface, _ETH_P_ALL))
        # Solicitations go to multicast groups that this host is no member of.
        membership = struct.pack("@iHH8s", socket.if_nametoindex(interface), _PACKET_MR_ALLMULTI, 0, b"")
        self._socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)

    def fileno(self) -> int:
        """The descriptor, for an event loop."""
        return self._socket.fileno()

    def receive(self) -> tuple[bytes, int] | None:
        """(frame, arrival in nanoseconds) of the next frame, or None; OSError, once, if the interface has gone down."""
        try:
            frame, ancillary, _, _ = self._socket.recvmsg(2048, 64)
        except BlockingIOError:
            return None
        return frame, arrival_ns(ancillary)

    def send(self, frame: bytes) -> None:
        """Send a frame; one that finds no room is lost, as on any LAN."""
        try:
            self._socket.send(frame)
        except OSError:
            return

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
