"""A Map-Server that is a Map-Resolver too: registrations in, answers out (RFC 9301 §8.2-8.4). No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from testbed.lisp.actions import Action, Address, SendControl, emit
from testbed.lisp.admission import Admission, Correspondents, Refused
from testbed.lisp.config import MapServerConfig, SiteConfig, ns
from testbed.lisp.inputs import ControlReceived
from testbed.lisp.kept import keep, restored
from testbed.lisp.map_version import MapVersions
from testbed.lisp.mapping import agree
from testbed.lisp.merging import MergeKey, as_told_to, conflicts, is_too_large, registered, tell_fellows, united
from testbed.lisp.notifier import Notifier
from testbed.lisp.ownership import Claimant, Ownership
from testbed.lisp.publisher import PublicationKey, Publisher, Subscriber
from testbed.lisp.refusals import dropped
from testbed.lisp.registry import Part, Registration, Registry
from testbed.lisp.resolver import Resolver
from testbed.lisp.solicitor import SMR_TRANSMISSIONS, Solicitor
from testbed.lisp.timing import earliest
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
    host_eid,
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
        self._ownership = Ownership(dict(saved))
        self._versions = MapVersions(dict(saved), random64)
        self._registry = Registry()
        self._notifier = Notifier()
        self._publisher = Publisher(self._notifier, self._subscriber_of, self._records_of, config.options.subscriptions)
        self._resolver = Resolver(config, self._registry, self._publisher)
        self._solicitor = Solicitor(config.rloc, random64, ns(config.options.smr_interval_s))
        self._counters: Counter[str] = Counter()
        self._admission = Admission(config, self._ownership)
        self._correspondents = Correspondents()
        #: Whoever was registered before a restart has refreshed that by then, or is gone.
        self._settled_ns = 0

    def restore(self, texts: Iterable[str], now: int) -> list[Action]:
        """Take up what was registered before a restart, as it was stored (`KeepRegistration`)."""
        found, refused = restored(texts, self._config, self._ownership, now)
        for each in found:
            self._registry.put(each.registration)
            for owner, correspondent in zip(each.registration.owners, each.correspondents, strict=True):
                self._correspondents.heard(owner, correspondent)
            self._versions.restore(each.registration.record, each.registration.eid)
        if not found and not refused:
            return []
        return [emit("registrations_restored", restored=len(found), left_out=len(refused), reasons=sorted({*refused}))]

    def handle(self, event: ControlReceived, now: int) -> list[Action]:
        """Take one datagram and return what is to be done, in this order."""
        self._settled_ns = self._settled_ns or now + self._lifetime_ns
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
        parts = (self._registry, self._notifier, self._solicitor)
        return earliest(part.next_deadline() for part in parts)

    def handle_timer(self, now: int) -> list[Action]:
        """Repeat notifications, end registrations that nobody refreshed."""
        abandoned, actions = self._notifier.handle_timer(now)
        for key in abandoned:
            if isinstance(key, PublicationKey):
                actions += self._publisher.abandoned(key, now)
        actions += self._solicitor.handle_timer(now)
        for registration in self._registry.expire(now):
            left = tuple(part for part in registration.parts if part.expires_ns > now)
            actions += self._diminish(registration, left, "expired", now)
            actions.append(self._keep(registration.eid))
        return actions

    def inspect(self, now: int) -> dict[str, Any]:
        """The whole state, for people and tests; no secrets."""
        return {
            "rloc": str(self._config.rloc),
            "mechanism": self._config.mechanism.name,
            "registrations": [each.inspect(now) for each in self._registry],
            "subscriptions": self._publisher.inspect(),
            "unacknowledged": self._notifier.inspect(now),
            "counters": dict(sorted((self._counters + self._resolver.counters).items())),
        }

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
                    self._solicitor.asked(itr_rloc, each.eid)
        return self._resolver.request(request, outer, event, now)

    # --- registration ------------------------------------------------------------------------------

    def _register(self, message: MapRegister, event: ControlReceived, now: int) -> list[Action]:
        judged = self._admission.admit(message, event)
        if isinstance(judged, Refused):
            return self._refused(message, event, judged.reason, site=judged.site, **judged.fields)
        claimant, site = judged.claimant, judged.correspondent.site
        actions = used(judged.needs, event.source, self._counters)
        for sender in judged.senders:
            actions += self._ownership.register(sender, message.nonce)
        self._correspondents.heard(claimant, judged.correspondent)
        accepted: list[EidRecord] = []
        lost: list[Action] = []
        refused = False
        for record in message.records:
            received = emit(
                "map_register_received", eid=record.eid, peer=event.source, nonce=hex(message.nonce),
                rloc=_rloc(record), ttl_minutes=record.ttl_minutes, site=site.name, mono_ns=now,
            )  # fmt: skip
            actions.append(received)
            if not isinstance(record.eid, EidPrefix) or not site.may_register(record.eid):
                elsewhere = isinstance(record.eid, EidPrefix) and record.eid.instance_id != site.instance_id
                reason = "another instance" if elsewhere else "not an EID of this site"
                actions += self._refused_record(record, message, event, reason, site=site)
                continue
            eid = record.eid
            if not (
                self._ownership.admits(claimant, eid, message.nonce)
                if judged.ordered
                else self._ownership.admits_unordered(claimant, eid)
            ):
                fence = self._ownership.fence(claimant, eid)
                actions += self._refused_record(
                    record,
                    message,
                    event,
                    "registered elsewhere since",
                    site=site,
                    fence=fence and hex(fence),
                )
                lost += self._remind(claimant, eid, now)
                refused = True
                continue
            if record.ttl_minutes == 0:  # RFC 9301 §5.4: withdrawn; only what is its own
                actions += self._withdraw(eid, claimant, message.nonce, now)
                accepted.append(record)
                continue
            merges = MapRegisterFlag.MERGE in message.flags
            part = Part.of(record, message, claimant, event.source, now, self._lifetime_ns)
            registration = registered(self._registry.get(eid), eid, site, part, merges=merges, now=now)
            if is_too_large(registration):
                actions += self._refused_record(record, message, event, "too many to merge", site=site)
                continue
            registration, counted = self._numbered(registration, record.map_version)
            actions += counted + self._accept(registration, message.nonce, now)
            accepted.append(as_told_to(claimant, registration))
        # Nobody else waits for this; who registered is told when it is stored.
        actions += [self._keep(record.eid) for record in accepted if isinstance(record.eid, EidPrefix)]
        if refused:
            # It has not heard yet, or its acknowledgement crossed this: tell it (again) what it lost.
            actions += lost + self._tell_losses(claimant, now)
        if accepted and MapRegisterFlag.WANT_MAP_NOTIFY in message.flags:
            # RFC 9301 §5.7: the fields are copied, the authentication data made anew. The map-version
            # is ours to say (docs/adr/0004-map-versions.md).
            notify = MapNotify(message.nonce, tuple(accepted), xtr=message.xtr)
            sealing = judged.correspondent.secret.sealing(notify)
            actions.append(SendControl(sealing, event.source, judged.correspondent.port))
            actions += [
                emit(
                    "map_notify_sent", eid=record.eid, peer=event.source, nonce=hex(message.nonce),
                    reason="registration", ttl_minutes=record.ttl_minutes, rloc=_rloc(record),
                )
                for record in accepted
            ]  # fmt: skip
        return actions

    def _keep(self, eid: EidPrefix) -> Action:
        return keep(self._registry.get(eid) or eid, self._correspondents)

    def _numbered(self, registration: Registration, brought: int) -> tuple[Registration, list[Action]]:
        """Give a mapping its map-version, if the mechanism has any; `brought` is what an ETR calls it."""
        if not self._config.mechanism.map_versions:
            return registration, []
        record, counted = self._versions.number(replace(registration.record, map_version=brought), registration.eid)
        return replace(registration, record=record), counted

    def _accept(self, new: Registration, nonce: int, now: int) -> list[Action]:
        eid, site, claimant, record = new.eid, new.site, new.owner, new.record
        old = self._registry.get(eid)
        gone = set(old.owners) - {*new.owners} if old is not None else set()
        for each in (claimant, *gone):  # the answer to this says the same, and is newer; others share it no more
            self._notifier.cancel(MergeKey(each, eid))
        same_owner = old is not None and (claimant in old.owners or (new.merged and old.site.name == site.name))
        takes_turns = old is not None and old.site.name == site.name and not (old.merged or new.merged)
        if old is not None and takes_turns and not site.is_dynamic(eid) and agree(old.record, record):
            # The xTRs of a site take turns to refresh its prefixes; that is no change.
            same_owner, record = True, old.record
            new = replace(new, record=record, registered_ns=old.registered_ns)
        self._registry.put(new)
        claimed_last = set(self._ownership.owners_of(eid))
        actions = conflicts(old, new)
        if site.is_dynamic(eid):
            actions += self._ownership.claim(claimant, eid, nonce, shares=new.merged)
        if old is not None and same_owner and old.record == record:
            return actions
        actions.append(
            emit(
                "mapping_changed", eid=eid, rloc=_rloc(record), old_rloc=old and _rloc(old.record),
                owner=claimant, old_owner=old and old.owner, nonce=hex(nonce),
                reason="moved" if old and not same_owner else "changed" if old else "registered",
                ttl_minutes=record.ttl_minutes, map_version=record.map_version or None,
                locators=len(record.locators),
            )
        )  # fmt: skip
        # A static prefix may have several xTRs of one site, which agree; only single EIDs move.
        losers = self._outside_of(eid, site.name)
        losers |= {each for each in claimed_last if not (new.merged and each.site == site.name)}
        if old is not None and old.site.name != site.name:
            losers.update(old.owners)
            if old.merged:  # what its fellows have yet to register of it, on its way perhaps, is as old
                losers |= {each for each in self._correspondents if each.site == old.site.name}
        actions += self._tell(new, losers, now)
        return actions + tell_fellows(new, self._notifier, self._correspondents, now, but=claimant)

    def _withdraw(self, eid: EidPrefix, claimant: Claimant, nonce: int, now: int) -> list[Action]:
        old = self._registry.get(eid)
        if old is None or claimant not in old.owners:
            return []
        self._registry.remove(eid)
        left = tuple(part for part in old.parts if part.owner != claimant)
        return self._diminish(old, left, "withdrawn", now, nonce=hex(nonce))

    def _diminish(self, old: Registration, left: tuple[Part, ...], how: str, now: int, **fields: Any) -> list[Action]:
        """A registration, or parts of it, has ended and is out of the registry; `left` are the other parts."""
        eid, gone = old.eid, [each for each in old.owners if each not in {part.owner for part in left}]
        for owner in gone:
            self._notifier.cancel(MergeKey(owner, eid))
        if not left:
            reason = "registration expired" if how == "expired" else how
            changed = emit(
                "mapping_changed", eid=eid, old_rloc=_rloc(old.record), owner=old.owner, reason=reason, **fields
            )
            return [changed, *self._tell_of_withdrawal(old, now)]
        new, actions = self._numbered(replace(old, parts=left, record=united(left)), 0)
        self._registry.put(new)
        if new.record == old.record:
            return actions
        actions.append(
            emit(
                "mapping_changed", eid=eid, rloc=_rloc(new.record), old_rloc=_rloc(old.record), owner=gone[0],
                reason=f"part {how}", ttl_minutes=new.record.ttl_minutes, map_version=new.record.map_version or None,
                locators=len(new.record.locators), **fields,
            )
        )  # fmt: skip
        return actions + self._tell(new, set(), now) + tell_fellows(new, self._notifier, self._correspondents, now)

    def _tell(self, registration: Registration, losers: set[Claimant], now: int) -> list[Action]:
        """Tell everybody whom a change concerns: who had the EID, and whoever the mechanism says."""
        eid, record, owners = registration.eid, registration.record, registration.owners
        actions = self._tell_losers({*losers, *self._ownership.ignorant_of(eid)} - {*owners}, eid, record, now)
        actions += self._publisher.publish(self._resolver.proxied(record), eid, owners, now)
        if self._config.mechanism.smr_from_map_server:
            host = host_eid(eid.prefix.network_address, eid.instance_id)
            for itr_rloc in self._resolver.askers(eid, now):
                if itr_rloc not in {locator.rloc for locator in record.locators}:
                    actions += self._solicitor.solicit(host, itr_rloc, now, defer=True, transmissions=SMR_TRANSMISSIONS)
        return actions

    def _tell_losers(self, losers: Iterable[Claimant], eid: EidPrefix, record: EidRecord, now: int) -> list[Action]:
        actions: list[Action] = []
        for loser in sorted(losers, key=str):
            _, saved = self._ownership.depart(loser, record, eid)
            actions += saved
            actions += self._tell_losses(loser, now)
        return actions

    def _tell_of_withdrawal(self, registration: Registration, now: int) -> list[Action]:
        """RFC 9437 §5: a prefix that is withdrawn or times out is published with a TTL of 0."""
        eid, owners = registration.eid, registration.owners
        gone = EidRecord(eid, 0)
        losers = {*self._ownership.ignorant_of(eid), *self._outside_of(eid, registration.site.name)} - {*owners}
        return self._tell_losers(losers, eid, gone, now) + self._publisher.publish(gone, eid, owners, now)

    def _outside_of(self, eid: EidPrefix, site: str) -> set[Claimant]:
        """Whose prefix a single EID of another site is taken out of: it must send on what still comes for it."""
        around = self._registry.around(eid)
        return set(around.owners) if around is not None and around.site.name != site else set()

    def _remind(self, claimant: Claimant, eid: EidPrefix, now: int) -> list[Action]:
        """An xTR registers what it has lost: there is something to tell it (again)."""
        current = self._registry.get(eid)
        if current is not None:
            return self._ownership.remind(claimant, current.record, eid)
        if self._ownership.is_whereabouts_unknown(claimant, eid) and now < self._settled_ns:
            return []  # whoever has it will say so with its next refresh
        return self._ownership.remind(claimant, EidRecord(eid, 0), eid)  # it is nowhere

    def _tell_losses(self, claimant: Claimant, now: int) -> list[Action]:
        notice = self._ownership.notice(claimant)
        peer = self._correspondents.get(claimant)
        if notice is None or peer is None:
            return []
        nonce, records = notice
        return self._notifier.notify(
            claimant, nonce, records,
            secret=peer.secret, destination=peer.rloc, port=peer.port, reason="departure", now=now,
        )  # fmt: skip

    def _acknowledged(self, message: MapNotifyAck, event: ControlReceived, now: int) -> list[Action]:
        key = self._notifier.acknowledge(message, event.payload, event.source)
        if key is None:
            return self._dropped("map-notify-ack", "answers nothing, or authentication", event.source)
        actions: list[Action] = []
        if isinstance(key, Claimant):
            known, saved = self._ownership.acknowledge(key, message.nonce)
            actions += saved
            for eid in known:
                actions.append(
                    emit(
                        "departure_acknowledged",
                        eid=eid,
                        peer=event.source,
                        nonce=hex(message.nonce),
                        mono_ns=now,
                    )
                )
            actions += self._tell_losses(key, now)  # what one message did not hold
        return actions

    # --- subscriptions -----------------------------------------------------------------------------

    def _subscriber_of(self, request: MapRequest) -> Subscriber | None:
        """The xTR that an xTR-ID is, if it has registered with us."""
        claimant = self._correspondents.named(request.xtr)
        peer = self._correspondents.get(claimant) if claimant is not None else None
        if claimant is None or peer is None:
            return None
        return Subscriber(claimant, peer.rloc, peer.secret, peer.port)

    def _records_of(self, eid: EidPrefix) -> tuple[EidRecord, ...]:
        return self._resolver.records(eid)

    # --- refusals ----------------------------------------------------------------------------------

    def _refused(
        self, message: MapRegister, event: ControlReceived, reason: str, *, site: SiteConfig | None = None,
        **fields: Any,
    ) -> list[Action]:  # fmt: skip
        actions: list[Action] = []
        for record in message.records:
            actions += self._refused_record(record, message, event, reason, site=site, **fields)
        return actions

    def _refused_record(
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


def _rloc(record: EidRecord) -> Any:
    return record.locators[0].rloc if record.locators else None
