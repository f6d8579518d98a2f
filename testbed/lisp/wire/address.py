"""Addresses in control messages: an AFI, then an address or a LISP Canonical Address (RFC 8060). Pure.

`None` is AFI 0, "no address". An AFI of which nobody says the length makes the message unreadable
(RFC 9301 §5.1 has it dropped), except as the last thing in an LCAF, whose length bounds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from testbed.lisp.wire.codes import Afi, HopFlag, LcafType, flags_in, known
from testbed.lisp.wire.reader import Reader, packed

#: LCAFs in LCAFs: enough for every use in RFC 8060, far from the interpreter's recursion limit.
MAX_LCAF_DEPTH = 8


@dataclass(frozen=True, slots=True)
class InstanceId:
    """An address in an instance (LCAF type 2, RFC 8060 §4.1).

    Attributes:
        instance_id: 32 bits here, of which the data header has room for 24.
        address: in that instance; None for a range of instances.
        mask_length: of the instance ID, meaningful for a range only.
    """

    instance_id: int
    address: Address
    mask_length: int = 0


@dataclass(frozen=True, slots=True)
class AfiList:
    """Several addresses in one (LCAF type 1, RFC 8060 §4.10)."""

    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class NatTraversal:
    """What a NAT made of an ETR's address (LCAF type 7, RFC 8060 §4.4)."""

    map_server_port: int
    etr_port: int
    global_etr_rloc: Address
    map_server_rloc: Address
    private_etr_rloc: Address
    rtr_rlocs: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class ReencapsulationHop:
    """One hop of an Explicit Locator Path."""

    address: Address
    flags: HopFlag = HopFlag.NONE


@dataclass(frozen=True, slots=True)
class ExplicitLocatorPath:
    """Locators to be passed one after the other (LCAF type 10, RFC 8060 §4.6)."""

    hops: tuple[ReencapsulationHop, ...]


@dataclass(frozen=True, slots=True)
class SourceDestination:
    """A key of source and destination prefix (LCAF type 12, RFC 8060 §4.8)."""

    source: Address
    source_mask_length: int
    destination: Address
    destination_mask_length: int


@dataclass(frozen=True, slots=True)
class ReplicationEntry:
    """One RTR or ETR of a replication list, and its level in the distribution tree."""

    level: int
    address: Address


@dataclass(frozen=True, slots=True)
class ReplicationList:
    """Who replicates to whom (LCAF type 13, RFC 8060 §4.9)."""

    entries: tuple[ReplicationEntry, ...]


@dataclass(frozen=True, slots=True)
class OpaqueLcaf:
    """An LCAF of a type that this module does not read; kept as it came.

    Attributes:
        lcaf_type: 8 bits.
        parameter: the octet after the type (Rsvd2, which some types use).
        body: everything that the length field covers.
    """

    lcaf_type: int
    parameter: int
    body: bytes


@dataclass(frozen=True, slots=True)
class OpaqueAddress:
    """An address of an unknown family at the end of an LCAF; kept as it came."""

    afi: int
    body: bytes


Lcaf = InstanceId | AfiList | NatTraversal | ExplicitLocatorPath | SourceDestination | ReplicationList | OpaqueLcaf
Address = IPv4Address | IPv6Address | Lcaf | OpaqueAddress | None


#: AFI and address.
_IPV4_AFI, _IPV4_OCTETS = b"\0\1", 6
_NO_AFI = b"\0\0"
#: A network's messages name the same few addresses again and again.
_ipv4 = lru_cache(maxsize=4096)(IPv4Address)
_ipv6 = lru_cache(maxsize=4096)(IPv6Address)


@lru_cache(maxsize=4096)
def _ipv4_octets(address: IPv4Address) -> bytes:
    return _IPV4_AFI + address.packed


