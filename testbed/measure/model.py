"""What the measurement is made of: probes, windows, who is who in a migration. Pure data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from testbed.events import Event

#: Stands for "none" in an int64 column of times: CLOCK_MONOTONIC is never negative.
NEVER = -1

NS_PER_MS = 1_000_000

Int64s = NDArray[np.int64]
Mask = NDArray[np.bool_]


def ms(ns: float) -> float:
    """Nanoseconds as milliseconds, to the microsecond (what a clock shared by processes is good for)."""
    return round(ns / NS_PER_MS, 3)


class Interval(NamedTuple):
    """A stretch of CLOCK_MONOTONIC, both ends in nanoseconds; empty if `end_ns` <= `start_ns`."""

    start_ns: int
    end_ns: int

    @property
    def length_ns(self) -> int:
        """How long it is; 0 if empty."""
        return max(0, self.end_ns - self.start_ns)

    def clip(self, other: Interval) -> Interval:
        """The part of it inside another one; may be empty."""
        return Interval(max(self.start_ns, other.start_ns), min(self.end_ns, other.end_ns))

    def overlaps(self, other: Interval) -> bool:
        """Whether the two have a moment in common; touching ends count."""
        return self.start_ns <= other.end_ns and other.start_ns <= self.end_ns


class Probe(NamedTuple):
    """One row of a probe log (docs/reference/interfaces.md, "Probes").

    `seq` is None for one that was due while its sender was suspended, and so never got a number.
    """

    seq: int | None
    scheduled_ns: int
    sent_ns: int | None
    received_ns: int | None
    replies: int
    kernel_sent_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ProbeSeries:
    """The probes of one flow in one direction, in the order in which they were due.

    Attributes:
        flow: "icmp", "udp".
        direction: "to-guest" (the correspondent asks) or "from-guest".
        seq, scheduled_ns, sent_ns, received_ns, replies, kernel_sent_ns: columns of one length; NEVER in
            `sent_ns` is a probe that was due and not sent, in `received_ns` one without reply, in
            `kernel_sent_ns` one of which the kernel did not say when the device got it, in `seq` one that
            could not be sent because its sender was suspended.
        captured: made of captures (`testbed.measure.captured`), its sender having kept no log.
    """

    flow: str
    direction: str
    seq: Int64s
    scheduled_ns: Int64s
    sent_ns: Int64s
    received_ns: Int64s
    replies: Int64s
    kernel_sent_ns: Int64s
    captured: bool = False

    @classmethod
    def of(cls, flow: str, direction: str, probes: Iterable[Probe], *, captured: bool = False) -> ProbeSeries:
        """Put rows into columns, sorted by when they were due."""
        rows = sorted(probes, key=lambda probe: (probe.scheduled_ns, NEVER if probe.seq is None else probe.seq))

        def column(values: Iterable[int | None]) -> Int64s:
            return np.array([NEVER if value is None else value for value in values], dtype=np.int64)

        return cls(
            flow,
            direction,
            column(row.seq for row in rows),
            column(row.scheduled_ns for row in rows),
            column(row.sent_ns for row in rows),
            column(row.received_ns for row in rows),
            column(row.replies for row in rows),
            column(row.kernel_sent_ns for row in rows),
            captured,
        )

    def __len__(self) -> int:
        return len(self.seq)

    def name(self, eid: str) -> str:
        """How reports name it for a guest with this EID."""
        return flow_name(self.flow, self.direction, eid)

    @property
    def was_sent(self) -> Mask:
        """Which probes left at all."""
        sent: Mask = self.sent_ns != NEVER
        return sent

    @property
    def unsendable(self) -> Mask:
        """Which probes were due while their sender was suspended."""
        suspended: Mask = self.seq == NEVER
        return suspended

    @property
    def was_answered(self) -> Mask:
        """Which probes got a reply."""
        answered: Mask = self.was_sent & (self.received_ns != NEVER)
        return answered

    def rtt_ns(self) -> Int64s:
        """Round-trip times of the answered probes, in the order sent."""
        answered = self.was_answered
        return self.received_ns[answered] - self.sent_ns[answered]

    def moments_ns(self) -> Int64s:
        """When each probe was sent or, if it never was, due."""
        return np.where(self.was_sent, self.sent_ns, self.scheduled_ns)

    def where(self, mask: Mask) -> ProbeSeries:
        """The rows that a mask selects."""
        return replace(
            self,
            seq=self.seq[mask],
            scheduled_ns=self.scheduled_ns[mask],
            sent_ns=self.sent_ns[mask],
            received_ns=self.received_ns[mask],
            replies=self.replies[mask],
            kernel_sent_ns=self.kernel_sent_ns[mask],
        )

    def within(self, window: Interval) -> ProbeSeries:
        """The probes sent (or, if never sent, due) inside a window, its end excluded."""
        moment = self.moments_ns()
        return self.where((moment >= window.start_ns) & (moment < window.end_ns))


@dataclass(frozen=True, slots=True)
class Migration:
    """Who is who in one migration: enough to tell its events from everybody else's.

    Attributes:
        index: the how-manieth of the run, from 0.
        guest, eid, mac: the VM that moves; `eid` without prefix length, `mac` may be "".
        source_site, destination_site: names of the sites.
        source_xtr, destination_xtr: their xTRs' nodes.
        source_rloc, destination_rloc: their xTRs' locators.
        map_server: the mapping system's node.
        correspondent: the node that talks to the guest.
        correspondent_itr: the xTR of its site, whose map-cache the experiment is about.
        mechanism: what tells that ITR ("smr-old-xtr", "pubsub", …).
        window: from t0 to the end of what belongs to it (settle window, or the next migration).
        baseline: the window before t0 that must be clean; None if there was none.
        warm_up: kept and shown, not counted in the statistics.
        ended_ok: what `migration_ended` said; None if it never came.
        settled: whether its settle window was waited to its end.
        error: its error text.
        failed_checks: what was not as it must be after it: names of checks.
        verification: what was looked at after it: `checks` (name → bool), and as evidence `mapping` (RLOCs),
            `placement` (`before`, `after`: host → what runs there), `identity` (`before`, `after`).
        has_precopy: whether memory is copied before the suspension; not of an emulated guest.
        instance_id: of the EID: the same address in another instance is somebody else's.
    """

    index: int
    guest: str
    eid: str
    mac: str
    source_site: str
    destination_site: str
    source_xtr: str
    destination_xtr: str
    source_rloc: str
    destination_rloc: str
    map_server: str
    correspondent: str
    correspondent_itr: str
    mechanism: str
    window: Interval
    baseline: Interval | None = None
    warm_up: bool = False
    settled: bool = True
    ended_ok: bool | None = None
    error: str = ""
    failed_checks: tuple[str, ...] = ()
    verification: Mapping[str, Any] | None = None
    has_precopy: bool = True
    instance_id: int = 0

    def concerns(self, event: Event) -> bool:
        """Whether an event of LISP speaks of the migrating EID."""
        same_instance = event.fields.get("instance_id", 0) == self.instance_id
        return same_instance and same_address(event.fields.get("eid"), self.eid)


def same_address(value: Any, address: str) -> bool:
    """Whether an event's `eid` or `rloc` is this address, with or without a host prefix length.

    A covering prefix is not the address: "192.168.0.0/24" changing says nothing about one EID.
    """
    text, _, length = str(value).partition("/")
    try:
        found, wanted = ip_address(text), ip_address(address)
    except ValueError:
        return str(value) == address
    return found == wanted and length in ("", str(found.max_prefixlen))


def flow_name(flow: str, direction: str, eid: str) -> str:
    """How reports name a flow: "icmp to-guest"; what is `icmp` in logs is ICMPv6 (RFC 4443) towards an IPv6 EID."""
    protocol = "icmpv6" if flow == "icmp" and ip_address(eid).version == 6 else flow
    return f"{protocol} {direction}"
