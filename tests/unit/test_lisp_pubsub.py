"""PubSub (RFC 9437): subscriptions and publications on the network in memory."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from testbed.lisp.actions import SECOND_NS, Action, Address
from testbed.lisp.config import MapServerOptions, XtrOptions
from testbed.lisp.inputs import ControlReceived
from testbed.lisp.nonces import FURTHEST_AHEAD, NONCE_STEP
from testbed.lisp.publisher import OUT_OF_REACH
from testbed.lisp.questions import MOST_SUBSCRIPTION_REQUESTS
from testbed.lisp.subscriptions import NONCE_OWNER, NONCES_KEPT, Subscriptions
from testbed.lisp.wire import Action as MappingAction
from testbed.lisp.wire import (
    MapNotify,
    MapNotifyAck,
    MapReply,
    MapRequest,
    MapRequestFlag,
    RequestedEid,
    XtrIdentity,
    decode_control,
    host_eid,
)
from tests.unit.lisp_network import EID, MAP_SERVER, MOBILE, MS_NS, RLOCS, Network, packet_to, settled
from tests.unit.lisp_server import RLOC_B, RLOC_C, SECRETS, Server, events, sends


def test_rfc9437_6_a_publication_reaches_the_subscriber_in_two_legs() -> None:
    network = settled(Network("pubsub"))
    subscribed = network.saw("subscription_acknowledged", "xtr-c")
    assert len(subscribed) == 1
    assert not network.saw("map_reply_received", "xtr-c")
    moved = network.now
    network.sight("xtr-b")
    network.run_for(60 * SECOND_NS)
    published = network.saw("publication_received", "xtr-c", since_ns=moved)
    # d(new,MS) + d(MS,ITR); acknowledged, so not repeated
    assert [event.at_ns - moved for event in published] == [20 * MS_NS]
    assert int(published[0].fields["nonce"], 16) == int(subscribed[0].fields["nonce"], 16) + 1
    changed = network.saw("map_cache_changed", "xtr-c", since_ns=moved)
    assert [(event.fields["old_rloc"], event.fields["rloc"]) for event in changed] == [("10.0.1.2", "10.0.2.2")]
    assert not network.saw("smr_sent")


def test_rfc9437_6_every_move_is_published_with_the_next_nonce() -> None:
    network = settled(Network("pubsub"))
    for name in ("xtr-b", "xtr-a", "xtr-b"):
        network.sight(name)
        network.run_for(1 * SECOND_NS)
    nonces = [int(event.fields["nonce"], 16) for event in network.saw("publication_received", "xtr-c")]
    assert nonces == [nonces[0], nonces[0] + 1, nonces[0] + 2]
    assert [event.fields["rloc"] for event in network.saw("map_cache_changed", "xtr-c")[1:]] == [
        "10.0.2.2", "10.0.1.2", "10.0.2.2",
    ]  # fmt: skip


def test_rfc9437_6_a_replayed_publication_is_dropped() -> None:
    network = settled(Network("pubsub"))
    sent: list[bytes] = []

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        if destination == RLOCS["xtr-c"] and isinstance(decode_control(payload), MapNotify):
            sent.append(payload)
        return [10 * MS_NS]

    network.faults = faults
    for name in ("xtr-b", "xtr-a"):
        network.sight(name)
        network.run_for(1 * SECOND_NS)
    assert len(sent) == 2
    network.give("xtr-c", ControlReceived(sent[0], MAP_SERVER, 4342))
    network.run_for(1 * SECOND_NS)
    entry = network.nodes["xtr-c"].machine.inspect(network.now)["map_cache"][0]
    assert entry["locators"][0]["rloc"] == "10.0.1.2"
    assert [event.fields["reason"] for event in network.saw("control_dropped", "xtr-c")] == ["replayed publication"]


@pytest.mark.parametrize("lost", [1, 2])
def test_rfc9437_6_a_lost_publication_is_repeated(lost: int) -> None:
    network = settled(Network("pubsub"))
    dropped = 0

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        nonlocal dropped
        if destination == RLOCS["xtr-c"] and isinstance(decode_control(payload), MapNotify) and dropped < lost:
            dropped += 1
            return []
        return [10 * MS_NS]

    network.faults = faults
    moved = network.now
    network.sight("xtr-b")
    network.run_for(30 * SECOND_NS)
    changed = network.saw("map_cache_changed", "xtr-c", since_ns=moved)
    assert [event.at_ns - moved for event in changed] == [lost * 3 * SECOND_NS + 20 * MS_NS]


def test_rfc9437_5_a_withdrawn_mapping_is_published_with_ttl_0() -> None:
    network = settled(Network("pubsub"))
    network.faults = lambda source, destination, payload, count: [] if source == RLOCS["xtr-a"] else [10 * MS_NS]
    network.run_for(200 * SECOND_NS)  # A is cut off: its registration times out after three minutes
    assert network.owner() is None
    published = network.saw("publication_received", "xtr-c")
    assert [event.fields["ttl_minutes"] for event in published] == [0]
    assert network.nodes["xtr-c"].machine.inspect(network.now)["map_cache"] == []


def test_rfc9437_5_a_subscriber_that_never_acknowledges_is_told_and_subscribes_again() -> None:
    network = settled(Network("pubsub", xtr_options=XtrOptions(resubscribe_s=0)))
    silent = True

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        ack = isinstance(decode_control(payload), MapNotifyAck)
        return [] if silent and ack and source == RLOCS["xtr-c"] else [10 * MS_NS]

    network.faults = faults
    network.sight("xtr-b")
    network.run_for(74 * SECOND_NS)
    assert not network.saw("subscription_ended")
    silent = False
    network.run_for(5 * SECOND_NS)
    assert len(network.saw("subscription_ended", "ms")) == 1
    assert len(network.saw("subscribed", "ms")) == 2
    assert len(network.saw("subscription_acknowledged", "xtr-c")) == 2


def test_rfc9437_5_a_subscriber_that_no_publication_reached_is_told_of_the_end_and_subscribes_again() -> None:
    network = settled(Network("pubsub", xtr_options=XtrOptions(resubscribe_s=0)))
    moved = network.now
    network.faults = lambda source, destination, payload, count: (
        [] if destination == RLOCS["xtr-c"] and network.now < moved + 75 * SECOND_NS else [10 * MS_NS]
    )
    network.sight("xtr-b")
    network.run_for(80 * SECOND_NS)
    assert not network.saw("publication_received", "xtr-c")
    assert len(network.saw("subscription_ended", "ms")) == 1
    assert len(network.saw("subscription_acknowledged", "xtr-c")) == 2
    assert [event.fields["rloc"] for event in network.saw("map_cache_changed", "xtr-c", since_ns=moved)] == ["10.0.2.2"]


IDENTITY = XtrIdentity(int(RLOC_C))  # as `Server.register` gives it to the xTR at RLOC_C
FIRST = 1 << 60  # far from the nonces of Map-Registers
MOBILE_EID = "192.168.0.10/32"


def publisher() -> Server:
    """A Map-Server that knows the subscriber (it has registered) and the EID."""
    server = Server(mechanism="pubsub")
    server.register("192.168.3.0/24", site="c", source=RLOC_C)
    server.register(MOBILE_EID)
    return server


def subscribe(server: Server, nonce: int, **fields: Any) -> list[Action]:
    return server.request(MOBILE_EID, nonce=nonce, subscribe=True, **{"xtr": IDENTITY, **fields})


def denial(actions: list[Action]) -> list[int]:
    messages = [decode_control(sent.payload) for sent in sends(actions)]
    return [int(each.records[0].action) for each in messages if isinstance(each, MapReply)]


def test_rfc9437_5_a_subscription_is_confirmed_under_its_nonce_and_the_subscribers_secret() -> None:
    (sent,) = sends(subscribe(publisher(), FIRST))
    notify = decode_control(sent.payload)
    assert isinstance(notify, MapNotify)
    assert (notify.nonce, sent.destination, sent.port) == (FIRST, RLOC_C, 4342)
    assert SECRETS["c"].vouches_for(sent.payload)


@pytest.mark.parametrize("nonce", [FIRST - 1, FIRST])
def test_rfc9437_5_a_subscription_that_is_not_newer_is_dropped_silently_and_logged(nonce: int) -> None:
    server = publisher()
    subscribe(server, FIRST)
    actions = subscribe(server, nonce)
    assert sends(actions) == []
    assert [event["reason"] for event in events(actions, "control_dropped")] == ["replayed subscription"]


def test_rfc9437_5_a_subscriber_without_security_association_is_denied() -> None:
    actions = subscribe(publisher(), FIRST, xtr=XtrIdentity(4711))
    assert denial(actions) == [MappingAction.DROP_AUTH_FAILURE]


def test_a_subscription_to_an_address_that_is_not_the_subscribers_is_denied() -> None:
    server = publisher()
    ecm_to = subscribe(server, FIRST, itr_rlocs=(RLOC_B,))
    assert denial(ecm_to) == [MappingAction.DROP_POLICY_DENIED]
    assert server.machine.inspect(0)["subscriptions"] == []


def test_rfc9437_5_an_itr_rloc_of_afi_0_ends_the_subscription_and_its_nonce_stays() -> None:
    server = publisher()
    subscribe(server, FIRST)
    (sent,) = sends(subscribe(server, FIRST + 1, itr_rlocs=(None,)))
    assert isinstance(decode_control(sent.payload), MapNotify)
    assert server.machine.inspect(0)["subscriptions"] == []
    assert sends(subscribe(server, FIRST + 1)) == []
    moved = server.register(MOBILE_EID, site="b", source=RLOC_B)
    assert events(moved, "map_notify_sent")[0]["reason"] == "departure"
    assert "publication" not in [event["reason"] for event in events(moved, "map_notify_sent")]


def test_rfc9437_5_an_itr_that_may_not_subscribe_still_gets_the_mapping() -> None:
    """An xTR that has registered nothing has no security association yet."""
    network = Network("pubsub")
    network.sight("xtr-a")
    network.run_for(1 * SECOND_NS)
    asked = network.now
    network.send("xtr-b", packet_to(EID))
    network.run_for(4 * SECOND_NS)
    assert len(network.saw("subscription_denied", "xtr-b")) == 1
    changed = network.saw("map_cache_changed", "xtr-b", since_ns=asked)
    assert [(event.fields["rloc"], event.at_ns - asked) for event in changed] == [
        ("10.0.1.2", 3 * SECOND_NS + 20 * MS_NS)
    ]
    # The denial was a Map-Reply too, so the next to this RLOC is 3 s away (RFC 9301 §5.4).
    limited = network.saw("control_dropped", "ms", since_ns=asked)
    assert {event.fields["limiter"] for event in limited} == {"map_reply_interval_s"}
    assert [packet for _, packet in network.nodes["xtr-a"].delivered] == [packet_to(EID)]


def cached(network: Network) -> list[str]:
    return [row["eid"] for row in network.nodes["xtr-c"].machine.inspect(network.now)["map_cache"]]


def test_rfc9437_5_an_itr_unsubscribes_when_its_entry_ends_and_nothing_installs_it_again() -> None:
    network = settled(Network("pubsub", xtr_options=XtrOptions(registration_ttl_minutes=1, resubscribe_s=0)))
    network.run_for(60 * SECOND_NS)
    assert len(network.saw("unsubscribed", "xtr-c")) == 1
    assert len(network.saw("subscription_ended", "ms")) == 1
    network.sight("xtr-b")
    network.run_for(60 * SECOND_NS)
    assert not network.saw("publication_received", "xtr-c")
    assert not network.saw("map_notify_abandoned", "ms")  # the end was acknowledged
    assert cached(network) == []
    network.send("xtr-c", packet_to(EID))
    network.run_for(SECOND_NS)
    assert cached(network) == [f"{EID}/32"]
    assert network.nodes["xtr-c"].machine.inspect(network.now)["subscriptions"] == [f"{EID}/32"]


def test_a_subscription_that_a_restarted_map_server_has_forgotten_is_renewed() -> None:
    network = settled(Network("pubsub"))
    network.restart_map_server()
    network.run_for(180 * SECOND_NS)
    moved = network.now
    network.sight("xtr-b")
    network.run_for(SECOND_NS)
    changed = network.saw("map_cache_changed", "xtr-c", since_ns=moved)
    assert [(event.fields["rloc"], event.at_ns - moved) for event in changed] == [("10.0.2.2", 20 * MS_NS)]


def test_a_subscription_is_renewed_however_long_nobody_answered() -> None:
    network = settled(Network("pubsub"))
    usual, dead = network.faults, lambda source, destination, *_: MAP_SERVER in (source, destination)
    network.faults = lambda *message: [] if dead(*message) else usual(*message)
    network.run_for(170 * SECOND_NS)
    network.faults = usual
    network.restart_map_server(keeps=True)
    network.run_for(180 * SECOND_NS)
    moved = network.now
    network.sight("xtr-b")
    network.run_for(SECOND_NS)
    assert [event.fields["rloc"] for event in network.saw("map_cache_changed", "xtr-c", since_ns=moved)] == ["10.0.2.2"]


def test_nonces_of_ended_subscriptions_are_bounded_and_the_next_is_above_what_was_let_go() -> None:
    subscriptions = Subscriptions(lambda: 10, 0)
    first = ip_network("192.168.0.1/32")
    for _ in range(100):
        subscriptions.next_nonce(first)
    last = subscriptions.next_nonce(first)
    for number in range(2 * NONCES_KEPT):
        subscriptions.next_nonce(ip_network(f"10.{number >> 8}.{number & 255}.1/32"))
    assert subscriptions.next_nonce(first) > last
    assert len(subscriptions._nonces) <= NONCES_KEPT


def test_rfc9437_5_an_xtr_that_restarts_subscribes_above_every_nonce_that_it_used() -> None:
    """The highest nonce is stored before the request leaves."""
    network = settled(Network("pubsub"))
    asked = int(network.saw("map_request_sent", "xtr-c")[0].fields["nonce"], 16)
    saved = network.nodes["xtr-c"].saved[NONCE_OWNER]
    assert saved == asked
    restarted = Subscriptions(lambda: 0, 0, saved)
    assert restarted.next_nonce(ip_network(f"{EID}/32")) > saved + NONCE_STEP


def test_an_itr_whose_subscriptions_are_answered_with_silence_asks_without_and_tries_again_later() -> None:
    network = settled(Network("pubsub"))
    network.faults = lambda source, destination, payload, count: (
        [] if destination == RLOCS["xtr-c"] and isinstance(decode_control(payload), MapNotify) else [10 * MS_NS]
    )
    asked = network.now
    network.give("xtr-c", ControlReceived(smr_of(EID), RLOCS["xtr-a"], 4342))
    network.run_for(20 * SECOND_NS)
    (answered,) = network.saw("map_reply_received", "xtr-c", since_ns=asked)
    assert answered.fields["transmissions"] == MOST_SUBSCRIPTION_REQUESTS + 1
    network.faults = lambda source, destination, payload, count: [10 * MS_NS]
    network.run_for(60 * SECOND_NS)
    assert network.saw("subscription_acknowledged", "xtr-c", since_ns=answered.at_ns)


def smr_of(eid: Address) -> bytes:
    flags = MapRequestFlag.SMR | MapRequestFlag.DONT_MAP_REPLY
    return MapRequest(1, (RLOCS["xtr-a"],), (RequestedEid(host_eid(eid)),), source_eid=eid, flags=flags).encode()


def test_rfc9437_5_who_subscribes_beyond_the_limit_gets_a_map_reply() -> None:
    server = Server(MapServerOptions(map_reply_interval_s=0, subscriptions=1), mechanism="pubsub")
    server.register("192.168.3.0/24", site="c", source=RLOC_C)
    for number, eid in enumerate((MOBILE_EID, "192.168.0.11/32"), start=1):
        server.register(eid, nonce=number)
    assert [type(decode_control(sent.payload)) for sent in sends(subscribe(server, FIRST))] == [MapNotify]
    actions = server.request("192.168.0.11/32", nonce=FIRST, subscribe=True, xtr=IDENTITY)
    assert [type(decode_control(sent.payload)) for sent in sends(actions)] == [MapReply]
    assert [event["reason"] for event in events(actions, "subscription_refused")] == ["full"]
    assert [type(decode_control(sent.payload)) for sent in sends(subscribe(server, FIRST + 1))] == [MapNotify]


@pytest.mark.parametrize(("nonce", "kind"), [(OUT_OF_REACH - 1, MapNotify), (OUT_OF_REACH, MapReply)])
def test_rfc9437_7_nothing_is_signed_under_a_nonce_that_no_itr_comes_to(nonce: int, kind: type) -> None:
    server = publisher()
    subscribe(server, FIRST)
    actions = subscribe(server, nonce)
    assert [type(decode_control(sent.payload)) for sent in sends(actions)] == [kind]
    refused = [event["reason"] for event in events(actions, "subscription_refused")]
    assert refused == (["nonce out of reach"] if kind is MapReply else [])


@pytest.mark.parametrize(
    ("ahead", "kind"),
    [(0, MapNotify), (1, MapReply), (2 * FURTHEST_AHEAD, MapReply), (2 * FURTHEST_AHEAD + 1, MapNotify)],
)
def test_rule_8_nothing_is_signed_for_a_subscription_that_its_xtr_may_take_for_a_fence(ahead: int, kind: type) -> None:
    server = publisher()  # the subscriber's last Map-Register had the nonce 1
    assert [type(decode_control(sent.payload)) for sent in sends(subscribe(server, 1 + ahead))] == [kind]


def test_a_loss_is_no_publication_though_a_wider_prefix_is_subscribed_to() -> None:
    network = settled(Network("pubsub"))
    itr = network.nodes["xtr-a"].machine._itr  # type: ignore[union-attr]
    itr.subscriptions.acknowledged(MOBILE, itr.subscriptions.next_nonce(MOBILE), network.now)
    for site, other in (("xtr-b", "xtr-a"), ("xtr-a", "xtr-b"), ("xtr-b", "xtr-a")):
        network.sight(site)
        network.run_for(SECOND_NS)
        assert (network.owner(), network.host_state(other)) == (site, "away")
    assert not network.saw("publication_received", "xtr-a")
