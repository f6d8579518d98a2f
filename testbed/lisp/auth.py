"""Authentication of Map-Register, Map-Notify and Map-Notify-Ack (RFC 9301 §5.6, §5.7, §12.5). Pure.

The MAC covers the whole message with the authentication data set to zero. RFC 9301 ends the coverage
with the last RLOC-record, before the xTR-ID and Site-ID; deployed peers include those. `verify` accepts
either and says which it was, `sign` does what RFC 9301 says unless told otherwise.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from testbed.lisp.wire.codes import AlgorithmId
from testbed.lisp.wire.control import decode_control
from testbed.lisp.wire.mapping import XTR_IDENTITY_OCTETS
from testbed.lisp.wire.reader import packed
from testbed.lisp.wire.registration import (
    AUTHENTICATION_DATA_OFFSET,
    Authentication,
    MapNotify,
    MapNotifyAck,
    MapRegister,
)

Authenticated = MapRegister | MapNotify | MapNotifyAck

#: The salt of the key derivation, which ties a key to one type of message (RFC 9301 §5.6).
SALTS: dict[type[Authenticated], bytes] = {
    MapRegister: b"Map-Register Authentication",
    MapNotify: b"Map-Notify Authentication",
    MapNotifyAck: b"Map-Notify-Ack Authentication",
}


class AuthenticationError(Exception):
    """A message whose authentication data do not show that its sender knows the secret."""


@dataclass(frozen=True, slots=True)
class _Algorithm:
    """A row of RFC 9301 §12.5.

    Attributes:
        digest: the hash of the HMAC.
        octets: of authentication data that are sent: the whole digest, in spite of the names.
        least_octets: that are accepted: what the names say (RFC 2404, RFC 4868).
        derives_key: True if each message has its own key.
    """

    digest: Callable[..., Any]
    octets: int
    least_octets: int
    derives_key: bool = False


_ALGORITHMS: dict[int, _Algorithm] = {
    AlgorithmId.HMAC_SHA_1_96: _Algorithm(hashlib.sha1, 20, 12),
    AlgorithmId.HMAC_SHA_256_128: _Algorithm(hashlib.sha256, 32, 16),
    AlgorithmId.HMAC_SHA_256_128_HKDF: _Algorithm(hashlib.sha256, 32, 16, derives_key=True),
}


@dataclass(frozen=True, slots=True)
class Verified:
    """What `verify` found.

    Attributes:
        message: the message, decoded.
        covers_trailer: the MAC included xTR-ID and Site-ID. False if it did not, or if there are none;
            in the former case nothing vouches for `message.xtr`.
    """

    message: Authenticated
    covers_trailer: bool


#: RFC 2104 §2: what a key is combined with, as the table that does it octet by octet.
_INNER, _OUTER = (bytes(octet ^ pad for octet in range(256)) for pad in (0x36, 0x5C))


def hmac_of(key: bytes, message: bytes, digest: Callable[..., Any]) -> bytes:
    """HMAC with SHA-1 or SHA-256 (RFC 2104 §2).

    `hmac.digest` gives the same, and has OpenSSL look the algorithm up anew each time: three in a row, as a message of
    LISP needs them, take 54 µs there and 32 here once the caches hold something else.
    """
    block = (key if len(key) <= 64 else digest(key).digest()).ljust(64, b"\0")
    inner = digest(block.translate(_INNER) + message).digest()
    mac: bytes = digest(block.translate(_OUTER) + inner).digest()
    return mac


def hkdf_sha256(key_material: bytes, salt: bytes, info: bytes = b"", octets: int = 32) -> bytes:
    """HKDF with SHA-256 (RFC 5869 §2).

    Args:
        key_material: IKM.
        salt: of the extraction.
        info: of the expansion; empty in LISP.
        octets: of output, at most 8160.
    """
    key = hmac_of(salt, key_material, hashlib.sha256)
    output = block = b""
    for counter in range(1, -(-octets // 32) + 1):
        block = hmac_of(key, block + info + bytes([counter]), hashlib.sha256)
        output += block
    return output[:octets]


def _key(algorithm: _Algorithm, message: Authenticated, psk: bytes) -> bytes:
    """What the MAC of a message is made with: the secret, or the message's own key (RFC 9301 §5.6)."""
    if not algorithm.derives_key:
        return psk
    return hkdf_sha256(packed(message.nonce, 8, "nonce") + psk, SALTS[type(message)])


def sign(
    message: Authenticated, psk: bytes, *, named: Authentication | None = None, cover_trailer: bool = False
) -> bytes:
    """The octets of a message with its authentication data computed.

    Args:
        message: what is signed.
        psk: the pre-shared secret of the key ID.
        named: key and algorithm; those that the message names if it is not given. Its data do not count.
        cover_trailer: include xTR-ID and Site-ID, as deployed peers do.

    Raises:
        ValueError: the algorithm is none of those that RFC 9301 §12.5 gives a MAC.
    """
    named = named or message.authentication
    algorithm = _ALGORITHMS.get(named.algorithm_id)
    if algorithm is None:
        raise ValueError(f"algorithm {named.algorithm_id} has no MAC (RFC 9301 §12.5)")
    zeros = Authentication(named.key_id, named.algorithm_id, bytes(algorithm.octets))
    blank = message.encode(zeros)
    covered = blank if message.xtr is None or cover_trailer else blank[:-XTR_IDENTITY_OCTETS]
    data = hmac_of(_key(algorithm, message, psk), covered, algorithm.digest)
    return blank[:AUTHENTICATION_DATA_OFFSET] + data + blank[AUTHENTICATION_DATA_OFFSET + len(data) :]


def verify(data: bytes, psk: bytes, *, decoded: object = None) -> Verified:
    """Check the authentication data of a received message.

    Args:
        data: the message as it came; the MAC is over its octets, not over what they mean.
        psk: the pre-shared secret of the message's key ID.
        decoded: what `decode_control` made of `data`, if that has been done.

    Raises:
        WireError: malformed.
        AuthenticationError: of another type, without authentication data, or with wrong ones.
    """
    message = decode_control(data) if decoded is None else decoded
    if not isinstance(message, MapRegister | MapNotify | MapNotifyAck):
        raise AuthenticationError(f"a {type(message).__name__} carries no authentication data")
    received = message.authentication.data
    algorithm = _ALGORITHMS.get(message.authentication.algorithm_id)
    if algorithm is None:
        raise AuthenticationError(f"algorithm {message.authentication.algorithm_id} has no MAC")
    if not algorithm.least_octets <= len(received) <= algorithm.octets:
        raise AuthenticationError(
            f"{len(received)} octets of authentication data, must be {algorithm.least_octets} to {algorithm.octets}"
        )
    end = AUTHENTICATION_DATA_OFFSET + len(received)
    covered = data[:AUTHENTICATION_DATA_OFFSET] + bytes(len(received)) + data[end:]
    coverages = [(covered, False)]
    if message.xtr is not None:
        coverages = [(covered[:-XTR_IDENTITY_OCTETS], False), (covered, True)]
    key = _key(algorithm, message, psk)
    for octets, covers_trailer in coverages:
        expected = hmac_of(key, octets, algorithm.digest)[: len(received)]
        if hmac.compare_digest(expected, received):
            return Verified(message, covers_trailer)
    raise AuthenticationError("the authentication data are not those of this message and secret")
