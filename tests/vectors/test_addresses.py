"""Addresses, value to octets and back, against vectors written by hand from RFC 8060's figures."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest

from testbed.lisp.wire import (
    Address,
    AfiList,
    EidPrefix,
    ExplicitLocatorPath,
    HopFlag,
    InstanceId,
    LocatorFlag,
    NatTraversal,
    OpaqueAddress,
    OpaqueLcaf,
    OtherEid,
    Reader,
    ReencapsulationHop,
    ReplicationEntry,
    ReplicationList,
    RlocRecord,
    SourceDestination,
    host_eid,
    in_wire_order,
)
from testbed.lisp.wire.address import decode_address, encode_address
from testbed.lisp.wire.record import decode_eid, encode_eid
from tests.vectors.tables import octets

IPV4, OTHER_IPV4 = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
IPV6 = IPv6Address("2001:db8::1")
IPV6_HEX = "0002 20010db8 00000000 00000000 00000001"

ADDRESSES: list[tuple[str, Address, str]] = [
    ("none", None, "0000"),
    ("IPv4", IPV4, "0001 0a000001"),
    ("IPv6", IPV6, IPV6_HEX),
    ("instance", InstanceId(0x00ABCDEF, IPV4), "4003 0000 02 00 000a 00abcdef 0001 0a000001"),
    ("range of instances", InstanceId(0x100, None, 24), "4003 0000 02 18 0006 00000100 0000"),
    ("list", AfiList((IPV4, IPV6)), "4003 0000 01 00 0018 0001 0a000001" + IPV6_HEX),
    ("empty list", AfiList(()), "4003 0000 01 00 0000"),
    (
        "MAC at the end of a list (RFC 8060 §4.10.2)",
        AfiList((IPV4, OpaqueAddress(16389, bytes.fromhex("00005e000101")))),
        "4003 0000 01 00 000e 0001 0a000001 4005 00005e000101",
    ),
    (
        "NAT, no RTR",
        NatTraversal(4342, 0xC000, IPV4, OTHER_IPV4, None),
        "4003 0000 07 00 0012 10f6 c000 0001 0a000001 0001 0a000002 0000",
    ),
    (
        "NAT, two RTRs",
        NatTraversal(4342, 0xC000, IPV4, OTHER_IPV4, IPV4, (OTHER_IPV4, IPV6)),
        "4003 0000 07 00 002e 10f6 c000 0001 0a000001 0001 0a000002 0001 0a000001 0001 0a000002" + IPV6_HEX,
    ),
    (
        "explicit locator path",
        ExplicitLocatorPath(
            (
                ReencapsulationHop(IPV4, HopFlag.LOOKUP | HopFlag.STRICT),
                ReencapsulationHop(IPV6, HopFlag.RLOC_PROBE),
            )
        ),
        "4003 0000 0a 00 001c 0005 0001 0a000001 0002" + IPV6_HEX,
    ),
    (
        "source and destination",
        SourceDestination(IPV4, 32, IPv4Address("192.168.0.0"), 24),
        "4003 0000 0c 00 0010 0000 20 18 0001 0a000001 0001 c0a80000",
    ),
    (
        "source and destination in an instance",
        InstanceId(7, SourceDestination(None, 0, IPV4, 32)),
        "4003 0000 02 00 0018 00000007 4003 0000 0c 00 000c 0000 00 20 0000 0001 0a000001",
    ),
    (
        "replication list",
        ReplicationList((ReplicationEntry(0, IPV4), ReplicationEntry(128, OTHER_IPV4))),
        "4003 0000 0d 00 0014 000000 00 0001 0a000001 000000 80 0001 0a000002",
    ),
    ("geo-coordinates, not read", OpaqueLcaf(5, 0, b"\x80\x2f\0\0"), "4003 0000 05 00 0004 802f0000"),
    ("unassigned LCAF", OpaqueLcaf(200, 0x99, b"\1\2\3"), "4003 0000 c8 99 0003 010203"),
    ("null LCAF", OpaqueLcaf(0, 0, b""), "4003 0000 00 00 0000"),
]
VECTORS = pytest.mark.parametrize(
    ("address", "text"), [entry[1:] for entry in ADDRESSES], ids=[entry[0] for entry in ADDRESSES]
)


@VECTORS
def test_encode(address: Address, text: str) -> None:
    assert encode_address(address).hex(" ", 4) == octets(text).hex(" ", 4)


@VECTORS
def test_decode(address: Address, text: str) -> None:
    reader = Reader(octets(text))
    assert decode_address(reader, "address") == address
    reader.expect_end()


@pytest.mark.parametrize(
    ("mask_length", "text", "eid"),
    [
        (24, "0001 c0a8000a", EidPrefix(IPv4Network("192.168.0.0/24"))),  # bits beyond the mask: cleared
        (0, "0001 c0a8000a", EidPrefix(IPv4Network("0.0.0.0/0"))),
        (24, "4003 0000 02 20 000a 00000007 0001 c0a8000a", EidPrefix(IPv4Network("192.168.0.0/24"), 7)),
        (0, "0000", OtherEid(0, None)),
        (9, "4003 0000 02 08 0006 07000000 0000", OtherEid(9, InstanceId(0x07000000, None, 8))),
        (64, "4003 0000 c8 00 0001 ff", OtherEid(64, OpaqueLcaf(200, 0, b"\xff"))),
    ],
)
def test_eid(mask_length: int, text: str, eid: EidPrefix | OtherEid) -> None:
    decoded = decode_eid(Reader(octets(text)), mask_length)
    assert decoded == eid
    assert decode_eid(Reader(encode_eid(decoded)), mask_length) == eid


def test_reserved_bits_are_ignored_on_receipt_and_zero_on_transmit() -> None:
    record = RlocRecord.decode(Reader(octets("01 64 ff 00 ffff 0001 0a000001")))
    assert record.flags == LocatorFlag.LOCAL | LocatorFlag.PROBED | LocatorFlag.REACHABLE
    assert record.encode() == octets("01 64 ff 00 0007 0001 0a000001")
    address = decode_address(Reader(octets("4003 ffff 01 ff 0006 0001 0a000001")), "address")
    assert encode_address(address) == octets("4003 0000 01 00 0006 0001 0a000001")


def test_wire_order_is_by_family_and_numeric() -> None:
    unordered = [
        None,
        IPV6,
        IPv4Address("192.0.2.1"),
        InstanceId(1, IPV4),
        IPv4Address("9.255.255.255"),
        IPV4,
    ]
    ordered = in_wire_order(RlocRecord(address) for address in unordered)
    assert [record.rloc for record in ordered] == [
        None,
        IPv4Address("9.255.255.255"),
        IPV4,
        IPv4Address("192.0.2.1"),
        IPV6,
        InstanceId(1, IPV4),
    ]


def test_host_eid() -> None:
    assert host_eid(IPV4) == EidPrefix(IPv4Network("10.0.0.1/32"), 0)
    assert str(host_eid(IPV6, 7)) == "[7]2001:db8::1/128"
    assert str(host_eid(IPV4)) == "10.0.0.1/32"
