"""Code points against the registries in the RFCs: numbers as they stand there."""

from __future__ import annotations

from enum import IntEnum, IntFlag

import pytest

from testbed.lisp.wire.codes import (
    Action,
    Afi,
    AlgorithmId,
    EidRecordFlag,
    EncapsulatedControlFlag,
    HopFlag,
    LcafType,
    LocatorFlag,
    MapRegisterFlag,
    MapReplyFlag,
    MapRequestFlag,
    MessageType,
    ReferralAction,
    flags_in,
    known,
)


@pytest.mark.parametrize(
    ("code", "numbers"),
    [
        (MessageType, [1, 2, 3, 4, 5, 6, 7, 8, 15]),  # RFC 9301 §5.1
        (Afi, [0, 1, 2, 16387]),
        (LcafType, list(range(17))),  # RFC 8060 §3
        (Action, [0, 1, 2, 3, 4, 5]),  # RFC 9301 §5.4
        (ReferralAction, [0, 1, 2, 3, 4, 5]),  # RFC 8111 §6.1
        (AlgorithmId, [0, 1, 2, 3]),  # RFC 9301 §12.5
    ],
)
def test_numbers(code: type[IntEnum], numbers: list[int]) -> None:
    assert [member.value for member in code] == numbers


@pytest.mark.parametrize(
    ("kind", "width", "positions"),
    [
        (MapRequestFlag, 32, [4, 5, 6, 7, 8, 9, 11, 17, 18]),  # RFC 9301 §12.6, table 6; I: RFC 9437 §8
        (MapReplyFlag, 32, [4, 5, 6]),  # table 7
        (MapRegisterFlag, 32, [4, 5, 6, 19, 20, 21, 22, 23]),  # table 8; E T a R M from §5.6's figure
        (EncapsulatedControlFlag, 32, [4, 5, 6, 7]),  # table 9
        (EidRecordFlag, 16, [3, 4]),  # §5.4's figure; I: RFC 8111 §6.4
        (LocatorFlag, 16, [13, 14, 15]),
        (HopFlag, 16, [13, 14, 15]),  # RFC 8060 §4.6
    ],
)
def test_bit_positions(kind: type[IntFlag], width: int, positions: list[int]) -> None:
    """Bits count from the left, as in the RFCs."""
    values = [member.value for member in kind.__members__.values() if member]
    assert values == [1 << (width - 1 - position) for position in positions]
    assert flags_in(kind, (1 << width) - 1) == sum(values)
    assert flags_in(kind, ((1 << width) - 1) & ~sum(values)) == 0


def test_unassigned_codes_stay_numbers() -> None:
    assert known(Action, 5) is Action.DROP_AUTH_FAILURE
    assert known(Action, 6) == 6
    assert not isinstance(known(Action, 6), Action)
