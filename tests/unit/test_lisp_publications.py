"""Publications under a prefix that is wider than what moves: none is lost behind a later one (RFC 9437 §6)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from testbed.lisp.actions import SECOND_NS, Action, Address
from testbed.lisp.config import SiteConfig
from testbed.lisp.inputs import ControlReceived, HostSighted, Started
from testbed.lisp.sightings import Sighting, SightingKind
from testbed.lisp.wire import (
    MAX_RECORDS,
    EidPrefix,
    EidRecord,
    LocatorFlag,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapRegisterFlag,
    RlocRecord,
    XtrIdentity,
    decode_control,
    host_eid,
)
from tests.unit.lisp_network import EID, MAP_SERVER, MOBILE, MS_NS, RLOCS, Network, settled, site_secret
from tests.unit.lisp_server import RLOC_B, RLOC_C, SECRETS, SITES, Server, events, sends

#: C talks to EID and is subscribed to it by itself; to these only as parts of their prefix.
OTHER, THIRD = ip_address("192.168.0.11"), ip_address("192.168.0.12")
#: Of the site that has the whole prefix.
RLOC_H = ip_address("10.0.9.2")
HOME = site_secret("home")
WITH_HOME = (*SITES, SiteConfig("home", (MOBILE,), (), HOME))
#: The first nonce of a subscription that a test makes itself.
FIRST = 1 << 60  # far from the nonces of Map-Registers


def sight(network: Network, site: str, eid: Address) -> None:
    mac = f"00:16:3e:00:00:{int(eid) & 0xFF:02x}"
    network.give(site, HostSighted(Sighting(SightingKind.GRATUITOUS_ARP, mac, eid), network.now))


def home() -> Network:
    """The guests are at A; whatever of their prefix is nowhere else is at its home site, H."""
    network = Network("pubsub", start=False)
    network._server = replace(network._server, sites=(*network._server.sites, WITH_HOME[-1]))
    network.restart_map_server()
    for name in RLOCS:
        network.give(name, Started())
    network.run_for(SECOND_NS)
    settled(network)
    record = EidRecord(EidPrefix(MOBILE), 1440, (RlocRecord(RLOC_H, flags=LocatorFlag.REACHABLE),))
    message = MapRegister(1, (record,), flags=MapRegisterFlag.PROXY_REPLY, xtr=XtrIdentity(99))
    network.give("ms", ControlReceived(HOME.seal(message), RLOC_H, 4342))
    for eid in (OTHER, THIRD):
        sight(network, "xtr-a", eid)
    network.run_for(SECOND_NS)
    return network


def subscribe(network: Network) -> None:
    """C asks for the whole prefix, as it does when an entry of that size is renewed."""
    node = network.nodes["xtr-c"]
    network._carry_out(node, node.machine._itr._ask(MOBILE, network.now))  # type: ignore[union-attr]


def subscribed_to_all() -> Network:
    """C is subscribed to the whole dynamic prefix."""
    network = home()
    subscribe(network)
    network.run_for(SECOND_NS)
    (subscription,) = [
        each for each in network.nodes["ms"].machine.inspect(network.now)["subscriptions"] if each["eid"] == str(MOBILE)
    ]
    assert subscription["itr_rloc"] == str(RLOCS["xtr-c"])
    return network


def rlocs(network: Network, site: str = "xtr-c") -> dict[str, str]:
    """What a site's map-cache has of the guests."""
    entries = network.nodes[site].machine.inspect(network.now)["map_cache"]
    return {entry["eid"]: entry["locators"][0]["rloc"] for entry in entries if entry["locators"]}


def is_publication(payload: bytes, destination: Address) -> bool:
    return destination == RLOCS["xtr-c"] and isinstance(decode_control(payload), MapNotify)


