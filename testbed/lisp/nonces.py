"""How far a nonce may go: 64 bits do not wrap, so what others choose must leave room to count on.

RFC 9301 §5.6 has a nonce incremented each time and anything not greater dropped; RFC 9437 §6 says the same of
publications. Neither lets it wrap: whoever reaches the end needs a new key. A peer that starts near the end would
bring us there, so its message is refused and logged.
"""

from __future__ import annotations

#: The last value of the field.
LAST_NONCE = (1 << 64) - 1
#: More messages than anyone sends under one key, and more Map-Registers than an xTR can send before it
#: hears of a loss (docs/adr/0003-who-owns-a-moving-eid.md).
NONCE_STEP = 1 << 32
#: The highest nonce that is taken from a peer, or given to one to count on from.
HIGHEST_NONCE = LAST_NONCE - NONCE_STEP
#: Subscriptions begin here or above: where no Map-Register comes, whose nonces begin with the time in nanoseconds.
LOWEST_SUBSCRIPTION_NONCE = 1 << 62
#: So far ahead of an xTR's own nonce a Map-Server's can be: it has been told of nothing for so many losses.
FURTHEST_AHEAD = NONCE_STEP << 16


def is_exhausted(nonce: int) -> bool:
    """Whether a peer's nonce leaves no room to count on from it."""
    return nonce > HIGHEST_NONCE
