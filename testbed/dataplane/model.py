"""What an xTR's data plane is asked to do and what it says, whatever implements it.

Time is CLOCK_MONOTONIC in nanoseconds throughout; the kernel stamps with the same clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Protocol

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network


class EntryKind(Enum):
    """What becomes of a packet whose inner destination matches an entry (longest prefix wins)."""

    LOCAL = "local"  # lives at this site: the kernel delivers it on the EID LAN
    REMOTE = "remote"  # a map-cache entry: encapsulate to one of its locators
    AWAY = "away"  # was here, has left: as REMOTE, and re-encapsulate what arrives encapsulated
    RESOLVE = "resolve"  # EID space without a mapping: hand the packet to the slow path
    DROP = "drop"  # negative entry, action drop
    NATIVE = "native"  # negative entry, action natively-forward: route it as it is


@dataclass(frozen=True, slots=True)
class Locator:
    """A locator of an entry (RFC 9300 §5.4 locator record, what the data plane needs of it)."""

    rloc: Address
    priority: int = 1
    weight: int = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """One forwarding entry: what to do for inner destinations under `eid`.

    Attributes:
        eid: the prefix.
        kind: the action.
        locators: of REMOTE and AWAY.
        expires_ns: when the entry ceases to count (absolute, RFC 9300 §5; a packet never extends it);
            an expired REMOTE behaves like RESOLVE. None: never.
        instance_id: 24 bits, 0 by default.
        map_version: of the mapping (RFC 9302); goes into data headers, as the destination's if the entry
            is REMOTE or AWAY, as the source's if it is LOCAL. 0 is none: not sent, not compared.
    """

    eid: Prefix
    kind: EntryKind
    locators: tuple[Locator, ...] = ()
    expires_ns: int | None = None
    instance_id: int = 0
    map_version: int = 0


class DataPlaneEventKind(Enum):
    """What the data plane reports, stamped in the kernel."""

    FIRST_PACKET_NEW_RLOC = "first_packet_new_rloc"  # first one encapsulated after an entry's RLOC changed
    STALE_PACKET = "stale_packet"  # one arrived encapsulated for an AWAY entry; `peer` is its outer source
    OLD_DESTINATION_VERSION = "old_destination_version"  # `peer` has an older mapping of the local `eid`
    NEW_SOURCE_VERSION = "new_source_version"  # `peer` says that the mapping of `eid` which we have is old
    LOCATOR_STATUS = "locator_status"  # `peer` says which locators of `eid`'s site are up, and it is news
    NONCE_ECHOED = "nonce_echoed"  # `peer` sent back the nonce that it was asked to (RFC 9300 §10.1)
    NONCE_NOT_ECHOED = "nonce_not_echoed"  # `peer` sends, and not the nonce that it was asked for in time
    UNMAPPED_SOURCE = "unmapped_source"  # `eid`, to which packets would meet RESOLVE, sends from `peer`
    EID_SEEN = "eid_seen"  # a frame on the EID LAN from a source with no LOCAL entry under a dynamic prefix


@dataclass(frozen=True, slots=True)
class DataPlaneEvent:
    """One report of the data plane."""

    kind: DataPlaneEventKind
    mono_ns: int
    eid: Address
    rloc: Address | None = None
    peer: Address | None = None
    mac: str | None = None
    old_rloc: Address | None = None  # of FIRST_PACKET_NEW_RLOC: where this prefix pointed before
    map_version: int | None = None  # of the *_VERSION reports: what the packet said
    locator_status: int | None = None  # of LOCATOR_STATUS: bit n is the n-th locator of the mapping


VERSION_REPORTS = (DataPlaneEventKind.OLD_DESTINATION_VERSION, DataPlaneEventKind.NEW_SOURCE_VERSION)


class DataPlane(Protocol):
    """The xTR's forwarding, as its agent sees it. Not thread-safe; descriptors are for an event loop."""

    def set_entry(self, entry: Entry) -> None:
        """Install or replace the entry of exactly this prefix."""

    def rehearse(self, entry: Entry) -> None:
        """Do what `set_entry` and `read_events` do without changing anything: it is then in the processor's caches."""

    def delete_entry(self, eid: Prefix, instance_id: int = 0) -> None:
        """Remove the entry of exactly this prefix; nothing happens if there is none."""

    def usage(self, eid: Prefix, instance_id: int = 0) -> tuple[int, int, int | None]:
        """(packets, bytes, last_used_ns or None, to a few ms) of an entry since there is one for this prefix."""

    def mtus(self) -> dict[str, Any]:
        """MTUs in octets of IP: {"link": of the core, "paths": [{"rloc", "mtu", "age_s"}] that are narrower}."""

    def drops(self) -> dict[str, int]:
        """Packets dropped since start, by reason."""

    def reports_lost(self) -> int:
        """Reports that were lost because `read_events` was not called for so long."""

    def drops_not_counted(self) -> str | None:
        """Why what the kernel drops of what it was handed is not in `drops`; None: it is."""

    def set_locator_status(self, bits: int) -> None:
        """Say from now on which of the site's locators are up; only where they are said at all."""

    def request_echo(self, rloc: Address, nonce: int | None) -> None:
        """Ask a locator in each packet there to echo a nonce, until it does or fails to; None: ask no more."""

    def event_fd(self) -> int:
        """A descriptor that is readable when `read_events` has something."""

    def read_events(self) -> list[DataPlaneEvent]:
        """All reports since the last call, oldest first; never blocks."""

    def miss_fd(self) -> int:
        """A descriptor that is readable when a packet without a mapping waits."""

    def read_missed(self) -> bytes | None:
        """The next inner IP packet that met RESOLVE, or None; never blocks."""

    def inject(self, packet: bytes) -> None:
        """Send an inner IP packet through the entries again, as if it came from the EID LAN."""

    def close(self) -> None:
        """Detach and free; idempotent."""
