"""Who owns an EID that several xTRs may register: the order of their claims.

LISP orders the registrations of one xTR by its nonce and nothing orders those of two. The Map-Server
decides here, with RFC-conformant fields only; docs/adr/0003-who-owns-a-moving-eid.md is the argument.
In short: whoever registers an EID that it was never told to have lost owns it. The previous owner is
told under a nonce far above any that it has used, its *fence*; it moves its own nonces past that when
it hears. A registration from it with a nonce up to the fence was therefore sent in ignorance, however
late it comes, and is refused; one above the fence is a new sighting of the EID, and counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

from testbed.lisp.actions import Action, Address, SaveNonce
from testbed.lisp.nonces import HIGHEST_NONCE, NONCE_STEP
from testbed.lisp.wire import MAX_RECORDS, EidPrefix, EidRecord, XtrIdentity

#: What the stored nonces are: of an xTR's last Map-Register; of its fence for an EID; of the fence for an EID that
#: it has said to know; of the Map-Register by which it became the owner of one.
_LAST, _FENCE, _KNOWN, _CLAIM = "last", "fence", "known", "claim"


class Claimant(NamedTuple):
    """An xTR, as the Map-Server tells them apart: the site whose secret it has, and its own name.

    `identity` is its xTR-ID and Site-ID, or the address it registers from if it sends none. A tuple, since much is
    looked up by it, and a tuple is hashed and compared without a call.
    """

    site: str
    identity: XtrIdentity | Address

    def __str__(self) -> str:
        return _text(self)

    @classmethod
    def parse(cls, text: str) -> Claimant:
        """Whose text this is; ValueError if it is nobody's."""
        site, _, identity = text.rpartition("/")
        xtr_id, _, site_id = identity.partition(".")
        if ":" in identity or "." in site_id:
            return cls(site, ip_address(identity))
        return cls(site, XtrIdentity(int(xtr_id, 16), int(site_id, 16)))


@lru_cache(maxsize=4096)
def _text(claimant: Claimant) -> str:
    site, identity = claimant
    if isinstance(identity, XtrIdentity):
        return f"{site}/{identity.xtr_id:x}.{identity.site_id:x}"
    return f"{site}/{identity}"


@dataclass(slots=True)
class Departure:
    """An EID that an xTR has lost and not said that it knows.

    Attributes:
        fence: registrations with a nonce up to this were sent before the xTR knew.
        record: where the EID is now, as the xTR is told; None after a restart, while that is not known.
    """

    fence: int
    record: EidRecord | None


