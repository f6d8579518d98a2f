"""The agents' shared skeleton, run as a real process: ready event, control socket, clean end."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.lab.agents.runtime import AgentConfigError, read_config, read_key
from tests.waiting import wait_until, whole_lines

AGENT = """
import asyncio, sys
from contextlib import asynccontextmanager
from testbed.lab.agents.runtime import run_agent

@asynccontextmanager
async def agent(runtime):
    runtime.on("inspect", lambda request: {"number": 42})
    def broken(request):
        raise ValueError("no such EID")
    runtime.on("broken", broken)
    def crash(request):
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        return {}
    runtime.on("crash", crash)
    yield

sys.exit(run_agent("example", agent))
"""


class Running:
    def __init__(self, folder: Path) -> None:
        self.events = folder / "events.jsonl"
        self.control = folder / "control"
        config = folder / "config.json"
        config.write_text(json.dumps({"node": "n1", "events": str(self.events), "control": str(self.control)}))
        self.events.touch()
        self.process = subprocess.Popen([sys.executable, "-c", AGENT, str(config)], stderr=subprocess.PIPE)
        self.wait_for("agent_ready")

    def wait_for(self, kind: str) -> dict[str, object]:
        def found() -> list[dict[str, object]]:
            return [event for event in self.recorded() if event["kind"] == kind]

        return wait_until(found, f"{kind} in the event log")[0]

    def recorded(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in whole_lines(self.events)]

    def ask(self, line: bytes) -> dict[str, object]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(self.control))
            client.sendall(line + b"\n")
            answer = client.makefile().readline()
        return json.loads(answer)  # type: ignore[no-any-return]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    agent = Running(tmp_path)
    yield agent
    agent.process.kill()
    agent.process.communicate()


def test_answers_on_a_private_socket(running: Running) -> None:
    assert stat.S_IMODE(running.control.stat().st_mode) == 0o600
    assert running.ask(b'{"op": "inspect"}') == {"ok": True, "number": 42}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"op": "nonsense"}', "unknown op"),
        (b"{", "not JSON"),
        (b"[1]", "expected an object"),
        (b'{"op": "broken"}', "no such EID"),
    ],
)
def test_refuses_with_a_reason(running: Running, line: bytes, reason: str) -> None:
    answer = running.ask(line)
    assert answer["ok"] is False
    assert reason in str(answer["error"])


def test_sigterm_ends_it_cleanly(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=5) == 0
    assert running.recorded()[-1]["kind"] == "agent_stopped"
    assert not running.control.exists()


def test_a_fault_ends_it_with_its_reason(running: Running) -> None:
    running.ask(b'{"op": "crash"}')
    assert running.process.wait(timeout=5) == 11
    assert "ZeroDivisionError" in str(running.wait_for("agent_failed")["error"])


def test_config_must_name_node_events_and_control(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"node": "n1"}')
    with pytest.raises(AgentConfigError, match="events, control"):
        read_config(path)


def test_key_file_must_be_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret\n")
    path.chmod(0o644)
    with pytest.raises(AgentConfigError, match="readable by others"):
        read_key(path)
    path.chmod(0o600)
    assert read_key(path) == b"secret"
