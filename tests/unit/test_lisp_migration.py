"""The chain of the experiment, whole: sighting → registration → departure → SMR → new mapping.

Real state machines on a network in memory; every number here is a delay that the test set.
"""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address
from itertools import pairwise

import pytest

from testbed.lisp.actions import MINUTE_NS, SECOND_NS, Address, Forwarding
from testbed.lisp.config import MapServerOptions, XtrOptions
from testbed.lisp.inputs import ControlReceived, HostGone, SiteLocatorChanged
from testbed.lisp.wire import (
    AlgorithmId,
    EidPrefix,
    EidRecord,
    MapReply,
    MapReplyFlag,
    MapRequest,
    MapRequestFlag,
    RlocRecord,
    decode_control,
)
from tests.unit.lisp_network import (
    CORRESPONDENT,
    EID,
    MAP_SERVER,
    MS_NS,
    RLOCS,
    Network,
    packet_to,
    settled,
)


def test_first_packet_is_held_until_the_mapping_comes_and_is_then_delivered() -> None:
    network = settled(Network())
    assert [packet for _, packet in network.nodes["xtr-a"].delivered] == [packet_to(EID)]
    sent, received = network.saw("map_request_sent", "xtr-c"), network.saw("map_reply_received", "xtr-c")
    assert len(sent) == len(received) == 1
    assert sent[0].fields["nonce"] == received[0].fields["nonce"]
    assert received[0].at_ns - sent[0].at_ns == 20 * MS_NS


@pytest.mark.parametrize("proxy", [True, False])
def test_the_whole_chain_in_order(proxy: bool) -> None:
    network = settled(
        Network(xtr_options=XtrOptions(proxy_reply=proxy), map_server_options=MapServerOptions(proxy_reply=proxy))
    )
    moved = network.now
    network.sight("xtr-b")
    for _ in range(100):
        network.send("xtr-c", packet_to(EID, b"probe"))
        network.run_for(10 * MS_NS)
    expected = [
        ("eid_detected", "xtr-b"),
        ("map_register_sent", "xtr-b"),
        ("mapping_changed", "ms"),
        ("eid_departed", "xtr-a"),
        ("away_installed", "xtr-a"),
        ("stale_packet", "xtr-a"),
        ("smr_sent", "xtr-a"),
        ("smr_received", "xtr-c"),
        ("map_request_sent", "xtr-c"),
        ("map_reply_received", "xtr-c"),
        ("map_cache_changed", "xtr-c"),
        ("first_packet_new_rloc", "xtr-c"),
    ]
    times = []
    for kind, node in expected:
        found = network.saw(kind, node, since_ns=moved)
        assert found, f"no {kind} at {node}"
        assert found[0].fields["eid"] in (str(EID), f"{EID}/32")
        times.append(found[0].at_ns)
    assert times == sorted(times)
    changed = network.saw("map_cache_changed", "xtr-c", since_ns=moved)[0]
    assert (changed.fields["old_rloc"], changed.fields["rloc"]) == ("10.0.1.2", "10.0.2.2")
    assert network.saw("map_request_sent", "xtr-c", since_ns=moved)[0].fields["smr_invoked"] is True
    first = network.saw("first_packet_new_rloc", "xtr-c", since_ns=moved)[0]
    assert (first.fields["old_rloc"], first.fields["rloc"]) == ("10.0.1.2", "10.0.2.2")
    # design: d(new,MS) + d(MS,old), next stale packet, d(old,ITR) + d(ITR,MR) [+ d(MS,new)] + d(replier,ITR)
    stale = network.saw("stale_packet", "xtr-a", since_ns=moved)[0].at_ns
    legs = 3 if proxy else 4
    assert changed.at_ns - stale == legs * 10 * MS_NS
    assert network.saw("eid_departed", "xtr-a", since_ns=moved)[0].at_ns - moved == 20 * MS_NS


def test_no_packet_is_lost_after_the_old_xtr_knows() -> None:
    network = settled(Network())
    network.sight("xtr-b")
    network.run_for(25 * MS_NS)  # registration 10 ms, notification 10 ms
    for number in range(100):
        network.send("xtr-c", packet_to(EID, b"%d" % number))
        network.run_for(10 * MS_NS)
    network.run_for(100 * MS_NS)
    arrived = [packet for _, packet in network.nodes["xtr-b"].delivered]
    assert sorted(arrived) == sorted(packet_to(EID, b"%d" % number) for number in range(100))


def test_rfc9301_6_1_mechanism_ttl_tells_nobody_until_the_entry_ends() -> None:
    network = settled(Network("ttl", xtr_options=XtrOptions(registration_ttl_minutes=1)))
    installed = network.saw("map_cache_changed", "xtr-c")[0].at_ns
    moved = network.now
    network.sight("xtr-b")
    for _ in range(700):
        network.send("xtr-c", packet_to(EID))
        network.run_for(100 * MS_NS)
    assert not network.saw("smr_sent")
    changed = network.saw("map_cache_changed", "xtr-c", since_ns=moved)
    assert [event.fields["rloc"] for event in changed] == ["10.0.2.2"]
    # An active flow must not keep the old entry alive: one minute, then the next packet asks.
    assert installed + MINUTE_NS <= changed[0].at_ns <= installed + MINUTE_NS + 130 * MS_NS


