"""The one word on a run, and the command line's exit code that goes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any


class Verdict(str, Enum):
    """What a run came to."""

    PASS = "PASS"
    FAIL = "FAIL"
    ERROR = "ERROR"
    INVALID = "INVALID"
    SKIPPED = "SKIPPED"

    @property
    def exit_code(self) -> int:
        """The exit code of `testbed run` and `testbed report`."""
        return EXIT_CODES[self]


EXIT_CODES = {
    Verdict.PASS: 0,
    Verdict.FAIL: 10,
    Verdict.ERROR: 11,
    Verdict.INVALID: 12,
    Verdict.SKIPPED: 13,
}


def migration_verdict(
    ended_ok: bool | None, *, peer_answered_again: bool | None, verified: bool = True, settled: bool = True
) -> Verdict:
    """Judge one migration by what happened to it, not by how well it was measured.

    Args:
        ended_ok: what `migration_ended` said; None if it never came.
        peer_answered_again: whether the guest answered its peer at the window's end; None if unknown.
        verified: whether guest and mapping were found at the destination only, unchanged.
        settled: whether the settle window was waited to its end. A guest that is silent when the run is broken
            off before might have answered yet.
    """
    if ended_ok is None or (ended_ok and peer_answered_again is False and not settled):
        return Verdict.ERROR
    if not ended_ok or peer_answered_again is False or not verified:
        return Verdict.FAIL
    return Verdict.PASS


def outcome_verdict(outcome: Mapping[str, Any] | None) -> Verdict | None:
    """What the orchestrator says of its own work; None if it says that all went well.

    Args:
        outcome: of the manifest: `ok`, `error` (text), `code` (exit code).
    """
    if outcome is None:
        return Verdict.ERROR  # a run that did not live to write its outcome
    code = outcome.get("code")
    for verdict in (Verdict.SKIPPED, Verdict.INVALID, Verdict.FAIL):
        if code == verdict.exit_code:
            return verdict
    if outcome.get("error") or outcome.get("ok") is False:
        return Verdict.ERROR
    return None


def run_verdict(
    migrations: Sequence[Verdict],
    outcome: Verdict | None,
    *,
    invalid: bool,
    thresholds: Sequence[bool | None] = (),
) -> Verdict:
    """Judge a run.

    A failed migration is a fact, whatever the clocks did: it comes first. Then what stopped the
    run. A threshold says something only about figures that can be trusted, and one whose figure was not
    measured says nothing: a run that asked for it does not pass.

    Args:
        migrations: their verdicts.
        outcome: of `outcome_verdict`.
        invalid: whether a validity check failed.
        thresholds: whether each --fail-if expression held; None if a figure in it was not measured.
    """
    if Verdict.FAIL in migrations:
        return Verdict.FAIL
    if outcome is not None:
        return outcome
    if Verdict.ERROR in migrations or not migrations:
        return Verdict.ERROR
    if invalid:
        return Verdict.INVALID
    if any(thresholds):
        return Verdict.FAIL
    return Verdict.INVALID if None in thresholds else Verdict.PASS
