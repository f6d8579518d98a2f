"""What a link does to packets: the two back ends' arguments, and what was asked beside what is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from testbed.plan.model import Impairment, Link

Backend = Literal["none", "netem", "relay"]

#: Ethernet's header and one VLAN tag, beside the MTU.
FRAME_OVERHEAD_BYTES = 18
#: A queue holds some whole packets however slow the link is.
MIN_QUEUE_PACKETS = 10
#: netem's limit where no rate bounds the packets in flight.
NETEM_LIMIT_PACKETS = 100_000


@dataclass(frozen=True, slots=True)
class EffectiveImpairment:
    """A link's impairment as the manifest has it.

    Attributes:
        link: the link's name.
        backend: who impairs it.
        requested: what the plan says.
        effective: what the back end says it does (netem: `tc`'s own words; relay: its arguments).
        rtt_ms: smallest round trip over the link, measured; None where nothing came back.
        counters: what the relay has counted so far, for each direction, `from` one node `to` another:
            frames received and sent, lost by the impairment, dropped by the full queue, missed by the relay
            (its socket was full), unsendable, sent more than 1 ms late, and the greatest lateness.
    """

    link: str
    backend: Backend
    requested: Impairment
    effective: Mapping[str, Any]
    rtt_ms: float | None
    counters: tuple[Mapping[str, Any], ...] = field(default=())


def is_impaired(impairment: Impairment) -> bool:
    """Say whether a link needs a back end at all."""
    wanted = (impairment.delay_ms, impairment.jitter_ms, impairment.loss_percent)
    return any(wanted) or impairment.rate_mbit is not None


def queue_bytes(link: Link) -> int:
    """Return the length of the queue in front of a link's rate limit, bytes; 0 without a rate."""
    if link.impairment.rate_mbit is None:
        return 0
    in_time = link.impairment.rate_mbit * 1e6 / 8 * link.impairment.queue_ms / 1e3
    return math.ceil(max(in_time, MIN_QUEUE_PACKETS * (link.mtu + FRAME_OVERHEAD_BYTES)))


def relay_arguments(link: Link) -> dict[str, int]:
    """Return a link's impairment in the relay's units, in the order of its input line."""
    asked = link.impairment
    return {
        "delay_ns": round(asked.delay_ms * 1e6),
        "jitter_ns": round(asked.jitter_ms * 1e6),
        "loss_ppb": round(asked.loss_percent * 1e7),
        "rate_bps": round((asked.rate_mbit or 0) * 1e6),
        "queue_bytes": queue_bytes(link),
        "frame_bytes": link.mtu + FRAME_OVERHEAD_BYTES,
    }


def netem_arguments(link: Link) -> list[str]:
    """Return the arguments of `tc qdisc replace … netem` for one end of a link.

    netem counts the packets that it delays as queued, so its limit is the queue and the delay's worth.
    """
    asked = link.impairment
    arguments = ["delay", f"{asked.delay_ms}ms"]
    if asked.jitter_ms:
        arguments += [f"{asked.jitter_ms}ms", "distribution", "normal"]
    if asked.loss_percent:
        arguments += ["loss", "random", f"{asked.loss_percent}%"]
    limit = NETEM_LIMIT_PACKETS
    if asked.rate_mbit is not None:
        arguments += ["rate", f"{asked.rate_mbit}mbit"]
        in_flight = asked.rate_mbit * 1e3 / 8 * (asked.delay_ms + 3 * asked.jitter_ms)
        limit = math.ceil((queue_bytes(link) + in_flight) / (link.mtu + FRAME_OVERHEAD_BYTES))
    return [*arguments, "limit", str(limit)]


def netem_effective(tc_json: str) -> dict[str, Any]:
    """Return what `tc -j qdisc show` says of the netem on a device: its options, as tc names them."""
    for qdisc in json.loads(tc_json):
        if qdisc.get("kind") == "netem":
            return dict(qdisc.get("options", {}))
    return {}
