"""The data header against the figures of RFC 9300 §5.3."""

from __future__ import annotations

import pytest

from testbed.lisp.wire import DataHeader, Reader
from tests.vectors.tables import octets

HEADERS = [
    (DataHeader(), "00 000000 00000000"),
    (DataHeader(nonce=0xABCDEF), "80 abcdef 00000000"),
    (DataHeader(nonce=1, echo_nonce=True), "a0 000001 00000000"),
    (DataHeader(locator_status_bits=0x80000003), "40 000000 80000003"),
    (DataHeader(source_map_version=0x123, destination_map_version=0xFFF), "10 123fff 00000000"),
    (DataHeader(instance_id=0xFEDCBA), "08 000000 fedcba00"),
    (DataHeader(instance_id=7, locator_status_bits=0x81), "48 000000 00000781"),
    (DataHeader(nonce=2, instance_id=7, locator_status_bits=1, key_id=3), "cb 000002 00000701"),
]


@pytest.mark.parametrize(("header", "text"), HEADERS)
def test_both_ways(header: DataHeader, text: str) -> None:
    assert header.encode().hex() == octets(text).hex()
    assert DataHeader.decode(Reader(octets(text))) == header


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("90 123456 00000000", DataHeader(nonce=0x123456)),  # N and V: a nonce (§5.3)
        ("30 123456 00000000", DataHeader(source_map_version=0x123, destination_map_version=0x456)),
        ("20 123456 00000000", DataHeader()),  # E without N means nothing
        ("04 123456 89abcdef", DataHeader()),  # R; fields that no bit announces
        ("08 000000 000007ff", DataHeader(instance_id=7)),  # I without L: status bits ignored
    ],
)
def test_combinations_without_meaning_are_ignored(text: str, header: DataHeader) -> None:
    assert DataHeader.decode(Reader(octets(text))) == header


def test_no_first_octet_is_fatal() -> None:
    for first in range(256):
        header = DataHeader.decode(Reader(bytes([first]) + bytes(7)))
        assert DataHeader.decode(Reader(header.encode())) == header


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (DataHeader(nonce=1, source_map_version=1, destination_map_version=1), "must not be in the same"),
        (DataHeader(source_map_version=1), "pairs"),
        (DataHeader(nonce=1 << 24), "nonce = 16777216 does not fit in 24 bits"),
        (DataHeader(instance_id=1 << 24), "instance_id"),
        (DataHeader(instance_id=1, locator_status_bits=256), "locator_status_bits = 256 does not fit in 8"),
        (DataHeader(key_id=4), "key_id"),
    ],
)
def test_refuses_to_encode(header: DataHeader, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        header.encode()
