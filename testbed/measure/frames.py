"""Derive from captured frames when a guest's stream began, and when it was last and first seen at a site. Pure.

A frame with the guest's source MAC on a site's EID LAN was sent by the guest (or, for the
announcement that some hosts send in its name, by its host): nobody else has that address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple

from testbed.events import Event
from testbed.measure.model import Interval

#: What a capture's stamp may be off: the kernel stamps at the tap, wall and monotonic clock are
#: read one after the other at the run's start.
CAPTURE_UNCERTAINTY_MS = 0.1


_TCP = 6
#: Bits of TCP's flags (RFC 9293 §3.1).
_SYN, _ACK = 0x02, 0x10


class Frame(NamedTuple):
    """One captured frame.

    Attributes:
        wall_ns: CLOCK_REALTIME of the capture, nanoseconds since the epoch.
        node, interface: where it was captured.
        data: from the Ethernet header on.
        number: in its capture, from 1 as Wireshark counts; 0 if not known.
    """

    wall_ns: int
    node: str
    interface: str
    data: bytes
    number: int = 0


@dataclass(frozen=True, slots=True)
class WallClock:
    """How wall stamps of a run become monotonic ones: one offset, the clock not having been set.

    Attributes:
        offset_ns: wall - monotonic.
    """

    offset_ns: int

    @classmethod
    def of(cls, clock: Mapping[str, Any]) -> WallClock:
        """From the manifest's `clock`; KeyError if it has no start."""
        start = clock["start"]
        return cls(int(start["wall_ns"]) - int(start["mono_ns"]))

    def mono_ns(self, wall_ns: int) -> int:
        """A wall stamp on the monotonic clock."""
        return wall_ns - self.offset_ns


@dataclass(frozen=True, slots=True)
class Passage:
    """A guest that moves between two sites in a window, as far as a capture needs to know it.

    Attributes:
        index: of the migration.
        guest, mac: who moves; `mac` as "52:54:00:00:00:01".
        source_site, destination_site: from where to where.
        window: in which its frames count.
        eid: its address; "" if what it sends need not be told from what others send in its name.
    """

    index: int
    guest: str
    mac: str
    source_site: str
    destination_site: str
    window: Interval
    eid: str = ""


class Sighting(NamedTuple):
    """The guest's MAC as source of a frame on a site's EID LAN."""

    mono_ns: int
    wall_ns: int
    site: str
    node: str
    interface: str


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def source_mac(data: bytes) -> bytes:
    """The source address of an Ethernet frame (IEEE 802.3: bytes 6 to 11); shorter if the frame is cut."""
    return data[6:12]


class GuestFrames:
    """Collects the frames of migrating guests on the sites' EID LANs."""

    def __init__(self, passages: Sequence[Passage], sites: Mapping[tuple[str, str], str]) -> None:
        """Prepare for some migrations.

        Args:
            passages: the migrations.
            sites: (node, interface) of a capture on an EID LAN → its site; other captures do not count.
        """
        self._passages, self._sites = passages, sites
        self._seen: dict[bytes, list[Sighting]] = {_mac(p.mac): [] for p in passages if p.mac}

    def see(self, frame: Frame, mono_ns: int) -> None:
        """Take a captured frame into account; frames may come in any order."""
        site = self._sites.get((frame.node, frame.interface))
        found = self._seen.get(source_mac(frame.data)) if site is not None else None
        if found is not None and site is not None:
            found.append(Sighting(mono_ns, frame.wall_ns, site, frame.node, frame.interface))

    def events(self) -> list[Event]:
        """The `guest_last_frame` at the source and `guest_first_frame` at the destination of each passage.

        Returns:
            events with `via` "frame", the source naming the capture, in the order of time.
        """
        events = []
        for passage in self._passages:
            events += _passage_events(passage, sorted(self._seen.get(_mac(passage.mac), [])))
        return sorted(events, key=lambda event: event.mono_ns)


def _passage_events(passage: Passage, sightings: Sequence[Sighting]) -> list[Event]:
    """The two events of one passage."""
    window = passage.window
    inside = [s for s in sightings if window.start_ns <= s.mono_ns < window.end_ns]
    arrived = [s for s in inside if s.site == passage.destination_site]
    first = arrived[0] if arrived else None
    stayed = [s for s in inside if s.site == passage.source_site and (first is None or s.mono_ns <= first.mono_ns)]
    events = []
    if stayed:
        events.append(_event("guest_last_frame", stayed[-1], passage.guest))
    if first is not None:
        events.append(_event("guest_first_frame", first, passage.guest))
    return events


