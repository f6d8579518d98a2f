"""The packets that a router makes of one it cannot forward: ICMP errors and fragments. Pure."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

ICMP = 1
ICMPV6 = 58
IPV4_HEADER = 20
IPV6_HEADER = 40
#: The longest ICMP error (RFC 1812 §4.3.2.3; RFC 4443 §2.4 c: IPv6's minimum MTU).
LONGEST_ERROR_V4 = 576
LONGEST_ERROR_V6 = 1280
ERRORS_V4 = frozenset({3, 4, 5, 11, 12})
DONT_FRAGMENT = 0x4000
MORE_FRAGMENTS = 0x2000
OFFSET_MASK = 0x1FFF
DEFAULT_TTL = 64


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of some octets."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def may_be_answered(packet: bytes) -> bool:
    """Whether an ICMP error about a packet is allowed (RFC 1812 §4.3.2.7, RFC 4443 §2.4 e)."""
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        source = IPv4Address(packet[12:16])
        if struct.unpack_from("!H", packet, 6)[0] & OFFSET_MASK:
            return False
        if packet[9] == ICMP and (len(packet) <= header or packet[header] in ERRORS_V4):
            return False
        return not (source.is_multicast or source.is_unspecified or source.is_loopback)
    source6 = IPv6Address(packet[8:24])
    if packet[6] == ICMPV6 and (len(packet) <= IPV6_HEADER or packet[IPV6_HEADER] < 128):
        return False
    return not (source6.is_multicast or source6.is_unspecified)


def too_big(packet: bytes, router: IPv4Address | IPv6Address, mtu: int) -> bytes:
    """The error that says an IP packet exceeds a path's MTU, to the packet's source.

    IPv4: fragmentation needed, with the next hop's MTU (RFC 1191 §4); IPv6: packet too big (RFC 4443
    §3.2). `mtu` is in octets of IP, `router` the address that says it.
    """
    if isinstance(router, IPv4Address):
        return _error_v4(packet, router, kind=3, code=4, rest=struct.pack("!HH", 0, mtu))
    return _error_v6(packet, router, kind=2, code=0, rest=struct.pack("!I", mtu))


def time_exceeded(packet: bytes, router: IPv4Address | IPv6Address) -> bytes:
    """The error that says a packet's TTL ran out in transit (RFC 792, RFC 4443 §3.3)."""
    if isinstance(router, IPv4Address):
        return _error_v4(packet, router, kind=11, code=0, rest=bytes(4))
    return _error_v6(packet, router, kind=3, code=0, rest=bytes(4))


def fragments(packet: bytes, mtu: int) -> list[bytes]:
    """Split an IPv4 packet into fragments of equal size of at most `mtu` octets (RFC 791 §3.2).

    RFC 9300 §7.1 has the ITR do this before it encapsulates. Raises ValueError if DF forbids it or the
    MTU holds no payload. A packet without a payload is whole as it is.
    """
    header_length = (packet[0] & 15) * 4
    header, payload = packet[:header_length], packet[header_length : struct.unpack_from("!H", packet, 2)[0]]
    flags = struct.unpack_from("!H", packet, 6)[0]
    if flags & DONT_FRAGMENT:
        raise ValueError("the packet must not be fragmented")
    room = (mtu - header_length) & ~7
    if room <= 0:
        raise ValueError(f"an MTU of {mtu} holds no payload")
    if not payload:
        return [packet]
    count = -(-len(payload) // room)
    size = min(room, (-(-len(payload) // count) + 7) & ~7)
    pieces = []
    for start in range(0, len(payload), size):
        last = start + size >= len(payload)
        head = header if start == 0 else _copied_header(header)
        offset = (flags & OFFSET_MASK) + start // 8
        more = flags & MORE_FRAGMENTS if last else MORE_FRAGMENTS
        pieces.append(_with_length_and_offset(head, payload[start : start + size], more | offset))
    return pieces


def _copied_header(header: bytes) -> bytes:
    """The header of a fragment that is not the first: only options with the copied flag (RFC 791 §3.1)."""
    kept, position = b"", IPV4_HEADER
    while position < len(header):
        option = header[position]
        if option == 0:
            break
        length = 1 if option == 1 else max(2, header[position + 1]) if position + 1 < len(header) else 1
        if option & 0x80:
            kept += header[position : position + length]
        position += length
    kept += b"\0" * (-len(kept) % 4)
    return bytes([0x40 | (IPV4_HEADER + len(kept)) // 4]) + header[1:IPV4_HEADER] + kept


def _with_length_and_offset(header: bytes, payload: bytes, flags_offset: int) -> bytes:
    new = bytearray(header)
    struct.pack_into("!H", new, 2, len(header) + len(payload))
    struct.pack_into("!H", new, 6, flags_offset)
    struct.pack_into("!H", new, 10, 0)
    struct.pack_into("!H", new, 10, checksum(bytes(new)))
    return bytes(new) + payload


def _error_v4(packet: bytes, router: IPv4Address, *, kind: int, code: int, rest: bytes) -> bytes:
    quoted = packet[: LONGEST_ERROR_V4 - IPV4_HEADER - 8]
    message = bytearray(struct.pack("!BBH", kind, code, 0) + rest + quoted)
    struct.pack_into("!H", message, 2, checksum(bytes(message)))
    # DSCP CS6: network control (RFC 1812 §4.3.2.5 asks for precedence 6).
    header = bytearray(
        struct.pack("!BBHHHBBH", 0x45, 0xC0, IPV4_HEADER + len(message), 0, 0, DEFAULT_TTL, ICMP, 0)
        + router.packed
        + packet[12:16]
    )
    struct.pack_into("!H", header, 10, checksum(bytes(header)))
    return bytes(header + message)


def _error_v6(packet: bytes, router: IPv6Address, *, kind: int, code: int, rest: bytes) -> bytes:
    quoted = packet[: LONGEST_ERROR_V6 - IPV6_HEADER - 8]
    message = bytearray(struct.pack("!BBH", kind, code, 0) + rest + quoted)
    addresses = router.packed + packet[8:24]
    pseudo = addresses + struct.pack("!II", len(message), ICMPV6)
    struct.pack_into("!H", message, 2, checksum(pseudo + bytes(message)))
    return struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, DEFAULT_TTL) + addresses + bytes(message)
