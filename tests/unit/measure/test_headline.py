"""The words and numbers that people read first."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.measure.headline import duration, precise, rounded_parts


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


@settings(deadline=None)
@given(st.lists(st.floats(0, 50_000), min_size=3, max_size=3))
def test_parts_as_read_add_up_to_the_whole_as_read(parts: list[float]) -> None:
    whole = sum(parts)
    written = [float(text.split()[0]) for text in rounded_parts(parts, whole)]
    assert sum(written) == pytest.approx(float(duration(whole).split()[0]), abs=1e-6)


def test_parts_have_the_unit_of_the_whole() -> None:
    assert rounded_parts([1210.0, 190.0, 20.0], 1420.0) == ["1.21 s", "0.19 s", "0.02 s"]
