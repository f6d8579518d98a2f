"""One of t0 … t14: what sources say of it, the surest taken, the others kept beside it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from testbed.events import Event
from testbed.measure.model import NS_PER_MS, ms
from testbed.measure.uncertainty import uncertainty_of


@dataclass(frozen=True, slots=True)
class Other:
    """Another source's word on the same mark.

    Attributes:
        kind, source, via: of its event.
        mono_ns: what it says.
        difference_ms: its time minus the mark's.
        note: why it was not taken.
    """

    kind: str
    source: str
    via: str
    mono_ns: int
    difference_ms: float
    note: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One of t0 … t14.

    Attributes:
        label: "t2".
        kind, source, via: of the event that it was taken from; `via` is "" where only one way exists.
        mono_ns: CLOCK_MONOTONIC.
        uncertainty_ms: how far off the source may be; None if nobody has said.
        others: what other sources say.
    """

    label: str
    kind: str
    source: str
    via: str
    mono_ns: int
    uncertainty_ms: float | None
    others: tuple[Other, ...] = ()

    @property
    def uncertainty_ns(self) -> int:
        """The uncertainty for arithmetic: what nobody has said excuses nothing."""
        return round((self.uncertainty_ms or 0.0) * NS_PER_MS)

    @property
    def rank(self) -> tuple[float, int, str]:
        """What comes first is taken: the surest, then the earliest; of what nobody has said how sure it is, nothing."""
        unsure = math.inf if self.uncertainty_ms is None else self.uncertainty_ms
        return unsure, self.mono_ns, self.source


def with_other(mark: Mark, other: Mark, note: str) -> Mark:
    """The mark with another one kept beside it, with its difference."""
    word = Other(other.kind, other.source, other.via, other.mono_ns, ms(other.mono_ns - mark.mono_ns), note)
    return replace(mark, others=(*mark.others, word))


def choose(label: str, events: Sequence[Event], *, last: bool = False) -> Mark | None:
    """The mark that events of one kind make: the first (or last) word of each source, the surest taken.

    Between sources the smaller uncertainty wins, then the earlier time.
    """
    words: dict[tuple[str, str], Event] = {}
    for event in events:
        key = (event.source, str(event.fields.get("via", "")))
        if last or key not in words:
            words[key] = event
    marks = sorted(
        (mark_of(label, event) for event in words.values()),
        key=lambda mark: mark.rank,
    )
    if not marks:
        return None
    chosen = marks[0]
    for other in marks[1:]:
        chosen = with_other(chosen, other, "less certain, or later")
    return chosen


def mark_of(label: str, event: Event) -> Mark:
    """One event as a mark."""
    via = str(event.fields.get("via", ""))
    return Mark(label, event.kind, event.source, via, event.mono_ns, uncertainty_of(event))
