"""Processors that stay awake for as long as a lab wants: by the kernel's PM QoS, or by giving them nothing to do.

A virtual machine's processor that has nothing to do is given back to the host. It takes 50 µs and more to come back,
and does so with less of its caches and translations than it left with: code that ran a moment ago is slow again. The
kernel holds to a wake-up latency (`/dev/cpu_dma_latency`) where it has a cpuidle driver; where it has none, as in many
virtual machines, it halts whatever it was told. There a loop on each processor, which runs only when nothing else
wants to (SCHED_IDLE), leaves it nothing to halt for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

CPUIDLE_DRIVER = Path("/sys/devices/system/cpu/cpuidle/current_driver")
PM_QOS = Path("/dev/cpu_dma_latency")
#: Its argument is a processor's number.
_IDLE_LOOP = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while True:
    pass
"""


@contextmanager
def processors_awake(driver: Path = CPUIDLE_DRIVER, pm_qos: Path = PM_QOS) -> Iterator[str]:
    """Keep every processor out of idle states within the block.

    Args:
        driver: where the kernel names its cpuidle driver; "none", or no such file, is none.
        pm_qos: takes the longest wake-up latency that is tolerable, in µs as 32 bits, for as long as it is open.

    Yields how: "pm-qos" or "idle-loops".
    """
    with ExitStack() as stack:
        yield "pm-qos" if _hold_latency(stack, driver, pm_qos) else _start_loops(stack)


def _hold_latency(stack: ExitStack, driver: Path, pm_qos: Path) -> bool:
    try:
        if driver.read_text().strip() == "none":
            return False
        fd = os.open(pm_qos, os.O_WRONLY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        os.write(fd, bytes(4))
    except OSError:
        return False
    return True


def _start_loops(stack: ExitStack) -> str:
    for processor in sorted(os.sched_getaffinity(0)):
        argv = [sys.executable, "-I", "-S", "-c", _IDLE_LOOP, str(processor)]
        loop = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        stack.callback(loop.wait)
        stack.callback(loop.kill)
    return "idle-loops"
