"""The octets of the kernel's structures: the Python twin of bpf/state.h and bpf/reasons.h."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from testbed.dataplane.model import (
    VERSION_REPORTS,
    Address,
    DataPlaneEvent,
    DataPlaneEventKind,
    Entry,
    EntryKind,
    Locator,
    Prefix,
)

MAX_LOCATORS = 8
UNUSABLE_PRIORITY = 255  # RFC 9300 §9
THRESHOLDS = 65536

_CONFIG = struct.Struct("=IIIIIBBBB16s16sIIII")
_KEY_BITS, _KEY_INSTANCE = struct.Struct("=I"), struct.Struct("!I")
_ECHO_REQUEST = struct.Struct("=QIHH")
_ENTRY = struct.Struct("=QIIHBBI")
_LOCATOR = struct.Struct("=16sHHI")
_USAGE = struct.Struct("=QQQ")
LONGEST_PACKET = 0xFFFF  # octets of IP
_REPORT = struct.Struct("=QIIBBBx6s2xI16s16s16s")
CONFIG_SIZE = _CONFIG.size
ECHO_REQUEST_SIZE = _ECHO_REQUEST.size
_USAGE_OFFSET = _ENTRY.size + MAX_LOCATORS * _LOCATOR.size
ENTRY_SIZE = _USAGE_OFFSET + _USAGE.size


class KernelKind(IntEnum):
    """`enum kind` of state.h: the kinds of the model, and the xTR's own addresses."""

    LOCAL = 1
    REMOTE = 2
    AWAY = 3
    RESOLVE = 4
    DROP = 5
    NATIVE = 6
    OWN = 7


class Hint(IntFlag):
    """`enum hint`: what arriving packets say that is listened to."""

    LOCATOR_STATUS = 1
    ECHO_NONCE = 2
    SOURCE = 4


NO_HINTS = Hint(0)

_KERNEL_KINDS = {kind: KernelKind[kind.name] for kind in EntryKind}

_REPORT_KINDS = {
    1: DataPlaneEventKind.FIRST_PACKET_NEW_RLOC,
    2: DataPlaneEventKind.STALE_PACKET,
    3: DataPlaneEventKind.EID_SEEN,
    4: DataPlaneEventKind.OLD_DESTINATION_VERSION,
    5: DataPlaneEventKind.NEW_SOURCE_VERSION,
    6: DataPlaneEventKind.LOCATOR_STATUS,
    7: DataPlaneEventKind.NONCE_ECHOED,
    8: DataPlaneEventKind.NONCE_NOT_ECHOED,
    9: DataPlaneEventKind.UNMAPPED_SOURCE,
}


def _reasons(table: str) -> tuple[str, ...]:
    text = (Path(__file__).parent / "bpf" / "reasons.h").read_text()
    body = text.split(f"#define {table}(X)")[1].split("\n\n")[0]
    return tuple(re.findall(r'X\([A-Z_]+, "([a-z0-9-]+)"\)', body))


#: Why packets are dropped, in the order of the kernel's counters.
DROP_REASONS = _reasons("DROP_REASONS")
#: Why the kernel drops what it was handed, in the order of its counters.
KERNEL_DROP_REASONS = _reasons("KERNEL_DROP_REASONS")
#: Why packets are handed to the slow path, by the number in the frame's destination MAC.
HOLD_REASONS = _reasons("HOLD_REASONS")


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """What the programs are told once."""

    core_ifindex: int
    eid_ifindex: int
    slow_path_ifindex: int
    instance_id: int
    rlocs: tuple[Address, ...]
    locator_status_bits: int | None = None
    map_versioning: bool = False
    hints: Hint = NO_HINTS
    echo_timeout_us: int = 0
    mark: int = 0
    eid_mtu: int = LONGEST_PACKET

    def encode(self) -> bytes:
        """As `struct config`."""
        by_family = {address.version: address for address in self.rlocs}
        bits = self.locator_status_bits
        return _CONFIG.pack(
            self.core_ifindex,
            self.eid_ifindex,
            self.slow_path_ifindex,
            self.instance_id,
            bits or 0,
            bits is not None,
            4 in by_family,
            6 in by_family,
            self.map_versioning,
            by_family[4].packed.ljust(16, b"\0") if 4 in by_family else bytes(16),
            by_family[6].packed if 6 in by_family else bytes(16),
            self.hints,
            self.echo_timeout_us,
            self.mark,
            min(self.eid_mtu, LONGEST_PACKET),
        )


@dataclass(frozen=True, slots=True)
class Counters:
    """What the kernel counted for an entry, and the locator-status-bits that came last from there (0 = none yet)."""

    packets: int = 0
    bytes: int = 0
    last_used_ns: int | None = None
    locator_status: int = 0


