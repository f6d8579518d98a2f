"""Publications under a prefix that is wider than what moves: none is lost behind a later one (RFC 9437 §6)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

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
)
from tests.unit.lisp_network import EID, MOBILE, MS_NS, RLOCS, Network, settled, site_secret
from tests.unit.lisp_server import RLOC_A, RLOC_B, RLOC_C, SECRETS, SITES, Server, sends

OTHER = ip_address("192.168.0.11")
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
    """Both guests are at A; whatever of their prefix is nowhere else is at its home site, H."""
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
    sight(network, "xtr-a", OTHER)
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


def test_a_publication_that_is_lost_is_in_the_next_one() -> None:
    network = subscribed_to_all()
    network.faults = lambda source, destination, payload, count: (
        [] if is_publication(payload, destination) else [10 * MS_NS]
    )
    sight(network, "xtr-b", EID)
    network.run_for(100 * MS_NS)
    network.faults = lambda source, destination, payload, count: [10 * MS_NS]
    sight(network, "xtr-b", OTHER)
    network.run_for(100 * MS_NS)
    moved = {f"{each}/32": str(RLOCS["xtr-b"]) for each in (EID, OTHER)}
    assert {eid: rloc for eid, rloc in rlocs(network).items() if eid in moved} == moved
    network.run_for(20 * SECOND_NS)
    unacknowledged = network.nodes["ms"].machine.inspect(network.now)["unacknowledged"]
    assert [each for each in unacknowledged if each["reason"] == "publication"] == []


def test_publications_that_overtake_each_other_lose_nothing() -> None:
    network = subscribed_to_all()
    network.faults = lambda source, destination, payload, count: [
        (60 if is_publication(payload, destination) else 10) * MS_NS
    ]
    sight(network, "xtr-b", EID)
    network.run_for(15 * MS_NS)
    network.faults = lambda source, destination, payload, count: [10 * MS_NS]
    sight(network, "xtr-b", OTHER)
    network.run_for(85 * MS_NS)
    moved = {f"{each}/32": str(RLOCS["xtr-b"]) for each in (EID, OTHER)}
    assert {eid: rloc for eid, rloc in rlocs(network).items() if eid in moved} == moved


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


def test_what_is_acknowledged_is_not_said_again() -> None:
    server = wide_subscriber()
    (first,) = publications(server.register("192.168.0.10/32", nonce=2))
    (second,) = publications(server.register("192.168.0.11/32", nonce=3))
    assert (second.nonce, eids(second)) == (first.nonce + 1, ["192.168.0.10/32", "192.168.0.11/32"])
    assert acknowledge(server, second) == []
    (third,) = publications(server.register("192.168.0.12/32", nonce=4))
    assert (third.nonce, eids(third)) == (second.nonce + 1, ["192.168.0.12/32"])


def test_what_changed_since_it_was_said_is_not_acknowledged_with_that() -> None:
    server = wide_subscriber()
    (first,) = publications(server.register("192.168.0.10/32", nonce=2))
    (again,) = publications(server.register("192.168.0.10/32", nonce=9, site="b", source=RLOC_B))
    assert eids(again) == ["192.168.0.10/32"]
    acknowledge(server, first)
    assert [each["eids"] for each in server.machine.inspect(0)["unacknowledged"] if each["peer"] == str(RLOC_C)] == [
        ["192.168.0.10/32"]
    ]


def test_more_than_a_message_holds_is_said_when_the_first_is_acknowledged() -> None:
    server = wide_subscriber()
    hosts = [str(each) for each in MOBILE.subnets(new_prefix=32)]
    said: list[MapNotify] = []
    for nonce, eid in enumerate(hosts, start=2):
        said = publications(server.register(eid, nonce=nonce))
    (last,) = said
    assert eids(last) == hosts[:MAX_RECORDS]
    (rest,) = publications(acknowledge(server, last))
    assert (rest.nonce, eids(rest)) == (last.nonce + 1, hosts[MAX_RECORDS:])
    assert publications(acknowledge(server, rest)) == []


def test_a_subscriber_that_gets_the_eid_itself_is_not_told_any_more_that_it_is_elsewhere() -> None:
    server = Server(mechanism="pubsub", sites=WITH_HOME)
    server.register("192.168.0.99/32", site="b", source=RLOC_B)
    server.register(str(MOBILE), source=RLOC_H, secret=HOME)
    identity = XtrIdentity(int(RLOC_B))
    answer = server.request(str(MOBILE), nonce=FIRST, subscribe=True, xtr=identity, itr_rlocs=(RLOC_B,))
    (answered,) = [message for sent in sends(answer) if isinstance(message := decode_control(sent.payload), MapNotify)]
    ack = MapNotifyAck(answered.nonce, answered.records, xtr=identity)
    server.receive(SECRETS["b"].seal(ack), RLOC_B)
    for nonce, eid in ((2, "192.168.0.10/32"), (3, "192.168.0.11/32")):
        server.register(eid, nonce=nonce, site="a", source=RLOC_A)
    server.register("192.168.0.10/32", nonce=4, site="b", source=RLOC_B)
    untold = [each for each in server.machine.inspect(0)["unacknowledged"] if each["reason"] == "publication"]
    assert [each["eids"] for each in untold] == [["192.168.0.11/32"]]
    server.register("192.168.0.11/32", nonce=5, site="b", source=RLOC_B)
    assert [each for each in server.machine.inspect(0)["unacknowledged"] if each["reason"] == "publication"] == []
