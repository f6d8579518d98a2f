"""Find out of each lost probe whether the request or the reply was lost, and where it was last seen. Pure.

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
#: Octets of an ICMP echo's and of a UDP header.
_HEADER = 8
#: (version, octets of the IP header, where its protocol, source and destination are, octets of an address).
_IP = ((4, 20, 9, 12, 16, 4), (6, 40, 6, 8, 24, 16))
_FLOWS = {1: "icmp", 58: "icmp", 17: "udp"}
#: Types of an echo request and reply (RFC 792, RFC 4443 §4).
_REQUESTS, _REPLIES = {8, 128}, {0, 129}


class ProbeKey(NamedTuple):
    """Which probe: its flow, the direction of its request, its number."""

    flow: str
    direction: str
    seq: int


@dataclass(slots=True)
class Fate:
    """Where a lost probe's packets were last seen: (when, the capture's name); None where nowhere."""

    request: tuple[int, str] | None = None
    reply: tuple[int, str] | None = None

    @property
    def words(self) -> str:
        """What was lost and where."""
        if self.reply is not None:
            return f"reply, last seen at {self.reply[1]}"
        if self.request is not None:
            return f"request, last seen at {self.request[1]}"
        return "seen nowhere"


@dataclass(slots=True)
class LossFinder:
    """Collects where lost probes were seen.

    Attributes:
        eids: the guests' addresses.
        fates: of every lost probe.
        directions: flow → the directions that are probed in it; a UDP packet does not say which
            one it belongs to, so with two directions it is left alone.
    """

    eids: frozenset[bytes]
    fates: dict[ProbeKey, Fate] = field(default_factory=dict)
    directions: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, series: Iterable[ProbeSeries], eids: Iterable[str]) -> LossFinder:
        """Prepare for the lost probes of some logs."""
        finder = cls(frozenset(ip_address(eid).packed for eid in eids))
        for log in series:
            finder.directions.setdefault(log.flow, set()).add(log.direction)
            for seq in log.seq[log.was_sent & ~log.was_answered]:
                finder.fates[ProbeKey(log.flow, log.direction, int(seq))] = Fate()
        return finder

    def see(self, frame: Frame, mono_ns: int) -> None:
        """Take a captured frame into account."""
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
        seen = (mono_ns, f"{frame.node}-{frame.interface}")
        if is_request:
            fate.request = seen if fate.request is None else max(fate.request, seen)
        else:
            fate.reply = seen if fate.reply is None else max(fate.reply, seen)

    def _packet(self, data: bytes, header_at: int) -> tuple[str, str, bool] | None:
        """(flow, direction, whether it is the request) of the probe whose ICMP or UDP header is there."""
        for version, octets, protocol_at, source_at, destination_at, size in _IP:
            start = header_at - octets
            if start < 0 or data[start] >> 4 != version:
                continue
            flow = _FLOWS.get(data[start + protocol_at])
            to_guest = data[start + destination_at : start + destination_at + size] in self.eids
            from_guest = data[start + source_at : start + source_at + size] in self.eids
            if flow is None or to_guest == from_guest:
                continue
            return self._roles(flow, data[header_at], to_guest)
        return None

    def _roles(self, flow: str, echo_type: int, to_guest: bool) -> tuple[str, str, bool] | None:
        if flow == "icmp" and echo_type in _REQUESTS | _REPLIES:
            is_request = echo_type in _REQUESTS
            return flow, "to-guest" if is_request == to_guest else "from-guest", is_request
        if flow == "udp" and len(self.directions.get(flow, ())) == 1:
            (direction,) = self.directions[flow]
            return flow, direction, to_guest == (direction == "to-guest")
        return None


def lost_where(gap: Gap, series: ProbeSeries, fates: Mapping[ProbeKey, Fate]) -> dict[str, int]:
    """How many probes of a gap were lost where, the most frequent place first."""
    rows = series.was_sent & (series.sent_ns >= gap.first_sent_ns) & (series.sent_ns <= gap.last_sent_ns)
    keys: Sequence[ProbeKey] = [ProbeKey(gap.flow, gap.direction, int(seq)) for seq in series.seq[rows]]
    places = Counter(fates[key].words for key in keys if key in fates)
    return dict(sorted(places.items(), key=lambda item: (-item[1], item[0])))
