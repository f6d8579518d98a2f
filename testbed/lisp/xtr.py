"""An xTR: ITR, ETR and the mobility of its dynamic EIDs, joined. No I/O; time and bytes are arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from testbed.lisp.actions import (
    MINUTE_NS,
    Action,
    Address,
    ClearForwarding,
    Emit,
    Forwarding,
    SetForwarding,
    emit,
    host_prefix,
)
from testbed.lisp.config import XtrConfig, ns
from testbed.lisp.inputs import (
    ControlReceived,
    FirstPacketSent,
    HostExpected,
    HostGone,
    HostSighted,
    Input,
    NewSourceVersion,
    OldDestinationVersion,
    PacketMissed,
    StaleReceived,
    Started,
)
from testbed.lisp.itr import Itr
from testbed.lisp.locators import Locators
from testbed.lisp.map_notifies import MapNotifies
from testbed.lisp.neighbour_proxy import NeighbourProxy
from testbed.lisp.presence import Presence, PresenceState
from testbed.lisp.refusals import dropped
from testbed.lisp.registrar import Registrar
from testbed.lisp.replier import Replier, forwarded_record
from testbed.lisp.solicitor import Solicitor
from testbed.lisp.timing import earliest
from testbed.lisp.tolerances import Tolerance, refusal, used
from testbed.lisp.wire import (
    MAX_RECORDS,
    Eid,
    EidRecord,
    EidRecordFlag,
    EncapsulatedControl,
    MapNotify,
    MapReply,
    MapReplyFlag,
    MapRequest,
    MapRequestFlag,
    WireError,
    decode_control,
)

#: RFC 9301 §6.1: the sites to be solicited are those that data was sent to for the last minute.
RECENTLY_NS = MINUTE_NS


class Xtr:
    """One xTR's control plane.

    Args:
        config: what it is told.
        nonce: the last Map-Register nonce it ever used, from persistent storage (RFC 9301 §5.6).
        random64: gives 64 random bits from a properly seeded source.
        subscription_nonce: the highest it ever used for a subscription, from persistent storage, or None.
    """

    def __init__(
        self,
        config: XtrConfig,
        *,
        nonce: int,
        random64: Callable[[], int],
        subscription_nonce: int | None = None,
    ) -> None:
        self._config = config
        self._presence = Presence(config)
        self._registrar = Registrar(config, nonce)
        self._itr = Itr(config, random64, self._presence.override, subscription_nonce)
        self._proxy = NeighbourProxy(config, self._presence, self._itr)
        self._solicitor = Solicitor(config.rloc, random64, ns(config.options.smr_interval_s))
        capable = MapReplyFlag.ECHO_NONCE_CAPABLE if config.options.echo_nonce else MapReplyFlag.NONE
        self._replier = Replier(config.rloc, ns(config.options.map_reply_interval_s), capable)
        self._locators = Locators(config, self._registrar, self._itr, random64)
        self._counters: Counter[str] = Counter()
        self._notifies = MapNotifies(config, self._presence, self._registrar, self._itr, self._counters)
        #: EID → the locator to which its packets last went, for the event that says it changed.
        self._last_rloc: dict[Address, Address] = {}
        self._handlers: dict[type, Callable[[Any, int], list[Action]]] = {
            Started: self._started,
            ControlReceived: self._control,
            HostSighted: self._sighted,
            HostExpected: self._expected,
            HostGone: self._gone,
            StaleReceived: self._stale,
            OldDestinationVersion: self._old_destination,
            NewSourceVersion: self._new_source,
            PacketMissed: self._missed,
            FirstPacketSent: self._first_packet,
            **self._locators.handlers,
        }

    def handle(self, event: Input, now: int) -> list[Action]:
        """Take one input and return what is to be done, in this order."""
        return self._in_instance(self._handlers[type(event)](event, now))

    def next_deadline(self) -> int | None:
        """When `handle_timer` has something to do, or None."""
        parts = (self._registrar, self._itr, self._locators, self._solicitor, self._proxy)
        return earliest(part.next_deadline() for part in parts)

    def handle_timer(self, now: int) -> list[Action]:
        """Do what is due: retransmissions, refreshes, expiry."""
        actions = self._registrar.handle_timer(now) + self._itr.handle_timer(now)
        actions += self._locators.handle_timer(now) + self._solicitor.handle_timer(now)
        actions += self._proxy.settle(now)
        for eid in self._presence.in_state(PresenceState.AWAY):
            if self._itr.cache.exact(host_prefix(eid)) is None:
                actions += self._presence.forget(eid)
        return self._in_instance(actions)

    def inspect(self, now: int) -> dict[str, Any]:
        """The whole state, for people and tests; no secrets."""
        counters = self._counters + self._itr.counters
        return {
            "rloc": str(self._config.rloc),
            "mechanism": self._config.mechanism.name,
            "instance_id": self._config.instance_id,
            "registrations": self._registrar.inspect(now),
            "hosts": self._presence.inspect(now),
            **self._itr.inspect(now),
            "counters": dict(sorted(counters.items())),
        }

    def _in_instance(self, actions: list[Action]) -> list[Action]:
        """What the parts of an xTR want done is all in its instance; they know of no other."""
        instance_id = self._config.instance_id
        return [_in_instance(action, instance_id) for action in actions] if instance_id else actions

    def _solicit(self, eid: Address, peer: Address, now: int, *, defer: bool = False) -> list[Action]:
        return self._solicitor.solicit(self._config.in_instance(host_prefix(eid)), peer, now, defer=defer)

    def _started(self, event: Started, now: int) -> list[Action]:
        actions: list[Action] = []
        # Longest prefix wins, so what is local may be inside what is resolved.
        actions += [SetForwarding(prefix, Forwarding.RESOLVE) for prefix in self._config.eid_space]
        for prefix in self._config.eid_prefixes:
            actions.append(SetForwarding(prefix, Forwarding.LOCAL))
        for prefix in self._config.eid_prefixes:
            actions += self._registrar.register(prefix, now)
        return actions + self._locators.start(now)

    # --- the LAN -----------------------------------------------------------------------------------

    def _expected(self, event: HostExpected, now: int) -> list[Action]:
        self._presence.expect(event.eid, event.mac)
        return []

    def _gone(self, event: HostGone, now: int) -> list[Action]:
        if self._presence.state_of(event.eid) is not PresenceState.LOCAL:
            return []
        prefix = host_prefix(event.eid)
        return [
            emit("eid_withdrawn", eid=event.eid, rloc=self._config.rloc),
            self._itr.cleared(prefix),
            *self._presence.forget(event.eid),
            *self._registrar.withdraw(prefix, now),
        ]

    def _sighted(self, event: HostSighted, now: int) -> list[Action]:
        actions: list[Action] = []
        sighting = event.sighting
        if sighting.asked is not None and sighting.eid is not None:
            actions += self._proxy.asked(sighting.asked, sighting.eid, sighting.mac, now)
        for eid in self._presence.eids_of(sighting):
            arrived, local = self._presence.sight(eid, sighting, event.mono_ns, now)
            self._proxy.sighted(eid)
            # The kernel can be told when the Map-Register has left: nothing comes because of it before.
            kernel: list[Action] = [action for action in local if not isinstance(action, Emit)]
            actions += [action for action in local if isinstance(action, Emit)]
            if arrived:
                prefix = host_prefix(eid)
                kernel += self._itr.forget(prefix)  # what was held for it: into the entry
                # At the moment of discovery: the next refresh is up to a minute away.
                actions += self._registrar.register(prefix, now)
                if self._config.mechanism.smr_on_discovery:
                    for peer in self._peers():
                        actions += self._solicit(eid, peer, now, defer=True)
            actions += kernel
        return actions

    def _peers(self) -> list[Address]:
        """The locators of every mapping that is cached: whom this site has been sending to."""
        peers = {locator.rloc for entry in self._itr.cache for locator in entry.locators}
        return sorted(peers - {self._config.rloc}, key=lambda rloc: (rloc.version, int(rloc)))

    # --- the data plane ----------------------------------------------------------------------------

    def _missed(self, event: PacketMissed, now: int) -> list[Action]:
        return self._itr.miss(event.destination, event.packet, now)

    def _stale(self, event: StaleReceived, now: int) -> list[Action]:
        actions: list[Action] = [
            emit("stale_packet", eid=event.eid, peer=event.peer, rloc=self._config.rloc, mono_ns=event.mono_ns)
        ]
        away = self._presence.state_of(event.eid) is PresenceState.AWAY
        if away and self._config.mechanism.smr_on_stale_packet:
            actions += self._solicit(event.eid, event.peer, now)
        return actions

    def _old_destination(self, event: OldDestinationVersion, now: int) -> list[Action]:
        """RFC 9302 §7.1, case 3: the ITR must be informed, within the limits of its requests."""
        told = emit(
            "map_version_older", eid=event.eid, peer=event.peer, map_version=event.map_version, mono_ns=event.mono_ns
        )
        return [told, *self._solicit(event.eid, event.peer, now)]

    def _new_source(self, event: NewSourceVersion, now: int) -> list[Action]:
        """RFC 9302 §7.2, case 2: what is cached of the source is stale, and must be asked for."""
        told = emit(
            "map_version_newer", eid=event.eid, peer=event.peer, map_version=event.map_version, mono_ns=event.mono_ns
        )
        return [told, *self._itr.outdated(event.eid, event.map_version, now)]

    def _first_packet(self, event: FirstPacketSent, now: int) -> list[Action]:
        # An entry that expired in between is new to the data plane; what matters is the flow's last locator.
        old = event.old_rloc or self._last_rloc.get(event.eid)
        self._last_rloc[event.eid] = event.rloc
        actions: list[Action] = [
            emit("first_packet_new_rloc", eid=event.eid, rloc=event.rloc, old_rloc=old, mono_ns=event.mono_ns)
        ]
        if self._config.mechanism.smr_on_discovery:
            # A peer that was not known when the EID came is known with the first packet to it.
            for eid in self._presence.arrived_since(now - RECENTLY_NS):
                actions += self._solicit(eid, event.rloc, now, defer=True)
        return actions

    # --- the control plane -------------------------------------------------------------------------

    def _control(self, event: ControlReceived, now: int) -> list[Action]:
        actions = self._message(event, now)
        return actions + self._proxy.settle(now)  # what was asked on the LAN may be known now

    def _message(self, event: ControlReceived, now: int) -> list[Action]:
        try:
            message = decode_control(event.payload)
            if isinstance(message, EncapsulatedControl):
                inner = message.message
                if isinstance(inner, MapRequest):
                    return self._request(inner, event.source, message.source_port, now, encapsulated=True)
                return self._dropped("encapsulated", f"a {type(inner).__name__} inside", event.source)
        except WireError as error:
            return self._dropped("control", f"malformed: {error}", event.source)
        if isinstance(message, MapRequest):
            return self._request(message, event.source, event.port, now, encapsulated=False)
        if isinstance(message, MapReply) and MapReplyFlag.PROBE in message.flags:
            taken = self._locators.answered(message, event.source, now)
            if taken is None:
                return self._dropped("map-reply", "answers no probe, or without the A-bit", event.source)
            return taken
        if isinstance(message, MapReply):
            return self._itr.reply(message, event.source, now)
        if isinstance(message, MapNotify):
            return self._notifies.receive(message, event, now) + self._locators.update()
        return self._dropped("control", f"not for an xTR: {type(message).__name__}", event.source)

    def _dropped(self, message: str, reason: str, peer: Address) -> list[Action]:
        return dropped(self._counters, message, reason, peer)

    def _request(self, request: MapRequest, peer: Address, port: int, now: int, *, encapsulated: bool) -> list[Action]:
        if MapRequestFlag.SMR in request.flags:
            needs = set() if MapRequestFlag.DONT_MAP_REPLY in request.flags else {Tolerance.SMR_WITHOUT_D_BIT}
            if missing := needs - self._config.options.tolerate:
                return self._dropped("smr", refusal(missing), peer)
            actions = used(needs, peer, self._counters)
            for requested in request.requests:
                prefix = self._config.prefix_of(requested.eid)
                if prefix is not None:
                    actions += self._itr.solicited(prefix, peer, now)
                else:
                    reason = "unknown AFI or another instance"
                    actions += dropped(self._counters, "smr-record", reason, peer, eid=requested.eid)
            return actions
        if MapRequestFlag.DONT_MAP_REPLY in request.flags:  # RFC 9301 §5.2
            return self._dropped("map-request", "wants no reply", peer)
        if encapsulated and MapRequestFlag.PROBE in request.flags:  # RFC 9301 §5.8: never inside an ECM
            return self._dropped("map-request", "an encapsulated probe", peer)
        found = [record for each in request.requests for record in self._answer(each.eid, now)]
        records = list(dict.fromkeys(found))[:MAX_RECORDS]
        if not records:
            return self._dropped("map-request", "for no EID of this site", peer)
        if MapRequestFlag.PROBE in request.flags:
            # Whoever answers a probe is an ETR, and says so in every record or is not heard (§5.4), also
            # where the mapping is one of an EID that has left.
            records = [replace(each, flags=each.flags | EidRecordFlag.AUTHORITATIVE) for each in records]
        return self._replier.reply(request, tuple(records), peer, port, now)

    def _answer(self, eid: Eid, now: int) -> list[EidRecord]:
        """Our mapping of an EID, or where we sent it on to; the more-specifics with a prefix (RFC 9301 §5.5)."""
        asked = self._config.prefix_of(eid)
        if asked is None:
            return []
        address = asked.network_address
        if found := self._host_record(address, now):
            return [found]
        for prefix in sorted(self._config.eid_prefixes, key=lambda each: -each.prefixlen):
            if address in prefix:
                inside = [self._host_record(host, now) for host in self._presence.hosts_in(prefix)]
                records = [self._registrar.record(prefix, authoritative=True), *(each for each in inside if each)]
                # One TTL for the set, so that it times out as one (§5.5).
                ttl_minutes = min(each.ttl_minutes for each in records)
                return [replace(each, ttl_minutes=ttl_minutes) for each in records]
        return []

    def _host_record(self, eid: Address, now: int) -> EidRecord | None:
        """The mapping of a single EID that is or was here."""
        state = self._presence.state_of(eid)
        if state is PresenceState.LOCAL:
            return self._registrar.record(host_prefix(eid), authoritative=True)
        entry = self._itr.cache.exact(host_prefix(eid)) if state is PresenceState.AWAY else None
        if entry is None or not entry.locators:
            return None
        return forwarded_record(self._config.in_instance(entry.eid), entry, now)


def _in_instance(action: Action, instance_id: int) -> Action:
    if isinstance(action, SetForwarding | ClearForwarding):
        return replace(action, instance_id=instance_id)
    if isinstance(action, Emit) and "eid" in action.values and not isinstance(action.values["eid"], Eid):
        return replace(action, values={**action.values, "instance_id": instance_id})
    return action
