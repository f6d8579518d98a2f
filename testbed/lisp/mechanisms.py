"""What tells the ITRs that a mapping changed: the treatments of the experiment, as a table.

Each mechanism is a set of switches that the state machines read; none of them tests for a name.
The registration and the Map-Server's word to the previous xTR are the same under all, and so is the
re-encapsulation there but for `ttl`, which shows what happens when nothing looks after stale packets.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.errors import TestbedError


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One way of telling.

    Attributes:
        name: as in an experiment's file.
        smr_on_stale_packet: the old xTR solicits a request from whoever still sends to it (RFC 9301 §6.1).
        smr_from_map_server: the Map-Server solicits one from every ITR that it gave a mapping
            which may still be in use.
        smr_on_discovery: the new xTR solicits one from the peers that it has mappings of.
        subscribe: ITRs subscribe to what they resolve, and the Map-Server publishes (RFC 9437).
        probe_interval_s: ITRs ask the locators that they use for their mapping, this often
            (RFC 9301 §7.1), and take what they answer; 0 = never.
        map_versions: mappings are numbered, and data packets carry the numbers (RFC 9302).
        reencapsulate: the old xTR sends on what still comes for an EID that has left; otherwise it drops it.
    """

    name: str
    smr_on_stale_packet: bool = False
    smr_from_map_server: bool = False
    smr_on_discovery: bool = False
    subscribe: bool = False
    probe_interval_s: float = 0.0
    map_versions: bool = False
    reencapsulate: bool = True


MECHANISMS: dict[str, Mechanism] = {
    mechanism.name: mechanism
    for mechanism in (
        Mechanism("ttl", reencapsulate=False),
        Mechanism("smr-old-xtr", smr_on_stale_packet=True),
        Mechanism("smr-map-server", smr_from_map_server=True),
        Mechanism("smr-new-xtr", smr_on_discovery=True),
        Mechanism("pubsub", subscribe=True),
        Mechanism("map-version", map_versions=True),
        Mechanism("rloc-probe", probe_interval_s=10.0),
    )
}


def mechanism_named(name: str) -> Mechanism:
    """The mechanism of that name; TestbedError with the list of names if there is none."""
    try:
        return MECHANISMS[name]
    except KeyError:
        raise TestbedError(
            "unknown-mechanism", f"No mechanism {name!r}", why=f"known: {', '.join(sorted(MECHANISMS))}"
        ) from None
