"""Every control message, value to octets and back, against vectors written by hand."""

from __future__ import annotations

import pytest

from testbed.lisp.wire import Message, decode_control
from tests.vectors.tables import MESSAGES, octets

VECTORS = pytest.mark.parametrize(
    ("value", "text"), [entry[1:] for entry in MESSAGES], ids=[entry[0] for entry in MESSAGES]
)


@VECTORS
def test_encode(value: Message, text: str) -> None:
    assert value.encode().hex(" ", 4) == octets(text).hex(" ", 4)


@VECTORS
def test_decode(value: Message, text: str) -> None:
    assert decode_control(octets(text)) == value
