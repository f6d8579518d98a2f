"""Minimal IPv4, IPv6, UDP and ICMP headers: what ECMs, probes and too-big messages need. Pure.

Sources: RFC 791, 8200, 768, 1071, 792, 1191, 4443.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from testbed.lisp.wire.reader import Layout, Reader, fitting, packed

IpAddress = IPv4Address | IPv6Address

PROTOCOL_ICMP = 1
PROTOCOL_UDP = 17
PROTOCOL_ICMPV6 = 58

#: Extension headers that may stand before UDP (RFC 8200 §4): hop-by-hop, routing, fragment, destination.
IPV6_FRAGMENT = 44
IPV6_EXTENSIONS = frozenset({0, 43, IPV6_FRAGMENT, 60})
IPV6_EXTENSION_UNIT = 8

IPV4_HEADER = 20
IPV6_HEADER = 40
UDP_HEADER = 8
ICMP_HEADER = 8

ICMP_ECHO_REPLY, ICMP_UNREACHABLE, ICMP_ECHO_REQUEST = 0, 3, 8
ICMP_FRAGMENTATION_NEEDED = 4
ICMPV6_TOO_BIG, ICMPV6_ECHO_REQUEST, ICMPV6_ECHO_REPLY = 2, 128, 129

#: An ICMPv4 error must stay within 576 octets (RFC 1812 §4.3.2.3), an ICMPv6 one within 1280 (RFC 4443 §2.4).
ICMPV4_ERROR_LIMIT, ICMPV6_ERROR_LIMIT = 576, 1280


_IPV4 = Layout(
    ihl=1, tos=1, total_length=2, identification=2, fragment=2, ttl=1, protocol=1, checksum=2, source=4, destination=4
)
_UDP = Layout(source_port=2, destination_port=2, length=2, checksum=2)


def checksum(data: bytes) -> int:
    """The Internet checksum: ones' complement of the ones' complement sum of 16-bit words (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source: IpAddress, destination: IpAddress, protocol: int, octets: int) -> bytes:
    """What a transport checksum covers beside the segment (RFC 768, RFC 8200 §8.1).

    Args:
        source: of the packet.
        destination: of the packet, the same family.
        protocol: IP protocol number.
        octets: length of the transport header and payload.
    """
    addresses = source.packed + destination.packed
    if source.version == 4:
        return addresses + struct.pack("!BBH", 0, protocol, octets)
    return addresses + struct.pack("!IHBB", octets, 0, 0, protocol)


def build_ip(
    source: IpAddress,
    destination: IpAddress,
    protocol: int,
    payload: bytes,
    *,
    hop_limit: int = 64,
    traffic_class: int = 0,
    identification: int = 0,
    dont_fragment: bool = True,
) -> bytes:
    """An IPv4 or IPv6 packet, as the addresses say.

    Args:
        source: address; ValueError if the two are of different families.
        destination: address.
        protocol: of the payload.
        payload: transport header and data; ValueError if longer than a packet can be.
        hop_limit: TTL or Hop Limit.
        traffic_class: DSCP and ECN, one octet.
        identification: of an IPv4 packet.
        dont_fragment: DF of an IPv4 packet.
    """
    if source.version != destination.version:
        raise ValueError(f"{source} and {destination} are of different families")
    fitting(hop_limit, 8, "hop_limit")
    fitting(traffic_class, 8, "traffic_class")
    if source.version == 6:
        fitting(len(payload), 16, "payload length")
        word = 6 << 28 | traffic_class << 20
        header = struct.pack("!IHBB", word, len(payload), protocol, hop_limit)
        return header + source.packed + destination.packed + payload
    total = fitting(IPV4_HEADER + len(payload), 16, "total length")
    flags = 0x4000 if dont_fragment else 0
    first = struct.pack("!BBHHHBB", 0x45, traffic_class, total, identification, flags, hop_limit, protocol)
    addresses = source.packed + destination.packed
    return first + packed(checksum(first + addresses), 2, "checksum") + addresses + payload


def build_udp(
    source: IpAddress,
    destination: IpAddress,
    source_port: int,
    destination_port: int,
    payload: bytes,
    *,
    with_checksum: bool = True,
) -> bytes:
    """A UDP datagram: header and payload (RFC 768).

    Args:
        source: address, for the checksum.
        destination: address, for the checksum.
        source_port: UDP port.
        destination_port: UDP port.
        payload: data.
        with_checksum: False sends zero, "none", as LISP data packets do (RFC 9300 §5.3).
    """
    octets = fitting(UDP_HEADER + len(payload), 16, "UDP length")
    datagram = _UDP.pack(source_port, destination_port, octets, 0) + payload
    if not with_checksum:
        return datagram
    pseudo = pseudo_header(source, destination, PROTOCOL_UDP, octets)
    # A sum that comes out as zero is sent as all ones, since zero means "none".
    return _UDP.pack(source_port, destination_port, octets, checksum(pseudo + datagram) or 0xFFFF) + payload


