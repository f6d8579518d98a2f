"""Whether the packet in a LISP data packet is whole and of the right TTL, without the code under test."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from tests.netns.packets import Encapsulated, Ip, checksum

#: Protocol → where its checksum is in its header.
CHECKSUM_AT = {1: 2, 6: 16, 17: 6, 58: 2}
#: Those whose checksum covers a pseudo-header too (RFC 792's does not).
WITH_PSEUDO_HEADER = {6, 17, 58}


def faults(data: Encapsulated, *, sent_ttl: int, core_hops: int) -> list[str]:
    """What is wrong with a data packet as it is on the way; empty if nothing is.

    Args:
        data: the packet.
        sent_ttl: of the inner packet, as it came out of its ITR.
        core_hops: routers of the core that the packet has passed.
    """
    found = []
    if data.inner.ttl != sent_ttl:
        found.append(f"inner TTL {data.inner.ttl}, not {sent_ttl}")
    if data.outer.ttl != sent_ttl - core_hops:  # RFC 9300 §5.3: it began as the inner one's
        found.append(f"outer TTL {data.outer.ttl}, not {sent_ttl - core_hops}")
    for place, packet in (("outer", data.outer), ("inner", data.inner)):
        if packet.header_sum:
            found.append(f"{place} header checksum")
    if data.udp_checksum:
        found.append("outer UDP checksum is not zero")
    return found + transport_faults(data.inner)


def transport_faults(packet: Ip) -> list[str]:
    """What is wrong with the ICMP, TCP or UDP checksum of a whole packet."""
    at = CHECKSUM_AT.get(packet.protocol)
    if at is None or len(packet.payload) < at + 2:
        return [f"protocol {packet.protocol}, {len(packet.payload)} octets: no checksum to be verified"]
    if packet.protocol == 17 and packet.payload[at : at + 2] == b"\0\0":
        return ["inner UDP checksum is zero"]
    pseudo = b""
    if packet.protocol in WITH_PSEUDO_HEADER:
        addresses = ip_address(packet.source).packed + ip_address(packet.destination).packed
        pseudo = addresses + struct.pack("!II", len(packet.payload), packet.protocol)
    return ["inner transport checksum"] if checksum(pseudo + packet.payload) else []