def usable_locators(entry: Entry, families: frozenset[int]) -> tuple[Locator, ...]:
    """The locators that traffic goes to: those of the best priority that we can reach (RFC 9300 §9)."""
    usable = [
        locator
        for locator in entry.locators
        if locator.priority != UNUSABLE_PRIORITY and locator.rloc.version in families
    ]
    if len(usable) < 2:
        return tuple(usable)  # nearly all of them, and there is nothing to choose
    best = min(locator.priority for locator in usable)
    chosen = [locator for locator in usable if locator.priority == best]
    # Weight 0 takes no traffic beside others; all zero leaves the split to us (RFC 9300 §9): even.
    if any(locator.weight for locator in chosen):
        chosen = [locator for locator in chosen if locator.weight]
    return tuple(chosen[:MAX_LOCATORS])


def encode_address(address: Address) -> bytes:
    """As `union address`."""
    return address.packed.ljust(16, b"\0")


def encode_echo_request(nonce: int) -> bytes:
    """As `struct echo_request`, before any packet has asked."""
    return _ECHO_REQUEST.pack(0, nonce, 0, 0)


def encode_key(prefix: Prefix, instance_id: int) -> bytes:
    """As `struct key_v4` or `key_v6`: the instance-ID is the trie's first 32 bits."""
    head = _KEY_BITS.pack(32 + prefix.prefixlen) + _KEY_INSTANCE.pack(instance_id)
    return head + prefix.network_address.packed


def encode_entry(
    kind: KernelKind,
    locators: tuple[Locator, ...] = (),
    *,
    mtu_of: Callable[[Address], int] = lambda rloc: LONGEST_PACKET,
    locator_status: int = 0,
    expires_ns: int | None = None,
    generation: int = 0,
    announced: int = 0,
    map_version: int = 0,
) -> bytes:
    """As `struct entry`; the locators must be those that `usable_locators` chose.

    `mtu_of` says what the path to a locator carries, octets of IP; it begins with counters of 0 (`counting_on`).
    """
    head = _ENTRY.pack(
        # 0 means never, and a moment that has passed is as good as the first nanosecond.
        0 if expires_ns is None else max(1, expires_ns),
        generation,
        announced,
        map_version,
        kind,
        len(locators),
        locator_status,
    )
    total = sum(locator.weight for locator in locators)
    tail = b""
    taken = 0
    for count, locator in enumerate(locators, start=1):
        taken += locator.weight
        threshold = THRESHOLDS * taken // total if total else THRESHOLDS * count // len(locators)
        mtu = min(mtu_of(locator.rloc), LONGEST_PACKET)
        tail += _LOCATOR.pack(locator.rloc.packed.ljust(16, b"\0"), locator.rloc.version, mtu, threshold)
    return (head + tail).ljust(ENTRY_SIZE, b"\0")


def counting_on(value: bytes, replaced: bytes) -> bytes:
    """A `struct entry` that counts on from another; what that one's packets said of the locators is not taken over."""
    return value[:_USAGE_OFFSET] + replaced[_USAGE_OFFSET:]


def kernel_kind(kind: EntryKind) -> KernelKind:
    """The kernel's number of a kind."""
    return _KERNEL_KINDS[kind]


def decode_counters(value: bytes) -> Counters:
    """The counters in a `struct entry`."""
    *_, locator_status = _ENTRY.unpack_from(value)
    packets, octets, last_used_ns = _USAGE.unpack_from(value, _USAGE_OFFSET)
    return Counters(packets, octets, last_used_ns or None, locator_status)


def decode_report(sample: bytes) -> tuple[DataPlaneEvent, int]:
    """The event in a `struct report`, and its number: of FIRST_PACKET_NEW_RLOC the entry's generation."""
    mono_ns, kind, number, *families, mac, _iid, eid, rloc, peer = _REPORT.unpack_from(sample)
    eid_family, rloc_family, peer_family = families
    sender = ":".join(f"{octet:02x}" for octet in mac) if any(mac) else None
    seen = _address(eid_family, eid)
    if seen is None:
        raise ValueError(f"report without an EID: {sample.hex()}")
    reported = _REPORT_KINDS[kind]
    event = DataPlaneEvent(
        reported,
        mono_ns,
        seen,
        _address(rloc_family, rloc),
        _address(peer_family, peer),
        sender,
        map_version=number if reported in VERSION_REPORTS else None,
        locator_status=number if reported is DataPlaneEventKind.LOCATOR_STATUS else None,
    )
    return event, number


def example_report(eid: Address) -> bytes:
    """A `struct report` as `decode_report` takes it, of a stale packet to an EID."""
    kind = next(number for number, name in _REPORT_KINDS.items() if name is DataPlaneEventKind.STALE_PACKET)
    families = (eid.version, 0, 4)
    return _REPORT.pack(1, kind, 0, *families, bytes(6), 0, eid.packed.ljust(16, b"\0"), bytes(16), bytes(16))


def _address(family: int, octets: bytes) -> Address | None:
    if family == 4:
        return IPv4Address(octets[:4])
    return IPv6Address(octets) if family == 6 else None
