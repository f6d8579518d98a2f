"""Sends SMRs: "ask again, this mapping changed" (RFC 9301 §6.1)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from testbed.lisp.actions import CONTROL_PORT, SECOND_NS, Action, Address, SendControl, emit
from testbed.lisp.timing import RateLimiter, earliest
from testbed.lisp.wire import EidPrefix, InstanceId, MapRequest, MapRequestFlag, RequestedEid

#: Of every SMR. Made once: every operation on an `IntFlag` is slow.
_SMR = MapRequestFlag.SMR | MapRequestFlag.DONT_MAP_REPLY
#: Between two SMRs to an ITR that has not asked. RFC 9301 has no acknowledgement of an SMR and no repetition: this is
#: what it does with a Map-Notify that nobody acknowledges (§5.7), and no more than §6.1 allows.
SMR_REPETITION_NS = 3 * SECOND_NS
#: One, and three more, as a Map-Notify at that interval (§5.7).
SMR_TRANSMISSIONS = 4


class Solicitor:
    """Solicits Map-Requests, at most one per peer in an interval (RFC 9301 §6.1).

    Args:
        rloc: of the sender.
        random64: gives 64 random bits.
        interval_ns: of the limit; 0 switches it off.
    """

    def __init__(self, rloc: Address, random64: Callable[[], int], interval_ns: int) -> None:
        self._rloc = rloc
        self._random64 = random64
        self._limit: RateLimiter[Address] = RateLimiter(interval_ns)
        #: What the limit held back since the last SMR that went, and when, in that order: told with the next.
        self._held_back: OrderedDict[tuple[Address, EidPrefix], int] = OrderedDict()
        #: What goes as soon as it may, or again.
        self._deferred: dict[tuple[Address, EidPrefix], int] = {}
        #: How often each of these is still to go.
        self._left: dict[tuple[Address, EidPrefix], int] = {}

    def solicit(
        self, eid: EidPrefix, peer: Address, now: int, *, defer: bool = False, transmissions: int = 1
    ) -> list[Action]:
        """Send an SMR about an EID to a peer, unless one went within the interval.

        Args:
            eid: a single one, whose mapping changed.
            peer: locator of the ITR.
            now: nanoseconds.
            defer: send one that the limit holds back when the interval is over. Not for those that
                packets trigger: the next packet will, if it is still needed.
            transmissions: at most, if nobody says that the peer has `asked`.
        """
        if transmissions > 1:
            self._left[peer, eid] = transmissions
        return self._send(eid, peer, now, defer=defer)

    def asked(self, peer: Address, eid: EidPrefix) -> None:
        """A peer has asked for a mapping, whatever made it: nothing under that prefix need be solicited again.

        What the limit still holds back is news that it cannot have asked because of: another answer may be on its way.
        """
        answered = [each for each in self._deferred if each[0] == peer and each[1].is_within(eid)]
        for key in [each for each in answered if each not in self._held_back]:
            del self._deferred[key]
            self._left.pop(key, None)

    def _send(self, eid: EidPrefix, peer: Address, now: int, *, defer: bool) -> list[Action]:
        key = (peer, eid)
        if not self._limit.allow(peer, now):
            self._held_back[key] = now
            self._held_back.move_to_end(key)
            if defer:
                self._deferred[key] = self._limit.ready_at(peer, now)
            return []
        self._forget_before(now)
        limiter = "smr_interval_s" if self._held_back.pop(key, None) is not None else None
        self._deferred.pop(key, None)
        left = self._left.pop(key, 1) - 1
        if left:
            self._left[key], self._deferred[key] = left, now + SMR_REPETITION_NS
        nonce = self._random64()
        # The EID that moved is named both as the record and as the source EID: RFC 9301 has the
        # receiver look up "the EID in the SMR message", and peers differ in which field they read.
        address = eid.prefix.network_address
        message = MapRequest(
            nonce,
            (self._rloc,),
            (RequestedEid(eid),),
            source_eid=InstanceId(eid.instance_id, address) if eid.instance_id else address,
            flags=_SMR,
        )
        return [
            SendControl(message.encode(), peer, CONTROL_PORT),
            emit(
                "smr_sent", eid=address, instance_id=eid.instance_id or None, peer=peer, rloc=self._rloc,
                nonce=hex(nonce), limiter=limiter,
            ),
        ]  # fmt: skip

    def _forget_before(self, now: int) -> None:
        """Drop what is over, but nothing that was held back and still waits, however late its turn comes."""
        self._limit.forget_before(now)
        while self._held_back:
            key, held_ns = next(iter(self._held_back.items()))
            if key in self._deferred or held_ns + self._limit.interval_ns >= now:
                return
            del self._held_back[key]

    def next_deadline(self) -> int | None:
        """When an SMR that was deferred may go, or one is to be repeated."""
        return earliest(self._deferred.values())

    def handle_timer(self, now: int) -> list[Action]:
        """Send what was deferred and is due."""
        actions: list[Action] = []
        for (peer, eid), deadline in list(self._deferred.items()):
            if deadline <= now:
                actions += self._send(eid, peer, now, defer=True)
        return actions
