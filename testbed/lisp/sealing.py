"""Messages as an xTR or Map-Server sends them under one secret, and as it accepts them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

from testbed.lisp.auth import AuthenticationError, Verified, verify
from testbed.lisp.auth import sign as compute
from testbed.lisp.wire import AlgorithmId, Authentication, MapNotify, MapNotifyAck, MapRegister

M = TypeVar("M", MapRegister, MapNotify, MapNotifyAck)


@dataclass(frozen=True, slots=True)
class Secret:
    """A pre-shared secret and how it is used.

    Attributes:
        key_id: 8 bits; which secret this is to both ends (RFC 9301 §5.6).
        key: the octets.
        algorithm: of the MAC; HMAC-SHA-256-128 is the one that everybody must have.
    """

    key_id: int
    key: bytes = field(repr=False)
    algorithm: AlgorithmId = AlgorithmId.HMAC_SHA_256_128

    def seal(self, message: M) -> bytes:
        """The octets of a message with its authentication data."""
        named = replace(message, authentication=Authentication(self.key_id, self.algorithm))
        return compute(named, self.key).encode()

    def verified(self, payload: bytes) -> Verified | None:
        """A received message, if somebody who knows the secret made it; WireError if malformed."""
        try:
            found = verify(payload, self.key)
        except AuthenticationError:
            return None
        return found if found.message.authentication.key_id == self.key_id else None

    def vouches_for(self, payload: bytes) -> bool:
        """Whether somebody who knows the secret made a received message; WireError if malformed."""
        return self.verified(payload) is not None
