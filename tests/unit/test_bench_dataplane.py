"""The arithmetic of the data plane's benchmark."""

from __future__ import annotations

from testbed.bench.dataplane import order, ratio_ranges, ratios, spreads

RAW = {
    "lisp": {"tcp": [1.0, 9.0, 3.0], "udp64": [5.0]},
    "vxlan": {"tcp": [6.0, 2.0, 1.0], "udp64": [0.0]},
    "routed": {"tcp": [4.0, 4.0, 40.0], "udp64": [10.0]},
}


def test_ratios_are_of_medians() -> None:
    assert ratios(RAW) == {"vxlan": {"tcp": 1.5, "udp64": None}, "routed": {"tcp": 0.75, "udp64": 0.5}}


def test_spreads_show_a_busy_machine() -> None:
    assert spreads(RAW)["routed"] == {"tcp": 9.0, "udp64": 0.0}
    assert spreads(RAW)["vxlan"]["udp64"] is None


def test_the_range_of_ratios_is_of_rounds() -> None:
    assert ratio_ranges(RAW) == {
        "vxlan": {"tcp": [1.0 / 6.0, 4.5], "udp64": None},
        "routed": {"tcp": [3.0 / 40.0, 2.25], "udp64": [0.5, 0.5]},
    }


def test_each_is_first_in_its_turn() -> None:
    rounds = [order(number) for number in range(6)]
    assert {first for first, *_ in rounds[:3]} == {"lisp", "vxlan", "routed"}
    assert all(sorted(each) == ["lisp", "routed", "vxlan"] for each in rounds)
    assert rounds[:3] == rounds[3:]
