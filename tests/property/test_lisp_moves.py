"""Whatever the network does to the messages, the mapping ends where the guest is.

A guest moves between two sites at random moments while control messages are lost, doubled and delayed
at random. Then the network recovers, the guest goes on talking, and after some minutes every part must
agree on where it is. If there are sites of another instance, with a guest of the same EID, nothing of it reaches them.
"""

from __future__ import annotations

from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.lisp.actions import SECOND_NS, Address
from tests.effort import examples
from tests.unit.lisp_network import CORRESPONDENT, EID, MS_NS, OTHER_RLOCS, RLOCS, Network, packet_to

MOVES = st.lists(
    st.tuples(
        st.sampled_from(["xtr-a", "xtr-b"]),
        # until the next move, ms; the last two meet a refresh
        st.sampled_from([1, 5, 15, 25, 40, 100, 900, 3000, 20_000, 59_995, 60_000]),
        st.booleans(),  # whether it says so when it comes
        st.sampled_from([None, None, None, False, True]),  # if the Map-Server restarts: with its registrations
    ),
    min_size=1,
    max_size=6,
)


#: The Map-Server's SMRs are not acknowledged and no packet triggers another: they are repeated a few times only, and
#: an ITR that none of them reached waits for the mapping's TTL. That is the mechanism's, not ours to hide.
LOSSLESS = {"smr-map-server"}


#: (of the guest, of the others or None): no instance-ID at all, one alone, and two at one Map-Server (RFC 8060 §4.1).
INSTANCES: list[tuple[int, ...]] = [(0,), (7,), ((1 << 24) - 1, 7), (0, 7), (7, 0)]


#: A Map-Server forgets with a restart whom it gave what, and so whom to solicit: an ITR then waits for the TTL.
SURVIVES_RESTART = {"smr-old-xtr", "map-version"}


@pytest.mark.parametrize("mechanism", ["smr-old-xtr", "pubsub", "smr-map-server", "map-version"])
@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.too_slow])
@given(
    moves=MOVES,
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.2, 0.5]),
    instances=st.sampled_from(INSTANCES),
)
def test_the_mapping_ends_where_the_guest_is(
    mechanism: str, moves: list[tuple[str, int, bool, bool | None]], seed: int, loss: float, instances: tuple[int, ...]
) -> None:
    random = Random(seed)
    loss = 0.0 if mechanism in LOSSLESS else loss
    network = Network(mechanism, instances=instances)

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        copies = 0 if random.random() < loss else random.choice([1, 1, 1, 2])
        return [random.choice([1, 10, 30, 200, 2500]) * MS_NS for _ in range(copies)]

    for prefix in ("", "other-")[: len(instances)]:
        network.sight(f"{prefix}xtr-a")
        network.run_for(1 * SECOND_NS)
        network.send(f"{prefix}xtr-c", packet_to(EID))
        network.run_for(1 * SECOND_NS)
    settled_ns = network.now
    network.faults = faults
    for site, wait_ms, announces, keeps in moves:
        network.really_at = site
        if keeps is not None and mechanism in SURVIVES_RESTART:
            network.restart_map_server(keeps=keeps)
        if announces:
            network.sight(site)
        network.run_for(wait_ms * MS_NS)
    last = moves[-1][0]
    network.faults = lambda source, destination, payload, count: [10 * MS_NS]
    for _ in range(400):
        network.sight(last)
        network.send("xtr-c", packet_to(EID), source=CORRESPONDENT)
        network.send(last, packet_to(CORRESPONDENT), eid=CORRESPONDENT, source=EID)
        network.run_for(500 * MS_NS)
    assert_every_return_was_seen(network)
    other = {"xtr-a": "xtr-b", "xtr-b": "xtr-a"}[last]
    assert network.owner() == last
    assert network.host_state(last) == "local"
    assert network.host_state(other) != "local"
    entries = network.nodes["xtr-c"].machine.inspect(network.now)["map_cache"]
    found = [row["locators"] for row in entries if row["eid"] == f"{EID}/32"]
    assert [ip_address(each[0]["rloc"]) for each in found] == [RLOCS[last]]
    if len(instances) > 1:
        assert_the_others_never_heard(network, settled_ns, instances[1])


def assert_the_others_never_heard(network: Network, settled_ns: int, instance_id: int) -> None:
    """The same EID in another instance stays where it was, and no packet comes to it or to its peer."""
    assert network.owner(instance_id=instance_id) == "other-xtr-a"
    assert network.host_state("other-xtr-a") == "local"
    for name in OTHER_RLOCS:
        told = ("smr_received", "eid_departed", "stale_packet")
        assert not [event.kind for kind in told for event in network.saw(kind, name, settled_ns)]
        # Of its own registration it may hear, which ends if every refresh is lost.
        news = [
            e for kind in ("publication_received", "map_cache_changed") for e in network.saw(kind, name, settled_ns)
        ]
        assert {event.fields.get("rloc") for event in news} <= {None, *map(str, OTHER_RLOCS.values())}
        assert all(at_ns < settled_ns for at_ns, _ in network.nodes[name].delivered)


def assert_every_return_was_seen(network: Network) -> None:
    """Safety: the mapping goes back to a site only if its xTR saw the guest arrive after it had lost it."""
    lost_ns: dict[str, int] = {}
    for change in network.saw("mapping_changed", "ms"):
        old, new = change.fields.get("old_rloc"), change.fields.get("rloc")
        if new in lost_ns and change.fields["reason"] == "moved":
            site = network.by_rloc[ip_address(new)].name
            arrivals = [event.at_ns for event in network.saw("eid_detected", site)]
            assert any(lost_ns[new] < arrival_ns < change.at_ns for arrival_ns in arrivals)
        if old != new:
            lost_ns[old] = change.at_ns
