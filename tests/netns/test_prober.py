"""The prober and the responder as processes in namespaces: a known loss is found where it was."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns.lispnet import Network, inside, wait_until
from tests.waiting import whole_lines

pytestmark = pytest.mark.netns

INTERVAL_MS = 10
TARGETS = ["192.168.1.1", "fd0e:1::1"]
SOURCES = {"192.168.1.1": "192.168.1.10", "fd0e:1::1": "fd0e:1::10"}


class Agent:
    """An agent process; `events` are what it has said so far."""

    def __init__(self, network: Network, node: str, kind: str, folder: Path, **config: Any) -> None:
        self._events = folder / f"{kind}.jsonl"
        path = folder / f"{kind}.json"
        base = {"node": node, "events": str(self._events), "control": str(folder / f"{kind}.sock")}
        path.write_text(json.dumps({**base, **config}))
        command = ["ip", "netns", "exec", network.names[node]]
        self.process = subprocess.Popen(
            [*command, sys.executable, "-m", f"testbed.lab.agents.{kind}", str(path)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": "."},
        )
        wait_until(lambda: bool(self.events("agent_ready")), 20)

    def events(self, kind: str) -> list[dict[str, Any]]:
        if not self._events.exists():
            return []
        events = [json.loads(line) for line in whole_lines(self._events)]
        return [event for event in events if event["kind"] == kind]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(3)


@pytest.fixture
def responder(network: Network, tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(network, "xtr1", "responder", tmp_path)
    yield agent
    assert agent.stop() == 0


def start_prober(network: Network, folder: Path, flow: str, target: str, interval_ms: float) -> Agent:
    return Agent(
        network,
        "host1",
        "prober",
        folder,
        target=target,
        source=SOURCES[target],
        flow=flow,
        direction="to-guest",
        interval_ms=interval_ms,
        output=str(folder / "probes.jsonl"),
    )


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "probes.jsonl").read_text().splitlines()]


def wait_for_rows(folder: Path, more: int) -> None:
    before = len(rows_in(folder))
    wait_until(lambda: len(rows_in(folder)) >= before + more, 10)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("flow", ["icmp", "udp"])
def test_a_loss_is_found_where_it_was(
    network: Network, responder: Agent, tmp_path: Path, flow: str, target: str
) -> None:
    """The gap's ends lie between the moments just before and just after the loss began and ended."""
    prober = start_prober(network, tmp_path, flow, target, INTERVAL_MS)
    wait_for_rows(tmp_path, 50)
    before_drop = time.monotonic_ns()
    drop(network, on=True)
    after_drop = time.monotonic_ns()
    wait_for_rows(tmp_path, 40)
    before_pass = time.monotonic_ns()
    drop(network, on=False)
    after_pass = time.monotonic_ns()
    wait_for_rows(tmp_path, 50)
    assert prober.stop() == 0
    rows = rows_in(tmp_path)
    assert [row["seq"] for row in rows] == list(range(len(rows)))
    sent = [row for row in rows if row["sent_ns"] is not None]
    lost_ns = [row["sent_ns"] for row in sent if row["received_ns"] is None]
    kept_ns = [row["sent_ns"] for row in sent if row["received_ns"] is not None]
    slack_ns = INTERVAL_MS * 1_000_000  # a probe may be on its way when the rule changes
    assert before_drop - slack_ns < min(lost_ns)
    assert max(lost_ns) < after_pass
    assert not [at for at in kept_ns if after_drop < at < before_pass - slack_ns]
    assert len(sent) >= 0.5 * len(rows)  # a busy machine may keep the prober from sending some
    assert len(lost_ns) >= 15
    assert len(kept_ns) >= 40
    (back,) = prober.events("first_answered_probe")
    assert back["unanswered"] == len(lost_ns)
    (ended,) = prober.events("probing_ended")
    assert ended["answered"] == len(kept_ns)
    assert ended["sent"] + ended["never_sent"] == len(rows)


def drop(network: Network, *, on: bool) -> None:
    """Drop everything that reaches the target, or stop doing so."""
    if on:
        commands = "add table inet gone; add chain inet gone in { type filter hook input priority 0; policy drop; }"
    else:
        commands = "delete table inet gone"
    network.run("xtr1", "nft", commands, check=True)


