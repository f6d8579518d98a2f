"""What happens to an xTR or Map-Server from outside: the inputs of the state machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from testbed.lisp.actions import Address
from testbed.lisp.sightings import Sighting


@dataclass(frozen=True, slots=True)
class Started:
    """The sockets are open: register what is here from the start."""


@dataclass(frozen=True, slots=True)
class ControlReceived:
    """A datagram came to port 4342."""

    payload: bytes
    source: Address
    port: int


@dataclass(frozen=True, slots=True)
class HostSighted:
    """A host showed itself on the EID LAN; `mono_ns` is when its frame came."""

    sighting: Sighting
    mono_ns: int


@dataclass(frozen=True, slots=True)
class StaleReceived:
    """A packet came encapsulated for an EID that has left; `peer` is its outer source."""

    eid: Address
    peer: Address
    mono_ns: int


@dataclass(frozen=True, slots=True)
class OldDestinationVersion:
    """A packet came for a local EID from an ITR with an older mapping of it (RFC 9302 §7.1)."""

    eid: Address
    peer: Address
    map_version: int
    mono_ns: int


@dataclass(frozen=True, slots=True)
class NewSourceVersion:
    """A packet came from an EID whose mapping is newer than the cached one (RFC 9302 §7.2)."""

    eid: Address
    peer: Address
    map_version: int
    mono_ns: int


@dataclass(frozen=True, slots=True)
class LocatorStatusSeen:
    """A packet from an EID says which locators of its site are up, and it is news (RFC 9300 §10)."""

    eid: Address
    peer: Address
    bits: int
    mono_ns: int


@dataclass(frozen=True, slots=True)
class SourceSeen:
    """A packet came from an EID that there is no mapping of; `peer` is its outer source."""

    eid: Address
    peer: Address
    mono_ns: int


@dataclass(frozen=True, slots=True)
class NonceEchoed:
    """A locator sent back the nonce that it was asked to, or sent something else instead (RFC 9300 §10.1)."""

    rloc: Address
    echoed: bool
    mono_ns: int


@dataclass(frozen=True, slots=True)
class SiteLocatorChanged:
    """The operator says whether a locator of this site is up."""

    rloc: Address
    up: bool


@dataclass(frozen=True, slots=True)
class PacketMissed:
    """An inner packet has no mapping."""

    destination: Address
    packet: bytes


@dataclass(frozen=True, slots=True)
class FirstPacketSent:
    """The data plane encapsulated the first packet to a new locator; the old one if it knows it."""

    eid: Address
    rloc: Address
    old_rloc: Address | None
    mono_ns: int


@dataclass(frozen=True, slots=True)
class HostExpected:
    """The orchestrator says which MAC an EID has, so that a RARP can be understood."""

    eid: Address
    mac: str


@dataclass(frozen=True, slots=True)
class HostGone:
    """The orchestrator says that a guest that lived here runs no more, anywhere."""

    eid: Address


Input: TypeAlias = (
    Started
    | HostGone
    | ControlReceived
    | HostSighted
    | StaleReceived
    | OldDestinationVersion
    | NewSourceVersion
    | LocatorStatusSeen
    | NonceEchoed
    | SourceSeen
    | SiteLocatorChanged
    | PacketMissed
    | FirstPacketSent
    | HostExpected
)
