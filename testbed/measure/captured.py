"""Make the probe log of a guest that keeps none, from what captures saw of its probes. Pure.

A guest that is suspended cannot say when it sent what: its clock stands still with it. So its prober only numbers
its probes, and the log is told by the captures at the taps of its hosts, on the machine's clock: a probe is sent
when its request passes a tap, and answered when a reply passes the tap behind which the guest runs then.

Two things are not seen there and follow from the numbers, which count turns of the guest's own clock. When a probe
was due: turns are one interval apart, and nobody sends before a turn, so the least delay of the turns around one
tells when it was. Which turns there would have been while the guest was suspended: its clock did not count them, so
these probes have no number. They are the ones that could not be sent.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

import numpy as np
from scipy.ndimage import minimum_filter1d

from testbed.measure.frames import Frame, source_mac
from testbed.measure.model import Int64s, Probe, ProbeSeries
from testbed.measure.probepackets import probe_packet

#: The direction of probes that a guest sends.
DIRECTION = "from-guest"
#: So far around a turn the least delay is looked for. A guest's clock may drift from the machine's by 100 ppm, and
#: makes half a millisecond of it; one that was starved for longer would pass for a later schedule.
SCHEDULE_WINDOW_NS = 5_000_000_000
#: A guest that was not heard for so long at a log's end, and for three intervals, is down.
SILENT_NS = 1_000_000_000

#: (node, interface) of a capture.
Place = tuple[str, str]


class Passing(NamedTuple):
    """A frame at a tap."""

    mono_ns: int
    place: Place


@dataclass(slots=True)
class Passed:
    """What of one flow passed the taps: each probe's request, the first time, and all of its replies."""

    requests: dict[int, Passing] = field(default_factory=dict)
    replies: dict[int, list[Passing]] = field(default_factory=dict)


class Whereabouts:
    """Behind which tap a guest was when, by its own frames.

    Args:
        seen: every frame that it sent.
        suspended_ns: when the hypervisor said that it was suspended, and it did not move.
    """

    def __init__(self, seen: Iterable[Passing], suspended_ns: Iterable[int]) -> None:
        self._seen = sorted(seen)
        self._times = [passing.mono_ns for passing in self._seen]
        self._suspended_ns = sorted(suspended_ns)

    def suspended_between(self, earlier: Passing, later: Passing) -> bool:
        """Whether it was suspended between two of its frames: it went on elsewhere, or the hypervisor said so."""
        return earlier.place != later.place or self._said(earlier.mono_ns, later.mono_ns)

    def can_take(self, reply: Passing) -> bool:
        """Whether it ran behind a tap when a reply passed it.

        A reply between its last frame at one tap and its first at the next was not taken: where the guest left, its
        LAN still gets what is sent to it.
        """
        after = bisect_right(self._times, reply.mono_ns)
        if not after or self._seen[after - 1].place != reply.place:
            return False
        earlier = self._seen[after - 1]
        if after == len(self._seen):
            return not self._said(earlier.mono_ns, reply.mono_ns)
        return not self.suspended_between(earlier, self._seen[after])

    def _said(self, start_ns: int, end_ns: int) -> bool:
        """Whether the hypervisor spoke of a suspension in a stretch of time."""
        return bisect_right(self._suspended_ns, end_ns) > bisect_right(self._suspended_ns, start_ns)


