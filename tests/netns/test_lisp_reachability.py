"""A site with two xTRs, one of which cannot be reached: real agents, the real data plane (RFC 9300 §10)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns.sites import GUEST, PEER, Lab
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]

FIRST, SECOND = "10.0.3.2", "10.0.4.2"


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    built = Lab(tmp_path, "ttl", xtr_options=getattr(request, "param", {}), two_xtrs=True)
    try:
        built.start()
        built.run("guest", "ping", "-c", "1", "-W", "2", "192.168.0.1")  # the guest shows itself
        wait_until(lambda: built.saw("map_notify_received", "xtr-a"), "the guest is registered")
        wait_until(lambda: len(built.saw("map_notify_received", "xtr-d")) == 2, "xtr-d is registered")
        yield built
    finally:
        built.close()


def ping(lab: Lab, *, count: int = 10) -> int:
    """How many echoes of the guest to the peer are answered."""
    shown = lab.run("guest", "ping", "-n", "-q", "-c", str(count), "-i", "0.05", "-W", "1", PEER).stdout
    return int(shown.split(" received")[0].rsplit(" ", 1)[-1])


def locators(lab: Lab) -> dict[str, dict[str, Any]]:
    """The locators of the peer's mapping at site A's xTR."""
    rows = lab.ask("xtr-a", op="inspect")["map_cache"]
    return {each["rloc"]: each for row in rows if row["eid"] == "192.168.3.0/24" for each in row["locators"]}


def test_two_xtrs_of_a_site_register_one_mapping(lab: Lab) -> None:
    assert ping(lab) >= 9
    assert {rloc: (each["priority"], each["down"]) for rloc, each in locators(lab).items()} == {
        FIRST: (1, []),
        SECOND: (2, []),
    }
    changes = [each for each in lab.saw("mapping_changed", "ms") if each["eid"] == "192.168.3.0/24"]
    assert [each["reason"] for each in changes] == ["registered"]


@pytest.mark.parametrize(
    "lab",
    [{"rloc_probe_interval_s": 0.5, "rloc_probe_timeout_s": 0.5, "rloc_recheck_s": 0.5}],
    indirect=True,
    ids=["probing"],
)
def test_rfc9301_7_1_traffic_takes_the_other_xtr_while_the_first_is_out_of_reach(lab: Lab) -> None:
    assert ping(lab) >= 9
    lab.run("core", "ip", "route", "add", "blackhole", f"{FIRST}/32")
    cut_ns = time.monotonic_ns()
    (down,) = wait_until(lambda: lab.saw("locator_down", "xtr-a", since_ns=cut_ns), "the first xTR is down")
    assert (down["rloc"], down["cause"]) == (FIRST, "rloc-probe")
    # The cut off xTR's default route is withdrawn at its site (RFC 9300 §10): the answers go by the other, too.
    lab.run("peer", "ip", "route", "replace", "default", "via", "192.168.3.2")
    assert ping(lab) == 10
    first = lab.saw("first_packet_new_rloc", "xtr-a", since_ns=cut_ns)[-1]
    assert (first["rloc"], first["old_rloc"]) == (SECOND, FIRST)
    lab.run("core", "ip", "route", "del", "blackhole", f"{FIRST}/32")
    mended_ns = time.monotonic_ns()
    wait_until(lambda: lab.saw("locator_up", "xtr-a", since_ns=mended_ns), "the first xTR is up")
    assert ping(lab) == 10
    assert locators(lab)[FIRST]["down"] == []
    assert lab.saw("first_packet_new_rloc", "xtr-a", since_ns=mended_ns)[-1]["rloc"] == FIRST


@pytest.mark.parametrize("lab", [{"locator_status_bits": "trust"}], indirect=True, ids=["trust"])
def test_rfc9300_10_data_packets_say_that_a_locator_is_down(lab: Lab) -> None:
    assert ping(lab) >= 9
    told_ns = time.monotonic_ns()
    for xtr in ("xtr-c", "xtr-d"):
        assert lab.ask(xtr, op="locator", rloc=FIRST, up=False)["ok"]
    assert ping(lab, count=5) == 5
    seen = wait_until(lambda: lab.saw("locator_status_seen", "xtr-a", since_ns=told_ns), "the bits are seen")[0]
    assert (seen["eid"], seen["peer"], seen["bits"]) == ("192.168.3.0/24", FIRST, "10")
    assert locators(lab)[FIRST]["down"] == ["locator-status-bits"]
    assert ping(lab, count=5) == 5
    assert lab.saw("first_packet_new_rloc", "xtr-a", since_ns=told_ns)[-1]["rloc"] == SECOND
    wait_until(lambda: lab.saw("mapping_changed", "ms", since_ns=told_ns), "the R-bit is registered")
    refused = lab.ask("xtr-c", op="locator", rloc="10.0.9.9", up=False)
    assert "allowed: one of 10.0.3.2, 10.0.4.2" in refused["error"]
    for xtr in ("xtr-c", "xtr-d"):
        lab.ask(xtr, op="locator", rloc=FIRST, up=True)
    assert ping(lab, count=5) == 5
    assert locators(lab)[FIRST]["down"] == []


@pytest.mark.parametrize(
    "lab",
    [{"echo_nonce": True, "echo_nonce_interval_s": 0.5, "echo_nonce_timeout_s": 0.2, "rloc_recheck_s": 30.0}],
    indirect=True,
    ids=["echo-nonce"],
)
def test_rfc9300_10_1_a_locator_that_gets_no_data_echoes_nothing(lab: Lab) -> None:
    assert ping(lab, count=60) >= 59
    assert {event["rloc"] for event in lab.saw("nonce_echoed", "xtr-a")} == {FIRST}
    # Data to it is lost, its own still comes, and so does control: only the echo can tell.
    cut = lab.run("core", "ip", "rule", "add", "to", FIRST, "ipproto", "udp", "dport", "4341", "blackhole")
    assert cut.returncode == 0, cut.stderr
    cut_ns = time.monotonic_ns()
    lab.run("peer", "ping", "-n", "-q", "-c", "40", "-i", "0.05", "-W", "1", GUEST)
    (down,) = wait_until(lambda: lab.saw("locator_down", "xtr-a", since_ns=cut_ns), "the first xTR is down")
    assert (down["rloc"], down["cause"]) == (FIRST, "echo-nonce")
    assert ping(lab) == 10
    assert lab.saw("first_packet_new_rloc", "xtr-a", since_ns=cut_ns)[-1]["rloc"] == SECOND


@pytest.mark.parametrize("lab", [{"gleaning": True}], indirect=True, ids=["gleaning"])
def test_rfc9300_9_an_answer_need_not_wait_for_its_mapping(lab: Lab) -> None:
    assert ping(lab, count=3) == 3
    gleaned = lab.saw("mapping_gleaned", "xtr-c")
    assert [(event["eid"], event["rloc"]) for event in gleaned] == [(GUEST, "10.0.1.2")]
    verified = wait_until(lambda: lab.saw("map_reply_received", "xtr-c"), "the mapping is verified")
    assert verified[0]["eid"] == f"{GUEST}/32"
    (row,) = [each for each in lab.ask("xtr-c", op="inspect")["map_cache"] if each["eid"] == f"{GUEST}/32"]
    assert (row["gleaned"], row["locators"][0]["weight"]) == (False, 100)
    assert row["remaining_s"] > 3600
    assert not lab.saw("map_cache_miss", "xtr-c")
