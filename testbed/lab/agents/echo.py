"""A flow of echoes: a program of its own (echo.c) sends them on schedule and tells what became of each."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

from testbed import native
from testbed.errors import TestbedError
from testbed.lab.agents.priority import PROBER_PRIORITY
from testbed.paths import cache

SOURCE = Path(__file__).with_name("echo.c")
_RECORD = struct.Struct("@QQQ")
_OCTETS_A_READ = 1024 * _RECORD.size
#: How long the program may take to end before it is killed; it wakes every few milliseconds.
END_S = 2.0


class Told(IntEnum):
    """Kinds of records; as in echo.c."""

    READY = 0
    SENT = 1
    REFUSED = 2
    DEPARTED = 3
    ANSWERED = 4


class Echo:
    """The program, running.

    Args:
        flow: "icmp" or "udp".
        source, target: addresses.
        port: of the echo service, for UDP.
        run_id: 8 octets that every probe carries.
        interval_ns: from one probe to the next.

    Attributes:
        start_ns: when the first probe is due, CLOCK_MONOTONIC.
        priority: how the scheduler treats it: `fifo-10`, or its niceness where that is not permitted.

    Raises TestbedError if it cannot be compiled or does not start.
    """

    def __init__(self, flow: str, source: str, target: str, port: int, run_id: bytes, interval_ns: int) -> None:
        words = (flow, source, target, port, run_id.hex(), interval_ns, PROBER_PRIORITY)
        argv = [str(native.program(SOURCE, cache())), *map(str, words)]
        # Signals are for the agent, which ends this by closing its input.
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._part = b""
        ready = os.read(self.fileno(), _RECORD.size)
        if len(ready) < _RECORD.size:
            ended = self._process.wait()
            raise TestbedError("prober-failed", f"The sending of {flow} probes ended with {ended} before it began")
        _, self.start_ns, realtime = _RECORD.unpack(ready)
        self.priority = f"fifo-{realtime}" if realtime else f"nice{os.getpriority(os.PRIO_PROCESS, self._process.pid)}"

    def fileno(self) -> int:
        """Of what it tells; readable when there is something."""
        return self._output.fileno()

    def read(self) -> Iterator[tuple[int, int, int]] | None:
        """What it has told since: (a `Told`, sequence number, CLOCK_MONOTONIC); None when it has ended."""
        octets = os.read(self.fileno(), _OCTETS_A_READ)
        if not octets:
            return None
        octets = self._part + octets
        whole = len(octets) - len(octets) % _RECORD.size
        self._part = octets[whole:]
        return _RECORD.iter_unpack(octets[:whole])

    def stop(self) -> None:
        """Send nothing any more; replies are still told, for a little less than a second."""
        self._input.close()

    def close(self) -> list[tuple[int, int, int]]:
        """End it, and return what it had told and nobody read."""
        self.stop()
        self._process.terminate()
        left: list[tuple[int, int, int]] = []
        while (some := self.read()) is not None:
            left += some
        self._output.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return left
