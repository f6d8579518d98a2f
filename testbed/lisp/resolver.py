"""Answers Map-Requests from the registrations: proxy replies, forwarding, negative replies.

RFC 9301 §8.3 (Map-Server), §8.4 (Map-Resolver), §5.5 (which prefixes are returned).
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import replace

from testbed.lisp.actions import MINUTE_NS, Action, Address, SendControl, emit, host_prefix
from testbed.lisp.config import MapServerConfig, ns
from testbed.lisp.inputs import ControlReceived
from testbed.lisp.prefix_map import PrefixMap, uncovered_prefix
from testbed.lisp.publisher import Publisher
from testbed.lisp.refusals import dropped
from testbed.lisp.registry import Registration, Registry
from testbed.lisp.replier import Replier, itr_rloc_for
from testbed.lisp.wire import (
    MAX_RECORDS,
    EidPrefix,
    EidRecord,
    EncapsulatedControl,
    LocatorFlag,
    MapRequest,
    MapRequestFlag,
    RlocRecord,
)
from testbed.lisp.wire import Action as MappingAction

#: A Map-Resolver must drop these (RFC 9301 §5.2). A plain integer, since every operation on an `IntFlag` is slow.
_DROPPED = int(MapRequestFlag.PROBE | MapRequestFlag.SMR)


class Askers:
    """What was given out to whom, and until when it may be in use. Nothing vouches for who asks, so it is bounded.

    Args:
        limit: of all askers of all prefixes; more are not noted, until others are over.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: prefix → ITR-RLOC → nanoseconds.
        self._given: PrefixMap[dict[Address, int]] = PrefixMap()
        #: (nanoseconds, serial, prefix, ITR-RLOC), one for each asker of each prefix; who asks again has a later end.
        self._ends: list[tuple[int, int, EidPrefix, Address]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._ends)

    def note(self, eid: EidPrefix, itr_rloc: Address, until: int, now: int) -> bool:
        """Somebody has a mapping now; False if there is no room for that."""
        self._forget_before(now)
        given = self._given.get(eid.prefix, eid.instance_id)
        if given is None or itr_rloc not in given:
            if len(self) >= self._limit:
                return False
            self._push(until, eid, itr_rloc)
        if given is None:
            self._given.set(eid.prefix, given := {}, eid.instance_id)
        given[itr_rloc] = until
        return True

    def of(self, eid: EidPrefix, now: int) -> list[Address]:
        """The ITR-RLOCs that may still use an answer that covered an EID."""
        overlapping = self._given.overlapping(eid.prefix, eid.instance_id)
        found = {rloc for _, given in overlapping for rloc, until in given.items() if until > now}
        return sorted(found, key=lambda rloc: (rloc.version, int(rloc)))

    def _push(self, until: int, eid: EidPrefix, itr_rloc: Address) -> None:
        self._serial += 1
        heapq.heappush(self._ends, (until, self._serial, eid, itr_rloc))

    def _forget_before(self, now: int) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, _, eid, itr_rloc = heapq.heappop(self._ends)
            given = self._given.get(eid.prefix, eid.instance_id)
            assert given is not None
            if given[itr_rloc] > now:
                self._push(given[itr_rloc], eid, itr_rloc)
                continue
            del given[itr_rloc]
            if not given:
                self._given.pop(eid.prefix, eid.instance_id)


