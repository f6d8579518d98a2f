"""What the core carries on the way to each locator (RFC 9300 §7.2), learnt from its routers' ICMP. No I/O."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from testbed.dataplane.model import Address
from testbed.lisp.wire import DATA_PORT, Reader, WireError
from testbed.lisp.wire.inet import (
    ICMP_FRAGMENTATION_NEEDED,
    ICMP_HEADER,
    ICMP_UNREACHABLE,
    ICMPV6_TOO_BIG,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_UDP,
    UDP_HEADER,
    checksum,
    parse_ip,
    pseudo_header,
)

#: After this long a path may have become wider, and is tried again (RFC 1191 §6.3, RFC 8201 §5.3).
AGE_OUT_S = 600.0
#: No message makes a path narrower than this, by address family (RFC 1191 §3, RFC 8201 §4).
NARROWEST = {4: 68, 6: 1280}
#: What a path may carry whose router does not say what (RFC 1191 §7.1).
PLATEAUS = (65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)
#: The source ports that the programs encapsulate from begin here.
FIRST_SOURCE_PORT = 0xC000


@dataclass(frozen=True, slots=True)
class TooBig:
    """A router's word that a packet of ours did not fit.

    Attributes:
        rloc: where the packet was to go.
        length: of the packet, octets of IP.
        mtu: what the router's next link carries, octets of IP.
    """

    rloc: Address
    length: int
    mtu: int


def read_too_big(message: bytes) -> TooBig | None:
    """What an IP packet with ICMP "fragmentation needed" or ICMPv6 "packet too big" says.

    None if it is neither, its checksum is wrong, or what it quotes is no LISP data packet from the
    address to which it came.
    """
    try:
        packet = parse_ip(Reader(message))
        icmp = packet.payload
        quoted = parse_ip(Reader(icmp[ICMP_HEADER:]), allow_missing=True)
    except WireError:
        return None
    kind, code, _, word = struct.unpack_from("!BBHI", icmp)
    pseudo = b""
    if packet.protocol == PROTOCOL_ICMPV6:
        pseudo = pseudo_header(packet.source, packet.destination, PROTOCOL_ICMPV6, len(icmp))
        says_so, mtu = kind == ICMPV6_TOO_BIG, word
    else:
        says_so = (packet.protocol, kind, code) == (PROTOCOL_ICMP, ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED)
        mtu = word & 0xFFFF
    if not says_so or checksum(pseudo + icmp) or packet.fragmented or quoted.fragmented:
        return None
    if quoted.source != packet.destination or quoted.protocol != PROTOCOL_UDP or len(quoted.payload) < UDP_HEADER:
        return None
    source_port, port = struct.unpack_from("!HH", quoted.payload)
    if port != DATA_PORT or source_port < FIRST_SOURCE_PORT:
        return None
    length = quoted.payload_offset + len(quoted.payload) + quoted.missing
    if mtu == 0 and packet.destination.version == 4:
        mtu = max(plateau for plateau in PLATEAUS if plateau < max(length, PLATEAUS[-1] + 1))
    return TooBig(quoted.destination, length, mtu)


class PathMtus:
    """The effective MTU of each locator, octets of IP: the core link's, unless a path is known to be narrower.

    Args:
        link_mtu: of the core interface; an attribute too.
        clock: seconds, monotonic.
    """

    def __init__(self, link_mtu: int, clock: Callable[[], float]) -> None:
        self.link_mtu, self._clock = link_mtu, clock
        self._narrow: dict[Address, tuple[int, float]] = {}

    def of(self, rloc: Address) -> int:
        """What reaches a locator, as far as is known."""
        return self._narrow[rloc][0] if rloc in self._narrow else self.link_mtu

    def narrow(self) -> dict[Address, tuple[int, float]]:
        """Locators whose path is narrower than the link: (MTU, seconds since that was learnt)."""
        now = self._clock()
        return {rloc: (mtu, now - since) for rloc, (mtu, since) in self._narrow.items()}

    def is_plausible(self, said: TooBig) -> bool:
        """Whether a router can have said this in earnest: the packet was too long, and the MTU is one."""
        return NARROWEST[said.rloc.version] <= said.mtu < said.length

    def learn(self, said: TooBig) -> bool:
        """Believe a plausible message; whether it made a path narrower. None ever makes one wider."""
        if said.mtu >= self.of(said.rloc):
            return False
        self._narrow[said.rloc] = (said.mtu, self._clock())
        return True

    def age_out(self) -> frozenset[Address]:
        """Forget what was learnt long ago; the locators of which that was."""
        now = self._clock()
        old = frozenset(rloc for rloc, (_, since) in self._narrow.items() if now - since >= AGE_OUT_S)
        for rloc in old:
            del self._narrow[rloc]
        return old
