"""RLOC-probing: an ITR asks the locators that it uses for the mapping they have (RFC 9301 §7.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from testbed.lisp.actions import CONTROL_PORT, Action, Address, Forwarding, Prefix, SendControl, emit
from testbed.lisp.map_cache import MapCache
from testbed.lisp.wire import (
    EidPrefix,
    EidRecordFlag,
    MapReply,
    MapRequest,
    MapRequestFlag,
    RequestedEid,
)

#: The timer is jittered by up to this share of the interval, either way (RFC 9301 §7.1).
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe that was sent and not answered."""

    eid: Prefix
    rloc: Address
    sent_ns: int


class RlocProber:
    """Probes every locator of every mapping in the cache, once an interval.

    Args:
        rloc: of this ITR.
        cache: whose mappings are probed.
        random64: gives 64 random bits.
        interval_ns: between rounds; 0 = never.
    """

    def __init__(self, rloc: Address, cache: MapCache, random64: Callable[[], int], interval_ns: int) -> None:
        self._rloc, self._cache, self._random64, self._interval_ns = rloc, cache, random64, interval_ns
        self._deadline: int | None = None
        self._open: dict[int, Probe] = {}

    def start(self, now: int) -> None:
        """Begin with the rounds."""
        if self._interval_ns:
            self._deadline = now + self._jittered()

    def next_deadline(self) -> int | None:
        """When the next round is due."""
        return self._deadline

    def handle_timer(self, now: int) -> list[Action]:
        """Send a round of probes, if it is due; those of the last that nobody answered are reported."""
        if self._deadline is None or now < self._deadline:
            return []
        self._deadline = now + self._jittered()
        actions: list[Action] = [
            emit("rloc_probe_unanswered", eid=probe.eid, peer=probe.rloc) for probe in self._open.values()
        ]
        self._open.clear()
        for entry in self._cache:
            if entry.forwarding is not Forwarding.REMOTE:
                continue
            for locator in entry.locators:
                nonce = self._random64()
                self._open[nonce] = Probe(entry.eid, locator.rloc, now)
                # Never encapsulated, never to the mapping system (§7.1); a refresh has no source EID (§5.2).
                request = MapRequest(
                    nonce,
                    (self._rloc,),
                    (RequestedEid(EidPrefix(entry.eid)),),
                    flags=MapRequestFlag.PROBE,
                )
                actions.append(SendControl(request.encode(), locator.rloc, CONTROL_PORT))
                actions.append(emit("rloc_probe_sent", eid=entry.eid, peer=locator.rloc, nonce=hex(nonce)))
        return actions

    def answered(self, reply: MapReply, peer: Address, now: int) -> tuple[Probe | None, list[Action]]:
        """A Map-Reply with the probe-bit.

        Returns the probe that it answers, or None if it is to be dropped, and what to say of it.
        """
        authoritative = all(record.flags & EidRecordFlag.AUTHORITATIVE for record in reply.records)
        probe = self._open.pop(reply.nonce, None) if authoritative else None
        if probe is None:  # RFC 9301 §5.4: without the A-bit it must be discarded silently
            return None, []
        return probe, [
            emit(
                "rloc_probe_answered", mono_ns=now, eid=probe.eid, peer=peer, nonce=hex(reply.nonce),
                rtt_ms=(now - probe.sent_ns) / 1e6,
            )
        ]  # fmt: skip

    def _jittered(self) -> int:
        share = (self._random64() % 2001 - 1000) / 1000  # -1 … 1
        return round(self._interval_ns * (1 + JITTER * share))
