"""EIDs, EID-records and RLOC-records: what a mapping looks like in a message (RFC 9301 §5.4). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from testbed.lisp.wire.address import Address, InstanceId, decode_address, encode_address
from testbed.lisp.wire.codes import (
    Action,
    EidRecordFlag,
    LocatorFlag,
    flags_in,
    known,
)
from testbed.lisp.wire.reader import Layout, Reader, fitting


@dataclass(frozen=True, slots=True)
class EidPrefix:
    """An EID-prefix in an instance; instance 0 goes without an LCAF.

    Bits of an address beyond the mask are cleared on receipt, silently: peers differ in whether they
    send them as zero, and no RFC calls such a message malformed.
    """

    prefix: IPv4Network | IPv6Network
    instance_id: int = 0
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Much is looked up by it, and ipaddress hashes anew each time.
        object.__setattr__(self, "_hash", hash((self.prefix, self.instance_id)))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return _text(self)

    def is_within(self, other: EidPrefix) -> bool:
        """Whether this is all of another prefix of the same instance, or a part of it."""
        same = self.instance_id == other.instance_id and self.prefix.version == other.prefix.version
        return same and self.prefix.prefixlen >= other.prefix.prefixlen and self.prefix.overlaps(other.prefix)

    @classmethod
    def parse(cls, text: str) -> EidPrefix:
        """Whose text this is; ValueError if it is nobody's."""
        instance_id, bracket, prefix = text.removeprefix("[").rpartition("]")
        return cls(ip_network(prefix), int(instance_id) if bracket else 0)


@dataclass(frozen=True, slots=True)
class OtherEid:
    """An EID that is no IP prefix: no address at all, or one of the other LCAFs."""

    mask_length: int
    address: Address


Eid = EidPrefix | OtherEid


def host_eid(address: IPv4Address | IPv6Address, instance_id: int = 0) -> EidPrefix:
    """The EID-prefix of a single address (/32 or /128)."""
    if address.version == 4:
        return EidPrefix(IPv4Network((address.packed, 32)), instance_id)
    return EidPrefix(IPv6Network((address.packed, 128)), instance_id)


def decode_eid(reader: Reader, mask_length: int, name: str = "eid") -> Eid:
    """Read an AFI-encoded EID whose mask length came before it.

    Raises:
        WireError: as `decode_address`, or a mask longer than the address.
    """
    start = reader.offset
    address = decode_address(reader, name)
    instance_id, bare = 0, address
    if isinstance(address, InstanceId):
        instance_id, bare = address.instance_id, address.address
    if isinstance(bare, IPv4Address | IPv6Address):
        if mask_length > bare.max_prefixlen:
            why = f"mask length {mask_length} exceeds {bare.max_prefixlen}"
            raise reader.error(name, why, offset=start)
        return _eid_prefix(bare, mask_length, instance_id)
    return OtherEid(mask_length, address)


#: A network's messages name the same few EIDs again and again.
@lru_cache(maxsize=4096)
def _text(eid: EidPrefix) -> str:
    return f"[{eid.instance_id}]{eid.prefix}" if eid.instance_id else str(eid.prefix)


@lru_cache(maxsize=4096)
def _eid_prefix(address: IPv4Address | IPv6Address, mask_length: int, instance_id: int) -> EidPrefix:
    if isinstance(address, IPv4Address):
        return EidPrefix(IPv4Network((address.packed, mask_length), strict=False), instance_id)
    return EidPrefix(IPv6Network((address.packed, mask_length), strict=False), instance_id)


def eid_mask_length(eid: Eid) -> int:
    """The value of 'EID mask-len'."""
    return eid.prefix.prefixlen if isinstance(eid, EidPrefix) else eid.mask_length


def encode_eid(eid: Eid) -> bytes:
    """The AFI and the EID, without the mask length."""
    if isinstance(eid, OtherEid):
        return encode_address(eid.address)
    address = eid.prefix.network_address
    return encode_address(InstanceId(eid.instance_id, address) if eid.instance_id else address)


_RLOC_RECORD = Layout(priority=1, weight=1, multicast_priority=1, multicast_weight=1, flags=2)
_EID_RECORD = Layout(ttl_minutes=4, locator_count=1, eid_mask_length=1, act=2, map_version=2)


