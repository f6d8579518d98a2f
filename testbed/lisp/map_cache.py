"""The ITR's map-cache: longest-prefix match, absolute lifetimes, negative entries.

RFC 9301 §5.4 and §5.5 say what a record means and what overlapping records do to each other;
RFC 9300 §5 says that a packet's passing never extends an entry.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace

from testbed.lisp.actions import Address, Forwarding, ForwardingLocator, Prefix
from testbed.lisp.prefix_map import PrefixMap


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One mapping as the ITR holds it.

    Attributes:
        eid: the prefix.
        forwarding: REMOTE, or what a negative entry says: DROP, NATIVE or RESOLVE.
        locators: of REMOTE, usable ones only, sorted by address.
        expires_ns: absolute; fixed when the entry is installed.
        instance_id: of the prefix.
        map_version: of the mapping, 0 = none (RFC 9302).
        installed_ns: when.
        gleaned: guessed from a packet, not said by the mapping system (RFC 9300 §9).
        listed: every locator of the record in its order, usable or not; None for what is no address.
    """

    eid: Prefix
    forwarding: Forwarding
    locators: tuple[ForwardingLocator, ...]
    expires_ns: int
    instance_id: int = 0
    map_version: int = 0
    installed_ns: int = 0
    listed: tuple[Address | None, ...] = ()
    gleaned: bool = False

    def same_mapping(self, other: CacheEntry | None) -> bool:
        """Whether a packet would fare the same under both, lifetimes aside."""
        return other is not None and (
            (self.forwarding, self.locators, self.map_version) == (other.forwarding, other.locators, other.map_version)
        )


class MapCache:
    """Mappings by instance-ID and prefix; entries end at their time and nowhere else.

    Args:
        instance_id: the instance that is meant where none is named.
    """

    def __init__(self, instance_id: int = 0) -> None:
        self._instance_id = instance_id
        self._entries: PrefixMap[CacheEntry] = PrefixMap()
        #: (expires_ns, serial, entry); rows of replaced entries stay until they come up.
        self._expiries: list[tuple[int, int, CacheEntry]] = []
        self._serial = 0

    def insert(self, entry: CacheEntry) -> CacheEntry:
        """Add or replace a mapping and return it as it was stored.

        A prefix that comes after more-specific ones lives no longer than the first of these to
        end, so that the set falls apart together (RFC 9301 §5.5).
        """
        inside = [value.expires_ns for _, value in self._entries.inside(entry.eid, entry.instance_id)]
        if inside and min(inside) < entry.expires_ns:
            entry = replace(entry, expires_ns=min(inside))
        self._entries.set(entry.eid, entry, entry.instance_id)
        self._serial += 1
        heapq.heappush(self._expiries, (entry.expires_ns, self._serial, entry))
        return entry

    def _meant(self, instance_id: int | None) -> int:
        return self._instance_id if instance_id is None else instance_id

    def remove_gleaned(self, eid: Prefix, instance_id: int | None = None) -> list[Prefix]:
        """Remove what was guessed of longer prefixes within one that is known now; returns these."""
        inside = [
            (prefix, entry) for prefix, entry in self._entries.inside(eid, self._meant(instance_id)) if entry.gleaned
        ]
        for prefix, _ in inside:
            self._entries.pop(prefix, self._meant(instance_id))
        return [prefix for prefix, _ in inside]

    def lookup(self, eid: Address, now: int, instance_id: int | None = None) -> CacheEntry | None:
        """The longest live mapping that holds an EID, or None."""
        for _, entry in self._entries.matches(eid, self._meant(instance_id)):
            if entry.expires_ns > now:
                return entry
        return None

    def exact(self, eid: Prefix, instance_id: int | None = None) -> CacheEntry | None:
        """The mapping of exactly this prefix, or None."""
        return self._entries.get(eid, self._meant(instance_id))

    def inside(self, eid: Prefix, instance_id: int | None = None) -> list[CacheEntry]:
        """The mappings of more-specific prefixes within one."""
        return [entry for _, entry in self._entries.inside(eid, self._meant(instance_id))]

    def remove(self, eid: Prefix, instance_id: int | None = None) -> CacheEntry | None:
        """Remove the mapping of exactly this prefix and return it."""
        return self._entries.pop(eid, self._meant(instance_id))

    def expire(self, now: int) -> list[CacheEntry]:
        """Remove and return what has ended by `now`, in order of its end."""
        ended = []
        while self._expiries and self._expiries[0][0] <= now:
            _, _, entry = heapq.heappop(self._expiries)
            if self._entries.get(entry.eid, entry.instance_id) is entry:
                self._entries.pop(entry.eid, entry.instance_id)
                ended.append(entry)
        return ended

    def next_deadline(self) -> int | None:
        """When the next entry ends, or None."""
        while self._expiries:
            expires_ns, _, entry = self._expiries[0]
            if self._entries.get(entry.eid, entry.instance_id) is entry:
                return expires_ns
            heapq.heappop(self._expiries)
        return None

    def __iter__(self) -> Iterator[CacheEntry]:
        return (entry for _, _, entry in self._entries.items())

    def __len__(self) -> int:
        return len(self._entries)