class CapturedProbes:
    """Collects the probes of guests that keep no log.

    Attributes:
        strangers: probes that were left out because another program than the first had sent them: the guest was
            booted again.
    """

    def __init__(self, eids: Iterable[str], macs: Iterable[str], taps: Iterable[Place]) -> None:
        """Prepare for some guests.

        Args:
            eids: their addresses.
            macs: theirs, as "52:54:00:00:00:01".
            taps: the captures through which all of their frames go, and only theirs.
        """
        self._eids, self._taps = frozenset(ip_address(eid).packed for eid in eids), frozenset(taps)
        self._macs = {bytes.fromhex(mac.replace(":", "")) for mac in macs}
        self._passed: dict[str, Passed] = {}
        self._seen: list[Passing] = []
        self._sender: bytes | None = None
        self._end_ns = 0
        self.strangers = 0

    def see(self, frame: Frame, mono_ns: int) -> None:
        """Take a captured frame into account; frames may come in any order."""
        self._end_ns = max(self._end_ns, mono_ns)
        place = (frame.node, frame.interface)
        if place not in self._taps:
            return
        passing = Passing(mono_ns, place)
        if source_mac(frame.data) in self._macs:
            self._seen.append(passing)
        packet = probe_packet(frame.data, self._eids)
        if packet is None or packet.key.direction != DIRECTION:
            return
        self._sender = self._sender or packet.sender
        if packet.sender != self._sender:
            self.strangers += 1
            return
        passed, seq = self._passed.setdefault(packet.key.flow, Passed()), packet.key.seq
        if packet.is_request:
            passed.requests[seq] = min(passing, passed.requests.get(seq, passing))
        else:
            passed.replies.setdefault(seq, []).append(passing)

    def log(self, flow: str, interval_ns: int, suspended_ns: Iterable[int], end_ns: int | None) -> ProbeSeries:
        """The log of a flow; without any row if nothing of it was captured.

        Args:
            flow: "icmp" or "udp".
            interval_ns: of the guest's prober.
            suspended_ns: when the hypervisor said that the guest was suspended, and it did not move: a migration
                failed. Where it did, its frames tell that more sharply.
            end_ns: when the probing ended; None for the captures' end.
        """
        end_ns = self._end_ns if end_ns is None else min(end_ns, self._end_ns)
        passed = self._passed.get(flow, Passed())
        whereabouts = Whereabouts(self._seen, suspended_ns)
        return ProbeSeries.of(flow, DIRECTION, _rows(passed, whereabouts, interval_ns, end_ns), captured=True)


def _rows(passed: Passed, whereabouts: Whereabouts, interval_ns: int, end_ns: int) -> Iterator[Probe]:
    """Every probe of a log, those that were not sent among them."""
    requests = {seq: passing for seq, passing in sorted(passed.requests.items()) if passing.mono_ns < end_ns}
    previous_due_ns, last_sent_ns = None, 0
    for stretch in _stretches(requests, whereabouts):
        sent_ns = np.array([requests[seq].mono_ns for seq in stretch], dtype=np.int64)
        due_ns = schedule(np.array(stretch, dtype=np.int64), sent_ns, interval_ns)
        if previous_due_ns is not None:
            yield from _unsendable(previous_due_ns, int(due_ns[0]), interval_ns)
        following = stretch[0]
        for seq, due, sent in zip(stretch, due_ns.tolist(), sent_ns.tolist(), strict=True):
            for missed in range(following, seq):
                yield Probe(missed, due - (seq - missed) * interval_ns, None, None, 0)
            following = seq + 1
            taken = [reply.mono_ns for reply in passed.replies.get(seq, ()) if whereabouts.can_take(reply)]
            yield Probe(seq, due, sent, min(taken, default=None), len(taken))
        previous_due_ns, last_sent_ns = int(due_ns[-1]), int(sent_ns[-1])
    if previous_due_ns is not None and end_ns - last_sent_ns > max(SILENT_NS, 3 * interval_ns):
        yield from _unsendable(previous_due_ns, end_ns, interval_ns)


def _stretches(requests: Mapping[int, Passing], whereabouts: Whereabouts) -> Iterator[list[int]]:
    """The numbers of the probes that were sent, cut where the guest was suspended between two."""
    stretch: list[int] = []
    for seq, passing in requests.items():
        if stretch and whereabouts.suspended_between(requests[stretch[-1]], passing):
            yield stretch
            stretch = []
        stretch.append(seq)
    if stretch:
        yield stretch


def schedule(turns: Int64s, sent_ns: Int64s, interval_ns: int) -> Int64s:
    """When probes were due that were sent in one stretch without a suspension: not before any was sent.

    Args:
        turns: their numbers, rising.
        sent_ns: when they were sent.
        interval_ns: between two turns.
    """
    reach = max(1, SCHEDULE_WINDOW_NS // interval_ns)
    least_ns = minimum_filter1d(sent_ns - turns * interval_ns, 2 * reach + 1, mode="nearest")
    due_ns: Int64s = least_ns + turns * interval_ns
    return due_ns


def _unsendable(before_ns: int, after_ns: int, interval_ns: int) -> Iterator[Probe]:
    """The probes that were due between two on the machine's clock, while their sender's stood still."""
    number = round((after_ns - before_ns) / interval_ns) - 1
    return (Probe(None, before_ns + turn * interval_ns, None, None, 0) for turn in range(1, number + 1))
