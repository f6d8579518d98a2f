"""A probe's packet in a captured frame: which probe it is of, and whether it asks or answers. Pure.

A probe carries its sequence number behind a mark in its payload, so that it is found in a frame whatever
encapsulates it.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import NamedTuple

#: What a probe's payload begins with; eight octets of the run follow, then the sequence number, 64 bits.
PAYLOAD_MARK = b"TBPROBE1"
_PAYLOAD = struct.Struct("!8s8sQ")
PAYLOAD_OCTETS = _PAYLOAD.size
#: Octets of an ICMP echo's and of a UDP header.
_HEADER = 8
#: (version, octets of the IP header, where its protocol, source and destination are, octets of an address).
_IP = ((4, 20, 9, 12, 16, 4), (6, 40, 6, 8, 24, 16))
#: Whoever asks by UDP asks here (RFC 862), and is answered from here.
_ECHO_PORT = (7).to_bytes(2, "big")
_FLOWS = {1: "icmp", 58: "icmp", 17: "udp"}
_ICMP, _UDP = (1, 58), 17
#: Octets of an Ethernet header with its type, and the types behind which another follows (IEEE 802.1Q).
_ETHERNET, _VLANS = 14, (b"\x81\x00", b"\x88\xa8")
#: Octets of LISP's data header (RFC 9300 §5.1).
_LISP_HEADER = 8
#: The flows whose probes are packets of their own.
FLOWS = frozenset(_FLOWS.values())
#: Types of an echo request and reply (RFC 792, RFC 4443 §4).
_REQUESTS, _REPLIES = {8, 128}, {0, 129}


class ProbeKey(NamedTuple):
    """Which probe: its flow, the direction of its request, its number."""

    flow: str
    direction: str
    seq: int


class ProbePacket(NamedTuple):
    """The request or the reply of a probe, as a frame carries it.

    Attributes:
        key: which probe.
        is_request: not the reply.
        sender: eight octets that the program which sends the probes has drawn for itself.
    """

    key: ProbeKey
    is_request: bool
    sender: bytes


def probe_packet(frame: bytes, eids: Collection[bytes]) -> ProbePacket | None:
    """The probe's packet in a frame, encapsulated or not; None if there is none.

    Args:
        frame: from the Ethernet header on.
        eids: addresses of the guests, packed: they tell the direction.
    """
    at = frame.find(PAYLOAD_MARK)
    if at < 0 or len(frame) < at + PAYLOAD_OCTETS:
        return None
    _, sender, seq = _PAYLOAD.unpack_from(frame, at)
    header_at = at - _HEADER
    for version, octets, protocol_at, source_at, destination_at, size in _IP:
        start = header_at - octets
        if start < 0 or frame[start] >> 4 != version:
            continue
        flow = _FLOWS.get(frame[start + protocol_at])
        to_guest = frame[start + destination_at : start + destination_at + size] in eids
        from_guest = frame[start + source_at : start + source_at + size] in eids
        if flow is None or to_guest == from_guest or _is_quoted(frame, start):
            continue
        is_request = _is_request(flow, frame[header_at : header_at + _HEADER])
        if is_request is None:
            return None
        direction = "to-guest" if is_request == to_guest else "from-guest"
        return ProbePacket(ProbeKey(flow, direction, seq), is_request, sender)
    return None


def _is_quoted(data: bytes, start: int) -> bool:
    """Whether the IP header at `start` is quoted by an ICMP error (RFC 792, RFC 4443 §3): no packet, news of one.

    Whatever ICMP message has an IP header in it quotes it. Between Ethernet and the probe there are only IP, and
    IP in LISP in UDP; what is wrapped in anything else counts as a packet.
    """
    at = _ETHERNET
    while data[at - 2 : at] in _VLANS:
        at += 4
    while at < start:
        version = data[at] >> 4
        octets, protocol_at = ((data[at] & 15) * 4, 9) if version == 4 else (40, 6)
        protocol = data[at + protocol_at]
        if protocol in _ICMP:
            return True
        if version not in (4, 6) or protocol != _UDP:
            return False
        at += octets + _HEADER + _LISP_HEADER
    return False


def _is_request(flow: str, header: bytes) -> bool | None:
    """Whether an ICMP or UDP header asks; None if it is of neither an echo nor its reply."""
    if flow == "icmp":
        return header[0] in _REQUESTS if header[0] in _REQUESTS | _REPLIES else None
    return header[2:4] == _ECHO_PORT if _ECHO_PORT in (header[:2], header[2:4]) else None
