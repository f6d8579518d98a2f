"""Sends Map-Replies: to an ITR-RLOC of the request, at the port that it came from (RFC 9301 §5.5)."""

from __future__ import annotations

from testbed.lisp.actions import MINUTE_NS, Action, Address, SendControl, emit
from testbed.lisp.map_cache import CacheEntry
from testbed.lisp.timing import RateLimiter
from testbed.lisp.wire import (
    Eid,
    EidPrefix,
    EidRecord,
    MapReply,
    MapReplyFlag,
    MapRequest,
    MapRequestFlag,
    RlocRecord,
)
from testbed.lisp.wire.codes import with_flag


class Replier:
    """Answers Map-Requests, at most one per ITR-RLOC in an interval (RFC 9301 §5.4).

    Probes of a locator are one question for each mapping (§7.1), so their answers are limited for each, and apart.

    Args:
        rloc: of the sender.
        interval_ns: of the limit; 0 switches it off.
        flags: of every reply.
    """

    def __init__(self, rloc: Address, interval_ns: int, flags: MapReplyFlag = MapReplyFlag.NONE) -> None:
        self._rloc, self._flags = rloc, flags
        self._limit: RateLimiter[tuple[Address, Eid | None]] = RateLimiter(interval_ns)

    def reply(
        self, request: MapRequest, records: tuple[EidRecord, ...], peer: Address, port: int, now: int
    ) -> list[Action]:
        """Answer a request with these records.

        Args:
            request: what is answered; its nonce comes back.
            records: the mappings, the one asked for first.
            peer: where the request came from; said in the event only.
            port: UDP source port of the request (the inner one, if it was encapsulated).
            now: nanoseconds.

        A request without a usable ITR-RLOC is dropped (RFC 9301 §5.3).
        """
        itr_rloc = itr_rloc_for(request, self._rloc)
        if itr_rloc is None:
            return [emit("control_dropped", message="map-request", reason="no ITR-RLOC", peer=peer)]
        probe = MapRequestFlag.PROBE in request.flags
        if not self._limit.allow((itr_rloc, records[0].eid if probe else None), now):
            return [
                emit(
                    "control_dropped", message="map-request", reason="rate limit", peer=itr_rloc,
                    eid=records[0].eid, limiter="map_reply_interval_s",
                )
            ]  # fmt: skip
        self._limit.forget_before(now)
        reply = MapReply(request.nonce, records, with_flag(self._flags, MapReplyFlag.PROBE, on=probe))
        actions: list[Action] = [SendControl(reply.encode(), itr_rloc, port)]
        for record in records:
            rlocs = [locator.rloc for locator in record.locators]
            actions.append(
                emit(
                    "map_reply_sent", eid=record.eid, peer=itr_rloc, nonce=hex(request.nonce),
                    rloc=rlocs[0] if rlocs else None, ttl_minutes=record.ttl_minutes,
                    action=None if rlocs else int(record.action),
                )
            )  # fmt: skip
        return actions


def itr_rloc_for(request: MapRequest, rloc: Address) -> Address | None:
    """The ITR-RLOC that a reply from `rloc` goes to: the first of its own family, or None."""
    for each in request.itr_rlocs:
        if isinstance(each, Address) and each.version == rloc.version:
            return each
    return None


def forwarded_record(eid: EidPrefix, entry: CacheEntry, now: int) -> EidRecord:
    """A cached mapping of an EID as a record: not authoritative, and with the minutes that are left of it."""
    minutes = max(1, (entry.expires_ns - now) // MINUTE_NS)
    locators = tuple(RlocRecord(each.rloc, each.priority, each.weight) for each in entry.locators)
    return EidRecord(eid, minutes, locators, map_version=entry.map_version)
