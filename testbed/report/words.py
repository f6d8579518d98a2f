"""The words that every form of the report shares: badges, names of metrics, definitions of marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testbed.events import TIMELINE
from testbed.measure.frames import CAPTURE_UNCERTAINTY_MS
from testbed.measure.headline import duration, words_of
from testbed.measure.model import flow_name
from testbed.measure.summary import CAPTURED

#: Metric → (name, what it is).
METRIC_NAMES: dict[str, tuple[str, str]] = {
    "stuntime_ms": (
        "outage of the peer (stuntime)",
        "last answered probe before the loss → first answered after",
    ),
    "vm_downtime_ms": ("VM downtime", "t3 − t2: suspended at the source → resumed at the destination"),
    "reconnection_ms": ("reconnection", "t4 − t3: resumed → the guest's first frame is out"),
    "remap_latency_ms": ("remapping latency", "t13 − t4: first frame → first packet to the new RLOC"),
    "unattributed_ms": ("unattributed", "what of the outage no part covers"),
    "hypervisor_part_ms": ("hypervisor's part", "the outage that VM downtime and reconnection cover"),
    "network_part_ms": ("network's part", "the outage that only phases of the remapping cover"),
    "migration_time_ms": ("migration time", "t3 − t0: what the hypervisor's tool shows"),
    "detection_ms": ("detection", "t5 − t4: the new xTR sees the EID"),
    "registration_ms": ("registration", "t7 − t6: Map-Register → Map-Notify"),
    "notification_ms": ("notification", "from the mechanism's trigger until the ITR asks or is told"),
    "timer_wait_ms": (
        "wait for a timer",
        "t10 − t8: nobody tells the ITR, it waits for its TTL or its next RLOC-probe",
    ),
    "resolution_ms": ("resolution", "t11 − t10: Map-Request → Map-Reply"),
    "installation_ms": ("installation", "t13 − t11: news → first packet to the new RLOC"),
    "stuntime_by_send_ms": ("outage by send times", "between the answered probes on its two sides"),
    "gaps_total_ms": ("all gaps together", "sum of the gaps in the window, never joined"),
    "longest_silence_ms": ("longest silence", "between two replies: delayed as well as lost"),
    "highest_rtt_ms": ("highest round trip", "after the request to migrate"),
    "above_baseline_p99_ms": ("above the baseline's P99", "time; 1 % of it when nothing happens"),
    "highest_rtt_precopy_ms": ("highest round trip, pre-copy", "answered before the suspension (t2)"),
    "above_baseline_p99_precopy_ms": ("above the baseline's P99, pre-copy", "time, of what was answered before t2"),
    "highest_rtt_after_t2_ms": ("highest round trip, after", "answered after the suspension (t2)"),
    "above_baseline_p99_after_t2_ms": ("above the baseline's P99, after", "time, of what was answered after t2"),
    "both_sites_ms": ("both sites claim the EID", "t9 − t5"),
    "tcp_longest_stall_ms": ("longest stall of TCP", "of any connection, between two arrivals in order"),
    "naive_outage_ms": ("what ping -q suggests", "(sent − received) × interval"),
}

#: What the marks are, by label.
MARK_WORDS = {
    "t0": "migration requested",
    "t1": "pre-copy begins",
    "t2": "guest suspended at the source",
    "t3": "guest resumed at the destination",
    "t4": "first frame of the guest at the destination",
    "t5": "destination xTR has detected the EID",
    "t6": "Map-Register sent",
    "t7": "Map-Notify received",
    "t8": "Map-Server's entry changed",
    "t9": "source xTR told",
    "t10": "Map-Request of the correspondent's ITR",
    "t11": "Map-Reply or publication received",
    "t12": "ITR's map-cache changed",
    "t13": "first packet to the new RLOC",
    "t14": "first answered probe",
}
assert set(MARK_WORDS) == {label for label, _, _ in TIMELINE}

CLOCK_WORDS = (
    "All stamps are CLOCK_MONOTONIC of one machine, which all namespaces share: one-way times are exact, and no clock "
    "of the migrating guest is used."
)
CALIBRATION_WORDS = (
    "The core dropped the data packets to the guest's site, and nothing else, for the time in the first column. "
    "Measured is from the first lost probe to the first answered one after it; the peer's outage has the two intervals "
    "at its ends beside it."
)
#: The files of a run's folder that the report rests on, folders with a slash.
RAW_FOLDERS = ("probes", "pcap", "logs", "console")
RAW_FILES = (
    "events.jsonl", *(f"{folder}/" for folder in RAW_FOLDERS), "gaps.parquet", "migrations.csv", "gaps.csv",
    "probes.csv", "summary.json", "manifest.json", "junit.xml", "SHA256SUMS",
)  # fmt: skip

#: What an accelerator is, for readers who do not know the abbreviation.
ACCELERATOR_WORDS = {"tcg": "tcg (emulated)", "kvm": "kvm (nested)", "none": "", None: ""}


def raw_files(files: Sequence[str]) -> list[str]:
    """Those of RAW_FILES that a run has.

    Args:
        files: in the RAW_FOLDERS of its folder.
    """
    there = {f"{file.split('/')[0]}/" for file in files}
    return [name for name in RAW_FILES if not name.endswith("/") or name in there]


def badges(source: Mapping[str, Any]) -> list[str]:
    """Substrate and accelerator, as they stand on every result.

    Args:
        source: a manifest or a summary.
    """
    substrate = source.get("substrate") or "substrate not recorded"
    if substrate == "netns":
        substrate = "netns (emulated guest, not a VM)"
    accelerator = source.get("accelerator")
    return [part for part in (substrate, ACCELERATOR_WORDS.get(accelerator, accelerator)) if part]


def substrate_line(source: Mapping[str, Any]) -> str:
    """The badges as a line of text for titles: "xen · tcg (emulated)"."""
    return " · ".join(badges(source))


def metric_names(substrate: str | None) -> dict[str, tuple[str, str]]:
    """METRIC_NAMES in a substrate's words."""
    words = words_of(substrate)
    names = dict(METRIC_NAMES)
    names["vm_downtime_ms"] = (words.downtime, names["vm_downtime_ms"][1])
    if substrate == "netns":
        covered = f"the outage that the {words.downtime} and the reconnection cover"
        names["hypervisor_part_ms"] = (f"part of {words.pause}", covered)
    return names


