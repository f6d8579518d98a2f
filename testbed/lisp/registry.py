"""The Map-Server's registrations: by instance-ID and prefix, each with an end (RFC 9301 §8.2, §8.3)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from testbed.lisp.actions import MINUTE_NS, Address, eid_fields
from testbed.lisp.config import SiteConfig
from testbed.lisp.ownership import Claimant
from testbed.lisp.prefix_map import PrefixMap
from testbed.lisp.wire import EidPrefix, EidRecord, MapRegister, MapRegisterFlag, in_wire_order


@dataclass(frozen=True, slots=True)
class Part:
    """What one xTR registered of a prefix.

    Attributes:
        owner: the xTR.
        rloc: where its Map-Registers come from, and Map-Notifies go.
        record: its mapping, locators sorted.
        proxy: it wants us to answer for it (P-bit).
        notify: it wants Map-Notifies (M-bit).
        nonce: of its last Map-Register.
        expires_ns: when it ends without a refresh.
    """

    owner: Claimant
    rloc: Address
    record: EidRecord
    proxy: bool
    notify: bool
    nonce: int
    expires_ns: int

    @classmethod
    def of(
        cls, record: EidRecord, message: MapRegister, owner: Claimant, rloc: Address, now: int, lifetime_ns: int
    ) -> Part:
        """A record of a Map-Register as its sender's part; `lifetime_ns` unless it wants its TTL to count (T-bit)."""
        flags = message.flags
        if MapRegisterFlag.USE_TTL in flags:
            lifetime_ns = record.ttl_minutes * MINUTE_NS
        return cls(
            owner,
            rloc,
            record if len(record.locators) < 2 else replace(record, locators=in_wire_order(record.locators)),
            proxy=MapRegisterFlag.PROXY_REPLY in flags,
            notify=MapRegisterFlag.WANT_MAP_NOTIFY in flags,
            nonce=message.nonce,
            expires_ns=now + lifetime_ns,
        )


@dataclass(frozen=True, slots=True)
class Registration:
    """A mapping that ETRs of a site registered.

    Attributes:
        eid: the prefix.
        site: whose it is.
        parts: one an xTR, the one heard last at the end; several only if `merged`.
        record: the mapping, locators sorted.
        merged: the xTRs ask for their parts to be merged (RFC 9301 §5.6, merge-request bit).
        registered_ns: when this owner's stay began.
        owners: all xTRs that have registered it.
        expires_ns: when the first part of it ends without a refresh.
    """

    eid: EidPrefix
    site: SiteConfig
    parts: tuple[Part, ...]
    record: EidRecord
    merged: bool
    registered_ns: int
    owners: tuple[Claimant, ...] = field(init=False, compare=False)
    expires_ns: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "owners", tuple([part.owner for part in self.parts]))
        object.__setattr__(self, "expires_ns", min([part.expires_ns for part in self.parts]))

    def mapped(self, record: EidRecord) -> Registration:
        """The same registration of another mapping."""
        return Registration(self.eid, self.site, self.parts, record, self.merged, self.registered_ns)

    @property
    def owner(self) -> Claimant:
        """The xTR that was heard last."""
        return self.parts[-1].owner

    @property
    def rloc(self) -> Address:
        """Where requests are forwarded to: whoever was heard last is the likeliest to be there."""
        return self.parts[-1].rloc

    @property
    def proxy(self) -> bool:
        """Whether any of the ETRs wants us to answer (RFC 9301 §8.3)."""
        return any(part.proxy for part in self.parts)

    @property
    def nonce(self) -> int:
        """Of the last Map-Register."""
        return self.parts[-1].nonce

    def inspect(self, now: int) -> dict[str, Any]:
        """It, for people."""
        return {
            **eid_fields(self.eid),
            "site": self.site.name,
            "owner": str(self.owner),
            "locators": [str(locator.rloc) for locator in self.record.locators],
            "ttl_minutes": self.record.ttl_minutes,
            "map_version": self.record.map_version,
            "merged": [str(owner) for owner in sorted(self.owners, key=str)] if self.merged else [],
            "proxy": self.proxy,
            "nonce": hex(self.nonce),
            "registered_s_ago": round((now - self.registered_ns) / 1e9, 3),
            "remaining_s": round((self.expires_ns - now) / 1e9, 3),
        }


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
        """Remove and return what was not refreshed in time, whole if only a part of it was not."""
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
