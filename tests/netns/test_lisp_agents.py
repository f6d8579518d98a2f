"""Real agents, the real data plane, a guest that moves: the whole chain in namespaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.sites import GUEST, GUEST6, GUEST_MAC, PEER, PEER6, Lab
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    mechanism, options = getattr(request, "param", ("smr-old-xtr", {}))
    built = Lab(tmp_path, mechanism, **options)
    try:
        built.start()
        yield built
    finally:
        built.close()


def ping(lab: Lab, node: str, target: str, *, count: int = 20) -> int:
    """How many of `count` echoes, 50 ms apart, are answered."""
    shown = lab.run(node, "ping", "-n", "-q", "-c", str(count), "-i", "0.05", "-W", "1", target).stdout
    return int(shown.split(" received")[0].rsplit(" ", 1)[-1])


def test_the_first_ping_is_held_not_lost(lab: Lab) -> None:
    lab.run("guest", "ping", "-c", "1", "-W", "2", "192.168.0.1")  # the guest shows itself
    wait_until(lambda: lab.saw("map_notify_received", "xtr-a"), "the guest is registered")
    assert ping(lab, "peer", GUEST, count=5) == 5
    detected = lab.saw("eid_detected", "xtr-a")[0]
    assert (detected["eid"], detected["mac"]) == (GUEST, GUEST_MAC)


def test_a_lan_that_went_down_and_came_up_is_heard_again(lab: Lab) -> None:
    lab.run("xtr-a", "ip", "link", "set", "eid", "down")
    time.sleep(0.2)  # the agent is told that it is down
    lab.run("xtr-a", "ip", "link", "set", "eid", "up")
    lab.announce_guest()

    def announced() -> bool:
        return any(seen["via"] == "gratuitous-arp" for seen in lab.saw("eid_detected", "xtr-a"))

    wait_until(announced, "the guest's announcement is heard")


def test_what_is_held_beyond_its_queue_is_counted(lab: Lab) -> None:
    """While nobody answers: each packet of a flow is held, or has made room for a younger one and is in a counter."""
    lab.stop_agent("ms")
    ping(lab, "peer", "192.168.77.7", count=50)

    def accounted() -> tuple[int, int]:
        said = lab.ask("xtr-c", op="inspect")
        assert said["drops"] == {}
        return sum(said["held_packets"].values()), said["counters"].get("held_packets_overflowed", 0)

    wait_until(lambda: accounted() == (32, 18), "50 packets are accounted for")


CHAIN = [
    ("eid_detected", "xtr-b"),
    ("map_register_sent", "xtr-b"),
    ("mapping_changed", "ms"),
    ("eid_departed", "xtr-a"),
    ("stale_packet", "xtr-a"),
    ("smr_sent", "xtr-a"),
    ("smr_received", "xtr-c"),
    ("map_request_sent", "xtr-c"),
    ("map_reply_received", "xtr-c"),
    ("map_cache_changed", "xtr-c"),
    ("first_packet_new_rloc", "xtr-c"),
]


@pytest.mark.parametrize(
    "lab",
    [("smr-old-xtr", {}), ("smr-old-xtr", {"map_server_options": {"proxy_reply": False}})],
    indirect=True,
    ids=["proxy", "forwarded"],
)
def test_a_moved_guest_is_reached_at_its_new_site(lab: Lab) -> None:
    assert ping(lab, "guest", PEER, count=5) >= 4
    assert ping(lab, "peer", GUEST, count=5) == 5
    moved_ns = time.monotonic_ns()
    lab.move_guest("a", "b")
    lab.announce_guest()
    assert ping(lab, "peer", GUEST, count=40) >= 35
    times = []
    for kind, node in CHAIN:
        found = wait_until(lambda k=kind, n=node: lab.saw(k, n, since_ns=moved_ns), f"{kind} at {node}")
        times.append(found[0]["mono_ns"])
    assert times == sorted(times), list(zip(CHAIN, times, strict=True))
    changed = lab.saw("map_cache_changed", "xtr-c", since_ns=moved_ns)[0]
    assert (changed["old_rloc"], changed["rloc"]) == ("10.0.1.2", "10.0.2.2")
    first = lab.saw("first_packet_new_rloc", "xtr-c", since_ns=moved_ns)[0]
    assert (first["old_rloc"], first["rloc"]) == ("10.0.1.2", "10.0.2.2")
    states = {node: lab.ask(node, op="inspect") for node in ("xtr-a", "xtr-b", "ms")}
    assert [host["state"] for host in states["xtr-a"]["hosts"]] == ["away"]
    assert [host["state"] for host in states["xtr-b"]["hosts"]] == ["local"]
    registered = [row for row in states["ms"]["registrations"] if row["eid"] == f"{GUEST}/32"]
    assert [row["locators"] for row in registered] == [["10.0.2.2"]]


@pytest.mark.parametrize("lab", [("pubsub", {})], indirect=True, ids=["pubsub"])
def test_rfc9437_a_subscriber_hears_of_the_move_without_traffic(lab: Lab) -> None:
    assert ping(lab, "guest", PEER, count=5) >= 4
    assert ping(lab, "peer", GUEST, count=5) == 5
    moved_ns = time.monotonic_ns()
    lab.move_guest("a", "b")
    lab.announce_guest()
    changed = wait_until(
        lambda: lab.saw("map_cache_changed", "xtr-c", since_ns=moved_ns), "the mapping changed at xtr-c"
    )
    assert (changed[0]["old_rloc"], changed[0]["rloc"]) == ("10.0.1.2", "10.0.2.2")
    assert lab.saw("publication_received", "xtr-c", since_ns=moved_ns)
    assert not lab.saw("smr_received", "xtr-c")
    assert ping(lab, "peer", GUEST, count=5) == 5


@pytest.mark.parametrize("lab", [("map-version", {})], indirect=True, ids=["map-version"])
def test_rfc9302_a_moved_guest_that_speaks_tells_its_peers_itr(lab: Lab) -> None:
    assert ping(lab, "guest", PEER, count=5) >= 4
    wait_until(lambda: lab.saw("map_version_learned", "xtr-a"), "site A knows the guest's map-version")
    assert ping(lab, "peer", GUEST, count=5) == 5
    moved_ns = time.monotonic_ns()
    lab.move_guest("a", "b")
    lab.announce_guest()
    wait_until(lambda: lab.saw("map_version_learned", "xtr-b", since_ns=moved_ns), "site B knows it")
    assert not lab.saw("map_cache_changed", "xtr-c", since_ns=moved_ns)
    assert ping(lab, "guest", PEER, count=20) >= 18
    newer = lab.saw("map_version_newer", "xtr-c", since_ns=moved_ns)[0]
    assert (newer["eid"], newer["peer"]) == (GUEST, "10.0.2.2")
    changed = lab.saw("map_cache_changed", "xtr-c", since_ns=moved_ns)[0]
    assert (changed["old_rloc"], changed["rloc"]) == ("10.0.1.2", "10.0.2.2")
    assert not lab.saw("smr_sent", "xtr-a")
    assert ping(lab, "peer", GUEST, count=5) == 5
    registered = {row["eid"]: row["map_version"] for row in lab.ask("ms", op="inspect")["registrations"]}
    assert registered[f"{GUEST}/32"] == newer["map_version"]


def test_an_ipv6_eid_moves_over_ipv4_locators(lab: Lab) -> None:
    assert ping(lab, "guest", PEER6, count=5) >= 4
    assert lab.saw("eid_detected", "xtr-a")
    assert ping(lab, "peer", GUEST6, count=5) == 5
    lab.move_guest("a", "b")
    moved_ns = time.monotonic_ns()
    # Nothing announces it: the first packet of its own does (or its kernel's neighbour discovery).
    assert ping(lab, "guest", PEER6, count=10) >= 8
    detected = [event["eid"] for event in lab.saw("eid_detected", "xtr-b", since_ns=moved_ns)]
    assert GUEST6 in detected
    assert ping(lab, "peer", GUEST6, count=10) >= 9
    registered = {row["eid"]: row["locators"] for row in lab.ask("ms", op="inspect")["registrations"]}
    assert registered[f"{GUEST6}/128"] == ["10.0.2.2"]


def test_a_killed_xtr_goes_on_with_its_nonces(lab: Lab) -> None:
    assert ping(lab, "guest", PEER, count=5) >= 4
    before = int(lab.saw("map_register_sent", "xtr-a")[-1]["nonce"], 16)
    lab.processes["xtr-a"].kill()
    lab.processes.pop("xtr-a").wait()
    killed_ns = time.monotonic_ns()
    lab.start_agent("xtr-a")
    lab.announce_guest()
    sent = wait_until(lambda: lab.saw("map_register_sent", "xtr-a", since_ns=killed_ns), "it registers again")
    assert int(sent[0]["nonce"], 16) == before + 1
    assert wait_until(lambda: lab.saw("map_notify_received", "xtr-a", since_ns=killed_ns), "and is accepted")
    assert ping(lab, "peer", GUEST, count=5) == 5


def test_a_guest_that_goes_and_comes_back_within_seconds_is_reached(lab: Lab) -> None:
    assert ping(lab, "guest", PEER, count=5) >= 4
    assert ping(lab, "peer", GUEST, count=5) == 5
    moved_ns = time.monotonic_ns()
    for source, destination in (("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")):
        since_ns = time.monotonic_ns()
        lab.move_guest(source, destination)
        lab.announce_guest()
        wait_until(
            lambda s=source, t=since_ns: lab.saw("eid_departed", f"xtr-{s}", since_ns=t),  # type: ignore[misc]
            f"xtr-{source} knows",
        )
    assert time.monotonic_ns() - moved_ns < 5_000_000_000
    assert ping(lab, "peer", GUEST, count=20) >= 18
    registered = [row for row in lab.ask("ms", op="inspect")["registrations"] if row["eid"] == f"{GUEST}/32"]
    assert [row["locators"] for row in registered] == [["10.0.1.2"]]


def test_a_rarp_is_enough_where_the_mac_is_known(lab: Lab) -> None:
    assert lab.ask("xtr-b", op="expect", eid=GUEST, mac=GUEST_MAC)["ok"]
    assert ping(lab, "guest", PEER, count=5) >= 4
    moved_ns = time.monotonic_ns()
    lab.move_guest("a", "b")
    lab.announce_guest(rarp=True)
    detected = wait_until(lambda: lab.saw("eid_detected", "xtr-b", since_ns=moved_ns), "the guest is detected")
    assert (detected[0]["eid"], detected[0]["via"]) == (GUEST, "rarp")
    assert ping(lab, "peer", GUEST, count=10) >= 9


def lig(lab: Lab, node: str, eid: str, *options: str) -> subprocess.CompletedProcess[str]:
    return lab.run(node, sys.executable, "-m", "testbed.lab.agents.lig", "10.0.0.2", eid, *options)


@pytest.mark.parametrize(
    ("lab", "replier"),
    [
        (("smr-old-xtr", {}), "10.0.0.2"),
        (("smr-old-xtr", {"map_server_options": {"proxy_reply": False}}), "10.0.3.2"),
    ],
    indirect=["lab"],
    ids=["proxy", "forwarded"],
)
def test_rfc6835_lig_asks_from_a_node_beside_its_xtr(lab: Lab, replier: str) -> None:
    done = lig(lab, "xtr-a", PEER, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["replier"], answer["records"][0]["eid"]) == (replier, "192.168.3.0/24")
    assert answer["records"][0]["locators"][0]["rloc"] == "10.0.3.2"
    assert answer["rtt_ms"] > 0
    text = lig(lab, "core", "192.168.0.99").stdout
    assert "192.168.0.99/32" in text
    assert "negative: natively-forward" in text
    assert not lab.saw("control_dropped", "xtr-a")


def test_rfc6835_lig_says_when_nobody_answers(lab: Lab) -> None:
    lab.stop_agent("ms")
    done = lig(lab, "xtr-a", PEER, "--count", "1")
    assert done.returncode == 10
    assert "did not answer" in done.stderr


def test_sigterm_ends_every_agent_cleanly(lab: Lab) -> None:
    for node in list(lab.processes):
        assert lab.stop_agent(node) == 0
        assert lab.saw("agent_stopped", node)
        assert [set(event["drops"]) for event in lab.saw("packets_dropped", node)] == [set()] * (node in lab.xtrs)
