"""The ITR: asks the mapping system for what packets need, and keeps the answers in the map-cache.

RFC 9301 §5.2, §5.3 (requests), §5.4, §5.5 (replies), §6.1 (solicitations), §8.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from testbed.lisp.actions import (
    Action,
    Address,
    ClearForwarding,
    Forwarding,
    Inject,
    Prefix,
    SetForwarding,
    emit,
    host_prefix,
)
from testbed.lisp.config import XtrConfig, ns
from testbed.lisp.held import HeldPackets
from testbed.lisp.map_cache import CacheEntry, MapCache
from testbed.lisp.map_version import is_newer
from testbed.lisp.mapping import best_rloc, cache_entry, first_rloc, judge
from testbed.lisp.questions import Questions
from testbed.lisp.reachability import Reachability
from testbed.lisp.refusals import dropped
from testbed.lisp.resolution import Resolution
from testbed.lisp.rloc_prober import Probe
from testbed.lisp.subscriptions import Subscriptions
from testbed.lisp.timing import earliest
from testbed.lisp.wire import Action as MappingAction
from testbed.lisp.wire import EidRecord, MapNotify, MapReply


class Itr:
    """Resolves EIDs and programs what it learns.

    Args:
        config: of the xTR.
        random64: gives 64 random bits, from a properly seeded source (RFC 9301 §5.2).
        override: what this xTR knows better of a prefix: LOCAL, AWAY or None.
        subscription_nonce: the highest ever used for one, from persistent storage, or None.
    """

    def __init__(
        self,
        config: XtrConfig,
        random64: Callable[[], int],
        override: Callable[[Prefix], Forwarding | None],
        subscription_nonce: int | None = None,
    ) -> None:
        self._config = config
        self._override = override
        self.cache = MapCache(config.instance_id)
        self.reachability = Reachability(self.cache, self._reprogram, self._ask, config.fellows)
        options = config.options
        self.subscriptions = Subscriptions(random64, ns(options.resubscribe_s), subscription_nonce)
        self.counters: Counter[str] = Counter()
        self._held = HeldPackets(options.held_packets, options.held_packets_total, self.counters)
        self._questions = Questions(config, random64, self.subscriptions, self._held)

    def miss(self, destination: Address, packet: bytes, now: int) -> list[Action]:
        """A packet waits for a mapping: resolve it, and hold the packet if so configured."""
        entry = self.cache.lookup(destination, now)
        if entry is not None and entry.forwarding in (Forwarding.REMOTE, Forwarding.NATIVE):
            return [Inject(packet)]  # resolved while it was on its way here
        eid, options = host_prefix(destination), self._config.options
        if self._override(eid) is Forwarding.LOCAL:
            return [Inject(packet)]  # it has appeared here while the packet was on its way
        asked = eid in self._questions
        if not asked and len(self._questions) >= options.open_questions:
            self.counters["missed_packets_beyond_open_questions"] += 1
            return []
        if options.on_miss == "hold":
            self._held.hold(destination, packet)
        else:
            self.counters["missed_packets_dropped"] += 1
        if asked:
            return []
        actions: list[Action] = [emit("map_cache_miss", eid=destination)]
        return actions + self._ask(eid, now)

    def want(self, eid: Address, now: int) -> list[Action]:
        """Somebody will need the mapping of an EID soon: ask, unless that has been done or too much is being asked."""
        if len(self._questions) >= self._config.options.open_questions:
            return []
        return self._ask(host_prefix(eid), now)

    def solicited(self, eid: Prefix, peer: Address, now: int) -> list[Action]:
        """A peer says that its mapping changed: ask the mapping system, if we use it (RFC 9301 §6.1)."""
        entry = self.cache.lookup(eid.network_address, now)
        actions: list[Action] = [emit("smr_received", mono_ns=now, eid=eid, peer=peer, cached=entry is not None)]
        if entry is None:
            return actions
        # The entry's own prefix is what is asked about (RFC 9301 §5.2), unless the SMR is narrower.
        asked = eid if eid.prefixlen > entry.eid.prefixlen else entry.eid
        if asked not in self._questions and len(self._questions) >= self._config.options.open_questions:
            self.counters["smrs_beyond_open_questions"] += 1
            return actions
        return actions + self._ask(asked, now, smr_invoked=True)

    def outdated(self, eid: Address, map_version: int, now: int) -> list[Action]:
        """A packet says that there is a newer mapping of an EID: ask, unless it has come meanwhile (RFC 9302 §7.2)."""
        entry = self.cache.lookup(eid, now)
        if entry is None or not entry.map_version or not is_newer(map_version, entry.map_version):
            return []
        return self._ask(entry.eid, now)

    def reply(self, message: MapReply, peer: Address, now: int) -> list[Action]:
        """A Map-Reply: accepted if its nonce is that of an open question, else dropped (RFC 9301 §5.3)."""
        resolution = self._questions.answered_by(message.nonce)
        if resolution is None:
            self.counters["replies_with_unknown_nonce"] += 1
            return [emit("control_dropped", message="map-reply", reason="unknown nonce", peer=peer)]
        if resolution.subscribe and all(_is_denial(record) for record in message.records):
            # RFC 9437 §5 lets us leave the cache as it is. Dropping packets because nobody publishes
            # would be worse than not being told: the next transmission is a plain request.
            resolution.subscribe = False
            self.subscriptions.refused(resolution.eid, now)
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
        judged = judge(message.records, resolution.eid, self._config)
        actions = self._refused(judged.refused, "map-reply", peer)
        if not judged.taken:
            return actions  # no answer: whoever has one may yet send it
        if resolution.subscribe and any(record.locators for record in judged.taken):
            self.subscriptions.refused(resolution.eid, now)
        for record in judged.taken:
            actions.append(
                emit(
                    "map_reply_received", mono_ns=now, eid=record.eid, nonce=hex(message.nonce), peer=peer,
                    ttl_minutes=record.ttl_minutes, rloc=first_rloc(record),
                    transmissions=resolution.transmissions,
                )
            )  # fmt: skip
        return actions + self._answered(resolution, judged.taken, now)

    def probed(self, probe: Probe, records: tuple[EidRecord, ...], now: int) -> list[Action]:
        """A locator answered a probe with its mapping: take what was asked for (RFC 9301 §7.1)."""
        judged = judge(records, probe.eid, self._config)
        actions = self._refused(judged.refused, "map-reply", probe.rloc)
        for record in judged.taken:
            actions += self.install(record, now)
        return actions

    def _refused(self, refused: list[tuple[EidRecord, str]], message: str, peer: Address) -> list[Action]:
        """Count and log the records of a message that are not taken."""
        actions: list[Action] = []
        for record, reason in refused:
            self.counters[f"records_refused: {reason}"] += 1
            actions += dropped(self.counters, f"{message}-record", reason, peer, eid=record.eid)
        return actions

    def _answered(self, resolution: Resolution, records: list[EidRecord], now: int) -> list[Action]:
        """A question is over: take its answer; what it does not let go anywhere is held no more."""
        actions = self._answer(records, now) + self._questions.close(resolution, now)
        for destination in self._held.destinations(resolution.eid):
            if host_prefix(destination) not in self._questions:
                self._held.drop(host_prefix(destination), "held_packets_dropped_by_mapping")
        return actions

    def _answer(self, records: list[EidRecord], now: int) -> list[Action]:
        """Install a whole answer: what is cached inside it and it lacks is no more (RFC 9301 §5.5)."""
        prefixes = {prefix for record in records if (prefix := self._config.prefix_of(record.eid))}
        gone = {entry.eid for prefix in prefixes for entry in self.cache.inside(prefix)} - prefixes
        # Out of the cache first, lest they shorten the answer's life; out of the forwarding when it is there.
        removed = [action for eid in sorted(gone, key=str) for action in self._remove(eid)]
        return [action for record in records for action in self.install(record, now)] + removed

    def notified(self, notify: MapNotify, peer: Address, now: int) -> list[Action] | None:
        """A verified Map-Notify that may confirm a subscription or be a publication (RFC 9437 §5, §6).

        Returns what to do, or None if it is neither.
        """
        resolution = self._questions.answered_by(notify.nonce)
        if resolution is not None:
            self.subscriptions.acknowledged(resolution.eid, notify.nonce, now)
            judged = judge(notify.records, resolution.eid, self._config)
            actions = self._refused(judged.refused, "map-notify", peer)
            actions += self._told(judged.taken, "subscription_acknowledged", notify.nonce, peer, now)
            return actions + self._answered(resolution, judged.taken, now)
        prefixes = [prefix for each in notify.records if (prefix := self._config.prefix_of(each.eid))]
        if not prefixes:
            return None
        first = notify.records[0]
        if first.action == MappingAction.DROP_AUTH_FAILURE and not first.locators:
            # The Map-Server gave up on us: what is cached may be old, so subscribe again.
            return self._ask(prefixes[0], now) if self.subscriptions.ended(prefixes[0], notify.nonce) else []
        elsewhere = [each for each in prefixes if self._override(each) is not Forwarding.LOCAL]
        if not elsewhere:
            return None  # of an EID that is here: a loss (RFC 9437 §6)
        known = self.subscriptions.covering(elsewhere[0])
        if not known and not self.subscriptions.is_last(elsewhere[0], notify.nonce):
            return None
        meant = self.subscriptions.accept(elsewhere[0], notify.nonce)
        if meant is None:
            # What answers the end of a subscription comes under the last nonce too, and is no news.
            reason = "replayed publication" if known else "publication without subscription"
            fields: dict[str, Any] = {"eid": elsewhere[0], "nonce": hex(notify.nonce)}
            return dropped(self.counters, "map-notify", reason, peer, **fields)
        judged = judge(notify.records, meant, self._config)
        actions = [*self.subscriptions.store(), *self._refused(judged.refused, "map-notify", peer)]
        actions += self._told(judged.taken, "publication_received", notify.nonce, peer, now)
        return actions + [action for record in judged.taken for action in self.install(record, now)]

    @staticmethod
    def _told(records: list[EidRecord], kind: str, nonce: int, peer: Address, now: int) -> list[Action]:
        return [
            emit(kind, mono_ns=now, eid=record.eid, nonce=hex(nonce), peer=peer,
                 ttl_minutes=record.ttl_minutes, rloc=first_rloc(record))
            for record in records
        ]  # fmt: skip

    def install(self, record: EidRecord, now: int) -> list[Action]:
        """Take a mapping from a reply, a publication or a notification into the cache and program it."""
        eid = self._config.prefix_of(record.eid)
        if eid is None:
            self.counters["records_of_other_instances"] += 1
            return []
        override = self._override(eid)
        if override is Forwarding.LOCAL:
            self.counters["records_of_local_eids"] += 1
            return []
        old = self.cache.exact(eid)
        if record.ttl_minutes == 0:  # RFC 9301 §5.4: the entry must be removed immediately
            return self._remove(eid)
        # What has left is not a guest of the cache: without an entry, what comes for it would still be delivered here.
        room = override is Forwarding.AWAY or len(self.cache) < self._config.options.map_cache_entries
        if old is None and not room:
            self.counters["map_cache_full"] += 1
            self._held.drop(eid, "held_packets_dropped_by_mapping")
            return [emit("map_cache_refused", eid=eid, reason="full")]
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
        options = self._config.options
        full = len(self.cache) >= options.map_cache_entries or len(self._questions) >= options.open_questions
        if full or self._override(entry.eid) is not None:
            return []
        self.cache.insert(entry)
        return [self._reprogram(entry), *self._ask(entry.eid, now), *self._release(entry.eid, now)]

    def forget(self, eid: Prefix) -> list[Action]:
        """Drop a mapping and its open question because the EID is local now; send on what was held for it."""
        self.cache.remove(eid)
        self._questions.forget(eid)
        self.subscriptions.forget(eid)
        return [Inject(packet) for packet in self._held.take(eid.network_address)]

    def cleared(self, eid: Prefix) -> Action:
        """Take a mapping out of the forwarding; a prefix that is EID space itself is resolved again."""
        if eid in self._config.eid_space:
            return SetForwarding(eid, Forwarding.RESOLVE)
        return ClearForwarding(eid)

    def next_deadline(self) -> int | None:
        """When an entry ends or a question has to be repeated."""
        return earliest(part.next_deadline() for part in (self.cache, self.subscriptions, self._questions))

    def handle_timer(self, now: int) -> list[Action]:
        """End what has ended, repeat what was not answered."""
        actions: list[Action] = []
        for entry in self.cache.expire(now):
            actions.append(self.cleared(entry.eid))
            actions.append(emit("map_cache_expired", eid=entry.eid, old_rloc=best_rloc(entry)))
            actions += self._unsubscribe(entry.eid, now)
        for eid in self.subscriptions.due(now):
            # To ask for what is not cached would bring in a negative entry that nobody needs.
            found = self.cache.lookup(eid.network_address, now)
            cached = found is not None and found.forwarding is Forwarding.REMOTE
            if cached and eid in self._questions:
                self.subscriptions.refused(eid, now)  # nobody has answered the last time yet: ask again after that
            else:
                actions += self._ask(eid, now) if cached else self._unsubscribe(eid, now)
        return actions + self._questions.handle_timer(now)

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
            "resolutions": self._questions.inspect(now),
            "subscriptions": [str(eid) for eid in self.subscriptions.active()],
            "held_packets": self._held.inspect(),
        }

    def _ask(self, eid: Prefix, now: int, *, smr_invoked: bool = False) -> list[Action]:
        return self._questions.ask(eid, now, smr_invoked=smr_invoked)

    def _unsubscribe(self, gone: Prefix, now: int) -> list[Action]:
        """End the subscriptions that nothing is cached under any more."""
        actions: list[Action] = []
        for eid in sorted(self.subscriptions.wanted(gone), key=str):
            if self.cache.lookup(eid.network_address, now) is None and self.subscriptions.forget(eid):
                actions += self._questions.unsubscribe(eid)
        return actions

    def _program(self, entry: CacheEntry, override: Forwarding | None) -> SetForwarding:
        kind = entry.forwarding
        sent_on = override is Forwarding.AWAY and self._config.mechanism.reencapsulate
        if sent_on and kind is Forwarding.REMOTE:
            kind = Forwarding.AWAY
        locators = self.reachability.usable(entry)
        return SetForwarding(entry.eid, kind, locators, entry.expires_ns, map_version=entry.map_version)

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
        for destination in self._held.destinations(eid):
            entry = self.cache.lookup(destination, now)
            packets = self._held.take(destination)
            if entry is not None and entry.forwarding in (Forwarding.REMOTE, Forwarding.NATIVE):
                actions += [Inject(packet) for packet in packets]
            else:
                self.counters["held_packets_dropped_by_mapping"] += len(packets)
        return actions


def _is_denial(record: EidRecord) -> bool:
    """Whether a record says that a subscription failed by policy or for lack of authentication."""
    denials = (MappingAction.DROP_POLICY_DENIED, MappingAction.DROP_AUTH_FAILURE)
    return not record.locators and record.action in denials
