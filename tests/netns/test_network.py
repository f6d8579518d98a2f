"""A plan's network really up: addresses, delays, losses, rates, and nothing left of it afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest
from scipy.stats import binom

from testbed.lab.network.network import kernel_has_netem
from tests.netns.own_lab import ROOT, in_own_lab, needs_root

pytestmark = [pytest.mark.netns, needs_root]
NETEM = os.geteuid() == 0 and kernel_has_netem()
CASES = "tests.netns.cases_network"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return in_own_lab(CASES, "up", str(tmp_path_factory.mktemp("run")))


def test_the_round_trip_between_rlocs_is_four_link_delays(up: Any) -> None:
    smallest, median_like = map(float, re.search(r"= ([0-9.]+)/([0-9.]+)/", up["across"]).groups())
    assert 19.0 <= smallest <= 21.5
    assert " 0% packet loss" in up["across"], median_like


def test_the_delay_of_every_link_is_read_back(up: Any) -> None:
    assert [i["link"] for i in up["impairments"]] == ["core-ms", "core-a", "core-b", "core-c"]
    for impairment in up["impairments"]:
        assert impairment["backend"] == "relay"
        assert impairment["effective"]["delay_ns"] == 5_000_000
        assert 9.5 <= impairment["rtt_ms"] <= 11.5
        core, node = impairment["counters"]
        assert (core["from"], core["to"]) == (node["to"], node["from"])
        assert core["from"] == "core"
        assert all(counter["received"] >= counter["sent"] >= 4 for counter in impairment["counters"])


def test_rlocs_and_infrastructure_are_routed_and_eids_are_not(up: Any) -> None:
    assert up["answers"] == {"to-ms": 0, "infrastructure": 0, "gateway": 0, "eid": 1}


def test_the_gateway_has_one_mac_at_every_site(up: Any) -> None:
    assert up["macs"] == ["00:00:5e:00:01:01"] * 3


def test_processes_start_in_nodes_with_namespaces_of_their_own(up: Any) -> None:
    assert up["echoed"] == "said in the node"
    assert up["namespaces"] == 6


def test_a_tap_joins_a_lan(up: Any) -> None:
    assert up["master"] == "eid-a"


def test_nothing_is_left_after_the_end(up: Any) -> None:
    assert up["after"] == up["before"]


def test_it_is_up_quickly(up: Any) -> None:
    assert up["took_s"] < 10  # under 2 s on an idle machine; the margin is for a loaded one


def test_losses_are_binomial_and_repeat_with_the_seed(tmp_path: Path) -> None:
    packets, loss = 2000, 0.05
    first, again, other = (
        in_own_lab(CASES, "lossy", str(tmp_path), str(packets), str(100 * loss), seed) for seed in ("1", "1", "2")
    )
    low, high = binom.interval(1 - 1e-6, packets, loss)
    assert all(low <= packets - len(got) <= high for got in (first, other))
    assert first == again
    assert first != other


def test_jitter_is_the_standard_deviation_of_each_direction(tmp_path: Path) -> None:
    rtts_ms = in_own_lab(CASES, "jitter", str(tmp_path))
    assert len(rtts_ms) == 300
    # Quantiles: a loaded machine's few late packets would be most of a standard deviation.
    low, middle, high = quantiles(rtts_ms, n=100)[15], median(rtts_ms), quantiles(rtts_ms, n=100)[83]
    assert 19.5 <= middle <= 22
    # Two directions of 1 ms each: sqrt(2) ms either side of the middle hold 68 of 100.
    assert 1.1 <= (high - low) / 2 <= 2.0
    assert min(rtts_ms) < 19


def test_a_relay_that_dies_is_said(tmp_path: Path) -> None:
    message = in_own_lab(CASES, "relay_died", str(tmp_path))
    assert "the relay ended with -9: the impaired links are cut" in message


def test_a_rate_is_kept_and_its_queue_is_bounded(tmp_path: Path) -> None:
    out = in_own_lab(CASES, "rate", str(tmp_path))["counters"][1]
    assert out["queue_dropped"] > 100
    # 20 Mbit/s for a second, and what the queue and the machine's scheduling let pass beside it.
    assert 0.7 * 2.5e6 <= out["bytes"] <= 1.2 * 2.5e6


@pytest.mark.skipif(not NETEM, reason="this kernel has no netem")
def test_netem_does_the_same(tmp_path: Path) -> None:
    for impairment in in_own_lab(CASES, "netem", str(tmp_path))["impairments"]:
        assert impairment["backend"] == "netem"
        assert impairment["effective"]["delay"]["delay"] == pytest.approx(0.005, rel=0.01)
        assert 9.5 <= impairment["rtt_ms"] <= 11.5


@pytest.mark.skipif(NETEM, reason="this kernel has netem")
def test_netem_that_is_asked_for_and_missing_is_an_error(tmp_path: Path) -> None:
    result = in_own_lab(CASES, "netem", str(tmp_path))
    assert "netem delay 5.0ms rate 1000.0mbit" in result["message"]
    assert result["after"] == result["before"]


def test_a_bring_up_that_fails_leaves_nothing(tmp_path: Path) -> None:
    result = in_own_lab(CASES, "broken", str(tmp_path))
    assert "`sh -e` ended with" in result["message"]
    assert result["after"] == result["before"]


def test_nothing_is_left_after_kill_9(tmp_path: Path) -> None:
    result = in_own_lab(CASES, "killed", str(tmp_path))
    assert len(result["during"]["processes"]) > len(result["before"]["processes"]) + 6
    assert result["after"] == result["before"]


def test_the_machines_own_network_namespace_is_refused(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from tests.netns.cases_network import *\n"
        f"Network(two_sites(), Path({str(tmp_path)!r})).__enter__()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "machine's own network namespace" in done.stderr