@pytest.mark.parametrize("arrivals_ns", [[], [60 * MS_NS]], ids=["lost", "overtaken"])
def test_a_publication_that_does_not_come_in_time_is_in_the_next_one(arrivals_ns: list[int]) -> None:
    network = subscribed_to_all()
    network.faults = lambda source, destination, payload, count: (
        arrivals_ns if is_publication(payload, destination) else [10 * MS_NS]
    )
    sight(network, "xtr-b", OTHER)
    network.run_for(15 * MS_NS)
    network.faults = lambda source, destination, payload, count: [10 * MS_NS]
    sight(network, "xtr-b", THIRD)
    network.run_for(85 * MS_NS)
    moved = {f"{each}/32": str(RLOCS["xtr-b"]) for each in (OTHER, THIRD)}
    assert {eid: rloc for eid, rloc in rlocs(network).items() if eid in moved} == moved
    network.run_for(20 * SECOND_NS)
    unacknowledged = network.nodes["ms"].machine.inspect(network.now)["unacknowledged"]
    assert [each for each in unacknowledged if each["reason"] == "publication"] == []


def test_an_answer_that_is_lost_before_a_publication_is_asked_for_again() -> None:
    """The publication says nothing to who does not know of its subscription; the next answer has it all."""
    network = home()
    lost = 0

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        nonlocal lost
        if is_publication(payload, destination) and not lost:
            lost += 1
            return []
        return [10 * MS_NS]

    network.faults = faults
    subscribe(network)
    network.run_for(15 * MS_NS)
    sight(network, "xtr-b", OTHER)
    network.run_for(10 * SECOND_NS)
    assert lost == 1
    assert rlocs(network)[f"{OTHER}/32"] == str(RLOCS["xtr-b"])


def test_what_has_come_here_since_is_left_out_of_a_publication_that_has_more() -> None:
    network = home()
    sight(network, "xtr-b", EID)
    network.run_for(SECOND_NS)
    itr = network.nodes["xtr-b"].machine._itr  # type: ignore[union-attr]
    itr.subscriptions.acknowledged(MOBILE, FIRST, network.now)
    at_a = (RlocRecord(RLOCS["xtr-a"], flags=LocatorFlag.REACHABLE),)
    records = tuple(EidRecord(host_eid(each), 1440, at_a) for each in (EID, OTHER))
    notify = MapNotify(FIRST + 1, records)
    network.give("xtr-b", ControlReceived(site_secret("xtr-b").seal(notify), MAP_SERVER, 4342))
    assert network.host_state("xtr-b") == "local"
    assert rlocs(network, "xtr-b") == {f"{OTHER}/32": str(RLOCS["xtr-a"])}


def publications(actions: list[Action]) -> list[MapNotify]:
    messages = [decode_control(sent.payload) for sent in sends(actions) if sent.destination == RLOC_C]
    return [message for message in messages if isinstance(message, MapNotify)]


def eids(notify: MapNotify) -> list[str]:
    return [str(record.eid.prefix) for record in notify.records if isinstance(record.eid, EidPrefix)]


def wide_subscriber() -> Server:
    """A Map-Server that C subscribed to the whole dynamic prefix, which C knows."""
    server = Server(mechanism="pubsub", sites=WITH_HOME)
    server.register("192.168.3.0/24", site="c", source=RLOC_C)
    server.register(str(MOBILE), source=RLOC_H, secret=HOME)
    identity = XtrIdentity(int(RLOC_C))
    (answer,) = publications(server.request(str(MOBILE), nonce=FIRST, subscribe=True, xtr=identity))
    acknowledge(server, answer)
    return server


def acknowledge(server: Server, notify: MapNotify) -> list[Action]:
    ack = MapNotifyAck(notify.nonce, notify.records, xtr=XtrIdentity(int(RLOC_C)))
    return server.receive(SECRETS["c"].seal(ack), RLOC_C)


def unacknowledged(server: Server) -> list[list[str]]:
    """The EIDs of each publication that waits for its acknowledgement."""
    waiting = server.machine.inspect(server.now)["unacknowledged"]
    return [each["eids"] for each in waiting if each["reason"] == "publication"]


def test_what_is_acknowledged_is_not_said_again() -> None:
    server = wide_subscriber()
    (first,) = publications(server.register("192.168.0.10/32", nonce=2))
    (second,) = publications(server.register("192.168.0.11/32", nonce=3))
    assert (second.nonce, eids(second)) == (first.nonce + 1, ["192.168.0.11/32", "192.168.0.10/32"])
    acknowledge(server, second)
    assert unacknowledged(server) == []
    (third,) = publications(server.register("192.168.0.12/32", nonce=4))
    assert (third.nonce, eids(third)) == (second.nonce + 1, ["192.168.0.12/32"])


