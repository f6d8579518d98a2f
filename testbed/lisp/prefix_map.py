"""Values by (instance-ID, prefix) with longest-prefix match: one dict per prefix length."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

from testbed.lisp.actions import Address, Prefix, host_prefix

V = TypeVar("V")


class PrefixMap(Generic[V]):
    """A mapping from prefixes to values; look-ups go from the longest length present to the shortest.

    With at most 33 (129) lengths a look-up is a handful of dict probes, which is enough for a
    control plane; packets are the data plane's.
    """

    def __init__(self) -> None:
        #: (instance-ID, IP version) → prefix length → network address as an integer → (prefix, value)
        self._tables: dict[tuple[int, int], dict[int, dict[int, tuple[Prefix, V]]]] = {}
        #: (instance-ID, IP version, prefix length) → its network addresses in order; made when first needed.
        self._ordered: dict[tuple[int, int, int], list[int]] = {}

    def set(self, prefix: Prefix, value: V, instance_id: int = 0) -> None:
        """Store the value of exactly this prefix."""
        lengths = self._tables.setdefault((instance_id, prefix.version), {})
        table = lengths.setdefault(prefix.prefixlen, {})
        number = int(prefix.network_address)
        ordered = self._ordered.get((instance_id, prefix.version, prefix.prefixlen))
        if ordered is not None and number not in table:
            insort(ordered, number)
        table[number] = (prefix, value)

    def get(self, prefix: Prefix, instance_id: int = 0) -> V | None:
        """The value of exactly this prefix, or None."""
        lengths = self._tables.get((instance_id, prefix.version), {})
        found = lengths.get(prefix.prefixlen, {}).get(int(prefix.network_address))
        return found[1] if found else None

    def pop(self, prefix: Prefix, instance_id: int = 0) -> V | None:
        """Remove exactly this prefix and return its value, or None if it was not there."""
        lengths = self._tables.get((instance_id, prefix.version), {})
        table = lengths.get(prefix.prefixlen, {})
        number = int(prefix.network_address)
        found = table.pop(number, None)
        ordered = self._ordered.get((instance_id, prefix.version, prefix.prefixlen))
        if ordered is not None and found is not None:
            del ordered[bisect_left(ordered, number)]
        if not table:
            lengths.pop(prefix.prefixlen, None)
        return found[1] if found else None

    def matches(self, address: Address, instance_id: int = 0) -> Iterator[tuple[Prefix, V]]:
        """Every prefix that holds an address, the longest first."""
        lengths = self._tables.get((instance_id, address.version), {})
        bits = address.max_prefixlen
        number = int(address)
        for length in sorted(lengths, reverse=True):
            network = number >> (bits - length) << (bits - length)
            found = lengths[length].get(network)
            if found is not None:
                yield found

    def covering(self, prefix: Prefix, instance_id: int = 0) -> Iterator[tuple[Prefix, V]]:
        """Every prefix that holds the whole of `prefix` (itself too), the longest first."""
        for found, value in self.matches(prefix.network_address, instance_id):
            if found.prefixlen <= prefix.prefixlen:
                yield found, value

    def inside(self, prefix: Prefix, instance_id: int = 0) -> Iterator[tuple[Prefix, V]]:
        """Every prefix longer than `prefix` and within it, in order of address and length."""
        lengths = self._tables.get((instance_id, prefix.version), {})
        found = []
        for length, table in lengths.items():
            if length > prefix.prefixlen:
                ordered, start, end = self._range(prefix, length, instance_id)
                found += [(number, length, table[number]) for number in ordered[start:end]]
        for _, _, item in sorted(found, key=lambda row: row[:2]):
            yield item

    def overlapping(self, prefix: Prefix, instance_id: int = 0) -> Iterator[tuple[Prefix, V]]:
        """Every prefix that holds `prefix`, is it or is within it."""
        yield from self.covering(prefix, instance_id)
        yield from self.inside(prefix, instance_id)

    def hole(self, address: Address, within: Prefix, instance_id: int = 0) -> Prefix:
        """The largest prefix in `within` that holds an address and overlaps nothing (RFC 9301 §8.3).

        Args:
            address: in no stored prefix.
            within: how far to widen it.
            instance_id: of the table.
        """
        lengths = self._tables.get((instance_id, address.version), {})
        hole = host_prefix(address)
        while hole.prefixlen > within.prefixlen:
            wider = hole.supernet()
            for length in lengths:
                if length >= wider.prefixlen:
                    _, start, end = self._range(wider, length, instance_id)
                    if start < end:
                        return hole
            hole = wider
        return hole

    def _range(self, prefix: Prefix, length: int, instance_id: int) -> tuple[list[int], int, int]:
        """The network addresses of a length in order, and from where to where they are in a prefix."""
        place = (instance_id, prefix.version, length)
        ordered = self._ordered.get(place)
        if ordered is None:
            table = self._tables.get((instance_id, prefix.version), {}).get(length, {})
            ordered = self._ordered[place] = sorted(table)
        first, last = int(prefix.network_address), int(prefix.broadcast_address)
        return ordered, bisect_left(ordered, first), bisect_right(ordered, last)

    def items(self) -> Iterator[tuple[int, Prefix, V]]:
        """(instance-ID, prefix, value) of everything, in a stable order."""
        for (instance_id, _), lengths in sorted(self._tables.items()):
            for length in sorted(lengths):
                for number in sorted(lengths[length]):
                    prefix, value = lengths[length][number]
                    yield instance_id, prefix, value

    def __len__(self) -> int:
        return sum(len(table) for lengths in self._tables.values() for table in lengths.values())


def uncovered_prefix(address: Address, known: list[Prefix]) -> Prefix:
    """The largest prefix that holds `address` and touches none of the known prefixes (RFC 9301 §8.4).

    A negative reply with it lets the ITR cache one entry for the whole hole.
    """
    same = [prefix for prefix in known if prefix.version == address.version]
    best = host_prefix(address)
    while best.prefixlen > 0:
        wider = best.supernet()
        if any(wider.overlaps(prefix) for prefix in same):
            break
        best = wider
    return best
