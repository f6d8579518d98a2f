"""An understudy plays, again and again, and nothing of it leaves; while its agent is busy it keeps still."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop

from testbed.eventlog import EventLog
from testbed.events import Event
from testbed.lab.agents.driver import Driver
from testbed.lab.agents.priority import Pace
from testbed.lab.agents.sockets import ControlSocket
from testbed.lab.agents.understudy import rehearse
from testbed.lisp.actions import Action, SaveNonce, SendControl, emit
from testbed.lisp.mechanisms import mechanism_named
from testbed.lisp.rehearsal import Part, Rehearsal

LOOPBACK = ip_address("127.0.0.1")
EVERY_S = 0.002


class CountedRehearsal(Rehearsal):
    """Counts what is played, and ends the wait for it."""

    def __init__(self, enough: int, done: asyncio.Event) -> None:
        super().__init__(Part.MAP_SERVER, mechanism_named("smr-old-xtr"))
        self.played, self._enough, self._done = 0, enough, done

    def step(self) -> list[Action]:
        """The next scene; the kinds of action that an agent carries out are among them."""
        self.played += 1
        if self.played == self._enough:
            self._done.set()
        actions = super().step()
        assert any(isinstance(action, SendControl) for action in actions)
        assert any(isinstance(action, SaveNonce) for action in actions)
        return actions


class Idle:
    """An agent's machine to which nothing happens."""

    def __init__(self) -> None:
        self.inputs = 0

    def handle(self, event: object, now: int) -> list[Action]:
        """Count it."""
        self.inputs += 1
        return [emit("heard")]

    def handle_timer(self, now: int) -> list[Action]:
        """Nothing is ever due."""
        return []

    def next_deadline(self) -> int | None:
        """Never."""
        return None


class Agent:
    """A driver with an idle machine, whose control port and log are looked at."""

    def __init__(self, folder: Path) -> None:
        self.said: list[Event] = []
        self.log = EventLog(folder / "events.jsonl", "xtr", also=self.said.append)
        self.control = ControlSocket(LOOPBACK, port=0)
        self.machine = Idle()
        self.saved: list[SaveNonce] = []
        self.driver = Driver(self.log, self.control, {SaveNonce: self.saved.extend})
        self.driver.start(self.machine)

    def close(self) -> None:
        """End it."""
        self.driver.stop()
        self.control.close()
        self.log.close()


def test_it_plays_and_nothing_leaves(tmp_path: Path) -> None:
    async def play() -> None:
        done = asyncio.Event()
        rehearsal = CountedRehearsal(5, done)
        agent = Agent(tmp_path)
        with rehearse(rehearsal, EVERY_S, agent=agent.driver, log=agent.log, control=agent.control, pace=Pace()):
            await asyncio.wait_for(done.wait(), 10)
        played = rehearsal.played
        # Whatever it had sent or said would be here by now: the loop has turned since.
        assert agent.control.receive() is None
        assert (agent.machine.inputs, agent.saved) == (0, [])
        assert [event.kind for event in agent.said] == ["rehearsing"]
        assert rehearsal.played == played, "it goes on after its end"
        agent.close()

    uvloop.run(play())


def test_who_is_busy_does_not_rehearse(tmp_path: Path) -> None:
    async def play() -> None:
        done = asyncio.Event()
        rehearsal = CountedRehearsal(1, done)
        agent = Agent(tmp_path)
        # As if the agent had just done something, an hour from now.
        agent.driver.last_input_ns = time.monotonic_ns() + 3_600_000_000_000
        with (
            rehearse(rehearsal, EVERY_S, agent=agent.driver, log=agent.log, control=agent.control, pace=Pace()),
            pytest.raises(TimeoutError),
        ):
            await asyncio.wait_for(done.wait(), 10 * EVERY_S)
        assert rehearsal.played == 0
        agent.close()

    uvloop.run(play())


def test_a_message_to_the_agent_is_its_own(tmp_path: Path) -> None:
    async def play() -> None:
        agent = Agent(tmp_path)
        before = time.monotonic_ns()
        with rehearse(
            CountedRehearsal(1, asyncio.Event()),
            60,
            agent=agent.driver,
            log=agent.log,
            control=agent.control,
            pace=Pace(),
        ):
            agent.control.send(b"to itself", LOOPBACK, agent.control.port)
            while len(agent.said) < 2:
                await asyncio.sleep(0)
        assert agent.driver.last_input_ns > before
        assert [event.kind for event in agent.said] == ["rehearsing", "heard"]
        agent.close()

    uvloop.run(play())
