"""What is not taken is counted and logged, never lost in silence."""

from __future__ import annotations

from collections import Counter
from typing import Any

from testbed.lisp.actions import Action, Address, emit


def dropped(counters: Counter[str], message: str, reason: str, peer: Address, **fields: Any) -> list[Action]:
    """Count and log a message, or a record of one, that is not taken.

    Args:
        counters: of the agent.
        message: its kind.
        reason: why.
        peer: whose.
        fields: more for the event.
    """
    counters[f"{message}_dropped"] += 1
    return [emit("control_dropped", message=message, reason=reason, peer=peer, **fields)]
