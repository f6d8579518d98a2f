"""Echo-nonce: whether a locator gets our data packets, by what it sends back in its own (RFC 9300 §10.1).

The data plane asks, answers and judges; this says whom it asks and when, and what a judgement does. Traffic in
one direction only says nothing, and one xTR's packets nothing of another's: a locator that sends nothing is never down.
"""

from __future__ import annotations

from collections.abc import Callable

from testbed.lisp.actions import Action, Address, Forwarding, RequestEcho, emit
from testbed.lisp.config import XtrConfig, ns
from testbed.lisp.inputs import NonceEchoed
from testbed.lisp.map_cache import MapCache
from testbed.lisp.reachability import Cause, Reachability
from testbed.lisp.rloc_prober import JITTER, RlocProber

NONCE_MASK = (1 << 24) - 1


class EchoNonce:
    """Asks every locator in use that can echo, once an interval.

    Args:
        config: of the xTR.
        cache: whose locators are asked.
        reachability: is told of those that do not echo.
        prober: finds out who can echo, and who is to be tried again.
        random64: gives 64 random bits.
    """

    def __init__(
        self,
        config: XtrConfig,
        cache: MapCache,
        reachability: Reachability,
        prober: RlocProber,
        random64: Callable[[], int],
    ) -> None:
        options = config.options
        self._on = options.echo_nonce
        self._interval_ns = ns(options.echo_nonce_interval_s)
        self._hold_ns = round(ns(options.rloc_recheck_s) * (1 - JITTER))
        self._cache, self._reachability, self._prober = cache, reachability, prober
        self._random64 = random64
        self._round_ns: int | None = None
        #: Locator → whether it says in Map-Replies that it can echo (E-bit, RFC 9301 §5.4).
        self._capable: dict[Address, bool] = {}
        #: Those with an open request.
        self._asked: set[Address] = set()

    def start(self, now: int) -> None:
        """Begin with the rounds."""
        if self._on:
            self._round_ns = now + self._interval_ns

    def next_deadline(self) -> int | None:
        """When the next round is due."""
        return self._round_ns

    def handle_timer(self, now: int) -> list[Action]:
        """Ask whoever can echo; whether the others can, a probe finds out."""
        if self._round_ns is None or now < self._round_ns:
            return []
        self._round_ns = now + self._interval_ns
        used = {
            locator.rloc: entry.eid
            for entry in self._cache
            if entry.forwarding is Forwarding.REMOTE
            for locator in entry.locators
        }
        actions: list[Action] = [RequestEcho(rloc, None) for rloc in self._asked - used.keys()]
        self._asked &= used.keys()
        self._capable = {rloc: can for rloc, can in self._capable.items() if rloc in used}
        for rloc, eid in used.items():
            if rloc in self._capable:
                actions += self._request(rloc)
            else:
                actions += self._prober.verify(eid, rloc, now)
        return actions

    def probe_answered(self, rloc: Address, capable: bool, now: int) -> list[Action]:
        """A locator answered a probe, and said whether it can echo.

        One that is down because it did not echo is tried again, but not before it was left alone for a
        while: that it answers a probe does not say that data gets there.
        """
        if not self._on:
            return []
        self._capable[rloc] = capable
        since_ns = self._reachability.since(rloc, Cause.ECHO_NONCE)
        if since_ns is None:
            return self._request(rloc)
        if now - since_ns < self._hold_ns:
            return []
        return [*self._reachability.regain(rloc, Cause.ECHO_NONCE, now), *self._request(rloc)]

    def judged(self, event: NonceEchoed, now: int) -> list[Action]:
        """The data plane saw the echo, or a packet that should have brought it."""
        self._asked.discard(event.rloc)
        if event.echoed:
            return [emit("nonce_echoed", mono_ns=event.mono_ns, rloc=event.rloc)]
        self._prober.recheck(event.rloc, now)
        return [
            emit("nonce_not_echoed", mono_ns=event.mono_ns, rloc=event.rloc),
            *self._reachability.lose(event.rloc, Cause.ECHO_NONCE, now),
        ]

    def _request(self, rloc: Address) -> list[Action]:
        """Ask for an echo, unless that is being done, or in vain."""
        down = self._reachability.since(rloc, Cause.ECHO_NONCE) is not None
        if rloc in self._asked or down or not self._capable[rloc]:
            return []
        self._asked.add(rloc)
        return [RequestEcho(rloc, self._random64() & NONCE_MASK), emit("echo_requested", rloc=rloc)]
