"""What other implementations do that RFC 9301 does not allow or that is older: refused unless named in an option."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from enum import Enum

from testbed.lisp.actions import Action, Address, emit


class Tolerance(Enum):
    """One deviation of a peer's; the values are the words of the option `tolerate`.

    Several records in a message are no deviation: a receiver must accept them (RFC 9301 §5.2).
    """

    #: A key ID of 16 bits that names the algorithm (RFC 6830 §6.1.6): in 8 bits each it reads as key ID 0,
    #: whatever ours is.
    WIDE_KEY_ID = "wide-key-id"
    #: HMAC-SHA-1-96 where our secret is for another algorithm (RFC 9301 §12.5).
    SHA_1 = "sha-1"
    #: A MAC that covers xTR-ID and Site-ID too (RFC 9301 §5.6 ends it before them).
    MAC_OVER_TRAILER = "mac-over-trailer"
    #: Map-Registers whose nonce is always 0: nothing tells a repeated one from a new one (§5.6).
    ZERO_REGISTER_NONCE = "zero-register-nonce"
    #: Map-Notifies go to the port that the Map-Register came from, as §5 has it, not to 4342 (§8.2).
    NOTIFY_TO_SOURCE_PORT = "notify-to-source-port"
    #: Map-Requests to the Map-Resolver that are not in an Encapsulated Control Message (§8.1).
    PLAIN_MAP_REQUEST = "plain-map-request"
    #: SMRs without the D-bit (§5.2), which RFC 6830 did not have.
    SMR_WITHOUT_D_BIT = "smr-without-d-bit"
    #: Map-Notifies for a subscription whose authentication data are all zero, or none; RFC 9437 §5, §6
    #: have them signed.
    ZERO_NOTIFY_AUTHENTICATION = "zero-notify-authentication"


Tolerances = frozenset[Tolerance]


def refusal(missing: Iterable[Tolerance]) -> str:
    """Why a message is refused, in the words of the option that would accept it."""
    return f"not tolerated: {', '.join(sorted(each.value for each in missing))}"


def used(tolerances: Collection[Tolerance], peer: Address, counters: Counter[str]) -> list[Action]:
    """Count, and say in events, that a message was accepted only because of an option."""
    if not tolerances:
        return []
    counters.update(f"tolerated: {each.value}" for each in tolerances)
    return [emit("tolerated", tolerance=each, peer=peer) for each in sorted(tolerances, key=lambda each: each.value)]