def decode_address(reader: Reader, name: str, *, last: bool = False) -> Address:
    """Read an AFI and the address after it.

    Args:
        reader: at the AFI.
        name: of the field.
        last: nothing follows up to the reader's end, so an unknown family's length is known.

    Raises:
        WireError: the octets end early, or the family is unknown.
    """
    start, stop = reader.offset, reader.offset + _IPV4_OCTETS
    if reader.data.startswith(_IPV4_AFI, start) and stop <= reader.end:
        # What nearly all of them are, without the calls below.
        reader.offset = stop
        return _ipv4(reader.data[start + 2 : stop])
    if reader.data.startswith(_NO_AFI, start) and start + 2 <= reader.end:
        reader.offset = start + 2
        return None
    with reader.at(name):
        afi = reader.uint(2, "afi")
        if afi == Afi.IPV4:
            return _ipv4(reader.take(4, "address"))
        if afi == Afi.IPV6:
            return _ipv6(reader.take(16, "address"))
        if afi == Afi.LCAF:
            return _decode_lcaf(reader)
        if last:
            return OpaqueAddress(afi, reader.rest())
        raise reader.error("afi", f"{afi} is not known", offset=reader.offset - 2)


def encode_address(address: Address) -> bytes:
    """The AFI and the address; ValueError if a field does not fit."""
    if address is None:
        return b"\0\0"
    if isinstance(address, IPv4Address):
        return _ipv4_octets(address)
    if isinstance(address, IPv6Address):
        return b"\0\2" + address.packed
    if isinstance(address, OpaqueAddress):
        return packed(address.afi, 2, "afi") + address.body
    lcaf_type, parameter, body = _encode_lcaf(address)
    head = packed(Afi.LCAF, 2, "afi") + b"\0\0" + packed(lcaf_type, 1, "lcaf type")
    return head + packed(parameter, 1, "lcaf parameter") + packed(len(body), 2, "lcaf length") + body


def _decode_lcaf(reader: Reader) -> Lcaf:
    if reader.depth >= MAX_LCAF_DEPTH:
        raise reader.error("lcaf", f"more than {MAX_LCAF_DEPTH} in one another")
    reader.take(2, "lcaf.flags")
    lcaf_type = known(LcafType, reader.uint(1, "lcaf.type"))
    parameter = reader.uint(1, "lcaf.parameter")
    body = reader.bounded(reader.uint(2, "lcaf.length"), "lcaf.body")
    body.depth += 1
    decoder = _DECODERS.get(lcaf_type)
    if decoder is None:
        return OpaqueLcaf(lcaf_type, parameter, body.rest())
    with body.at(LcafType(lcaf_type).name.lower()):
        decoded = decoder(body, parameter)
        body.expect_end()
    return decoded


def _decode_instance_id(body: Reader, parameter: int) -> InstanceId:
    if parameter > 32:
        raise body.error("iid_mask_length", f"{parameter} exceeds 32 bits", offset=body.offset - 3)
    instance_id = body.uint(4, "instance_id")
    address = decode_address(body, "address", last=True)
    # The mask belongs to a range of instances, which has no address; elsewhere peers send 0, 32 and others.
    return InstanceId(instance_id, address, parameter if address is None else 0)


def _decode_afi_list(body: Reader, parameter: int) -> AfiList:
    addresses: list[Address] = []
    while body.remaining:
        addresses.append(decode_address(body, f"addresses[{len(addresses)}]", last=True))
    return AfiList(tuple(addresses))


def _decode_nat_traversal(body: Reader, parameter: int) -> NatTraversal:
    map_server_port = body.uint(2, "map_server_port")
    etr_port = body.uint(2, "etr_port")
    global_etr = decode_address(body, "global_etr_rloc")
    map_server = decode_address(body, "map_server_rloc")
    private_etr = decode_address(body, "private_etr_rloc", last=True)
    rtrs: list[Address] = []
    while body.remaining:
        rtrs.append(decode_address(body, f"rtr_rlocs[{len(rtrs)}]", last=True))
    return NatTraversal(map_server_port, etr_port, global_etr, map_server, private_etr, tuple(rtrs))


