"""Find out of each probe where its request and its reply were seen last, and so what became of it. Pure.

A probe carries its sequence number behind a mark in its payload, so that it is found in a frame
whatever encapsulates it. The place at which it was seen last is the last hop that it is known to have
passed: it was lost behind it, or, of a request at the guest's LAN, the guest did not answer.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

from testbed.measure.frames import Frame
from testbed.measure.gaps import Gap
from testbed.measure.model import ProbeSeries

#: What a probe's payload begins with; eight octets of the run follow, then the sequence number, 64 bits.
PAYLOAD_MARK = b"TBPROBE1"
_SEQUENCE = struct.Struct("!Q")
_SEQUENCE_AT = len(PAYLOAD_MARK) + 8
PAYLOAD_OCTETS = _SEQUENCE_AT + _SEQUENCE.size
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
#: Types of an echo request and reply (RFC 792, RFC 4443 §4).
_REQUESTS, _REPLIES = {8, 128}, {0, 129}


class ProbeKey(NamedTuple):
    """Which probe: its flow, the direction of its request, its number."""

    flow: str
    direction: str
    seq: int


class Sighting(NamedTuple):
    """A packet of a probe in a capture.

    Attributes:
        mono_ns: when.
        capture: "node-interface".
        number: of the frame in that capture, from 1 as Wireshark counts; 0 if not known.
    """

    mono_ns: int
    capture: str
    number: int


@dataclass(slots=True)
class Fate:
    """Where a probe's packets were seen last; None where nowhere.

    Attributes:
        request, reply: the last sighting of each.
        carriers: the xTRs at whose core side what goes towards the guest was seen, each once.
    """

    request: Sighting | None = None
    reply: Sighting | None = None
    carriers: tuple[str, ...] = ()

    @property
    def last(self) -> Sighting | None:
        """The last sighting that decides: of the reply if there was one, else of the request."""
        return self.reply or self.request

    @property
    def words(self) -> str:
        """What was lost and where, of a probe that was not answered."""
        if self.reply is not None:
            return f"reply, last seen at {self.reply.capture}"
        if self.request is not None:
            return f"request, last seen at {self.request.capture}"
        return "seen nowhere"

    def is_triangular(self, old_xtr: str, new_xtr: str) -> bool:
        """Whether it went through both xTRs: sent to the old one, which sent it on to the new one."""
        return old_xtr in self.carriers and new_xtr in self.carriers


@dataclass(slots=True)
class LossFinder:
    """Collects where probes were seen.

    Attributes:
        eids: the guests' addresses.
        cores: (node, interface) of each capture at an xTR's core side → the xTR.
        fates: of every probe that was sent.
    """

    eids: frozenset[bytes]
    cores: Mapping[tuple[str, str], str] = field(default_factory=dict)
    fates: dict[ProbeKey, Fate] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        series: Iterable[ProbeSeries],
        eids: Iterable[str],
        cores: Mapping[tuple[str, str], str] | None = None,
    ) -> LossFinder:
        """Prepare for the probes of some logs."""
        finder = cls(frozenset(ip_address(eid).packed for eid in eids), cores or {})
        for log in series:
            if log.flow in _FLOWS.values():
                for seq in log.seq[log.was_sent]:
                    finder.fates[ProbeKey(log.flow, log.direction, int(seq))] = Fate()
        return finder

    def see(self, frame: Frame, mono_ns: int) -> None:
        """Take a captured frame into account; frames may come in any order."""
        at = frame.data.find(PAYLOAD_MARK)
        if at < 0 or len(frame.data) < at + _SEQUENCE_AT + _SEQUENCE.size:
            return
        (seq,) = _SEQUENCE.unpack_from(frame.data, at + _SEQUENCE_AT)
        packet = self._packet(frame.data, at - _HEADER)
        if packet is None:
            return
        flow, direction, is_request = packet
        fate = self.fates.get(ProbeKey(flow, direction, seq))
        if fate is None:
            return
        seen = Sighting(mono_ns, f"{frame.node}-{frame.interface}", frame.number)
        if is_request:
            fate.request = seen if fate.request is None else max(fate.request, seen)
        else:
            fate.reply = seen if fate.reply is None else max(fate.reply, seen)
        carrier = self.cores.get((frame.node, frame.interface))
        if carrier and is_request == (direction == "to-guest") and carrier not in fate.carriers:
            fate.carriers += (carrier,)

    def _packet(self, data: bytes, header_at: int) -> tuple[str, str, bool] | None:
        """(flow, direction, whether it is the request) of the probe whose ICMP or UDP header is there."""
        for version, octets, protocol_at, source_at, destination_at, size in _IP:
            start = header_at - octets
            if start < 0 or data[start] >> 4 != version:
                continue
            flow = _FLOWS.get(data[start + protocol_at])
            to_guest = data[start + destination_at : start + destination_at + size] in self.eids
            from_guest = data[start + source_at : start + source_at + size] in self.eids
            if flow is None or to_guest == from_guest or _is_quoted(data, start):
                continue
            return self._roles(flow, data[header_at : header_at + _HEADER], to_guest)
        return None

    def _roles(self, flow: str, header: bytes, to_guest: bool) -> tuple[str, str, bool] | None:
        if flow == "icmp" and header[0] in _REQUESTS | _REPLIES:
            is_request = header[0] in _REQUESTS
        elif flow == "udp" and _ECHO_PORT in (header[:2], header[2:4]):
            is_request = header[2:4] == _ECHO_PORT
        else:
            return None
        return flow, "to-guest" if is_request == to_guest else "from-guest", is_request


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


def lost_where(gap: Gap, series: ProbeSeries, fates: Mapping[ProbeKey, Fate]) -> dict[str, int]:
    """How many probes of a gap were lost where, the most frequent place first."""
    rows = series.was_sent & (series.sent_ns >= gap.first_sent_ns) & (series.sent_ns <= gap.last_sent_ns)
    keys: Sequence[ProbeKey] = [ProbeKey(gap.flow, gap.direction, int(seq)) for seq in series.seq[rows]]
    places = Counter(fates[key].words for key in keys if key in fates)
    return dict(sorted(places.items(), key=lambda item: (-item[1], item[0])))
