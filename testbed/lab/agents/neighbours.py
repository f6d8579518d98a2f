"""The kernel's neighbour table of one interface, by netlink (RFC 3549; linux/neighbour.h).

A library would do, but the one at hand runs an event loop of its own, and the agent has one already.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct

from testbed.lisp.actions import Address
from testbed.lisp.sightings import mac_octets

_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_REPLACE, _NLM_F_CREATE = 0x1, 0x4, 0x100, 0x400
_NLM_F_DUMP = 0x300
_NDA_DST, _NDA_LLADDR = 1, 2
#: REACHABLE, not PERMANENT: the kernel goes on to check, as for a neighbour that it found by itself.
_NUD_REACHABLE, _NUD_STALE = 0x02, 0x04
_NTF_USE = 0x01
_HEADER = struct.Struct("=IHHII")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_ATTRIBUTE = struct.Struct("=HH")
_DUMP_OCTETS = 1 << 16


def _attribute(kind: int, data: bytes) -> bytes:
    padding = bytes(-len(data) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + padding


def _attributes(data: bytes, offset: int, end: int) -> dict[int, bytes]:
    found = {}
    while offset + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


class NeighbourTable:
    """Which MAC an address on the interface has.

    Args:
        interface: name.
    """

    def __init__(self, interface: str) -> None:
        self._ifindex = socket.if_nametoindex(interface)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def bind(self, address: Address, mac: str) -> None:
        """Add or replace; OSError if the kernel refuses."""
        flags = _NLM_F_CREATE | _NLM_F_REPLACE
        self._request(_RTM_NEWNEIGH, flags, address, _attribute(_NDA_LLADDR, mac_octets(mac)))

    def unbind(self, address: Address) -> None:
        """Remove; nothing happens if there is none."""
        try:
            self._request(_RTM_DELNEIGH, 0, address, b"")
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def check(self) -> None:
        """Make the kernel ask each neighbour whose answer is old whether it is still there.

        It does so by itself when it sends to one. What the data plane hands over past the interface it does not see:
        a host that is gone would keep its MAC for ever, and what is sent to it would be lost in silence.
        """
        for family, destination in self._stale():
            body = _NEIGHBOUR.pack(family, self._ifindex, 0, _NTF_USE, 0) + _attribute(_NDA_DST, destination)
            with contextlib.suppress(OSError):  # it went meanwhile, or the table is full; the next check is soon
                self._ask(_RTM_NEWNEIGH, _NLM_F_ACK, body)

    def _stale(self) -> list[tuple[int, bytes]]:
        """Family and address of the neighbours whose answer is old."""
        found: list[tuple[int, bytes]] = []
        self._send(_RTM_GETNEIGH, _NLM_F_DUMP, _NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
        while True:
            data = self._socket.recv(_DUMP_OCTETS)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, *_ = _HEADER.unpack_from(data, offset)
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    return found
                start, end = offset + _HEADER.size, offset + length
                family, ifindex, state, *_ = _NEIGHBOUR.unpack_from(data, start)
                destination = _attributes(data, start + _NEIGHBOUR.size, end).get(_NDA_DST)
                if ifindex == self._ifindex and state == _NUD_STALE and destination is not None:
                    found.append((family, destination))
                offset += (length + 3) & ~3

    def close(self) -> None:
        """Close the netlink socket; the entries stay, as the kernel's own would."""
        self._socket.close()

    def _request(self, kind: int, flags: int, address: Address, attributes: bytes) -> None:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        body = _NEIGHBOUR.pack(family, self._ifindex, _NUD_REACHABLE, 0, 0)
        body += _attribute(_NDA_DST, address.packed) + attributes
        self._ask(kind, _NLM_F_ACK | flags, body, f": neighbour {address}")

    def _ask(self, kind: int, flags: int, body: bytes, about: str = "") -> None:
        self._send(kind, flags, body)
        answer = self._socket.recv(4096)
        (code,) = struct.unpack_from("=i", answer, _HEADER.size)
        if code:
            raise OSError(-code, os.strerror(-code) + about)

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | flags, self._sequence, 0)
        self._socket.send(header + body)
