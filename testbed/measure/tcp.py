"""What a migration did to a TCP connection: whether it lived, and how long it stalled. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from testbed.events import Event
from testbed.measure.model import Migration, ProbeSeries, ms
from testbed.measure.probepackets import PAYLOAD_OCTETS


@dataclass(frozen=True, slots=True)
class Connection:
    """A probed connection in a migration's window.

    Attributes:
        direction: who connected: "to-guest" is the correspondent.
        survived: whether it carried data throughout; None if it did not bring the last answers in time to say.
        longest_stall_ms: the longest time in which nothing came back, the end of the window being the end of a silence
            that none is known to have followed; None without an answer.
        bytes_in_order: that came back in the order sent, in the window.
        error: of the connection that broke; "" if none did.
    """

    direction: str
    survived: bool | None
    longest_stall_ms: float | None
    bytes_in_order: int
    error: str


def connection(series: ProbeSeries, migration: Migration, events: Sequence[Event]) -> Connection:
    """Judge a connection by its probe log and by what its prober said (`tcp_broken`).

    Args:
        series: the flow's log, baseline included, in which a probe is a message.
        migration: whose window counts.
        events: of the run.
    """
    window = migration.window
    inside = series.within(window)
    answered = inside.where(inside.was_answered)
    arrivals = np.sort(series.received_ns[series.was_answered])
    # A stall that began before the request to migrate is one of this migration's if it ended after it.
    first = max(0, int(np.searchsorted(arrivals, window.start_ns)) - 1)
    arrivals = arrivals[first : int(np.searchsorted(arrivals, window.end_ns))]
    broken = [
        event
        for event in events
        if event.kind == "tcp_broken"
        and event.fields.get("direction") == series.direction
        and window.start_ns <= event.mono_ns < window.end_ns
    ]
    survived: bool | None = not broken
    if not broken and (not len(answered) or answered.seq[-1] < _last_due(inside, window.end_ns)):
        survived = None
    if not survived and len(arrivals):
        arrivals = np.append(arrivals, window.end_ns)
    return Connection(
        direction=series.direction,
        survived=survived,
        longest_stall_ms=ms(int(np.diff(arrivals).max())) if len(arrivals) > 1 else None,
        bytes_in_order=len(answered) * PAYLOAD_OCTETS,
        error=str(broken[0].fields.get("error", "")) if broken else "",
    )


def longest_stall_ms(connections: Sequence[Connection]) -> float | None:
    """The longest stall of any; None without a connection, or where one is not known: it may be the longest."""
    stalls = [one.longest_stall_ms for one in connections if one.longest_stall_ms is not None]
    return max(stalls) if stalls and len(stalls) == len(connections) else None


def broken(connections: Sequence[Connection]) -> int | None:
    """How many broke; None without a connection, or if of one that has not broken it is not known."""
    outcomes = [one.survived for one in connections]
    return None if not outcomes or None in outcomes else outcomes.count(False)


def _last_due(inside: ProbeSeries, end_ns: int) -> int:
    """The last message that was sent a round trip and more before the window's end, so that it must be answered."""
    answered = inside.was_answered
    usual_ns = int(np.median(inside.rtt_ns())) if answered.any() else 0
    due = inside.seq[inside.was_sent & (inside.sent_ns < end_ns - 2 * usual_ns)]
    return int(due[-1]) if len(due) else -1
