"""What joins a state machine to its sockets: nobody has the agent for himself."""

from __future__ import annotations

import asyncio
import socket
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import uvloop

from testbed.eventlog import EventLog
from testbed.events import Event
from testbed.lab.agents.driver import BATCH, GIVE_WAY_NS, MOST_PUT_OFF, PUT_OFF_NS, Driver, is_waited_for
from testbed.lab.agents.sockets import ControlSocket
from testbed.lisp.actions import Action, GiveWay, SaveNonce, SendControl, emit
from testbed.lisp.wire import CONTROL_PORT

LOOPBACK = ip_address("127.0.0.1")
REPLY = SendControl(b"reply", LOOPBACK)
ACK, TO_ITSELF = (SendControl(text, LOOPBACK, hurried=False) for text in (b"ack", b"to itself"))


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

    uvloop.run(run())


class Told:
    """A machine that wants the same done about every input, or else what the input says."""

    def __init__(self, actions: list[Action]) -> None:
        self._actions = actions
        self.due: list[Action] = []

    def handle(self, event: Any, now: int) -> list[Action]:
        return event if isinstance(event, list) else self._actions

    def handle_timer(self, now: int) -> list[Action]:
        due, self.due = self.due, []
        return due

    def next_deadline(self) -> int | None:
        return 0 if self.due else None


class Desk:
    """A driver of a machine that sends to itself, and what has been sent and said so far."""

    def __init__(self, folder: Path, actions: list[Action]) -> None:
        self.sent: list[bytes] = []
        self.said: list[Event] = []
        self.log = EventLog(folder / "events.jsonl", "ms", also=self.said.append)
        self.control = ControlSocket(LOOPBACK, port=0)
        self.stored: list[list[int]] = []
        self.driver = Driver(self.log, self.control, {SendControl: self._send, SaveNonce: self._save})
        self.machine = Told(actions)
        self.driver.start(self.machine)

    def _save(self, actions: list[SaveNonce]) -> None:
        self.stored.append([action.nonce for action in actions])
        self.sent.append(b"stored")

    def _send(self, action: SendControl) -> None:
        self.sent.append(action.payload)
        if action.payload == TO_ITSELF.payload:
            self.control.send(action.payload, LOOPBACK, self.control.port)

    def close(self) -> None:
        self.driver.stop()
        self.control.close()
        self.log.close()


def test_what_nobody_waits_for_is_put_off(tmp_path: Path) -> None:
    async def run() -> None:
        desk = Desk(tmp_path, [ACK, REPLY, emit("replied")])
        before_ns = time.monotonic_ns()
        desk.driver.feed(None, before_ns)
        after_ns = time.monotonic_ns()
        assert (desk.sent, desk.said) == ([b"reply"], [])
        while not desk.said:
            await asyncio.sleep(0.001)
        assert time.monotonic_ns() >= before_ns + PUT_OFF_NS
        assert desk.sent == [b"reply", b"ack"]
        (replied,) = desk.said
        assert before_ns <= replied.mono_ns <= after_ns  # when it happened, not when it was written
        desk.close()

    uvloop.run(run())


@pytest.mark.parametrize(
    ("action", "waited_for"),
    [(REPLY, True), (SaveNonce("xtr", 1), True), (ACK, False), (emit("said"), False), (GiveWay(), False)],
    ids=lambda value: type(value).__name__,
)
def test_somebody_waits_for_it_or_nobody(action: Action, waited_for: bool) -> None:
    assert is_waited_for(action) is waited_for


NEWS, ANSWER, OTHER = (SendControl(text, LOOPBACK) for text in (b"news", b"answer", b"other"))


def test_an_answer_gives_way_to_those_who_were_told_something(tmp_path: Path) -> None:
    """What they ask comes first; the answer's event has the time at which the answer was sent."""

    async def run() -> None:
        desk = Desk(tmp_path, [])
        told_ns = time.monotonic_ns()
        desk.driver.feed([NEWS, GiveWay(), ANSWER, emit("answered")], told_ns)
        desk.driver.feed([REPLY], told_ns)
        assert desk.sent == [b"news", b"reply"]
        while not desk.said:
            await asyncio.sleep(0.001)
        assert desk.sent == [b"news", b"reply", b"answer"]
        (answered,) = desk.said
        assert answered.mono_ns >= told_ns + GIVE_WAY_NS
        desk.close()

    uvloop.run(run())


