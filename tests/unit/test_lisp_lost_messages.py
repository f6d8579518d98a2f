"""Migrations while messages are late or lost, and Map-Servers restart: everybody hears in the end."""

from __future__ import annotations

import pytest

from testbed.lisp.actions import MINUTE_NS, SECOND_NS, Address
from testbed.lisp.inputs import HostGone, HostSighted
from testbed.lisp.sightings import Sighting, SightingKind
from testbed.lisp.wire import (
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    MapRequestFlag,
    decode_control,
)
from tests.unit.lisp_network import (
    EID,
    MAP_SERVER,
    MS_NS,
    RLOCS,
    Network,
    settled,
)


@pytest.mark.parametrize("late_ms", [0, 5, 15, 25, 35, 60, 100, 500, 3000, 20000])
def test_rfc9301_5_6_a_late_refresh_of_the_old_xtr_never_takes_the_mapping_back(late_ms: int) -> None:
    """A's refresh leaves just before the guest is seen at B and arrives at any time after, twice."""
    network = settled(Network())
    refreshes = 0

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        nonlocal refreshes
        if source == RLOCS["xtr-a"] and isinstance(decode_control(payload), MapRegister):
            refreshes += 1
            return [late_ms * MS_NS, (late_ms + 7) * MS_NS]
        return [10 * MS_NS]

    network.faults = faults
    deadline = network.nodes["xtr-a"].machine.next_deadline()
    assert deadline is not None
    network.run_for(deadline - network.now)  # the refresh has just left
    assert refreshes == 1
    moved = network.now
    network.sight("xtr-b")
    network.run_for(60 * SECOND_NS)
    assert network.owner() == "xtr-b"
    assert (network.host_state("xtr-a"), network.host_state("xtr-b")) == ("away", "local")
    changes = network.saw("mapping_changed", "ms", since_ns=moved)
    assert [event.fields["rloc"] for event in changes] == ["10.0.2.2"]
    if late_ms > 10:
        assert network.saw("registration_refused", "ms", since_ns=moved)


@pytest.mark.parametrize("lost", [1, 2, 3, 4])
def test_rfc9301_5_7_a_lost_departure_notice_is_repeated_until_acknowledged(lost: int) -> None:
    network = settled(Network())
    dropped = 0

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        nonlocal dropped
        to_a = source == MAP_SERVER and destination == RLOCS["xtr-a"]
        if to_a and isinstance(decode_control(payload), MapNotify) and dropped < lost:
            dropped += 1
            return []
        return [10 * MS_NS]

    network.faults = faults
    moved = network.now
    network.sight("xtr-b")
    network.run_for(40 * SECOND_NS)
    departed = network.saw("eid_departed", "xtr-a", since_ns=moved)
    assert len(departed) == 1
    assert departed[0].at_ns - moved == 20 * MS_NS + [3, 6, 9, 15][lost - 1] * SECOND_NS
    assert len(network.saw("departure_acknowledged", "ms", since_ns=moved)) == 1
    assert network.owner() == "xtr-b"


def test_a_lost_acknowledgement_is_only_one_more_notice() -> None:
    network = settled(Network())
    lost = 0

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        nonlocal lost
        if isinstance(decode_control(payload), MapNotifyAck) and not lost:
            lost += 1
            return []
        return [10 * MS_NS]

    network.faults = faults
    moved = network.now
    network.sight("xtr-b")
    network.run_for(1 * SECOND_NS)
    network.sight("xtr-a")  # back home before the Map-Server repeats itself
    network.run_for(60 * SECOND_NS)
    assert lost == 1
    assert network.owner() == "xtr-a"
    assert network.host_state("xtr-a") == "local"
    assert len(network.saw("eid_departed", "xtr-a", since_ns=moved)) == 1


