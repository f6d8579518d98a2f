"""Pick, among all events of a run, the ones that are t0 … t14 of one migration.

A run has many events of the same kind: refreshes, resolutions of other EIDs, other migrations. Each
mark is therefore bound to the migration's window, to the node that says it, to the EID and, where
it matters, to the destination's RLOC; and it comes after the mark that causes it. When several
sources saw the same thing all are kept, with their difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from testbed.events import TIMELINE, Event
from testbed.measure.marks import Mark, choose, mark_of, with_other
from testbed.measure.model import Migration, same_address

#: Kind of an event that a capture makes of a control message: `says` the kind that an agent's word on it has.
CAPTURED = "control_captured"

#: label → (kind, who says it), from the contract of events.
LABELS = {label: (kind, who) for label, kind, who in TIMELINE}


@dataclass(slots=True)
class Timeline:
    """The marks of one migration.

    Attributes:
        marks: by label, only those that were seen.
        missing: label → why there is none.
        entry_expired: whether the ITR's map-cache entry had expired before it asked (t10).
    """

    marks: dict[str, Mark] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    entry_expired: bool = False

    def at(self, label: str) -> int | None:
        """When a mark was, CLOCK_MONOTONIC in nanoseconds; None if it was not seen."""
        mark = self.marks.get(label)
        return None if mark is None else mark.mono_ns

    def origin(self) -> tuple[str, int]:
        """The label and time that the report counts from: t2, or t0 when no suspension was seen."""
        label = "t2" if "t2" in self.marks else "t0"
        return label, self.marks[label].mono_ns

    def put(self, label: str, mark: Mark | None, reason: str) -> None:
        """Note a mark, or why it is missing."""
        if mark is None:
            self.missing[label] = reason
        else:
            self.marks[label] = mark


#: What an ITR asks by and is answered by: an RLOC-probe is a Map-Request too (RFC 9301 §5.3, P-bit).
QUESTIONS, ANSWERS = ("map_request_sent", "rloc_probe_sent"), ("map_reply_received", "rloc_probe_answered")
#: What a capture calls a probe, its answer and a publication (a Map-Notify, RFC 9437).
IN_CAPTURES = {
    "rloc_probe_sent": "map_request_sent",
    "rloc_probe_answered": "map_reply_received",
    "publication_received": "map_notify_received",
}


#: Why an emulated guest has no t1.
NO_PRECOPY = "not applicable: an emulated guest has no memory to copy"


class _Finder:
    """Candidates for the marks of one migration among the events of its window."""

    def __init__(self, migration: Migration, events: Sequence[Event]) -> None:
        start_ns, end_ns = migration.window
        self.migration = migration
        self.events = [event for event in events if start_ns <= event.mono_ns < end_ns]

    def all(
        self,
        kinds: str | tuple[str, ...],
        *,
        source: str = "",
        after_ns: int | None = None,
        keep: Callable[[Event], bool] = lambda event: True,
    ) -> list[Event]:
        """Events of the kinds, in order, of one source (if given), not before `after_ns`."""
        wanted = (kinds,) if isinstance(kinds, str) else kinds
        return [
            event
            for event in self.events
            if event.kind in wanted
            and (not source or event.source == source)
            and (after_ns is None or event.mono_ns >= after_ns)
            and keep(event)
        ]

    def of_guest(self, event: Event) -> bool:
        """Whether an event speaks of the migrating guest, or of no guest in particular."""
        return bool(event.fields.get("guest", self.migration.guest) == self.migration.guest)

    def of_eid(self, event: Event) -> bool:
        """Whether an event of LISP speaks of the migrating EID."""
        return self.migration.concerns(event)

    def to_destination(self, event: Event) -> bool:
        """Whether an event of LISP maps the migrating EID to the destination's RLOC."""
        return self.of_eid(event) and same_address(event.fields.get("rloc"), self.migration.destination_rloc)


def build_timeline(migration: Migration, events: Sequence[Event]) -> Timeline:
    """Pick t0 … t13 of one migration (t14 comes from the probes, see `with_first_answer`).

    Args:
        migration: who is who, and the window.
        events: of the whole run, in the order of `mono_ns`, those derived from captures included.
    """
    find, timeline = _Finder(migration, events), Timeline()
    _hypervisor_marks(find, timeline)
    _mapping_marks(find, timeline)
    _correspondent_marks(find, timeline)
    return timeline


def with_first_answer(
    timeline: Timeline, answered_ns: int | None, source: str, reason: str, interval_ms: float
) -> Timeline:
    """Add t14, the first answer after the loss that the migration caused.

    Args:
        timeline: t0 … t13.
        answered_ns: CLOCK_MONOTONIC of the reply; None if there was none.
        source: the flow that it was seen in.
        reason: why there is none.
        interval_ms: of the probes: so much earlier may an answer have been possible.
    """
    mark = None
    if answered_ns is not None:
        mark = Mark("t14", LABELS["t14"][0], source, "probe", answered_ns, interval_ms)
    timeline.put("t14", mark, reason)
    return timeline