def test_nonces_are_stored_together_and_before_what_comes_next(tmp_path: Path) -> None:
    async def run() -> None:
        desk = Desk(tmp_path, [])
        first, second, third, fourth = (SaveNonce("xtr", number) for number in range(1, 5))
        desk.driver.feed([first, emit("said"), second, NEWS, third, GiveWay(), fourth, ANSWER], 0)
        assert desk.sent == [b"stored", b"news", b"stored"]
        desk.driver.catch_up()
        assert desk.sent == [b"stored", b"news", b"stored", b"stored", b"answer"]
        desk.driver.feed([first], 0)
        assert desk.stored == [[1, 2], [3], [4], [1]]
        desk.close()

    uvloop.run(run())


def test_an_answer_gives_way_to_nobody_where_nobody_was_told(tmp_path: Path) -> None:
    async def run() -> None:
        desk = Desk(tmp_path, [])
        desk.driver.feed([ACK, GiveWay(), ANSWER], 0)
        assert desk.sent == [b"answer"]
        desk.close()

    uvloop.run(run())


def test_answers_keep_the_order_of_what_they_answer(tmp_path: Path) -> None:
    """A later one waits for one that gave way: what is stored before it is stored in that order too."""

    async def run() -> None:
        desk = Desk(tmp_path, [])
        desk.driver.feed([NEWS, GiveWay(), ANSWER], 0)
        desk.driver.feed([GiveWay(), OTHER], 0)
        assert desk.sent == [b"news"]
        desk.driver.catch_up()  # as for somebody who asks
        assert desk.sent == [b"news", b"answer", b"other"]
        desk.driver.feed([GiveWay(), OTHER], 0)
        assert desk.sent == [b"news", b"answer", b"other", b"other"]
        await asyncio.sleep(2 * GIVE_WAY_NS / 1e9)
        assert len(desk.sent) == 4
        desk.close()

    uvloop.run(run())


def test_what_is_due_comes_after_what_gave_way(tmp_path: Path) -> None:
    async def run() -> None:
        desk = Desk(tmp_path, [])
        desk.machine.due = [OTHER]
        desk.driver.feed([NEWS, GiveWay(), ANSWER], 0)
        while b"other" not in desk.sent:
            await asyncio.sleep(0)
        assert desk.sent == [b"news", b"answer", b"other"]
        desk.close()

    uvloop.run(run())


def test_input_comes_before_what_is_put_off(tmp_path: Path) -> None:
    async def run() -> None:
        desk = Desk(tmp_path, [REPLY, TO_ITSELF, ACK])
        desk.driver.feed(None, 0)
        while b"ack" not in desk.sent:
            await asyncio.sleep(0)
        assert desk.sent == [b"reply", b"to itself", b"reply", b"ack"]
        desk.close()

    uvloop.run(run())


def test_who_asks_is_told_everything(tmp_path: Path) -> None:
    async def run() -> None:
        desk = Desk(tmp_path, [emit("done")])
        desk.driver.feed(None, 0)
        desk.driver.catch_up()
        assert [event.kind for event in desk.said] == ["done"]
        await asyncio.sleep(2 * PUT_OFF_NS / 1e9)  # with nothing left for when it would have been done
        assert len(desk.said) == 1
        desk.close()

    uvloop.run(run())


def test_a_beginning_is_told_before_anything_else(tmp_path: Path) -> None:
    async def run() -> None:
        desk = Desk(tmp_path, [])
        desk.driver.stop()
        desk.driver.start(Told([]), [emit("restored"), ACK])
        assert ([event.kind for event in desk.said], desk.sent) == (["restored"], [b"ack"])
        desk.close()

    uvloop.run(run())


def test_an_end_leaves_nothing_undone(tmp_path: Path) -> None:
    async def run() -> None:
        desk = Desk(tmp_path, [ACK, emit("done", mono_ns=7)])
        desk.driver.feed(None, 0)
        desk.close()
        assert desk.sent == [b"ack"]
        assert [(event.kind, event.mono_ns) for event in desk.said] == [("done", 7)]

    uvloop.run(run())


def test_a_flood_does_not_put_off_without_end(tmp_path: Path) -> None:
    async def run() -> None:
        desk = Desk(tmp_path, [ACK])
        for _ in range(MOST_PUT_OFF + 2):
            desk.driver.feed(None, 0)
        assert len(desk.sent) == 2
        desk.close()

    uvloop.run(run())
