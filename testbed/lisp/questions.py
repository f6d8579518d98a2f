"""The questions that an ITR has open at the mapping system: asked, repeated, held back (RFC 9301 §5.2, §5.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testbed.lisp.actions import Action, Address, Prefix, SendControl, emit
from testbed.lisp.config import XtrConfig, ns
from testbed.lisp.held import HeldPackets
from testbed.lisp.machine import Machine
from testbed.lisp.resolution import TRANSITIONS, Resolution, ResolutionInput, ResolutionState
from testbed.lisp.subscriptions import Subscriptions
from testbed.lisp.timing import MAX_REQUEST_RETRANSMISSIONS, RateLimiter, earliest
from testbed.lisp.wire import CONTROL_PORT, EncapsulatedControl, MapRequest, MapRequestFlag, RequestedEid

#: A Map-Server drops a subscription in silence whose nonce is not above the last it knows of this xTR (RFC 9437
#: §5), and anybody can have brought it one. After so many, a mapping without a subscription is better than none.
MOST_SUBSCRIPTION_REQUESTS = 3


class Questions:
    """Asks the mapping system.

    Args:
        config: of the xTR.
        random64: gives 64 random bits, from a properly seeded source (RFC 9301 §5.2).
        subscriptions: whose nonces a question with the N-bit takes.
        held: what waits for the answers.
    """

    def __init__(
        self, config: XtrConfig, random64: Callable[[], int], subscriptions: Subscriptions, held: HeldPackets
    ) -> None:
        self._config, self._random64 = config, random64
        self._subscriptions, self._held = subscriptions, held
        self._resolutions: dict[Prefix, Resolution] = {}
        options = config.options
        self._request_limit: RateLimiter[Prefix] = RateLimiter(ns(options.map_request_interval_s))
        self._solicited_limit: RateLimiter[Prefix] = RateLimiter(ns(options.smr_invoked_interval_s))

    def __contains__(self, eid: Prefix) -> bool:
        return eid in self._resolutions

    def __len__(self) -> int:
        return len(self._resolutions)

    def forget(self, eid: Prefix) -> None:
        """Want no answer any more."""
        self._resolutions.pop(eid, None)

    def next_deadline(self) -> int | None:
        """When a question has to be repeated."""
        return earliest(each.deadline for each in self._resolutions.values())

    def handle_timer(self, now: int) -> list[Action]:
        """Repeat what was not answered."""
        actions: list[Action] = []
        for resolution in list(self._resolutions.values()):
            if resolution.deadline <= now:
                actions += self._due(resolution, now)
        return actions

    def inspect(self, now: int) -> list[dict[str, Any]]:
        """The open questions, for people."""
        return [
            {
                "eid": str(each.eid),
                "state": each.machine.state.value,
                "transmissions": each.transmissions,
                "next_s": round((each.deadline - now) / 1e9, 3),
            }
            for each in self._resolutions.values()
        ]

    def ask(self, eid: Prefix, now: int, *, smr_invoked: bool = False) -> list[Action]:
        """Ask for the mapping of a prefix, unless that has been done."""
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

    def answered_by(self, nonce: int) -> Resolution | None:
        """The question that was asked under a nonce, or None."""
        return next((each for each in self._resolutions.values() if nonce in each.nonces), None)

    def close(self, resolution: Resolution, now: int) -> list[Action]:
        """A question is over; ask once more if an SMR came meanwhile."""
        del self._resolutions[resolution.eid]
        return self.ask(resolution.eid, now, smr_invoked=True) if resolution.again else []

    def _due(self, resolution: Resolution, now: int) -> list[Action]:
        """Send, wait for a limiter, or end the pause; sets the next deadline."""
        if resolution.machine.state is ResolutionState.PAUSED:
            self._held.drop(resolution.eid, "held_packets_given_up")
            return self.close(resolution, now)
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
        for limit in (self._request_limit, self._solicited_limit):
            limit.forget_before(now)
        self._request_limit.allow(resolution.eid, now)
        if resolution.smr_invoked and not resolution.transmissions:
            self._solicited_limit.allow(resolution.eid, now)
        nonce = None
        if resolution.subscribe and resolution.transmissions < MOST_SUBSCRIPTION_REQUESTS:
            nonce = self._subscriptions.next_nonce(resolution.eid)
        if resolution.subscribe and nonce is None:
            resolution.subscribe = False
            self._subscriptions.refused(resolution.eid, now)
        subscribe = resolution.subscribe
        nonce = self._random64() if nonce is None else nonce
        resolution.nonces.add(nonce)
        resolvers = self._config.map_resolvers
        resolver = resolvers[resolution.transmissions % len(resolvers)]
        resolution.machine.feed(ResolutionInput.SEND)
        resolution.transmissions += 1
        resolution.deadline = now + next(resolution.delays)
        if resolution.transmissions > MAX_REQUEST_RETRANSMISSIONS:
            resolution.machine.feed(ResolutionInput.EXHAUSTED)
        flags = MapRequestFlag.SMR_INVOKED if resolution.smr_invoked else MapRequestFlag.NONE
        request = self._request(resolution.eid, nonce, self._config.rloc, flags, subscribe=subscribe)
        limiter, resolution.limiter = resolution.limiter, None
        return [
            *self._subscriptions.store(),
            SendControl(self.encapsulated(request, resolution.eid.network_address), resolver),
            emit(
                "map_request_sent", eid=resolution.eid, nonce=hex(nonce), peer=resolver,
                smr_invoked=resolution.smr_invoked, transmission=resolution.transmissions, limiter=limiter,
            ),
        ]  # fmt: skip

    def _request(
        self, eid: Prefix, nonce: int, itr_rloc: Address | None, flags: MapRequestFlag, *, subscribe: bool
    ) -> MapRequest:
        requested = RequestedEid(self._config.in_instance(eid), notify=subscribe)
        return MapRequest(
            nonce, (itr_rloc,), (requested,), flags=flags, xtr=self._config.identity if subscribe else None
        )

    def encapsulated(self, request: MapRequest, destination: Address) -> bytes:
        """A Map-Request in an ECM to the mapping system; the inner destination is the EID (RFC 9301 §5.8)."""
        source = self._config.rloc
        if source.version != destination.version:
            # The inner header is of one family, and then only an address of the EID's can be its source.
            source = next((each for each in self._config.gateways if each.version == destination.version), destination)
        return EncapsulatedControl(source, destination, CONTROL_PORT, request.encode()).encode()

    def unsubscribe(self, eid: Prefix) -> list[Action]:
        """End a subscription: one ITR-RLOC of AFI 0 (RFC 9437 §5).

        It is sent once. If it is lost the Map-Server publishes to us until we acknowledge nothing.
        """
        nonce = self._subscriptions.next_nonce(eid)
        if nonce is None:
            return []
        request = self._request(eid, nonce, None, MapRequestFlag.NONE, subscribe=True)
        resolver = self._config.map_resolvers[0]
        return [
            *self._subscriptions.store(),
            SendControl(self.encapsulated(request, eid.network_address), resolver),
            emit("unsubscribed", eid=eid, peer=resolver, nonce=hex(nonce)),
        ]