def _decode_explicit_locator_path(body: Reader, parameter: int) -> ExplicitLocatorPath:
    hops: list[ReencapsulationHop] = []
    while body.remaining:
        with body.at(f"hops[{len(hops)}]"):
            flags = flags_in(HopFlag, body.uint(2, "flags"))
            hops.append(ReencapsulationHop(decode_address(body, "address", last=True), flags))
    return ExplicitLocatorPath(tuple(hops))


def _decode_source_destination(body: Reader, parameter: int) -> SourceDestination:
    body.take(2, "reserved")
    masks_at = body.offset
    source_mask = body.uint(1, "source_mask_length")
    destination_mask = body.uint(1, "destination_mask_length")
    source = decode_address(body, "source")
    destination = decode_address(body, "destination", last=True)
    for name, address, mask, offset in (
        ("source_mask_length", source, source_mask, masks_at),
        ("destination_mask_length", destination, destination_mask, masks_at + 1),
    ):
        if isinstance(address, IPv4Address | IPv6Address) and mask > address.max_prefixlen:
            raise body.error(name, f"{mask} exceeds {address.max_prefixlen} bits", offset=offset)
    return SourceDestination(source, source_mask, destination, destination_mask)


def _decode_replication_list(body: Reader, parameter: int) -> ReplicationList:
    entries: list[ReplicationEntry] = []
    while body.remaining:
        with body.at(f"entries[{len(entries)}]"):
            body.take(3, "reserved")
            level = body.uint(1, "level")
            entries.append(ReplicationEntry(level, decode_address(body, "address", last=True)))
    return ReplicationList(tuple(entries))


_DECODERS: dict[int, Callable[[Reader, int], Lcaf]] = {
    LcafType.AFI_LIST: _decode_afi_list,
    LcafType.INSTANCE_ID: _decode_instance_id,
    LcafType.NAT_TRAVERSAL: _decode_nat_traversal,
    LcafType.EXPLICIT_LOCATOR_PATH: _decode_explicit_locator_path,
    LcafType.SOURCE_DESTINATION: _decode_source_destination,
    LcafType.REPLICATION_LIST: _decode_replication_list,
}


def _joined(addresses: tuple[Address, ...]) -> bytes:
    return b"".join(encode_address(address) for address in addresses)


def _encode_lcaf(lcaf: Lcaf) -> tuple[int, int, bytes]:
    """Type, parameter and body."""
    if isinstance(lcaf, InstanceId):
        body = packed(lcaf.instance_id, 4, "instance_id") + encode_address(lcaf.address)
        return LcafType.INSTANCE_ID, lcaf.mask_length, body
    if isinstance(lcaf, AfiList):
        return LcafType.AFI_LIST, 0, _joined(lcaf.addresses)
    if isinstance(lcaf, NatTraversal):
        ports = packed(lcaf.map_server_port, 2, "map_server_port") + packed(lcaf.etr_port, 2, "etr_port")
        etr = (lcaf.global_etr_rloc, lcaf.map_server_rloc, lcaf.private_etr_rloc)
        return LcafType.NAT_TRAVERSAL, 0, ports + _joined(etr + lcaf.rtr_rlocs)
    if isinstance(lcaf, ExplicitLocatorPath):
        hops = (packed(hop.flags, 2, "hop flags") + encode_address(hop.address) for hop in lcaf.hops)
        return LcafType.EXPLICIT_LOCATOR_PATH, 0, b"".join(hops)
    if isinstance(lcaf, SourceDestination):
        masks = packed(lcaf.source_mask_length, 1, "source_mask_length")
        masks += packed(lcaf.destination_mask_length, 1, "destination_mask_length")
        return LcafType.SOURCE_DESTINATION, 0, b"\0\0" + masks + _joined((lcaf.source, lcaf.destination))
    if isinstance(lcaf, ReplicationList):
        entries = (packed(entry.level, 4, "level") + encode_address(entry.address) for entry in lcaf.entries)
        return LcafType.REPLICATION_LIST, 0, b"".join(entries)
    return lcaf.lcaf_type, lcaf.parameter, lcaf.body
