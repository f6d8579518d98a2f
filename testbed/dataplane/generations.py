"""Which set of locators an entry has had when, so that the first packet to a new one is announced once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from testbed.dataplane.model import Address, Locator

#: Generations whose first packet may still be on its way in the ring buffer.
REMEMBERED = 4096


@dataclass(slots=True)
class Generation:
    """The locators that an entry got at one moment, and the first of those that it had before."""

    locators: tuple[Locator, ...]
    old_rloc: Address | None
    announced: bool = False


class Generations:
    """Numbers of generations, from 1 on; 0 is an entry without locators."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, Generation] = OrderedDict()
        self._last = 0

    def after(self, present: int, locators: tuple[Locator, ...]) -> int:
        """The number of these locators where those of `present` were: the same if they are the same."""
        if not locators:
            return 0
        before = self._known.get(present)
        if before is not None and rlocs_of(before.locators) == rlocs_of(locators):
            return present
        self._last += 1
        self._known[self._last] = Generation(locators, before.locators[0].rloc if before is not None else None)
        return self._last

    def has_nothing_to_announce(self, number: int) -> bool:
        """Whether its first packet was announced, or nobody would know of what."""
        known = self._known.get(number)
        return known is None or known.announced

    def announce(self, number: int) -> Generation | None:
        """The generation whose first packet was sent; None if that has been said, or it is forgotten."""
        known = self._known.get(number)
        if known is None or known.announced:
            return None
        known.announced = True
        return known

    def are_many(self, entries: int) -> bool:
        """Whether it is time to forget some, with so many entries."""
        return len(self._known) > REMEMBERED + entries

    def forget(self, used: AbstractSet[int]) -> None:
        """Drop the oldest that no entry uses, down to half of what is remembered."""
        for number in list(self._known):
            if len(self._known) <= REMEMBERED // 2 + len(used):
                return
            if number not in used:
                del self._known[number]


def rlocs_of(locators: tuple[Locator, ...]) -> frozenset[Address]:
    """The addresses of locators, whatever their weights."""
    return frozenset(locator.rloc for locator in locators)