class Resolver:
    """The Map-Resolver's side of a mapping system that is one machine.

    Args:
        config: of the Map-Server.
        registry: its registrations.
        publisher: takes requests with the N-bit.
    """

    def __init__(self, config: MapServerConfig, registry: Registry, publisher: Publisher) -> None:
        self._publisher = publisher
        self._config = config
        self._registry = registry
        self._replier = Replier(config.rloc, ns(config.options.map_reply_interval_s))
        self.counters: Counter[str] = Counter()
        self._askers = Askers(config.options.askers)

    def request(
        self, request: MapRequest, outer: EncapsulatedControl, event: ControlReceived, now: int
    ) -> list[Action]:
        """Answer an encapsulated Map-Request, or forward it to the ETR.

        Args:
            request: what was asked.
            outer: the message it came in; its inner source port is where the answer goes.
            event: the datagram.
            now: nanoseconds.
        """
        if int(request.flags) & _DROPPED:
            return dropped(self.counters, "map-request", "probe or SMR", event.source)
        actions: list[Action] = []
        answer: list[EidRecord] = []
        etrs: dict[Address, Registration] = {}
        for requested in request.requests:
            actions.append(
                emit(
                    "map_request_received", eid=requested.eid, nonce=hex(request.nonce), peer=event.source,
                    smr_invoked=MapRequestFlag.SMR_INVOKED in request.flags, mono_ns=now,
                )
            )  # fmt: skip
            if not isinstance(requested.eid, EidPrefix):
                actions += dropped(self.counters, "map-request-record", "unknown AFI", event.source, eid=requested.eid)
                continue
            found = self._registry.best(requested.eid)
            matching = [found] if found is not None else self._registry.inside(requested.eid)
            if requested.notify and found is not None:
                # RFC 9437 §5: the Map-Notify is the answer; without a mapping, a negative reply is.
                instead, told = self._publisher.request(request, requested.eid, event.source, now)
                actions += told
                answer += [record for record in instead if record not in answer]
            elif matching and not (self._config.options.proxy_reply and any(each.proxy for each in matching)):
                self._note(request, tuple(each.record for each in matching), now)
                etrs.update((each.rloc, each) for each in matching)
            else:
                records = self._records(requested.eid, found)
                if matching:  # what is not there is denied for minutes, to whoever makes up an EID to ask for
                    self._note(request, records, now)
                answer += [record for record in records if record not in answer]
        if answer:
            port = outer.source_port
            actions += self._replier.reply(request, tuple(answer[:MAX_RECORDS]), event.source, port, now)
        for registration in etrs.values():
            # The whole request goes to each ETR that has some of it, which answers what it has.
            actions += self._forward(outer, registration)
        return actions

    def records(self, eid: EidPrefix) -> tuple[EidRecord, ...]:
        """The mapping of a prefix and the more-specifics inside it, or a negative one (RFC 9301 §5.5)."""
        return self._records(eid, self._registry.best(eid))

    def _records(self, eid: EidPrefix, found: Registration | None) -> tuple[EidRecord, ...]:
        """`records`, of a prefix whose best registration has been found."""
        if found is None:
            # Of a prefix that is registered in parts, the parts are what there is to say.
            parts = [each.record for each in self._registry.inside(eid)[:MAX_RECORDS]]
            ttl = min((self._config.options.registration_ttl_minutes or each.ttl_minutes for each in parts), default=0)
            return tuple(self.proxied(each, ttl) for each in parts) or (self.negative(eid),)
        ttl_minutes = self._config.options.registration_ttl_minutes or found.record.ttl_minutes
        matching = [found, *self._registry.inside(found.eid)]
        if len(matching) > MAX_RECORDS:
            # What no message holds is answered for as much around the EID as touches none of the more-specifics.
            part = self._registry.hole(eid.prefix.network_address, found.eid)
            return (self.proxied(replace(found.record, eid=part), ttl_minutes),)
        # One TTL for the set, so that it times out as one (RFC 9301 §5.5).
        return tuple(self.proxied(each.record, ttl_minutes) for each in matching)

    def negative(self, eid: EidPrefix) -> EidRecord:
        """Why there is no mapping of a prefix, and for how long that holds (RFC 9301 §8.3)."""
        address = eid.prefix.network_address
        options = self._config.options
        sites = [site for site in self._config.sites if site.instance_id == eid.instance_id]
        dynamic = [each for site in sites for each in site.dynamic_eid_prefixes]
        static = [each for site in sites for each in site.eid_prefixes]
        hole, ttl_minutes = uncovered_prefix(address, dynamic + static), options.hole_ttl_minutes
        if any(address in prefix for prefix in dynamic):
            # Its neighbours may be registered any moment, one by one: deny this one EID only.
            hole, ttl_minutes = host_prefix(address), options.unregistered_ttl_minutes
        elif any(address in prefix for prefix in static):
            delegated = max((each for each in static if address in each), key=lambda each: each.prefixlen)
            hole = self._registry.hole(address, EidPrefix(delegated, eid.instance_id)).prefix
            # Nor does it cover what others may register in there at any moment.
            around = uncovered_prefix(address, [each for each in dynamic + static if address not in each])
            hole = max(hole, around, key=lambda each: each.prefixlen)
            ttl_minutes = options.unregistered_ttl_minutes
        return EidRecord(EidPrefix(hole, eid.instance_id), ttl_minutes, action=MappingAction.NATIVELY_FORWARD)

    def askers(self, eid: EidPrefix, now: int) -> list[Address]:
        """The ITR-RLOCs that may still use an answer that covered an EID."""
        return self._askers.of(eid, now)

    def _note(self, request: MapRequest, records: tuple[EidRecord, ...], now: int) -> None:
        if not self._config.mechanism.smr_from_map_server:
            return  # nobody will ask
        itr_rloc = itr_rloc_for(request, self._config.rloc)
        for record in records:
            if itr_rloc is not None and isinstance(record.eid, EidPrefix):
                until = now + record.ttl_minutes * MINUTE_NS
                if not self._askers.note(record.eid, itr_rloc, until, now):
                    self.counters["askers_not_noted"] += 1

    def proxied(self, record: EidRecord, ttl_minutes: int | None = None) -> EidRecord:
        """A registered mapping as a proxy gives it: not authoritative, no locator local (§5.4, §8.2)."""
        if ttl_minutes is None:
            ttl_minutes = self._config.options.registration_ttl_minutes or record.ttl_minutes
        return EidRecord(
            record.eid,
            ttl_minutes,
            tuple(_nobodys(locator) for locator in record.locators),
            record.action,
            map_version=record.map_version,
        )

    def _forward(self, outer: EncapsulatedControl, registration: Registration) -> list[Action]:
        """Hand a request on to the ETR, unaltered inside, so that the answer goes to the ITR (§8.3)."""
        self.counters["requests_forwarded"] += 1
        return [
            SendControl(outer.encode(), registration.rloc),
            emit("map_request_forwarded", eid=registration.eid, peer=registration.rloc),
        ]


def _nobodys(locator: RlocRecord) -> RlocRecord:
    """A locator as somebody gives it whose own it is not: without L-bit and p-bit."""
    flags = LocatorFlag.REACHABLE if LocatorFlag.REACHABLE in locator.flags else LocatorFlag.NONE
    if flags == locator.flags:
        return locator
    # `dataclasses.replace` would say it shorter; this is done for each answer.
    return RlocRecord(
        locator.rloc, locator.priority, locator.weight, locator.multicast_priority, locator.multicast_weight, flags
    )
