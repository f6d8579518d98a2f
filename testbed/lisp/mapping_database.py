"""The EID-to-RLOC mapping database of a Map-Server, and everybody whom a change of it concerns (RFC 9301 §8.2). No I/O.

Who had an EID is told of its move by an unsolicited Map-Notify (RFC 9301 §5.7), who shares it by another, who has
subscribed by a publication (RFC 9437 §5), and who has asked, if the mechanism says so, by an SMR (RFC 9301 §6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from testbed.lisp.actions import Action, Address, emit
from testbed.lisp.admission import Correspondents
from testbed.lisp.config import MapServerConfig, ns
from testbed.lisp.kept import keep, restored
from testbed.lisp.map_version import MapVersions
from testbed.lisp.mapping import agree
from testbed.lisp.merging import MergeKey, conflicts, tell_fellows, united
from testbed.lisp.notifier import Notifier
from testbed.lisp.ownership import Claimant, Ownership
from testbed.lisp.publisher import PublicationKey, Publisher, Subscriber
from testbed.lisp.registry import Part, Registration, Registry
from testbed.lisp.resolver import Resolver
from testbed.lisp.solicitor import SMR_TRANSMISSIONS, Solicitor
from testbed.lisp.timing import earliest
from testbed.lisp.wire import EidPrefix, EidRecord, MapNotifyAck, MapRequest, host_eid


class MappingDatabase:
    """What is registered, and the tellers of its changes.

    Args:
        config: of the Map-Server.
        saved: nonces by owner, from persistent storage (RFC 9301 §5.6).
        random64: gives 64 random bits from a properly seeded source.

    Attributes:
        ownership: who may register what, and in which order.
        correspondents: how each xTR is written to.
        resolver: answers from what is registered.
        solicitor: who has asked for what.
    """

    def __init__(self, config: MapServerConfig, *, saved: dict[str, int], random64: Callable[[], int]) -> None:
        self._config = config
        self._lifetime_ns = ns(config.options.registration_lifetime_s)
        self._versions = MapVersions(dict(saved), random64)
        self._registry = Registry()
        self._notifier = Notifier()
        self.ownership = Ownership(dict(saved))
        self.correspondents = Correspondents()
        self._publisher = Publisher(self._notifier, self._subscriber_of, self._records_of, config.options.subscriptions)
        self.resolver = Resolver(config, self._registry, self._publisher)
        self.solicitor = Solicitor(config.rloc, random64, ns(config.options.smr_interval_s))
        #: Whoever was registered before a restart has refreshed that by then, or is gone.
        self._settled_ns = 0

    def begin(self, now: int) -> None:
        """Time runs from the first message on."""
        self._settled_ns = self._settled_ns or now + self._lifetime_ns

    def restore(self, texts: Iterable[str], now: int) -> list[Action]:
        """Take up what was registered before a restart, as it was stored (`KeepRegistration`)."""
        found, refused = restored(texts, self._config, self.ownership, now)
        for each in found:
            self._registry.put(each.registration)
            for owner, correspondent in zip(each.registration.owners, each.correspondents, strict=True):
                self.correspondents.heard(owner, correspondent)
            self._versions.restore(each.registration.record, each.registration.eid)
        if not found and not refused:
            return []
        return [emit("registrations_restored", restored=len(found), left_out=len(refused), reasons=sorted({*refused}))]

    def next_deadline(self) -> int | None:
        """When `handle_timer` has something to do, or None."""
        parts = (self._registry, self._notifier, self.solicitor)
        return earliest(part.next_deadline() for part in parts)

    def handle_timer(self, now: int) -> list[Action]:
        """Repeat notifications, end registrations that nobody refreshed."""
        abandoned, actions = self._notifier.handle_timer(now)
        for key in abandoned:
            if isinstance(key, PublicationKey):
                actions += self._publisher.abandoned(key)
        actions += self.solicitor.handle_timer(now)
        for registration in self._registry.expire(now):
            left = tuple(part for part in registration.parts if part.expires_ns > now)
            actions += self._diminish(registration, left, "expired", now)
            actions.append(self.keep(registration.eid))
        return actions

    def inspect(self, now: int) -> dict[str, Any]:
        """What is registered, who has subscribed and what is not acknowledged, for people and tests; no secrets."""
        return {
            "registrations": [each.inspect(now) for each in self._registry],
            "subscriptions": self._publisher.inspect(),
            "unacknowledged": self._notifier.inspect(now),
        }

    # --- what is registered ------------------------------------------------------------------------

    def get(self, eid: EidPrefix) -> Registration | None:
        """What is registered of just this prefix."""
        return self._registry.get(eid)

    def keep(self, eid: EidPrefix) -> Action:
        """Store what is registered of a prefix."""
        return keep(self._registry.get(eid) or eid, self.correspondents)

    def accept(
        self, new: Registration, nonce: int, brought: int, now: int
    ) -> tuple[Registration, list[Action], list[Action]]:
        """Register a mapping and tell whomever it concerns.

        Args:
            new: the mapping, with its newest part at the end.
            nonce: of the Map-Register.
            brought: what its sender calls the map-version.
            now: nanoseconds.

        Returns:
            The mapping as numbered here, what is to be done, and then how those it concerns are told.
        """
        new, actions = self._numbered(new, brought)
        accepted, telling = self._accept(new, nonce, now)
        return new, actions + accepted, telling

    def _numbered(self, registration: Registration, brought: int) -> tuple[Registration, list[Action]]:
        """Give a mapping its map-version, if the mechanism has any; `brought` is what an ETR calls it."""
        if not self._config.mechanism.map_versions:
            return registration, []
        record, counted = self._versions.number(registration.record, registration.eid, brought)
        return registration.mapped(record), counted

    def _accept(self, new: Registration, nonce: int, now: int) -> tuple[list[Action], list[Action]]:
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
        claimed_last = set(self.ownership.owners_of(eid))
        actions = conflicts(old, new)
        if site.is_dynamic(eid):
            actions += self.ownership.claim(claimant, eid, nonce, shares=new.merged)
        if old is not None and same_owner and old.record == record:
            return actions, []
        actions.append(
            emit(
                "mapping_changed", eid=eid, rloc=first_rloc(record), old_rloc=old and first_rloc(old.record),
                owner=str(claimant), old_owner=old and str(old.owner), nonce=hex(nonce),
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
                losers |= {each for each in self.correspondents if each.site == old.site.name}
        telling = self._tell(new, losers, now)
        return actions, telling + tell_fellows(new, self._notifier, self.correspondents, now, but=claimant)

    def withdraw(self, eid: EidPrefix, claimant: Claimant, nonce: int, now: int) -> list[Action]:
        """An xTR takes back what it has registered of a prefix, if it has (RFC 9301 §5.4: a TTL of 0)."""
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
                "mapping_changed",
                eid=eid,
                old_rloc=first_rloc(old.record),
                owner=str(old.owner),
                reason=reason,
                **fields,
            )
            return [changed, *self._tell_of_withdrawal(old, now)]
        new, actions = self._numbered(replace(old, parts=left, record=united(left)), 0)
        self._registry.put(new)
        if new.record == old.record:
            return actions
        actions.append(
            emit(
                "mapping_changed", eid=eid, rloc=first_rloc(new.record), old_rloc=first_rloc(old.record),
                owner=str(gone[0]), reason=f"part {how}", ttl_minutes=new.record.ttl_minutes,
                map_version=new.record.map_version or None, locators=len(new.record.locators), **fields,
            )
        )  # fmt: skip
        return actions + self._tell(new, set(), now) + tell_fellows(new, self._notifier, self.correspondents, now)

    # --- whom a change concerns ---------------------------------------------------------------------

    def _tell(self, registration: Registration, losers: set[Claimant], now: int) -> list[Action]:
        """Tell everybody whom a change concerns: who had the EID, and whoever the mechanism says."""
        eid, record, owners = registration.eid, registration.record, registration.owners
        told_of_loss = self._tell_losers({*losers, *self.ownership.ignorant_of(eid)} - {*owners}, eid, record, now)
        # Who sends to the old locator first, who sends it on from there after that.
        actions: list[Action] = []
        if self._publisher.has_subscribers:
            actions += self._publisher.publish(self.resolver.proxied(record), eid, owners, now)
        if self._config.mechanism.smr_from_map_server:
            host = host_eid(eid.prefix.network_address, eid.instance_id)
            for itr_rloc in self.resolver.askers(eid, now):
                if itr_rloc not in {locator.rloc for locator in record.locators}:
                    actions += self.solicitor.solicit(host, itr_rloc, now, defer=True, transmissions=SMR_TRANSMISSIONS)
        return actions + told_of_loss

    def _tell_losers(self, losers: Iterable[Claimant], eid: EidPrefix, record: EidRecord, now: int) -> list[Action]:
        actions: list[Action] = []
        for loser in sorted(losers, key=str):
            _, saved = self.ownership.depart(loser, record, eid)
            actions += saved
            actions += self.tell_losses(loser, now)
        return actions

    def _tell_of_withdrawal(self, registration: Registration, now: int) -> list[Action]:
        """RFC 9437 §5: a prefix that is withdrawn or times out is published with a TTL of 0."""
        eid, owners = registration.eid, registration.owners
        gone = EidRecord(eid, 0)
        losers = {*self.ownership.ignorant_of(eid), *self._outside_of(eid, registration.site.name)} - {*owners}
        return self._tell_losers(losers, eid, gone, now) + self._publisher.publish(gone, eid, owners, now)

    def _outside_of(self, eid: EidPrefix, site: str) -> set[Claimant]:
        """Whose prefix a single EID of another site is taken out of: it must send on what still comes for it."""
        around = self._registry.around(eid)
        return set(around.owners) if around is not None and around.site.name != site else set()

    def remind(self, claimant: Claimant, eid: EidPrefix, now: int) -> list[Action]:
        """An xTR registers what it has lost: there is something to tell it (again)."""
        current = self._registry.get(eid)
        if current is not None:
            return self.ownership.remind(claimant, current.record, eid)
        if self.ownership.is_whereabouts_unknown(claimant, eid) and now < self._settled_ns:
            return []  # whoever has it will say so with its next refresh
        return self.ownership.remind(claimant, EidRecord(eid, 0), eid)  # it is nowhere

    def tell_losses(self, claimant: Claimant, now: int) -> list[Action]:
        """Tell an xTR what it has lost and not said that it knows, as far as one message holds it."""
        notice = self.ownership.notice(claimant)
        peer = self.correspondents.get(claimant)
        if notice is None or peer is None:
            return []
        nonce, records = notice
        return self._notifier.notify(
            claimant, nonce, records,
            secret=peer.secret, destination=peer.rloc, port=peer.port, reason="departure", now=now,
        )  # fmt: skip

    def acknowledged(self, message: MapNotifyAck, payload: bytes, source: Address, now: int) -> list[Action] | None:
        """Somebody knows what it was told; None if the message answers nothing, or is not genuine."""
        key = self._notifier.acknowledge(message, payload, source)
        if key is None:
            return None
        if isinstance(key, PublicationKey):
            self._publisher.acknowledged(key)
        if not isinstance(key, Claimant):
            return []
        known, actions = self.ownership.acknowledge(key, message.nonce)
        actions += [
            emit("departure_acknowledged", eid=eid, peer=source, nonce=hex(message.nonce), mono_ns=now) for eid in known
        ]
        return actions + self.tell_losses(key, now)  # what one message did not hold

    def _subscriber_of(self, request: MapRequest) -> Subscriber | None:
        """The xTR that an xTR-ID is, if it has registered with us."""
        claimant = self.correspondents.named(request.xtr)
        peer = self.correspondents.get(claimant) if claimant is not None else None
        if claimant is None or peer is None:
            return None
        last_nonce = self.ownership.last_nonce(claimant) or 0
        return Subscriber(claimant, peer.rloc, peer.secret, peer.port, last_nonce)

    def _records_of(self, eid: EidPrefix) -> tuple[EidRecord, ...]:
        return self.resolver.records(eid)


def first_rloc(record: EidRecord) -> Any:
    """The first locator of a mapping, as its events name it, or None."""
    return record.locators[0].rloc if record.locators else None
