"""The relay (relay.c): built once into a cache, run in a node of its own that joins the impaired links."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed import native
from testbed.lab.network.errors import NetworkError
from testbed.lab.network.impairment import relay_arguments
from testbed.lab.network.processes import in_node
from testbed.plan.model import Link

SOURCE = Path(__file__).with_name("relay.c")
#: How long the relay may take to end before it is killed.
END_S = 2.0


@dataclass(frozen=True, slots=True)
class RelayedLink:
    """A link with the names of its two interfaces in the relay's node."""

    link: Link
    left: str
    right: str


def build_relay(cache_dir: Path) -> Path:
    """Compile the relay unless the cache has it, and return its path; the errors are those of `native.program`."""
    return native.program(SOURCE, cache_dir, "-lm")


def relay_input(links: Sequence[RelayedLink], seed: int) -> str:
    """Return what the relay reads: a line for each link, each with a seed of its own."""
    lines = []
    for number, relayed in enumerate(links):
        arguments = relay_arguments(relayed.link).values()
        # Two generators a link; the seeds of different runs' links stay apart.
        own_seed = (seed * 1_000_003 + number) % 2**62
        lines.append(" ".join(str(word) for word in (relayed.left, relayed.right, *arguments, own_seed)))
    return "\n".join(lines) + "\n"


class Relay:
    """A running relay."""

    def __init__(self, program: Path, pid: int, links: Sequence[RelayedLink], seed: int, log: Path) -> None:
        """Start it in the node of process `pid`, and return when it forwards.

        Raises:
            NetworkError: it did not start; its words are in `why`.
        """
        self._final: list[Mapping[str, Any]] | None = None
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                in_node(pid, [str(program)]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(relay_input(links, seed))
        self._process.stdin.close()
        word, _, policy = self._process.stdout.readline().strip().partition(" ")
        if word != "ready":
            self._process.kill()
            self._process.wait()
            raise NetworkError("relay-failed", "the relay did not start", why=log.read_text().strip())
        #: How the scheduler treats it: `rr` (real-time), `nice` (-20), or `other`.
        self.policy = policy

    def counters(self) -> list[Mapping[str, Any]]:
        """Return what it has counted, for each direction; after `stop`, the last count.

        Raises:
            NetworkError: it has died, and what was measured since is worth nothing.
        """
        if self._final is not None:
            return list(self._final)
        if self._process.poll() is not None:
            ended = f"the relay ended with {self._process.returncode}: the impaired links are cut"
            raise NetworkError("relay-died", ended, why=self._log.read_text().strip())
        self._process.send_signal(signal.SIGUSR1)
        return self._read()

    def stop(self) -> None:
        """End it and keep its last count."""
        if self._final is None:
            self._process.terminate()  # which does nothing to a process that has died
            try:
                self._process.wait(END_S)
                self._final = self._read()
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                self._final = []

    def _read(self) -> list[Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return list(json.loads(line)) if line else []