@pytest.mark.parametrize("proxy", [True, False])
def test_rfc9301_6_1_mechanism_smr_map_server_needs_no_stale_packet(proxy: bool) -> None:
    options = MapServerOptions(proxy_reply=proxy)
    network = settled(Network("smr-map-server", map_server_options=options))
    moved = network.now
    network.sight("xtr-b")
    network.run_for(1 * SECOND_NS)
    changed = network.saw("map_cache_changed", "xtr-c", since_ns=moved)
    # d(new,MS) + d(MS,ITR) + RTT(ITR,MS), or by way of the ETR
    assert [event.at_ns - moved for event in changed] == [40 * MS_NS if proxy else 50 * MS_NS]
    assert changed[0].fields["rloc"] == "10.0.2.2"


def test_rfc9301_6_1_mechanism_smr_new_xtr_tells_the_peers_it_knows() -> None:
    network = settled(Network("smr-new-xtr"))
    network.send("xtr-b", packet_to(CORRESPONDENT), eid=CORRESPONDENT)
    network.run_for(1 * SECOND_NS)
    moved = network.now
    network.sight("xtr-b")
    network.run_for(1 * SECOND_NS)
    assert [event.fields["rloc"] for event in network.saw("map_cache_changed", "xtr-c", since_ns=moved)] == ["10.0.2.2"]


def test_rfc9301_6_1_mechanism_smr_new_xtr_tells_a_peer_with_the_first_packet_to_it() -> None:
    network = settled(Network("smr-new-xtr"))
    moved = network.now
    network.sight("xtr-b")
    network.run_for(1 * SECOND_NS)
    assert not network.saw("smr_sent")
    network.send("xtr-b", packet_to(CORRESPONDENT), eid=CORRESPONDENT)
    network.run_for(1 * SECOND_NS)
    assert [event.fields["rloc"] for event in network.saw("map_cache_changed", "xtr-c", since_ns=moved)] == ["10.0.2.2"]


def test_a_guest_that_was_destroyed_is_deregistered_until_acknowledged() -> None:
    network = settled(Network())
    lost = 0

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        nonlocal lost
        if source == RLOCS["xtr-a"] and not lost:
            lost += 1
            return []
        return [10 * MS_NS]

    network.faults = faults
    network.give("xtr-a", HostGone(EID))
    network.run_for(100 * MS_NS)
    assert network.owner() == "xtr-a"
    network.run_for(1 * SECOND_NS)
    assert network.owner() is None
    assert network.saw("mapping_changed", "ms")[-1].fields["reason"] == "withdrawn"
    assert network.host_state("xtr-a") is None
    quiet_since = network.now
    network.run_for(5 * MINUTE_NS)
    assert not network.saw("map_register_sent", "xtr-a", since_ns=quiet_since)


def test_ping_pong_within_five_seconds_ends_where_the_guest_is() -> None:
    network = settled(Network())
    for name in ("xtr-b", "xtr-a"):
        network.sight(name)
        network.run_for(2 * SECOND_NS)
    for _ in range(500):
        network.send("xtr-c", packet_to(EID))
        network.run_for(10 * MS_NS)
    assert network.owner() == "xtr-a"
    assert (network.host_state("xtr-a"), network.host_state("xtr-b")) == ("local", "away")
    entry = network.nodes["xtr-c"].machine.inspect(network.now)["map_cache"][0]
    assert entry["locators"][0]["rloc"] == "10.0.1.2"


@pytest.mark.parametrize("moves", [1, 2, 3, 10])
def test_quick_moves_end_where_the_guest_is(moves: int) -> None:
    network = settled(Network())
    for move in range(moves):
        last = ("xtr-b", "xtr-a")[move % 2]
        network.sight(last)
        network.run_for(50 * MS_NS)
    network.run_for(5 * MINUTE_NS)
    assert network.owner() == last


def test_a_guest_that_came_back_before_its_xtr_heard_it_had_gone_is_found_by_its_next_frame() -> None:
    network = settled(Network())
    silent = True

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        return [] if silent and source == MAP_SERVER and destination == RLOCS["xtr-a"] else [10 * MS_NS]

    network.faults = faults
    network.sight("xtr-b")
    network.run_for(500 * MS_NS)
    network.sight("xtr-a")
    network.run_for(500 * MS_NS)
    silent = False
    network.run_for(5 * SECOND_NS)
    network.sight("xtr-a")
    network.run_for(5 * SECOND_NS)
    assert network.owner() == "xtr-a"
    assert (network.host_state("xtr-a"), network.host_state("xtr-b")) == ("local", "away")


def test_who_lost_an_eid_to_where_nothing_can_be_sent_has_lost_it_all_the_same() -> None:
    network = settled(Network())
    network.give("xtr-b", SiteLocatorChanged(RLOCS["xtr-b"], False))
    network.sight("xtr-b")
    network.run_for(130 * SECOND_NS)  # the old xTR's refresh is due twice
    assert network.host_state("xtr-a") == "away"
    assert str(network.owner()).startswith("xtr-b")