def test_the_schedule_does_not_drift(network: Network, responder: Agent, tmp_path: Path) -> None:
    prober = start_prober(network, tmp_path, "udp", TARGETS[0], 5)
    wait_for_rows(tmp_path, 300)
    assert prober.stop() == 0
    rows = rows_in(tmp_path)
    start_ns = rows[0]["scheduled_ns"]
    assert all(row["scheduled_ns"] == start_ns + row["seq"] * 5_000_000 for row in rows)
    sent = [row for row in rows if row["sent_ns"] is not None]
    assert all(0 <= row["sent_ns"] - row["scheduled_ns"] < 5_000_000 for row in sent)
    assert all(row["sent_ns"] <= row["received_ns"] for row in sent if row["received_ns"])


def test_a_killed_prober_has_written_all_but_the_last_second(network: Network, tmp_path: Path) -> None:
    prober = start_prober(network, tmp_path, "icmp", TARGETS[0], INTERVAL_MS)
    wait_for_rows(tmp_path, 100)
    killed_ns = time.monotonic_ns()
    prober.process.kill()
    prober.process.wait(3)
    rows = rows_in(tmp_path)
    assert killed_ns - rows[-1]["scheduled_ns"] < 1_000_000_000
    assert sum(row["replies"] == 1 for row in rows) > 0.9 * len(rows)


@pytest.mark.parametrize("change", [{"flow": "sctp"}, {"interval_ms": 0.1}, {"interval_ms": 1001}, {"direction": "up"}])
def test_a_wrong_configuration_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    config = {
        "node": "host1", "events": str(tmp_path / "e"), "control": str(tmp_path / "c"), "target": "127.0.0.1",
        "source": "127.0.0.1", "flow": "icmp", "direction": "to-guest", "interval_ms": 10,
        "output": str(tmp_path / "o"), **change,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "testbed.lab.agents.prober", str(tmp_path / "config.json")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=20,
    )
    assert done.returncode == 11
    assert next(iter(change)) in done.stderr


@pytest.mark.parametrize("flow", ["icmp", "udp"])
def test_what_a_fast_schedule_keeps_to_itself_is_told_at_the_end(
    network: Network, responder: Agent, tmp_path: Path, flow: str
) -> None:
    """Twice a millisecond: every probe is in the record in its turn, to the last, with the kernel's stamps."""
    prober = start_prober(network, tmp_path, flow, TARGETS[0], 0.5)
    wait_for_rows(tmp_path, 500)
    before_stop = time.monotonic_ns()
    assert prober.stop() == 0
    rows = rows_in(tmp_path)
    assert [row["seq"] for row in rows] == list(range(len(rows)))
    assert all(row["scheduled_ns"] == rows[0]["scheduled_ns"] + row["seq"] * 500_000 for row in rows)
    sent = [row for row in rows if row["sent_ns"] is not None]
    assert sent[-1]["sent_ns"] > before_stop - 100_000_000
    answered = [row for row in sent if row["received_ns"] is not None]
    # A busy machine may keep the prober from sending some, and the responder from taking them.
    assert len(answered) >= 0.25 * len(rows)
    # The kernel's stamps are of another clock, which is compared with ours for each.
    apart_ns = 5_000
    assert all(row["sent_ns"] - apart_ns <= row["kernel_sent_ns"] <= row["received_ns"] + apart_ns for row in answered)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("flow", ["icmp", "udp"])
def test_what_is_no_answer_of_ours_is_left_out(network: Network, tmp_path: Path, flow: str, target: str) -> None:
    """Replies to nobody, cut short, and of other runs; nobody answers the probes themselves."""
    drop(network, on=True)
    try:
        prober = start_prober(network, tmp_path, flow, target, INTERVAL_MS)
        wait_for_rows(tmp_path, 5)  # an answer to what was not sent yet would be left out for that
        with inside(network.names["host1"]):
            sender = junk_sender(flow, target)
        with sender:
            for junk in (b"", b"T", b"TBPROBE1", b"TBPROBE1" + bytes(16), b"TBPROBE1" + bytes(15), bytes(1500)):
                for port in ports_of(network, flow):
                    sender.sendto(junk if flow == "udp" else echo_reply(target, junk), (SOURCES[target], port))
        wait_for_rows(tmp_path, 10)
        assert prober.stop() == 0
    finally:
        drop(network, on=False)
    (ended,) = prober.events("probing_ended")
    assert (ended["answered"], ended["duplicated"]) == (0, 0)
    assert ended["sent"] >= 5


