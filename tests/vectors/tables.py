"""Control messages as (name, value, hex), written by hand from the figures of the RFCs.

The hex is laid out as the figures are: blanks and lines do not count, `#` begins a comment.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from testbed.lisp.wire import (
    Action,
    AlgorithmId,
    Authentication,
    EidPrefix,
    EidRecord,
    EidRecordFlag,
    EncapsulatedControl,
    EncapsulatedControlFlag,
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
    Message,
    NatTraversal,
    OpaqueMessage,
    ReferralAction,
    ReferralRecord,
    ReferralSignature,
    RequestedEid,
    RlocRecord,
    XtrIdentity,
)


def octets(text: str) -> bytes:
    """The bytes of a commented hex text."""
    return bytes.fromhex("".join(line.split("#")[0] for line in text.splitlines()))


VM4 = EidPrefix(IPv4Network("192.168.0.10/32"))
VM6 = EidPrefix(IPv6Network("2001:db8:e::10/128"))
RLOC_A, RLOC_B, RLOC_C = (IPv4Address(f"10.0.{n}.2") for n in (1, 2, 3))
RLOC6_B = IPv6Address("2001:db8:2::2")
IDENTITY = XtrIdentity(0x000102030405060708090A0B0C0D0E0F, 0x1011121314151617)
IDENTITY_HEX = """
    00010203 04050607 08090a0b 0c0d0e0f   # xTR-ID
    10111213 14151617                     # Site-ID
"""
MAPPING = EidRecord(VM4, 1440, (RlocRecord(RLOC_B),), flags=EidRecordFlag.AUTHORITATIVE, map_version=5)
MAPPING_HEX = """
    000005a0            # Record TTL: 1440 minutes
    01 20 1000          # one locator, /32, ACT 0, A
    0005 0001           # map-version 5, AFI 1
    c0a8000a            # EID
    01 64 ff 00         # priority 1, weight 100, multicast 255 and 0
    0001 0001 0a000202  # R, AFI 1, RLOC