def build_udp_packet(
    source: IpAddress,
    destination: IpAddress,
    source_port: int,
    destination_port: int,
    payload: bytes,
    *,
    hop_limit: int = 64,
    with_checksum: bool = True,
) -> bytes:
    """A whole IP packet with a UDP datagram; arguments as in `build_ip` and `build_udp`."""
    datagram = build_udp(source, destination, source_port, destination_port, payload, with_checksum=with_checksum)
    return build_ip(source, destination, PROTOCOL_UDP, datagram, hop_limit=hop_limit)


@dataclass(frozen=True, slots=True)
class IpPacket:
    """An IP packet, as received.

    Attributes:
        source: address.
        destination: address.
        protocol: of the payload (in IPv6 after the extension headers).
        hop_limit: TTL or Hop Limit.
        traffic_class: DSCP and ECN.
        payload: what follows the headers, as far as the length fields reach (and the data, if truncated).
        payload_offset: where `payload` begins in the data it was read from.
        fragment_offset: octets; not zero in any fragment but the first.
        more_fragments: True in any fragment but the last.
        missing: octets that the length fields announce and the data lacks.
    """

    source: IpAddress
    destination: IpAddress
    protocol: int
    hop_limit: int
    traffic_class: int
    payload: bytes
    payload_offset: int
    fragment_offset: int = 0
    more_fragments: bool = False
    missing: int = 0

    @property
    def fragmented(self) -> bool:
        """True if this is not a whole packet."""
        return self.more_fragments or self.fragment_offset > 0


def parse_ip(reader: Reader, *, allow_missing: bool = False) -> IpPacket:
    """Read an IPv4 or IPv6 packet; the IPv4 header checksum must be right.

    Args:
        reader: at the first octet of the header; afterwards at the end of the packet.
        allow_missing: accept a packet of which the end is cut off (a capture with a short snap length).

    Raises:
        WireError: neither version 4 nor 6, a length that does not fit, a wrong header checksum.
    """
    if reader.remaining == 0:
        raise reader.error("version", "no octets left")
    version = reader.data[reader.offset] >> 4
    if version == 4:
        reader.path.append("ipv4")
        packet = _parse_ipv4(reader, allow_missing)
        reader.path.pop()
        return packet
    if version == 6:
        with reader.at("ipv6"):
            return _parse_ipv6(reader, allow_missing)
    raise reader.error("version", f"neither IPv4 nor IPv6 but {version}")


def _payload(reader: Reader, announced: int, allow_missing: bool) -> tuple[bytes, int]:
    """The next `announced` octets, or those that there are; and how many are missing."""
    present = min(announced, reader.remaining) if allow_missing else announced
    return reader.take(present, "payload"), announced - present


def _parse_ipv4(reader: Reader, allow_missing: bool) -> IpPacket:
    start = reader.offset
    ihl, traffic_class, total, _, fragment, hop_limit, protocol, _, source, destination = reader.uints(_IPV4)
    header_octets = (ihl & 0x0F) * 4
    if header_octets < IPV4_HEADER:
        raise reader.error("ihl", f"{header_octets} octets, fewer than {IPV4_HEADER}", offset=start)
    if total < header_octets:
        why = f"{total}, less than the header's {header_octets}"
        raise reader.error("total_length", why, offset=start + 2)
    reader.take(header_octets - IPV4_HEADER, "options")
    if checksum(reader.data[start : reader.offset]) != 0:
        raise reader.error("checksum", "wrong", offset=start + 10)
    offset = reader.offset
    payload, missing = _payload(reader, total - header_octets, allow_missing)
    return IpPacket(
        IPv4Address(source), IPv4Address(destination), protocol, hop_limit, traffic_class, payload, offset,
        fragment_offset=(fragment & 0x1FFF) * 8, more_fragments=bool(fragment & 0x2000), missing=missing,
    )  # fmt: skip


