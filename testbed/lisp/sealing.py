"""Messages as an xTR or Map-Server sends them under one secret, and as it accepts them."""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.errors import TestbedError
from testbed.lisp.auth import Authenticated, AuthenticationError, sign, verify
from testbed.lisp.tolerances import Tolerance, Tolerances
from testbed.lisp.wire import AlgorithmId, Authentication

#: The words of an agent's configuration. SHA-1 alone MUST NOT be used (RFC 9301 §1.1): there is no word for it.
AUTHENTICATIONS: dict[str, AlgorithmId] = {
    "hmac-sha-256-128": AlgorithmId.HMAC_SHA_256_128,
    "hmac-sha-256-128+hkdf": AlgorithmId.HMAC_SHA_256_128_HKDF,
}


@dataclass(frozen=True, slots=True)
class Opened:
    """A message that somebody made who knows the secret.

    Attributes:
        message: decoded.
        covers_trailer: whether the MAC vouches for xTR-ID and Site-ID.
        needs: what must be tolerated of its sender to accept it.
        secret: ours, used as the sender uses it, so that it understands the answer.
    """

    message: Authenticated
    covers_trailer: bool
    needs: Tolerances
    secret: Secret


@dataclass(frozen=True, slots=True)
class Secret:
    """A pre-shared secret and how it is used.

    Attributes:
        key_id: 8 bits; which secret this is to both ends (RFC 9301 §5.6).
        key: the octets.
        algorithm: of the MAC; HMAC-SHA-256-128 is the one that everybody must have.
        cover_trailer: the MAC includes xTR-ID and Site-ID; RFC 9301 ends it before them.
    """

    key_id: int
    key: bytes = field(repr=False)
    algorithm: AlgorithmId | int = AlgorithmId.HMAC_SHA_256_128
    cover_trailer: bool = False

    @classmethod
    def configured(cls, key_id: int, key: bytes, authentication: str) -> Secret:
        """As an agent's configuration has it; TestbedError for a word that is none of `AUTHENTICATIONS`."""
        algorithm = AUTHENTICATIONS.get(authentication)
        if algorithm is None:
            known = ", ".join(AUTHENTICATIONS)
            raise TestbedError("unknown-authentication", f"No authentication {authentication!r}", why=f"known: {known}")
        return cls(key_id, key, algorithm)

    def seal(self, message: Authenticated) -> bytes:
        """The octets of a message with its authentication data."""
        named = Authentication(self.key_id, self.algorithm)
        return sign(message, self.key, named=named, cover_trailer=self.cover_trailer)

    def sealing(self, message: Authenticated) -> Sealing:
        """What `seal` returns, made when it is called for."""
        return Sealing(self, message)

    def open(self, payload: bytes, decoded: object = None) -> Opened | None:
        """A received message, if somebody who knows the secret made it; WireError if malformed.

        Args:
            payload: the message as it came.
            decoded: what `decode_control` made of it, if that has been done.
        """
        try:
            found = verify(payload, self.key, decoded=decoded)
        except AuthenticationError:
            return None
        authentication = found.message.authentication
        needs = set()
        if authentication.key_id != self.key_id:
            if authentication.key_id != 0:
                return None
            needs.add(Tolerance.WIDE_KEY_ID)
        if authentication.algorithm_id == AlgorithmId.HMAC_SHA_1_96 != self.algorithm:
            needs.add(Tolerance.SHA_1)
        if found.covers_trailer and not self.cover_trailer:
            needs.add(Tolerance.MAC_OVER_TRAILER)
        theirs = Secret(authentication.key_id, self.key, authentication.algorithm_id, found.covers_trailer)
        return Opened(found.message, found.covers_trailer, frozenset(needs), theirs)

    def vouches_for(self, payload: bytes) -> bool:
        """Whether somebody made a received message who uses the secret as we do; WireError if malformed."""
        opened = self.open(payload)
        return opened is not None and not opened.needs


@dataclass(frozen=True, slots=True)
class Sealing:
    """A message that is sealed when somebody calls for its octets."""

    secret: Secret
    message: Authenticated

    def __call__(self) -> bytes:
        """The octets of the message with its authentication data."""
        return self.secret.seal(self.message)
