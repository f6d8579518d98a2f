"""The one family of errors: a stable code, what happened, why, and the next command to type."""

from __future__ import annotations


class TestbedError(Exception):
    """An error a person can act on.

    Attributes:
        code: stable identifier, for scripts (``kebab-case``).
        what: what happened, one sentence.
        why: the cause as far as it is known, or "".
        next_command: the command that helps, or "".
        exit_code: the command line's exit code (10 fail, 11 error, 12 invalid, 13 skipped).
    """

    __test__ = False  # not a pytest class, whatever its name
    exit_code = 11

    def __init__(self, code: str, what: str, *, why: str = "", next_command: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.why = why
        self.next_command = next_command

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.next_command:
            lines.append(f"  next: {self.next_command}")
        return "\n".join(lines)


class PrerequisiteMissingError(TestbedError):
    """Something the machine lacks; the run is skipped, not failed."""

    exit_code = 13