def _hypervisor_marks(find: _Finder, timeline: Timeline) -> None:
    """t0 … t4: what the orchestrator, the hosts and the captures on the sites' LANs say."""
    index = find.migration.index
    requested = find.all("migration_requested", keep=lambda e: e.fields.get("index", index) == index)
    timeline.put("t0", choose("t0", requested), "no migration_requested event")
    precopy = find.all("precopy_started", keep=find.of_guest)
    why = "no stream to the destination host was captured" if find.migration.has_precopy else NO_PRECOPY
    timeline.put("t1", choose("t1", precopy), why)

    suspended = find.all("guest_suspended", keep=find.of_guest)
    resumed = find.all("guest_resumed", keep=find.of_guest)
    first_frames = find.all("guest_first_frame", keep=find.of_guest)
    first_frame = choose("t4", first_frames)
    # Frames at the source after the first one at the destination are somebody's echo, not the guest.
    last_frames = find.all(
        "guest_last_frame",
        keep=lambda e: find.of_guest(e) and (first_frame is None or e.mono_ns <= first_frame.mono_ns),
    )
    timeline.put("t4", first_frame, "no frame of the guest was seen on the destination's LAN")
    timeline.put(
        "t2",
        _bounded_below(choose("t2", suspended), choose("t2", last_frames, last=True)),
        "neither a guest_suspended event nor a last frame at the source",
    )
    timeline.put(
        "t3",
        _bounded_above(choose("t3", resumed), first_frame),
        "neither a guest_resumed event nor a first frame at the destination",
    )


def _bounded_below(event: Mark | None, frame: Mark | None) -> Mark | None:
    """t2 of the hypervisor's event and the last frame: a guest that still sends is not suspended."""
    if event is None or frame is None:
        return event or frame
    if frame.mono_ns > event.mono_ns + event.uncertainty_ns + frame.uncertainty_ns:
        return with_other(frame, event, "the guest still sent frames after it")
    return with_other(event, frame, "the last frame only bounds the suspension from below")


def _bounded_above(event: Mark | None, frame: Mark | None) -> Mark | None:
    """t3 of the hypervisor's event and the first frame: a guest that has sent a frame is running."""
    if event is None or frame is None:
        return event or (None if frame is None else replace(frame, label="t3"))
    if frame.mono_ns < event.mono_ns - event.uncertainty_ns - frame.uncertainty_ns:
        return with_other(replace(frame, label="t3"), event, "it came after the guest's first frame")
    return with_other(event, frame, "the first frame only bounds the resumption from above")


def _mapping_marks(find: _Finder, timeline: Timeline) -> None:
    """t5 … t9: detection, registration, and the old site being told."""
    migration = find.migration
    xtr, t0 = migration.destination_xtr, timeline.at("t0")
    t5 = choose("t5", find.all("eid_detected", source=xtr, after_ns=t0, keep=find.of_eid))
    timeline.put("t5", _with_sighting(find, t5), f"{xtr} did not report the EID as detected")

    # A refresh left over from an earlier stay must not pass for the registration of this arrival.
    arrival_ns = t5.mono_ns if t5 else _first_known(timeline, "t4", "t3", "t2", "t0")
    registers = find.all("map_register_sent", source=xtr, after_ns=arrival_ns, keep=find.of_eid)
    t6 = choose("t6", registers)
    timeline.put("t6", _with_capture(find, t6), f"{xtr} sent no Map-Register for the EID")

    notifies = []
    if t6 is not None:
        nonces = {event.fields.get("nonce") for event in registers} - {None}
        notifies = find.all(
            "map_notify_received",
            source=xtr,
            after_ns=t6.mono_ns,
            keep=lambda e: find.of_eid(e) and (not nonces or e.fields.get("nonce", None) in nonces | {None}),
        )
    timeline.put(
        "t7", _with_capture(find, choose("t7", notifies)), f"{xtr} received no Map-Notify for its Map-Register"
    )

    changes = find.all("mapping_changed", source=migration.map_server, after_ns=t0, keep=find.to_destination)
    timeline.put(
        "t8",
        choose("t8", changes),
        f"{migration.map_server} did not report the EID mapped to {migration.destination_rloc}",
    )
    departed = find.all("eid_departed", source=migration.source_xtr, after_ns=t0, keep=find.of_eid)
    timeline.put("t9", choose("t9", departed), f"{migration.source_xtr} was not told that the EID left")


