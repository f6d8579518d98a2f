"""Packets that wait for their mapping: bounded for each EID and in all, and none is lost uncounted."""

from __future__ import annotations

from collections import Counter, deque

from testbed.lisp.actions import Address, Prefix


class HeldPackets:
    """Inner packets by destination, the oldest first.

    Args:
        per_eid: at most so many for one destination; the oldest go first.
        total: at most so many in all; then nothing more is taken.
        counters: of the ITR; every packet that is dropped counts there.
    """

    def __init__(self, per_eid: int, total: int, counters: Counter[str]) -> None:
        self._per_eid, self._total, self._counters = per_eid, total, counters
        self._packets: dict[Address, deque[bytes]] = {}
        self._count = 0

    def hold(self, destination: Address, packet: bytes) -> None:
        """Keep a packet until its destination is resolved or given up."""
        if self._count - (len(self._packets.get(destination, ())) >= self._per_eid) >= self._total:
            self._counters["held_packets_total_reached"] += 1
            return
        held = self._packets.setdefault(destination, deque())
        held.append(packet)
        self._count += 1
        if len(held) > self._per_eid:
            held.popleft()
            self._count -= 1
            self._counters["held_packets_overflowed"] += 1

    def take(self, destination: Address) -> list[bytes]:
        """Everything held for one destination, which is not held any more."""
        packets = list(self._packets.pop(destination, ()))
        self._count -= len(packets)
        return packets

    def destinations(self, eid: Prefix) -> list[Address]:
        """The destinations in a prefix for which packets are held."""
        if eid.prefixlen == eid.max_prefixlen:
            return [eid.network_address] if eid.network_address in self._packets else []
        return [destination for destination in self._packets if destination in eid]

    def drop(self, eid: Prefix, reason: str) -> None:
        """Drop everything held for a prefix, and count it under a reason."""
        for destination in self.destinations(eid):
            self._counters[reason] += len(self.take(destination))

    def inspect(self) -> dict[str, int]:
        """How many for whom."""
        return {str(destination): len(packets) for destination, packets in self._packets.items()}
