"""What probes and data packets say of locators (RFC 9300 §9, §10, RFC 9301 §7.1), joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testbed.lisp.actions import Action, Address
from testbed.lisp.config import XtrConfig
from testbed.lisp.echo_nonce import EchoNonce
from testbed.lisp.gleaner import Gleaner
from testbed.lisp.inputs import LocatorStatusSeen, NonceEchoed, SiteLocatorChanged, SourceSeen
from testbed.lisp.itr import Itr
from testbed.lisp.locator_status import LocatorStatus
from testbed.lisp.registrar import Registrar
from testbed.lisp.rloc_prober import RlocProber
from testbed.lisp.timing import earliest
from testbed.lisp.wire import MapReply, MapReplyFlag


class Locators:
    """Probes and hints, and what they do to the ITR's forwarding.

    Args:
        config: of the xTR.
        registrar: its own mappings.
        itr: those of others.
        random64: gives 64 random bits.

    `handlers` are the inputs that it takes.
    """

    def __init__(self, config: XtrConfig, registrar: Registrar, itr: Itr, random64: Callable[[], int]) -> None:
        self._itr = itr
        self._learns = config.mechanism.probe_interval_s > 0
        self._prober = RlocProber(config, itr.cache, itr.reachability, random64)
        self._status = LocatorStatus(config, registrar, itr.cache, itr.reachability, self._prober)
        self._echo = EchoNonce(config, itr.cache, itr.reachability, self._prober, random64)
        self.handlers: dict[type, Callable[[Any, int], list[Action]]] = {
            LocatorStatusSeen: self._status.seen,
            NonceEchoed: self._echo.judged,
            SourceSeen: Gleaner(config, itr).seen,
            SiteLocatorChanged: self._status.changed,
        }

    def start(self, now: int) -> list[Action]:
        """Begin to probe, and to say which of our own are up."""
        self._prober.start(now)
        self._echo.start(now)
        return self._status.update()

    def update(self) -> list[Action]:
        """Our mapping may have other locators now: say which of them are up."""
        return self._status.update()

    def next_deadline(self) -> int | None:
        """When `handle_timer` has something to do, or None."""
        return earliest([self._prober.next_deadline(), self._echo.next_deadline()])

    def handle_timer(self, now: int) -> list[Action]:
        """Probe, and report what was not answered."""
        actions = self._prober.handle_timer(now) + self._echo.handle_timer(now)
        self._itr.reachability.prune()
        return actions + self._status.update()

    def answered(self, reply: MapReply, peer: Address, now: int) -> list[Action] | None:
        """A Map-Reply with the probe-bit; None if it is to be dropped."""
        probe, actions = self._prober.answered(reply, peer, now)
        if probe is None:
            return None
        if self._learns:  # beside another mechanism a probe says whether a locator is there, and no more
            actions += self._itr.probed(probe, reply.records, now)
        actions += self._echo.probe_answered(probe.rloc, MapReplyFlag.ECHO_NONCE_CAPABLE in reply.flags, now)
        return actions + self._status.update()
