"""The kernel's neighbour table of one interface, by netlink (RFC 3549; linux/neighbour.h).

A library would do, but the one at hand runs an event loop of its own, and the agent has one already.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from testbed.lisp.actions import Address
from testbed.lisp.sightings import mac_octets

_RTM_NEWNEIGH, _RTM_DELNEIGH = 28, 29
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_REPLACE, _NLM_F_CREATE = 0x1, 0x4, 0x100, 0x400
_NDA_DST, _NDA_LLADDR = 1, 2
#: REACHABLE, not PERMANENT: the kernel goes on to check, as for a neighbour that it found by itself.
_NUD_REACHABLE = 0x02
_HEADER = struct.Struct("=IHHII")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")


def _attribute(kind: int, data: bytes) -> bytes:
    padding = bytes(-len(data) % 4)
    return struct.pack("=HH", 4 + len(data), kind) + data + padding


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

    def close(self) -> None:
        """Close the netlink socket; the entries stay, as the kernel's own would."""
        self._socket.close()

    def _request(self, kind: int, flags: int, address: Address, attributes: bytes) -> None:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        body = _NEIGHBOUR.pack(family, self._ifindex, _NUD_REACHABLE, 0, 0)
        body += _attribute(_NDA_DST, address.packed) + attributes
        self._sequence += 1
        length = _HEADER.size + len(body)
        header = _HEADER.pack(length, kind, _NLM_F_REQUEST | _NLM_F_ACK | flags, self._sequence, 0)
        self._socket.send(header + body)
        answer = self._socket.recv(4096)
        (code,) = struct.unpack_from("=i", answer, _HEADER.size)
        if code:
            raise OSError(-code, f"{os.strerror(-code)}: neighbour {address}")
