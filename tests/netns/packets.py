"""Packets of the data plane's tests, made and read octet by octet, without the code under test."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

ETHERNET = 14
LISP_PORT = 4341


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source: str, destination: str, payload: bytes, *, ttl: int = 64, tos: int = 0, protocol: int = 17,
         fragment: int = 0, options: bytes = b"") -> bytes:  # fmt: skip
    length = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | length // 4, tos, length + len(payload), 7, fragment, ttl, protocol, 0)
    head += ip_address(source).packed + ip_address(destination).packed + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(source: str, destination: str, payload: bytes, *, ttl: int = 64, tos: int = 0, protocol: int = 17) -> bytes:
    head = struct.pack("!IHBB", 6 << 28 | tos << 20, len(payload), protocol, ttl)
    return head + ip_address(source).packed + ip_address(destination).packed + payload


def udp(source_port: int, destination_port: int, payload: bytes, pseudo: tuple[str, str] | None = None) -> bytes:
    """A datagram; its checksum is zero, or right for the addresses of `pseudo`."""
    length = 8 + len(payload)
    datagram = struct.pack("!HHHH", source_port, destination_port, length, 0) + payload
    if pseudo is None:
        return datagram
    head = b"".join(ip_address(a).packed for a in pseudo) + struct.pack("!II", length, 17)
    return datagram[:6] + struct.pack("!H", checksum(head + datagram) or 0xFFFF) + payload


def lisp(inner: bytes, *, flags: int = 0x80, nonce: int = 0x123456, second: int = 0) -> bytes:
    return struct.pack("!II", flags << 24 | nonce, second) + inner


def frame(destination_mac: bytes, packet: bytes, source_mac: bytes = b"\x02\0\0\0\x0a\x01") -> bytes:
    kind = b"\x08\0" if packet[0] >> 4 == 4 else b"\x86\xdd"
    return destination_mac + source_mac + kind + packet


@dataclass(frozen=True)
class Ip:
    """An IP packet taken apart; `header_sum` is 0xffff … 0 complement: 0 if the IPv4 checksum is right."""

    version: int
    source: str
    destination: str
    ttl: int
    tos: int
    protocol: int
    fragment: int
    header_sum: int
    payload: bytes
    whole: bytes

    @classmethod
    def read(cls, packet: bytes) -> Ip:
        if packet[0] >> 4 == 4:
            length = (packet[0] & 15) * 4
            tos, total = packet[1], struct.unpack_from("!H", packet, 2)[0]
            fragment = struct.unpack_from("!H", packet, 6)[0]
            source, destination = (str(ip_address(packet[i : i + 4])) for i in (12, 16))
            return cls(4, source, destination, packet[8], tos, packet[9], fragment,
                       checksum(packet[:length]), packet[length:total], packet[:total])  # fmt: skip
        (first, total, protocol, ttl) = struct.unpack_from("!IHBB", packet)
        source, destination = (str(ip_address(packet[i : i + 16])) for i in (8, 24))
        return cls(6, source, destination, ttl, first >> 20 & 255, protocol, 0, 0,
                   packet[40 : 40 + total], packet[: 40 + total])  # fmt: skip


@dataclass(frozen=True)
class Encapsulated:
    """A LISP data packet taken apart (RFC 9300 §5.3)."""

    outer: Ip
    source_port: int
    udp_length: int
    udp_checksum: int
    flags: int
    nonce: int
    second: int
    inner: Ip

    @classmethod
    def read(cls, packet: bytes) -> Encapsulated:
        outer = Ip.read(packet)
        source_port, port, length, check = struct.unpack_from("!HHHH", outer.payload)
        assert port == LISP_PORT
        first, second = struct.unpack_from("!II", outer.payload, 8)
        return cls(outer, source_port, length, check, first >> 24, first & 0xFFFFFF, second,
                   Ip.read(outer.payload[16:]))  # fmt: skip


def is_lisp(data: bytes) -> bool:
    """Whether a frame is a LISP data packet."""
    kind, packet = data[12:14], data[ETHERNET:]
    offset = {b"\x08\0": 20, b"\x86\xdd": 40}.get(kind)
    protocol = packet[9] if kind == b"\x08\0" else packet[6]
    return offset is not None and protocol == 17 and packet[offset + 2 : offset + 4] == b"\x10\xf5"
