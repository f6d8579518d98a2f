"""What holds for every message: it survives a round trip, and nothing received raises but WireError."""

from __future__ import annotations

import os
import random

from hypothesis import given
from hypothesis import strategies as st

from testbed.lisp.wire import (
    Address,
    DataHeader,
    EncapsulatedControl,
    Message,
    Reader,
    WireError,
    decode_control,
)
from testbed.lisp.wire.address import decode_address, encode_address
from testbed.lisp.wire.inet import checksum
from tests.effort import MUTATIONS
from tests.property import strategies
from tests.vectors.tables import MESSAGES, octets

SEED = int(os.environ.get("TESTBED_SEED", "9301"))


@given(strategies.messages)
def test_messages_survive_a_round_trip(message: Message) -> None:
    assert decode_control(message.encode()) == message


@given(strategies.encapsulated)
def test_encapsulated_messages_are_readable(message: EncapsulatedControl) -> None:
    decoded = decode_control(message.encode())
    assert isinstance(decoded, EncapsulatedControl)
    assert decoded.message.encode() == message.payload


@given(strategies.addresses)
def test_addresses_survive_a_round_trip(address: Address) -> None:
    reader = Reader(encode_address(address))
    assert decode_address(reader, "address") == address
    reader.expect_end()


@given(strategies.data_headers)
def test_data_headers_survive_a_round_trip(header: DataHeader) -> None:
    assert DataHeader.decode(Reader(header.encode())) == header


@given(st.binary(min_size=8, max_size=8))
def test_every_data_header_is_read(data: bytes) -> None:
    header = DataHeader.decode(Reader(data))
    assert DataHeader.decode(Reader(header.encode())) == header


def decode_or_refuse(data: bytes) -> bool:
    """Decode; True if it was a message. What is decoded must be encodable and then stay the same."""
    refusal = message = None
    try:
        message = decode_control(data)
    except WireError as error:
        refusal = error
    if message is None:
        assert refusal is not None
        assert 0 <= refusal.offset <= len(data), refusal
        assert refusal.path, refusal
        assert refusal.why, refusal
        return False
    # One trip may normalise (host bits, reserved bits); from then on nothing changes.
    assert decode_control(message.encode()) == message
    if isinstance(message, EncapsulatedControl):
        decode_or_refuse(message.payload)
    return True


@given(st.binary(max_size=200))
def test_random_octets_raise_nothing_else(data: bytes) -> None:
    decode_or_refuse(data)


@given(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8]), st.binary(min_size=11, max_size=120))
def test_random_octets_behind_a_valid_type_raise_nothing_else(kind: int, data: bytes) -> None:
    decode_or_refuse(bytes([kind << 4]) + data)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to four changes: an octet, a bit, an insertion, a deletion, a cut, a copy from elsewhere."""
    octet_list = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(octet_list) + 1)
        what = chance.randrange(6)
        if what == 0 and place < len(octet_list):
            octet_list[place] = chance.choice((0, 1, 0x40, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif what == 1 and place < len(octet_list):
            octet_list[place] ^= 1 << chance.randrange(8)
        elif what == 2:
            octet_list[place:place] = chance.randbytes(chance.randint(1, 8))
        elif what == 3:
            del octet_list[place : place + chance.randint(1, 8)]
        elif what == 4 and chance.random() < 0.2:
            del octet_list[place:]
        elif what == 5:
            start = chance.randrange(len(octet_list) + 1)
            octet_list[place:place] = octet_list[start : start + chance.randint(1, 24)]
    return bytes(octet_list)


def with_right_sum(data: bytes) -> bytes:
    """An ECM whose inner IPv4 header sums up again, so that mutations get past it."""
    if len(data) < 24 or data[0] >> 4 != 8 or data[4] != 0x45:
        return data
    blank = data[4:14] + b"\0\0" + data[16:24]
    return data[:14] + checksum(blank).to_bytes(2, "big") + data[16:]


def test_mutations() -> None:
    chance = random.Random(SEED)
    seeds = [octets(text) for _, _, text in MESSAGES]
    accepted = 0
    for number in range(MUTATIONS):
        data = mutated(chance.choice(seeds), chance)
        if number % 2:
            data = with_right_sum(data)
        try:
            accepted += decode_or_refuse(data)
        except Exception as error:
            raise AssertionError(f"mutation {number} of seed {SEED}: {data.hex()}") from error
    # The test is worthless if the mutations are so wild that no decoder gets far, or so tame that all do.
    assert 0.05 < accepted / MUTATIONS < 0.95
