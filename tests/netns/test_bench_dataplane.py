"""The data plane's benchmark runs, measures something everywhere, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from testbed.bench.dataplane import MODES, PIECES, bench

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces"),
    pytest.mark.skipif(shutil.which("iperf3") is None, reason="needs iperf3"),
]


def test_every_mode_carries_every_load() -> None:
    said: list[str] = []
    result = bench(rounds=1, duration_s=1, say=said.append)
    assert set(result["ratio"]) == {"vxlan", "routed"}
    assert all(set(loads) == {"tcp", "udp64", "udp1400"} for loads in result["ratio"].values())
    assert all(figure > 0 for loads in result["raw"].values() for [figure] in loads.values())
    assert len(said) == sum(PIECES.values()) * len(MODES)
    namespaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert f"bench{os.getpid()}-" not in namespaces
