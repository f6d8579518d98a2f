"""How far off the stamp of an event may be, by who stamps it and where. Pure.

An event that knows better says so itself (`uncertainty_ms`): a migration's events by the hosts, what was seen in
captures, the emulated guest's pause.
"""

from __future__ import annotations

from typing import NamedTuple

from testbed.events import Event


class Uncertainty(NamedTuple):
    """Milliseconds, and why so many."""

    ms: float
    why: str


IN_KERNEL = Uncertainty(0.05, "stamped in the packet's way through the kernel, on the monotonic clock itself")
ON_ARRIVAL = Uncertainty(0.1, "the kernel's stamp of arrival, brought from the wall clock to the monotonic one")
IN_PROCESS = Uncertainty(1.0, "stamped by a process before it acts: it may lose the processor in between")

#: Kind of event → what its stamp may be off where it does not say so itself (docs/reference/interfaces.md).
UNCERTAINTIES = {
    "migration_requested": IN_PROCESS,
    "eid_detected": IN_PROCESS,
    "map_register_sent": IN_PROCESS,
    "map_notify_received": ON_ARRIVAL,
    "mapping_changed": IN_PROCESS,
    "eid_departed": IN_PROCESS,
    "map_request_sent": IN_PROCESS,
    "map_reply_received": ON_ARRIVAL,
    "rloc_probe_sent": IN_PROCESS,
    "rloc_probe_answered": ON_ARRIVAL,
    "publication_received": ON_ARRIVAL,
    "map_cache_changed": IN_PROCESS,
    "first_packet_new_rloc": IN_KERNEL,
}


def uncertainty_of(event: Event) -> float | None:
    """What an event's stamp may be off, milliseconds; None if nobody has said."""
    own = event.fields.get("uncertainty_ms")
    if own is not None:
        return float(own)
    declared = UNCERTAINTIES.get(event.kind)
    return None if declared is None else declared.ms
