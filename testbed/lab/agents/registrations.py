"""The file in which a Map-Server's registrations outlive its process (`testbed.lisp.kept` says what is in it)."""

from __future__ import annotations

import os
from pathlib import Path

from testbed.lab.agents.runtime import AgentConfigError
from testbed.lisp.actions import KeepRegistration

#: Lines beyond two for each registration, before the file is written anew.
SPARE_LINES = 1024
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class RegistrationStore:
    """A line for each registration as it is made or refreshed, the last one of a prefix counts.

    A line is one write, so a killed process loses none that it has acknowledged; half a line at the end is none.
    Times in it are of CLOCK_MONOTONIC, so a file from before a reboot is begun anew.

    Args:
        path: of the file; made if it is not there.
        boot: names this boot of the machine.
        spare_lines: the file is written anew when it has so many lines more than twice what it needs.
    """

    def __init__(self, path: Path, *, boot: str | None = None, spare_lines: int = SPARE_LINES) -> None:
        self._path, self._spare_lines = path, spare_lines
        self._head = f"boot {boot or BOOT_ID.read_text().strip()}\n"
        self._latest: dict[str, str] = {}
        try:
            content = path.read_bytes().decode(errors="replace") if path.exists() else ""
            whole = content[: content.rfind("\n") + 1]
            if whole.startswith(self._head):
                for line in whole[len(self._head) :].split("\n")[:-1]:
                    eid, _, text = line.partition(" ")
                    self._note(eid, text)
            self._fd = -1
            self._write_anew()
        except OSError as error:
            raise AgentConfigError("agent-state", f"Cannot keep registrations in {path}", why=str(error)) from error

    @property
    def texts(self) -> list[str]:
        """What is stored, as it was given."""
        return list(self._latest.values())

    def save(self, action: KeepRegistration) -> None:
        """Store a registration, or that there is none any more."""
        eid, text = str(action.eid), action.text() if action.text is not None else ""
        os.write(self._fd, f"{eid} {text}\n".encode())
        self._note(eid, text)
        self._lines += 1
        if self._lines > 2 * len(self._latest) + self._spare_lines:
            self._write_anew()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _note(self, eid: str, text: str) -> None:
        if text:
            self._latest[eid] = text
        else:
            self._latest.pop(eid, None)

    def _write_anew(self) -> None:
        """Only what counts: a process that is killed meanwhile leaves the file as it was."""
        compact = self._path.with_suffix(self._path.suffix + ".new")
        compact.write_text(self._head + "".join(f"{eid} {text}\n" for eid, text in self._latest.items()))
        compact.replace(self._path)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines = len(self._latest)
