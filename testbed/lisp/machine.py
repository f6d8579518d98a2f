"""A state machine as data: the table of its transitions, and a cursor that can only follow it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)
I = TypeVar("I", bound=Enum)  # noqa: E741 - the input of a machine


class TransitionError(Exception):
    """An input that the table has no row for: a fault in our own code, never in a packet."""


class Machine(Generic[S, I]):
    """One run through a table of (state, input) → state.

    Args:
        table: every transition there is.
        state: the first state.
    """

    __slots__ = ("_table", "state")

    def __init__(self, table: Mapping[tuple[S, I], S], state: S) -> None:
        self._table = table
        self.state = state

    def feed(self, item: I) -> S:
        """Take one transition; TransitionError if the table has none for this input in this state."""
        try:
            self.state = self._table[self.state, item]
        except KeyError:
            raise TransitionError(f"{item.name} in state {self.state.name}") from None
        return self.state

    def accepts(self, item: I) -> bool:
        """Whether the table has a row for this input in this state."""
        return (self.state, item) in self._table
