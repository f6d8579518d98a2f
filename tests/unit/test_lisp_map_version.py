"""Map-Versioning: the order of versions, who counts them, and the mechanism (RFC 9302)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.lisp.actions import SECOND_NS, Forwarding, SaveNonce
from testbed.lisp.map_version import MapVersions, is_newer, next_version
from testbed.lisp.wire import Address, EidPrefix, EidRecord, MapNotify, RlocRecord, decode_control
from tests.unit.lisp_network import CORRESPONDENT, EID, MAP_SERVER, MS_NS, RLOCS, Network, packet_to
from tests.unit.lisp_server import RLOC_A, RLOC_B, Server, events, sends

VERSIONS = st.integers(1, 4095)
PREFIX = ip_network("192.168.0.10/32")


@pytest.mark.parametrize(
    ("version", "than", "newer"),
    [
        (70, 69, True),  # the RFC's example: [70; 69 + 2048] is newer
        (69 + 2048, 69, True),
        (69 + 2049, 69, False),
        ((69 + 4095) % 4096, 69, False),
        (1, 4095, True),
        (4095, 1, False),
        (69, 69, False),
    ],
)
def test_rfc9302_6_order(version: int, than: int, newer: bool) -> None:
    assert is_newer(version, than) is newer


@given(one=VERSIONS, other=VERSIONS)
def test_rfc9302_6_of_two_different_versions_one_is_newer(one: int, other: int) -> None:
    assert (is_newer(one, other), is_newer(other, one)) in (
        [(False, False)] if one == other else [(True, False), (False, True)]
    )


@given(version=VERSIONS)
def test_rfc9302_6_1_the_next_is_newer_and_never_null(version: int) -> None:
    assert 1 <= next_version(version) <= 4095
    assert is_newer(next_version(version), version)


def record(*rlocs: str, version: int = 0) -> EidRecord:
    locators = tuple(RlocRecord(address) for address in map(RLOCS.get, rlocs))
    return EidRecord(EidPrefix(PREFIX), 60, locators, map_version=version)


def numbered(versions: MapVersions, given: EidRecord) -> int:
    return versions.number(given, PREFIX, given.map_version)[0].map_version


def test_a_version_changes_with_the_locators_only() -> None:
    versions = MapVersions({}, lambda: 4093)
    assert numbered(versions, record("xtr-a")) == 4094
    assert numbered(versions, record("xtr-a", version=4094)) == 4094
    assert numbered(versions, record("xtr-b")) == 4095
    assert numbered(versions, record("xtr-a", version=4094)) == 1  # 0 is null
    assert numbered(versions, replace(record("xtr-a"), ttl_minutes=1)) == 1


def test_an_etr_with_a_newer_version_is_believed() -> None:
    versions = MapVersions({}, lambda: 0)
    assert numbered(versions, record("xtr-a", version=500)) == 500
    assert numbered(versions, record("xtr-b", version=700)) == 700
    assert numbered(versions, record("xtr-a", version=600)) == 701


def test_versions_go_on_after_a_restart() -> None:
    saved: dict[str, int] = {}
    first = MapVersions(saved, lambda: 4093)
    stored: dict[str, int] = {}
    for site in ("xtr-a", "xtr-b", "xtr-a"):
        _, actions = first.number(record(site), PREFIX, 0)
        for action in actions:
            assert isinstance(action, SaveNonce)
            assert action.nonce >= stored.get(action.owner, 0)
            stored[action.owner] = action.nonce
    assert numbered(MapVersions(stored, lambda: 0), record("xtr-a")) == 2


def test_the_map_server_says_the_version_in_its_map_notify() -> None:
    server = Server(mechanism="map-version")
    first = server.register(nonce=1)
    second = server.register(nonce=1, site="b", source=RLOC_B)
    said = [decode_control(sent.payload) for actions in (first, second) for sent in sends(actions)]
    registered = [each.records[0].map_version for each in said if isinstance(each, MapNotify) and each.nonce == 1]
    assert registered == [8, 9]  # its random number is 7
    departure = [each for each in said if isinstance(each, MapNotify) and each.nonce != 1]
    assert [each.records[0].map_version for each in departure] == [9]
    assert events(second, "mapping_changed")[0]["map_version"] == 9
    assert server.records("192.168.0.10/32")[0].map_version == 9


def test_other_mechanisms_leave_versions_to_the_etr() -> None:
    server = Server(mechanism="ttl")
    server.register(nonce=1, source=RLOC_A)
    assert server.records("192.168.0.10/32")[0].map_version == 0


def talking(network: Network) -> Network:
    """The guest lives at A and talks with the correspondent; every xTR has the mappings that it needs."""
    network.sight("xtr-a")
    network.run_for(1 * SECOND_NS)
    network.send("xtr-c", packet_to(EID), source=CORRESPONDENT)
    network.send("xtr-a", packet_to(CORRESPONDENT), eid=CORRESPONDENT, source=EID)
    network.run_for(10 * SECOND_NS)
    return network


def test_rfc9302_7_2_the_first_numbered_packet_of_the_guest_tells_the_itr() -> None:
    network = talking(Network("map-version"))
    network.send("xtr-b", packet_to(CORRESPONDENT), eid=CORRESPONDENT)  # another host of site B did before
    network.run_for(1 * SECOND_NS)
    moved = network.now
    network.sight("xtr-b")
    network.run_for(100 * MS_NS)
    assert not network.saw("map_cache_changed", "xtr-c", since_ns=moved)
    spoke = network.now
    network.send("xtr-b", packet_to(CORRESPONDENT), eid=CORRESPONDENT, source=EID)
    network.run_for(1 * SECOND_NS)
    changed = network.saw("map_cache_changed", "xtr-c", since_ns=moved)
    assert [event.fields["rloc"] for event in changed] == ["10.0.2.2"]
    # d(new,ITR) + RTT(ITR,MR); packets take 5 ms in this network, messages 10
    assert changed[0].at_ns - spoke == 25 * MS_NS
    assert network.saw("map_version_newer", "xtr-c")[0].fields["eid"] == str(EID)
    assert not network.saw("smr_sent", since_ns=moved)


def test_a_packet_before_the_version_is_known_says_nothing_and_loses_nothing() -> None:
    network = talking(Network("map-version"))
    network.send("xtr-b", packet_to(CORRESPONDENT), eid=CORRESPONDENT)
    network.run_for(1 * SECOND_NS)
    arrived = len(network.nodes["xtr-c"].delivered)
    network.sight("xtr-b")
    network.send("xtr-b", packet_to(CORRESPONDENT), eid=CORRESPONDENT, source=EID)
    network.run_for(15 * MS_NS)
    assert not network.saw("map_version_newer")
    assert len(network.nodes["xtr-c"].delivered) == arrived + 1


def test_rfc9302_7_1_an_itr_with_the_mapping_of_the_stay_before_last_is_solicited() -> None:
    network = talking(Network("map-version"))
    for site in ("xtr-b", "xtr-a"):
        network.sight(site)
        network.run_for(1 * SECOND_NS)
    returned = network.now
    network.send("xtr-c", packet_to(EID, b"old"), source=CORRESPONDENT)
    network.run_for(1 * SECOND_NS)
    assert network.nodes["xtr-a"].delivered[-1][1] == packet_to(EID, b"old")
    (older,) = network.saw("map_version_older", "xtr-a", since_ns=returned)
    (sent,) = network.saw("smr_sent", since_ns=returned)
    assert (sent.node, sent.fields["peer"]) == ("xtr-a", "10.0.3.2")
    cached = network.nodes["xtr-c"].machine.inspect(network.now)["map_cache"]
    version = next(row["map_version"] for row in cached if row["eid"] == f"{EID}/32")
    assert is_newer(version, older.fields["map_version"])
    network.send("xtr-c", packet_to(EID), source=CORRESPONDENT)
    network.run_for(1 * SECOND_NS)
    assert len(network.saw("map_version_older", "xtr-a", since_ns=returned)) == 1


def test_rfc9302_7_2_a_late_packet_of_the_old_site_is_dropped() -> None:
    network = talking(Network("map-version"))
    network.sight("xtr-b")
    network.send("xtr-b", packet_to(CORRESPONDENT), eid=CORRESPONDENT)
    network.run_for(1 * SECOND_NS)
    network.send("xtr-b", packet_to(CORRESPONDENT), eid=CORRESPONDENT, source=EID)
    network.run_for(1 * SECOND_NS)
    # The old xTR has not heard: what it still sends for the guest has the version before.
    old = network.nodes["xtr-a"].entries
    entry = old.get(PREFIX)
    assert entry is not None
    stale = next(e.fields["map_version"] for e in network.saw("map_version_learned", "xtr-a"))
    old.set(PREFIX, replace(entry, forwarding=Forwarding.LOCAL, map_version=stale))
    arrived = len(network.nodes["xtr-c"].delivered)
    network.send("xtr-a", packet_to(CORRESPONDENT, b"late"), eid=CORRESPONDENT, source=EID)
    network.run_for(1 * SECOND_NS)
    assert len(network.nodes["xtr-c"].delivered) == arrived


def test_a_lost_answer_to_the_request_is_asked_for_again() -> None:
    network = talking(Network("map-version"))
    network.send("xtr-b", packet_to(CORRESPONDENT), eid=CORRESPONDENT)
    network.run_for(1 * SECOND_NS)
    network.sight("xtr-b")
    network.run_for(1 * SECOND_NS)
    lost = 0

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        nonlocal lost
        if (source, destination) == (MAP_SERVER, RLOCS["xtr-c"]) and not lost:
            lost += 1
            return []
        return [10 * MS_NS]

    network.faults = faults
    network.send("xtr-b", packet_to(CORRESPONDENT), eid=CORRESPONDENT, source=EID)
    network.run_for(4 * SECOND_NS)  # RFC 9301 §5.4: the Map-Server answers one RLOC every 3 s
    assert lost == 1
    assert network.saw("map_cache_changed", "xtr-c")[-1].fields["rloc"] == "10.0.2.2"