def bound_words(bound: Mapping[str, Any]) -> tuple[str, str, str]:
    """What theory says of a remapping: the words before the formula, the formula, and those behind it.

    Args:
        bound: of a migration, as the summary has it.
    """
    if bound["bound_ms"] is None:
        return f"{bound['why'][:1].upper()}{bound['why'][1:]}.", "", ""
    before = f"By theory the remapping takes {duration(bound['bound_ms'])} ="
    return before, bound["formula"], f"from the new xTR's first sight of the EID; {bound['why']}."


def unexplained_words(migration: Mapping[str, Any]) -> str:
    """Where most of what no part covers lies, if it is so much that the migration is flagged; else ""."""
    if not migration["flagged"]:
        return ""
    rest = max(migration["unattributed"], key=lambda one: float(one["length_ms"]))
    return (
        f"More than 10 % of the outage is unattributed; most of it, {duration(rest['length_ms'])}, lies between "
        f"{mark_name(rest['after'])}, and {mark_name(rest['before'])}."
    )


def migration_title(migration: Mapping[str, Any]) -> str:
    """What a migration is called: "Migration 3: vm1, site-a → site-b"."""
    return f"Migration {migration['index']}: {migration['guest']}, {migration['source']} → {migration['destination']}"


def limiter_words(migration: Mapping[str, Any]) -> str:
    """Which rate limits delayed a migration's remapping, as a sentence."""
    names = migration["limiters"]
    return f"Rate limits that delayed it: {', '.join(names)}." if names else "No rate limit delayed it."


