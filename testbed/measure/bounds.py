"""The least time that a remapping can take by theory, from one-way delays: printed beside the measured one.

From the moment the new xTR first sees the EID until the ITR uses the new RLOC. Processing costs
nothing here and nothing is lost or retransmitted, so a measured figure below a bound is a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: How much longer than its interval an RLOC-probe may take: its timer is jittered (RFC 9301 §7.1).
PROBE_JITTER = 0.1

#: (from, to) → one-way delay in milliseconds, of every pair of nodes that talk to each other.
Delays = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class Roles:
    """The nodes that a remapping passes through; the Map-Resolver is the Map-Server's node."""

    new_xtr: str
    old_xtr: str
    map_server: str
    itr: str


@dataclass(frozen=True, slots=True)
class Bound:
    """The analytic bound of one mechanism.

    Attributes:
        bound_ms: milliseconds; None where theory gives none, see `why`.
        formula: in terms of d(x,y), the one-way delay.
        why: what it leaves out or assumes, or why there is none.
        median_ms: the same for the median of many migrations. It differs where the formula has a data packet to wait
            for, which a single migration may find there: half a probe interval in the median.
        waiting_ms: half a probe interval, until a packet uses the new RLOC; in no formula.
    """

    bound_ms: float | None
    formula: str
    why: str
    median_ms: float | None = None
    waiting_ms: float | None = None


def remapping_bound(
    mechanism: str,
    delays: Delays,
    roles: Roles,
    *,
    probe_interval_ms: float,
    guest_speaks: bool = False,
    proxy_reply: bool = True,
    ttl_minutes: float | None = None,
    rloc_probe_interval_s: float | None = None,
) -> Bound:
    """The bound of a mechanism.

    Args:
        mechanism: as in the experiment ("smr-old-xtr", "pubsub", …).
        delays: one-way, in milliseconds; symmetric pairs must both be there.
        roles: who is who.
        probe_interval_ms: of the traffic from the correspondent: no stale packet comes more often.
        guest_speaks: the guest sends to its peer by itself, and does not only answer.
        proxy_reply: whether the Map-Server answers for the xTR (RFC 9301 §8.3); if not, one more leg.
        ttl_minutes: of the mapping, for `ttl`.
        rloc_probe_interval_s: for `rloc-probe`.

    Returns:
        the bound, with its formula; `bound_ms` None for an unknown mechanism or a missing parameter.
    """

    def d(start: str, end: str) -> float:
        return 0.0 if start == end else delays[start, end]

    new, old, server, itr = roles.new_xtr, roles.old_xtr, roles.map_server, roles.itr
    resolve = d(itr, server) + (d(server, itr) if proxy_reply else d(server, new) + d(new, itr))
    answer = "d(ITR,MR) + d(MS,ITR)" if proxy_reply else "d(ITR,MR) + d(MS,new) + d(new,ITR)"

    wait_ms = probe_interval_ms / 2
    if mechanism == "pubsub":
        value = d(new, server) + d(server, itr)
        return Bound(value, "d(new,MS) + d(MS,ITR)", "publication by the Map-Server", value, wait_ms)
    if mechanism == "smr-map-server":
        value = d(new, server) + d(server, itr) + resolve
        return Bound(value, f"d(new,MS) + d(MS,ITR) + {answer}", "the Map-Server solicits", value, wait_ms)
    if mechanism == "smr-old-xtr":
        value = d(new, server) + d(server, old) + d(old, itr) + resolve
        return Bound(
            value,
            f"max(d(new,MS) + d(MS,old), next stale packet) + d(old,ITR) + {answer}",
            f"a stale packet is at the old xTR when it is told; the next may be {probe_interval_ms:g} ms away",
            value + wait_ms,
            wait_ms,
        )
    if mechanism == "map-version":
        numbered, when = d(new, server) + d(server, new), "RTT(new,MS)"
        why = "at the VM's first packet to the peer with its map-version, which the Map-Server gives"
        if not guest_speaks and (answers := d(new, server) + d(server, old) + d(old, new)) > numbered:
            numbered, when = answers, "d(new,MS) + d(MS,old) + d(old,new)"
            why += "; the VM only answers, and first what the old xTR sends on"
        value = numbered + d(new, itr) + resolve
        formula = f"max({when}, the guest's next packet) + d(new,ITR) + {answer}"
        return Bound(value, formula, why, value + wait_ms, wait_ms)
    if mechanism == "smr-new-xtr":
        value = d(new, itr) + resolve
        return Bound(value, f"d(new,ITR) + {answer}", "the new xTR already knows its peers", value, wait_ms)
    if mechanism == "rloc-probe" and rloc_probe_interval_s is not None:
        value = rloc_probe_interval_s * 1000 * (1 + PROBE_JITTER) + d(itr, old) + d(old, itr)
        return Bound(value, "1.1 · probe interval + RTT(ITR,old)", "at most; replies carry the new mapping")
    if mechanism == "ttl" and ttl_minutes is not None:
        value = ttl_minutes * 60_000 + resolve
        return Bound(value, f"TTL + {answer}", "at most: the entry may expire at any moment before")
    return Bound(None, "", f"no bound is known for {mechanism or 'a run without mechanism'} with these options")
