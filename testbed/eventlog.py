"""The writer of events.jsonl: every process of a lab appends whole lines to the one file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testbed.events import Event


class EventLog:
    """Appends events of one source to a file that many processes share.

    Each event is one `write` on a descriptor opened with O_APPEND, which Linux makes atomic for
    local files, so lines of different processes never mix and nothing is lost when one is killed.
    """

    def __init__(self, path: Path, source: str, *, also: Callable[[Event], None] | None = None) -> None:
        self.source = source
        self._also = also
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def emit(self, kind: str, *, mono_ns: int | None = None, source: str = "", **fields: Any) -> Event:
        """Write one event, stamped now unless `mono_ns` says when it happened."""
        now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        stamp_ns = now_ns if mono_ns is None else mono_ns
        event = Event(stamp_ns, wall_ns - (now_ns - stamp_ns), source or self.source, kind, fields)
        os.write(self._fd, event.to_json().encode() + b"\n")
        if self._also is not None:
            self._also(event)
        return event

    def close(self) -> None:
        """Close the file; later events raise OSError."""
        os.close(self._fd)
