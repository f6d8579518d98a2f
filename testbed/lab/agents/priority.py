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


def settle_memory() -> None:
    """Exempt everything that is loaded by now from garbage collection, which then has little to look at."""
    gc.collect()
    gc.freeze()
