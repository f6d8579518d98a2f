"""Map-Referral, the answer of a DDT node (RFC 8111 §6.4). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.lisp.wire.codes import EidRecordFlag, MessageType, ReferralAction, flags_in, known
from testbed.lisp.wire.reader import Reader, fitting, packed
from testbed.lisp.wire.record import (
    Eid,
    RlocRecord,
    decode_eid,
    decode_locators,
    eid_mask_length,
    encode_eid,
)


@dataclass(frozen=True, slots=True)
class ReferralSignature:
    """A signature over a referral record (RFC 8111 §6.4.1).

    Attributes:
        original_ttl_minutes: the Record TTL that the signature covers.
        expiration_s: seconds since 1970, UTC.
        inception_s: seconds since 1970, UTC.
        key_tag: which key.
        algorithm: 1 RSA-SHA1 (deprecated), 2 RSA-SHA256.
        signature: the octets; at most 65535.
    """

    original_ttl_minutes: int
    expiration_s: int
    inception_s: int
    key_tag: int
    algorithm: int
    signature: bytes

    @classmethod
    def decode(cls, reader: Reader) -> ReferralSignature:
        """Read one."""
        original_ttl_minutes = reader.uint(4, "original_ttl_minutes")
        expiration_s = reader.uint(4, "expiration_s")
        inception_s = reader.uint(4, "inception_s")
        key_tag = reader.uint(2, "key_tag")
        octets = reader.uint(2, "length")
        algorithm = reader.uint(1, "algorithm")
        reader.take(3, "reserved")
        signature = reader.take(octets, "signature")
        return cls(original_ttl_minutes, expiration_s, inception_s, key_tag, algorithm, signature)

    def encode(self) -> bytes:
        """The octets; ValueError if a field does not fit."""
        times = packed(self.original_ttl_minutes, 4, "original_ttl_minutes")
        times += packed(self.expiration_s, 4, "expiration_s") + packed(self.inception_s, 4, "inception_s")
        key = packed(self.key_tag, 2, "key_tag") + packed(len(self.signature), 2, "signature length")
        return times + key + packed(self.algorithm, 1, "algorithm") + bytes(3) + self.signature


@dataclass(frozen=True, slots=True)
class ReferralRecord:
    """To whom a DDT node refers, for an EID-prefix.

    Attributes:
        eid: the delegated prefix.
        ttl_minutes: how long the referral may be kept.
        action: what kind of answer it is; a plain int where unassigned.
        locators: of the DDT nodes or Map-Servers to ask next; not those of a mapping.
        flags: A, and I (the set is incomplete: do not cache).
        map_version: 12 bits.
        signatures: at most 15.
    """

    eid: Eid
    ttl_minutes: int
    action: ReferralAction | int
    locators: tuple[RlocRecord, ...] = ()
    flags: EidRecordFlag = EidRecordFlag.NONE
    map_version: int = 0
    signatures: tuple[ReferralSignature, ...] = ()

    @classmethod
    def decode(cls, reader: Reader) -> ReferralRecord:
        """Read one; WireError as `decode_eid` and `RlocRecord.decode`."""
        ttl_minutes = reader.uint(4, "ttl_minutes")
        locator_count = reader.uint(1, "referral_count")
        mask_length = reader.uint(1, "eid_mask_length")
        half_word = reader.uint(2, "act")
        version_word = reader.uint(2, "map_version")
        eid = decode_eid(reader, mask_length)
        locators = decode_locators(reader, locator_count)
        signatures = []
        for index in range(version_word >> 12):
            with reader.at(f"signatures[{index}]"):
                signatures.append(ReferralSignature.decode(reader))
        action = known(ReferralAction, half_word >> 13)
        flags = flags_in(EidRecordFlag, half_word)
        return cls(eid, ttl_minutes, action, locators, flags, version_word & 0x0FFF, tuple(signatures))

    def encode(self) -> bytes:
        """The octets; ValueError if a field does not fit."""
        head = packed(self.ttl_minutes, 4, "ttl_minutes") + packed(len(self.locators), 1, "referral count")
        head += packed(eid_mask_length(self.eid), 1, "eid mask length")
        head += packed(fitting(self.action, 3, "action") << 13 | int(self.flags), 2, "act")
        count = fitting(len(self.signatures), 4, "signature count")
        head += packed(count << 12 | fitting(self.map_version, 12, "map_version"), 2, "map_version")
        parts = [head, encode_eid(self.eid)]
        parts += [locator.encode() for locator in self.locators]
        parts += [signature.encode() for signature in self.signatures]
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class MapReferral:
    """A Map-Referral.

    Attributes:
        nonce: of the Map-Request.
        records: the referrals.
    """

    nonce: int
    records: tuple[ReferralRecord, ...]

    @classmethod
    def decode(cls, reader: Reader) -> MapReferral:
        """Read one, from its first word."""
        word = reader.uint(4, "header")
        nonce = reader.uint(8, "nonce")
        records = []
        for index in range(word & 0xFF):
            with reader.at(f"records[{index}]"):
                records.append(ReferralRecord.decode(reader))
        reader.expect_end()
        return cls(nonce, tuple(records))

    def encode(self) -> bytes:
        """The octets; ValueError if a field does not fit."""
        word = MessageType.MAP_REFERRAL << 28 | packed(len(self.records), 1, "record count")[0]
        head = packed(word, 4, "header") + packed(self.nonce, 8, "nonce")
        return head + b"".join(record.encode() for record in self.records)
