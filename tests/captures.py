"""Captures made in memory, for tests: pcap and pcapng of either byte order."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from testbed.lisp.wire.inet import build_udp_packet

#: 2026-11-22T09:15:00Z, and a fraction that shows lost digits.
WALL_NS = 1_795_338_900_123_456_789

ITR, MAP_SERVER = IPv4Address("10.0.3.2"), IPv4Address("10.0.0.2")


def ethernet(packet: bytes, *tags: int) -> bytes:
    """An Ethernet frame around an IP packet, with 802.1Q tags (VLAN IDs, outermost first)."""
    kinds = [b"\x88\xa8"] * (len(tags) - 1) + [b"\x81\x00"] * bool(tags)
    tagging = b"".join(kind + struct.pack("!H", tag) for kind, tag in zip(kinds, tags, strict=True))
    return bytes(12) + tagging + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


def control(
    message: bytes,
    source: IPv4Address | IPv6Address = ITR,
    destination: IPv4Address | IPv6Address = MAP_SERVER,
    source_port: int = 4000,
    destination_port: int = 4342,
) -> bytes:
    """An IP packet with a control message."""
    return build_udp_packet(source, destination, source_port, destination_port, message)


def pcap(frames: Iterable[bytes], *, link_type: int = 1, order: str = "<", nanoseconds: bool = True) -> bytes:
    """A pcap file with all frames at `WALL_NS`."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    fraction = WALL_NS % 1_000_000_000 // (1 if nanoseconds else 1000)
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)]
    for frame in frames:
        head = (WALL_NS // 1_000_000_000, fraction, len(frame), len(frame))
        parts.append(struct.pack(order + "4I", *head) + frame)
    return b"".join(parts)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def section_header(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(name: str, *options: bytes, link_type: int = 1, order: str = "<") -> bytes:
    named = option(2, name.encode(), order) if name else b""
    return block(1, struct.pack(order + "HHI", link_type, 0, 0) + named + b"".join(options), order)


def enhanced_packet(index: int, ticks: int, frame: bytes, order: str = "<") -> bytes:
    head = struct.pack(order + "5I", index, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(6, head + frame, order)


def statistics(index: int, *options: bytes, order: str = "<") -> bytes:
    return block(5, struct.pack(order + "3I", index, 0, 0) + b"".join(options), order)
