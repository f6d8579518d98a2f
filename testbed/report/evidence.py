"""Evidence as rows of tables: what was looked at after a migration, and what the links really do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbed.report.tables import Table, heads, numeric
from testbed.report.words import listed, microseconds

#: Check of a `verification` event → what holds if it is true.
CHECK_WORDS = {
    "guest_only_here": "it runs at the destination and nowhere else",
    "guest_answers": "it answers its correspondent at the same IP address",
    "mapping_only_here": "its EID is registered at the destination's RLOC only",
    "boot_id_unchanged": "its boot ID is the same: it was not restarted",
    "uptime_not_backwards": "its uptime did not go back",
    "mac_unchanged": "its MAC address is the same",
}

#: Knob of a link → (unit as written, its name in the request, and in what is in force with the factor to that unit).
KNOBS: tuple[tuple[str, str, str, tuple[tuple[str, float], ...]], ...] = (
    ("delay", "ms", "delay_ms", (("delay_ms", 1.0), ("delay_ns", 1e-6))),
    ("jitter", "ms", "jitter_ms", (("jitter_ms", 1.0), ("jitter_ns", 1e-6))),
    ("loss", "%", "loss_percent", (("loss_percent", 1.0), ("loss_ppb", 1e-7))),
    ("rate", "Mbit/s", "rate_mbit", (("rate_mbit", 1.0), ("rate_bps", 1e-6))),
)
IMPAIRMENT_COLUMNS = heads(
    "Link", "By", "Requested, one way", "In force", *numeric("Round trip measured, ms", "Frames", "Lost", "Late"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was looked at: in words, whether it holds (None: not seen), and what was seen."""

    words: str
    ok: bool | None
    seen: str


def evidence(migration: Mapping[str, Any]) -> list[Row]:
    """What was verified after a migration, with what was seen; [] if it was not verified.

    Args:
        migration: its entry of the summary.
    """
    verified = migration["verification"]
    if verified is None:
        return []
    seen = _seen(verified, migration["eid"])
    if "mac_unchanged" in verified["checks"]:
        seen["mac_unchanged"] = f"at the destination its address came from {', '.join(verified['macs'])}"
    rows = [Row(CHECK_WORDS.get(name, name), ok, seen.get(name, "")) for name, ok in verified["checks"].items()]
    if "mac_unchanged" not in verified["checks"]:
        rows.append(Row(CHECK_WORDS["mac_unchanged"], None, "no frame from its address was captured"))
    return rows


def _seen(verified: Mapping[str, Any], eid: str) -> dict[str, str]:
    """Check → what was seen, in words."""
    before, after = verified["identity"]["before"] or {}, verified["identity"]["after"] or {}
    places = _places(verified["placement"]["after"])
    earlier = _places(verified["placement"]["before"])
    seen = {
        "guest_only_here": f"before: {earlier}; after: {places}" if earlier else places,
        "guest_answers": f"{eid} answers through the overlay" if "boot_id" in after else str(after.get("error", "")),
        "mapping_only_here": f"the Map-Server has {', '.join(verified['mapping']) or 'nothing'}",
        "boot_id_unchanged": str(after.get("boot_id", "")),
    }
    if "uptime_ms" in before and "uptime_ms" in after:
        seen["uptime_not_backwards"] = f"{before['uptime_ms'] / 1000:.1f} s, then {after['uptime_ms'] / 1000:.1f} s"
    return seen


def _places(placement: Any) -> str:
    """What runs where: "xen-a: nothing, xen-b: vm1"."""
    if not isinstance(placement, Mapping):
        return ""
    parts = []
    for host, content in placement.items():
        running = content.get("libvirt", content.get("guests", ())) if isinstance(content, Mapping) else content
        parts.append(f"{host}: {', '.join(_name(one) for one in running) or 'nothing'}")
    return ", ".join(parts)


def _name(one: Any) -> str:
    """A domain as a placement lists it."""
    if not isinstance(one, Mapping):
        return str(one)
    state = one.get("state")
    return f"{one.get('name', '')}" + (f" ({state})" if state else "")


def impairments_table(manifest: Mapping[str, Any]) -> Table:
    """What was asked of each link and what is in force; without rows if there were no impairments."""
    return Table.of(IMPAIRMENT_COLUMNS, (_impairment(record) for record in manifest.get("impairments") or ()))


def _impairment(record: Mapping[str, Any]) -> list[str]:
    requested, effective = record.get("requested") or {}, record.get("effective") or {}
    counters = record.get("counters") or ()
    round_trip = record.get("rtt_ms")
    return [
        str(record.get("link", "")),
        str(record.get("backend", "")),
        _knobs(requested, lambda knob: ((knob[2], 1.0),)),
        _knobs(effective, lambda knob: knob[3]) if isinstance(effective, Mapping) else listed(effective),
        microseconds(None if round_trip is None else float(round_trip)),
        _counted(counters, "sent"),
        _counted(counters, "lost", "queue_dropped", "missed"),
        _counted(counters, "late"),
    ]


def _knobs(values: Mapping[str, Any], names: Any) -> str:
    """The knobs that are turned: "delay 5 ms, rate 1000 Mbit/s"; what is 0 is left out."""
    words = []
    for knob in KNOBS:
        for key, factor in names(knob):
            if values.get(key):
                words.append(f"{knob[0]} {float(values[key]) * factor:g} {knob[1]}")
                break
    return ", ".join(words) or "nothing"


def _counted(counters: Any, *names: str) -> str:
    """Counters added up over both ways; a dash where the back end does not count."""
    if not isinstance(counters, (list, tuple)) or not counters:
        return "—"
    return str(sum(int(way.get(name, 0)) for way in counters for name in names))
