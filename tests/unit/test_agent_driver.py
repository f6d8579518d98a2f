"""What joins a state machine to its sockets: nobody has the agent for himself."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

from testbed.eventlog import EventLog
from testbed.lab.agents.driver import BATCH, Driver
from testbed.lisp.actions import Action
from testbed.lisp.wire import CONTROL_PORT


class Flooded:
    """A control port at which there is always another datagram; its descriptor is one that is always ready."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def receive(self) -> Any:
        return b"", None, CONTROL_PORT, 0


class Counting:
    """A machine that counts its inputs, and has something to do at once."""

    def __init__(self, done: asyncio.Event) -> None:
        self.inputs, self._done = 0, done

    def handle(self, event: Any, now: int) -> list[Action]:
        self.inputs += 1
        assert self.inputs <= 4 * BATCH, "a flood of datagrams kept the timer away"
        return []

    def handle_timer(self, now: int) -> list[Action]:
        self._done.set()
        return []

    def next_deadline(self) -> int | None:
        return None if self._done.is_set() else 0


def test_a_flood_of_datagrams_leaves_timers_their_turn(tmp_path: Path) -> None:
    async def run() -> None:
        done = asyncio.Event()
        machine = Counting(done)
        log = EventLog(tmp_path / "events.jsonl", "ms")
        one, other = socket.socketpair()
        with one, other:
            other.send(b"unread")
            driver = Driver(log, Flooded(one.fileno()), {})  # type: ignore[arg-type]
            driver.start(machine)
            await asyncio.wait_for(done.wait(), 10)
            driver.stop()
        log.close()
        assert machine.inputs

    asyncio.run(run())
