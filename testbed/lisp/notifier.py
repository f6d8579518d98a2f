"""Unsolicited Map-Notifies, repeated until acknowledged (RFC 9301 §5.7)."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from testbed.lisp.actions import CONTROL_PORT, Action, Address, SendControl, emit
from testbed.lisp.sealing import Secret
from testbed.lisp.timing import notify_delays
from testbed.lisp.wire import EidRecord, MapNotify, MapNotifyAck


@dataclass(slots=True)
class PendingNotify:
    """One Map-Notify that nobody has acknowledged yet.

    Attributes:
        message: what is sent, the same octets each time.
        secret: under which it is sealed and its acknowledgement opened.
        destination: where it goes.
        port: its UDP port there.
        reason: what it is for, in its events.
        deadline: of the next transmission, or of giving up.
        delays: of what follows.
        transmissions: so far.
    """

    message: MapNotify
    secret: Secret
    destination: Address
    reason: str
    port: int = CONTROL_PORT
    deadline: int = 0
    delays: Iterator[int] = field(default_factory=notify_delays)
    transmissions: int = 0


@dataclass(slots=True)
class _Place:
    """What an acknowledgement from one address under one nonce may answer.

    Attributes:
        keys: of what waits for it.
        over: what was said there and waits no more, replaced or acknowledged: repetitions answer that.
    """

    keys: dict[Hashable, None] = field(default_factory=dict)
    over: set[tuple[EidRecord, ...]] = field(default_factory=set)


class Notifier:
    """Sends Map-Notifies that want an acknowledgement; a new one under a key replaces the old."""

    def __init__(self) -> None:
        self._pending: dict[Hashable, PendingNotify] = {}
        #: (nonce, destination) → what an acknowledgement from there under that nonce may answer.
        self._answered_by: dict[tuple[int, Address], _Place] = {}
        #: (deadline, serial, key, notify); rows of what was sent again or is over stay until they come up.
        self._due: list[tuple[int, int, Hashable, PendingNotify]] = []
        self._serial = 0

    def notify(
        self,
        key: Hashable,
        nonce: int,
        records: tuple[EidRecord, ...],
        *,
        secret: Secret,
        destination: Address,
        reason: str,
        now: int,
        port: int = CONTROL_PORT,
    ) -> list[Action]:
        """Send a Map-Notify and keep sending it.

        Args:
            key: whom and what it is about.
            nonce: by which the acknowledgement is known.
            records: the mappings.
            secret: shared with the receiver.
            destination: of the datagrams.
            reason: for the events ("departure", "publication").
            now: nanoseconds.
            port: UDP port there.
        """
        pending = PendingNotify(MapNotify(nonce, records), secret, destination, reason, port)
        place = self._answered_by.get((nonce, destination), _Place())
        old = self._pending.get(key)
        self.cancel(key)
        if not place.keys and old is not None and (old.message.nonce, old.destination) == (nonce, destination):
            place.over.add(old.message.records)  # the acknowledgement of this is none of what replaces it
        self._pending[key] = pending
        self._answered_by.setdefault((nonce, destination), place).keys[key] = None
        actions = self._transmit(pending, now)
        self._schedule(key, pending)
        return actions

    def notify_once(
        self,
        nonce: int,
        records: tuple[EidRecord, ...],
        *,
        secret: Secret,
        destination: Address,
        reason: str,
        port: int = CONTROL_PORT,
    ) -> list[Action]:
        """Send a Map-Notify that is not repeated."""
        return self._transmit(PendingNotify(MapNotify(nonce, records), secret, destination, reason, port), 0)

    def acknowledge(self, ack: MapNotifyAck, payload: bytes, source: Address) -> Hashable | None:
        """Stop what a Map-Notify-Ack answers; its key, or None if it answers nothing or is not genuine."""
        place = self._answered_by.get((ack.nonce, source))
        key = None if place is None else self._meant(place, ack)
        if key is None or not self._pending[key].secret.vouches_for(payload):
            return None
        self.cancel(key)
        return key

    def _meant(self, place: _Place, ack: MapNotifyAck) -> Hashable | None:
        """Which notify an acknowledgement is of: it has a copy (RFC 9301 §5.7). Without one, of the first."""
        if len(place.keys) > 1 or place.over:
            for key in place.keys:
                if self._pending[key].message.records == ack.records:
                    return key
            if ack.records in place.over:
                return None
        return next(iter(place.keys))

    def cancel(self, key: Hashable) -> None:
        """Stop what is not true or not needed any more."""
        pending = self._pending.pop(key, None)
        if pending is not None:
            where = (pending.message.nonce, pending.destination)
            place = self._answered_by[where]
            del place.keys[key]
            if place.keys:
                place.over.add(pending.message.records)
            else:
                del self._answered_by[where]

    def next_deadline(self) -> int | None:
        """When the next transmission is due."""
        while self._due:
            deadline, _, key, pending = self._due[0]
            if self._pending.get(key) is pending and pending.deadline == deadline:
                return deadline
            heapq.heappop(self._due)
        return None

    def handle_timer(self, now: int) -> tuple[list[Hashable], list[Action]]:
        """Repeat what is due; the keys of what was given up, and what to do."""
        abandoned: list[Hashable] = []
        actions: list[Action] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            _, _, key, pending = heapq.heappop(self._due)
            actions += self._transmit(pending, now)
            if pending.deadline > now:
                self._schedule(key, pending)
            else:
                self.cancel(key)
                abandoned.append(key)
                actions.append(
                    emit(
                        "map_notify_abandoned", peer=pending.destination, reason=pending.reason,
                        nonce=hex(pending.message.nonce), transmissions=pending.transmissions,
                        eid=pending.message.records[0].eid,
                    )
                )  # fmt: skip
        return abandoned, actions

    def _schedule(self, key: Hashable, pending: PendingNotify) -> None:
        self._serial += 1
        heapq.heappush(self._due, (pending.deadline, self._serial, key, pending))

    def inspect(self, now: int) -> list[dict[str, Any]]:
        """What waits for an acknowledgement, for people."""
        return [
            {
                "peer": str(pending.destination),
                "reason": pending.reason,
                "eids": [str(record.eid) for record in pending.message.records],
                "transmissions": pending.transmissions,
                "next_s": round((pending.deadline - now) / 1e9, 3),
            }
            for pending in self._pending.values()
        ]

    @staticmethod
    def _transmit(pending: PendingNotify, now: int) -> list[Action]:
        delay = next(pending.delays, None)
        if delay is None:
            return []
        pending.deadline = now + delay
        pending.transmissions += 1
        sealing = pending.secret.sealing(pending.message)
        actions: list[Action] = [SendControl(sealing, pending.destination, pending.port)]
        for record in pending.message.records:
            actions.append(
                emit(
                    "map_notify_sent", eid=record.eid, peer=pending.destination, reason=pending.reason,
                    nonce=hex(pending.message.nonce), ttl_minutes=record.ttl_minutes,
                    rloc=record.locators[0].rloc if record.locators else None,
                    transmission=pending.transmissions,
                )
            )  # fmt: skip
        return actions
