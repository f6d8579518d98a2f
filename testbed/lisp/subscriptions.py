"""The ITR's side of PubSub: nonces of subscriptions, which publications are new, when to renew (RFC 9437 §5, §6)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from testbed.lisp.actions import Action, Prefix, SaveNonce
from testbed.lisp.nonces import LOWEST_SUBSCRIPTION_NONCE, NONCE_STEP, is_exhausted

#: The owner under which the highest nonce of all is stored (RFC 9437 §5 recommends to keep them).
NONCE_OWNER = "subscription"
#: Nonces of ended subscriptions that are kept one by one; of older ones, only the highest.
NONCES_KEPT = 4096
#: Ours begin in the lower half. A nonce far above was brought by a forged request (RFC 9437 §7): it spoils its own
#: prefix, and must not raise the floor for all others.
HIGHEST_FLOOR = 3 << 62


class Subscriptions:
    """What this ITR subscribed to.

    RFC 9437 gives a subscription no lifetime, and the Map-Server loses it in a restart: it is asked for again now and
    then, for as long as there is a mapping under it.

    Args:
        random64: gives 64 random bits.
        renew_ns: between two requests for one prefix; 0 = never.
        highest: nonce that was ever used, from persistent storage; None if that has none.
    """

    def __init__(self, random64: Callable[[], int], renew_ns: int, highest: int | None = None) -> None:
        self._random64, self._renew_ns = random64, renew_ns
        #: The last nonce of each prefix, sent or received: the next request takes the one after it.
        self._nonces: OrderedDict[Prefix, int] = OrderedDict()
        #: The highest nonce of those that are not kept: above it, a prefix's next is new to the Map-Server.
        self._floor = -1
        if highest is not None:
            self._floor = min(highest, HIGHEST_FLOOR) + NONCE_STEP  # above what was published while we were down
        self._highest = self._stored = highest or 0
        #: Prefixes whose subscription the Map-Server has acknowledged.
        self._active: set[Prefix] = set()
        #: When each prefix is asked for again, in that order.
        self._renewals: OrderedDict[Prefix, int] = OrderedDict()

    def next_nonce(self, eid: Prefix) -> int | None:
        """The nonce of a subscription request: random, then one more each time (RFC 9437 §5); None at the end."""
        known = self._nonces.get(eid)
        # From the lower half, so that it never comes to an end by itself; from the upper half of that, where no
        # Map-Register's nonce comes, since a Map-Server signs nothing near those for a request (docs/adr/0003, rule 8).
        nonce = max(LOWEST_SUBSCRIPTION_NONCE | self._random64() >> 2, self._floor + 1) if known is None else known + 1
        if is_exhausted(nonce):
            return None
        self._note(eid, nonce)
        return nonce

    def _note(self, eid: Prefix, nonce: int) -> None:
        self._nonces[eid] = nonce
        self._nonces.move_to_end(eid)
        if nonce <= HIGHEST_FLOOR:
            self._highest = max(self._highest, nonce)
        if len(self._nonces) > NONCES_KEPT + len(self._active):
            oldest = next(each for each in self._nonces if each not in self._active)
            let_go = self._nonces.pop(oldest)
            if let_go <= HIGHEST_FLOOR:
                self._floor = max(self._floor, let_go)

    def acknowledged(self, eid: Prefix, nonce: int, now: int) -> None:
        """The Map-Server confirmed a subscription under the nonce of the request."""
        self._active.add(eid)
        self._note(eid, max(nonce, self._nonces.get(eid, 0)))
        self.refused(eid, now)

    def refused(self, eid: Prefix, now: int) -> None:
        """A request was answered, if not with a subscription: the next is due in a while."""
        if self._renew_ns:
            self._renewals[eid] = now + self._renew_ns
            self._renewals.move_to_end(eid)

    def covering(self, eid: Prefix) -> list[Prefix]:
        """The active subscriptions that a mapping belongs to."""
        return [each for each in self._active if each.overlaps(eid)]

    def accept(self, eid: Prefix, nonce: int) -> Prefix | None:
        """Take the nonce of a publication; the subscription it is under, or None if it is not new.

        If a mapping is under several subscriptions, the nonce says which one is meant: each counts
        from a random number of its own, so only one is just below it.
        """
        newer = [each for each in self.covering(eid) if nonce > self._nonces[each] and not is_exhausted(nonce)]
        if not newer:
            return None
        meant = min(newer, key=lambda each: nonce - self._nonces[each])
        self._note(meant, nonce)
        return meant

    def store(self) -> list[Action]:
        """What is to be done before anything that was built with a new nonce leaves."""
        if self._highest == self._stored:
            return []
        self._stored = self._highest
        return [SaveNonce(NONCE_OWNER, self._highest)]

    def is_last(self, eid: Prefix, nonce: int) -> bool:
        """Whether a nonce is the last of a prefix: what comes under it answers a request of ours, perhaps again."""
        return self._nonces.get(eid) == nonce

    def ended(self, eid: Prefix, nonce: int) -> bool:
        """The Map-Server ended a subscription: under its last nonce (RFC 9437 §5); whether there was one.

        That is above our last if the publication which nobody acknowledged never came.
        """
        if eid not in self._active or nonce < self._nonces[eid]:
            return False
        self._note(eid, nonce)
        self._active.discard(eid)
        return True

    def forget(self, eid: Prefix) -> bool:
        """Want a prefix no more; its nonce is kept for the next time. Whether the Map-Server would publish it."""
        self._renewals.pop(eid, None)
        was_active = eid in self._active
        self._active.discard(eid)
        return was_active

    def wanted(self, eid: Prefix) -> list[Prefix]:
        """The prefixes overlapping one that are subscribed to or will be asked for again."""
        return [each for each in {*self._active, *self._renewals} if each.overlaps(eid)]

    def next_deadline(self) -> int | None:
        """When the next one is to be asked for again."""
        return next(iter(self._renewals.values()), None)

    def due(self, now: int) -> list[Prefix]:
        """The prefixes to be asked for again; each is so again when it is answered."""
        due = []
        while self._renewals and next(iter(self._renewals.values())) <= now:
            due.append(self._renewals.popitem(last=False)[0])
        return due

    def active(self) -> list[Prefix]:
        """Everything that is subscribed to."""
        return sorted(self._active, key=str)
