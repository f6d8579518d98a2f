"""A Map-Server that is a Map-Resolver too: registrations in, answers out (RFC 9301 §8.2-8.4). No I/O.

Here messages are judged; what they change, and whom that concerns, is `testbed.lisp.mapping_database`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from testbed.lisp.actions import Action, Address, GiveWay, SendControl, emit
from testbed.lisp.admission import Admission, Admitted, Refused
from testbed.lisp.config import MapServerConfig, SiteConfig, ns
from testbed.lisp.inputs import ControlReceived
from testbed.lisp.mapping_database import MappingDatabase, first_rloc
from testbed.lisp.merging import as_told_to, is_too_large, registered
from testbed.lisp.refusals import dropped
from testbed.lisp.registry import Part
from testbed.lisp.tolerances import Tolerance, refusal, used
from testbed.lisp.wire import (
    EidPrefix,
    EidRecord,
    EncapsulatedControl,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapRegisterFlag,
    MapRequest,
    WireError,
    decode_control,
)


class MapServer:
    """One Map-Server and Map-Resolver.

    Args:
        config: what it is told.
        saved: nonces by owner, from persistent storage (RFC 9301 §5.6).
        random64: gives 64 random bits from a properly seeded source.
    """

    def __init__(self, config: MapServerConfig, *, saved: dict[str, int], random64: Callable[[], int]) -> None:
        self._config = config
        self._lifetime_ns = ns(config.options.registration_lifetime_s)
        self._database = MappingDatabase(config, saved=saved, random64=random64)
        self._admission = Admission(config, self._database.ownership)
        self._counters: Counter[str] = Counter()

    def restore(self, texts: Iterable[str], now: int) -> list[Action]:
        """Take up what was registered before a restart, as it was stored (`KeepRegistration`)."""
        return self._database.restore(texts, now)

    def handle(self, event: ControlReceived, now: int) -> list[Action]:
        """Take one datagram and return what is to be done, in this order."""
        self._database.begin(now)
        try:
            message = decode_control(event.payload)
            if isinstance(message, EncapsulatedControl):
                inner = message.message
                if isinstance(inner, MapRequest):
                    return self._request(inner, message, event, now)
                return self._dropped("encapsulated", f"a {type(inner).__name__} inside", event.source)
        except WireError as error:
            return self._dropped("control", f"malformed: {error}", event.source)
        if isinstance(message, MapRegister):
            return self._register(message, event, now)
        if isinstance(message, MapNotifyAck):
            return self._acknowledged(message, event, now)
        if isinstance(message, MapRequest):
            return self._plain_request(message, event, now)
        return self._dropped("control", f"not for a Map-Server: {type(message).__name__}", event.source)

    def next_deadline(self) -> int | None:
        """When `handle_timer` has something to do, or None."""
        return self._database.next_deadline()

    def handle_timer(self, now: int) -> list[Action]:
        """Repeat notifications, end registrations that nobody refreshed."""
        return self._database.handle_timer(now)

    def inspect(self, now: int) -> dict[str, Any]:
        """The whole state, for people and tests; no secrets."""
        return {
            "rloc": str(self._config.rloc),
            "mechanism": self._config.mechanism.name,
            **self._database.inspect(now),
            "counters": dict(sorted((self._counters + self._database.resolver.counters).items())),
        }

    # --- Map-Requests ------------------------------------------------------------------------------

    def _plain_request(self, request: MapRequest, event: ControlReceived, now: int) -> list[Action]:
        """A Map-Request that is not in an ECM, as RFC 9301 §8.1 wants it: answered if that is tolerated."""
        needs = frozenset({Tolerance.PLAIN_MAP_REQUEST})
        if missing := needs - self._config.options.tolerate:
            return self._dropped("map-request", refusal(missing), event.source)
        eid = next((each.eid.prefix for each in request.requests if isinstance(each.eid, EidPrefix)), None)
        if eid is None:
            return self._dropped("map-request", "names no EID", event.source)
        # What it would have come in, so that it can be forwarded to an ETR like any other.
        source = event.source if event.source.version == eid.version else eid.network_address
        outer = EncapsulatedControl(source, eid.network_address, event.port, event.payload)
        return used(needs, event.source, self._counters) + self._request(request, outer, event, now)

    def _request(
        self, request: MapRequest, outer: EncapsulatedControl, event: ControlReceived, now: int
    ) -> list[Action]:
        for itr_rloc in request.itr_rlocs:
            for each in request.requests:
                if isinstance(itr_rloc, Address) and isinstance(each.eid, EidPrefix):
                    self._database.solicitor.asked(itr_rloc, each.eid)
        return self._database.resolver.request(request, outer, event, now)

    # --- Map-Registers -----------------------------------------------------------------------------

    def _register(self, message: MapRegister, event: ControlReceived, now: int) -> list[Action]:
        judged = self._admission.admit(message, event)
        if isinstance(judged, Refused):
            actions: list[Action] = []
            for record in message.records:
                actions += self._refused(record, message, event, judged.reason, site=judged.site, **judged.fields)
            return actions
        claimant, site, database = judged.claimant, judged.correspondent.site, self._database
        actions = used(judged.needs, event.source, self._counters)
        for sender in judged.senders:
            actions += database.ownership.register(sender, message.nonce)
        database.correspondents.heard(claimant, judged.correspondent)
        accepted: list[EidRecord] = []
        telling: list[Action] = []
        lost: list[Action] = []
        refused = False
        for record in message.records:
            received = emit(
                "map_register_received", eid=record.eid, peer=event.source, nonce=hex(message.nonce),
                rloc=first_rloc(record), ttl_minutes=record.ttl_minutes, site=site.name, mono_ns=now,
            )  # fmt: skip
            actions.append(received)
            if not isinstance(record.eid, EidPrefix) or not site.may_register(record.eid):
                elsewhere = isinstance(record.eid, EidPrefix) and record.eid.instance_id != site.instance_id
                reason = "another instance" if elsewhere else "not an EID of this site"
                actions += self._refused(record, message, event, reason, site=site)
            elif not database.ownership.admits(claimant, record.eid, message.nonce, ordered=judged.ordered):
                fence = database.ownership.fence(claimant, record.eid)
                reason = "registered elsewhere since"
                actions += self._refused(record, message, event, reason, site=site, fence=fence and hex(fence))
                # It has not heard yet, or its acknowledgement crossed this: tell it (again) what it lost.
                lost += database.remind(claimant, record.eid, now)
                refused = True
            else:
                told, done, others = self._taken(record, record.eid, judged, message, event, now)
                actions += done
                telling += others
                if told is not None:
                    accepted.append(told)
        answer = [database.keep(record.eid) for record in accepted if isinstance(record.eid, EidPrefix)]
        if refused:
            answer += lost + database.tell_losses(claimant, now)
        if accepted and MapRegisterFlag.WANT_MAP_NOTIFY in message.flags:
            answer += _notified(accepted, judged, message, event)
        if self._config.mechanism.map_versions:
            # Until the new xTR knows its map-version, its packets tell nobody anything. But before that the old one has
            # to send on what still comes to it: the guest itself may have nothing to say until it is asked.
            return [*actions, *telling, *answer]
        return [*actions, *telling, GiveWay(), *answer]  # nobody waits for the answer but who registered

    def _taken(
        self, record: EidRecord, eid: EidPrefix, judged: Admitted, message: MapRegister, event: ControlReceived,
        now: int,
    ) -> tuple[EidRecord | None, list[Action], list[Action]]:  # fmt: skip
        """Take one record that its sender may register.

        Returns how it is told of it (None if there is no room for it), what is to be done, how others are told.
        """
        claimant, site, database = judged.claimant, judged.correspondent.site, self._database
        if record.ttl_minutes == 0:  # RFC 9301 §5.4: withdrawn; only what is its own
            return record, [], database.withdraw(eid, claimant, message.nonce, now)
        part = Part.of(record, message, claimant, event.source, now, self._lifetime_ns)
        merges = MapRegisterFlag.MERGE in message.flags
        registration = registered(database.get(eid), eid, site, part, merges=merges, now=now)
        if is_too_large(registration):
            return None, self._refused(record, message, event, "too many to merge", site=site), []
        registration, actions, telling = database.accept(registration, message.nonce, record.map_version, now)
        return as_told_to(claimant, registration), actions, telling

    def _acknowledged(self, message: MapNotifyAck, event: ControlReceived, now: int) -> list[Action]:
        actions = self._database.acknowledged(message, event.payload, event.source, now)
        if actions is None:
            return self._dropped("map-notify-ack", "answers nothing, or authentication", event.source)
        return actions

    # --- refusals ----------------------------------------------------------------------------------

    def _refused(
        self, record: EidRecord, message: MapRegister, event: ControlReceived, reason: str, *,
        site: SiteConfig | None = None, **fields: Any,
    ) -> list[Action]:  # fmt: skip
        self._counters[f"registrations_refused: {reason}"] += 1
        return [
            emit(
                "registration_refused", eid=record.eid, peer=event.source, nonce=hex(message.nonce),
                reason=reason, site=site and site.name, **fields,
            )
        ]  # fmt: skip

    def _dropped(self, message: str, reason: str, peer: Address) -> list[Action]:
        return dropped(self._counters, message, reason, peer)


def _notified(
    accepted: list[EidRecord], judged: Admitted, message: MapRegister, event: ControlReceived
) -> list[Action]:
    """The Map-Notify that a Map-Register asks for.

    RFC 9301 §5.7: the fields are copied, the authentication data made anew. The map-version is ours to say
    (docs/adr/0004-map-versions.md).
    """
    notify = MapNotify(message.nonce, tuple(accepted), xtr=message.xtr)
    sealing = judged.correspondent.secret.sealing(notify)
    return [
        SendControl(sealing, event.source, judged.correspondent.port),
        *(
            emit(
                "map_notify_sent", eid=record.eid, peer=event.source, nonce=hex(message.nonce),
                reason="registration", ttl_minutes=record.ttl_minutes, rloc=first_rloc(record),
            )
            for record in accepted
        ),
    ]  # fmt: skip
