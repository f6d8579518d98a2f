"""Joins a state machine to an event loop: inputs in, actions out, one timer, nonces that persist."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from testbed.eventlog import EventLog
from testbed.lab.agents.priority import Pace
from testbed.lab.agents.runtime import AgentConfigError
from testbed.lab.agents.sockets import ControlSocket
from testbed.lisp.actions import Action, Emit, GiveWay, SaveNonce, SendControl
from testbed.lisp.inputs import ControlReceived

MILLISECOND_NS = 1_000_000
#: Datagrams, frames or packets taken from one source before the others get their turn.
BATCH = 64
#: So long waits what nobody waits for: longer than the messages of a remapping take one after the other where there is
#: no distance between its agents, and far less than any retransmission.
PUT_OFF_NS = 5 * MILLISECOND_NS
#: So long an agent gives way to whom it has told something: until the questions about it are here and answered.
#: Whoever registers an EID that moved here hears so much later.
GIVE_WAY_NS = 2 * MILLISECOND_NS
#: So many things wait at most: a flood of messages leaves no time for them.
MOST_PUT_OFF = 256


class Machine(Protocol):
    """A control plane without I/O."""

    def handle(self, event: Any, now: int) -> list[Action]:
        """Take one input."""

    def handle_timer(self, now: int) -> list[Action]:
        """Do what is due."""

    def next_deadline(self) -> int | None:
        """When something is due."""


def _can_wait(action: Action) -> TypeGuard[Emit | SendControl]:
    return isinstance(action, Emit) or (isinstance(action, SendControl) and not action.hurried)


def is_waited_for(action: Action) -> bool:
    """Whether somebody waits for this being done."""
    return not _can_wait(action) and not isinstance(action, GiveWay)


class NonceStore:
    """Nonces that outlive the process: one line each time one is used (RFC 9301 §5.6).

    Lines are one write, so that a killed process loses none that it sent. The machine's crash may,
    which ends the lab too.

    Args:
        path: of the file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.saved: dict[str, int] = {}
        try:
            lines = path.read_text().splitlines() if path.exists() else []
            for line in lines:
                nonce, _, owner = line.partition(" ")
                self.saved[owner] = max(int(nonce), self.saved.get(owner, 0))
            compact = path.with_suffix(path.suffix + ".new")
            compact.write_text("".join(f"{nonce} {owner}\n" for owner, nonce in self.saved.items()))
            compact.replace(path)
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise AgentConfigError("agent-state", f"Cannot keep nonces in {path}", why=str(error)) from error

    def save(self, actions: Iterable[SaveNonce]) -> None:
        """Store nonces before what was built with them leaves."""
        os.write(self._fd, b"".join([action.line() for action in actions]))

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class Driver:
    """Feeds a machine and carries out what it wants.

    Args:
        log: takes the events.
        control: the control port.
        performers: how each kind of action is carried out; `SendControl` by the control port if nothing else is said.
            That of `SaveNonce` is given all that are to be stored before the next thing is done.
        pace: of the process.

    Attributes:
        last_input_ns: when it last had something to do.
    """

    def __init__(
        self,
        log: EventLog,
        control: ControlSocket,
        performers: Mapping[type, Callable[[Any], object]],
        pace: Pace | None = None,
    ) -> None:
        self._log = log
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._machine: Machine | None = None
        self.last_input_ns = 0
        self._pace = pace or Pace()
        #: What nobody waits for, and when that was begun which it tells of.
        self._later: deque[tuple[Emit | SendControl, int]] = deque()
        #: What gave way to those who were told something, in its order.
        self._rest: deque[list[Action]] = deque()
        self._performers: dict[type, Callable[[Any], object]] = {SendControl: self._send, **performers}

    def start(self, machine: Machine, actions: Iterable[Action] = ()) -> None:
        """Carry out what the machine wants from the start, and begin to read the control port."""
        self._machine = machine
        self._perform(list(actions))
        self.catch_up()  # of what comes next, nothing is to be ahead of it
        self._loop.add_reader(self._control.fileno(), self._receive)
        self._schedule()

    def stop(self) -> None:
        """Take no input any more, and do all that was put off."""
        self._loop.remove_reader(self._control.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self.catch_up()

    def catch_up(self) -> None:
        """Do all that was put off: for somebody who asks, everything that has happened is told."""
        self._resume()
        while self._later:
            self._do_first()

    def feed(self, event: object, now: int) -> None:
        """Give the machine an input that came at `now`."""
        assert self._machine is not None
        self._perform(self._machine.handle(event, now))
        self._schedule()
        self.last_input_ns = time.monotonic_ns()

    def _receive(self) -> None:
        for _ in range(BATCH):
            received = self._control.receive()
            if received is None:
                return
            payload, source, port, arrival_ns = received
            self.feed(ControlReceived(payload, source, port), arrival_ns)

    def _perform(self, actions: list[Action]) -> None:
        """Carry out what somebody waits for; the events of it, and what nobody waits for, are put off."""
        begun_ns = time.monotonic_ns()
        told = False
        nonces: list[SaveNonce] = []
        for done, action in enumerate(actions, 1):
            if _can_wait(action):
                self._put_off(action, begun_ns)
            elif isinstance(action, SaveNonce):
                nonces.append(action)
            elif isinstance(action, GiveWay):
                if told or self._rest:  # in the order of the inputs
                    self._give_way(actions[done:])
                    break
            else:
                if nonces:
                    self._performers[SaveNonce](nonces)
                    nonces = []
                begun_ns = self._carry_out(action)
                told |= isinstance(action, SendControl)
        if nonces:
            self._performers[SaveNonce](nonces)

    def _give_way(self, rest: list[Action]) -> None:
        if not self._rest:
            self._call_at(time.monotonic_ns() + GIVE_WAY_NS, self._resume)
        self._rest.append(rest)

    def _resume(self) -> None:
        """Do what gave way, in its order."""
        rest = list(chain.from_iterable(self._rest))
        self._rest.clear()
        self._perform(rest)

    def _carry_out(self, action: Action) -> int:
        """Do it; returns when that was begun, which is the time of the events that tell of it.

        Stamped after it, a send or a change could seem later than what it caused elsewhere: the scheduler may take
        the processor from us within the system call. A message that is made only now is sent when it is made.
        """
        prepared = action.prepared() if isinstance(action, SendControl) else action
        begun_ns = time.monotonic_ns()
        self._performers[type(action)](prepared)
        return begun_ns

    def _put_off(self, action: Emit | SendControl, begun_ns: int) -> None:
        """Do it when it is in nobody's way; `begun_ns` is when that was begun which an event tells of."""
        if not self._later:
            self._call_at(time.monotonic_ns() + PUT_OFF_NS, self._do_next)
        self._later.append((action, begun_ns))
        if len(self._later) > MOST_PUT_OFF:
            self._do_first()

    def _do_next(self) -> None:
        """Do the first of what was put off, and then the next unless there is input."""
        if not self._later:
            return
        self._pace.relax()
        self._do_first()
        self._pace.hurry()
        if self._later:
            # What is called soon comes before the input that is there by now, what is called soon after that behind it.
            self._loop.call_soon(self._loop.call_soon, self._do_next)

    def _do_first(self) -> None:
        action, begun_ns = self._later.popleft()
        if isinstance(action, Emit):
            stamp_ns = begun_ns if action.mono_ns is None else action.mono_ns
            self._log.emit(action.kind, mono_ns=stamp_ns, **action.fields)
        else:
            self._carry_out(action)

    def _send(self, action: SendControl) -> None:
        reason = self._control.send(action.payload, action.destination, action.port)
        if reason is not None:
            self._log.emit("control_not_sent", peer=str(action.destination), reason=reason)

    def _schedule(self) -> None:
        assert self._machine is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._machine.next_deadline()
        if deadline is not None:
            self._timer = self._call_at(deadline, self._fire)

    def _call_at(self, due_ns: int, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call it when it is due and not before, of a loop whose clock has milliseconds (uvloop's)."""
        return self._loop.call_at(-(-due_ns // MILLISECOND_NS) / 1000, callback)

    def _fire(self) -> None:
        assert self._machine is not None
        self._timer = None
        self._resume()  # what is stored before what is due stays before it
        self._perform(self._machine.handle_timer(time.monotonic_ns()))
        self._schedule()
