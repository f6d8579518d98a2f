"""What commands share: asking for root, showing progress on a terminal and in a log."""

from __future__ import annotations

import os
import shlex
import sys
import time
from types import TracebackType
from typing import Any

from testbed.errors import TestbedError


def command_line() -> str:
    """What the person typed, as it can be typed again."""
    return shlex.join(["testbed", *sys.argv[1:]])


def require_root() -> None:
    """Raise TestbedError with the sudo line unless this is root."""
    if os.geteuid() != 0:
        typed = shlex.join(["sudo", os.path.abspath(sys.argv[0]), *sys.argv[1:]])
        raise TestbedError("root-needed", "this needs root", why="namespaces, taps and eBPF do", next_command=typed)


class Progress:
    """Phases, elapsed time and what is waited for: one moving line on a terminal, plain lines elsewhere.

    Everything goes to standard error: standard output is the result's.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._phase, self._phase_started = "", self._started
        self._details: dict[str, str] = {}
        self._live: Any = None

    def __enter__(self) -> Progress:
        """Begin to show."""
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.status import Status

            self._live = Status("", console=Console(stderr=True))
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave a clean line."""
        if self._live is not None:
            self._live.stop()

    def phase(self, name: str) -> None:
        """A new phase begins; the last one's time is said."""
        if self._phase and self._live is not None:
            self._live.console.print(f"[dim]{self._clock()}[/dim] {self._phase}: {self._phase_s():.1f} s")
        self._phase, self._phase_started, self._details = name, time.monotonic(), {}
        if self._live is None:
            print(f"{self._clock()} {name}", file=sys.stderr, flush=True)
        self.tick()

    def detail(self, who: str, what: str) -> None:
        """Somebody reached or waits for something."""
        if self._details.get(who) != what:
            self._details[who] = what
            if self._live is None:
                print(f"{self._clock()}   {who}: {what}", file=sys.stderr, flush=True)
        self.tick()

    def tick(self) -> None:
        """Show the elapsed time."""
        if self._live is not None:
            details = " · ".join(f"{who}: {what}" for who, what in list(self._details.items())[-3:])
            self._live.update(f"{self._clock()} {self._phase} ({self._phase_s():.0f} s) {details}")

    def _clock(self) -> str:
        return f"{time.monotonic() - self._started:6.1f} s"

    def _phase_s(self) -> float:
        return time.monotonic() - self._phase_started
