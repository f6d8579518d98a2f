"""Which locators of the map-cache are down, by whose word, and what that does to the forwarding.

A mapping says what locators there are; whether they can be reached is not the mapping system's to say
(RFC 9300 §9, §10). What finds out says so here, and packets take the next best locator while one is down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from testbed.lisp.actions import Action, Address, ForwardingLocator, Prefix, emit
from testbed.lisp.map_cache import CacheEntry, MapCache


class Cause(Enum):
    """Who says that a locator is down."""

    RLOC_PROBE = "rloc-probe"  # it did not answer (RFC 9301 §7.1)
    ECHO_NONCE = "echo-nonce"  # it sends, but not the nonce that it was asked for (RFC 9300 §10.1)
    LOCATOR_STATUS = "locator-status-bits"  # its site says so, of one mapping (RFC 9300 §10)


class Reachability:
    """The locators that are down, and the forwarding entries without them.

    Args:
        cache: the mappings.
        program: makes the forwarding entry of a mapping.
        exhausted: what to do when the last locator of a mapping has gone down: the mapping may be old.
        fellows: the other locators of this site, which no mapping in the cache has.
    """

    def __init__(
        self,
        cache: MapCache,
        program: Callable[[CacheEntry], Action],
        exhausted: Callable[[Prefix, int], list[Action]],
        fellows: Iterable[Address] = (),
    ) -> None:
        self._cache, self._program, self._exhausted = cache, program, exhausted
        self._fellows = frozenset(fellows)
        #: (locator, the mapping that it is down in, None = every one) → who says so, and since when.
        self._down: dict[tuple[Address, Prefix | None], dict[Cause, int]] = {}

    def usable(self, entry: CacheEntry) -> tuple[ForwardingLocator, ...]:
        """The locators of a mapping that are not known to be down; all may be."""
        if not self._down:
            return entry.locators
        return tuple(each for each in entry.locators if not self.causes(each.rloc, entry.eid))

    def causes(self, rloc: Address, eid: Prefix) -> list[Cause]:
        """Who says that a locator of a mapping is down; nobody if it is up."""
        return [*self._down.get((rloc, None), ()), *self._down.get((rloc, eid), ())]

    def since(self, rloc: Address, cause: Cause) -> int | None:
        """Since when a locator is down by somebody's word in every mapping, or None."""
        return self._down.get((rloc, None), {}).get(cause)

    def lose(self, rloc: Address, cause: Cause, now: int, eid: Prefix | None = None) -> list[Action]:
        """A locator is down; packets take the next best one of each mapping, or are dropped if there is none.

        Args:
            rloc: the locator.
            cause: who says so.
            now: nanoseconds.
            eid: the only mapping that it is down in; None for all.
        """
        causes = self._down.setdefault((rloc, eid), {})
        if cause in causes:
            return []
        before = self._without(rloc, eid)
        causes[cause] = now
        after = self._without(rloc, eid)
        changed = [entry for prefix, entry in after.items() if prefix not in before]
        actions: list[Action] = [self._program(entry) for entry in changed]
        actions.append(emit("locator_down", rloc=rloc, cause=cause, eid=eid, mappings=len(changed)))
        for entry in changed:
            if not self.usable(entry):
                actions += self._exhausted(entry.eid, now)
        return actions

    def regain(self, rloc: Address, cause: Cause, now: int, eid: Prefix | None = None) -> list[Action]:
        """Whoever said that a locator was down says that it is up; it is used again if nobody else objects."""
        causes = self._down.get((rloc, eid), {})
        if cause not in causes:
            return []
        before = self._without(rloc, eid)
        since_ns = causes.pop(cause)
        if not causes:
            del self._down[rloc, eid]
        after = self._without(rloc, eid)
        changed = [entry for prefix, entry in before.items() if prefix not in after]
        actions: list[Action] = [self._program(entry) for entry in changed]
        actions.append(
            emit(
                "locator_up", rloc=rloc, cause=cause, eid=eid, mappings=len(changed),
                down_ms=(now - since_ns) / 1e6,
            )
        )  # fmt: skip
        return actions

    def inspect(self, entry: CacheEntry) -> list[dict[str, Any]]:
        """The locators of a mapping, for people."""
        return [
            {
                "rloc": str(each.rloc),
                "priority": each.priority,
                "weight": each.weight,
                "down": [cause.value for cause in self.causes(each.rloc, entry.eid)],
            }
            for each in entry.locators
        ]

    def prune(self) -> None:
        """Forget locators that no cached mapping has any more."""
        if not self._down:
            return
        present = {(locator.rloc, entry.eid) for entry in self._cache for locator in entry.locators}
        rlocs = self._fellows | {rloc for rloc, _ in present}
        self._down = {
            (rloc, eid): causes
            for (rloc, eid), causes in self._down.items()
            if ((rloc, eid) in present if eid is not None else rloc in rlocs)
        }

    def _without(self, rloc: Address, eid: Prefix | None) -> dict[Prefix, CacheEntry]:
        """The mappings, all or one, in which a locator is down."""
        entries = self._cache if eid is None else [each for each in (self._cache.exact(eid),) if each is not None]
        return {
            entry.eid: entry
            for entry in entries
            if any(locator.rloc == rloc for locator in entry.locators) and self.causes(rloc, entry.eid)
        }
