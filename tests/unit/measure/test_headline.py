"""The words and numbers that people read first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.measure.headline import duration, precise, written_parts


@pytest.mark.parametrize(
    ("value_ms", "words"),
    [
        (0.0, "0.0 ms"), (3.24, "3.2 ms"), (9.96, "10 ms"), (190.4, "190 ms"), (999.4, "999 ms"),
        (999.6, "1.00 s"), (1424.0, "1.42 s"), (9996.0, "10.0 s"), (65_040.0, "65.0 s"),
    ],
)  # fmt: skip
def test_duration(value_ms: float, words: str) -> None:
    assert duration(value_ms) == words


@pytest.mark.parametrize(("value_ms", "words"), [(190.44, "190.4 ms"), (999.96, "1.000 s"), (1421.3, "1.421 s")])
def test_precise(value_ms: float, words: str) -> None:
    assert precise(value_ms) == words


@given(st.lists(st.floats(0, 50_000), min_size=3, max_size=3))
def test_parts_as_read_add_up_to_the_whole_as_read(parts: list[float]) -> None:
    """To less than the last digit that the whole is written with."""
    whole = duration(sum(parts)).split()[0]
    written = [float(text.split()[0]) for text in written_parts(parts, sum(parts))]
    assert abs(sum(written) - float(whole)) < 10 ** -len(whole.partition(".")[2])


@given(st.lists(st.floats(0, 50_000), min_size=3, max_size=3))
def test_a_part_is_the_same_wherever_it_is_read(parts: list[float]) -> None:
    """1145.586 ms is not 1.14 s in one place and 1.15 s in another: each is what it is, rounded to its digits."""
    whole_ms = sum(parts)
    divisor = 1000 if duration(whole_ms).endswith(" s") else 1
    for part_ms, text in zip(parts, written_parts(parts, whole_ms), strict=True):
        number = text.split()[0]
        assert abs(float(number) * divisor - part_ms) <= 0.5 * divisor * 10 ** -len(number.partition(".")[2]) + 1e-6


def test_parts_have_the_unit_of_the_whole() -> None:
    assert written_parts([1145.586, 69.431, 17.706], 1232.723) == ["1.146 s", "0.069 s", "0.018 s"]
    assert written_parts([51.518, 21.392, 27.123], 100.033) == ["51.5 ms", "21.4 ms", "27.1 ms"]
