"""A site whose two xTRs register a locator each: real agents, the real data plane (RFC 9301 §5.6)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns.sites import PEER, Lab
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]

PREFIX = "192.168.3.0/24"
RLOCS = {"xtr-c": "10.0.3.2", "xtr-d": "10.0.4.2"}
PORTS = {"xtr-c": "to-c", "xtr-d": "to-d"}  # of the core
WEIGHTS = (30, 70)
FLOWS = 200
MERGE = {"merge_registrations": True}
PROBING = {"rloc_probe_interval_s": 0.5, "rloc_probe_timeout_s": 0.5, "rloc_recheck_s": 0.5}
#: A packet of each flow to a port where nobody listens: the kernel counts what arrives.
SENDER = """
import socket, sys
for port in range(20000, 20000 + int(sys.argv[2])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.bind(("", port))
        flow.sendto(b"x", (sys.argv[1], 9))
"""


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    xtr_options, lifetime_s = getattr(request, "param", ({}, 180.0))
    built = Lab(
        tmp_path, "pubsub", xtr_options={**MERGE, **xtr_options},
        map_server_options={"registration_lifetime_s": lifetime_s}, two_xtrs=True, weights=WEIGHTS,
    )  # fmt: skip
    try:
        built.start()
        built.run("guest", "ping", "-c", "1", "-W", "2", "192.168.0.1")  # the guest shows itself
        wait_until(lambda: built.saw("map_notify_received", "xtr-a"), "the guest is registered")
        wait_until(lambda: registered(built) == [*RLOCS.values()], "both have registered")
        built.run("guest", "ping", "-c", "1", "-W", "2", PEER)
        wait_until(lambda: used(built) == [*RLOCS.values()], "the guest's ITR has the mapping")
        assert arrived(built) == FLOWS
        yield built
    finally:
        built.close()


def registered(lab: Lab) -> list[str]:
    """The locators of the peer's mapping at the Map-Server."""
    rows = lab.ask("ms", op="inspect")["registrations"]
    return next((list(row["locators"]) for row in rows if row["eid"] == PREFIX), [])


def used(lab: Lab) -> list[str]:
    """Those that the guest's ITR has, without what it takes to be down."""
    rows = lab.ask("xtr-a", op="inspect")["map_cache"]
    found: list[dict[str, Any]] = next((row["locators"] for row in rows if row["eid"] == PREFIX), [])
    return [each["rloc"] for each in found if not each["down"]]


def counted(lab: Lab) -> int:
    """How many UDP packets came to the peer for a port where nobody listens."""
    names, values = (line.split() for line in lab.run("peer", "grep", "^Udp:", "/proc/net/snmp").stdout.splitlines())
    return int(values[names.index("NoPorts")])


def arrived(lab: Lab) -> int:
    """How many of the guest's flows reach the peer."""
    before, since = counted(lab), time.monotonic()
    sent = lab.run("guest", sys.executable, "-c", SENDER, PEER, str(FLOWS))
    assert sent.returncode == 0, sent.stderr
    while counted(lab) - before < FLOWS and time.monotonic() - since < 1.5:
        time.sleep(0.05)
    return counted(lab) - before


def frames_to(lab: Lab, xtr: str) -> int:
    """How many frames the core has sent to an xTR."""
    return int(lab.run("core", "cat", f"/sys/class/net/{PORTS[xtr]}/statistics/tx_packets").stdout)


def kill(lab: Lab, xtr: str) -> None:
    """An xTR dies with its machine: its process and its link are gone at once."""
    lab.processes.pop(xtr).kill()
    lab.run("core", "ip", "link", "set", PORTS[xtr], "down")


def test_rfc9301_5_6_flows_go_to_both_xtrs_by_their_weights(lab: Lab) -> None:
    before = {xtr: frames_to(lab, xtr) for xtr in RLOCS}
    assert arrived(lab) == FLOWS
    share = (frames_to(lab, "xtr-d") - before["xtr-d"]) / FLOWS
    assert 0.55 < share < 0.85
    changes = [event for event in lab.saw("mapping_changed", "ms") if event["eid"] == PREFIX]
    assert [(event["reason"], event["locators"]) for event in changes] == [("registered", 1), ("changed", 2)]
    for xtr in RLOCS:  # each was told the whole, and answers with it
        told = [event for event in lab.saw("registration_merged", xtr) if event["eid"] == PREFIX]
        assert told[-1]["locators"] == [*RLOCS.values()]


@pytest.mark.parametrize("lab", [({"refresh_s": 0.5}, 2.0)], indirect=True, ids=["short-lifetime"])
@pytest.mark.parametrize("dead", sorted(RLOCS))
def test_rfc9301_8_2_a_dead_xtrs_part_expires_and_traffic_takes_the_other(lab: Lab, dead: str) -> None:
    (alive,) = set(RLOCS) - {dead}
    killed_ns = time.monotonic_ns()
    kill(lab, dead)
    assert arrived(lab) < FLOWS * 0.9, "some flows went to it"
    wait_until(lambda: used(lab) == [RLOCS[alive]], "the guest's ITR was told")
    assert registered(lab) == [RLOCS[alive]]
    assert arrived(lab) == FLOWS
    changes = [event for event in lab.saw("mapping_changed", "ms", since_ns=killed_ns) if event["eid"] == PREFIX]
    assert [event["reason"] for event in changes] == ["part expired"]
    told = wait_until(lambda: lab.saw("registration_merged", alive, since_ns=killed_ns), "the fellow is told")
    assert told[0]["locators"] == [RLOCS[alive]]
    lab.run("core", "ip", "link", "set", PORTS[dead], "up")
    lab.start_agent(dead)
    wait_until(lambda: used(lab) == [*RLOCS.values()], "it is back")
    assert arrived(lab) == FLOWS


@pytest.mark.parametrize("lab", [(PROBING, 180.0)], indirect=True, ids=["probing"])
def test_rfc9301_7_1_probes_take_a_dead_xtr_out_before_its_part_expires(lab: Lab) -> None:
    killed_ns = time.monotonic_ns()
    kill(lab, "xtr-d")
    (down,) = wait_until(lambda: lab.saw("locator_down", "xtr-a", since_ns=killed_ns), "its locator is down")
    assert (down["rloc"], down["cause"]) == (RLOCS["xtr-d"], "rloc-probe")
    assert arrived(lab) == FLOWS
    assert registered(lab) == [*RLOCS.values()], "the mapping still has it"
