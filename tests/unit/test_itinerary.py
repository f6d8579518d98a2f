"""Where the guest goes."""

from __future__ import annotations

import pytest

from testbed.plan.itinerary import itinerary


@pytest.mark.parametrize(
    ("destinations", "repeat", "stops"),
    [
        (["b"], 1, ["b"]),
        (["b"], 4, ["b", "a", "b", "a"]),
        (["b", "c"], 2, ["b", "c", "b", "a"]),
        (["b", "a"], 2, ["b", "a", "b", "a"]),  # ends where it began: walked again as it is
        ([], 3, ["a"]),
    ],
)
def test_a_path_is_walked_there_and_back(destinations: list[str], repeat: int, stops: list[str]) -> None:
    assert itinerary("a", destinations, repeat) == stops
