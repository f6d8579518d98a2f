"""Whose Map-Register this is, and whether it is to be taken at all (RFC 9301 §5.6, §8.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from testbed.lisp.actions import CONTROL_PORT, Address
from testbed.lisp.config import MapServerConfig, SiteConfig
from testbed.lisp.inputs import ControlReceived
from testbed.lisp.nonces import is_exhausted
from testbed.lisp.ownership import Claimant, Ownership
from testbed.lisp.sealing import Opened, Secret
from testbed.lisp.tolerances import Tolerance, Tolerances, refusal
from testbed.lisp.wire import LocatorFlag, MapRegister, XtrIdentity


@dataclass(frozen=True, slots=True)
class Correspondent:
    """How an xTR is written to.

    Attributes:
        rloc: where its Map-Registers come from.
        port: UDP port that Map-Notifies go to.
        site: whose secret it has.
        secret: the site's, used as the xTR uses it.
    """

    rloc: Address
    port: int
    site: SiteConfig
    secret: Secret


class Correspondents:
    """Every xTR that has registered something, as it was last heard."""

    def __init__(self) -> None:
        self._heard: dict[Claimant, Correspondent] = {}
        self._claimant_of: dict[XtrIdentity, Claimant] = {}

    def heard(self, claimant: Claimant, correspondent: Correspondent) -> None:
        """An xTR is written to like this from now on."""
        self._heard[claimant] = correspondent
        if isinstance(claimant.identity, XtrIdentity):
            self._claimant_of.setdefault(claimant.identity, claimant)

    def __iter__(self) -> Iterator[Claimant]:
        return iter(self._heard)

    def get(self, claimant: Claimant) -> Correspondent | None:
        """How an xTR is written to, if it was heard."""
        return self._heard.get(claimant)

    def named(self, xtr: XtrIdentity | None) -> Claimant | None:
        """The xTR that an xTR-ID is, if it was heard."""
        return self._claimant_of.get(xtr) if xtr is not None else None


@dataclass(frozen=True, slots=True)
class Admitted:
    """A Map-Register that is to be taken.

    Attributes:
        claimant: who sent it.
        senders: all that it must be new of: the claimant, and whom its records name (see `Admission`).
        correspondent: how the sender is answered.
        needs: what had to be tolerated.
        ordered: whether its nonce puts it in order; False for nonce 0 from a peer that knows no other.
    """

    claimant: Claimant
    senders: tuple[Claimant, ...]
    correspondent: Correspondent
    needs: Tolerances
    ordered: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A Map-Register that is not: why, and what the log should say beside."""

    reason: str
    site: SiteConfig | None = None
    fields: dict[str, Any] = field(default_factory=dict)


class Admission:
    """Authentication and replay protection of Map-Registers.

    Args:
        config: of the Map-Server.
        ownership: keeps the last nonces.
    """

    def __init__(self, config: MapServerConfig, ownership: Ownership) -> None:
        self._config = config
        self._ownership = ownership
        self._site_at: dict[Address, SiteConfig] = {}

    def admit(self, message: MapRegister, event: ControlReceived) -> Admitted | Refused:
        """Judge a Map-Register."""
        site, opened = self._opened(message, event)
        if site is None or opened is None:
            return Refused("authentication")
        claimant = Claimant(site.name, message.xtr or event.source)
        # A MAC that ends before the xTR-ID (RFC 9301 §5.6) lets anyone repeat the message as another
        # xTR's; what the MAC does cover, the sender's own locators, must then be new too.
        senders = (claimant,) if opened.covers_trailer else (claimant, *_own_locators(site, message))
        if is_exhausted(message.nonce):
            return Refused("nonces exhausted: this xTR needs a new key", site)
        tolerated = self._config.options.tolerate
        needs, ordered, port = set(opened.needs), True, CONTROL_PORT
        for sender in senders:
            if not self._ownership.is_replay(sender, message.nonce):
                continue
            if message.nonce == 0 and self._ownership.never_ordered(sender):
                needs.add(Tolerance.ZERO_REGISTER_NONCE)
                ordered = False
                continue
            last = self._ownership.last_nonce(sender)
            return Refused("replay", site, {"last_nonce": last and hex(last)})
        if missing := needs - tolerated:
            return Refused(refusal(missing), site)
        if event.port != CONTROL_PORT and Tolerance.NOTIFY_TO_SOURCE_PORT in tolerated:
            needs.add(Tolerance.NOTIFY_TO_SOURCE_PORT)
            port = event.port
        return Admitted(
            claimant, senders, Correspondent(event.source, port, site, opened.secret), frozenset(needs), ordered
        )

    def _opened(self, message: MapRegister, event: ControlReceived) -> tuple[SiteConfig | None, Opened | None]:
        """The site whose secret a Map-Register was made with; what was right last time is tried first."""
        last = self._site_at.get(event.source)
        opened = last.secret.open(event.payload, message) if last is not None else None
        if opened is not None:
            return last, opened
        for site in self._config.sites:
            opened = site.secret.open(event.payload, message)
            if opened is not None:
                self._site_at[event.source] = site
                return site, opened
        return None, None


def _own_locators(site: SiteConfig, message: MapRegister) -> list[Claimant]:
    """Who a Map-Register comes from by what is in its records: the locators that are the sender's own (L-bit)."""
    own = {
        locator.rloc
        for record in message.records
        for locator in record.locators
        if LocatorFlag.LOCAL in locator.flags and isinstance(locator.rloc, Address)
    }
    return [Claimant(site.name, rloc) for rloc in sorted(own, key=lambda each: (each.version, int(each)))]
