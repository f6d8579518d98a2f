"""The ETR's registrations: authenticated, repeated until notified, refreshed (RFC 9301 §5.6, §5.7, §8.2).

One registration is one prefix at one Map-Server. Its nonce is a logical clock: each message takes the
next value, and a nonce from the Map-Server that is ahead moves it forward, so that what is sent after
hearing from the Map-Server is always greater than what the Map-Server had said
(docs/adr/0003-who-owns-a-moving-eid.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from testbed.lisp.actions import Action, Address, Prefix, SaveNonce, SendControl, emit
from testbed.lisp.config import SiteLocator, XtrConfig, ns
from testbed.lisp.machine import Machine
from testbed.lisp.map_version import NULL_MAP_VERSION, is_newer
from testbed.lisp.nonces import FURTHEST_AHEAD
from testbed.lisp.timing import earliest, register_delays
from testbed.lisp.wire import (
    EidRecord,
    EidRecordFlag,
    LocatorFlag,
    MapNotify,
    MapRegister,
    MapRegisterFlag,
    RlocRecord,
    in_wire_order,
)

#: The owner under which the register nonce is stored.
NONCE_OWNER = "map-register"


class RegistrationState(Enum):
    """How far a registration has come."""

    REGISTERING = "registering"  # sent, not yet acknowledged
    REGISTERED = "registered"
    WITHDRAWING = "withdrawing"  # TTL 0 sent, not yet acknowledged
    GONE = "gone"


class RegistrationInput(Enum):
    """What can happen to one."""

    REFRESH = auto()
    NOTIFIED = auto()
    WITHDRAW = auto()
    LOST = auto()


TRANSITIONS: dict[tuple[RegistrationState, RegistrationInput], RegistrationState] = {
    (RegistrationState.REGISTERING, RegistrationInput.NOTIFIED): RegistrationState.REGISTERED,
    (RegistrationState.REGISTERING, RegistrationInput.WITHDRAW): RegistrationState.WITHDRAWING,
    (RegistrationState.REGISTERING, RegistrationInput.LOST): RegistrationState.GONE,
    (RegistrationState.REGISTERED, RegistrationInput.REFRESH): RegistrationState.REGISTERING,
    (RegistrationState.REGISTERED, RegistrationInput.WITHDRAW): RegistrationState.WITHDRAWING,
    (RegistrationState.REGISTERED, RegistrationInput.LOST): RegistrationState.GONE,
    (RegistrationState.WITHDRAWING, RegistrationInput.NOTIFIED): RegistrationState.GONE,
    (RegistrationState.WITHDRAWING, RegistrationInput.LOST): RegistrationState.GONE,
}


@dataclass(slots=True)
class Registration:
    """One prefix at one Map-Server.

    Attributes:
        eid: the prefix.
        map_server: its address.
        claim_nonce: of the first message of this stay: what the Map-Server said before is older news.
        machine: where it stands.
        deadline: of the retransmission or the refresh.
        outstanding: nonces sent since the last acknowledgement; any of them will do.
        delays: of the retransmissions.
        transmissions: since the last acknowledgement.
    """

    eid: Prefix
    map_server: Address
    claim_nonce: int
    machine: Machine[RegistrationState, RegistrationInput]
    deadline: int
    outstanding: set[int] = field(default_factory=set)
    delays: Iterator[int] = field(default_factory=register_delays)
    transmissions: int = 0


class Registrar:
    """Registers prefixes at every Map-Server and keeps them registered.

    Args:
        config: of the xTR.
        nonce: the last one that was used, from persistent storage.
    """

    def __init__(self, config: XtrConfig, nonce: int) -> None:
        self._config = config
        self._nonce = nonce
        self._registrations: dict[tuple[Prefix, Address], Registration] = {}
        #: Locators of the site that are down.
        self._unreachable: set[Address] = set()
        #: Of our mappings, as the Map-Servers number them (docs/adr/0004-map-versions.md).
        self._versions: dict[Prefix, int] = {}
        #: The locators of our mappings, as a Map-Server has merged them; the one learnt last at the end.
        self._merged: dict[Prefix, tuple[RlocRecord, ...]] = {}

    def register(self, eid: Prefix, now: int) -> list[Action]:
        """Start to register a prefix at every Map-Server, at once; a registration that exists starts anew."""
        actions: list[Action] = []
        self._versions.pop(eid, None)
        self._merged.pop(eid, None)
        for map_server in self._config.map_servers:
            machine = Machine(TRANSITIONS, RegistrationState.REGISTERING)
            registration = Registration(eid, map_server, self._nonce + 1, machine, now)
            self._registrations[eid, map_server] = registration
            actions += self._transmit(registration, now)
        return actions

    def withdraw(self, eid: Prefix, now: int) -> list[Action]:
        """Deregister a prefix that is gone and that nobody else has claimed: TTL 0 (RFC 9301 §5.4)."""
        actions: list[Action] = []
        for registration in self._of(eid):
            if registration.machine.accepts(RegistrationInput.WITHDRAW):
                registration.machine.feed(RegistrationInput.WITHDRAW)
                self._restart(registration)
                actions += self._transmit(registration, now)
        return actions

    def lose(self, eid: Prefix) -> None:
        """Forget a prefix that is registered by somebody else now; nothing is sent for it any more."""
        self._versions.pop(eid, None)
        self._merged.pop(eid, None)
        for registration in self._of(eid):
            registration.machine.feed(RegistrationInput.LOST)
            del self._registrations[eid, registration.map_server]

    def version_of(self, eid: Prefix) -> int:
        """The map-version of our mapping of a prefix, null while no Map-Server has said one."""
        return self._versions.get(eid, NULL_MAP_VERSION)

    def numbered(self, record: EidRecord) -> bool:
        """Take the map-version in a Map-Server's answer to a registration; whether it is news."""
        eid = self._config.prefix_of(record.eid)
        if eid is None or not record.map_version or not self._of(eid):
            return False
        known = self.version_of(eid)
        # With several Map-Servers the newest counts; the others take it from the next registration.
        if known and not is_newer(record.map_version, known):
            return False
        self._versions[eid] = record.map_version
        return record.map_version != known

    def merged(self, record: EidRecord) -> bool:
        """Take the locators that a Map-Server says our mapping has now; whether they are news."""
        eid = self._config.prefix_of(record.eid)
        if not self._config.options.merge_registrations or eid is None or not self._of(eid):
            return False
        if self._config.rloc not in {each.rloc for each in record.locators}:
            return False
        before = self._merged.pop(eid, None)
        self._merged[eid] = in_wire_order(record.locators)
        return self._merged[eid] != before

    def claim_of(self, eid: Prefix, map_server: Address) -> int | None:
        """The nonce with which the present stay of a prefix was first registered, or None."""
        registration = self._registrations.get((eid, map_server))
        return registration.claim_nonce if registration else None

    def is_too_far_ahead(self, nonce: int) -> bool:
        """Whether a nonce cannot be a fence of ours: whoever makes a Map-Server say it does not drive our clock."""
        return nonce > self._nonce + FURTHEST_AHEAD

    def is_of_our_clock(self, nonce: int) -> bool:
        """Whether a Map-Server counted on from our own nonces to this one; a subscription has others."""
        return abs(nonce - self._nonce) <= FURTHEST_AHEAD

    def observe(self, nonce: int) -> list[Action]:
        """Move the clock past a nonce that the Map-Server chose."""
        if nonce <= self._nonce:
            return []
        self._nonce = nonce
        return [SaveNonce(NONCE_OWNER, nonce)]

    def acknowledge(self, notify: MapNotify, map_server: Address, now: int) -> tuple[bool, list[Action]]:
        """Take a verified Map-Notify that may answer a Map-Register.

        Returns whether it did, and what to do.
        """
        for key, registration in list(self._registrations.items()):
            if registration.map_server != map_server or notify.nonce not in registration.outstanding:
                continue
            registration.machine.feed(RegistrationInput.NOTIFIED)
            transmissions = registration.transmissions
            self._restart(registration)
            registration.deadline = now + ns(self._config.options.refresh_s)
            event = emit(
                "map_notify_received", mono_ns=now, eid=registration.eid, rloc=self._config.rloc,
                peer=map_server, nonce=hex(notify.nonce), transmissions=transmissions,
            )  # fmt: skip
            if registration.machine.state is RegistrationState.GONE:
                del self._registrations[key]
                self._merged.pop(registration.eid, None)
            return True, [event]
        return False, []

    def next_deadline(self) -> int | None:
        """When the next message is due."""
        return earliest(registration.deadline for registration in self._registrations.values())

    def handle_timer(self, now: int) -> list[Action]:
        """Retransmit and refresh what is due."""
        actions: list[Action] = []
        for registration in list(self._registrations.values()):
            if registration.deadline > now:
                continue
            if registration.machine.state is RegistrationState.REGISTERED:
                registration.machine.feed(RegistrationInput.REFRESH)
            actions += self._transmit(registration, now)
        return actions

    def inspect(self, now: int) -> list[dict[str, Any]]:
        """The registrations, for people."""
        return [
            {
                "eid": str(registration.eid),
                "map_server": str(registration.map_server),
                "state": registration.machine.state.value,
                "transmissions": registration.transmissions,
                "next_s": round((registration.deadline - now) / 1e9, 3),
                "map_version": self.version_of(registration.eid),
            }
            for registration in self._registrations.values()
        ]

    def record(self, eid: Prefix, *, authoritative: bool = False) -> EidRecord:
        """Our mapping of a prefix: the site's locators, this xTR's own marked (RFC 9301 §5.4)."""
        flags = EidRecordFlag.AUTHORITATIVE if authoritative else EidRecordFlag.NONE
        locators = self._locators_of(self._merged.get(eid))
        return self._record(eid, self._config.options.registration_ttl_minutes, locators, flags)

    def _record(
        self,
        eid: Prefix,
        ttl_minutes: int,
        locators: tuple[RlocRecord, ...],
        flags: EidRecordFlag = EidRecordFlag.NONE,
    ) -> EidRecord:
        eid_in_instance, version = self._config.in_instance(eid), self.version_of(eid)
        return EidRecord(eid_in_instance, ttl_minutes, locators, flags=flags, map_version=version)

    def locators(self) -> tuple[RlocRecord, ...]:
        """The site's locators, in the order of every mapping of it; of merged ones, of what was learnt last."""
        return self._locators_of(next(reversed(self._merged.values()), None))

    def _locators_of(self, merged: tuple[RlocRecord, ...] | None) -> tuple[RlocRecord, ...]:
        own = {each.rloc: each for each in self._own()}
        if merged is None:
            return tuple(own.values())
        return tuple(own.get(each.rloc) or self._as_heard(each) for each in merged)

    def _own(self) -> tuple[RlocRecord, ...]:
        """The locators that we register."""
        given = self._config.locators or (SiteLocator(self._config.rloc),)
        if self._config.options.merge_registrations:
            given = tuple(each for each in given if each.rloc == self._config.rloc)
        return in_wire_order(self._locator(each) for each in given)

    def _as_heard(self, locator: RlocRecord) -> RlocRecord:
        """Another xTR's locator, of which it says itself whether it is up; the operator may know better."""
        down = locator.rloc in self._unreachable
        return replace(locator, flags=LocatorFlag.NONE if down else locator.flags & LocatorFlag.REACHABLE)

    def set_reachable(self, rloc: Address, up: bool, now: int) -> list[Action]:
        """A locator of the site is up or down (R-bit, RFC 9301 §5.4): register anew what is registered."""
        if up is (rloc not in self._unreachable) or rloc not in {each.rloc for each in self.locators()}:
            return []
        self._unreachable ^= {rloc}
        actions: list[Action] = []
        for registration in self._registrations.values():
            if registration.machine.accepts(RegistrationInput.REFRESH):
                registration.machine.feed(RegistrationInput.REFRESH)
                actions += self._transmit(registration, now)
        return actions

    def _locator(self, locator: SiteLocator) -> RlocRecord:
        own = LocatorFlag.LOCAL if locator.rloc == self._config.rloc else LocatorFlag.NONE
        up = LocatorFlag.NONE if locator.rloc in self._unreachable else LocatorFlag.REACHABLE
        return RlocRecord(locator.rloc, locator.priority, locator.weight, flags=up | own)

    def _of(self, eid: Prefix) -> list[Registration]:
        return [each for (prefix, _), each in self._registrations.items() if prefix == eid]

    @staticmethod
    def _restart(registration: Registration) -> None:
        registration.outstanding.clear()
        registration.delays = register_delays()
        registration.transmissions = 0

    def _transmit(self, registration: Registration, now: int) -> list[Action]:
        # RFC 9301 §5.7 has "the original" retransmitted, §5.6 has the nonce incremented "each time a
        # Map-Register message is sent" and makes the Map-Server drop one that is not greater. If the
        # original arrived and its Map-Notify was lost, only a new nonce gets an answer.
        self._nonce += 1
        withdrawing = registration.machine.state is RegistrationState.WITHDRAWING
        ttl_minutes = 0 if withdrawing else self._config.options.registration_ttl_minutes
        record = self._record(registration.eid, ttl_minutes, self._own())
        flags = MapRegisterFlag.WANT_MAP_NOTIFY
        if self._config.options.merge_registrations:
            flags |= MapRegisterFlag.MERGE
        if self._config.options.proxy_reply:
            flags |= MapRegisterFlag.PROXY_REPLY
        message = MapRegister(self._nonce, (record,), flags=flags, xtr=self._config.identity)
        payload = self._config.secret.seal(message)
        registration.outstanding.add(self._nonce)
        registration.transmissions += 1
        registration.deadline = now + next(registration.delays)
        return [
            SaveNonce(NONCE_OWNER, self._nonce),
            SendControl(payload, registration.map_server),
            emit(
                "map_register_sent", eid=registration.eid, rloc=self._config.rloc, nonce=hex(self._nonce),
                peer=registration.map_server, ttl_minutes=record.ttl_minutes,
                transmission=registration.transmissions,
            ),
        ]  # fmt: skip
