"""Authentication data against values computed with another implementation (openssl)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.lisp.auth import AuthenticationError, hkdf_sha256, sign, verify
from testbed.lisp.wire import (
    AlgorithmId,
    Authentication,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    decode_control,
)
from tests.vectors.tables import IDENTITY, MAPPING

PSK = b"correct horse battery staple"


def register(algorithm: int, *, xtr: bool = False) -> MapRegister:
    return MapRegister(6, (MAPPING,), Authentication(0, algorithm), xtr=IDENTITY if xtr else None)


def notify(algorithm: int) -> MapNotify:
    return MapNotify(6, (MAPPING,), Authentication(0, algorithm))


def notify_ack(algorithm: int) -> MapNotifyAck:
    return MapNotifyAck(6, (MAPPING,), Authentication(0, algorithm))


#: By openssl: `dgst -mac HMAC` over the message with zeros, keys of algorithm 3 by `kdf … HKDF` from nonce,
#: secret and label.
SIGNED = [
    (register(1), False, "50df710394cf3c618d1dcff3dc1f57228652685e"),
    (register(2), False, "f9fdcb101f8546e73cff1d53bc6cb10ee93f58df8a67aa87d527f9c1cb9a26f2"),
    (register(2, xtr=True), False, "d961aa6266a34557b88366bed5d317226562c5163b749de6bd86bcc8512b2036"),
    (register(2, xtr=True), True, "5e0c5f4f12c27888f9ec83a3b383de9b6c80e644c957960814a390d3e97f60d6"),
    (register(3), False, "a1c0f53fb1e422133b51d1e0721187fcac47db5f3ea435d8c0191d1565224b15"),
    (notify(3), False, "53d535ee19eca47dfd42776aec9afbf44dcaee75e1f23e66464edede985084ff"),
    (notify_ack(3), False, "fcaa7429a01e4469a86a92e38925b980481712ac9221f25ead303453871c60b8"),
]


@pytest.mark.parametrize(("message", "cover_trailer", "digest"), SIGNED)
def test_sign(message: MapRegister, cover_trailer: bool, digest: str) -> None:
    signed = decode_control(sign(message, PSK, cover_trailer=cover_trailer))
    assert isinstance(signed, MapRegister | MapNotify | MapNotifyAck)
    assert signed.authentication.data.hex() == digest
    assert replace(signed, authentication=message.authentication) == message


@pytest.mark.parametrize(("message", "cover_trailer", "digest"), SIGNED)
def test_verify(message: MapRegister, cover_trailer: bool, digest: str) -> None:
    authentication = replace(message.authentication, data=bytes.fromhex(digest))
    verified = verify(replace(message, authentication=authentication).encode(), PSK)
    assert verified.covers_trailer is cover_trailer
    assert replace(verified.message, authentication=message.authentication) == message


def test_verify_covers_reserved_bits() -> None:
    octets = bytearray(sign(register(2), PSK))
    octets[2] |= 0x20  # reserved, ignored by the decoder
    with pytest.raises(AuthenticationError):
        verify(bytes(octets), PSK)


@pytest.mark.parametrize("algorithm", [1, 2, 3])
def test_every_octet_counts(algorithm: int) -> None:
    octets = sign(register(algorithm), PSK)
    for index in range(4, len(octets)):
        changed = bytearray(octets)
        changed[index] ^= 0x01
        with pytest.raises((AuthenticationError, ValueError)):
            verify(bytes(changed), PSK)


@pytest.mark.parametrize(("algorithm", "least"), [(1, 12), (2, 16), (3, 16)])
def test_truncated_authentication_data(algorithm: int, least: int) -> None:
    whole = register(algorithm)
    for octets in range(33):
        # The length field is under the MAC as well, so the digest is computed with the shorter field.
        blank = replace(whole, authentication=Authentication(0, algorithm, bytes(octets)))
        digest = hmac_of(blank.encode(), algorithm)[:octets]
        data = replace(whole, authentication=Authentication(0, algorithm, digest)).encode()
        if least <= octets <= (20 if algorithm == 1 else 32):
            assert not verify(data, PSK).covers_trailer
        else:
            with pytest.raises(AuthenticationError, match="octets of authentication data"):
                verify(data, PSK)


def hmac_of(octets: bytes, algorithm: int) -> bytes:
    import hmac

    key = PSK if algorithm < 3 else hkdf_sha256(bytes(7) + b"\6" + PSK, b"Map-Register Authentication")
    return hmac.digest(key, octets, "sha1" if algorithm == 1 else "sha256").ljust(33, b"\0")


def test_wrong_secret() -> None:
    with pytest.raises(AuthenticationError, match="not those of this message"):
        verify(sign(register(2), PSK), PSK + b"!")


def test_a_notify_does_not_pass_as_its_acknowledgement() -> None:
    octets = bytearray(sign(notify(AlgorithmId.HMAC_SHA_256_128_HKDF), PSK))
    octets[0] = 0x50
    with pytest.raises(AuthenticationError):
        verify(bytes(octets), PSK)


def test_algorithm_without_mac() -> None:
    with pytest.raises(AuthenticationError, match="has no MAC"):
        verify(register(0).encode(), PSK)
    with pytest.raises(ValueError, match="has no MAC"):
        sign(register(99), PSK)


def test_message_without_authentication() -> None:
    with pytest.raises(AuthenticationError, match="MapReply"):
        verify(MapReply(1, ()).encode(), PSK)


def test_hkdf_of_rfc_5869() -> None:
    """Test case 1 of RFC 5869, appendix A."""
    output = hkdf_sha256(
        bytes.fromhex("0b" * 22), bytes.fromhex("000102030405060708090a0b0c"),
        bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), 42,
    )  # fmt: skip
    assert output.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
