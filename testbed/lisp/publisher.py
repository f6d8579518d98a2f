"""The Map-Server's side of PubSub: who subscribed to what, and telling them (RFC 9437 §5, §6)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from testbed.lisp.actions import Action, Address, eid_fields, emit
from testbed.lisp.nonces import FURTHEST_AHEAD, is_exhausted
from testbed.lisp.notifier import Notifier
from testbed.lisp.ownership import Claimant
from testbed.lisp.prefix_map import PrefixMap
from testbed.lisp.sealing import Secret
from testbed.lisp.wire import MAX_RECORDS, EidPrefix, EidRecord, MapRequest
from testbed.lisp.wire import Action as MappingAction


@dataclass(frozen=True, slots=True)
class SubscriptionKey:
    """A subscription: an xTR and the prefix that it asked for; also who a publication is for."""

    subscriber: Claimant
    eid: EidPrefix


@dataclass(frozen=True, slots=True)
class PublicationKey:
    """A publication that waits for its acknowledgement: of one mapping under one subscription."""

    subscription: SubscriptionKey
    eid: EidPrefix


@dataclass(slots=True)
class Subscription:
    """What is known of a subscriber.

    Attributes:
        nonce: the last that was used either way; a publication takes the next.
        itr_rloc: where Map-Notifies go.
        secret: of the security association (RFC 9437 §7.1: pre-shared, the site's).
        port: UDP port that Map-Notifies go to.
        untold: EID → what its publication said, itself first; as long as that is not acknowledged, the oldest first.
    """

    nonce: int
    itr_rloc: Address
    secret: Secret
    port: int
    untold: dict[EidPrefix, dict[EidPrefix, EidRecord]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subscriber:
    """An xTR that may subscribe: the Map-Server has heard an authentic Map-Register from it."""

    claimant: Claimant
    rloc: Address
    secret: Secret
    port: int
    last_nonce: int  # of its Map-Registers


#: No ITR of ours comes here: each begins below 2^63, and goes on from there. Nothing vouches for a Map-Request
#: (RFC 9437 §7): an xTR goes on from what is signed for it, and would be brought near the end of its nonces.
OUT_OF_REACH = (1 << 63) + FURTHEST_AHEAD


class Publisher:
    """Subscriptions and publications.

    Args:
        notifier: sends Map-Notifies until they are acknowledged.
        subscriber_of: the xTR of an xTR-ID, or None.
        records_of: the mappings that a request for a prefix is answered with.
        limit: subscriptions at most, ended ones among them.
    """

    def __init__(
        self,
        notifier: Notifier,
        subscriber_of: Callable[[MapRequest], Subscriber | None],
        records_of: Callable[[EidPrefix], tuple[EidRecord, ...]],
        limit: int,
    ) -> None:
        self._limit = limit
        self._notifier = notifier
        self._subscriber_of = subscriber_of
        self._records_of = records_of
        self._subscriptions: dict[SubscriptionKey, Subscription] = {}
        #: The active ones by prefix, in the order in which they began.
        self._active: PrefixMap[dict[SubscriptionKey, Subscription]] = PrefixMap()

    def request(
        self, request: MapRequest, eid: EidPrefix, peer: Address, now: int
    ) -> tuple[tuple[EidRecord, ...], list[Action]]:
        """A Map-Request with the N-bit: subscribe, or end a subscription.

        Args:
            request: with the sender's xTR-ID.
            eid: the prefix subscribed to.
            peer: source RLOC of the request.
            now: nanoseconds.

        Returns the records of the Map-Reply that the request gets if it fails, and what to do.
        """
        subscriber = self._subscriber_of(request)
        if subscriber is None:  # no security association to sign Map-Notifies with (RFC 9437 §5, §7.1)
            return (_denied(eid, MappingAction.DROP_AUTH_FAILURE),), []
        if is_exhausted(request.nonce):
            # Nothing vouches for a Map-Request (RFC 9437 §7): whoever wrote this may not be the xTR.
            return (), [
                emit(
                    "control_dropped", message="map-request", reason="nonces exhausted", eid=eid, peer=peer,
                    nonce=hex(request.nonce),
                )
            ]  # fmt: skip
        key = SubscriptionKey(subscriber.claimant, eid)
        known = self._subscriptions.get(key)
        if known is not None and request.nonce <= known.nonce:
            return (), [
                emit(
                    "control_dropped", message="map-request", reason="replayed subscription", eid=eid,
                    peer=peer, nonce=hex(request.nonce), last_nonce=hex(known.nonce),
                )
            ]  # fmt: skip
        unfit = _unfit(request.nonce, subscriber)
        if unfit is not None or (known is None and len(self._subscriptions) >= self._limit):
            refused = emit(
                "subscription_refused", eid=eid, peer=subscriber.rloc, reason=unfit or "full", nonce=hex(request.nonce)
            )
            return self._records_of(eid), [refused]  # RFC 9437 §5: as if it had not asked to subscribe
        ending = request.itr_rlocs == (None,)
        # The request itself is not authenticated: a subscription to somebody else's address would turn
        # us on them, so it must be the one that the xTR registers from.
        if not ending and subscriber.rloc not in request.itr_rlocs:
            return (_denied(eid, MappingAction.DROP_POLICY_DENIED),), []
        self._end(key)
        subscription = Subscription(request.nonce, subscriber.rloc, subscriber.secret, subscriber.port)
        self._subscriptions[key] = subscription
        if not ending:
            same = self._active.get(eid.prefix, eid.instance_id)
            if same is None:
                self._active.set(eid.prefix, same := {}, eid.instance_id)
            same[key] = subscription
        event = emit(
            "subscription_ended" if ending else "subscribed", eid=eid, peer=subscriber.rloc,
            nonce=hex(request.nonce), mono_ns=now,
        )  # fmt: skip
        return (), [event, *self._notify(key, self._records_of(eid), eid, "subscription", now)]

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody has ever subscribed: nothing has to be made ready for nobody."""
        return bool(self._subscriptions)

    def publish(self, record: EidRecord, eid: EidPrefix, owners: Collection[Claimant], now: int) -> list[Action]:
        """Tell every subscriber of an overlapping prefix, its owners apart, that a mapping changed (RFC 9437 §6).

        A subscriber drops what comes under a nonce below its last (§6): a publication that was lost would never be
        heard if a later one, of another EID under a wider prefix, were heard before it is repeated. So a publication
        has with it what was not acknowledged before it.
        """
        actions: list[Action] = []
        overlapping = [row for _, same in self._active.overlapping(eid.prefix, eid.instance_id) for row in same.items()]
        for key, subscription in overlapping:
            untold = subscription.untold
            was_untold = untold.pop(eid, None) is not None
            if key.subscriber in owners:
                # It has the EID itself now and subscribed while that was elsewhere.
                if was_untold:
                    self._notifier.cancel(PublicationKey(key, eid))
                if key.eid == eid:
                    self._end(key)
                continue
            said = {eid: record} | {each: untold[each][each] for each in islice(untold, MAX_RECORDS - 1)}
            untold[eid] = said
            subscription.nonce += 1
            actions += self._notify(key, tuple(said.values()), eid, "publication", now)
        return actions

    def acknowledged(self, key: PublicationKey) -> None:
        """A subscriber knows of a publication, and of what that had with it."""
        untold = self._subscriptions[key.subscription].untold
        for eid, record in untold.pop(key.eid, {}).items():
            if eid in untold and untold[eid][eid] is record:
                del untold[eid]
                self._notifier.cancel(PublicationKey(key.subscription, eid))

    def abandoned(self, key: PublicationKey) -> list[Action]:
        """A subscriber acknowledges nothing: its subscription ends, which it is told once (RFC 9437 §5)."""
        subscription = self._subscriptions[key.subscription]
        if not self._end(key.subscription):
            return []  # told already, with another publication that it does not acknowledge, or ended by itself
        record = _denied(key.subscription.eid, MappingAction.DROP_AUTH_FAILURE)
        return [
            emit("subscription_ended", eid=key.subscription.eid, peer=subscription.itr_rloc, reason="silent"),
            *self._notifier.notify_once(
                subscription.nonce,
                (record,),
                secret=subscription.secret,
                destination=subscription.itr_rloc,
                reason="subscription-ended",
                port=subscription.port,
            ),
        ]

    def inspect(self) -> list[dict[str, Any]]:
        """The subscriptions, for people."""
        return [
            {**eid_fields(key.eid), "subscriber": str(key.subscriber), "itr_rloc": str(each.itr_rloc)}
            for _, _, same in self._active.items()
            for key, each in same.items()
        ]

    def _end(self, key: SubscriptionKey) -> bool:
        """Publish no more under a subscription; its nonce is kept against replays (RFC 9437 §5). Whether there was one.

        What was published and is not acknowledged is repeated no more: a new subscription begins with all that there
        is to know, and would end with the old one's silence.
        """
        same = self._active.get(key.eid.prefix, key.eid.instance_id)
        ended = same.pop(key, None) if same is not None else None
        if ended is None:
            return False
        if not same:
            self._active.pop(key.eid.prefix, key.eid.instance_id)
        for eid in (key.eid, *ended.untold):
            self._notifier.cancel(PublicationKey(key, eid))
        return True

    def _notify(
        self, key: SubscriptionKey, records: tuple[EidRecord, ...], eid: EidPrefix, reason: str, now: int
    ) -> list[Action]:
        subscription = self._subscriptions[key]
        return self._notifier.notify(
            PublicationKey(key, eid),
            subscription.nonce,
            records,
            secret=subscription.secret,
            destination=subscription.itr_rloc,
            reason=reason,
            now=now,
            port=subscription.port,
        )


def _unfit(nonce: int, subscriber: Subscriber) -> str | None:
    """Why nothing may be signed under the nonce of a request that nobody vouches for (RFC 9437 §7), or None.

    The xTR would go on from it: with its subscriptions, or, if it takes it for a fence, with its Map-Registers
    (docs/adr/0003-who-owns-a-moving-eid.md, rules 3 and 8). Its own nonce may be past fences that we have not heard of
    since, hence twice as far as it goes.
    """
    if nonce >= OUT_OF_REACH:
        return "nonce out of reach"
    if subscriber.last_nonce < nonce <= subscriber.last_nonce + 2 * FURTHEST_AHEAD:
        return "nonce of a fence"
    return None


def _denied(eid: EidPrefix, action: MappingAction) -> EidRecord:
    # RFC 9437 §5 gives no TTL for it; one minute lets the xTR try again soon.
    return EidRecord(eid, 1, action=action)