def junk_sender(flow: str, target: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    if flow == "udp":
        return socket.socket(family, socket.SOCK_DGRAM)
    return socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if ":" in target else socket.IPPROTO_ICMP)


def echo_reply(target: str, body: bytes) -> bytes:
    if ":" in target:
        return bytes([129, 0, 0, 0]) + bytes(4) + body  # the kernel makes the checksum
    packet = bytes(8) + body + bytes(len(body) % 2)
    total = sum(int.from_bytes(packet[i : i + 2], "big") for i in range(0, len(packet), 2))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return packet[:2] + (~total & 0xFFFF).to_bytes(2, "big") + packet[4 : 8 + len(body)]


def ports_of(network: Network, flow: str) -> list[int]:
    """The UDP ports that are open at the prober's node; for ICMP there is none."""
    if flow == "icmp":
        return [0]
    listed = network.run("host1", "ss", "-Huan", check=True).stdout
    found = {int(line.split()[3].rsplit(":", 1)[1]) for line in listed.splitlines()}
    assert found
    return sorted(found)


def test_a_prober_whose_sending_program_dies_says_so_and_ends(network: Network, tmp_path: Path) -> None:
    prober = start_prober(network, tmp_path, "icmp", TARGETS[0], INTERVAL_MS)
    wait_for_rows(tmp_path, 5)
    children = Path(f"/proc/{prober.process.pid}/task/{prober.process.pid}/children").read_text().split()
    (program,) = [int(pid) for pid in children if "/echo-" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(program, signal.SIGKILL)
    assert prober.process.wait(5) == 11
    (failed,) = prober.events("agent_failed")
    assert "the program that sends the probes has ended" in failed["error"]
    assert len(rows_in(tmp_path)) >= 5


def test_a_killed_prober_leaves_nobody_who_sends(network: Network, tmp_path: Path) -> None:
    prober = start_prober(network, tmp_path, "icmp", TARGETS[0], INTERVAL_MS)
    children = Path(f"/proc/{prober.process.pid}/task/{prober.process.pid}/children").read_text().split()
    programs = [pid for pid in children if "/echo-" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert programs
    prober.process.kill()
    prober.process.wait(3)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in programs), 5)


@pytest.mark.parametrize("target", TARGETS)
def test_the_responder_echoes_streams(network: Network, responder: Agent, target: str) -> None:
    with inside(network.names["host1"]):
        connection = socket.create_connection((target, 7), timeout=5)
    with connection:
        connection.sendall(b"echo me")
        assert connection.recv(100) == b"echo me"


def test_a_connection_that_breaks_is_said_and_opened_again(network: Network, tmp_path: Path) -> None:
    """Messages come back in order; the responder dies; another one is found, and probing goes on on it."""
    responder = Agent(network, "xtr1", "responder", tmp_path)
    prober = start_prober(network, tmp_path, "tcp", TARGETS[0], INTERVAL_MS)
    wait_for_rows(tmp_path, 50)
    assert [event["connection"] for event in prober.events("tcp_connected")] == [1]
    responder.process.kill()
    responder.process.wait(3)
    wait_until(lambda: bool(prober.events("tcp_broken")), 5)
    (tmp_path / "responder.jsonl").unlink()
    responder = Agent(network, "xtr1", "responder", tmp_path)
    # A responder that dies closes its connections before its port: one more can have been made to it, and broken.
    wait_until(lambda: len(prober.events("tcp_connected")) > len(prober.events("tcp_broken")), 10)
    wait_for_rows(tmp_path, 60)
    assert prober.stop() == 0
    assert responder.stop() == 0
    rows = rows_in(tmp_path)
    assert sum(row["received_ns"] is not None for row in rows[:50]) >= 45
    assert sum(row["received_ns"] is not None for row in rows[-50:]) >= 45
    assert any(row["sent_ns"] is None for row in rows)  # what was due without a connection
    (ended,) = prober.events("probing_ended")
    assert ended["connections"] == len(prober.events("tcp_connected")) == len(prober.events("tcp_broken")) + 1
    assert ended["octets_in_order"] == 24 * ended["answered"]
