"""Code points of LISP: message types, address families, actions, flags. Pure data.

A code point that nobody assigned yet stays a plain `int` and survives a round trip (`known`). A flag
bit that nobody assigned yet is zero on transmit and ignored on receipt, as RFC 9301 §5 demands
(`flags_in`).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from functools import cache, lru_cache
from typing import TypeVar

#: UDP ports (RFC 9300 §5.3, RFC 9301 §5).
DATA_PORT = 4341
CONTROL_PORT = 4342

#: A Record TTL that leaves it to the receiver how long to keep a mapping (RFC 9301 §5.4).
TTL_LOCAL_DECISION = 0xFFFFFFFF
#: A priority that forbids the use of a locator (RFC 9301 §5.4).
PRIORITY_UNUSABLE = 255


class MessageType(IntEnum):
    """Types of control messages (RFC 9301 §5.1; 7 is the NAT traversal draft's)."""

    MAP_REQUEST = 1
    MAP_REPLY = 2
    MAP_REGISTER = 3
    MAP_NOTIFY = 4
    MAP_NOTIFY_ACK = 5
    MAP_REFERRAL = 6
    INFO = 7
    ENCAPSULATED_CONTROL = 8
    SHARED_EXTENSION = 15


class Afi(IntEnum):
    """Address families (IANA), those of which RFC 9301 or RFC 8060 says the length."""

    NONE = 0
    IPV4 = 1
    IPV6 = 2
    LCAF = 16387


class LcafType(IntEnum):
    """Types of the LISP Canonical Address Format (RFC 8060 §3)."""

    NULL = 0
    AFI_LIST = 1
    INSTANCE_ID = 2
    AS_NUMBER = 3
    APPLICATION_DATA = 4
    GEO_COORDINATES = 5
    OPAQUE_KEY = 6
    NAT_TRAVERSAL = 7
    NONCE_LOCATOR = 8
    MULTICAST_INFO = 9
    EXPLICIT_LOCATOR_PATH = 10
    SECURITY_KEY = 11
    SOURCE_DESTINATION = 12
    REPLICATION_LIST = 13
    JSON = 14
    KEY_VALUE = 15
    ENCAPSULATION_FORMAT = 16


class Action(IntEnum):
    """What to do with packets for an EID without locators (ACT, RFC 9301 §5.4)."""

    NO_ACTION = 0
    NATIVELY_FORWARD = 1
    SEND_MAP_REQUEST = 2
    DROP_NO_REASON = 3
    DROP_POLICY_DENIED = 4
    DROP_AUTH_FAILURE = 5


class ReferralAction(IntEnum):
    """What a DDT node says about an EID (RFC 8111 §6.1)."""

    NODE_REFERRAL = 0
    MS_REFERRAL = 1
    MS_ACK = 2
    MS_NOT_REGISTERED = 3
    DELEGATION_HOLE = 4
    NOT_AUTHORITATIVE = 5


class AlgorithmId(IntEnum):
    """Pairs of MAC and key derivation (RFC 9301 §12.5)."""

    NONE = 0
    HMAC_SHA_1_96 = 1
    HMAC_SHA_256_128 = 2
    HMAC_SHA_256_128_HKDF = 3


class MapRequestFlag(IntFlag):
    """Flags in the first word of a Map-Request (RFC 9301 §5.2; I: RFC 9437 §4)."""

    NONE = 0
    AUTHORITATIVE = 0x08000000
    MAP_DATA_PRESENT = 0x04000000
    PROBE = 0x02000000
    SMR = 0x01000000
    PITR = 0x00800000
    SMR_INVOKED = 0x00400000
    XTR_ID_PRESENT = 0x00100000
    LOCAL_XTR = 0x00004000
    DONT_MAP_REPLY = 0x00002000


class MapReplyFlag(IntFlag):
    """Flags in the first word of a Map-Reply (RFC 9301 §5.4)."""

    NONE = 0
    PROBE = 0x08000000
    ECHO_NONCE_CAPABLE = 0x04000000
    SECURITY = 0x02000000


class MapRegisterFlag(IntFlag):
    """Flags in the first word of a Map-Register (RFC 9301 §5.6)."""

    NONE = 0
    PROXY_REPLY = 0x08000000
    SECURITY_CAPABLE = 0x04000000
    XTR_ID_PRESENT = 0x02000000
    EID_NOTIFY = 0x00001000
    USE_TTL = 0x00000800
    MERGE = 0x00000400
    MOBILE_NODE = 0x00000200
    WANT_MAP_NOTIFY = 0x00000100


class EncapsulatedControlFlag(IntFlag):
    """Flags in the first word of an Encapsulated Control Message (RFC 9301 §5.8, §12.6)."""

    NONE = 0
    SECURITY = 0x08000000
    DDT = 0x04000000
    FORWARD_TO_ETR = 0x02000000
    DESTINED_TO_MAP_SERVER = 0x01000000


class EidRecordFlag(IntFlag):
    """Flags beside ACT in an EID-record (RFC 9301 §5.4); INCOMPLETE in Map-Referrals (RFC 8111 §6.4)."""

    NONE = 0
    AUTHORITATIVE = 0x1000
    INCOMPLETE = 0x0800


class LocatorFlag(IntFlag):
    """Flags of an RLOC-record (RFC 9301 §5.4)."""

    NONE = 0
    LOCAL = 0x0004
    PROBED = 0x0002
    REACHABLE = 0x0001


class HopFlag(IntFlag):
    """Flags of a hop in an Explicit Locator Path (RFC 8060 §4.6)."""

    NONE = 0
    LOOKUP = 0x0004
    RLOC_PROBE = 0x0002
    STRICT = 0x0001


class DataFlag(IntFlag):
    """The first octet of the data header (RFC 9300 §5.3), without the two K-bits."""

    NONE = 0
    NONCE = 0x80
    LOCATOR_STATUS = 0x40
    ECHO_NONCE = 0x20
    MAP_VERSION = 0x10
    INSTANCE_ID = 0x08
    RESERVED = 0x04


def first_word(message_type: MessageType, flags: int, rest: int = 0) -> int:
    """A message's first word; of plain integers, since every operation on an `IntFlag` is slow."""
    return int(message_type) << 28 | int(flags) | rest


_Code = TypeVar("_Code", bound=IntEnum)
_Flags = TypeVar("_Flags", bound=IntFlag)


@lru_cache(maxsize=4096)
def known(code: type[_Code], value: int) -> _Code | int:
    """The enum's member, or the plain integer when the registry had none."""
    try:
        return code(value)
    except ValueError:
        return value


def flags_in(flags: type[_Flags], word: int) -> _Flags:
    """The assigned flags that are set in a word.

    Unassigned bits are dropped here: they must be ignored on receipt, and a member for each of their
    combinations (which `IntFlag` would make and keep) is memory that a stranger could claim.
    """
    member: _Flags = _member(flags, word & _assigned(flags))
    return member


def with_flag(flags: _Flags, flag: _Flags, *, on: bool) -> _Flags:
    """The flags with one of them set or cleared."""
    before = int(flags)
    value = before | int(flag) if on else before & ~int(flag)
    return flags if value == before else _member(type(flags), value)


@lru_cache(maxsize=4096)
def _member(flags: type[_Flags], value: int) -> _Flags:
    """`flags(value)`, without a look through the enum's members each time."""
    return flags(value)


@cache
def _assigned(flags: type[IntFlag]) -> int:
    """All assigned flags of a word; a plain integer, since every operation on an `IntFlag` is slow."""
    value = 0
    for flag in flags.__members__.values():
        value |= int(flag)
    return value