@dataclass(frozen=True, slots=True)
class RlocRecord:
    """A locator of a mapping (RFC 9301 §5.4, 'Loc').

    Attributes:
        rloc: the locator; an LCAF where RFC 8060 says so.
        priority: lower is better, 255 must not be used.
        weight: share of the traffic among equal priorities.
        multicast_priority: as `priority`, for multicast.
        multicast_weight: as `weight`, for multicast.
        flags: R (reachable) is on unless said otherwise, because without it ITRs do not encapsulate.
    """

    rloc: Address
    priority: int = 1
    weight: int = 100
    multicast_priority: int = 255
    multicast_weight: int = 0
    flags: LocatorFlag = LocatorFlag.REACHABLE

    @classmethod
    def decode(cls, reader: Reader) -> RlocRecord:
        """Read one; WireError as `decode_address`."""
        priority, weight, multicast_priority, multicast_weight, flags = reader.uints(_RLOC_RECORD)
        rloc = decode_address(reader, "rloc")
        return cls(rloc, priority, weight, multicast_priority, multicast_weight, flags_in(LocatorFlag, flags))

    def encode(self) -> bytes:
        """The octets; ValueError if a field does not fit."""
        head = _RLOC_RECORD.pack(
            self.priority, self.weight, self.multicast_priority, self.multicast_weight, int(self.flags)
        )
        return head + encode_address(self.rloc)


def in_wire_order(locators: Iterable[RlocRecord]) -> tuple[RlocRecord, ...]:
    """Locators in ascending order of address, IPv4 before IPv6 before LCAF (RFC 9301 §5.5, RFC 8060 §3)."""
    return tuple(sorted(locators, key=lambda locator: encode_address(locator.rloc)))


def decode_locators(reader: Reader, count: int) -> tuple[RlocRecord, ...]:
    """Read `count` RLOC-records."""
    locators = []
    for index in range(count):
        reader.path.append(f"locators[{index}]")
        locators.append(RlocRecord.decode(reader))
        reader.path.pop()
    return tuple(locators)


@dataclass(frozen=True, slots=True)
class EidRecord:
    """A mapping: an EID and its locators (RFC 9301 §5.4, 'Record').

    Attributes:
        eid: the EID-prefix.
        ttl_minutes: how long the mapping may be kept; 0 withdraws it, 0xffffffff leaves it to the receiver.
        locators: at most 255, in the message's order (`in_wire_order` gives the one that RFC 9301 wants).
        action: ACT, which counts without locators only; a plain int where unassigned.
        flags: A (authoritative).
        map_version: 12 bits; 0 is "none" (RFC 9302).
    """

    eid: Eid
    ttl_minutes: int
    locators: tuple[RlocRecord, ...] = ()
    action: Action | int = Action.NO_ACTION
    flags: EidRecordFlag = EidRecordFlag.NONE
    map_version: int = 0

    def numbered(self, map_version: int) -> EidRecord:
        """The same mapping under another map-version."""
        return EidRecord(self.eid, self.ttl_minutes, self.locators, self.action, self.flags, map_version)

    @classmethod
    def decode(cls, reader: Reader) -> EidRecord:
        """Read one; WireError as `decode_eid` and `RlocRecord.decode`."""
        ttl_minutes, locator_count, mask_length, half_word, version_word = reader.uints(_EID_RECORD)
        eid = decode_eid(reader, mask_length)
        locators = decode_locators(reader, locator_count)
        action = known(Action, half_word >> 13)
        flags = flags_in(EidRecordFlag, half_word & int(EidRecordFlag.AUTHORITATIVE))
        return cls(eid, ttl_minutes, locators, action, flags, version_word & 0x0FFF)

    def encode(self) -> bytes:
        """The octets; ValueError if a field does not fit."""
        head = _EID_RECORD.pack(
            self.ttl_minutes,
            len(self.locators),
            eid_mask_length(self.eid),
            fitting(self.action, 3, "action") << 13 | int(self.flags),
            fitting(self.map_version, 12, "map_version"),
        )
        return head + encode_eid(self.eid) + b"".join(locator.encode() for locator in self.locators)


#: Of a message: its record count has 8 bits.
MAX_RECORDS = 255
#: Locators in a record, likewise.
MAX_LOCATORS = 255


def decode_records(reader: Reader, count: int) -> tuple[EidRecord, ...]:
    """Read `count` EID-records."""
    records = []
    for index in range(count):
        reader.path.append(f"records[{index}]")
        records.append(EidRecord.decode(reader))
        reader.path.pop()
    return tuple(records)
