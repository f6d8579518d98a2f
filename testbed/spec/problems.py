"""What is wrong with a file, and where: the one error of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from testbed.errors import TestbedError

#: A path into a document: keys of mappings and indexes of sequences, as pydantic's `loc`.
Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        source: the file's name, or the override that says it (`--set mechanism=tll`).
        line: of the file, from 1; None for an override.
        column: of the line, from 1; None for an override.
        what: what is wrong, and what is allowed.
    """

    source: str
    line: int | None
    column: int | None
    what: str

    def __str__(self) -> str:
        position = "" if self.line is None else f":{self.line}:{self.column}"
        return f"{self.source}{position}: {self.what}"


def _place(problem: Problem) -> tuple[str, int, int, str]:
    return (problem.source, problem.line or 0, problem.column or 0, problem.what)


class SpecError(TestbedError):
    """A topology or an experiment that cannot be used; carries every problem found, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=_place))
        super().__init__("spec-invalid", "\n".join(str(problem) for problem in self.problems))


def allowed_instead(wrong: str, allowed: Sequence[str]) -> str:
    """Return the end of a problem's text: what is allowed, after the nearest to `wrong` if one is near."""
    listed = ", ".join(allowed) or "none are declared"
    close = get_close_matches(wrong, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}? Allowed: {listed}" if close else f"; allowed: {listed}"