def test_an_acknowledgement_counts_though_the_next_publication_has_left() -> None:
    server = wide_subscriber()
    said = [publications(server.register(f"192.168.0.{host}/32", nonce=host))[0] for host in (10, 11, 12)]
    acknowledge(server, said[0])
    assert [each[0] for each in unacknowledged(server)] == ["192.168.0.11/32", "192.168.0.12/32"]
    (fourth,) = publications(server.register("192.168.0.13/32", nonce=13))
    assert eids(fourth) == ["192.168.0.13/32", "192.168.0.11/32", "192.168.0.12/32"]
    acknowledge(server, fourth)
    assert unacknowledged(server) == []


def test_what_changed_since_it_was_said_is_not_acknowledged_with_that() -> None:
    server = wide_subscriber()
    publications(server.register("192.168.0.10/32", nonce=2))
    (second,) = publications(server.register("192.168.0.11/32", nonce=3))
    (again,) = publications(server.register("192.168.0.10/32", nonce=9, site="b", source=RLOC_B))
    assert eids(again) == ["192.168.0.10/32", "192.168.0.11/32"]
    acknowledge(server, second)
    assert unacknowledged(server) == [["192.168.0.10/32", "192.168.0.11/32"]]
    (third,) = publications(server.register("192.168.0.12/32", nonce=10))
    assert eids(third) == ["192.168.0.12/32", "192.168.0.10/32"]


def test_what_a_message_does_not_hold_waits_for_its_own_acknowledgement() -> None:
    server = wide_subscriber()
    hosts = [str(each) for each in MOBILE.subnets(new_prefix=32)]
    said: list[MapNotify] = []
    for nonce, eid in enumerate(hosts, start=2):
        said = publications(server.register(eid, nonce=nonce))
    (last,) = said
    assert eids(last) == [hosts[-1], *hosts[: MAX_RECORDS - 1]]
    acknowledge(server, last)
    assert [each[0] for each in unacknowledged(server)] == [hosts[MAX_RECORDS - 1]]


def test_who_subscribes_again_is_told_nothing_any_more_under_the_old_subscription() -> None:
    server = wide_subscriber()
    server.register("192.168.0.10/32", nonce=2)
    (second,) = publications(server.register("192.168.0.11/32", nonce=3))
    identity = XtrIdentity(int(RLOC_C))
    (answer,) = publications(server.request(str(MOBILE), nonce=FIRST + 9, subscribe=True, xtr=identity))
    assert answer.nonce > second.nonce
    assert {"192.168.0.10/32", "192.168.0.11/32"} < {*eids(answer)}
    assert unacknowledged(server) == []
    acknowledge(server, answer)
    server.run_for(170)
    assert [each["eid"] for each in server.machine.inspect(server.now)["subscriptions"]] == [str(MOBILE)]


def test_who_is_silent_is_told_once_that_its_subscription_has_ended() -> None:
    server = wide_subscriber()
    for host in (10, 11):
        server.register(f"192.168.0.{host}/32", nonce=host)
    ended = events(server.run_for(170), "subscription_ended")
    assert [(each["eid"], each["reason"]) for each in ended] == [(str(MOBILE), "silent")]
    assert unacknowledged(server) == []


def test_a_subscriber_that_gets_the_eid_itself_is_not_told_any_more_that_it_is_elsewhere() -> None:
    server = Server(mechanism="pubsub", sites=WITH_HOME)
    server.register("192.168.0.99/32", site="b", source=RLOC_B)
    server.register(str(MOBILE), source=RLOC_H, secret=HOME)
    identity = XtrIdentity(int(RLOC_B))
    server.request(str(MOBILE), nonce=FIRST, subscribe=True, xtr=identity, itr_rlocs=(RLOC_B,))
    server.register("192.168.0.10/32", nonce=2)
    assert unacknowledged(server) == [["192.168.0.10/32"]]
    server.register("192.168.0.10/32", nonce=4, site="b", source=RLOC_B)
    assert unacknowledged(server) == []