def _parse_ipv6(reader: Reader, allow_missing: bool) -> IpPacket:
    traffic_class = reader.uint(4, "flow") >> 20 & 0xFF
    octets = reader.uint(2, "payload_length")
    protocol = reader.uint(1, "next_header")
    hop_limit = reader.uint(1, "hop_limit")
    source = IPv6Address(reader.take(16, "source"))
    destination = IPv6Address(reader.take(16, "destination"))
    fragment = 0
    while protocol in IPV6_EXTENSIONS:
        with reader.at("extension"):
            following = reader.uint(1, "next_header")
            length = reader.uint(1, "length")
            if protocol == IPV6_FRAGMENT:
                fragment = reader.uint(2, "fragment")
                reader.take(4, "identification")
                extension = IPV6_EXTENSION_UNIT
            else:
                extension = (length + 1) * IPV6_EXTENSION_UNIT
                reader.take(extension - 2, "options")
        if extension > octets:
            raise reader.error("extension", f"longer than the payload's {octets} octets")
        octets -= extension
        protocol = following
        if fragment & 0xFFF8:
            break  # what follows is the middle of the payload, not a header
    offset = reader.offset
    payload, missing = _payload(reader, octets, allow_missing)
    return IpPacket(
        source, destination, protocol, hop_limit, traffic_class, payload, offset,
        fragment_offset=fragment & 0xFFF8, more_fragments=bool(fragment & 1), missing=missing,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class UdpDatagram:
    """A UDP datagram, as received.

    Attributes:
        source_port: UDP port.
        destination_port: UDP port.
        payload: as far as the UDP length reaches.
        checksum: the field; 0 is "none".
        checksum_ok: True if it is right, False if not; None if there is none or some octets are missing.
    """

    source_port: int
    destination_port: int
    payload: bytes
    checksum: int
    checksum_ok: bool | None


def parse_udp(packet: IpPacket, reader: Reader | None = None) -> UdpDatagram:
    """Read the UDP datagram of an IP packet.

    Args:
        packet: whose payload is UDP.
        reader: of which `packet` was read, so that errors have its path and offsets; without it they
            count from the UDP header.

    Raises:
        WireError: shorter than a header, or a UDP length that does not fit.
    """
    if reader is None:
        inner = Reader(packet.payload)
    else:
        inner = reader.window(packet.payload_offset, packet.payload_offset + len(packet.payload))
    inner.path.append("udp")
    source_port, destination_port, octets, stated = inner.uints(_UDP)
    if octets < UDP_HEADER or (octets > len(packet.payload) and not (packet.missing or packet.fragmented)):
        raise inner.error("length", f"{octets}, of {len(packet.payload)}", offset=inner.offset - 4)
    covered = packet.payload[:octets]
    verdict: bool | None = None
    if stated and len(covered) == octets:
        pseudo = pseudo_header(packet.source, packet.destination, PROTOCOL_UDP, octets)
        verdict = checksum(pseudo + covered) == 0
    return UdpDatagram(source_port, destination_port, covered[UDP_HEADER:], stated, verdict)


def build_icmp_echo(
    source: IpAddress,
    destination: IpAddress,
    identifier: int,
    sequence: int,
    payload: bytes,
    *,
    reply: bool = False,
    hop_limit: int = 64,
) -> bytes:
    """A whole IP packet with an ICMP or ICMPv6 echo (RFC 792, RFC 4443 §4.1).

    Args:
        source: address.
        destination: address, the same family.
        identifier: 16 bits.
        sequence: 16 bits.
        payload: data, which a reply repeats.
        reply: True for a reply.
        hop_limit: TTL or Hop Limit.
    """
    if source.version == 4:
        kind = ICMP_ECHO_REPLY if reply else ICMP_ECHO_REQUEST
    else:
        kind = ICMPV6_ECHO_REPLY if reply else ICMPV6_ECHO_REQUEST
    rest = packed(identifier, 2, "identifier") + packed(sequence, 2, "sequence") + payload
    return _build_icmp(source, destination, kind, 0, rest, hop_limit)


def build_too_big(source: IpAddress, packet: bytes, mtu: int, *, hop_limit: int = 64) -> bytes:
    """The ICMP error that tells a packet's sender the size that fits (RFC 1191 §4, RFC 4443 §3.2).

    Args:
        source: address of the router that says so, of the packet's family.
        packet: the packet that was too big; its beginning is quoted.
        mtu: octets, of the IP packet that would fit.
        hop_limit: TTL or Hop Limit of the error.

    Raises:
        WireError: `packet` is no IP packet.
        ValueError: the families differ, or `mtu` does not fit the field.
    """
    original = parse_ip(Reader(packet), allow_missing=True)
    if original.source.version == 4:
        kind, code, limit = ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED, ICMPV4_ERROR_LIMIT
        header, size = IPV4_HEADER, b"\0\0" + packed(mtu, 2, "mtu")
    else:
        kind, code, limit = ICMPV6_TOO_BIG, 0, ICMPV6_ERROR_LIMIT
        header, size = IPV6_HEADER, packed(mtu, 4, "mtu")
    quoted = packet[: limit - header - ICMP_HEADER]
    return _build_icmp(source, original.source, kind, code, size + quoted, hop_limit)


def _build_icmp(source: IpAddress, destination: IpAddress, kind: int, code: int, rest: bytes, hop_limit: int) -> bytes:
    """An IP packet with an ICMP message whose checksum is right; `rest` follows the checksum."""
    protocol, covered = PROTOCOL_ICMP, bytes((kind, code, 0, 0)) + rest
    if source.version == 6:
        protocol = PROTOCOL_ICMPV6
        pseudo = pseudo_header(source, destination, protocol, len(covered))
    else:
        pseudo = b""
    message = bytes((kind, code)) + packed(checksum(pseudo + covered), 2, "checksum") + rest
    return build_ip(source, destination, protocol, message, hop_limit=hop_limit)
