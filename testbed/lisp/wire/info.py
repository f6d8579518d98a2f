"""Info-Request and Info-Reply: how an xTR learns what a NAT does to it. Pure.

The format is draft-ermagan-lisp-nat-traversal's, the address in the reply RFC 8060 §4.4's.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.lisp.wire.address import NatTraversal, decode_address, encode_address
from testbed.lisp.wire.codes import MessageType
from testbed.lisp.wire.reader import Reader, packed
from testbed.lisp.wire.record import Eid, decode_eid, eid_mask_length, encode_eid
from testbed.lisp.wire.registration import UNAUTHENTICATED, Authentication

#: The R-bit: this is the reply.
REPLY = 0x08000000


@dataclass(frozen=True, slots=True)
class Info:
    """An Info-Request, or with `nat` an Info-Reply.

    Attributes:
        nonce: 64 bits; the reply's is the request's.
        eid: whose ETR asks.
        ttl_minutes: how long the answer holds; 0 in a request.
        nat: what the Map-Server saw; None in a request.
        authentication: of the message.
    """

    nonce: int
    eid: Eid
    ttl_minutes: int = 0
    nat: NatTraversal | None = None
    authentication: Authentication = UNAUTHENTICATED

    @property
    def is_reply(self) -> bool:
        """True for an Info-Reply."""
        return self.nat is not None

    @classmethod
    def decode(cls, reader: Reader) -> Info:
        """Read one, from its first word; WireError also if R-bit and address contradict each other."""
        is_reply = bool(reader.uint(4, "header") & REPLY)
        nonce = reader.uint(8, "nonce")
        with reader.at("authentication"):
            authentication = Authentication.decode(reader)
        ttl_minutes = reader.uint(4, "ttl_minutes")
        reader.take(1, "reserved")
        eid = decode_eid(reader, reader.uint(1, "eid_mask_length"))
        start = reader.offset
        nat = decode_address(reader, "nat")
        if is_reply and not isinstance(nat, NatTraversal):
            raise reader.error("nat", "a reply without a NAT-Traversal LCAF", offset=start)
        if not is_reply and nat is not None:
            raise reader.error("nat", "a request with an address", offset=start)
        reader.expect_end()
        return cls(nonce, eid, ttl_minutes, nat if isinstance(nat, NatTraversal) else None, authentication)

    def encode(self) -> bytes:
        """The octets; ValueError if a field does not fit."""
        word = MessageType.INFO << 28 | (REPLY if self.is_reply else 0)
        head = packed(word, 4, "header") + packed(self.nonce, 8, "nonce") + self.authentication.encode()
        head += packed(self.ttl_minutes, 4, "ttl_minutes") + b"\0"
        head += packed(eid_mask_length(self.eid), 1, "eid mask length")
        return head + encode_eid(self.eid) + encode_address(self.nat)
