"""One question to the mapping system: its states, its repetitions, its nonces (RFC 9301 §5.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from testbed.lisp.actions import Prefix
from testbed.lisp.machine import Machine
from testbed.lisp.timing import request_delays


class ResolutionState(Enum):
    """How far a question to the mapping system has come."""

    HELD_BACK = "held-back"  # a limiter makes it wait
    ASKED = "asked"
    PAUSED = "paused"  # ten retransmissions without an answer: silence for 30 s (RFC 9301 §5.3)


class ResolutionInput(Enum):
    """What can happen to one."""

    SEND = auto()
    HOLD = auto()
    EXHAUSTED = auto()


TRANSITIONS: dict[tuple[ResolutionState, ResolutionInput], ResolutionState] = {
    (ResolutionState.HELD_BACK, ResolutionInput.SEND): ResolutionState.ASKED,
    (ResolutionState.HELD_BACK, ResolutionInput.HOLD): ResolutionState.HELD_BACK,
    (ResolutionState.ASKED, ResolutionInput.SEND): ResolutionState.ASKED,
    (ResolutionState.ASKED, ResolutionInput.HOLD): ResolutionState.HELD_BACK,
    (ResolutionState.ASKED, ResolutionInput.EXHAUSTED): ResolutionState.PAUSED,
    (ResolutionState.PAUSED, ResolutionInput.HOLD): ResolutionState.HELD_BACK,
}


@dataclass(slots=True)
class Resolution:
    """One open question.

    Attributes:
        eid: the prefix asked for.
        machine: where it stands.
        deadline: of the next transmission, or of the end of the pause.
        smr_invoked: asked because of an SMR: the s-bit.
        again: an SMR came while it was open: the answer may be from before the change, so ask once more.
        subscribe: ask to be told of changes too (RFC 9437); off once that was denied.
        limiter: the name of the limit that held it back, for its event.
        nonces: of all transmissions; a reply to any of them will do.
        delays: of the retransmissions.
        transmissions: so far.
    """

    eid: Prefix
    machine: Machine[ResolutionState, ResolutionInput]
    deadline: int
    smr_invoked: bool = False
    again: bool = False
    subscribe: bool = False
    limiter: str | None = None
    nonces: set[int] = field(default_factory=set)
    delays: Iterator[int] = field(default_factory=request_delays)
    transmissions: int = 0
