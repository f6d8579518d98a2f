"""An agent in its node: its start, its control socket, its end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.lab.configs import AgentSpec
from testbed.lab.hypervisor.keys import write_secret
from testbed.lab.network.network import Network


def ask(control: Path, request: dict[str, Any], *, deadline_s: float = 5.0) -> dict[str, Any]:
    """Send one request to a control socket and return the answer.

    Raises:
        TestbedError: nobody answers within `deadline_s`, or the answer is a refusal.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(deadline_s)
            connection.connect(str(control))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
    except OSError as error:
        raise TestbedError("agent-silent", f"{control.stem} does not answer", why=str(error)) from error
    if not line:
        raise TestbedError("agent-silent", f"{control.stem} hung up")
    answer: dict[str, Any] = json.loads(line)
    if not answer.get("ok"):
        raise TestbedError(
            "agent-refused", f"{control.stem} refused {request.get('op')!r}", why=answer.get("error", "")
        )
    return answer


class AgentProcess:
    """One running agent.

    Args:
        spec: what to start.
        network: where its node is.
        folder: the lab's runtime folder, which takes its configuration.
        logs: the run's logs folder.
    """

    def __init__(self, spec: AgentSpec, network: Network, folder: Path, logs: Path) -> None:
        self.spec = spec
        self.control = Path(str(spec.config["control"]))
        self._log = logs / spec.node / f"{spec.name}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        config = folder / f"{spec.name}.json"
        write_secret(config, json.dumps(spec.config).encode())
        with self._log.open("ab") as log:
            self.process: subprocess.Popen[bytes] = network.popen(
                spec.node,
                [sys.executable, "-m", f"testbed.lab.agents.{spec.kind}", str(config)],
                stdout=log,
                stderr=log,
            )

    def check_alive(self) -> None:
        """Raise TestbedError with the agent's last words if it has ended."""
        if self.process.poll() is not None:
            raise TestbedError(
                "agent-died",
                f"{self.spec.kind} at {self.spec.node} ended with {self.process.returncode}",
                why="\n".join(self._log.read_text(errors="replace").splitlines()[-8:]),
            )

    def wait_ready(self, deadline_s: float) -> None:
        """Wait until its control socket answers."""
        end = time.monotonic() + deadline_s
        while not self.control.exists():
            self.check_alive()
            if time.monotonic() > end:
                raise TestbedError("agent-timeout", f"{self.spec.name} did not serve within {deadline_s:.0f} s")
            time.sleep(0.02)

    def inspect(self) -> dict[str, Any]:
        """Its whole state."""
        return self.ask({"op": "inspect"})

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request to its control socket and return the answer; TestbedError if it is dead or refuses."""
        self.check_alive()
        return ask(self.control, request)

    def ask_to_end(self) -> None:
        """Send SIGTERM, and do not wait."""
        if self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> None:
        """End it, hard if it has not gone within 2 s; idempotent."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(2.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
