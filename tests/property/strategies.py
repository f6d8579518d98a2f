"""Hypothesis strategies for every record of the wire format."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from hypothesis import strategies as st

from testbed.lisp.wire import (
    Action,
    AfiList,
    Authentication,
    DataHeader,
    EidPrefix,
    EidRecord,
    EidRecordFlag,
    EncapsulatedControl,
    EncapsulatedControlFlag,
    ExplicitLocatorPath,
    HopFlag,
    Info,
    InstanceId,
    LocatorFlag,
    MapNotify,
    MapNotifyAck,
    MapReferral,
    MapRegister,
    MapRegisterFlag,
    MapReply,
    MapReplyFlag,
    MapRequest,
    MapRequestFlag,
    NatTraversal,
    OpaqueLcaf,
    OpaqueMessage,
    OtherEid,
    ReencapsulationHop,
    ReferralRecord,
    ReferralSignature,
    ReplicationEntry,
    ReplicationList,
    RequestedEid,
    RlocRecord,
    SourceDestination,
    XtrIdentity,
)


def uint(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


def few(strategy: st.SearchStrategy, minimum: int = 0, maximum: int = 3) -> st.SearchStrategy[tuple]:
    return st.lists(strategy, min_size=minimum, max_size=maximum).map(tuple)


def flags(kind: type) -> st.SearchStrategy:
    return st.sets(st.sampled_from(list(kind.__members__.values()))).map(lambda chosen: kind(sum(set(chosen))))


ip_addresses = st.ip_addresses(v=4) | st.ip_addresses(v=6)
plain = st.none() | ip_addresses
opaque_lcafs = st.builds(
    OpaqueLcaf,
    st.sampled_from([0, 3, 4, 5, 6, 8, 9, 11, 14, 15, 16, 17, 255]),
    uint(8),
    st.binary(max_size=12),
)


def lcafs_of(inner: st.SearchStrategy) -> st.SearchStrategy:
    return (
        st.builds(InstanceId, uint(32), inner.filter(lambda address: address is not None))
        | st.builds(InstanceId, uint(32), st.none(), st.integers(0, 32))
        | st.builds(AfiList, few(inner))
        | st.builds(NatTraversal, uint(16), uint(16), inner, inner, inner, few(inner))
        | st.builds(ExplicitLocatorPath, few(st.builds(ReencapsulationHop, inner, flags(HopFlag))))
        | st.builds(SourceDestination, inner, st.integers(0, 32), inner, st.integers(0, 32))
        | st.builds(ReplicationList, few(st.builds(ReplicationEntry, uint(8), inner)))
    )


addresses = st.recursive(plain | opaque_lcafs, lcafs_of, max_leaves=4)

eid_prefixes = st.builds(
    EidPrefix,
    st.builds(lambda bits, mask: IPv4Network((bits, mask), strict=False), uint(32), st.integers(0, 32))
    | st.builds(lambda bits, mask: IPv6Network((bits, mask), strict=False), uint(128), st.integers(0, 128)),
    st.just(0) | uint(32),
)
other_eids = st.builds(OtherEid, uint(8), st.none() | opaque_lcafs | st.builds(AfiList, few(plain)))
eids = eid_prefixes | other_eids

locators = st.builds(RlocRecord, addresses, uint(8), uint(8), uint(8), uint(8), flags(LocatorFlag))
actions = st.sampled_from(list(Action)) | st.sampled_from([6, 7])
records = st.builds(
    EidRecord,
    eids,
    uint(32),
    few(locators),
    actions,
    st.sampled_from([EidRecordFlag.NONE, EidRecordFlag.AUTHORITATIVE]),
    uint(12),
)
identities = st.none() | st.builds(XtrIdentity, uint(128), uint(64))
authentications = st.builds(Authentication, uint(8), uint(8), st.binary(max_size=40))

map_requests = st.builds(
    MapRequest,
    uint(64),
    few(addresses, 1, 4),
    few(st.builds(RequestedEid, eids, st.booleans())),
    addresses,
    flags(MapRequestFlag),
    st.none() | records,
    identities,
)
map_replies = st.builds(MapReply, uint(64), few(records), flags(MapReplyFlag), st.binary(max_size=16))
map_registers = st.builds(MapRegister, uint(64), few(records), authentications, flags(MapRegisterFlag), identities)
map_notifies = st.builds(MapNotify, uint(64), few(records), authentications, identities)
map_notify_acks = st.builds(MapNotifyAck, uint(64), few(records), authentications, identities)
signatures = st.builds(ReferralSignature, uint(32), uint(32), uint(32), uint(16), uint(8), st.binary(max_size=16))
map_referrals = st.builds(
    MapReferral,
    uint(64),
    few(
        st.builds(
            ReferralRecord,
            eids,
            uint(32),
            uint(3),
            few(locators),
            flags(EidRecordFlag),
            uint(12),
            few(signatures),
        )
    ),
)
infos = st.builds(
    Info,
    uint(64),
    eids,
    uint(32),
    st.none() | st.builds(NatTraversal, uint(16), uint(16), plain, plain, plain, few(plain)),
    authentications,
)
opaque_messages = st.builds(
    lambda kind, rest: OpaqueMessage(kind, bytes([kind << 4]) + rest),
    st.sampled_from([0, 9, 10, 14, 15]),
    st.binary(max_size=16),
)
unencapsulated = (
    map_requests
    | map_replies
    | map_registers
    | map_notifies
    | map_notify_acks
    | map_referrals
    | infos
    | opaque_messages
)
ip_pairs = st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)) | st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))
encapsulated = st.builds(
    lambda pair, *rest: EncapsulatedControl(*pair, *rest),
    ip_pairs,
    uint(16),
    unencapsulated.map(lambda message: message.encode()),
    uint(16),
    flags(EncapsulatedControlFlag),
    st.sampled_from([b"", bytes.fromhex("01000001 0002 00 01 beef 0004 0001")]),
    uint(8),
)
messages = unencapsulated | encapsulated


def _data_header(
    nonce: int | None, echo: bool, versions: tuple[int, int] | None, instance: int | None,
    status: int | None, key_id: int,
) -> DataHeader:  # fmt: skip
    source, destination = versions if versions is not None and nonce is None else (None, None)
    if status is not None and instance is not None:
        status &= 0xFF
    return DataHeader(nonce, echo and nonce is not None, source, destination, instance, status, key_id)


data_headers = st.builds(
    _data_header,
    st.none() | uint(24),
    st.booleans(),
    st.none() | st.tuples(uint(12), uint(12)),
    st.none() | uint(24),
    st.none() | uint(32),
    uint(2),
)
