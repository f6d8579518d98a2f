"""A Map-Server that is killed comes back with what was registered, and what moved meanwhile is found by its new xTR."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.sites import GUEST, PEER, Lab
from tests.netns.test_lisp_neighbours import ping
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """No xTR refreshes anything while a test runs."""
    built = Lab(tmp_path, "smr-old-xtr", xtr_options={"refresh_s": 600.0})
    try:
        built.start()
        assert ping(built, "guest", PEER) >= 4
        yield built
    finally:
        built.close()


def kill(lab: Lab, node: str) -> None:
    process = lab.processes.pop(node)
    process.send_signal(signal.SIGKILL)
    process.wait()


def registrations(lab: Lab) -> dict[str, list[str]]:
    return {row["eid"]: row["locators"] for row in lab.ask("ms", op="inspect")["registrations"]}


def test_what_was_registered_outlives_kill_9(lab: Lab) -> None:
    before = registrations(lab)
    assert before[f"{GUEST}/32"] == ["10.0.1.2"]
    killed_ns = time.monotonic_ns()
    kill(lab, "ms")
    lab.start_agent("ms")
    assert registrations(lab) == before
    (said,) = lab.saw("registrations_restored", "ms", since_ns=killed_ns)
    assert (said["restored"], said["left_out"]) == (len(before), 0)
    assert not lab.saw("map_register_received", "ms", since_ns=killed_ns)
    kill(lab, "xtr-c")  # with its map-cache, so that it must ask
    lab.start_agent("xtr-c")
    assert ping(lab, "peer", GUEST) == 5


def test_what_moves_while_the_map_server_is_dead_waits_for_no_refresh(lab: Lab) -> None:
    """The new xTR's retransmission claims it; the old one is told at once, though nothing was heard of it since."""
    assert ping(lab, "peer", GUEST) == 5
    kill(lab, "ms")
    assert ping(lab, "peer", GUEST) == 5  # what is cached needs no Map-Server
    moved_ns = time.monotonic_ns()
    lab.move_guest("a", "b")
    lab.announce_guest()
    wait_until(lambda: lab.saw("map_register_sent", "xtr-b", since_ns=moved_ns), "site B registers, and is not heard")
    lab.start_agent("ms")
    wait_until(
        lambda: lab.saw("map_notify_received", "xtr-b", since_ns=moved_ns), "a retransmission is heard", deadline_s=20
    )
    wait_until(lambda: lab.saw("eid_departed", "xtr-a", since_ns=moved_ns), "site A is told", deadline_s=2)
    wait_until(lambda: ping(lab, "peer", GUEST) == 5, "the peer has found it", deadline_s=10)
    assert registrations(lab)[f"{GUEST}/32"] == ["10.0.2.2"]
    assert {event["peer"] for event in lab.saw("map_register_received", "ms", since_ns=moved_ns)} == {"10.0.2.2"}


def test_a_spoilt_file_costs_a_refresh_and_no_more(lab: Lab) -> None:
    kill(lab, "ms")
    path = lab.folder / "ms.state.registrations"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line[: len(line) // 2] for line in lines[1:])]) + "\n")
    killed_ns = time.monotonic_ns()
    lab.start_agent("ms")
    (said,) = lab.saw("registrations_restored", "ms", since_ns=killed_ns)
    assert said["restored"] == 0
    assert said["left_out"] > 0
    assert registrations(lab) == {}
    lab.move_guest("a", "b")
    lab.announce_guest()
    wait_until(lambda: registrations(lab).get(f"{GUEST}/32") == ["10.0.2.2"], "site B registers")


def test_rfc9301_5_6_a_recorded_register_is_a_replay_after_kill_9(lab: Lab) -> None:
    """What the Map-Server took before it was killed, sent again from the same address and port."""
    sent = lab.saw("map_register_received", "ms")[-1]
    kill(lab, "ms")
    kill(lab, "xtr-a")
    state = lab.folder / "xtr-a.state"
    # An xTR that has lost its own nonces says the same again: below what the Map-Server has stored.
    state.write_text("5 map-register\n")
    lab.start_agent("ms")
    restarted_ns = time.monotonic_ns()
    lab.start_agent("xtr-a")
    lab.announce_guest()
    wait_until(lambda: lab.saw("registration_refused", "ms", since_ns=restarted_ns), "it is refused")
    refused = lab.saw("registration_refused", "ms", since_ns=restarted_ns)[0]
    assert refused["reason"] == "replay"
    assert int(refused["last_nonce"], 16) >= int(sent["nonce"], 16)
    assert registrations(lab)[f"{GUEST}/32"] == ["10.0.1.2"]
