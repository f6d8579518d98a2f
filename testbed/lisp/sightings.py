"""Frames of a LAN from which an xTR learns that a host is there: ARP, RARP, IPv6 neighbour discovery.

Reads and builds Ethernet frames as bytes; opens nothing. A frame that is not one of these, or is
torn, is no sighting: what hosts send is not ours to judge.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from testbed.lisp.actions import Address
from testbed.lisp.wire.inet import PROTOCOL_ICMPV6, build_ip, checksum, pseudo_header

ETHERTYPE_ARP = 0x0806
ETHERTYPE_RARP = 0x8035
ETHERTYPE_IPV6 = 0x86DD

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT = 135, 136
_SOLICITED, _OVERRIDE = 0x40000000, 0x20000000
_BROADCAST = b"\xff" * 6
_SOLICITED_NODE = IPv6Address("ff02::1:ff00:0").packed[:13]


class SightingKind(Enum):
    """How a host showed itself; the value goes into the event `eid_detected`."""

    GRATUITOUS_ARP = "gratuitous-arp"
    ARP_REQUEST = "arp-request"
    ARP_REPLY = "arp-reply"
    RARP = "rarp"
    NEIGHBOUR_SOLICITATION = "neighbour-solicitation"
    NEIGHBOUR_ADVERTISEMENT = "neighbour-advertisement"
    PACKET = "packet"
    HINT = "hint"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A host was seen on the LAN.

    Attributes:
        kind: how.
        mac: its MAC, "00:16:3e:00:00:0a".
        eid: its address; None if the frame carries none (RARP).
        asked: the address that it asks for, in an ARP request or neighbour solicitation.
    """

    kind: SightingKind
    mac: str
    eid: Address | None = None
    asked: Address | None = None


def mac_text(octets: bytes) -> str:
    """Six octets as "00:16:3e:00:00:0a"."""
    return ":".join(f"{octet:02x}" for octet in octets)


def mac_octets(text: str) -> bytes:
    """The octets of "00:16:3e:00:00:0a"; ValueError if it is no MAC."""
    octets = bytes.fromhex(text.replace(":", ""))
    if len(octets) != 6:
        raise ValueError(f"not a MAC address: {text!r}")
    return octets


def read_frame(frame: bytes) -> Sighting | None:
    """Who a frame shows to be on the LAN, or None."""
    if len(frame) < _ETHERNET.size:
        return None
    _, _, ethertype = _ETHERNET.unpack_from(frame)
    payload = frame[_ETHERNET.size :]
    if ethertype in (ETHERTYPE_ARP, ETHERTYPE_RARP):
        return _read_arp(payload)
    if ethertype == ETHERTYPE_IPV6:
        return _read_neighbour_discovery(payload)
    return None


def _read_arp(payload: bytes) -> Sighting | None:
    if len(payload) < _ARP.size:
        return None
    hardware, protocol, hardware_length, protocol_length, operation, sender_mac, sender, _, target = _ARP.unpack_from(
        payload
    )
    if (hardware, protocol, hardware_length, protocol_length) != (1, 0x0800, 6, 4):
        return None
    mac, source, asked = mac_text(sender_mac), IPv4Address(sender), IPv4Address(target)
    if operation in (3, 4):  # RFC 903: hypervisors send it for a guest whose address they don't know
        return Sighting(SightingKind.RARP, mac)
    if operation not in (1, 2):
        return None
    if int(source) == 0:  # RFC 5227: a probe asks whether the address is free, it claims nothing yet
        return None
    if source == asked:
        return Sighting(SightingKind.GRATUITOUS_ARP, mac, source)
    if operation == 1:
        return Sighting(SightingKind.ARP_REQUEST, mac, source, asked)
    return Sighting(SightingKind.ARP_REPLY, mac, source)