def _correspondent_marks(find: _Finder, timeline: Timeline) -> None:
    """t10 … t13: the correspondent's ITR asks, is answered, reprograms itself and uses the new RLOC."""
    migration = find.migration
    itr, t0 = migration.correspondent_itr, timeline.at("t0")
    changes = find.all("map_cache_changed", source=itr, after_ns=t0, keep=find.to_destination)
    t12 = choose("t12", changes)
    timeline.put("t12", t12, f"{itr} did not report its cache changed to {migration.destination_rloc}")
    used = find.all("first_packet_new_rloc", after_ns=t0, keep=find.to_destination)
    used = [event for event in used if event.source == itr or event.fields.get("via") == "frame"]
    timeline.put("t13", choose("t13", used), f"{itr} sent no packet to {migration.destination_rloc} for the EID")

    def is_news(event: Event) -> bool:
        """A reply or publication that does not name another RLOC than the destination's."""
        return find.of_eid(event) and ("rloc" not in event.fields or find.to_destination(event))

    answers = find.all((*ANSWERS, "publication_received"), source=itr, after_ns=t0, keep=is_news)
    if t12 is not None:
        # The change has one cause: the last news before it. Later ones are refreshes.
        answers = [event for event in answers if event.mono_ns <= t12.mono_ns][-1:]
    else:
        answers = [event for event in answers if "rloc" in event.fields]
    t11 = choose("t11", answers)
    timeline.put("t11", _with_capture(find, t11), f"{itr} received no Map-Reply or publication with the new RLOC")

    if t11 is not None and t11.kind == "publication_received":
        timeline.put("t10", None, "not applicable: the mapping was published, nobody had to ask")
        return
    asked = choose("t10", _asking(find, timeline))
    if asked is not None:
        expired = find.all("map_cache_expired", source=itr, after_ns=t0, keep=find.of_eid)
        timeline.entry_expired = any(event.mono_ns <= asked.mono_ns for event in expired)
    timeline.put("t10", _with_capture(find, asked), f"{itr} sent no Map-Request for the EID")


def _asking(find: _Finder, timeline: Timeline) -> list[Event]:
    """The Map-Requests of the resolution that t11 answers, its retransmissions included.

    They follow the suspension (before it nothing had changed) and the last answer that came before
    t11, which closed an earlier resolution.
    """
    itr, t11 = find.migration.correspondent_itr, timeline.at("t11")
    since = _first_known(timeline, "t2", "t0")
    requests = find.all(QUESTIONS, source=itr, after_ns=since, keep=find.of_eid)
    if t11 is None:
        return requests
    earlier = find.all(ANSWERS, source=itr, after_ns=since, keep=find.of_eid)
    closed_ns = max((event.mono_ns for event in earlier if event.mono_ns < t11), default=since)
    return [event for event in requests if closed_ns <= event.mono_ns <= t11]


def _first_known(timeline: Timeline, *labels: str) -> int:
    """The time of the first label that was seen; 0, the beginning of the clock, if none was."""
    for label in labels:
        moment = timeline.at(label)
        if moment is not None:
            return moment
    return 0


def _with_capture(find: _Finder, mark: Mark | None) -> Mark | None:
    """The mark of a control message with what its node's capture says of the same one, the surer of both taken."""
    if mark is None:
        return None
    nonces = {event.fields.get("nonce") for event in find.all(mark.kind, source=mark.source) if _is_of(event, mark)}
    says = IN_CAPTURES.get(mark.kind, mark.kind)
    twins = find.all(
        CAPTURED,
        keep=lambda e: (e.fields["says"], e.fields["node"]) == (says, mark.source) and e.fields["nonce"] in nonces,
    )
    if not twins:
        return mark
    nearest = min(twins, key=lambda event: abs(event.mono_ns - mark.mono_ns))  # the others are retransmissions
    twin = replace(mark_of(mark.label, nearest), kind=mark.kind)
    if (twin.uncertainty_ms or 0.0) < (math.inf if mark.uncertainty_ms is None else mark.uncertainty_ms):
        return with_other(twin, mark, "the agent's own word")
    return with_other(mark, twin, "the same message in a capture")


def _is_of(event: Event, mark: Mark) -> bool:
    return (event.kind, event.source, event.mono_ns) == (mark.kind, mark.source, mark.mono_ns)


def _with_sighting(find: _Finder, mark: Mark | None) -> Mark | None:
    """t5 with the arrival of the frame that showed the EID, which the kernel has stamped: it was detected after it."""
    for event in find.all("eid_detected") if mark is not None else ():
        if mark is not None and _is_of(event, mark) and "seen_ns" in event.fields:
            seen = replace(mark, via="kernel", mono_ns=int(event.fields["seen_ns"]))
            return with_other(mark, seen, "arrival of the frame that showed it")
    return mark
