"""How a lab tells the command line what it does: JSON lines in the lab's runtime folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = "progress.jsonl"


class ProgressWriter:
    """Appends what the lab is doing; one whole line a `write`."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _write(self, **fields: Any) -> None:
        line = json.dumps({"mono_ns": time.monotonic_ns(), **fields}, default=str)
        os.write(self._fd, line.encode() + b"\n")

    def phase(self, name: str) -> None:
        """A new phase of the run begins."""
        self._write(type="phase", name=name)

    def detail(self, who: str, what: str) -> None:
        """Somebody reached or waits for something, within the phase."""
        self._write(type="detail", who=who, what=what)

    def ready(self) -> None:
        """The lab is up (mode "up")."""
        self._write(type="ready")

    def ended(self, *, ok: bool, error: dict[str, Any] | None = None) -> None:
        """The lab's work is over; `error` has what, why, next_command, exit_code."""
        self._write(type="ended", ok=ok, error=error)


class ProgressReader:
    """Reads the lines as they come."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._offset = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """The lines since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            yield json.loads(line)
