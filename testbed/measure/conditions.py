"""What a run's times depend on beside substrate, accelerator and mechanism: what may be pooled and compared. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Knobs of a link, as an experiment names them.
IMPAIRMENTS = ("delay_ms", "jitter_ms", "loss_percent", "rate_mbit", "queue_ms")


def conditions(plan: Mapping[str, Any], manifest: Mapping[str, Any], outage_of: str | None) -> dict[str, Any]:
    """The conditions that a run was made under, flat: dotted name → value.

    Args:
        plan: plan.json; {} in a run that broke off before it had one.
        manifest: manifest.json.
        outage_of: the flow and direction that the outage is measured in; None without probes.
    """
    experiment = manifest.get("experiment") or {}
    found: dict[str, Any] = {
        "outage_of": outage_of,
        "probes.interval_ms": (manifest.get("probes") or {}).get("interval_ms"),
        "topology": plan.get("name"),
    }
    links = plan.get("links") or ()
    for knob in IMPAIRMENTS:
        found[f"links.{knob}"] = _of_links({str(link["name"]): link["impairment"].get(knob) for link in links})
    for guest in plan.get("guests") or ():
        for knob in ("memory_mib", "vcpus"):
            found[f"guest.{knob}"] = guest.get(knob)
    found |= _flat("lisp", experiment.get("lisp") or {})
    if manifest.get("substrate") == "netns":
        found |= _flat("emulated_guest", experiment.get("emulated_guest") or {})
    return {name: value for name, value in sorted(found.items()) if value is not None}


def _of_links(values: Mapping[str, Any]) -> Any:
    """One value where all links have the same; else each link's."""
    if len(set(values.values())) <= 1:
        return next(iter(values.values()), None)
    return ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in values.items())  # fmt: skip


def _flat(head: str, options: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= _flat(f"{head}.{name}", value)
        else:
            found[f"{head}.{name}"] = value
    return found


def differing(several: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the conditions in which some runs differ, in order."""
    names = sorted({name for one in several for name in one})
    return [name for name in names if len({repr(one.get(name)) for one in several}) > 1]


def told(one: Mapping[str, Any], names: Sequence[str]) -> str:
    """Some conditions as text: "links.delay_ms 50, outage_of icmp to-guest"."""
    return ", ".join(f"{name} {one.get(name, 'not said')}" for name in names)