def test_a_full_map_cache_keeps_no_lost_eid_here() -> None:
    network = settled(Network(xtr_options=XtrOptions(map_cache_entries=2)))
    for number in (50, 51, 52):
        other = ip_address(f"192.168.0.{number}")
        network.send("xtr-a", packet_to(other), other)
        network.run_for(4 * SECOND_NS)
    network.sight("xtr-b")
    network.run_for(2 * SECOND_NS)
    (entry,) = [each for _, each in network.nodes["xtr-a"].entries.matches(EID, 0)][:1]
    assert entry.forwarding is Forwarding.AWAY


def test_a_frame_from_before_the_departure_is_no_return() -> None:
    network = settled(Network())
    before = network.now
    network.sight("xtr-b")
    network.run_for(1 * SECOND_NS)
    network.sight("xtr-a", seen_ns=before)
    network.run_for(1 * SECOND_NS)
    assert network.owner() == "xtr-b"
    assert network.host_state("xtr-a") == "away"


def test_rfc9301_5_6_register_nonces_only_ever_rise() -> None:
    network = settled(Network())
    for name in ("xtr-b", "xtr-a", "xtr-b"):
        network.sight(name)
        network.run_for(90 * SECOND_NS)
    for name in ("xtr-a", "xtr-b", "xtr-c"):
        nonces = [int(event.fields["nonce"], 16) for event in network.saw("map_register_sent", name)]
        assert len(nonces) > 1
        assert all(earlier < later for earlier, later in pairwise(nonces))


def test_a_silent_guest_that_came_back_is_asked_and_found() -> None:
    """Its old xTR was never told that it had gone; when it is, it asks the LAN before anyone sends."""
    network = settled(Network())
    silent = True

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        return [] if silent and source == MAP_SERVER and destination == RLOCS["xtr-a"] else [10 * MS_NS]

    network.faults = faults
    network.sight("xtr-b")
    network.run_for(500 * MS_NS)
    network.really_at = "xtr-a"
    silent = False
    network.run_for(5 * SECOND_NS)
    assert network.owner() == "xtr-a"
    assert (network.host_state("xtr-a"), network.host_state("xtr-b")) == ("local", "away")


def test_rfc9301_7_1_mechanism_rloc_probe_learns_the_mapping_from_the_old_locator() -> None:
    network = settled(Network("rloc-probe"))
    moved = network.now
    network.sight("xtr-b")
    network.run_for(12 * SECOND_NS)
    changed = network.saw("map_cache_changed", "xtr-c", since_ns=moved)
    assert [event.fields["rloc"] for event in changed] == ["10.0.2.2"]
    asked = [event for event in network.saw("rloc_probe_sent", "xtr-c") if event.at_ns < changed[0].at_ns]
    assert asked[-1].fields["peer"] == "10.0.1.2"
    assert changed[0].at_ns - asked[-1].at_ns == 20 * MS_NS
    assert not network.saw("map_request_sent", "xtr-c", since_ns=moved)
    network.run_for(60 * SECOND_NS)
    rounds = [event.at_ns for event in network.saw("rloc_probe_sent", "xtr-c", since_ns=moved)]
    assert all(9 * SECOND_NS <= later - earlier <= 11 * SECOND_NS for earlier, later in pairwise(rounds))
    assert {event.fields["peer"] for event in network.saw("rloc_probe_sent", "xtr-c")[-3:]} == {"10.0.2.2"}


def test_rfc9301_5_4_a_probe_reply_without_the_a_bit_is_discarded() -> None:
    network = settled(Network("rloc-probe"))

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        message = decode_control(payload)
        if isinstance(message, MapReply) and source == RLOCS["xtr-a"]:
            return []
        if isinstance(message, MapRequest) and message.flags & MapRequestFlag.PROBE:
            record = EidRecord(EidPrefix(IPv4Network("192.168.0.10/32")), 5, (RlocRecord(RLOCS["xtr-b"]),))
            bare = MapReply(message.nonce, (record,), MapReplyFlag.PROBE).encode()
            network.at(
                network.now + MS_NS,
                lambda: network.give("xtr-c", ControlReceived(bare, RLOCS["xtr-a"], 4342)),
            )
        return [10 * MS_NS]

    network.faults = faults
    network.run_for(12 * SECOND_NS)
    dropped = [event.fields["reason"] for event in network.saw("control_dropped", "xtr-c")]
    assert dropped == ["answers no probe, or without the A-bit"] * XtrOptions().rloc_probe_losses
    assert network.saw("map_cache_changed", "xtr-c")[-1].fields["rloc"] == "10.0.1.2"


def test_the_whole_chain_with_a_key_for_each_message() -> None:
    network = settled(Network("pubsub", algorithm=AlgorithmId.HMAC_SHA_256_128_HKDF))
    network.sight("xtr-b")
    network.run_for(SECOND_NS)
    assert network.owner() == "xtr-b"
    assert network.host_state("xtr-a") == "away"
    assert network.saw("publication_received", "xtr-c")
    assert not network.saw("registration_refused")
    assert not network.saw("control_dropped")
