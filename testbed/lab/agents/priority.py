"""Who runs first when the processor is short: probers, then the LISP agents, then the emulation."""

from __future__ import annotations

import contextlib
import gc
import os

# Above both is the link relay (relay.c, 20), which takes microseconds of a packet's delay.

#: Above the agents: a prober that is late makes a run invalid.
PROBER_PRIORITY = 10
#: Above everything that is not real-time: the waiting of an agent for the processor is no LISP.
AGENT_PRIORITY = 5
NICENESS = -10
#: Of what agents do that nobody waits for: still above everything that is not real-time.
_LOW = os.sched_param(1)


def take_priority(realtime: int) -> str:
    """Run before the emulation: SCHED_FIFO if permitted, else a negative niceness. Returns what it got.

    Args:
        realtime: the priority of SCHED_FIFO, 1 … 99.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(realtime))
        return f"fifo-{realtime}"
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        return f"nice{NICENESS}"
    return "normal"


class Pace:
    """The priority of an agent: high while somebody waits for what it does, low for the rest.

    Agents are more than processors. What one has still to do when its message has left (events,
    acknowledgements) would be in the way of the one that has just got the message.
    """

    def __init__(self) -> None:
        self._high: os.sched_param | None = None
        self._relaxed = False

    def take(self, realtime: int) -> str:
        """Begin, with `take_priority`; before that, and where the priority is none of SCHED_FIFO, there is one pace."""
        taken = take_priority(realtime)
        if taken.startswith("fifo-"):
            self._high = os.sched_param(realtime)
        return taken

    def relax(self) -> None:
        """Nobody waits for what comes now."""
        if self._high is not None and not self._relaxed:
            os.sched_setparam(0, _LOW)
            self._relaxed = True

    def hurry(self) -> None:
        """Somebody does again."""
        if self._high is not None and self._relaxed:
            os.sched_setparam(0, self._high)
            self._relaxed = False


def settle_memory() -> None:
    """Exempt everything that is loaded by now from garbage collection, which then has little to look at."""
    gc.collect()
    gc.freeze()
