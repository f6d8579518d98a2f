"""Locator-Status-Bits: which locators of our site are up, and what other sites say of theirs (RFC 9300 §5.3, §10)."""

from __future__ import annotations

from testbed.lisp.actions import Action, Address, SetLocatorStatus, emit
from testbed.lisp.config import XtrConfig
from testbed.lisp.inputs import LocatorStatusSeen, SiteLocatorChanged
from testbed.lisp.map_cache import CacheEntry, MapCache
from testbed.lisp.reachability import Cause, Reachability
from testbed.lisp.registrar import Registrar
from testbed.lisp.rloc_prober import RlocProber
from testbed.lisp.wire import LocatorFlag

#: The field's width without an instance-ID; a mapping's further locators have no bit.
BITS = 32


class LocatorStatus:
    """Both halves of it: our bits, and what arriving ones do.

    Args:
        config: of the xTR.
        registrar: whose records have the order in which the bits are counted.
        cache: mappings that others' bits are about.
        reachability: is told of locators that are said to be down.
        prober: asks them.
    """

    def __init__(
        self, config: XtrConfig, registrar: Registrar, cache: MapCache, reachability: Reachability, prober: RlocProber
    ) -> None:
        self._config, self._registrar, self._cache = config, registrar, cache
        self._reachability, self._prober = reachability, prober
        self._option = config.options.locator_status_bits
        self._said: int | None = None

    def ours(self) -> int:
        """The bits of our site: of a locator that the operator calls down, or that does not answer us, it is 0."""
        return sum(
            1 << ordinal
            for ordinal, locator in enumerate(self._registrar.locators()[:BITS])
            if LocatorFlag.REACHABLE in locator.flags
            and isinstance(locator.rloc, Address)
            and self._reachability.since(locator.rloc, Cause.RLOC_PROBE) is None
        )

    def update(self) -> list[Action]:
        """Tell the data plane, if something has changed."""
        if self._option == "none" or (bits := self.ours()) == self._said:
            return []
        self._said = bits
        return [SetLocatorStatus(bits), emit("locator_status_set", bits=f"{bits:b}")]

    def changed(self, event: SiteLocatorChanged, now: int) -> list[Action]:
        """The operator says that a locator of ours is up or down: register that, and say it in data packets."""
        return self._registrar.set_reachable(event.rloc, event.up, now) + self.update()

    def seen(self, event: LocatorStatusSeen, now: int) -> list[Action]:
        """A packet's bits are news.

        They count only if the packet comes from a locator of the mapping that we have: another xTR would
        count its bits by another mapping (RFC 9300 §13.1 has it wait for five minutes after a change).
        """
        entry = self._cache.lookup(event.eid, now)
        if self._option == "none" or entry is None or event.peer not in entry.listed:
            return []
        actions: list[Action] = [
            emit(
                "locator_status_seen", mono_ns=event.mono_ns, eid=entry.eid, peer=event.peer,
                bits=f"{event.bits & (1 << len(entry.listed)) - 1:b}",
            )
        ]  # fmt: skip
        for ordinal, rloc in enumerate(entry.listed[:BITS]):
            if rloc is not None and any(each.rloc == rloc for each in entry.locators):
                actions += self._said_of(entry, rloc, bool(event.bits >> ordinal & 1), now)
        return actions

    def _said_of(self, entry: CacheEntry, rloc: Address, up: bool, now: int) -> list[Action]:
        if self._option == "trust":
            change = self._reachability.regain if up else self._reachability.lose
            return change(rloc, Cause.LOCATOR_STATUS, now, entry.eid)
        # §5.1: verified by another way to find out. A locator that is what its site says needs no question.
        down = self._reachability.since(rloc, Cause.RLOC_PROBE) is not None
        return self._prober.verify(entry.eid, rloc, now) if up is down else []
