"""Unsolicited Map-Notifies, repeated until acknowledged (RFC 9301 §5.7)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from testbed.lisp.actions import CONTROL_PORT, Action, Address, SendControl, emit
from testbed.lisp.sealing import Secret
from testbed.lisp.timing import earliest, notify_delays
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


class Notifier:
    """Sends Map-Notifies that want an acknowledgement; a new one under a key replaces the old."""

    def __init__(self) -> None:
        self._pending: dict[Hashable, PendingNotify] = {}

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
        self._pending[key] = pending
        return self._transmit(pending, now)

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
        for key, pending in self._pending.items():
            if pending.message.nonce == ack.nonce and pending.destination == source:
                if not pending.secret.vouches_for(payload):
                    return None
                del self._pending[key]
                return key
        return None

    def cancel(self, key: Hashable) -> None:
        """Stop what is not true or not needed any more."""
        self._pending.pop(key, None)

    def next_deadline(self) -> int | None:
        """When the next transmission is due."""
        return earliest(pending.deadline for pending in self._pending.values())

    def handle_timer(self, now: int) -> tuple[list[Hashable], list[Action]]:
        """Repeat what is due; the keys of what was given up, and what to do."""
        abandoned: list[Hashable] = []
        actions: list[Action] = []
        for key, pending in list(self._pending.items()):
            if pending.deadline > now:
                continue
            actions += self._transmit(pending, now)
            if pending.deadline <= now:
                del self._pending[key]
                abandoned.append(key)
                actions.append(
                    emit(
                        "map_notify_abandoned", peer=pending.destination, reason=pending.reason,
                        nonce=hex(pending.message.nonce), transmissions=pending.transmissions,
                        eid=pending.message.records[0].eid,
                    )
                )  # fmt: skip
        return abandoned, actions

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
        sealed = pending.secret.seal(pending.message)
        actions: list[Action] = [SendControl(sealed, pending.destination, pending.port)]
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