"""

MESSAGES: list[tuple[str, Message, str]] = [
    (
        "map-request, IPv4",
        MapRequest(0x0102030405060708, (RLOC_C,), (RequestedEid(VM4),), IPv4Address("192.168.3.10")),
        """
        10000001            # type 1, IRC 0 (one ITR-RLOC), one record
        01020304 05060708   # nonce
        0001 c0a8030a       # source EID
        0001 0a000302       # ITR-RLOC
        00 20 0001 c0a8000a # record
        """,
    ),
    (
        "map-request, every flag, two ITR-RLOCs, two records, a mapping and the xTR's identity",
        MapRequest(
            1,
            (RLOC_C, RLOC6_B),
            (RequestedEid(VM4), RequestedEid(VM6, notify=True)),
            flags=MapRequestFlag.AUTHORITATIVE
            | MapRequestFlag.PROBE
            | MapRequestFlag.SMR
            | MapRequestFlag.PITR
            | MapRequestFlag.SMR_INVOKED
            | MapRequestFlag.LOCAL_XTR
            | MapRequestFlag.DONT_MAP_REPLY,
            map_reply_record=MAPPING,
            xtr=IDENTITY,
        ),
        """
        1fd06102                                          # A M P S p s I, L D, IRC 1, two records
        00000000 00000001
        0000                                              # no source EID
        0001 0a000302                                     # ITR-RLOC 1
        0002 20010db8 00020000 00000000 00000002          # ITR-RLOC 2
        00 20 0001 c0a8000a                               # record 1
        80 80 0002 20010db8 000e0000 00000000 00000010    # record 2: N
        """
        + MAPPING_HEX
        + IDENTITY_HEX,
    ),
    (
        "map-request, an SMR",
        MapRequest(
            2,
            (RLOC_A,),
            (RequestedEid(EidPrefix(IPv4Network("192.168.3.0/24"))),),
            IPv4Address("192.168.0.10"),
            MapRequestFlag.SMR | MapRequestFlag.DONT_MAP_REPLY,
        ),
        """
        11002001
        00000000 00000002
        0001 c0a8000a
        0001 0a000102
        00 18 0001 c0a80300
        """,
    ),
    (
        "map-request, unsubscribes",
        MapRequest(3, (None,), (RequestedEid(VM4, notify=True),), xtr=IDENTITY),
        """
        10100001
        00000000 00000003
        0000
        0000                 # one ITR-RLOC, AFI 0 (RFC 9437 §5)
        80 20 0001 c0a8000a
        """
        + IDENTITY_HEX,
    ),
    (
        "map-request, EIDs in an instance",
        MapRequest(
            4,
            (RLOC_C,),
            (RequestedEid(EidPrefix(IPv4Network("192.168.0.0/24"), 7)),),
            InstanceId(7, IPv4Address("192.168.3.10")),
        ),
        """
        10000001
        00000000 00000004
        4003 00 00 02 00 000a 00000007 0001 c0a8030a
        0001 0a000302
        00 18 4003 00 00 02 00 000a 00000007 0001 c0a80000
        """,
    ),
    (
        "map-reply",
        MapReply(0x0102030405060708, (MAPPING,)),
        "20000001 01020304 05060708" + MAPPING_HEX,
    ),
    (
        "map-reply, negative",
        MapReply(1, (EidRecord(EidPrefix(IPv4Network("192.168.0.0/16")), 15, action=Action.NATIVELY_FORWARD),)),
        """
        20000001 00000000 00000001
        0000000f            # 15 minutes
        00 10 2000          # no locator, /16, ACT 1
        0000 0001 c0a80000
        """,
    ),
    (
        "map-reply, to a probe, IPv6 EID behind RLOCs of both families, an unassigned action",
        MapReply(
            1,
            (
                EidRecord(
                    VM6,
                    0xFFFFFFFF,
                    (
                        RlocRecord(RLOC_B, 1, 50, 255, 0, LocatorFlag.PROBED | LocatorFlag.REACHABLE),
                        RlocRecord(RLOC6_B, 2, 50, 1, 3, LocatorFlag.LOCAL),
                    ),
                    7,
                    EidRecordFlag.AUTHORITATIVE,
                    0xFFF,
                ),
            ),
            MapReplyFlag.PROBE | MapReplyFlag.ECHO_NONCE_CAPABLE,
        ),
        """
        2c000001 00000000 00000001
        ffffffff 02 80 f000 0fff 0002 20010db8 000e0000 00000000 00000010
        01 32 ff 00 0003 0001 0a000202
        02 32 01 03 0004 0002 20010db8 00020000 00000000 00000002
        """,
    ),
    (
        "map-reply, with LISP-SEC's authentication data",
        MapReply(1, (), security=bytes.fromhex("01000000cafe")),
        "22000000 00000000 00000001 01000000 cafe",
    ),
    (
        "map-register",
        MapRegister(
            6,
            (MAPPING,),
            Authentication(0, AlgorithmId.HMAC_SHA_256_128, bytes(range(32))),
            MapRegisterFlag.PROXY_REPLY | MapRegisterFlag.WANT_MAP_NOTIFY,
        ),
        """
        38000101 00000000 00000006
        00 02 0020
        00010203 04050607 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f
        """
        + MAPPING_HEX,
    ),
    (
        "map-register, every flag, an unassigned algorithm, withdraws",
        MapRegister(
            0xFFFFFFFFFFFFFFFF,
            (EidRecord(VM4, 0),),
            Authentication(3, 200, b"\xaa\xbb"),
            MapRegisterFlag.PROXY_REPLY
            | MapRegisterFlag.SECURITY_CAPABLE
            | MapRegisterFlag.EID_NOTIFY
            | MapRegisterFlag.USE_TTL
            | MapRegisterFlag.MERGE
            | MapRegisterFlag.MOBILE_NODE
            | MapRegisterFlag.WANT_MAP_NOTIFY,
            IDENTITY,
        ),
        """
        3e001f01 ffffffff ffffffff
        03 c8 0002 aabb
        00000000 00 20 0000 0000 0001 c0a8000a
        """
        + IDENTITY_HEX,
    ),
    (
        "map-notify",
        MapNotify(6, (MAPPING,), Authentication(0, AlgorithmId.HMAC_SHA_1_96, bytes(20))),
        """
        40000001 00000000 00000006
        00 01 0014 00000000 00000000 00000000 00000000 00000000
        """
        + MAPPING_HEX,
    ),
    (
        "map-notify, with the trailer that some peers copy",
        MapNotify(6, (), Authentication(), IDENTITY),
        "40000000 00000000 00000006 00 00 0000" + IDENTITY_HEX,
    ),
    (
        "map-notify-ack",
        MapNotifyAck(7, (MAPPING,), Authentication()),
        "50000001 00000000 00000007 00 00 0000" + MAPPING_HEX,
    ),
    (
        "encapsulated control, IPv4",
        EncapsulatedControl(RLOC_C, IPv4Address("192.168.0.10"), 4000, bytes.fromhex("f00d"), hop_limit=32),
        """
        80000000
        4500 001e 0000 4000 20 11 8d1b 0a000302 c0a8000a
        0fa0 10f6 000a 2182 f00d
        """,
    ),
    (
        "encapsulated control, IPv6, with every flag and LISP-SEC's authentication data",
        EncapsulatedControl(
            IPv6Address("2001:db8:2::2"),
            IPv6Address("2001:db8:e::10"),
            4342,
            bytes.fromhex("f0"),
            flags=EncapsulatedControlFlag.DDT
            | EncapsulatedControlFlag.FORWARD_TO_ETR
            | EncapsulatedControlFlag.DESTINED_TO_MAP_SERVER,
            security=bytes.fromhex("01000001 0002 00 01 beef 0004 0001"),
        ),
        """
        8f000000
        01 00 0001 0002 00 01 beef 0004 0001    # one-time key of 2 octets, KDF 1
        60000000 0009 11 40
        20010db8 00020000 00000000 00000002
        20010db8 000e0000 00000000 00000010
        10f6 10f6 0009 925b f0
        """,
    ),
    (
        "map-referral",
        MapReferral(
            9,
            (
                ReferralRecord(
                    EidPrefix(IPv6Network("2001:db8::/32")),
                    1440,
                    ReferralAction.MS_REFERRAL,
                    (RlocRecord(RLOC_A),),
                    EidRecordFlag.AUTHORITATIVE | EidRecordFlag.INCOMPLETE,
                    0x123,
                    (ReferralSignature(1440, 0x60000000, 0x50000000, 0xABCD, 2, b"\xfe\xed"),),
                ),
                ReferralRecord(VM4, 15, ReferralAction.DELEGATION_HOLE),
            ),
        ),
        """
        60000002 00000000 00000009
        000005a0 01 20 3800                         # ACT 1, A, I
        1123 0002 20010db8 00000000 00000000 00000000
        01 64 ff 00 0001 0001 0a000102
        000005a0 60000000 50000000 abcd 0002 02 00 0000 feed
        0000000f 00 20 8000 0000 0001 c0a8000a      # ACT 4
        """,
    ),
    (
        "info-request",
        Info(8, VM4, authentication=Authentication(0, 1, bytes(20))),
        """
        70000000 00000000 00000008
        00 01 0014 00000000 00000000 00000000 00000000 00000000
        00000000 00 20 0001 c0a8000a
        0000
        """,
    ),
    (
        "info-reply",
        Info(8, VM4, 1440, NatTraversal(4342, 6000, RLOC_A, RLOC_B, RLOC_C, (RLOC6_B,))),
        """
        78000000 00000000 00000008
        00 00 0000
        000005a0 00 20 0001 c0a8000a
        4003 00 00 07 00 0028
        10f6 1770                                   # ports of Map-Server and ETR
        0001 0a000102 0001 0a000202 0001 0a000302   # global ETR, Map-Server, private ETR
        0002 20010db8 00020000 00000000 00000002    # RTR
        """,
    ),
    (
        "a message of a type that is not read",
        OpaqueMessage(15, bytes.fromhex("f1020304")),
        "f1020304",
    ),
]
