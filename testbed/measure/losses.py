"""Find out of each probe where its request and its reply were seen last, and so what became of it. Pure.

The place at which it was seen last is the last hop that it is known to have passed: it was lost behind it,
or, of a request at the guest's LAN, the guest did not answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

from testbed.measure.frames import Frame
from testbed.measure.gaps import Gap, lost_in
from testbed.measure.model import ProbeSeries
from testbed.measure.probepackets import FLOWS, ProbeKey, probe_packet


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
        unlogged: directions whose probes no sender logged: whatever is seen of them was sent.
        fates: of every probe that was sent.
    """

    eids: frozenset[bytes]
    cores: Mapping[tuple[str, str], str] = field(default_factory=dict)
    unlogged: Collection[str] = ()
    fates: dict[ProbeKey, Fate] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        series: Iterable[ProbeSeries],
        eids: Iterable[str],
        cores: Mapping[tuple[str, str], str] | None = None,
        unlogged: Collection[str] = (),
    ) -> LossFinder:
        """Prepare for the probes of some logs, and for those of some directions that have none."""
        finder = cls(frozenset(ip_address(eid).packed for eid in eids), cores or {}, unlogged)
        for log in series:
            if log.flow in FLOWS:
                for seq in log.seq[log.was_sent]:
                    finder.fates[ProbeKey(log.flow, log.direction, int(seq))] = Fate()
        return finder

    def see(self, frame: Frame, mono_ns: int) -> None:
        """Take a captured frame into account; frames may come in any order."""
        packet = probe_packet(frame.data, self.eids)
        if packet is None:
            return
        if packet.key.direction in self.unlogged:
            self.fates.setdefault(packet.key, Fate())
        fate = self.fates.get(packet.key)
        if fate is None:
            return
        seen = Sighting(mono_ns, f"{frame.node}-{frame.interface}", frame.number)
        if packet.is_request:
            fate.request = seen if fate.request is None else max(fate.request, seen)
        else:
            fate.reply = seen if fate.reply is None else max(fate.reply, seen)
        carrier = self.cores.get((frame.node, frame.interface))
        is_towards_guest = packet.is_request == (packet.key.direction == "to-guest")
        if carrier and is_towards_guest and carrier not in fate.carriers:
            fate.carriers += (carrier,)


def lost_where(gap: Gap, series: ProbeSeries, fates: Mapping[ProbeKey, Fate]) -> dict[str, int]:
    """How many probes of a gap were lost where, the most frequent place first."""
    keys: Sequence[ProbeKey] = [ProbeKey(gap.flow, gap.direction, int(seq)) for seq in series.seq[lost_in(gap, series)]]
    places = Counter(fates[key].words for key in keys if key in fates)
    return dict(sorted(places.items(), key=lambda item: (-item[1], item[0])))