def milliseconds(value: float | None) -> str:
    """A time in a table whose heading has the unit, to a tenth of a millisecond; a dash where it was not measured."""
    return "—" if value is None else f"{value:.1f}".replace("-", "−")


def microseconds(value: float | None, *, signed: bool = False) -> str:
    """The same to the microsecond, with its sign if it is a difference."""
    return "—" if value is None else f"{value:{'+' if signed else ''}.3f}".replace("-", "−")


def uncertainty(value: float | None) -> str:
    """What follows a ±, in milliseconds, to two significant digits (JCGM 100:2008 §7.2.6); "" where it is not known."""
    return "" if value is None else f"{value:.2g}" if value < 10 else f"{value:.0f}"


def milliseconds_interval(ends: list[float] | None) -> str:
    """An interval in a table whose heading has the unit."""
    return "—" if ends is None else f"{milliseconds(ends[0])} to {milliseconds(ends[1])}"


def captured_words(migration: Mapping[str, Any]) -> str:
    """Where the times of probes come from that their sender kept no log of, as sentences; "" without any."""
    flows = [probe for probe in migration["probes"] if probe["stamps"] == CAPTURED]
    if not flows:
        return ""
    apart = [
        f"{flow_name(probe['flow'], probe['direction'], migration['eid'])}: "
        f"{figure(probe['between_sends_p99_ms'])} between two sends (P99)"
        for probe in flows
    ]
    return (
        "A probe from the guest is sent when its request passes the tap of the guest's host, and answered when the "
        f"reply passes the tap behind which the guest then runs (captures, ± {CAPTURE_UNCERTAINTY_MS:g} ms), for the "
        "guest's own clock stands still with it. What was due while it was suspended could not be sent: it is in the "
        f"gap, and not lost. A gap is as sharp as sends are close: {', '.join(apart)}."
    )


def figure(value: float | None) -> str:
    """A time in a table; a dash where it was not measured."""
    return "—" if value is None else duration(value)


def signed(value: float) -> str:
    """A difference in a table, always with its sign."""
    return ("−" if value < 0 else "+") + duration(abs(value))


def signed_interval(ends: list[float] | None) -> str:
    """An interval of a difference in a table."""
    return "—" if ends is None else f"{signed(ends[0])} to {signed(ends[1])}"


def comparison_words(found: Mapping[str, Any] | None) -> str:
    """A comparison as a sentence: "regressed by 212 ms (95 % CI 140 ms to 290 ms), n = 30 against 30".

    Args:
        found: of a metric, by `compare_pools`; None if it was not measured on both sides.
    """
    if found is None:
        return "cannot tell: not measured on both sides"
    word, difference, ends = found["word"], found["difference"], found["ci95"]
    sizes = f"n = {found['n_b']} against {found['n_a']}"
    if word in ("regressed", "improved"):
        if word == "improved":
            difference, ends = -difference, [-ends[1], -ends[0]]
        return f"{word} by {duration(difference)} (95 % CI {_plain_interval(ends)}), {sizes}"
    between = f" (95 % CI {signed_interval(ends)})" if ends else ""
    return f"{word}: {signed(difference)}{between}, {sizes}; {found['why']}"


def _plain_interval(ends: list[float]) -> str:
    """An interval whose sign the word before it tells; an end on the other side of 0 keeps its own."""
    return " to ".join(("−" if end < 0 else "") + duration(abs(end)) for end in ends)


def mark_name(label: str) -> str:
    """A mark in prose: "t13, first packet to the new RLOC"; other words as they are."""
    return f"{label}, {MARK_WORDS[label]}" if label in MARK_WORDS else label


def listed(value: Any) -> str:
    """A list or an object as one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {listed(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(listed(item) for item in value)
    return "" if value is None else str(value)
