"""Rate limits and retransmission delays, as data that a test can read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from testbed.lisp.actions import SECOND_NS

K = TypeVar("K", bound=Hashable)


class RateLimiter(Generic[K]):
    """At most one per key and interval; the caller says in its event when it was held back.

    Args:
        interval_ns: shortest time between two of one key; 0 switches the limit off.
    """

    def __init__(self, interval_ns: int) -> None:
        self.interval_ns = interval_ns
        #: In the order of their times, so that what is over is in front.
        self._last_ns: OrderedDict[K, int] = OrderedDict()

    def allow(self, key: K, now: int) -> bool:
        """Whether one may go now; if so, it counts."""
        if not self.interval_ns:  # nothing is kept, so nothing is looked up
            return True
        if now < self.ready_at(key, now):
            return False
        self._last_ns[key] = now
        self._last_ns.move_to_end(key)
        return True

    def ready_at(self, key: K, now: int) -> int:
        """The earliest time from `now` on at which one of this key may go."""
        if not self.interval_ns:
            return now
        last = self._last_ns.get(key)
        return now if last is None else max(now, last + self.interval_ns)

    def forget_before(self, now: int) -> None:
        """Drop keys whose interval is over; they limit nothing any more."""
        while self._last_ns and next(iter(self._last_ns.values())) + self.interval_ns <= now:
            self._last_ns.popitem(last=False)

    def __len__(self) -> int:
        return len(self._last_ns)


def register_delays() -> Iterator[int]:
    """Delays before each retransmission of a Map-Register: 1 s doubling to 1 minute (RFC 9301 §5.7)."""
    delay_ns = SECOND_NS
    while True:
        yield delay_ns
        delay_ns = min(2 * delay_ns, 60 * SECOND_NS)


def notify_delays() -> Iterator[int]:
    """Delays of an unsolicited Map-Notify: three times 3 s, then 6, 12, 24 s (RFC 9301 §5.7).

    The last value is how long the last transmission waits for its acknowledgement.
    """
    yield from (3 * SECOND_NS, 3 * SECOND_NS, 3 * SECOND_NS)
    yield from (6 * SECOND_NS, 12 * SECOND_NS, 24 * SECOND_NS)
    yield 24 * SECOND_NS


#: RFC 9301 §5.3: after so many retransmissions without an answer the sender waits 30 s.
MAX_REQUEST_RETRANSMISSIONS = 10


def request_delays() -> Iterator[int]:
    """Delays of a Map-Request: 1 s doubling to 8 s, ten times, then 30 s of silence (RFC 9301 §5.3).

    The RFC sets the floor (one a second per EID-Prefix), the number and the pause after it; the
    doubling below is this implementation's.
    """
    for exponent in range(MAX_REQUEST_RETRANSMISSIONS):
        yield min(SECOND_NS << exponent, 8 * SECOND_NS)
    yield 30 * SECOND_NS


def earliest(deadlines: Iterable[int | None]) -> int | None:
    """The first of some deadlines, or None if there is none."""
    return min((deadline for deadline in deadlines if deadline is not None), default=None)
