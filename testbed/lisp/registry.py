"""The Map-Server's registrations: by instance-ID and prefix, each with an end (RFC 9301 §8.2, §8.3)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from testbed.lisp.actions import Address
from testbed.lisp.config import SiteConfig
from testbed.lisp.ownership import Claimant
from testbed.lisp.prefix_map import PrefixMap
from testbed.lisp.wire import EidPrefix, EidRecord


@dataclass(frozen=True, slots=True)
class Registration:
    """A mapping that an ETR registered.

    Attributes:
        eid: the prefix.
        owner: the xTR.
        site: whose xTR it is.
        rloc: where its Map-Registers come from, and Map-Notifies go.
        record: the mapping, locators sorted.
        proxy: the ETR wants us to answer for it (P-bit).
        nonce: of the last Map-Register.
        registered_ns: when this owner's stay began.
        expires_ns: when it ends without a refresh.
    """

    eid: EidPrefix
    owner: Claimant
    site: SiteConfig
    rloc: Address
    record: EidRecord
    proxy: bool
    nonce: int
    registered_ns: int
    expires_ns: int


class Registry:
    """Registrations by instance-ID and prefix; a look-up never returns one that has ended."""

    def __init__(self) -> None:
        self._registrations: PrefixMap[Registration] = PrefixMap()
        self._expiries: list[tuple[int, int, Registration]] = []
        self._serial = 0

    def put(self, registration: Registration) -> None:
        """Add or replace the registration of a prefix."""
        self._registrations.set(registration.eid.prefix, registration, registration.eid.instance_id)
        self._serial += 1
        heapq.heappush(self._expiries, (registration.expires_ns, self._serial, registration))

    def get(self, eid: EidPrefix) -> Registration | None:
        """The registration of exactly this prefix."""
        return self._registrations.get(eid.prefix, eid.instance_id)

    def remove(self, eid: EidPrefix) -> None:
        """Remove the registration of exactly this prefix."""
        self._registrations.pop(eid.prefix, eid.instance_id)

    def best(self, eid: EidPrefix) -> Registration | None:
        """The longest registered prefix that holds all of `eid`."""
        return next((found for _, found in self._registrations.covering(eid.prefix, eid.instance_id)), None)

    def around(self, eid: EidPrefix) -> Registration | None:
        """The longest registered prefix that holds `eid` and more."""
        return next(
            (found for _, found in self._registrations.covering(eid.prefix, eid.instance_id) if found.eid != eid), None
        )

    def inside(self, eid: EidPrefix) -> list[Registration]:
        """Registrations of longer prefixes within `eid`."""
        return [found for _, found in self._registrations.inside(eid.prefix, eid.instance_id)]

    def hole(self, address: Address, within: EidPrefix) -> EidPrefix:
        """The largest prefix in `within` that holds an unregistered address and touches nothing registered."""
        found = self._registrations.hole(address, within.prefix, within.instance_id)
        return EidPrefix(found, within.instance_id)

    def expire(self, now: int) -> list[Registration]:
        """Remove and return what was not refreshed in time."""
        ended = []
        while self._expiries and self._expiries[0][0] <= now:
            _, _, registration = heapq.heappop(self._expiries)
            if self.get(registration.eid) is registration:
                self.remove(registration.eid)
                ended.append(registration)
        return ended

    def next_deadline(self) -> int | None:
        """When the first registration ends."""
        while self._expiries:
            expires_ns, _, registration = self._expiries[0]
            if self.get(registration.eid) is registration:
                return expires_ns
            heapq.heappop(self._expiries)
        return None

    def __iter__(self) -> Iterator[Registration]:
        return (registration for _, _, registration in self._registrations.items())
