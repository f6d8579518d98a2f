"""Decide whether a run's figures can be trusted, before anybody reads them.

Two severities: what makes the run INVALID, and what flags it for the reader. A check that could not be made
says so (`ok` None) and does not pass in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from testbed.measure.gaps import Counts
from testbed.measure.model import NS_PER_MS, ms
from testbed.measure.statistics import wilson

#: Wall clock against monotonic clock over the run. Slewing moves both alike, so what is left of their
#: difference beyond reading them one after the other is a step.
CLOCK_STEP_LIMIT_MS = 1.0
#: Above this share of CPU time taken by the hypervisor below us, timings are flagged.
STEAL_FLAG_PERCENT = 5.0

#: Share of the due probes that may be missing before the figures are not trusted (as the 99th percentile of lateness).
NEVER_SENT_LIMIT = 0.01

Severity = Literal["invalid", "flag"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        name: of the check, stable.
        severity: what it means if it failed.
        ok: None if it could not be made.
        detail: what was found, with the limit.
    """

    name: str
    severity: Severity
    ok: bool | None
    detail: str


def invalidates(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that make a run INVALID."""
    return [finding for finding in findings if finding.severity == "invalid" and finding.ok is False]


def check_baseline(where: str, counts: Counts | None, expected_loss: float) -> Finding:
    """Check that the window before a migration was clean.

    Args:
        where: which migration and flow.
        counts: of the baseline's probes; None if there was no baseline window.
        expected_loss: the loss probability of a probe (both ways) that the impairments ask for. With 0 any
            lost probe is dirt; with more, what the 95 % Wilson interval of the loss cannot explain.
    """
    name = f"baseline {where}"
    if counts is None or counts.sent == 0:
        return Finding(name, "invalid", False, "no probe was sent before the migration")
    low, _ = wilson(counts.lost, counts.sent)
    clean = counts.lost == 0 if expected_loss == 0 else low <= expected_loss
    detail = f"{counts.lost} of {counts.sent} lost"
    if expected_loss:
        detail += f", {expected_loss:.2%} expected of the impairments"
    return Finding(name, "invalid", clean, detail)


def check_lateness(where: str, counts: Counts, interval_ns: int, severity: Severity = "invalid") -> Finding:
    """Check that the prober was not starved: the 99th percentile of its lateness is within one interval."""
    name, limit = f"prober on time, {where}", ms(interval_ns)
    if counts.lateness_p99_ns is None:
        return Finding(name, severity, None, "no probe was sent")
    ok = counts.lateness_p99_ns <= interval_ns
    return Finding(name, severity, ok, f"P99 of lateness {ms(counts.lateness_p99_ns)} ms, at most {limit} ms")


def check_guests_prober(where: str, baseline: Counts | None, whole: Counts, interval_ns: int) -> list[Finding]:
    """Check the prober of a guest that is moved: it is judged by its baseline.

    Later the migration itself slows the guest and holds its frames back, which is no fault of the measurement, and
    flags the run. In the baseline a prober that is at most one interval late (as `check_lateness` asks of the others)
    sends no two probes more than two intervals apart; that must hold for 99 % of what the guest sent there.

    Args:
        where: which migration and flow.
        baseline: counts of the baseline; None if there was none.
        whole: counts of the baseline and the migration's window.
        interval_ns: of the probes.
    """
    apart_ns, limit_ns = baseline.between_sends_p99_ns if baseline else None, 2 * interval_ns
    name, detail = f"guest's prober regular, {where}", "fewer than two probes were sent before the migration"
    if apart_ns is not None:
        detail = f"P99 of the time between two sends in the baseline {ms(apart_ns)} ms, at most {ms(limit_ns)} ms"
    regular = Finding(name, "invalid", apart_ns is not None and apart_ns <= limit_ns, detail)
    sent = f"{whole.never_sent} of {whole.due} never sent, {whole.unsendable} more while it was suspended"
    return [
        regular,
        check_lateness(where, whole, interval_ns, "flag"),
        Finding(f"all probes sent, {where}", "flag", whole.never_sent == 0, sent),
    ]


def check_sent(where: str, counts: Counts) -> Finding:
    """Check that the probes that were due were sent.

    One that was not is later than an interval: more than 1 % of them are beyond what the lateness check
    allows, and make the run INVALID. Fewer flag it: each widens what lies around it by one interval.
    """
    name = f"all probes sent, {where}"
    too_many = counts.never_sent > NEVER_SENT_LIMIT * counts.due
    severity: Severity = "invalid" if too_many else "flag"
    return Finding(name, severity, counts.never_sent == 0, f"{counts.never_sent} of {counts.due} never sent")


def check_clock(clock: Mapping[str, Any] | None) -> Finding:
    """Check that nobody set the wall clock during the run.

    Args:
        clock: `{"start": {"mono_ns", "wall_ns"}, "end": {…}}` of the manifest.
    """
    name = "clock without step"
    try:
        start, end = (clock or {})["start"], (clock or {})["end"]
        step_ns = (end["wall_ns"] - start["wall_ns"]) - (end["mono_ns"] - start["mono_ns"])
    except (KeyError, TypeError):
        return Finding(name, "invalid", None, "the manifest has no clock readings of start and end")
    detail = f"wall moved {ms(step_ns)} ms against monotonic, at most {CLOCK_STEP_LIMIT_MS:g} ms"
    return Finding(name, "invalid", abs(step_ns) <= CLOCK_STEP_LIMIT_MS * NS_PER_MS, detail)


def check_captures(captures: Sequence[Mapping[str, Any]], *, tell_probes: bool = False) -> Finding:
    """Check that no capture lost frames: a first frame that was not captured is not the first frame.

    Args:
        captures: of the manifest.
        tell_probes: whether a probe log was made of them, so that a frame which was not captured is a lost probe:
            captures that do not say what they dropped cannot be trusted then.
    """
    name = "captures complete"
    unsure = False if tell_probes else None
    if not captures:
        return Finding(name, "invalid", unsure, "nothing was captured")
    unknown = [c for c in captures if c.get("dropped") is None]
    drops = {f"{c.get('node')}-{c.get('interface')}": c["dropped"] for c in captures if c.get("dropped")}
    if drops:
        listed = ", ".join(f"{where}: {number}" for where, number in sorted(drops.items()))
        return Finding(name, "invalid", False, f"frames dropped: {listed}")
    if unknown:
        return Finding(name, "invalid", unsure, f"{len(unknown)} captures do not say what they dropped")
    return Finding(name, "invalid", True, f"{len(captures)} captures, no frame dropped")


def check_readable(problems: Sequence[str], *, tell_probes: bool = False) -> Finding:
    """Check that everything of a folder could be read: no torn log, no damaged capture.

    Args:
        problems: what could not.
        tell_probes: whether a probe log was made of captures, which such a problem may have cut.
    """
    severity: Severity = "invalid" if tell_probes else "flag"
    return Finding("all files read", severity, not problems, "; ".join(problems) or "nothing torn, nothing damaged")


def check_host(host: Mapping[str, Any]) -> Finding:
    """Flag a machine whose processor time was taken by others."""
    steal = host.get("steal_percent")
    if steal is None:
        return Finding("processor ours", "flag", None, "steal time was not recorded")
    return Finding(
        "processor ours",
        "flag",
        float(steal) <= STEAL_FLAG_PERCENT,
        f"steal {float(steal):.1f} %, at most {STEAL_FLAG_PERCENT:g} %",
    )


def check_load(host: Mapping[str, Any]) -> Finding:
    """Flag a machine that had no processor to spare before the run: what it runs then is not only ours.

    During the run the load is our own too, and what it does to the measurement is judged by the probes' lateness.
    """
    name = "machine free before"
    before, cores = host.get("load_before"), host.get("cores")
    if before is None or cores is None:
        return Finding(name, "flag", None, "the load was not recorded")
    after = host.get("load_after")
    detail = f"load {float(before):.2f} before on {cores} cores, at most one process a core"
    if after is not None:
        detail += f"; {float(after):.2f} after"
    return Finding(name, "flag", float(before) <= cores, detail)


def check_unattributed(where: str, flagged: bool, share: float | None) -> Finding:
    """Flag a migration whose outage the parts do not explain."""
    name = f"outage explained, {where}"
    if share is None:
        return Finding(name, "flag", None, "the outage was not measured")
    return Finding(name, "flag", not flagged, f"{share:.1%} of it unattributed, at most 10 %")


def check_calibration(within: Sequence[bool]) -> list[Finding]:
    """Check that known outages were measured right, if some were made."""
    if not within:
        return []
    right = sum(within)
    detail = f"{right} of {len(within)} known outages measured within one interval"
    return [Finding("calibration", "invalid", right == len(within), detail)]
