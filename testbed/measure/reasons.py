"""Why a run did not pass, and what a person should see of it at once, from a summary. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed.measure.model import flow_name

#: What a threshold came to, in words: a figure that was not measured decides nothing, and passes nothing.
THRESHOLD_WORDS = {True: "yes: fail", False: "no", None: "not decided: invalid"}


def verdict_reasons(data: Mapping[str, Any]) -> list[str]:
    """Why a run did not pass, one sentence each.

    Args:
        data: of summary.json.
    """
    reasons = []
    if data["verdict"] in ("ERROR", "SKIPPED") and data["migrations"]:
        reasons.append((data["outcome"] or {}).get("error") or "the run ended before it wrote its outcome")
    for finding in data["validity"]:
        if finding["severity"] == "invalid" and finding["ok"] is False:
            reasons.append(f"Not trustworthy: {finding['name']}: {finding['detail']}")
    for outcome in data["thresholds"]:
        if outcome["holds"]:
            reasons.append(f"Failed because {outcome['expression']}: {outcome['detail']}")
        elif outcome["holds"] is None:
            reasons.append(f"Not decided: {outcome['expression']}: {outcome['detail']}")
    return reasons


def result_lines(data: Mapping[str, Any]) -> list[str]:
    """What the command line prints of a run: verdict, why, every threshold, and how late the probes were."""
    lines = [f"{data['verdict']}: {data['headline']}"]
    if data["verdict"] != "PASS":
        lines += [f"  {reason}" for reason in verdict_reasons(data)]
    for outcome in data["thresholds"]:
        lines.append(f"  fail if {outcome['expression']}: {THRESHOLD_WORDS[outcome['holds']]} ({outcome['detail']})")
    lateness = [
        (float(flow["lateness_p99_ms"]), flow_name(flow["flow"], flow["direction"], migration["eid"]))
        for migration in data["migrations"]
        for flow in migration["probes"]
        if flow["lateness_p99_ms"] is not None
    ]
    if lateness:
        worst_ms, where = max(lateness)
        interval_ms = float(data["probe_interval_ms"])
        by = data["conditions"].get("outage_of", "no probes")
        lateness_words = f"P99 of lateness {worst_ms:.3f} ms ({where}), every {interval_ms:g} ms"
        lines.append(f"  outage measured by {by}; probes: {lateness_words}")
    return lines
