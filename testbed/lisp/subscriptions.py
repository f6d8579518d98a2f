"""The ITR's side of PubSub: nonces of subscriptions, and which publications are new (RFC 9437 §5, §6)."""

from __future__ import annotations

from collections.abc import Callable

from testbed.lisp.actions import Prefix


class Subscriptions:
    """What this ITR subscribed to.

    Args:
        random64: gives 64 random bits.
    """

    def __init__(self, random64: Callable[[], int]) -> None:
        self._random64 = random64
        #: The last nonce of each prefix, sent or received: the next request takes the one after it.
        self._nonces: dict[Prefix, int] = {}
        #: Prefixes whose subscription the Map-Server has acknowledged.
        self._active: set[Prefix] = set()

    def next_nonce(self, eid: Prefix) -> int:
        """The nonce of a subscription request: random at first, then one more each time (RFC 9437 §5)."""
        known = self._nonces.get(eid)
        # From the lower half, so that it never comes to an end.
        self._nonces[eid] = self._random64() >> 1 if known is None else known + 1
        return self._nonces[eid]

    def acknowledged(self, eid: Prefix, nonce: int) -> None:
        """The Map-Server confirmed a subscription under the nonce of the request."""
        self._active.add(eid)
        self._nonces[eid] = max(nonce, self._nonces.get(eid, 0))

    def covering(self, eid: Prefix) -> list[Prefix]:
        """The active subscriptions that a mapping belongs to."""
        return [each for each in self._active if each.overlaps(eid)]

    def accept(self, eid: Prefix, nonce: int) -> Prefix | None:
        """Take the nonce of a publication; the subscription it is under, or None if it is not new.

        If a mapping is under several subscriptions, the nonce says which one is meant: each counts
        from a random number of its own, so only one is just below it.
        """
        newer = [each for each in self.covering(eid) if nonce > self._nonces[each]]
        if not newer:
            return None
        meant = min(newer, key=lambda each: nonce - self._nonces[each])
        self._nonces[meant] = nonce
        return meant

    def ended(self, eid: Prefix, nonce: int) -> bool:
        """The Map-Server ended a subscription: under its last nonce (RFC 9437 §5); whether there was one."""
        if eid not in self._active or nonce != self._nonces[eid]:
            return False
        self._active.discard(eid)
        return True

    def forget(self, eid: Prefix) -> None:
        """The EID is local now; its nonce is kept for the next time."""
        self._active.discard(eid)

    def active(self) -> list[Prefix]:
        """Everything that is subscribed to."""
        return sorted(self._active, key=str)