@pytest.mark.parametrize("lost", [0, 1, 3, 4])
def test_an_smr_of_the_map_server_is_repeated_until_the_itr_has_asked_or_four_have_gone(lost: int) -> None:
    network = settled(Network("smr-map-server"))
    to_lose = lost

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        nonlocal to_lose
        message = decode_control(payload)
        smr = isinstance(message, MapRequest) and bool(message.flags & MapRequestFlag.SMR)
        if smr and destination == RLOCS["xtr-c"] and to_lose:
            to_lose -= 1
            return []
        return [10 * MS_NS]

    network.faults = faults
    moved = network.now
    network.sight("xtr-b")
    network.run_for(60 * SECOND_NS)
    sent = [
        event.at_ns - moved for event in network.saw("smr_sent", "ms") if event.fields["peer"] == str(RLOCS["xtr-c"])
    ]
    assert sent == [10 * MS_NS + number * 3 * SECOND_NS for number in range(min(lost + 1, 4))]
    changed = network.saw("map_cache_changed", "xtr-c", since_ns=moved)
    assert [event.fields["rloc"] for event in changed] == (["10.0.2.2"] if lost < 4 else [])


def test_what_an_itr_asks_while_an_smr_is_held_back_does_not_take_its_place() -> None:
    """There and back within the SMRs' 3 s; the answer of the way there is late, so the ITR asks again meanwhile."""
    network = settled(Network("smr-map-server"))

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        to_itr = (source, destination) == (MAP_SERVER, RLOCS["xtr-c"])
        return [2500 * MS_NS if to_itr and isinstance(decode_control(payload), MapReply) else 10 * MS_NS]

    network.faults = faults
    network.sight("xtr-b")
    network.run_for(900 * MS_NS)
    back = network.now
    network.sight("xtr-a")
    network.run_for(60 * SECOND_NS)
    changed = network.saw("map_cache_changed", "xtr-c", since_ns=back)
    assert [event.fields["rloc"] for event in changed] == ["10.0.2.2", "10.0.1.2"]


SECOND_EID = EID + 1


def deaf_a(network: Network) -> None:
    """Nothing reaches A's xTR; what it sends arrives."""
    network.faults = lambda source, destination, payload, count: [] if destination == RLOCS["xtr-a"] else [10 * MS_NS]


def all_ears(network: Network) -> None:
    network.faults = lambda source, destination, payload, count: [10 * MS_NS]


def test_a_loss_that_was_never_heard_of_outlives_a_restart_of_the_map_server() -> None:
    network = Network()

    def sight(site: str, eid: Address) -> None:
        sighting = Sighting(SightingKind.GRATUITOUS_ARP, f"02:00:00:00:00:{int(eid) & 255:02x}", eid)
        network.give(site, HostSighted(sighting, network.now))

    sight("xtr-a", EID)
    sight("xtr-a", SECOND_EID)
    network.run_for(20 * SECOND_NS)
    deaf_a(network)
    sight("xtr-b", EID)
    network.run_for(SECOND_NS)
    network.restart_map_server()
    restarted = network.now
    sight("xtr-b", SECOND_EID)
    all_ears(network)
    network.run_for(45 * SECOND_NS)
    # A has refreshed both, was told of the second and so is past its fence; B is still to refresh the first.
    assert [network.host_state("xtr-a", eid) for eid in (EID, SECOND_EID)] == ["local", "away"]
    reasons = {event.fields["reason"] for event in network.saw("registration_refused", "ms")}
    assert reasons == {"registered elsewhere since"}
    network.run_for(5 * MINUTE_NS)
    assert [network.host_state("xtr-a", eid) for eid in (EID, SECOND_EID)] == ["away", "away"]
    moves = network.saw("mapping_changed", "ms", since_ns=restarted)
    mobile = {(move.fields["eid"], move.fields["rloc"]) for move in moves if move.fields["eid"].endswith("/32")}
    assert mobile == {(f"{eid}/32", str(RLOCS["xtr-b"])) for eid in (EID, SECOND_EID)}


@pytest.mark.parametrize("returned", [False, True])
@pytest.mark.parametrize("restarts", [False, True])
def test_an_xtr_that_has_lost_an_eid_which_then_vanished_is_told_that_it_is_nowhere(
    returned: bool, restarts: bool
) -> None:
    network = settled(Network())
    deaf_a(network)
    network.sight("xtr-b")
    network.run_for(2 * MINUTE_NS)  # the Map-Server gives its notice up
    network.give("xtr-b", HostGone(EID))
    network.run_for(SECOND_NS)
    if restarts:
        network.restart_map_server()
    network.really_at = "xtr-a" if returned else None
    all_ears(network)
    network.run_for(5 * MINUTE_NS)
    assert network.owner() == ("xtr-a" if returned else None)
    assert network.host_state("xtr-a") == ("local" if returned else None)
