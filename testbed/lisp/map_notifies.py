"""What an xTR does with the Map-Notifies it gets: answers, publications, and losses (RFC 9301 §5.7)."""

from __future__ import annotations

from collections import Counter

from testbed.lisp.actions import (
    CONTROL_PORT,
    Action,
    Address,
    Forwarding,
    Prefix,
    ProbeNeighbour,
    SendControl,
    SetForwarding,
    emit,
)
from testbed.lisp.config import XtrConfig, ns
from testbed.lisp.inputs import ControlReceived
from testbed.lisp.itr import Itr
from testbed.lisp.mapping import first_rloc
from testbed.lisp.nonces import is_exhausted
from testbed.lisp.presence import Presence
from testbed.lisp.refusals import dropped
from testbed.lisp.registrar import Registrar
from testbed.lisp.sealing import Secret
from testbed.lisp.timing import RateLimiter
from testbed.lisp.tolerances import Tolerance, refusal, used
from testbed.lisp.wire import EidRecord, MapNotify, MapNotifyAck


class MapNotifies:
    """Takes Map-Notifies.

    Args:
        config: of the xTR.
        presence, registrar, itr: of the same xTR; whom it concerns.
        counters: of the xTR.
    """

    def __init__(
        self, config: XtrConfig, presence: Presence, registrar: Registrar, itr: Itr, counters: Counter[str]
    ) -> None:
        self._config, self._presence, self._registrar, self._itr = config, presence, registrar, itr
        self._counters = counters
        #: Per Map-Server, the nonce of its latest notice of a loss; it is in order (docs/adr/0003, rule 5).
        self._latest_loss: dict[Address, int] = {}
        self._probe_hosts: RateLimiter[Address] = RateLimiter(ns(config.options.departure_probe_interval_s))

    def _dropped(self, reason: str, peer: Address) -> list[Action]:
        return dropped(self._counters, "map-notify", reason, peer)

    def receive(self, notify: MapNotify, event: ControlReceived, now: int) -> list[Action]:
        """Take one, if a Map-Server of ours made it."""
        if event.source not in self._config.map_servers:
            return self._dropped("not from a Map-Server of ours", event.source)
        opened = self._config.secret.open(event.payload, notify)
        if opened is None:
            return self._unauthenticated(notify, event, now)
        if missing := opened.needs - self._config.options.tolerate:
            return self._dropped(refusal(missing), event.source)
        if is_exhausted(notify.nonce):
            return self._dropped("nonces exhausted", event.source)
        told = self._notified(notify, event, opened.secret, now)
        return used(opened.needs, event.source, self._counters) + told

    def _unauthenticated(self, notify: MapNotify, event: ControlReceived, now: int) -> list[Action]:
        """A Map-Notify that nobody vouches for: at most a subscription's, of a peer that signs none of those."""
        if any(notify.authentication.data):
            return self._dropped("authentication", event.source)
        needs = frozenset({Tolerance.ZERO_NOTIFY_AUTHENTICATION})
        if needs - self._config.options.tolerate:
            return self._dropped(refusal(needs), event.source)
        published = self._itr.notified(notify, event.source, now) if not is_exhausted(notify.nonce) else None
        if published is None:
            return self._dropped("authentication", event.source)
        ack = MapNotifyAck(notify.nonce, notify.records, notify.authentication, notify.xtr)  # answered as it came
        acknowledge = SendControl(ack.encode(), event.source, CONTROL_PORT, hurried=False)
        return [*used(needs, event.source, self._counters), *published, acknowledge]

    def _notified(self, notify: MapNotify, event: ControlReceived, secret: Secret, now: int) -> list[Action]:
        """A genuine Map-Notify; `secret` is how its sender uses ours."""
        acknowledged, actions = self._registrar.acknowledge(notify, event.source, now)
        if acknowledged:
            return actions + [each for record in notify.records for each in self._told_of_ours(record, now)]
        # Unsolicited: acknowledged whatever comes of it, or it is sent again (RFC 9301 §5.7). What we
        # send after this is newer than what the Map-Server just said.
        published = None if self._is_of_a_loss(notify) else self._itr.notified(notify, event.source, now)
        if published is not None:
            actions = published
        else:
            if self._config.options.ordered_notifies:
                if self._registrar.is_too_far_ahead(notify.nonce):
                    return self._dropped("nonce far ahead of ours", event.source)
                actions = self._registrar.observe(notify.nonce)
            for record in notify.records:
                actions += self._learn(record, notify.nonce, event.source, now)
        ack = MapNotifyAck(notify.nonce, notify.records, xtr=notify.xtr)
        actions.append(SendControl(secret.sealing(ack), event.source, CONTROL_PORT, hurried=False))
        return actions

    def _is_of_a_loss(self, notify: MapNotify) -> bool:
        """Whether a notice is of an EID that is or was here, whatever wider prefix is subscribed to (RFC 9437 §6)."""
        prefixes = [prefix for record in notify.records if (prefix := self._config.prefix_of(record.eid))]
        ours = any(self._presence.override(prefix) is not None for prefix in prefixes)
        return ours and self._config.options.ordered_notifies and self._registrar.is_of_our_clock(notify.nonce)

    def _told_of_ours(self, record: EidRecord, now: int) -> list[Action]:
        """What a Map-Server says of a mapping of ours: its version, and which locators it has of the site's xTRs."""
        actions = self._numbered(record, now)
        if self._registrar.merged(record):
            rlocs = [str(each.rloc) for each in record.locators]
            actions.append(emit("registration_merged", eid=record.eid, locators=rlocs, mono_ns=now))
        return actions

    def _numbered(self, record: EidRecord, now: int) -> list[Action]:
        """Put the map-version that a Map-Server gave our mapping into the data plane."""
        if not self._config.mechanism.map_versions or not self._registrar.numbered(record):
            return []
        prefix = self._config.prefix_of(record.eid)
        assert prefix is not None
        return [
            SetForwarding(prefix, Forwarding.LOCAL, map_version=record.map_version),
            emit("map_version_learned", eid=prefix, map_version=record.map_version, mono_ns=now),
        ]

    def _learn(self, record: EidRecord, nonce: int, map_server: Address, now: int) -> list[Action]:
        """A mapping that the Map-Server sent unasked: an EID of ours that is not here any more, or news."""
        prefix = self._config.prefix_of(record.eid)
        if prefix is None:
            return dropped(
                self._counters, "map-notify-record", "unknown AFI or another instance", map_server, eid=record.eid
            )
        # Also one of ours that is down leads here: that is no loss.
        if any(locator.rloc == self._config.rloc for locator in record.locators):
            return self._told_of_ours(record, now) if self._config.options.merge_registrations else []
        override = self._presence.override(prefix)
        latest = self._latest_loss.get(map_server, nonce)
        self._latest_loss[map_server] = max(nonce, latest)
        if nonce < latest and override is not Forwarding.LOCAL and self._config.options.ordered_notifies:
            # Everything in it that we had not acknowledged was in the later one too; it was delayed on the way.
            self._counters["notifies_older_than_latest_loss"] += 1
            return []
        if override is Forwarding.LOCAL:
            # Whoever has it now may have no locator that can be used yet, and still it is not here.
            claim = self._registrar.claim_of(prefix, map_server)
            older = self._config.options.ordered_notifies and claim is not None and nonce < claim
            if prefix in self._config.eid_prefixes or older:
                # Older than the present stay: a repetition of what sent the EID away the last time.
                self._counters["notifies_older_than_claim"] += 1
                return []
            return self._depart(record, prefix, nonce, map_server, now)
        if override is None and record.locators and self._is_one_of_ours(prefix):
            self._presence.left(prefix.network_address, now)
            override = Forwarding.AWAY
        if override is Forwarding.AWAY:
            return self._itr.install(record, now)
        return []

    def _is_one_of_ours(self, prefix: Prefix) -> bool:
        """Whether a prefix is a single EID out of one that we register whole."""
        single = prefix.prefixlen == prefix.max_prefixlen and not self._config.is_own_address(prefix)
        return single and any(prefix.network_address in each for each in self._config.eid_prefixes)

    def _depart(self, record: EidRecord, prefix: Prefix, nonce: int, map_server: Address, now: int) -> list[Action]:
        """A dynamic EID has left, says the Map-Server: for where its record points, or nobody knows where (TTL 0)."""
        eid, rloc = prefix.network_address, first_rloc(record)
        actions: list[Action] = [
            emit("eid_departed", mono_ns=now, eid=eid, rloc=rloc, nonce=hex(nonce), peer=map_server)
        ]
        mac = self._presence.mac_of(eid)
        self._registrar.lose(prefix)
        if record.ttl_minutes == 0:
            actions += [self._itr.cleared(prefix), *self._presence.forget(eid)]
        else:
            unbind = self._presence.depart(eid, now)
            actions += self._itr.install(record, now)
            if self._config.mechanism.reencapsulate:
                actions.append(emit("away_installed", eid=eid, rloc=rloc, ttl_minutes=record.ttl_minutes))
            actions += unbind
        if self._probe_hosts.allow(eid, now):
            # If the Map-Server's word is older than what is on the LAN, the answer is a new sighting.
            self._probe_hosts.forget_before(now)
            actions.append(ProbeNeighbour(eid, mac))
        return actions
