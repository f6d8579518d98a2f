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

from testbed.lisp.actions import Action, Address, Prefix, SaveNonce
from testbed.lisp.wire import EidRecord, XtrIdentity

#: More Map-Registers than an xTR can send before it hears of its loss.
FENCE_STEP = 1 << 32


@dataclass(frozen=True, slots=True)
class Claimant:
    """An xTR, as the Map-Server tells them apart: the site whose secret it has, and its own name.

    `identity` is its xTR-ID and Site-ID, or the address it registers from if it sends none.
    """

    site: str
    identity: XtrIdentity | Address

    def __str__(self) -> str:
        if isinstance(self.identity, XtrIdentity):
            return f"{self.site}/{self.identity.xtr_id:x}.{self.identity.site_id:x}"
        return f"{self.site}/{self.identity}"


@dataclass(slots=True)
class Departure:
    """An EID that an xTR has lost and not said that it knows.

    Attributes:
        fence: registrations with a nonce up to this were sent before the xTR knew.
        record: where the EID is now, as the xTR is told.
    """

    fence: int
    record: EidRecord


class Ownership:
    """Last nonces and fences of every xTR.

    Args:
        saved: nonces by owner, from persistent storage.
    """

    def __init__(self, saved: dict[str, int]) -> None:
        self._saved = saved
        #: The highest nonce that either side has used, per xTR; the next fence is above it.
        self._clock: dict[Claimant, int] = {}
        self._departures: dict[Claimant, dict[Prefix, Departure]] = {}
        #: EID → who has lost it and not said that they know; to find them without a look at everybody.
        self._ignorant: dict[Prefix, dict[Claimant, None]] = {}

    def is_replay(self, claimant: Claimant, nonce: int) -> bool:
        """Whether a Map-Register is not newer than the last one (RFC 9301 §5.6: it must be dropped)."""
        return nonce <= self._saved.get(f"last {claimant}", -1)

    def never_ordered(self, claimant: Claimant) -> bool:
        """Whether an xTR has only ever sent Map-Registers with nonce 0, which nothing puts in order."""
        return self.last_nonce(claimant) in (None, 0)

    def last_nonce(self, claimant: Claimant) -> int | None:
        """The nonce of the last Map-Register, or None."""
        return self._saved.get(f"last {claimant}")

    def register(self, claimant: Claimant, nonce: int) -> list[Action]:
        """Note the nonce of a genuine Map-Register."""
        return [self._save(f"last {claimant}", nonce)]

    def fence(self, claimant: Claimant, eid: Prefix) -> int | None:
        """Up to which nonce registrations of an EID by an xTR are refused, or None."""
        return self._saved.get(f"fence {claimant} {eid}")

    def admits(self, claimant: Claimant, eid: Prefix, nonce: int) -> bool:
        """Whether a registration may make its sender the owner."""
        fence = self.fence(claimant, eid)
        return fence is None or nonce > fence

    def admits_unordered(self, claimant: Claimant, eid: Prefix) -> bool:
        """Whether a registration with nonce 0 may make its sender the owner.

        It may unless the sender has lost the EID and not said that it knows. One that was sent before
        and comes after that is believed: without nonces nobody can tell.
        """
        return eid not in self._departures.get(claimant, {})

    def claim(self, claimant: Claimant, eid: Prefix) -> None:
        """An xTR owns an EID now; it knows, so there is nothing left to tell it."""
        self._departures.get(claimant, {}).pop(eid, None)
        self._knows(claimant, eid)

    def depart(self, claimant: Claimant, record: EidRecord, eid: Prefix) -> tuple[int, list[Action]]:
        """An xTR has lost an EID, or what it was told of one is out of date.

        Returns the nonce under which it is to be told, and what to do first.
        """
        used = max(self._clock.get(claimant, 0), self._saved.get(f"last {claimant}", 0))
        fence = used + FENCE_STEP
        self._clock[claimant] = fence
        self._departures.setdefault(claimant, {})[eid] = Departure(fence, record)
        self._ignorant.setdefault(eid, {})[claimant] = None
        return fence, [self._save(f"fence {claimant} {eid}", fence)]

    def remind(self, claimant: Claimant, record: EidRecord, eid: Prefix) -> bool:
        """An xTR acts as if it did not know of a loss, whatever it acknowledged: tell it again."""
        fence = self.fence(claimant, eid)
        if fence is None:
            return False
        self._departures.setdefault(claimant, {})[eid] = Departure(fence, record)
        self._ignorant.setdefault(eid, {})[claimant] = None
        self._clock[claimant] = max(self._clock.get(claimant, 0), fence)
        return True

    def latest_fence(self, claimant: Claimant) -> int:
        """The nonce under which an xTR is told of everything that it has lost so far."""
        return self._clock[claimant]

    def untold(self, claimant: Claimant) -> tuple[EidRecord, ...]:
        """Everything that an xTR has lost and not acknowledged.

        A notification carries all of it: an xTR that has moved its nonces past one fence has then
        heard of every loss below it, even if the notification of that loss never came.
        """
        return tuple(each.record for each in self._departures.get(claimant, {}).values())

    def acknowledge(self, claimant: Claimant, nonce: int) -> list[Prefix]:
        """An xTR knows of all its losses up to a nonce; the EIDs that are new in that."""
        departures = self._departures.get(claimant, {})
        known = [eid for eid, departure in departures.items() if departure.fence <= nonce]
        for eid in known:
            del departures[eid]
            self._knows(claimant, eid)
        return known

    def ignorant_of(self, eid: Prefix) -> list[Claimant]:
        """The xTRs that have lost an EID and have not yet said that they know."""
        return list(self._ignorant.get(eid, ()))

    def _knows(self, claimant: Claimant, eid: Prefix) -> None:
        ignorant = self._ignorant.get(eid, {})
        ignorant.pop(claimant, None)
        if not ignorant:
            self._ignorant.pop(eid, None)

    def _save(self, owner: str, nonce: int) -> SaveNonce:
        self._saved[owner] = nonce
        return SaveNonce(owner, nonce)
