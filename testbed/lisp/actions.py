"""What the state machines want done: plain data, carried out by whoever owns sockets and tables.

The state machines do no I/O. Each returns a list of these in the order in which they are to be
done, so that an event which reports a change follows the change. Times are nanoseconds of the
caller's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeAlias

from testbed.lisp.wire.record import EidPrefix

Address: TypeAlias = IPv4Address | IPv6Address
Prefix: TypeAlias = IPv4Network | IPv6Network

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS

#: Every control message goes to this port (RFC 9301 §5), and is sent from it too unless it must not be.
CONTROL_PORT = 4342


class Forwarding(Enum):
    """What becomes of packets to an EID; the values are those of the data plane's entries."""

    LOCAL = "local"
    REMOTE = "remote"
    AWAY = "away"
    RESOLVE = "resolve"
    DROP = "drop"
    NATIVE = "native"


@dataclass(frozen=True, slots=True)
class ForwardingLocator:
    """A locator that packets may be sent to: up, and with a priority below 255."""

    rloc: Address
    priority: int
    weight: int


@dataclass(frozen=True, slots=True)
class SendControl:
    """Send one control message in a UDP datagram from port 4342.

    Attributes:
        message: its octets, or what makes them: a signature takes longer than most of what a machine does, and
            what stands before it in a list of actions need not wait for it.
        destination: address.
        port: UDP port there.
        hurried: whether anybody waits for it. An acknowledgement only ends repetitions that begin after a second.
    """

    message: bytes | Callable[[], bytes]
    destination: Address
    port: int = CONTROL_PORT
    hurried: bool = True

    @property
    def payload(self) -> bytes:
        """The octets; the same each time."""
        return self.message if isinstance(self.message, bytes) else self.message()

    def prepared(self) -> SendControl:
        """The same with its octets made."""
        if isinstance(self.message, bytes):
            return self
        return SendControl(self.message(), self.destination, self.port, self.hurried)


@dataclass(frozen=True, slots=True)
class SetForwarding:
    """Install or replace the forwarding entry of exactly this prefix."""

    eid: Prefix
    forwarding: Forwarding
    locators: tuple[ForwardingLocator, ...] = ()
    expires_ns: int | None = None
    instance_id: int = 0
    map_version: int = 0


@dataclass(frozen=True, slots=True)
class ClearForwarding:
    """Remove the forwarding entry of exactly this prefix, so that a shorter one counts again."""

    eid: Prefix
    instance_id: int = 0


@dataclass(frozen=True, slots=True)
class SetLocatorStatus:
    """Say in data packets which of the site's locators are up: bit n is the n-th of its mappings (RFC 9300 §5.3)."""

    bits: int


@dataclass(frozen=True, slots=True)
class RequestEcho:
    """Ask a locator in data packets to echo a 24-bit nonce (RFC 9300 §10.1); None: ask no more."""

    rloc: Address
    nonce: int | None


@dataclass(frozen=True, slots=True)
class BindNeighbour:
    """Tell the kernel which MAC on the EID LAN has this EID."""

    eid: Address
    mac: str


@dataclass(frozen=True, slots=True)
class UnbindNeighbour:
    """Take that back: the EID no longer lives on this LAN."""

    eid: Address


@dataclass(frozen=True, slots=True)
class AnswerNeighbour:
    """Tell a host on the LAN that an EID elsewhere is reached through the gateway's MAC (proxy ARP/ND)."""

    eid: Address
    asker: Address
    asker_mac: str


@dataclass(frozen=True, slots=True)
class ProbeNeighbour:
    """Ask a host on the LAN whether it is there; its answer will be a sighting.

    Attributes:
        eid: whom.
        mac: where it was; None: at any.
    """

    eid: Address
    mac: str | None = None


@dataclass(frozen=True, slots=True)
class Inject:
    """Send a held inner packet through the forwarding entries again."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class SaveNonce:
    """Store a nonce before anything that was built with it leaves (RFC 9301 §5.6)."""

    owner: str
    nonce: int

    def line(self) -> bytes:
        """As it is stored."""
        return f"{self.nonce} {self.owner}\n".encode()


@dataclass(frozen=True, slots=True)
class KeepRegistration:
    """Store what is registered of a prefix, before its xTR is told that it is registered.

    Attributes:
        eid: the prefix.
        text: makes what is stored, one line; None: nothing is registered any more.
    """

    eid: EidPrefix
    text: Callable[[], str] | None


@dataclass(frozen=True, slots=True)
class GiveWay:
    """What comes after this in the list can wait for whoever has just been told something, and will ask about it."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Something happened that the timeline should say; `emit` makes one.

    Attributes:
        kind: what.
        values: more about it; what has a value of its own type becomes text in `fields` only, which is asked for
            when whatever the event is about has been done.
        mono_ns: when, if that was before now (a kernel's stamp). Without it the event happened when the last
            action before it in the list that somebody waits for was begun.
    """

    kind: str
    values: Mapping[str, Any]
    mono_ns: int | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The values as JSON can have them: addresses, prefixes and enums as their text, None left out.

        An EID in an instance is its prefix, and beside it `instance_id`, which is left out where it is 0.
        """
        found = {name: _plain(value) for name, value in self.values.items() if value is not None}
        eid = self.values.get("eid")
        return {**found, **eid_fields(eid)} if isinstance(eid, EidPrefix) else found


def eid_fields(eid: EidPrefix) -> dict[str, Any]:
    """An EID-prefix as events and states have it: `eid`, and `instance_id` unless that is 0."""
    instance = {"instance_id": eid.instance_id} if eid.instance_id else {}
    return {"eid": str(eid.prefix), **instance}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (tuple, list)):
        return [str(item) for item in value]
    return str(value)


Action: TypeAlias = (
    SendControl
    | SetForwarding
    | ClearForwarding
    | SetLocatorStatus
    | RequestEcho
    | BindNeighbour
    | UnbindNeighbour
    | AnswerNeighbour
    | ProbeNeighbour
    | Inject
    | SaveNonce
    | KeepRegistration
    | GiveWay
    | Emit
)


def emit(kind: str, *, mono_ns: int | None = None, **fields: Any) -> Emit:
    """An event; the values must not change afterwards."""
    return Emit(kind, fields, mono_ns)


@lru_cache(maxsize=4096)
def host_prefix(address: Address) -> Prefix:
    """The /32 or /128 of one address."""
    if isinstance(address, IPv4Address):
        return IPv4Network((address, 32))
    return IPv6Network((address, 128))
