"""Gleaning: where a packet came from, as its source's mapping for a moment (RFC 9300 §4.2, §9)."""

from __future__ import annotations

from testbed.lisp.actions import SECOND_NS, Action, Address, Forwarding, ForwardingLocator, emit, host_prefix
from testbed.lisp.config import XtrConfig
from testbed.lisp.inputs import SourceSeen
from testbed.lisp.itr import Itr
from testbed.lisp.map_cache import CacheEntry
from testbed.lisp.timing import RateLimiter

#: RFC 9300 §9: a gleaned mapping is used so long, pending its verification.
LIFETIME_NS = 3 * SECOND_NS
#: One that nobody could verify is not gleaned again for so long (the RFC has no rule), or packets would keep it alive.
PAUSE_NS = 60 * SECOND_NS
#: RFC 9300 §9 warns of caches that grow: anybody who makes up sources has no more entries and questions made than this
#: in a lifetime.
AT_MOST = 256


class Gleaner:
    """Guesses mappings, each to be verified by a Map-Request.

    Args:
        config: of the xTR.
        itr: takes the guess, and asks.
    """

    def __init__(self, config: XtrConfig, itr: Itr) -> None:
        self._config, self._itr = config, itr
        self._pause: RateLimiter[Address] = RateLimiter(PAUSE_NS)
        self._recent: RateLimiter[Address] = RateLimiter(LIFETIME_NS)

    def seen(self, event: SourceSeen, now: int) -> list[Action]:
        """A packet came from an EID that the data plane has no mapping of; never over one that there is."""
        if not self._config.options.gleaning or self._itr.cache.lookup(event.eid, now) is not None:
            return []
        ours = any(event.eid in prefix for prefix in self._config.eid_prefixes)
        if ours or any(event.peer in prefix for prefix in self._config.eid_space):
            return []
        self._pause.forget_before(now)
        self._recent.forget_before(now)
        if len(self._recent) >= AT_MOST or not self._pause.allow(event.eid, now):
            return []
        self._recent.allow(event.eid, now)
        # §9: no priority is known, so all have the best one, and weight 0.
        locators = (ForwardingLocator(event.peer, priority=0, weight=0),)
        eid = host_prefix(event.eid)
        end = now + LIFETIME_NS
        instance_id = self._config.instance_id
        entry = CacheEntry(eid, Forwarding.REMOTE, locators, end, instance_id, installed_ns=now, gleaned=True)
        actions = self._itr.glean(entry, now)
        return [*actions, emit("mapping_gleaned", eid=event.eid, rloc=event.peer)] if actions else []
