"""The ITR: asks the mapping system for what packets need, and keeps the answers in the map-cache.

RFC 9301 §5.2, §5.3 (requests), §5.4, §5.5 (replies), §6.1 (solicitations), §8.1.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from testbed.lisp.actions import (
    Action,
    Address,
    ClearForwarding,
    Forwarding,
    Inject,
    Prefix,
    SendControl,
    SetForwarding,
    emit,
    host_prefix,
)
from testbed.lisp.config import XtrConfig, ns
from testbed.lisp.machine import Machine
from testbed.lisp.map_cache import CacheEntry, MapCache
from testbed.lisp.map_version import is_newer
from testbed.lisp.mapping import belonging, best_rloc, cache_entry, first_rloc
from testbed.lisp.reachability import Reachability
from testbed.lisp.resolution import TRANSITIONS, Resolution, ResolutionInput, ResolutionState
from testbed.lisp.rloc_prober import Probe
from testbed.lisp.subscriptions import Subscriptions
from testbed.lisp.timing import MAX_REQUEST_RETRANSMISSIONS, RateLimiter, earliest
from testbed.lisp.wire import (
    CONTROL_PORT,
    EidPrefix,
    EidRecord,
    EncapsulatedControl,
    MapNotify,
    MapReply,
    MapRequest,
    MapRequestFlag,
    RequestedEid,
)
from testbed.lisp.wire import Action as MappingAction


class Itr:
    """Resolves EIDs and programs what it learns.

    Args:
        config: of the xTR.
        random64: gives 64 random bits, from a properly seeded source (RFC 9301 §5.2).
        override: what this xTR knows better of a prefix: LOCAL, AWAY or None.
    """

    def __init__(
        self,
        config: XtrConfig,
        random64: Callable[[], int],
        override: Callable[[Prefix], Forwarding | None],
    ) -> None:
        self._config = config
        self._random64 = random64
        self._override = override
        self.cache = MapCache()
        self.reachability = Reachability(self.cache, self._reprogram, self._ask, config.fellows)
        self.subscriptions = Subscriptions(random64)
        self.counters: Counter[str] = Counter()
        self._resolutions: dict[Prefix, Resolution] = {}
        self._held: dict[Address, deque[bytes]] = {}
        options = config.options
        self._request_limit: RateLimiter[Prefix] = RateLimiter(ns(options.map_request_interval_s))
        self._solicited_limit: RateLimiter[Prefix] = RateLimiter(ns(options.smr_invoked_interval_s))

    def miss(self, destination: Address, packet: bytes, now: int) -> list[Action]:
        """A packet waits for a mapping: resolve it, and hold the packet if so configured."""
        entry = self.cache.lookup(destination, now)
        if entry is not None and entry.forwarding in (Forwarding.REMOTE, Forwarding.NATIVE):
            return [Inject(packet)]  # resolved while it was on its way here
        if self._config.options.on_miss == "hold":
            held = self._held.setdefault(destination, deque())
            held.append(packet)
            if len(held) > self._config.options.held_packets:
                held.popleft()
                self.counters["held_packets_overflowed"] += 1
        else:
            self.counters["missed_packets_dropped"] += 1
        eid = host_prefix(destination)
        if eid in self._resolutions:
            return []
        actions: list[Action] = [emit("map_cache_miss", eid=destination)]
        return actions + self._ask(eid, now)

    def want(self, eid: Address, now: int) -> list[Action]:
        """Somebody will need the mapping of an EID soon: ask, unless that has been done."""
        return self._ask(host_prefix(eid), now)

    def solicited(self, eid: Prefix, peer: Address, now: int) -> list[Action]:
        """A peer says that its mapping changed: ask the mapping system, if we use it (RFC 9301 §6.1)."""
        entry = self.cache.lookup(eid.network_address, now)
        actions: list[Action] = [emit("smr_received", mono_ns=now, eid=eid, peer=peer, cached=entry is not None)]
        if entry is None:
            return actions
        # The entry's own prefix is what is asked about (RFC 9301 §5.2), unless the SMR is narrower.
        asked = eid if eid.prefixlen > entry.eid.prefixlen else entry.eid
        return actions + self._ask(asked, now, smr_invoked=True)

    def outdated(self, eid: Address, map_version: int, now: int) -> list[Action]:
        """A packet says that there is a newer mapping of an EID: ask, unless it has come meanwhile (RFC 9302 §7.2)."""
        entry = self.cache.lookup(eid, now)
        if entry is None or not entry.map_version or not is_newer(map_version, entry.map_version):
            return []
        return self._ask(entry.eid, now)

    def reply(self, message: MapReply, peer: Address, now: int) -> list[Action]:
        """A Map-Reply: accepted if its nonce is that of an open question, else dropped (RFC 9301 §5.3)."""
        resolution = self._answered_by(message.nonce)
        if resolution is None:
            self.counters["replies_with_unknown_nonce"] += 1
            return [emit("control_dropped", message="map-reply", reason="unknown nonce", peer=peer)]
        if resolution.subscribe and all(_is_denial(record) for record in message.records):
            # RFC 9437 §5 lets us leave the cache as it is. Dropping packets because nobody publishes
            # would be worse than not being told: the next transmission is a plain request.
            resolution.subscribe = False
            return [
                emit(
                    "subscription_denied",
                    mono_ns=now,
                    eid=resolution.eid,
                    peer=peer,
                    nonce=hex(message.nonce),
                )
            ]
        # A mapping of something that was not asked for would be an injection (RFC 9301 §9).
        records = belonging(message.records, resolution.eid)
        actions: list[Action] = []
        for record in records:
            actions.append(
                emit(
                    "map_reply_received", mono_ns=now, eid=record.eid, nonce=hex(message.nonce), peer=peer,
                    ttl_minutes=record.ttl_minutes, rloc=first_rloc(record),
                    transmissions=resolution.transmissions,
                )
            )  # fmt: skip
        for record in records:
            actions += self.install(record, now)
        return actions + self._close(resolution, now)

    def probed(self, probe: Probe, records: tuple[EidRecord, ...], now: int) -> list[Action]:
        """A locator answered a probe with its mapping: take what was asked for (RFC 9301 §7.1)."""
        actions: list[Action] = []
        for record in belonging(records, probe.eid):
            actions += self.install(record, now)
        return actions

    def notified(self, notify: MapNotify, peer: Address, now: int) -> list[Action] | None:
        """A verified Map-Notify that may confirm a subscription or be a publication (RFC 9437 §5, §6).

        Returns what to do, or None if it is neither.
        """
        resolution = self._answered_by(notify.nonce)
        if resolution is not None:
            self.subscriptions.acknowledged(resolution.eid, notify.nonce)
            records = belonging(notify.records, resolution.eid)
            actions = self._take(records, "subscription_acknowledged", notify.nonce, peer, now)
            return actions + self._close(resolution, now)
        prefixes = [each.eid.prefix for each in notify.records if isinstance(each.eid, EidPrefix)]
        if not prefixes or not self.subscriptions.covering(prefixes[0]):
            return None
        first = notify.records[0]
        if first.action == MappingAction.DROP_AUTH_FAILURE and not first.locators:
            # The Map-Server gave up on us: what is cached may be old, so subscribe again.
            if self.subscriptions.ended(prefixes[0], notify.nonce):
                return self._ask(prefixes[0], now)
            return []
        if self.subscriptions.accept(prefixes[0], notify.nonce) is None:
            self.counters["publications_not_newer"] += 1
            return [
                emit("control_dropped", message="map-notify", reason="replayed publication",
                     eid=prefixes[0], nonce=hex(notify.nonce), peer=peer)
            ]  # fmt: skip
        return self._take(list(notify.records), "publication_received", notify.nonce, peer, now)

    def _take(self, records: list[EidRecord], kind: str, nonce: int, peer: Address, now: int) -> list[Action]:
        """Say what came, then install it."""
        actions: list[Action] = [
            emit(kind, mono_ns=now, eid=record.eid, nonce=hex(nonce), peer=peer,
                 ttl_minutes=record.ttl_minutes, rloc=first_rloc(record))
            for record in records
        ]  # fmt: skip
        for record in records:
            actions += self.install(record, now)
        return actions

    def install(self, record: EidRecord, now: int) -> list[Action]:
        """Take a mapping from a reply, a publication or a notification into the cache and program it."""
        if not isinstance(record.eid, EidPrefix) or record.eid.instance_id != 0:
            self.counters["records_of_other_instances"] += 1
            return []
        eid = record.eid.prefix
        override = self._override(eid)
        if override is Forwarding.LOCAL:
            self.counters["records_of_local_eids"] += 1
            return []
        old = self.cache.exact(eid)
        if record.ttl_minutes == 0:  # RFC 9301 §5.4: the entry must be removed immediately
            return self._remove(eid)
        superseded = [self.cleared(each) for each in self.cache.remove_gleaned(eid)]
        entry = self.cache.insert(cache_entry(record, eid, now, ns(self._config.options.local_cache_ttl_s)))
        programmed = self._program(entry, override)
        actions: list[Action] = [programmed, *superseded]
        if not entry.same_mapping(old):
            actions.append(
                emit(
                    "map_cache_changed", eid=eid, rloc=best_rloc(entry), old_rloc=old and best_rloc(old),
                    forwarding=programmed.forwarding, ttl_minutes=record.ttl_minutes,
                    locators=[each.rloc for each in entry.locators],
                )
            )  # fmt: skip
        return actions + self._release(eid, now)

    def glean(self, entry: CacheEntry, now: int) -> list[Action]:
        """Use a guess until the mapping system has said what is right, which is asked (RFC 9300 §9)."""
        if self._override(entry.eid) is not None:
            return []
        self.cache.insert(entry)
        return [self._reprogram(entry), *self._ask(entry.eid, now), *self._release(entry.eid, now)]

    def forget(self, eid: Prefix) -> list[Action]:
        """Drop a mapping and its open question because the EID is local now; send on what was held for it."""
        self.cache.remove(eid)
        self._resolutions.pop(eid, None)
        self.subscriptions.forget(eid)
        packets = self._held.pop(eid.network_address, ())
        return [Inject(packet) for packet in packets]

    def cleared(self, eid: Prefix) -> Action:
        """Take a mapping out of the forwarding; a prefix that is EID space itself is resolved again."""
        if eid in self._config.eid_space:
            return SetForwarding(eid, Forwarding.RESOLVE)
        return ClearForwarding(eid)

    def next_deadline(self) -> int | None:
        """When an entry ends or a question has to be repeated."""
        return earliest([self.cache.next_deadline(), *(each.deadline for each in self._resolutions.values())])

    def handle_timer(self, now: int) -> list[Action]:
        """End what has ended, repeat what was not answered."""
        actions: list[Action] = []
        for entry in self.cache.expire(now):
            actions.append(self.cleared(entry.eid))
            actions.append(emit("map_cache_expired", eid=entry.eid, old_rloc=best_rloc(entry)))
        for resolution in list(self._resolutions.values()):
            if resolution.deadline <= now:
                actions += self._due(resolution, now)
        return actions

    def inspect(self, now: int) -> dict[str, Any]:
        """Cache and open questions, for people."""
        return {
            "map_cache": [
                {
                    "eid": str(entry.eid),
                    "forwarding": entry.forwarding.value,
                    "locators": self.reachability.inspect(entry),
                    "remaining_s": round((entry.expires_ns - now) / 1e9, 3),
                    "map_version": entry.map_version,
                    "gleaned": entry.gleaned,
                }
                for entry in self.cache
            ],
            "resolutions": [
                {
                    "eid": str(each.eid),
                    "state": each.machine.state.value,
                    "transmissions": each.transmissions,
                    "next_s": round((each.deadline - now) / 1e9, 3),
                }
                for each in self._resolutions.values()
            ],
            "subscriptions": [str(eid) for eid in self.subscriptions.active()],
            "held_packets": {str(eid): len(packets) for eid, packets in self._held.items()},
        }

    def _ask(self, eid: Prefix, now: int, *, smr_invoked: bool = False) -> list[Action]:
        resolution = self._resolutions.get(eid)
        if resolution is not None:
            # One that still waits to be sent will learn of the change; of one that was sent, the answer
            # may be on its way with the old mapping.
            resolution.smr_invoked |= smr_invoked
            resolution.again |= smr_invoked and resolution.machine.state is not ResolutionState.HELD_BACK
            return []
        machine = Machine(TRANSITIONS, ResolutionState.HELD_BACK)
        subscribe = self._config.mechanism.subscribe
        resolution = Resolution(eid, machine, now, smr_invoked=smr_invoked, subscribe=subscribe)
        self._resolutions[eid] = resolution
        return self._due(resolution, now)

    def _answered_by(self, nonce: int) -> Resolution | None:
        return next((each for each in self._resolutions.values() if nonce in each.nonces), None)

    def _close(self, resolution: Resolution, now: int) -> list[Action]:
        """A question is over; ask once more if an SMR came meanwhile."""
        del self._resolutions[resolution.eid]
        return self._ask(resolution.eid, now, smr_invoked=True) if resolution.again else []

    def _due(self, resolution: Resolution, now: int) -> list[Action]:
        """Send, wait for a limiter, or end the pause; sets the next deadline."""
        if resolution.machine.state is ResolutionState.PAUSED:
            dropped = [self._held.pop(eid) for eid in list(self._held) if eid in resolution.eid]
            self.counters["held_packets_given_up"] += sum(map(len, dropped))
            return self._close(resolution, now)
        ready = self._request_limit.ready_at(resolution.eid, now)
        limiter = "map_request_interval_s"
        if resolution.smr_invoked and not resolution.transmissions:
            solicited_ready = self._solicited_limit.ready_at(resolution.eid, now)
            if solicited_ready > ready:
                ready, limiter = solicited_ready, "smr_invoked_interval_s"
        if ready > now:
            resolution.machine.feed(ResolutionInput.HOLD)
            resolution.deadline, resolution.limiter = ready, limiter
            return []
        return self._send(resolution, now)

    def _send(self, resolution: Resolution, now: int) -> list[Action]:
        self._request_limit.allow(resolution.eid, now)
        if resolution.smr_invoked and not resolution.transmissions:
            self._solicited_limit.allow(resolution.eid, now)
        subscribe = resolution.subscribe
        nonce = self.subscriptions.next_nonce(resolution.eid) if subscribe else self._random64()
        resolution.nonces.add(nonce)
        resolvers = self._config.map_resolvers
        resolver = resolvers[resolution.transmissions % len(resolvers)]
        resolution.machine.feed(ResolutionInput.SEND)
        resolution.transmissions += 1
        resolution.deadline = now + next(resolution.delays)
        if resolution.transmissions > MAX_REQUEST_RETRANSMISSIONS:
            resolution.machine.feed(ResolutionInput.EXHAUSTED)
        request = MapRequest(
            nonce,
            (self._config.rloc,),
            (RequestedEid(EidPrefix(resolution.eid), notify=subscribe),),
            flags=MapRequestFlag.SMR_INVOKED if resolution.smr_invoked else MapRequestFlag.NONE,
            xtr=self._config.identity if subscribe else None,
        )
        limiter, resolution.limiter = resolution.limiter, None
        return [
            SendControl(self.encapsulated(request, resolution.eid.network_address), resolver),
            emit(
                "map_request_sent", eid=resolution.eid, nonce=hex(nonce), peer=resolver,
                smr_invoked=resolution.smr_invoked, transmission=resolution.transmissions, limiter=limiter,
            ),
        ]  # fmt: skip

    def encapsulated(self, request: MapRequest, destination: Address) -> bytes:
        """A Map-Request in an ECM to the mapping system; the inner destination is the EID (RFC 9301 §5.8)."""
        source = self._config.rloc
        if source.version != destination.version:
            # The inner header is of one family, and then only an address of the EID's can be its source.
            source = next((each for each in self._config.gateways if each.version == destination.version), destination)
        return EncapsulatedControl(source, destination, CONTROL_PORT, request.encode()).encode()

    def _program(self, entry: CacheEntry, override: Forwarding | None) -> SetForwarding:
        kind = entry.forwarding
        sent_on = override is Forwarding.AWAY and self._config.mechanism.reencapsulate
        if sent_on and kind is Forwarding.REMOTE:
            kind = Forwarding.AWAY
        locators = self.reachability.usable(entry)
        return SetForwarding(entry.eid, kind, locators, entry.expires_ns, entry.instance_id, entry.map_version)

    def _reprogram(self, entry: CacheEntry) -> SetForwarding:
        return self._program(entry, self._override(entry.eid))

    def _remove(self, eid: Prefix) -> list[Action]:
        old = self.cache.remove(eid)
        if old is None:
            return []
        return [
            self.cleared(eid),
            emit("map_cache_changed", eid=eid, old_rloc=best_rloc(old), forwarding="removed", ttl_minutes=0),
        ]

    def _release(self, eid: Prefix, now: int) -> list[Action]:
        actions: list[Action] = []
        for destination in [each for each in self._held if each in eid]:
            entry = self.cache.lookup(destination, now)
            packets = self._held.pop(destination)
            if entry is not None and entry.forwarding in (Forwarding.REMOTE, Forwarding.NATIVE):
                actions += [Inject(packet) for packet in packets]
            else:
                self.counters["held_packets_dropped_by_mapping"] += len(packets)
        return actions


def _is_denial(record: EidRecord) -> bool:
    """Whether a record says that a subscription failed by policy or for lack of authentication."""
    denials = (MappingAction.DROP_POLICY_DENIED, MappingAction.DROP_AUTH_FAILURE)
    return not record.locators and record.action in denials