class Ownership:
    """Last nonces and fences of every xTR.

    Args:
        saved: nonces by owner, from persistent storage.
    """

    def __init__(self, saved: dict[str, int]) -> None:
        self._saved = saved
        #: The highest nonce that either side has used, per xTR; the next fence is above it.
        self._clock: dict[Claimant, int] = {}
        self._departures: dict[Claimant, dict[EidPrefix, Departure]] = {}
        #: EID → who has lost it and not said that they know; to find them without a look at everybody.
        self._ignorant: dict[EidPrefix, dict[Claimant, None]] = {}
        #: The first fence under which an xTR was told of something in this life of the Map-Server.
        self._first_told: dict[Claimant, int] = {}
        #: Who claimed an EID last, also before a restart: they must be told when somebody else does. Several xTRs of
        #: one site that share it own it together.
        self._owners: dict[EidPrefix, dict[Claimant, None]] = {}
        self._restore()

    def _restore(self) -> None:
        """Take up every loss that nobody has acknowledged; what is left of a fence that was, counts for the clock."""
        for name, fence in self._saved.items():
            kind, _, place = name.partition(" ")
            if kind not in (_FENCE, _CLAIM):
                continue
            who, _, prefix = place.rpartition(" ")
            claimant, eid = Claimant.parse(who), EidPrefix.parse(prefix)
            if kind == _CLAIM:
                if fence > self._saved.get(f"{_FENCE} {place}", -1):
                    self._owners.setdefault(eid, {})[claimant] = None
                continue
            self._clock[claimant] = max(self._clock.get(claimant, 0), fence)
            if self._saved.get(f"{_KNOWN} {claimant} {eid}", -1) < fence:
                self._lost(claimant, eid, Departure(fence, None))

    def is_replay(self, claimant: Claimant, nonce: int) -> bool:
        """Whether a Map-Register is not newer than the last one (RFC 9301 §5.6: it must be dropped)."""
        return nonce <= self._saved.get(f"{_LAST} {claimant}", -1)

    def never_ordered(self, claimant: Claimant) -> bool:
        """Whether an xTR has only ever sent Map-Registers with nonce 0, which nothing puts in order."""
        return self.last_nonce(claimant) in (None, 0)

    def last_nonce(self, claimant: Claimant) -> int | None:
        """The nonce of the last Map-Register, or None."""
        return self._saved.get(f"{_LAST} {claimant}")

    def register(self, claimant: Claimant, nonce: int) -> list[Action]:
        """Note the nonce of a genuine Map-Register."""
        return [self._save(f"{_LAST} {claimant}", nonce)]

    def fence(self, claimant: Claimant, eid: EidPrefix) -> int | None:
        """Up to which nonce registrations of an EID by an xTR are refused, or None."""
        return self._saved.get(f"{_FENCE} {claimant} {eid}")

    def admits(self, claimant: Claimant, eid: EidPrefix, nonce: int, *, ordered: bool = True) -> bool:
        """Whether a registration may make its sender the owner.

        One that its nonce does not put in order (nonce 0, from a peer that knows no other) may unless the sender has
        lost the EID and not said that it knows. If it was sent before and comes after that, it is believed: without
        nonces nobody can tell.
        """
        if not ordered:
            return eid not in self._departures.get(claimant, {})
        fence = self.fence(claimant, eid)
        if fence is None or nonce <= fence:
            return fence is None
        # Before the restart, nobody passed a fence without having heard of every loss below it. A notice since
        # then has told of other losses only, so a nonce above that one's shows nothing about this EID.
        first_told = self._first_told.get(claimant)
        return first_told is None or nonce <= first_told or not self.is_whereabouts_unknown(claimant, eid)

    def is_whereabouts_unknown(self, claimant: Claimant, eid: EidPrefix) -> bool:
        """Whether an xTR has yet to be told of a loss from before a restart, which nobody can say where to."""
        departure = self._departures.get(claimant, {}).get(eid)
        return departure is not None and departure.record is None

    def claim(self, claimant: Claimant, eid: EidPrefix, nonce: int, *, shares: bool = False) -> list[Action]:
        """An xTR owns an EID that others may claim; it knows, so there is nothing left to tell it.

        `shares`: those of its own site that own it keep it.
        """
        known = self._knows(claimant, eid) if eid in self._departures.get(claimant, {}) else []
        before = self._owners.get(eid, {})
        kept = {each: None for each in before if shares and each.site == claimant.site}
        self._owners[eid] = {**kept, claimant: None}
        if claimant in before:
            return known
        return [*known, self._save(f"{_CLAIM} {claimant} {eid}", nonce)]

    def owners_of(self, eid: EidPrefix) -> tuple[Claimant, ...]:
        """Who claimed an EID last; several if they share it."""
        return tuple(self._owners.get(eid, ()))

    def depart(self, claimant: Claimant, record: EidRecord, eid: EidPrefix) -> tuple[int, list[Action]]:
        """An xTR has lost an EID, or what it was told of one is out of date.

        Returns the nonce under which it is to be told, and what to do first.
        """
        used = max(self._clock.get(claimant, 0), self._saved.get(f"{_LAST} {claimant}", 0))
        # At the end of the nonces nobody passes the fence any more: the xTR needs a new key.
        fence = min(used + NONCE_STEP, HIGHEST_NONCE)
        self._clock[claimant] = fence
        self._first_told.setdefault(claimant, fence)
        self._lost(claimant, eid, Departure(fence, record))
        return fence, [self._save(f"{_FENCE} {claimant} {eid}", fence)]

    def remind(self, claimant: Claimant, record: EidRecord, eid: EidPrefix) -> list[Action]:
        """An xTR acts as if it did not know of a loss, whatever it acknowledged: tell it again."""
        fence = self.fence(claimant, eid)
        if fence is None:
            return []
        if self.is_whereabouts_unknown(claimant, eid):
            return self.depart(claimant, record, eid)[1]
        self._lost(claimant, eid, Departure(fence, record))
        return []

    def notice(self, claimant: Claimant) -> tuple[int, tuple[EidRecord, ...]] | None:
        """What an xTR is to be told, and under which nonce; None if there is nothing.

        That is everything it has lost and not acknowledged, or the first of it, in the order of the fences, if it is
        more than a message holds: an xTR that has moved its nonces past one fence has then heard of every
        loss below it, even if the notification of that loss never came.
        """
        told = [
            (departure.fence, departure.record)
            for departure in self._departures.get(claimant, {}).values()
            if departure.record is not None
        ]
        if not told:
            return None
        told = sorted(told, key=lambda each: each[0])[:MAX_RECORDS]
        return told[-1][0], tuple(record for _, record in told)

    def acknowledge(self, claimant: Claimant, nonce: int) -> tuple[list[EidPrefix], list[Action]]:
        """An xTR knows of all that it was told up to a nonce; the EIDs that are new in that, and what to do."""
        departures = self._departures.get(claimant, {})
        known = [
            eid for eid, departure in departures.items() if departure.fence <= nonce and departure.record is not None
        ]
        return known, [action for eid in known for action in self._knows(claimant, eid)]

    def ignorant_of(self, eid: EidPrefix) -> list[Claimant]:
        """The xTRs that have lost an EID and have not yet said that they know."""
        return list(self._ignorant.get(eid, ()))

    def _lost(self, claimant: Claimant, eid: EidPrefix, departure: Departure) -> None:
        self._departures.setdefault(claimant, {})[eid] = departure
        self._ignorant.setdefault(eid, {})[claimant] = None

    def _knows(self, claimant: Claimant, eid: EidPrefix) -> list[Action]:
        departure = self._departures[claimant].pop(eid)
        ignorant = self._ignorant[eid]
        del ignorant[claimant]
        if not ignorant:
            del self._ignorant[eid]
        return [self._save(f"{_KNOWN} {claimant} {eid}", departure.fence)]

    def _save(self, owner: str, nonce: int) -> SaveNonce:
        self._saved[owner] = nonce
        return SaveNonce(owner, nonce)
