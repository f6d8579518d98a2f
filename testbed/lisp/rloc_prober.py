"""RLOC-probing: an ITR asks the locators that it uses whether they are there (RFC 9301 §7.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from testbed.lisp.actions import CONTROL_PORT, Action, Address, Forwarding, Prefix, SendControl, emit
from testbed.lisp.config import XtrConfig, ns
from testbed.lisp.map_cache import MapCache
from testbed.lisp.reachability import Cause, Reachability
from testbed.lisp.timing import RateLimiter, earliest
from testbed.lisp.wire import (
    EidRecordFlag,
    MapReply,
    MapRequest,
    MapRequestFlag,
    RequestedEid,
)

#: The timer is jittered by up to this share of the interval, either way (RFC 9301 §7.1).
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe that was sent and not answered.

    Attributes:
        eid: the prefix that was asked for.
        rloc: the locator that was asked.
        sent_ns: when.
        counts: whether its loss counts against the locator; of those that ask one locator for several
            prefixes at once, one does.
    """

    eid: Prefix
    rloc: Address
    sent_ns: int
    counts: bool


class RlocProber:
    """Probes the locators of the mappings in the cache.

    Once an interval each is asked, under the mechanism `rloc-probe` for every mapping that has it, since the answer
    is news of the mapping then; else for one. What is not answered in time is repeated at once, and after some
    losses in a row the locator is down. One that is down is asked at its own interval until it answers.

    Args:
        config: of the xTR, with the limits in its options.
        cache: whose mappings are probed.
        reachability: is told of what does not answer.
        random64: gives 64 random bits.
    """

    def __init__(
        self, config: XtrConfig, cache: MapCache, reachability: Reachability, random64: Callable[[], int]
    ) -> None:
        options = config.options
        self._rloc, self._cache, self._reachability, self._random64 = config.rloc, cache, reachability, random64
        self._in_instance = config.in_instance
        self._every_mapping = config.mechanism.probe_interval_s > 0
        self._interval_ns = ns(config.mechanism.probe_interval_s or options.rloc_probe_interval_s)
        self._timeout_ns, self._recheck_ns = ns(options.rloc_probe_timeout_s), ns(options.rloc_recheck_s)
        self._losses = options.rloc_probe_losses
        self._doubts: RateLimiter[Address] = RateLimiter(self._timeout_ns)
        #: The site's other xTRs are asked for what they share, where their state is told to others.
        shared = config.eid_prefixes[:1] if options.locator_status_bits != "none" else ()
        self._fellows = [(eid, rloc) for eid in shared for rloc in config.fellows]
        self._round_ns: int | None = None
        #: Nonce → probe, in the order of their sending.
        self._open: dict[int, Probe] = {}
        #: Locators with an open probe that counts.
        self._asked: set[Address] = set()
        self._lost: dict[Address, int] = {}
        #: Locators that are down → when they are asked again.
        self._rechecks: dict[Address, int] = {}

    def start(self, now: int) -> None:
        """Begin with the rounds."""
        if self._interval_ns:
            self._round_ns = now + self._jittered(self._interval_ns)

    def next_deadline(self) -> int | None:
        """When a round, a repetition or a question to a locator that is down is due."""
        first = next(iter(self._open.values()), None)
        timeout_ns = None if first is None else first.sent_ns + self._timeout_ns
        return earliest([self._round_ns, timeout_ns, *self._rechecks.values()])

    def handle_timer(self, now: int) -> list[Action]:
        """Report what was not answered, and send what is due."""
        actions: list[Action] = []
        for nonce, probe in list(self._open.items()):
            if probe.sent_ns + self._timeout_ns > now:
                break
            actions += self._unanswered(nonce, probe, now)
        for rloc in [rloc for rloc, due_ns in self._rechecks.items() if due_ns <= now]:
            actions += self._recheck(rloc, now)
        if self._round_ns is not None and self._round_ns <= now:
            self._round_ns = now + self._jittered(self._interval_ns)
            for eid, rloc in self._targets():
                actions += self._send(eid, rloc, now)
        return actions

    def verify(self, eid: Prefix, rloc: Address, now: int) -> list[Action]:
        """Ask a locator now, because something makes its state doubtful; unless it is being asked.

        At most once in the time that a probe may take: who sends doubts is not to make us send as much.
        """
        self._doubts.forget_before(now)
        if rloc in self._asked or not self._doubts.allow(rloc, now):
            return []
        return self._send(eid, rloc, now)

    def recheck(self, rloc: Address, now: int) -> None:
        """Ask a locator that something else has taken down, after the interval of those that are down."""
        self._rechecks[rloc] = now + self._jittered(self._recheck_ns)

    def answered(self, reply: MapReply, peer: Address, now: int) -> tuple[Probe | None, list[Action]]:
        """A Map-Reply with the probe-bit.

        Returns the probe that it answers, or None if it is to be dropped, and what to do about the locator.
        """
        authoritative = all(EidRecordFlag.AUTHORITATIVE in record.flags for record in reply.records)
        probe = self._open.pop(reply.nonce, None) if authoritative else None
        if probe is None:  # RFC 9301 §5.4: without the A-bit it must be discarded silently
            return None, []
        if probe.counts:
            self._asked.discard(probe.rloc)
        self._lost.pop(probe.rloc, None)
        if self._reachability.since(probe.rloc, Cause.ECHO_NONCE) is None:
            self._rechecks.pop(probe.rloc, None)
        return probe, [
            emit(
                "rloc_probe_answered", mono_ns=now, eid=probe.eid, peer=peer, nonce=hex(reply.nonce),
                rtt_ms=(now - probe.sent_ns) / 1e6,
            ),
            *self._reachability.regain(probe.rloc, Cause.RLOC_PROBE, now),
        ]  # fmt: skip

    def _targets(self) -> list[tuple[Prefix, Address]]:
        pairs = [
            (entry.eid, locator.rloc)
            for entry in self._cache
            if entry.forwarding is Forwarding.REMOTE
            for locator in entry.locators
        ]
        if not self._every_mapping:
            one: dict[Address, Prefix] = {}
            for eid, rloc in pairs:
                one.setdefault(rloc, eid)
            pairs = [(eid, rloc) for rloc, eid in one.items()]
        return self._fellows + pairs

    def _unanswered(self, nonce: int, probe: Probe, now: int) -> list[Action]:
        del self._open[nonce]
        if not probe.counts:
            return [emit("rloc_probe_unanswered", eid=probe.eid, peer=probe.rloc)]
        self._asked.discard(probe.rloc)
        lost = self._lost[probe.rloc] = self._lost.get(probe.rloc, 0) + 1
        actions: list[Action] = [emit("rloc_probe_unanswered", eid=probe.eid, peer=probe.rloc, in_a_row=lost)]
        eid = self._eid_of(probe.rloc)
        if eid is None:
            self._lost.pop(probe.rloc, None)
            return actions
        if not self._losses:
            if self._reachability.since(probe.rloc, Cause.ECHO_NONCE) is not None:
                self.recheck(probe.rloc, now)
            return actions
        if lost < self._losses:
            return actions + self._send(eid, probe.rloc, now)
        self.recheck(probe.rloc, now)
        return actions + self._reachability.lose(probe.rloc, Cause.RLOC_PROBE, now)

    def _recheck(self, rloc: Address, now: int) -> list[Action]:
        """Ask a locator that is down, unless no mapping has it any more."""
        del self._rechecks[rloc]
        eid = self._eid_of(rloc)
        if eid is None:
            self._lost.pop(rloc, None)
            return []
        return self._send(eid, rloc, now)

    def _eid_of(self, rloc: Address) -> Prefix | None:
        """A prefix that a locator may be asked for, or None if it is not in use any more."""
        cached = ((entry.eid, each.rloc) for entry in self._cache for each in entry.locators)
        return next((eid for eid, found in chain(self._fellows, cached) if found == rloc), None)

    def _send(self, eid: Prefix, rloc: Address, now: int) -> list[Action]:
        nonce = self._random64()
        self._open[nonce] = Probe(eid, rloc, now, counts=rloc not in self._asked)
        self._asked.add(rloc)
        # Never encapsulated, never to the mapping system (§7.1); a refresh has no source EID (§5.2).
        request = MapRequest(nonce, (self._rloc,), (RequestedEid(self._in_instance(eid)),), flags=MapRequestFlag.PROBE)
        return [
            SendControl(request.encode(), rloc, CONTROL_PORT),
            emit("rloc_probe_sent", eid=eid, peer=rloc, nonce=hex(nonce)),
        ]

    def _jittered(self, interval_ns: int) -> int:
        share = (self._random64() % 2001 - 1000) / 1000  # -1 … 1
        return round(interval_ns * (1 + JITTER * share))
