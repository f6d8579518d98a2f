"""What a component says happened: the event, its kinds, and its form as one line of JSON. Pure.

An event's `mono_ns` is CLOCK_MONOTONIC of the machine, which every namespace of a lab shares, so
events of different nodes are comparable without correction (design: measurement, rule 1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

RESERVED = ("mono_ns", "wall_ns", "source", "kind")

#: The timeline of one migration, t0 … t14: (label, event kind, which node says it).
TIMELINE: tuple[tuple[str, str, str], ...] = (
    ("t0", "migration_requested", "the orchestrator"),
    ("t1", "precopy_started", "the source host"),
    ("t2", "guest_suspended", "the source host"),
    ("t3", "guest_resumed", "the destination host"),
    ("t4", "guest_first_frame", "a capture on the destination site's LAN"),
    ("t5", "eid_detected", "the destination xTR"),
    ("t6", "map_register_sent", "the destination xTR"),
    ("t7", "map_notify_received", "the destination xTR"),
    ("t8", "mapping_changed", "the Map-Server"),
    ("t9", "eid_departed", "the source xTR"),
    ("t10", "map_request_sent", "the correspondent's ITR"),
    ("t11", "map_reply_received", "the correspondent's ITR (or publication_received)"),
    ("t12", "map_cache_changed", "the correspondent's ITR"),
    ("t13", "first_packet_new_rloc", "the correspondent's data plane"),
    ("t14", "first_answered_probe", "the prober"),
)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        mono_ns: CLOCK_MONOTONIC, nanoseconds.
        wall_ns: CLOCK_REALTIME, nanoseconds since the epoch; for people, never for arithmetic.
        source: the node or component that says it ("xtr-a", "xen-b", "lab").
        kind: snake_case, from the docs' table of events.
        fields: anything else, JSON-serialisable.
    """

    mono_ns: int
    wall_ns: int
    source: str
    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON, without the newline."""
        head = {"mono_ns": self.mono_ns, "wall_ns": self.wall_ns, "source": self.source, "kind": self.kind}
        return json.dumps({**head, **self.fields}, separators=(",", ":"), default=str)

    @classmethod
    def from_json(cls, line: str) -> Event:
        """Read what `to_json` wrote; raises ValueError or KeyError on anything else."""
        raw = json.loads(line)
        extra = {key: value for key, value in raw.items() if key not in RESERVED}
        return cls(int(raw["mono_ns"]), int(raw["wall_ns"]), str(raw["source"]), str(raw["kind"]), extra)


def parse_events(lines: Iterable[str]) -> Iterator[Event]:
    """Events of a JSONL text in the order of `mono_ns`; a torn last line (a killed writer) is left out."""
    parsed = []
    for line in lines:
        if line.strip():
            try:
                parsed.append(Event.from_json(line))
            except (ValueError, KeyError):
                continue
    return iter(sorted(parsed, key=lambda event: event.mono_ns))
