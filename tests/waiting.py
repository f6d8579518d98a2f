"""Waiting for another process: for what is awaited, with a deadline, never for a length of time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], what: str, *, deadline_s: float = 10.0) -> T:
    """Return the predicate's first true value; AssertionError naming `what` if there is none in time."""
    end = time.monotonic() + deadline_s
    while True:
        value = predicate()
        if value:
            return value
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.005)


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that others write to; of the last one perhaps only a part is there."""
    return path.read_text().rpartition("\n")[0].splitlines()
