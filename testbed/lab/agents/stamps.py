"""When the kernel took a packet in, and when it gave one to the device: stamps of sockets, on CLOCK_MONOTONIC.

The kernel's stamps are of CLOCK_REALTIME; how far that is ahead of CLOCK_MONOTONIC is compared for each.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence

from testbed.lab.agents.sockets import wall_clock_ahead_ns

# asm-generic/socket.h, linux/net_tstamp.h
SO_TIMESTAMPNS, SO_TIMESTAMPING = 35, 37
TX_SOFTWARE, REPORT_SOFTWARE = 1 << 1, 1 << 4
ANCILLARY_OCTETS = 512
PACKET_OCTETS = 2048
NS = 1_000_000_000


Ancillary = Sequence[tuple[int, int, bytes]]


def stamp_arrivals(asked: socket.socket) -> None:
    """Have every received packet stamped at its arrival."""
    asked.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def stamp_departures(asked: socket.socket) -> None:
    """Have every sent packet come back on the error queue, stamped when the driver got it."""
    asked.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE | REPORT_SOFTWARE)


def arrival_ns(ancillary: Ancillary) -> int:
    """The arrival of the packet that was just read; now, if the kernel gave no stamp."""
    return _monotonic_ns(ancillary, SO_TIMESTAMPNS) or time.monotonic_ns()


def departures(asked: socket.socket) -> Iterator[tuple[bytes, int]]:
    """Empty the error queue: (the packet as it left, when), oldest first."""
    while True:
        try:
            packet, ancillary, _, _ = asked.recvmsg(PACKET_OCTETS, ANCILLARY_OCTETS, socket.MSG_ERRQUEUE)
        except OSError:  # empty
            return
        moment_ns = _monotonic_ns(ancillary, SO_TIMESTAMPING)
        if moment_ns is not None:
            yield packet, moment_ns


def _monotonic_ns(ancillary: Ancillary, wanted: int) -> int | None:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, wanted):
            seconds, nanoseconds = (int(value) for value in struct.unpack_from("@2l", data))
            if seconds:
                return min(seconds * NS + nanoseconds - wall_clock_ahead_ns(), time.monotonic_ns())
    return None
