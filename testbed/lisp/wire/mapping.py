"""Map-Request and Map-Reply (RFC 9301 §5.2-5.5, RFC 9437 §4). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from testbed.lisp.wire.address import Address, decode_address, encode_address
from testbed.lisp.wire.codes import MapReplyFlag, MapRequestFlag, MessageType, first_word, flags_in, with_flag
from testbed.lisp.wire.reader import Layout, Reader, packed
from testbed.lisp.wire.record import (
    Eid,
    EidRecord,
    decode_eid,
    decode_records,
    eid_mask_length,
    encode_eid,
)

MAX_ITR_RLOCS = 32
#: How all messages with a nonce begin.
HEAD = Layout(header=4, nonce=8)
_REQUEST = Layout(flags=1, eid_mask_length=1)


class XtrIdentity(NamedTuple):
    """Who an xTR is: the trailer that the I-bit announces (RFC 9301 §5.6, RFC 9437 §4).

    Attributes:
        xtr_id: 128 bits.
        site_id: 64 bits.
    """

    xtr_id: int
    site_id: int = 0

    @classmethod
    def decode(cls, reader: Reader) -> XtrIdentity:
        """Read the 24 octets."""
        return cls(reader.uint(16, "xtr_id"), reader.uint(8, "site_id"))

    def encode(self) -> bytes:
        """The 24 octets; ValueError if an ID does not fit."""
        return packed(self.xtr_id, 16, "xtr_id") + packed(self.site_id, 8, "site_id")


XTR_IDENTITY_OCTETS = 24


@dataclass(frozen=True, slots=True)
class RequestedEid:
    """An EID that is asked for; with `notify` (the N-bit, RFC 9437 §4) also subscribed to."""

    eid: Eid
    notify: bool = False


@dataclass(frozen=True, slots=True)
class MapRequest:
    """A Map-Request; with SMR also the solicitation of one.

    The flags M and I say what is in the message: they follow `map_reply_record` and `xtr`, whatever
    is given for them.

    Attributes:
        nonce: 64 bits, random.
        itr_rlocs: 1 to 32 addresses that the reply may go to; one None (AFI 0) unsubscribes (RFC 9437 §5).
        requests: what is asked; a sender must send one, a receiver accept several.
        source_eid: of the packet that caused it; None when refreshing or probing.
        flags: of the first word.
        map_reply_record: the sender's own mapping, not validated by anyone.
        xtr: the sender's identity, for PubSub.
    """

    nonce: int
    itr_rlocs: tuple[Address, ...]
    requests: tuple[RequestedEid, ...]
    source_eid: Address = None
    flags: MapRequestFlag = MapRequestFlag.NONE
    map_reply_record: EidRecord | None = None
    xtr: XtrIdentity | None = None

    def __post_init__(self) -> None:
        flags = with_flag(self.flags, MapRequestFlag.MAP_DATA_PRESENT, on=self.map_reply_record is not None)
        flags = with_flag(flags, MapRequestFlag.XTR_ID_PRESENT, on=self.xtr is not None)
        object.__setattr__(self, "flags", flags)

    @classmethod
    def decode(cls, reader: Reader) -> MapRequest:
        """Read one, from its first word."""
        word, nonce = reader.uints(HEAD)
        flags = flags_in(MapRequestFlag, word)
        itr_rloc_count = (word >> 8 & 0x1F) + 1
        source_eid = decode_address(reader, "source_eid")
        itr_rlocs = tuple(decode_address(reader, f"itr_rlocs[{index}]") for index in range(itr_rloc_count))
        requests = []
        for index in range(word & 0xFF):
            reader.path.append(f"requests[{index}]")
            request_flags, mask_length = reader.uints(_REQUEST)
            requests.append(RequestedEid(decode_eid(reader, mask_length), bool(request_flags & 0x80)))
            reader.path.pop()
        record = xtr = None
        if MapRequestFlag.MAP_DATA_PRESENT in flags:
            with reader.at("map_reply_record"):
                record = EidRecord.decode(reader)
        if MapRequestFlag.XTR_ID_PRESENT in flags:
            with reader.at("xtr"):
                xtr = XtrIdentity.decode(reader)
        reader.expect_end()
        return cls(nonce, itr_rlocs, tuple(requests), source_eid, flags, record, xtr)

    def encode(self) -> bytes:
        """The octets; ValueError if a field does not fit."""
        if not 1 <= len(self.itr_rlocs) <= MAX_ITR_RLOCS:
            raise ValueError(f"{len(self.itr_rlocs)} ITR-RLOCs, must be 1 to {MAX_ITR_RLOCS}")
        count = packed(len(self.requests), 1, "record count")[0]
        word = first_word(MessageType.MAP_REQUEST, self.flags, (len(self.itr_rlocs) - 1) << 8 | count)
        parts = [HEAD.pack(word, self.nonce), encode_address(self.source_eid)]
        parts += [encode_address(rloc) for rloc in self.itr_rlocs]
        for request in self.requests:
            head = _REQUEST.pack(0x80 if request.notify else 0, eid_mask_length(request.eid))
            parts.append(head + encode_eid(request.eid))
        if self.map_reply_record is not None:
            parts.append(self.map_reply_record.encode())
        if self.xtr is not None:
            parts.append(self.xtr.encode())
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class MapReply:
    """A Map-Reply.

    Attributes:
        nonce: of the Map-Request.
        records: the mappings; one without locators is negative.
        flags: of the first word; S follows `security`.
        security: Authentication Data of LISP-SEC (RFC 9303 §6.2), as it came.
    """

    nonce: int
    records: tuple[EidRecord, ...]
    flags: MapReplyFlag = MapReplyFlag.NONE
    security: bytes = b""

    def __post_init__(self) -> None:
        flags = with_flag(self.flags, MapReplyFlag.SECURITY, on=bool(self.security))
        object.__setattr__(self, "flags", flags)

    @classmethod
    def decode(cls, reader: Reader) -> MapReply:
        """Read one, from its first word."""
        word, nonce = reader.uints(HEAD)
        flags = flags_in(MapReplyFlag, word)
        records = decode_records(reader, word & 0xFF)
        security = b""
        if MapReplyFlag.SECURITY in flags:
            if not reader.remaining:
                raise reader.error("security", "the S-bit is set, but nothing follows the records")
            security = reader.rest()
        reader.expect_end()
        return cls(nonce, records, flags, security)

    def encode(self) -> bytes:
        """The octets; ValueError if a field does not fit."""
        word = first_word(MessageType.MAP_REPLY, self.flags, packed(len(self.records), 1, "record count")[0])
        return HEAD.pack(word, self.nonce) + b"".join(record.encode() for record in self.records) + self.security
