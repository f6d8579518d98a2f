"""The arithmetic of the data plane's benchmark."""

from __future__ import annotations

from testbed.bench.dataplane import ratios, spreads

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