class SenderMacs:
    """Collects from which MAC addresses a guest's EID is spoken for on the destination's LAN: it must be the guest's.

    Attributes:
        found: migration index → MACs, as "52:54:00:00:00:01".
    """

    def __init__(
        self, passages: Sequence[Passage], sites: Mapping[tuple[str, str], str], gateways: Iterable[str]
    ) -> None:
        """Prepare for some migrations.

        Args:
            passages: the migrations.
            sites: (node, interface) of a capture on an EID LAN → its site; other captures do not count.
            gateways: MACs of the sites' gateways, which may answer for a guest that is elsewhere.
        """
        self._passages = [(one, ip_address(one.eid).packed) for one in passages if one.eid]
        self._sites, self._gateways = sites, {_mac(gateway) for gateway in gateways}
        self.found: dict[int, set[str]] = {}

    def see(self, frame: Frame, mono_ns: int) -> None:
        """Take a captured frame into account; frames may come in any order."""
        site = self._sites.get((frame.node, frame.interface))
        if site is None or source_mac(frame.data) in self._gateways:
            return
        sender = sender_address(frame.data)
        for passage, eid in self._passages:
            window = passage.window
            if sender == eid and site == passage.destination_site and window.start_ns <= mono_ns < window.end_ns:
                self.found.setdefault(passage.index, set()).add(source_mac(frame.data).hex(":"))


def sender_address(data: bytes) -> bytes:
    """The IP address that an untagged frame says it is from: of IPv4, IPv6 or ARP (RFC 826); b"" of others."""
    start, end = {b"\x08\x00": (26, 30), b"\x86\xdd": (22, 38), b"\x08\x06": (28, 32)}.get(data[12:14], (0, 0))
    return data[start:end]


class StreamFrames:
    """Collects the first packet of each migration's stream, from the source host to the destination's (t1).

    It is the stream's TCP SYN: the first pages follow it by the connection's round trip.
    """

    def __init__(self, passages: Sequence[Passage], addresses: Mapping[str, str], nodes: Mapping[str, str]) -> None:
        """Prepare for some migrations.

        Args:
            passages: the migrations.
            addresses: site → the address of its host that streams come from and go to.
            nodes: site → its host, whose captures count.
        """
        self._passages = [
            (one, nodes[one.source_site], tuple(ip_address(addresses[end]).packed for end in ends))
            for one in passages
            if set(ends := (one.source_site, one.destination_site)) <= set(addresses)
        ]
        self._first: dict[int, tuple[int, Frame]] = {}

    def see(self, frame: Frame, mono_ns: int) -> None:
        """Take a captured frame into account; frames may come in any order."""
        for passage, node, ends in self._passages:
            known = self._first.get(passage.index)
            if frame.node != node or not passage.window.start_ns <= mono_ns < passage.window.end_ns:
                continue
            if (known is None or mono_ns < known[0]) and opens_connection(frame.data) == ends:
                self._first[passage.index] = (mono_ns, frame)

    def events(self) -> list[Event]:
        """A `precopy_started` for every passage whose stream was seen, with `via` "frame"."""
        events = []
        for passage, node, _ in self._passages:
            if passage.index in self._first:
                mono_ns, frame = self._first[passage.index]
                seen = Sighting(mono_ns, frame.wall_ns, passage.source_site, node, frame.interface)
                events.append(_event("precopy_started", seen, passage.guest))
        return events


def opens_connection(data: bytes) -> tuple[bytes, bytes] | None:
    """(source, destination) of a TCP segment with SYN and without ACK (RFC 9293 §3.1), untagged; None of others."""
    if data[12:14] == b"\x08\x00" and len(data) > 23:
        at, protocol, ends = 14 + (data[14] & 15) * 4, data[23], (data[26:30], data[30:34])
    elif data[12:14] == b"\x86\xdd" and len(data) > 20:
        at, protocol, ends = 54, data[20], (data[22:38], data[38:54])
    else:
        return None
    is_syn = protocol == _TCP and len(data) > at + 13 and data[at + 13] & (_SYN | _ACK) == _SYN
    return ends if is_syn else None


def _event(kind: str, sighting: Sighting, guest: str) -> Event:
    """A sighting as an event."""
    fields = {"guest": guest, "site": sighting.site, "via": "frame", "uncertainty_ms": CAPTURE_UNCERTAINTY_MS}
    source = f"capture {sighting.node}-{sighting.interface}"
    return Event(sighting.mono_ns, sighting.wall_ns, source, kind, fields)
