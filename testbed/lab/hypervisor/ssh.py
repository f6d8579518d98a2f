"""Commands on a dom0 over SSH: the lab's key, a pinned host key, drained streams, a deadline on each."""

from __future__ import annotations

import io
import shlex
import time
from dataclasses import dataclass

import paramiko

from testbed.errors import TestbedError
from testbed.lab.hypervisor.keys import LabKeys, public_key_bytes


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left: its exit status, its output and its error output."""

    status: int
    output: str
    error: str


class PinnedKey(paramiko.MissingHostKeyPolicy):
    """Accepts the one host key that this lab made and no other."""

    def __init__(self, public: str) -> None:
        self._expected = public_key_bytes(public)

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Raise unless the key is the lab's."""
        if key.asbytes() != self._expected:
            raise paramiko.SSHException(f"{hostname}: not the host key of this lab")


class Shell:
    """One SSH connection to a dom0; reconnects when the connection is gone, with the `keys` it has then."""

    def __init__(self, address: str, keys: LabKeys) -> None:
        self.address = address
        self.keys = keys
        self._client: paramiko.SSHClient | None = None

    def connect(self, deadline_s: float) -> None:
        """Connect, trying until `deadline_s` seconds have passed; raises TestbedError then."""
        end = time.monotonic() + deadline_s
        problem: Exception | None = None
        while time.monotonic() < end:
            client = paramiko.SSHClient()
            client.set_missing_host_key_policy(PinnedKey(self.keys.host_public))
            try:
                client.connect(
                    self.address,
                    username="root",
                    pkey=paramiko.Ed25519Key.from_private_key(io.StringIO(self.keys.client_pem.decode())),
                    timeout=max(1.0, end - time.monotonic()),
                    banner_timeout=max(1.0, end - time.monotonic()),
                    auth_timeout=max(1.0, end - time.monotonic()),
                    allow_agent=False,
                    look_for_keys=False,
                )
            except (OSError, paramiko.SSHException, EOFError) as error:
                problem = error
                client.close()
                time.sleep(0.2)
                continue
            self._client = client
            return
        raise TestbedError("ssh-unreachable", f"no SSH to {self.address} within {deadline_s:.0f} s", why=str(problem))

    def run(self, command: str | list[str], *, deadline_s: float = 30.0, stdin: bytes = b"") -> Completed:
        """Run a command to its end; both streams are read throughout.

        Raises:
            TestbedError: it did not end within `deadline_s`, or the connection broke.
        """
        text = command if isinstance(command, str) else shlex.join(command)
        end = time.monotonic() + deadline_s
        try:
            if self._client is None or not (transport := self._client.get_transport()) or not transport.is_active():
                self.connect(min(deadline_s, 15.0))
            assert self._client is not None
            transport = self._client.get_transport()
            assert transport is not None
            channel = transport.open_session(timeout=deadline_s)
            channel.exec_command(text)
            if stdin:
                channel.sendall(stdin)
            channel.shutdown_write()
            streams: dict[str, bytearray] = {"output": bytearray(), "error": bytearray()}
            while True:
                # Status first: what comes before it is then certainly read below.
                ended = channel.exit_status_ready()
                while channel.recv_ready():
                    streams["output"] += channel.recv(1 << 16)
                while channel.recv_stderr_ready():
                    streams["error"] += channel.recv_stderr(1 << 16)
                if ended and channel.eof_received and not channel.recv_ready():
                    break
                if time.monotonic() > end:
                    channel.close()
                    raise TestbedError(
                        "ssh-timeout", f"{self.address}: `{text[:80]}` did not end within {deadline_s:.0f} s"
                    )
                time.sleep(0.005)
            status = channel.recv_exit_status()
            channel.close()
        except (OSError, paramiko.SSHException, EOFError) as error:
            raise TestbedError(
                "ssh-broken", f"{self.address}: SSH broke during `{text[:80]}`", why=str(error)
            ) from error
        return Completed(status, streams["output"].decode(errors="replace"), streams["error"].decode(errors="replace"))

    def check(self, command: str | list[str], *, deadline_s: float = 30.0, stdin: bytes = b"") -> str:
        """Run a command and return its output; TestbedError if it fails."""
        done = self.run(command, deadline_s=deadline_s, stdin=stdin)
        if done.status != 0:
            shown = command if isinstance(command, str) else shlex.join(command)
            raise TestbedError(
                "host-command-failed", f"{self.address}: `{shown[:120]}` ended with {done.status}",
                why=(done.error or done.output).strip()[-600:],
            )  # fmt: skip
        return done.output

    def close(self) -> None:
        """End the connection; idempotent."""
        if self._client is not None:
            self._client.close()
            self._client = None