def _read_neighbour_discovery(payload: bytes) -> Sighting | None:
    # RFC 4861 §4.3, §4.4: ICMPv6 directly after the IPv6 header, hop limit 255, link-layer option last.
    if len(payload) < 64 or payload[6] != 58 or payload[7] != 255:
        return None
    source = IPv6Address(payload[8:24])
    kind, target, option = payload[40], IPv6Address(payload[48:64]), payload[64:72]
    if kind == _NEIGHBOUR_SOLICITATION:
        if int(source) == 0 or len(option) < 8 or option[0] != 1:  # duplicate address detection
            return None
        return Sighting(SightingKind.NEIGHBOUR_SOLICITATION, mac_text(option[2:8]), source, target)
    if kind == _NEIGHBOUR_ADVERTISEMENT and len(option) == 8 and option[0] == 2:
        return Sighting(SightingKind.NEIGHBOUR_ADVERTISEMENT, mac_text(option[2:8]), target)
    return None


def arp_reply(*, mac: str, address: IPv4Address, to_mac: str, to_address: IPv4Address) -> bytes:
    """An Ethernet frame that answers an ARP request: `address` is at `mac`."""
    ethernet = _ETHERNET.pack(mac_octets(to_mac), mac_octets(mac), ETHERTYPE_ARP)
    return ethernet + _ARP.pack(
        1, 0x0800, 6, 4, 2, mac_octets(mac), address.packed, mac_octets(to_mac), to_address.packed
    )


def arp_request(*, mac: str, address: IPv4Address, to_mac: str | None, asked: IPv4Address) -> bytes:
    """An Ethernet frame that asks one host whether `asked` is its address; None: it asks all."""
    ethernet = _ETHERNET.pack(_BROADCAST if to_mac is None else mac_octets(to_mac), mac_octets(mac), ETHERTYPE_ARP)
    return ethernet + _ARP.pack(1, 0x0800, 6, 4, 1, mac_octets(mac), address.packed, bytes(6), asked.packed)


def neighbour_solicitation(*, mac: str, address: IPv6Address, to_mac: str | None, asked: IPv6Address) -> bytes:
    """An Ethernet frame that asks one host whether `asked` is its address (RFC 4861 §4.3); None: all that it may be."""
    target = asked
    if to_mac is None:  # the solicited-node multicast address (RFC 4291 §2.7.1), and its MAC (RFC 2464 §7)
        target = IPv6Address(_SOLICITED_NODE + asked.packed[-3:])
        to_mac = mac_text(b"\x33\x33" + target.packed[-4:])
    body = struct.pack("!BBHI", _NEIGHBOUR_SOLICITATION, 0, 0, 0) + asked.packed
    body += bytes((1, 1)) + mac_octets(mac)
    return _neighbour_frame(body, mac, address, to_mac, target)


def neighbour_advertisement(
    *, mac: str, address: IPv6Address, to_mac: str, to_address: IPv6Address, solicited: bool = True
) -> bytes:
    """An Ethernet frame that says that `address` is at `mac` (RFC 4861 §4.4).

    `solicited` if it answers a solicitation, of a proxy: what the host itself says must count more, so it does
    not override (§7.2.8). What is said unasked does. The router flag is not set: the gateway speaks for a host.
    """
    flags = _SOLICITED if solicited else _OVERRIDE
    body = struct.pack("!BBHI", _NEIGHBOUR_ADVERTISEMENT, 0, 0, flags) + address.packed
    body += bytes((2, 1)) + mac_octets(mac)
    return _neighbour_frame(body, mac, address, to_mac, to_address)


def _neighbour_frame(body: bytes, mac: str, source: IPv6Address, to_mac: str, target: IPv6Address) -> bytes:
    """ICMPv6 in IPv6 in Ethernet, with its checksum; the hop limit of 255 shows that no router passed it."""
    pseudo = pseudo_header(source, target, PROTOCOL_ICMPV6, len(body))
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    packet = build_ip(source, target, PROTOCOL_ICMPV6, body, hop_limit=255)
    return _ETHERNET.pack(mac_octets(to_mac), mac_octets(mac), ETHERTYPE_IPV6) + packet
