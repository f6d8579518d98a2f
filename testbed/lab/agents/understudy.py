"""An agent's understudy: a twin of its state machine that plays migrations beside it, and nothing leaves.

The understudy has a driver of its own, so that its messages go through everything that the agent's go through: a
datagram that the kernel delivers (on the loopback interface), the event loop, the decoding, the machine, the
signatures. What would change or send something is left out, and what nobody waits for, as the events' text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, get_args

from testbed.eventlog import EventLog
from testbed.lab.agents.driver import Driver, is_waited_for
from testbed.lab.agents.priority import Pace
from testbed.lab.agents.sockets import ControlSocket
from testbed.lisp.actions import Action, SaveNonce, SendControl
from testbed.lisp.rehearsal import Rehearsal

NULL = Path(os.devnull)
LOOPBACK = ip_address("127.0.0.1")
#: As long as a Map-Register of one EID.
_CUE = bytes(84)


def _nothing(action: Action) -> None:
    return


@dataclass(frozen=True, slots=True)
class _GiveCue:
    """Let a datagram come that stands for the first message of a migration."""


class _Role:
    """The understudy's machine: a cue now and then, and for each a migration that is played.

    Args:
        rehearsal: what is played.
        every_ns: from one cue to the next.
        agent: the driver of the one who plays it in earnest. Who has just had something to do needs no rehearsal,
            and the processor is somebody else's.
        pace: of the process; who plays in earnest goes before whoever rehearses.
    """

    def __init__(self, rehearsal: Rehearsal, every_ns: int, agent: Driver, pace: Pace) -> None:
        self._rehearsal, self._every_ns, self._agent, self._pace = rehearsal, every_ns, agent, pace
        self._deadline = 0

    def handle(self, event: object, now: int) -> list[Action]:
        """Play one migration; what nobody waits for need not be quick, and what it touches takes the others' place."""
        self._pace.relax()
        actions = [each for each in self._rehearsal.step() if is_waited_for(each)]
        self._pace.hurry()
        return actions

    def handle_timer(self, now: int) -> list[Any]:
        """Give the next cue, if it is time."""
        earliest = self._agent.last_input_ns + self._every_ns
        if now < earliest:
            self._deadline = earliest
            return []
        self._deadline = now + self._every_ns
        return [_GiveCue()]

    def next_deadline(self) -> int:
        """Of the next cue."""
        return self._deadline


def rehearse(
    rehearsal: Rehearsal,
    every_s: float,
    *,
    agent: Driver,
    log: EventLog,
    control: ControlSocket,
    pace: Pace,
    dry: Mapping[type, Callable[[Any], None]] | None = None,
) -> ExitStack:
    """Rehearse now and then, so that a message finds this process's code in the caches.

    Args:
        rehearsal: of the machine's part.
        every_s: between two migrations.
        agent: whose understudy it is.
        log: of the agent, which is told that it rehearses.
        control: the agent's control port, which looks its routes up and sends nothing.
        pace: of the process.
        dry: how kinds of action are carried out that something can be done of without effect; of others nothing is.

    Returns what ends it when it is closed.
    """
    with ExitStack() as stack:
        nowhere = EventLog(NULL, log.source)
        stack.callback(nowhere.close)
        null = os.open(NULL, os.O_WRONLY | os.O_CLOEXEC)
        stack.callback(os.close, null)
        stage = ControlSocket(LOOPBACK, port=0)
        stack.callback(stage.close)
        driver = Driver(
            nowhere,
            stage,
            {
                **dict.fromkeys(get_args(Action), _nothing),
                SaveNonce: lambda actions: os.write(null, b"".join([action.line() for action in actions])),
                SendControl: lambda action: control.rehearse(),
                _GiveCue: lambda action: stage.send(_CUE, LOOPBACK, stage.port),
                **(dry or {}),
            },
            pace,
        )
        stack.callback(driver.stop)
        log.emit("rehearsing", every_ms=every_s * 1000)
        driver.start(_Role(rehearsal, round(every_s * 1e9), agent, pace))
        return stack.pop_all()
